package breaker_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// left is how long an open breaker stays so.
func left(b *breaker.Breaker) time.Duration {
	if refusal, ok := errors.AsType[*breaker.OpenError](end(b, nil)); ok {
		return refusal.RetryAfter()
	}
	return 0
}

func TestOpenRefusesUntilExactlyItsWaitHasPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{OpenTimeout: time.Minute})
		b.Trip("")
		play(t, b, []step{
			{"at once", 0, nil, breaker.StateOpen},
			{"a nanosecond early", time.Minute - 1, nil, breaker.StateOpen},
			{"at exactly that instant", 1, nil, breaker.StateHalfOpen},
			{"a nanosecond later", 1, nil, breaker.StateHalfOpen},
		})
		b.Reset("")
		b.Trip("")
		time.Sleep(time.Minute - 1)
		require.ErrorIs(t, end(b, nil), breaker.ErrOpen)
		time.Sleep(1)
		require.NoError(t, end(b, nil), "a call is admitted at that instant, though nobody looked before")
	})
}

func TestReopeningsDouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{OpenTimeout: 10 * time.Second, MaxOpenTimeout: 45 * time.Second, SuccessThreshold: 1})
		ends(b, 5, errDown)
		for _, wait := range []time.Duration{10, 20, 40, 45, 45} {
			require.Equal(t, wait*time.Second, left(b))
			time.Sleep(wait * time.Second)
			ends(b, 1, errDown)
		}
		time.Sleep(45 * time.Second)
		ends(b, 1, nil)
		require.Equal(t, breaker.StateClosed, b.State())
		ends(b, 5, errDown)
		require.Equal(t, 10*time.Second, left(b), "forgotten on close")
	})
}

func TestWhichReopeningsDouble(t *testing.T) {
	cfg := breaker.Config{OpenTimeout: 10 * time.Second, HalfOpenMaxCalls: 2, ProbeTimeout: 5 * time.Second, SlowCallDuration: 2 * time.Second}
	for rule, c := range map[breaker.Rule]struct {
		do   func(b *breaker.Breaker)
		wait time.Duration
		next time.Duration // of another failed probe after it
	}{
		breaker.RuleProbeFailed:  {func(b *breaker.Breaker) { ends(b, 1, errDown) }, 20 * time.Second, 40 * time.Second},
		breaker.RuleProbeSlow:    {func(b *breaker.Breaker) { admitted(b, 1); time.Sleep(2*time.Second + 1) }, 20*time.Second - 1, 40 * time.Second},
		breaker.RuleProbeLost:    {func(b *breaker.Breaker) { admitted(b, 1)[0].Progress(); time.Sleep(5 * time.Second) }, 20 * time.Second, 40 * time.Second},
		breaker.RuleProbeIgnored: {func(b *breaker.Breaker) { ends(b, 2, breaker.Ignore(errDown)) }, 10 * time.Second, 20 * time.Second},
		breaker.RuleManual:       {func(b *breaker.Breaker) { b.Trip("by hand") }, 10 * time.Second, 20 * time.Second},
		breaker.RuleRetryAfter:   {func(b *breaker.Breaker) { ends(b, 1, breaker.OpenFor(breaker.Ignore(errDown), 7*time.Second)) }, 7 * time.Second, 20 * time.Second},
	} {
		bubble(t, string(rule), func(t *testing.T) {
			b := newBreaker(t, cfg)
			b.Trip("")
			time.Sleep(10 * time.Second)
			c.do(b)
			require.Equal(t, c.wait, left(b))
			require.Equal(t, rule, b.Status().Trip.Rule)
			time.Sleep(c.wait)
			ends(b, 1, errDown)
			require.Equal(t, c.next, left(b))
		})
	}
}

