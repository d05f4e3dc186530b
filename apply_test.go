package breaker_test

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// changes is another valid value for each field of Config, each changed alone.
var changes = map[string]func(c *breaker.Config){
	"FailureThreshold":      func(c *breaker.Config) { c.FailureThreshold = 1 },
	"FailureRateThreshold":  func(c *breaker.Config) { c.FailureRateThreshold = 0.01 },
	"SlowCallDuration":      func(c *breaker.Config) { c.SlowCallDuration = 1 },
	"SlowCallRateThreshold": func(c *breaker.Config) { c.SlowCallRateThreshold = 0.01 },
	"MinimumCalls":          func(c *breaker.Config) { c.MinimumCalls = 1 },
	"WindowCalls":           func(c *breaker.Config) { c.WindowCalls = 50 },
	"WindowDuration":        func(c *breaker.Config) { c.WindowDuration, c.WindowCalls = time.Hour, 0 },
	"OpenTimeout":           func(c *breaker.Config) { c.OpenTimeout = time.Millisecond },
	"MaxOpenTimeout":        func(c *breaker.Config) { c.MaxOpenTimeout = time.Hour },
	"OpenTimeoutJitter":     func(c *breaker.Config) { c.OpenTimeoutJitter = 0.5 },
	"HalfOpenMaxCalls":      func(c *breaker.Config) { c.HalfOpenMaxCalls = 7 },
	"SuccessThreshold":      func(c *breaker.Config) { c.SuccessThreshold = 1 },
	"ProbeTimeout":          func(c *breaker.Config) { c.ProbeTimeout = time.Minute },
	"MaxRetryAfter":         func(c *breaker.Config) { c.MaxRetryAfter = time.Second },
	"RampUp":                func(c *breaker.Config) { c.RampUp = time.Hour },
}

// situations bring a breaker into each state with some history.
var situations = map[string]func(t *testing.T, b *breaker.Breaker){
	"closed": func(t *testing.T, b *breaker.Breaker) { ends(b, 6, nil); ends(b, 4, errDown) },
	"open":   func(t *testing.T, b *breaker.Breaker) { ends(b, 6, nil); ends(b, 5, errDown); time.Sleep(time.Second) },
	"half_open": func(t *testing.T, b *breaker.Breaker) {
		ends(b, 6, nil)
		ends(b, 5, errDown)
		time.Sleep(time.Minute)
		ends(b, 2, nil)
	},
	"forced_open": func(t *testing.T, b *breaker.Breaker) {
		ends(b, 3, errDown)
		b.ForceOpen(breaker.Hold{By: "ann", Reason: "migration", For: time.Hour})
	},
	"disabled": func(t *testing.T, b *breaker.Breaker) { b.Disable(breaker.Hold{By: "ann"}); ends(b, 20, errDown) },
}

func TestReloadRebuildsTheBreakerClosed(t *testing.T) {
	for field := range reflect.TypeFor[breaker.Config]().Fields() {
		require.Contains(t, changes, field.Name)
	}
	for situation, bring := range situations {
		for field, change := range changes {
			bubble(t, situation+" with another "+field, func(t *testing.T) {
				var events []breaker.Event
				b := newBreaker(t, breaker.Config{SlowCallDuration: 2 * time.Second, MinimumCalls: 20, OpenTimeout: time.Minute}, breaker.WithListener(func(e breaker.Event) { events = append(events, e) }))
				bring(t, b)
				require.Equal(t, situation, b.State().String())
				before, heard := b.Status(), len(events)
				cfg := b.Config()
				change(&cfg)
				require.NotEqual(t, before.Config, cfg)
				require.NoError(t, b.Apply(cfg))
				after := b.Status()
				require.Equal(t, cfg, after.Config)
				before.Config = cfg
				require.Equal(t, before, after, "nothing else changes")
				require.Len(t, events, heard)
			})
		}
	}
}

func TestApplyOfTheSameConfigChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, cfg := range []breaker.Config{{}, {WindowDuration: time.Minute}, {SlowCallDuration: time.Second, SlowCallRateThreshold: breaker.Off}, {MinimumCalls: 500}, {MaxOpenTimeout: time.Second}} {
			b := newBreaker(t, cfg)
			ends(b, 4, errDown)
			before := b.Status()
			require.NoError(t, b.Apply(b.Config()))
			require.Equal(t, before, b.Status())
		}
	})
}

func TestAnInvalidConfigChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		before := b.Status()
		err := b.Apply(breaker.Config{FailureThreshold: -2})
		require.EqualError(t, err, "breaker: invalid configuration: failure_threshold: -2 is not allowed: want a whole number >= 1, or off")
		require.Equal(t, before, b.Status())
	})
}

