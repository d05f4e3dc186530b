package breaker_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// inHalfOpen runs a subtest on a breaker that has just begun to probe.
func inHalfOpen(t *testing.T, name string, cfg breaker.Config, f func(t *testing.T, b *breaker.Breaker)) {
	t.Helper()
	bubble(t, name, func(t *testing.T) {
		b := newBreaker(t, cfg)
		b.Trip("")
		time.Sleep(b.Config().OpenTimeout)
		require.Equal(t, breaker.StateHalfOpen, b.State())
		f(t, b)
	})
}

// opened checks that b re-opened at the given time by the given rule.
func opened(t *testing.T, b *breaker.Breaker, rule breaker.Rule, at time.Time) {
	t.Helper()
	s := b.Status()
	require.Equal(t, breaker.StateOpen, s.State)
	require.Equal(t, rule, s.Trip.Rule)
	require.Equal(t, at, s.OpenedAt)
}

func TestHalfOpenAdmitsABoundedNumberInFlight(t *testing.T) {
	inHalfOpen(t, "a finished probe frees its place", breaker.Config{HalfOpenMaxCalls: 2, SuccessThreshold: 10}, func(t *testing.T, b *breaker.Breaker) {
		probes := admitted(b, 5)
		require.Len(t, probes, 2)
		probes[0].Done(nil)
		require.Len(t, admitted(b, 5), 1)
	})
	inHalfOpen(t, "a probe given back frees its place", breaker.Config{HalfOpenMaxCalls: 2}, func(t *testing.T, b *breaker.Breaker) {
		admitted(b, 2)[1].Cancel()
		require.Len(t, admitted(b, 5), 1)
	})
	inHalfOpen(t, "calls from closed take no place", breaker.Config{HalfOpenMaxCalls: 2, SuccessThreshold: 1}, func(t *testing.T, b *breaker.Breaker) {
		b.Reset("")
		admitted(b, 10)
		b.Trip("")
		time.Sleep(30 * time.Second)
		require.Len(t, admitted(b, 5), 2)
	})
	inHalfOpen(t, "probes of an earlier half-open take no place", breaker.Config{HalfOpenMaxCalls: 2}, func(t *testing.T, b *breaker.Breaker) {
		admitted(b, 2)[0].Done(errDown)
		time.Sleep(time.Minute)
		require.Len(t, admitted(b, 5), 2)
		require.Equal(t, 3, b.Status().Metrics.InFlight)
	})
	inHalfOpen(t, "a refusal counts them", breaker.Config{HalfOpenMaxCalls: 2}, func(t *testing.T, b *breaker.Breaker) {
		admitted(b, 2)
		require.EqualError(t, end(b, nil), `breaker: "x" is half_open: 2 of 2 probes in flight; opened by a trip by hand`)
	})
}

func TestHalfOpenClosesWithAnEmptyWindow(t *testing.T) {
	inHalfOpen(t, "after SuccessThreshold successes", breaker.Config{}, func(t *testing.T, b *breaker.Breaker) {
		ends(b, 2, nil)
		s := b.Status()
		require.Equal(t, 2, s.HalfOpenSuccesses)
		require.Equal(t, breaker.StateHalfOpen, s.State)
		ends(b, 1, nil)
		s = b.Status()
		require.Equal(t, breaker.StateClosed, s.State)
		require.Zero(t, s.FailureCount+s.SuccessCount+s.ConsecutiveFailures+s.HalfOpenSuccesses)
		require.Nil(t, s.Trip)
	})
	inHalfOpen(t, "ignored ones between do not matter", breaker.Config{}, func(t *testing.T, b *breaker.Breaker) {
		spell(b, "iisiisiis")
		require.Equal(t, breaker.StateClosed, b.State())
	})
	inHalfOpen(t, "a failure after two successes re-opens", breaker.Config{}, func(t *testing.T, b *breaker.Breaker) {
		spell(b, "ssf")
		opened(t, b, breaker.RuleProbeFailed, time.Now())
		trip := b.Status().Trip
		require.Equal(t, []int{3, 1, 0}, []int{trip.Calls, trip.Failures, trip.SlowCalls})
		require.Equal(t, []breaker.ErrorCount{{Text: "upstream is down", Count: 1}}, trip.Errors)
		time.Sleep(time.Minute)
		spell(b, "ss")
		require.Equal(t, breaker.StateHalfOpen, b.State(), "successes of an earlier period do not count")
	})
	inHalfOpen(t, "a success with an OpenFor opens", breaker.Config{SuccessThreshold: 1},
		func(t *testing.T, b *breaker.Breaker) {
			expect := newBreaker(t, breaker.Config{SuccessThreshold: 1}, breaker.WithClassifier(breaker.Expect(errDown)))
			expect.Trip("")
			time.Sleep(30 * time.Second)
			ends(expect, 1, breaker.OpenFor(errDown, time.Second))
			opened(t, expect, breaker.RuleRetryAfter, time.Now())
			require.Equal(t, 1, expect.Status().Metrics.SuccessfulCalls)
		})
}