func TestALateResultMovesNothingButByOpenFor(t *testing.T) {
	bubble(t, "an OpenFor of the period that this opening ended lengthens it", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		late := admitted(b, 4)
		ends(b, 5, errDown)
		late[0].Done(breaker.OpenFor(errDown, time.Minute))
		require.Equal(t, time.Minute, left(b))
		late[1].Done(breaker.OpenFor(errDown, 59*time.Second))
		require.Equal(t, time.Minute, left(b), "never shortened")
		late[2].Done(breaker.OpenFor(breaker.Ignore(errDown), time.Hour))
		require.Equal(t, 10*time.Minute, left(b), "at most MaxRetryAfter; an ignored one as well")
		require.Equal(t, breaker.RuleConsecutiveFailures, b.Status().Trip.Rule, "the first cause is kept")
		time.Sleep(10*time.Minute - 1)
		require.Equal(t, breaker.StateOpen, b.State())
		time.Sleep(1)
		require.Equal(t, breaker.StateHalfOpen, b.State())
		late[3].Done(breaker.OpenFor(errDown, time.Minute))
		require.Equal(t, breaker.StateHalfOpen, b.State(), "no longer once it probes")
	})
	bubble(t, "one of an earlier period does not", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		late := acquire(t, b)
		toHalfOpen(t, b)
		ends(b, 1, errDown)
		late.Done(breaker.OpenFor(errDown, 5*time.Minute))
		require.Equal(t, time.Minute, left(b))
	})
	bubble(t, "nor one of a hold under which it was tripped, or from before", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		before := acquire(t, b)
		b.Disable(breaker.Hold{})
		late := acquire(t, b)
		b.Trip("")
		b.Release()
		before.Done(breaker.OpenFor(errDown, 5*time.Minute))
		late.Done(breaker.OpenFor(errDown, 5*time.Minute))
		require.Equal(t, 30*time.Second, left(b))
	})
	bubble(t, "nor when Retry-After is off", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{MaxRetryAfter: breaker.Off})
		late := acquire(t, b)
		b.Trip("")
		late.Done(breaker.OpenFor(errDown, 5*time.Minute))
		require.Equal(t, 30*time.Second, left(b))
	})
	bubble(t, "a refusal read before is of its time, the next one of now", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		late := acquire(t, b)
		b.Trip("")
		before, _ := errors.AsType[*breaker.OpenError](end(b, nil))
		late.Done(breaker.OpenFor(errDown, time.Minute))
		after, _ := errors.AsType[*breaker.OpenError](end(b, nil))
		require.Equal(t, []time.Duration{30 * time.Second, time.Minute}, []time.Duration{before.RetryAfter(), after.RetryAfter()})
	})
}

func TestOpenFor(t *testing.T) {
	ask := func(d time.Duration) error { return breaker.OpenFor(errDown, d) }
	for _, c := range []struct {
		name string
		cfg  breaker.Config
		errs []error
		rule breaker.Rule
		left time.Duration
	}{
		{"opens at once, shorter than the open timeout", breaker.Config{}, []error{ask(time.Second)}, breaker.RuleRetryAfter, time.Second},
		{"at most MaxRetryAfter", breaker.Config{}, []error{ask(24 * 365 * time.Hour)}, breaker.RuleRetryAfter, 10 * time.Minute},
		{"at most the MaxRetryAfter configured", breaker.Config{MaxRetryAfter: time.Minute}, []error{ask(time.Hour)}, breaker.RuleRetryAfter, time.Minute},
		{"when it is ignored too", breaker.Config{}, []error{breaker.Ignore(ask(time.Second))}, breaker.RuleRetryAfter, time.Second},
		{"of zero asks for nothing", breaker.Config{}, []error{ask(0), ask(-time.Hour)}, "", 0},
		{"is nothing when off", breaker.Config{MaxRetryAfter: breaker.Off}, []error{ask(time.Hour)}, "", 0},
		{"the longer wins: another rule", breaker.Config{FailureThreshold: 1}, []error{ask(time.Second)}, breaker.RuleConsecutiveFailures, 30 * time.Second},
		{"the longer wins: this", breaker.Config{FailureThreshold: 1}, []error{ask(31 * time.Second)}, breaker.RuleRetryAfter, 31 * time.Second},
		{"a tie goes to the other rule", breaker.Config{FailureThreshold: 1}, []error{ask(30 * time.Second)}, breaker.RuleConsecutiveFailures, 30 * time.Second},
		{"without jitter", breaker.Config{OpenTimeoutJitter: 0.9}, []error{ask(5 * time.Second)}, breaker.RuleRetryAfter, 5 * time.Second},
	} {
		bubble(t, c.name, func(t *testing.T) {
			b := newBreaker(t, c.cfg)
			for _, err := range c.errs {
				require.Equal(t, err, end(b, err))
			}
			require.Equal(t, c.left, left(b))
			if c.rule == "" {
				require.Equal(t, breaker.StateClosed, b.State())
				return
			}
			require.Equal(t, c.rule, b.Status().Trip.Rule)
		})
	}
	bubble(t, "the shortest wins over a success", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SuccessThreshold: 1}, breaker.WithClassifier(breaker.Expect(errDown)))
		ends(b, 2, nil)
		ends(b, 1, ask(1))
		require.Equal(t, time.Duration(1), left(b))
		toHalfOpen(t, b)
		ends(b, 1, ask(1))
		require.Equal(t, time.Duration(1), left(b))
	})
	require.NoError(t, breaker.OpenFor(nil, time.Hour), "nil stays nil")
	require.NoError(t, breaker.Ignore(nil), "nil stays nil")
}