func TestApplyTripsAndClosesNothing(t *testing.T) {
	bubble(t, "a lower threshold waits for the next outcome", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{FailureRateThreshold: breaker.Off})
		ends(b, 4, errDown)
		cfg := b.Config()
		cfg.FailureThreshold = 3
		require.NoError(t, b.Apply(cfg))
		require.Equal(t, breaker.StateClosed, b.State())
		time.Sleep(time.Hour)
		require.Equal(t, breaker.StateClosed, b.State())
		ends(b, 1, errDown)
		require.Equal(t, 5.0, b.Status().Trip.Observed)
	})
	bubble(t, "a lower slow rate waits for an outcome, or another slow call", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second, SlowCallRateThreshold: breaker.Off, MinimumCalls: 1})
		slow := acquire(t, b)
		time.Sleep(2 * time.Second)
		slow.Done(nil)
		cfg := b.Config()
		cfg.SlowCallRateThreshold = 0.5
		require.NoError(t, b.Apply(cfg))
		p := acquire(t, b)
		p.Progress()
		p.Done(breaker.Ignore(errDown))
		require.Equal(t, breaker.StateClosed, b.State())
		ends(b, 1, nil)
		require.Equal(t, breaker.StateOpen, b.State())
	})
	bubble(t, "a lower success threshold waits for the next success", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SuccessThreshold: 5})
		toHalfOpen(t, b)
		ends(b, 3, nil)
		cfg := b.Config()
		cfg.SuccessThreshold = 2
		require.NoError(t, b.Apply(cfg))
		require.Equal(t, breaker.StateHalfOpen, b.State())
		ends(b, 1, nil)
		require.Equal(t, breaker.StateClosed, b.State())
	})
	bubble(t, "the remaining open time stays", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.Trip("")
		time.Sleep(10 * time.Second)
		cfg := b.Config()
		cfg.OpenTimeout, cfg.MaxOpenTimeout = time.Second, 2*time.Second
		require.NoError(t, b.Apply(cfg))
		time.Sleep(20*time.Second - 1)
		require.Equal(t, breaker.StateOpen, b.State())
		time.Sleep(1)
		require.Equal(t, breaker.StateHalfOpen, b.State())
	})
	bubble(t, "calls that a new duration makes slow are counted, without a trip", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Minute})
		hung := admitted(b, 20)
		time.Sleep(10 * time.Second)
		cfg := b.Config()
		cfg.SlowCallDuration = 5 * time.Second
		require.NoError(t, b.Apply(cfg))
		require.Equal(t, breaker.StateClosed, b.State())
		require.Equal(t, new(1.0), b.Status().SlowCallRate)
		hung[0].Done(nil)
		require.Equal(t, "slow-call rate 1.00 >= 0.80 over 20 calls", b.Status().Trip.String())
	})
	bubble(t, "a longer duration spares calls in flight", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second})
		admitted(b, 20)
		cfg := b.Config()
		cfg.SlowCallDuration = time.Minute
		require.NoError(t, b.Apply(cfg))
		time.Sleep(time.Minute)
		require.Equal(t, breaker.StateClosed, b.State())
		time.Sleep(1)
		require.Equal(t, breaker.StateOpen, b.State())
	})
	bubble(t, "switching the slow rule off and on counts nothing twice", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second, SlowCallRateThreshold: breaker.Off})
		hung := acquire(t, b)
		time.Sleep(2 * time.Second)
		on, off := b.Config(), b.Config()
		off.SlowCallDuration = breaker.Off
		require.NoError(t, b.Apply(off))
		require.Nil(t, b.Status().SlowCallRate)
		require.NoError(t, b.Apply(on))
		hung.Done(nil)
		require.Nil(t, b.Status().SlowCallRate, "it had entered the durations that are gone")
		require.Equal(t, 1, b.Status().SuccessCount)
	})
	bubble(t, "a call admitted while durations were not measured is judged at its end", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{MinimumCalls: 1})
		p := acquire(t, b)
		cfg := b.Config()
		cfg.SlowCallDuration, cfg.SlowCallRateThreshold, cfg.MinimumCalls = time.Second, 1, 1
		require.NoError(t, b.Apply(cfg))
		time.Sleep(time.Hour)
		require.Equal(t, breaker.StateClosed, b.State())
		p.Done(nil)
		require.Equal(t, breaker.RuleSlowCallRate, b.Status().Trip.Rule)
	})
	bubble(t, "a ramp that is cut short ends", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SuccessThreshold: 1, RampUp: time.Hour})
		toHalfOpen(t, b)
		ends(b, 1, nil)
		require.Len(t, admitted(b, 100), 10)
		cfg := b.Config()
		cfg.RampUp = 0
		require.NoError(t, b.Apply(cfg))
		require.Len(t, admitted(b, 100), 100)
		require.Nil(t, b.Status().Trip)
	})
	bubble(t, "a probe in flight keeps the limits that admitted it", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{ProbeTimeout: time.Hour, SuccessThreshold: 1})
		toHalfOpen(t, b)
		probe := acquire(t, b)
		probe.Progress()
		time.Sleep(time.Minute)
		cfg := b.Config()
		cfg.ProbeTimeout, cfg.SlowCallDuration = 2*time.Second, time.Second
		require.NoError(t, b.Apply(cfg))
		require.Equal(t, breaker.StateHalfOpen, b.State())
		time.Sleep(59*time.Minute - 1)
		require.Equal(t, breaker.StateHalfOpen, b.State())
		time.Sleep(1)
		require.Equal(t, breaker.StateOpen, b.State())
		require.EqualValues(t, 3600, b.Status().Trip.Observed, "it was lost by the old limit")
	})
}

func TestAWindowKeepsItsHistoryWhenResized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{WindowCalls: 10, FailureThreshold: breaker.Off, FailureRateThreshold: breaker.Off})
		ends(b, 6, nil)
		ends(b, 4, errDown)
		resize := func(calls int, d time.Duration, failures, successes int) {
			t.Helper()
			cfg := b.Config()
			cfg.WindowCalls, cfg.WindowDuration, cfg.MinimumCalls = calls, d, 1
			require.NoError(t, b.Apply(cfg))
			s := b.Status()
			require.Equal(t, []int{failures, successes}, []int{s.FailureCount, s.SuccessCount})
		}
		resize(5, 0, 4, 1)
		resize(0, time.Minute, 4, 1)
		time.Sleep(30 * time.Second)
		ends(b, 2, nil)
		resize(0, 40*time.Second, 4, 3)
		resize(0, 20*time.Second, 0, 2)
		resize(100, 0, 0, 2)
	})
}
