package breaker_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// ramping runs a subtest on a breaker that has just closed and takes 100 s to admit every call again.
func ramping(t *testing.T, name string, f func(t *testing.T, b *breaker.Breaker)) {
	t.Helper()
	bubble(t, name, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{RampUp: 100 * time.Second, SuccessThreshold: 1, HalfOpenMaxCalls: 1, OpenTimeout: 10 * time.Second})
		b.Trip("deploy")
		time.Sleep(10 * time.Second)
		ends(b, 1, nil)
		require.Equal(t, breaker.StateClosed, b.State())
		f(t, b)
	})
}

func TestRamp(t *testing.T) {
	ramping(t, "grows linearly from a tenth to all", func(t *testing.T, b *breaker.Breaker) {
		for _, want := range []int{100, 190, 280, 370, 460, 550, 640, 730, 820, 910, 1000, 1000} {
			require.InDelta(t, want, len(admitted(b, 1000)), 1)
			time.Sleep(10 * time.Second)
		}
	})
	ramping(t, "spreads the admitted calls evenly, not by dice", func(t *testing.T, b *breaker.Breaker) {
		time.Sleep(50 * time.Second) // 55 %
		longest, run := 0, 0
		for range 1000 {
			if refuses(b) {
				run++
			} else {
				run = 0
			}
			longest = max(longest, run)
		}
		require.Equal(t, 1, longest, "more than half are admitted, so no two refusals in a row")
	})
	ramping(t, "admits the first call", func(t *testing.T, b *breaker.Breaker) {
		require.NoError(t, end(b, nil))
		require.EqualError(t, end(b, nil), `breaker: "x" is closed: ramping up, not every call is admitted yet; opened by a trip by hand: deploy`)
		require.Equal(t, 1, b.Status().Metrics.RejectedCalls)
		require.Nil(t, b.Status().RetryAfterSeconds)
	})
	ramping(t, "ends at exactly RampUp", func(t *testing.T, b *breaker.Breaker) {
		time.Sleep(100*time.Second - 1)
		require.Equal(t, "deploy", b.Status().Trip.Reason, "why it was open is still told")
		time.Sleep(1)
		require.Nil(t, b.Status().Trip)
		require.Len(t, admitted(b, 1000), 1000)
	})
	ramping(t, "has the rules of closed, and a trip during it goes on doubling", func(t *testing.T, b *breaker.Breaker) {
		for range 50 {
			ends(b, 1, errDown)
		}
		require.Equal(t, "5 consecutive failures >= 5", b.Status().Trip.String())
		require.Equal(t, 20*time.Second, left(b))
		time.Sleep(20 * time.Second)
		ends(b, 1, errDown)
		require.Equal(t, 40*time.Second, left(b))
	})
	ramping(t, "forgets the doubling at its end", func(t *testing.T, b *breaker.Breaker) {
		time.Sleep(100 * time.Second)
		ends(b, 5, errDown)
		require.Equal(t, 10*time.Second, left(b))
	})
	ramping(t, "does not forget it a nanosecond before", func(t *testing.T, b *breaker.Breaker) {
		time.Sleep(100*time.Second - 1)
		ends(b, 10, errDown)
		require.Equal(t, 20*time.Second, left(b))
	})
	ramping(t, "a trip by hand during it does not double", func(t *testing.T, b *breaker.Breaker) {
		b.Trip("again")
		require.Equal(t, 10*time.Second, left(b))
	})
	bubble(t, "is one however short", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{RampUp: 1, SuccessThreshold: 1})
		toHalfOpen(t, b)
		ends(b, 1, nil)
		require.Len(t, admitted(b, 10), 1)
		time.Sleep(1)
		require.Len(t, admitted(b, 10), 10)
	})
	ramping(t, "runs on under a hold, which decides alone", func(t *testing.T, b *breaker.Breaker) {
		b.Disable(breaker.Hold{})
		require.Len(t, admitted(b, 100), 100)
		time.Sleep(50 * time.Second)
		b.Release()
		require.InDelta(t, 550, len(admitted(b, 1000)), 1)
	})
}