func TestTripByHand(t *testing.T) {
	bubble(t, "closed: opens and recovers by itself", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.Trip("deploy")
		require.EqualError(t, end(b, nil), `breaker: "x" is open: a trip by hand: deploy; retry after 30s`)
		time.Sleep(30 * time.Second)
		ends(b, 3, nil)
		require.Equal(t, breaker.StateClosed, b.State())
	})
	bubble(t, "open: the later end, and the first cause", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		ends(b, 5, errDown)
		time.Sleep(10 * time.Second)
		b.Trip("again")
		require.Equal(t, 30*time.Second, left(b))
		require.Equal(t, breaker.RuleConsecutiveFailures, b.Status().Trip.Rule)
		require.Len(t, b.Status().Metrics.StateTransitions, 1)
		b.Reset("")
		ends(b, 1, breaker.OpenFor(errDown, 5*time.Minute))
		b.Trip("again")
		require.Equal(t, 5*time.Minute, left(b), "never shortened")
	})
	bubble(t, "without a reason", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.Trip("")
		require.EqualError(t, end(b, nil), `breaker: "x" is open: a trip by hand; retry after 30s`)
	})
}

func TestJitterOnlyLengthensAndIsDrawnOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 100 {
			b := newBreaker(t, breaker.Config{OpenTimeoutJitter: 0.5, SlowCallDuration: time.Second, MinimumCalls: 1})
			acquire(t, b)
			time.Sleep(time.Second + 1)
			first := *b.Status().RetryAfterSeconds // before the opening is stored
			require.GreaterOrEqual(t, first, 30-1e-9)
			require.Less(t, first, 45.0)
			for range 3 {
				require.Equal(t, first, *b.Status().RetryAfterSeconds)
			}
			require.Equal(t, first, left(b).Seconds(), "calls agree with getters")
		}
	})
}

func TestEachOpeningHasAJitterOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{OpenTimeoutJitter: 0.9})
		b.Trip("")
		first := left(b)
		b.Reset("")
		b.Trip("")
		require.NotEqual(t, first, left(b))
	})
}

func TestVeryLongTimesAreFarAwayAndNotInThePast(t *testing.T) {
	const ever = time.Duration(1<<63 - 1)
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{OpenTimeout: ever, OpenTimeoutJitter: 0.9, MaxRetryAfter: ever, ProbeTimeout: ever, RampUp: ever, SlowCallDuration: ever - 1})
		time.Sleep(time.Hour)
		acquire(t, b)
		b.Trip("")
		require.True(t, refuses(b))
		require.Positive(t, *b.Status().RetryAfterSeconds)
		b.Reset("")
		ends(b, 1, breaker.OpenFor(errDown, ever))
		require.True(t, refuses(b))
		b.ForceOpen(breaker.Hold{For: ever})
		time.Sleep(100 * 24 * time.Hour)
		require.Equal(t, breaker.StateForcedOpen, b.State())
	})
}
