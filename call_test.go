package breaker

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFailuresInARowAreCountedUpToTheLargestNumber(t *testing.T) {
	cfg, err := Config{FailureThreshold: Off, FailureRateThreshold: Off}.resolve()
	require.NoError(t, err)
	for before, want := range map[int]int{0: 1, math.MaxInt - 1: math.MaxInt, math.MaxInt: math.MaxInt} {
		m := newMachine("x", cfg, time.Now())
		m.run = before
		c, refusal := m.admit(0, nil)
		require.Nil(t, refusal)
		require.True(t, m.settle(0, &c, ending{Verdict: Verdict{Outcome: Failure}}))
		require.Equal(t, want, m.run)
	}
}
