package breaker_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// The examples of the two requirement documents, with their numbers.

// Requests 1 to 5 are S, S, F, F, F; 6 to 100 are refused; after 30 s request 101 is the test request, and 102 is normal again.
func TestFiveRequestsOfTheFirstDocument(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{FailureRateThreshold: 0.5, MinimumCalls: 5, OpenTimeout: 30 * time.Second, HalfOpenMaxCalls: 1, SuccessThreshold: 1})
		succeeds := func(b *breaker.Breaker) { require.NoError(t, end(b, nil)) }
		fails := func(b *breaker.Breaker) { require.Equal(t, errDown, end(b, errDown)) }
		refused := func(b *breaker.Breaker) {
			for range 95 {
				require.ErrorIs(t, end(b, nil), breaker.ErrOpen)
			}
		}
		play(t, b, []step{
			{"request 1 succeeds", 0, succeeds, breaker.StateClosed},
			{"request 2 succeeds", 0, succeeds, breaker.StateClosed},
			{"request 3 fails: 33 %", 0, fails, breaker.StateClosed},
			{"request 4 fails: 50 % of four calls, too few to judge", 0, fails, breaker.StateClosed},
			{"request 5 fails: 60 % of five", 0, fails, breaker.StateOpen},
			{"requests 6 to 100 are refused", 0, refused, breaker.StateOpen},
			{"just before 30 s", 30*time.Second - 1, nil, breaker.StateOpen},
			{"after 30 s it probes", 1, nil, breaker.StateHalfOpen},
			{"request 101, the test request, succeeds", 0, succeeds, breaker.StateClosed},
			{"request 102 is normal", 0, succeeds, breaker.StateClosed},
		})
		s := b.Status()
		require.Equal(t, 4, s.Metrics.SuccessfulCalls)
		require.Equal(t, 3, s.Metrics.FailedCalls)
		require.Equal(t, 95, s.Metrics.RejectedCalls)
	})
}

func TestTheFifthRequestOpensForItsFailureRate(t *testing.T) {
	b := newBreaker(t, breaker.Config{FailureRateThreshold: 0.5, MinimumCalls: 5})
	ends(b, 2, nil)
	ends(b, 3, errDown)
	trip := b.Status().Trip
	require.Equal(t, breaker.RuleFailureRate, trip.Rule)
	require.Equal(t, 0.6, trip.Observed)
	require.Equal(t, "failure rate 0.60 >= 0.50 over 5 calls", trip.String())
}

// rfcBreaker returns one of the RFC's services, as its unchanged file configures it; what that leaves out has this library's
// defaults, jitter among them.
func rfcBreaker(t *testing.T, service string) *breaker.Breaker {
	t.Helper()
	file, err := breaker.LoadFile("testdata/circuit_breaker_config.yaml")
	require.NoError(t, err)
	registry, err := breaker.NewRegistry(file.Breakers)
	require.NoError(t, err)
	return registry.Breaker(service)
}

func TestTheRFCsCycleOfEachService(t *testing.T) {
	for _, c := range []struct {
		service   string
		successes int // before the failures
		failures  int // that open it
		why       string
		timeout   time.Duration
		probes    int // that close it
	}{
		{"default", 0, 5, "5 consecutive failures >= 5", 30 * time.Second, 3},
		{"payment_service", 0, 3, "3 consecutive failures >= 3", 60 * time.Second, 5},
		{"inventory_service", 0, 10, "10 consecutive failures >= 10", 20 * time.Second, 3},
		{"notification_service", 0, 10, "failure rate 1.00 >= 0.50 over 10 calls", 10 * time.Second, 2},
		{"notification_service", 16, 15, "15 consecutive failures >= 15", 10 * time.Second, 2},
	} {
		bubble(t, c.service+" opens: "+c.why, func(t *testing.T) {
			b := rfcBreaker(t, c.service)
			ends(b, c.successes, nil)
			ends(b, c.failures-1, errDown)
			require.Equal(t, breaker.StateClosed, b.State())
			ends(b, 1, errDown)
			require.Equal(t, c.why, b.Status().Trip.String())

			refusal, _ := errors.AsType[*breaker.OpenError](end(b, nil))
			require.GreaterOrEqual(t, refusal.RetryAfter(), c.timeout)
			require.Less(t, refusal.RetryAfter(), c.timeout*11/10)
			time.Sleep(refusal.RetryAfter() - 1)
			require.True(t, refuses(b), "one nanosecond early")
			time.Sleep(1)
			require.Equal(t, breaker.StateHalfOpen, b.State())

			inFlight := admitted(b, 10)
			require.Len(t, inFlight, 3, "half_open_max_calls")
			early := min(3, c.probes-1)
			for _, p := range inFlight[:early] {
				p.Done(nil)
			}
			ends(b, c.probes-1-early, nil)
			require.Equal(t, breaker.StateHalfOpen, b.State())
			ends(b, 1, nil)
			require.Equal(t, breaker.StateClosed, b.State())
			require.Zero(t, b.Status().ConsecutiveFailures)
		})
	}
}

func TestTheRFCsSlowCallsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := rfcBreaker(t, "default")
		last := func(d time.Duration) {
			p := acquire(t, b)
			time.Sleep(d)
			p.Done(nil)
		}
		last(2 * time.Second) // exactly the threshold: not slow
		last(2 * time.Second)
		for range 7 {
			last(2*time.Second + 1)
		}
		require.Equal(t, breaker.StateClosed, b.State(), "7 of 9, and below ten calls")
		last(2*time.Second + 1)
		require.Equal(t, "slow-call rate 0.80 >= 0.80 over 10 calls", b.Status().Trip.String())
	})
}
