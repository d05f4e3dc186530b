package breaker_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// The listener dies while the first call after the open timeout is being admitted: that call never runs, so it must not keep
// the only place of half-open, nor be in flight for ever.
func TestAListenerThatDiesOnTheWayInCostsNoPlace(t *testing.T) {
	for name, die := range map[string]func(){"panic": func() { panic("listener") }, "goexit": runtime.Goexit} {
		bubble(t, name, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{HalfOpenMaxCalls: 1, SuccessThreshold: 1}, breaker.WithListener(func(e breaker.Event) {
				if e.Rule == breaker.RuleOpenTimeout {
					die()
				}
			}))
			b.Trip("")
			time.Sleep(30 * time.Second)
			exits(func() { _ = caught(func() { _ = end(b, nil) }) })
			require.Zero(t, b.Status().Metrics.InFlight)
			require.NoError(t, end(b, nil))
			require.Equal(t, breaker.StateClosed, b.State())
		})
	}
}