func TestProbeIgnored(t *testing.T) {
	inHalfOpen(t, "HalfOpenMaxCalls in a row re-open", breaker.Config{}, func(t *testing.T, b *breaker.Breaker) {
		spell(b, "iisii")
		require.Equal(t, breaker.StateHalfOpen, b.State())
		spell(b, "i")
		opened(t, b, breaker.RuleProbeIgnored, time.Now())
		require.Equal(t, "3 probes in a row without a verdict", b.Status().Trip.String())
		require.Equal(t, 30*time.Second, left(b), "without doubling")
	})
	inHalfOpen(t, "cancelled ones count alike, in no total", breaker.Config{}, func(t *testing.T, b *breaker.Breaker) {
		for range 3 {
			acquire(t, b).Cancel()
		}
		opened(t, b, breaker.RuleProbeIgnored, time.Now())
		require.Zero(t, b.Status().Metrics.TotalCalls)
	})
}

func TestProbeLost(t *testing.T) {
	inHalfOpen(t, "at exactly ProbeTimeout", breaker.Config{ProbeTimeout: time.Minute}, func(t *testing.T, b *breaker.Breaker) {
		due := time.Now().Add(time.Minute)
		acquire(t, b)
		time.Sleep(time.Minute - 1)
		require.Equal(t, breaker.StateHalfOpen, b.State())
		time.Sleep(1)
		opened(t, b, breaker.RuleProbeLost, due)
		require.Equal(t, "a probe without a sign of life for 1m0s", b.Status().Trip.String())
	})
	inHalfOpen(t, "as of that instant, whoever looks when", breaker.Config{ProbeTimeout: time.Minute}, func(t *testing.T, b *breaker.Breaker) {
		due := time.Now().Add(time.Minute)
		p := acquire(t, b)
		time.Sleep(90 * time.Second)
		require.False(t, p.Done(nil), "too late")
		opened(t, b, breaker.RuleProbeLost, due)
		s := b.Status()
		require.Equal(t, due, s.LastFailureTime)
		require.Equal(t, []int{1, 0, 0}, []int{s.Metrics.FailedCalls, s.Metrics.SuccessfulCalls, s.Metrics.InFlight})
		time.Sleep(30 * time.Second)
		require.Equal(t, breaker.StateHalfOpen, b.State(), "60 s after the loss, though seen late")
	})
	inHalfOpen(t, "a probe that ends at that instant is too late", breaker.Config{ProbeTimeout: time.Minute}, func(t *testing.T, b *breaker.Breaker) {
		p := acquire(t, b)
		time.Sleep(time.Minute)
		require.False(t, p.Done(nil))
		p.Cancel()
		require.Equal(t, 1, b.Status().Metrics.FailedCalls)
	})
	inHalfOpen(t, "all that are due are lost, and it re-opens once", breaker.Config{ProbeTimeout: time.Minute}, func(t *testing.T, b *breaker.Breaker) {
		admitted(b, 3)
		time.Sleep(time.Minute)
		refuses(b)
		s := b.Status()
		require.Equal(t, []int{3, 0}, []int{s.Metrics.FailedCalls, s.Metrics.InFlight})
		require.Equal(t, 3, s.Trip.Failures)
		require.Len(t, s.Metrics.StateTransitions, 3)
	})
	inHalfOpen(t, "of several with different limits the oldest is named", breaker.Config{ProbeTimeout: time.Minute}, func(t *testing.T, b *breaker.Breaker) {
		acquire(t, b)
		time.Sleep(50 * time.Second)
		cfg := b.Config()
		cfg.ProbeTimeout = 10 * time.Second
		require.NoError(t, b.Apply(cfg))
		acquire(t, b)
		time.Sleep(10 * time.Second)
		require.Equal(t, "a probe without a sign of life for 1m0s", b.Status().Trip.String())
	})
	inHalfOpen(t, "one that began later is not lost with it", breaker.Config{ProbeTimeout: time.Minute}, func(t *testing.T, b *breaker.Breaker) {
		acquire(t, b)
		time.Sleep(1)
		later := acquire(t, b)
		time.Sleep(time.Minute - 1)
		require.Equal(t, [5]int{0, 1, 0, 0, 1}, totals(b))
		require.True(t, later.Done(nil))
		require.Equal(t, [5]int{1, 1, 0, 0, 0}, totals(b))
		require.Equal(t, breaker.StateOpen, b.State())
	})
	inHalfOpen(t, "a place is free again within ProbeTimeout and the open time", breaker.Config{ProbeTimeout: time.Minute, HalfOpenMaxCalls: 1, SuccessThreshold: 1}, func(t *testing.T, b *breaker.Breaker) {
		acquire(t, b)
		time.Sleep(2 * time.Minute)
		require.NoError(t, end(b, nil))
		require.Equal(t, breaker.StateClosed, b.State())
	})
}

