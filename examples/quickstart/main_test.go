package main

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const life = `failed: the weather service answers 503
failed: the weather service answers 503
failed: the weather service answers 503
refused, nothing was called: 3 consecutive failures >= 3
no forecast today (from default)
sunny in Oslo (from primary), and the breaker is closed
`

// On a fake clock, so that what it waits for is all that takes time.
func TestItShowsAWholeLifeInLessThanTwoSeconds(t *testing.T) {
	said, err := os.Create(t.TempDir() + "/said")
	require.NoError(t, err)
	old := os.Stdout
	os.Stdout = said
	defer func() { os.Stdout = old }()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		main()
		require.Less(t, time.Since(begun), 2*time.Second)
	})
	require.NoError(t, said.Close())
	text, err := os.ReadFile(said.Name())
	require.NoError(t, err)
	require.Equal(t, life, string(text))
}
