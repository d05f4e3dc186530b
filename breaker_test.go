package breaker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errBoom = errors.New("boom")

func fail(b *Breaker, n int) {
	for range n {
		_ = b.Do(context.Background(), func(context.Context) error { return errBoom })
	}
}

func succeed(b *Breaker, n int) (err error) {
	for range n {
		err = errors.Join(err, b.Do(context.Background(), func(context.Context) error { return nil }))
	}
	return err
}

func TestABreakerOpensRefusesProbesAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Must(New("payments", Config{OpenTimeoutJitter: Off}))
		fail(b, 4)
		require.Equal(t, StateClosed, b.State())
		fail(b, 1)
		require.Equal(t, StateOpen, b.State())
		err := succeed(b, 1)
		require.ErrorIs(t, err, ErrOpen)
		require.EqualError(t, err, `breaker: "payments" is open: 5 consecutive failures >= 5; retry after 30s`)
		time.Sleep(30*time.Second - 1)
		require.Equal(t, StateOpen, b.State())
		time.Sleep(1)
		require.Equal(t, StateHalfOpen, b.State())
		require.NoError(t, succeed(b, 2))
		require.Equal(t, StateHalfOpen, b.State())
		require.NoError(t, succeed(b, 1))
		require.Equal(t, StateClosed, b.State())
	})
}

func TestNothingIsAllocatedOnTheHotPath(t *testing.T) {
	ctx := context.Background()
	call := func(context.Context) (int, error) { return 1, nil }
	do := func(context.Context) error { return nil }
	for name, cfg := range map[string]Config{
		"by default":              {},
		"slow rule on":            {SlowCallDuration: time.Second},
		"a look for each call":    {SlowCallDuration: 1},
		"window of time":          {WindowDuration: time.Minute},
		"successes that may trip": {FailureThreshold: Off, FailureRateThreshold: 0.1, MinimumCalls: 1000, WindowCalls: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			b := Must(New("x", cfg))
			if cfg.FailureRateThreshold > 0 {
				fail(b, 100)
			}
			require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = Execute(ctx, b, call) }), "Execute")
			require.Zero(t, testing.AllocsPerRun(100, func() { _ = b.Do(ctx, do) }), "Do")
			b.Trip("")
			require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = Execute(ctx, b, call) }), "refusal")
		})
	}
}

// The hints are set only while they have something to say: each spares a lock, or a look at the caller's context.
func TestHintsAreSetNoLongerThanTheyHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Must(New("x", Config{SuccessThreshold: 1, RampUp: time.Minute}))
		requireHints := func(probing bool) {
			t.Helper()
			require.Equal(t, []bool{probing, false}, []bool{b.probing.Load(), b.undelivered.Load()})
		}
		b.Trip("")
		requireHints(false)
		time.Sleep(b.Config().MaxOpenTimeout)
		p, err := b.Acquire(context.Background())
		require.NoError(t, err)
		requireHints(true)
		p.Done(nil)
		requireHints(false)
		_, err = b.Acquire(context.Background()) // by the lock, since it ramps
		require.NoError(t, err)
		requireHints(false)
	})
}