func TestProbeSlow(t *testing.T) {
	cfg := breaker.Config{SlowCallDuration: 2 * time.Second}
	inHalfOpen(t, "a hung probe, a nanosecond after SlowCallDuration", cfg, func(t *testing.T, b *breaker.Breaker) {
		due := time.Now().Add(2 * time.Second)
		p := acquire(t, b)
		time.Sleep(2 * time.Second)
		require.Equal(t, breaker.StateHalfOpen, b.State())
		time.Sleep(1)
		opened(t, b, breaker.RuleProbeSlow, due)
		trip := b.Status().Trip
		require.Equal(t, "a probe slower than 2s", trip.String())
		require.Equal(t, []int{1, 0, 1}, []int{trip.Calls, trip.Failures, trip.SlowCalls})
		require.Equal(t, 1, b.Status().Metrics.InFlight, "it enters the totals when it ends")
		require.True(t, p.Done(nil))
		m := b.Status().Metrics
		require.Equal(t, []int{1, 1, 0}, []int{m.SuccessfulCalls, m.SlowCalls, m.InFlight})
	})
	inHalfOpen(t, "at exactly SlowCallDuration it is a success", cfg, func(t *testing.T, b *breaker.Breaker) {
		p := acquire(t, b)
		time.Sleep(2 * time.Second)
		p.Done(nil)
		require.Equal(t, 1, b.Status().HalfOpenSuccesses)
	})
	inHalfOpen(t, "not when it progressed in time", cfg, func(t *testing.T, b *breaker.Breaker) {
		p := acquire(t, b)
		time.Sleep(2 * time.Second)
		p.Progress()
		time.Sleep(time.Minute)
		p.Done(nil)
		require.Equal(t, 1, b.Status().HalfOpenSuccesses)
		require.Zero(t, b.Status().Metrics.SlowCalls)
	})
	inHalfOpen(t, "not when the rule is off", breaker.Config{SlowCallDuration: 2 * time.Second, SlowCallRateThreshold: breaker.Off}, func(t *testing.T, b *breaker.Breaker) {
		p := acquire(t, b)
		time.Sleep(time.Minute)
		p.Done(nil)
		require.Equal(t, 1, b.Status().HalfOpenSuccesses)
		require.Equal(t, 1, b.Status().Metrics.SlowCalls)
	})
	inHalfOpen(t, "the slow one re-opens although others succeed later", cfg, func(t *testing.T, b *breaker.Breaker) {
		probes := admitted(b, 3)
		time.Sleep(3 * time.Second)
		for _, p := range probes {
			p.Done(nil)
		}
		require.Equal(t, breaker.StateOpen, b.State())
	})
}

func TestAProgressingProbe(t *testing.T) {
	cfg := breaker.Config{ProbeTimeout: time.Minute, SuccessThreshold: 2, HalfOpenMaxCalls: 1}
	renew := func(p *breaker.Permit, d time.Duration) {
		for range d / (10 * time.Second) {
			time.Sleep(10 * time.Second)
			p.Progress()
		}
	}
	inHalfOpen(t, "is a success at 2 * ProbeTimeout", cfg, func(t *testing.T, b *breaker.Breaker) {
		p := acquire(t, b)
		start := time.Now()
		renew(p, 110*time.Second)
		time.Sleep(10*time.Second - 1)
		require.True(t, refuses(b))
		require.Zero(t, b.Status().HalfOpenSuccesses)
		time.Sleep(1)
		s := b.Status()
		require.Equal(t, 1, s.HalfOpenSuccesses)
		require.Equal(t, []int{1, 1}, []int{s.Metrics.SuccessfulCalls, s.Metrics.InFlight}, "the totals have it, and it is in flight")
		require.Equal(t, start.Add(2*time.Minute), s.LastSuccessTime)
		require.NoError(t, end(b, nil), "its place is free")
		require.Equal(t, breaker.StateClosed, b.State())
		require.True(t, p.Done(errDown), "it ends, and enters no rule")
		require.False(t, p.Done(errDown))
		s = b.Status()
		require.Zero(t, s.Metrics.InFlight+s.Metrics.FailedCalls+s.ConsecutiveFailures)
	})
	inHalfOpen(t, "may be given back after that", cfg, func(t *testing.T, b *breaker.Breaker) {
		p := acquire(t, b)
		renew(p, 2*time.Minute)
		p.Cancel()
		s := b.Status()
		require.Equal(t, []int{1, 0, 1}, []int{s.Metrics.SuccessfulCalls, s.Metrics.InFlight, s.HalfOpenSuccesses})
	})
	inHalfOpen(t, "is lost ProbeTimeout after its last sign of life", cfg, func(t *testing.T, b *breaker.Breaker) {
		p := acquire(t, b)
		renew(p, 30*time.Second)
		last := time.Now()
		time.Sleep(time.Minute - 1)
		require.Equal(t, breaker.StateHalfOpen, b.State())
		time.Sleep(1)
		opened(t, b, breaker.RuleProbeLost, last.Add(time.Minute))
		require.False(t, p.Done(nil))
	})
	inHalfOpen(t, "a success comes first when both are due", cfg, func(t *testing.T, b *breaker.Breaker) {
		p := acquire(t, b)
		time.Sleep(time.Minute - 1)
		p.Progress()
		time.Sleep(1)
		p.Progress()
		time.Sleep(time.Minute)
		require.Equal(t, 1, b.Status().HalfOpenSuccesses)
	})
	inHalfOpen(t, "endless ones close it", cfg, func(t *testing.T, b *breaker.Breaker) {
		for range 2 {
			p := acquire(t, b)
			go progressFor(p, 10*time.Minute)
			time.Sleep(2 * time.Minute)
		}
		require.Equal(t, breaker.StateClosed, b.State())
		time.Sleep(time.Hour)
	})
}

func TestAJoiner(t *testing.T) {
	cfg := breaker.Config{HalfOpenMaxCalls: 1, SuccessThreshold: 1}
	inHalfOpen(t, "runs inside the probe and enters nothing", cfg, func(t *testing.T, b *breaker.Breaker) {
		require.NoError(t, b.Do(bg, func(ctx context.Context) error {
			require.Equal(t, errDown, b.Do(ctx, func(ctx context.Context) error {
				require.Equal(t, errDown, b.Do(ctx, func(context.Context) error { return errDown }), "at any depth")
				return errDown
			}))
			require.Equal(t, 1, b.Status().Metrics.InFlight)
			require.ErrorIs(t, end(b, nil), breaker.ErrOpen, "without the context there is no place")
			return nil
		}))
		s := b.Status()
		require.Equal(t, breaker.StateClosed, s.State)
		require.Equal(t, []int{1, 0, 1}, []int{s.Metrics.SuccessfulCalls, s.Metrics.FailedCalls, s.Metrics.RejectedCalls})
	})
	inHalfOpen(t, "through a permit's context", cfg, func(t *testing.T, b *breaker.Breaker) {
		p := acquire(t, b)
		joiner, err := b.Acquire(p.Context(bg))
		require.NoError(t, err)
		require.True(t, joiner.Done(errDown))
		require.False(t, joiner.Done(errDown))
		p.Done(nil)
		require.Equal(t, breaker.StateClosed, b.State())
	})
	inHalfOpen(t, "is a probe of its own once the probe is settled", breaker.Config{HalfOpenMaxCalls: 1, SuccessThreshold: 3}, func(t *testing.T, b *breaker.Breaker) {
		p := acquire(t, b)
		ctx := p.Context(bg)
		p.Done(nil)
		require.NoError(t, b.Do(ctx, func(context.Context) error { return nil }))
		require.Equal(t, 2, b.Status().HalfOpenSuccesses)
	})
	inHalfOpen(t, "is refused once the period is over", cfg, func(t *testing.T, b *breaker.Breaker) {
		p := acquire(t, b)
		ctx := p.Context(bg)
		b.Trip("")
		require.ErrorIs(t, b.Do(ctx, nil), breaker.ErrOpen)
		time.Sleep(30 * time.Second)
		acquire(t, b)
		require.ErrorIs(t, b.Do(ctx, nil), breaker.ErrOpen, "an old probe's context is no way into a new one's place")
	})
	inHalfOpen(t, "is none of another breaker", cfg, func(t *testing.T, b *breaker.Breaker) {
		other := newBreaker(t, cfg)
		other.Trip("")
		require.NoError(t, b.Do(bg, func(ctx context.Context) error {
			require.ErrorIs(t, other.Do(ctx, nil), breaker.ErrOpen)
			return nil
		}))
	})
	inHalfOpen(t, "speaks for its probe", breaker.Config{ProbeTimeout: time.Minute, HalfOpenMaxCalls: 1, SlowCallDuration: 30 * time.Second}, func(t *testing.T, b *breaker.Breaker) {
		p := acquire(t, b)
		joiner, err := b.Acquire(p.Context(bg))
		require.NoError(t, err)
		time.Sleep(20 * time.Second)
		joiner.Progress()
		time.Sleep(50 * time.Second)
		require.Equal(t, breaker.StateHalfOpen, b.State())
		p.Done(nil)
		require.Equal(t, 1, b.Status().HalfOpenSuccesses)
	})
	inHalfOpen(t, "that panics leaves the probe its say", cfg, func(t *testing.T, b *breaker.Breaker) {
		require.NoError(t, b.Do(bg, func(ctx context.Context) error {
			_ = caught(func() { _ = b.Do(ctx, func(context.Context) error { panic("joiner") }) })
			return nil
		}))
		require.Equal(t, breaker.StateClosed, b.State())
	})
	inHalfOpen(t, "asks for no pause", cfg, func(t *testing.T, b *breaker.Breaker) {
		require.NoError(t, b.Do(bg, func(ctx context.Context) error {
			_ = b.Do(ctx, func(context.Context) error { return breaker.OpenFor(errDown, time.Hour) })
			return nil
		}))
		require.Equal(t, breaker.StateClosed, b.State())
	})
}

func TestNothingJoinsOutsideHalfOpen(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	p := acquire(t, b)
	require.Equal(t, bg, p.Context(bg))
	require.Equal(t, bg, (*breaker.Permit)(nil).Context(bg))
	require.NoError(t, b.Do(bg, func(ctx context.Context) error {
		require.Equal(t, bg, ctx)
		return b.Do(ctx, func(context.Context) error { return nil })
	}))
	require.Equal(t, 2, b.Status().Metrics.SuccessfulCalls)
}
