package breaker_test

import (
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// spell makes calls: s succeeds, f fails, i is ignored; S, F and I do so a nanosecond after the slow duration of 1 s.
func spell(b *breaker.Breaker, calls string) {
	for _, c := range calls {
		p, _ := b.Acquire(bg)
		if unicode.IsUpper(c) {
			time.Sleep(time.Second + 1)
		}
		p.Done(map[rune]error{'f': errDown, 'i': breaker.Ignore(errDown)}[unicode.ToLower(c)])
	}
}

func TestTripRulesInClosed(t *testing.T) {
	slow := breaker.Config{SlowCallDuration: time.Second, FailureThreshold: breaker.Off, FailureRateThreshold: breaker.Off, MinimumCalls: 4, SlowCallRateThreshold: 0.5}
	rate := breaker.Config{FailureThreshold: breaker.Off, MinimumCalls: 4}
	for _, c := range []struct {
		name  string
		cfg   breaker.Config
		calls string // the last one opens it
		why   string // or nothing does
	}{
		{"five failures in a row by default", breaker.Config{}, "fffff", "5 consecutive failures >= 5"},
		{"a success between starts the run afresh", breaker.Config{}, "ffffsffff", ""},
		{"an ignored call does not", breaker.Config{}, "ffffiiif", "5 consecutive failures >= 5"},
		{"one failure is enough if so configured", breaker.Config{FailureThreshold: 1}, "f", "1 consecutive failures >= 1"},
		{"half of ten calls by default", breaker.Config{}, "ffffsssssf", "failure rate 0.50 >= 0.50 over 10 calls"},
		{"nine calls are not enough to judge", breaker.Config{}, "ffffssfff", ""},
		{"no calls are refused by rate when that is off", breaker.Config{FailureRateThreshold: breaker.Off}, "ffffsffffsffffs", ""},
		{"nor by the run when that is off", rate, "fff", ""},
		{"a success may be the outcome that trips", rate, "fffs", "failure rate 0.75 >= 0.50 over 4 calls"},
		{"an ignored call may not", rate, "fffi", ""},
		{"consecutive failures come before the rate", breaker.Config{FailureThreshold: 4, MinimumCalls: 4}, "ffff", "4 consecutive failures >= 4"},
		{"the failure rate comes before the slow rate", breaker.Config{FailureThreshold: breaker.Off, SlowCallDuration: time.Second, SlowCallRateThreshold: 0.5, MinimumCalls: 2}, "Ff", "failure rate 1.00 >= 0.50 over 2 calls"},
		{"slow successes trip", slow, "SSSS", "slow-call rate 1.00 >= 0.50 over 4 calls"},
		{"slow failures do", slow, "FFss", "slow-call rate 0.50 >= 0.50 over 4 calls"},
		{"slow ignored calls count as slow only, and may be the call that trips", slow, "sfII", "slow-call rate 0.50 >= 0.50 over 4 calls"},
		{"fast ignored calls are in neither tally", slow, "iiiiSSS", ""},
		{"three calls are not enough to call it slow", slow, "SSS", ""},
		{"a fast call may be the one that trips", slow, "SSss", "slow-call rate 0.50 >= 0.50 over 4 calls"},
		{"a third is enough for 0.333", breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: 0.333, MinimumCalls: 3}, "ssf", "failure rate 0.333 >= 0.333 over 3 calls"},
		{"the window forgets what is older than it", breaker.Config{FailureThreshold: breaker.Off, WindowCalls: 4, MinimumCalls: 4, FailureRateThreshold: 0.75}, "ffssffsf", "failure rate 0.75 >= 0.75 over 4 calls"},
	} {
		bubble(t, c.name, func(t *testing.T) {
			b := newBreaker(t, c.cfg)
			spell(b, c.calls[:len(c.calls)-1])
			require.Equal(t, breaker.StateClosed, b.State(), "too early")
			spell(b, c.calls[len(c.calls)-1:])
			if c.why == "" {
				require.Equal(t, breaker.StateClosed, b.State())
				return
			}
			require.Equal(t, c.why, b.Status().Trip.String())
		})
	}
}

func TestTheSlowRuleIsOffByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		late := admitted(b, 100)
		time.Sleep(time.Hour)
		for _, p := range late {
			p.Done(nil)
		}
		require.Equal(t, breaker.StateClosed, b.State())
		require.Nil(t, b.Status().SlowCallRate)
		require.Zero(t, b.Status().Metrics.SlowCalls)
	})
}

func TestSlowCallsAreMeasuredWhenTheirRuleIsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second, SlowCallRateThreshold: breaker.Off})
		spell(b, "SSSSSSSSSSSSSSSSSSSSs")
		s := b.Status()
		require.Equal(t, breaker.StateClosed, s.State)
		require.Equal(t, new(20.0/21), s.SlowCallRate)
		require.Equal(t, 20, s.Metrics.SlowCalls)
	})
}

func TestSlowAndFailedAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second, MinimumCalls: 100})
		spell(b, "SFISsi")
		s := b.Status()
		require.Equal(t, []int{1, 3}, []int{s.FailureCount, s.SuccessCount})
		require.Equal(t, new(0.25), s.FailureRate)
		require.Equal(t, new(4.0/5), s.SlowCallRate, "the slow ignored one is in the durations, the fast ignored one is not")
		require.Equal(t, 4, s.Metrics.SlowCalls)
	})
}

func TestSlowMeansLongerThan(t *testing.T) {
	for lasts, slow := range map[time.Duration]bool{time.Second - 1: false, time.Second: false, time.Second + 1: true} {
		bubble(t, lasts.String(), func(t *testing.T) {
			b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second, MinimumCalls: 1})
			p := acquire(t, b)
			time.Sleep(lasts)
			require.Equal(t, slow, b.State() == breaker.StateOpen, "in flight")
			p.Done(nil)
			require.Equal(t, slow, b.State() == breaker.StateOpen, "at its end")
		})
	}
}

// Calls in flight are grouped by start, a sixteenth of SlowCallDuration wide: one that starts later in a group delays the
// others by that share at most, and none is called slow early.
func TestCallsInFlightTurnSlowNeverEarlyAndLittleLate(t *testing.T) {
	const slow = 16 * time.Second
	for _, c := range []struct {
		name   string
		starts []time.Duration
		opens  time.Duration // just after it
	}{
		{"of one instant", []time.Duration{0, 0, 0}, slow},
		{"of one group: as the last", []time.Duration{0, time.Second / 2, time.Second - 1}, slow + time.Second - 1},
		{"of two groups: the third call makes three", []time.Duration{0, 0, time.Second}, slow + time.Second},
		{"groups do not chain", []time.Duration{0, time.Second - 1, time.Second}, slow + time.Second},
	} {
		bubble(t, c.name, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{SlowCallDuration: slow, MinimumCalls: 3, SlowCallRateThreshold: 1})
			start := time.Now()
			for _, at := range c.starts {
				time.Sleep(at - time.Since(start))
				acquire(t, b)
			}
			time.Sleep(c.opens - time.Since(start))
			require.Equal(t, breaker.StateClosed, b.State())
			time.Sleep(1)
			require.Equal(t, breaker.StateOpen, b.State())
			require.Equal(t, start.Add(c.opens), b.Status().Trip.At)
		})
	}
}

func TestACallInFlightEntersEachTallyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second, SlowCallRateThreshold: breaker.Off, MinimumCalls: 50})
		rates := func(failed, slow *float64) {
			t.Helper()
			require.Equal(t, failed, b.Status().FailureRate)
			require.Equal(t, slow, b.Status().SlowCallRate)
		}
		spell(b, "sss")
		late := admitted(b, 3)
		time.Sleep(time.Second + 1)
		rates(new(0.0), new(0.5))
		late[0].Done(errDown)
		rates(new(0.25), new(0.5))
		late[1].Done(breaker.Ignore(errDown))
		rates(new(0.25), new(0.5))
		late[2].Cancel()
		rates(new(0.25), new(0.5))
		require.Equal(t, 2, b.Status().Metrics.SlowCalls, "a cancelled call is in no total")
	})
}

func TestHungCallsTripWhoeverLooks(t *testing.T) {
	for name, look := range map[string]func(b *breaker.Breaker){
		"nobody":   func(*breaker.Breaker) {},
		"State":    func(b *breaker.Breaker) { b.State() },
		"Status":   func(b *breaker.Breaker) { b.Status() },
		"a call":   func(b *breaker.Breaker) { ends(b, 1, nil) },
		"an Apply": func(b *breaker.Breaker) { _ = b.Apply(b.Config()) },
		"Release":  func(b *breaker.Breaker) { b.Release() },
	} {
		bubble(t, name, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{SlowCallDuration: 2 * time.Second})
			start := time.Now()
			late := admitted(b, 10)
			for range 5 {
				time.Sleep(time.Second)
				look(b)
			}
			late[0].Done(nil)
			require.Equal(t, start.Add(2*time.Second), b.Status().OpenedAt)
			require.Equal(t, breaker.StateOpen, b.State())
			time.Sleep(27*time.Second - 1)
			require.Equal(t, breaker.StateOpen, b.State())
			time.Sleep(1)
			require.Equal(t, breaker.StateHalfOpen, b.State(), "30 s after they turned slow")
		})
	}
}

func TestProgressStopsTheSlowClock(t *testing.T) {
	cfg := breaker.Config{SlowCallDuration: time.Second, MinimumCalls: 1}
	bubble(t, "of a call that progressed in time", func(t *testing.T) {
		b := newBreaker(t, cfg)
		p := acquire(t, b)
		time.Sleep(time.Second)
		p.Progress()
		time.Sleep(time.Hour)
		p.Progress()
		p.Done(nil)
		require.Equal(t, new(0.0), b.Status().SlowCallRate)
		require.Zero(t, b.Status().Metrics.SlowCalls)
	})
	bubble(t, "too late for a call that had turned slow", func(t *testing.T) {
		b := newBreaker(t, cfg)
		p := acquire(t, b)
		time.Sleep(time.Second + 1)
		p.Progress()
		require.Equal(t, breaker.RuleSlowCallRate, b.Status().Trip.Rule)
		p.Done(nil)
		require.Equal(t, 1, b.Status().Metrics.SlowCalls)
	})
	bubble(t, "a late first sign of life trips by itself, before its group would", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: 16 * time.Second, MinimumCalls: 1, SlowCallRateThreshold: 1})
		p := acquire(t, b)
		time.Sleep(time.Second - 1)
		acquire(t, b)
		time.Sleep(15*time.Second + 2)
		require.Equal(t, breaker.StateClosed, b.State(), "the group's last call is not slow yet")
		p.Progress()
		require.Equal(t, breaker.StateOpen, b.State())
		require.Equal(t, 1, b.Status().Trip.SlowCalls)
	})
	bubble(t, "a late one that reaches no threshold opens nothing", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: 16 * time.Second, MinimumCalls: 3})
		p := acquire(t, b)
		time.Sleep(time.Second - 1)
		acquire(t, b)
		time.Sleep(15*time.Second + 2)
		p.Progress()
		require.Equal(t, breaker.StateClosed, b.State())
	})
	bubble(t, "it leaves the group once, though it ends too", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second, SlowCallRateThreshold: 0.5, MinimumCalls: 2})
		p := acquire(t, b)
		acquire(t, b)
		p.Progress()
		p.Done(nil)
		time.Sleep(2 * time.Second)
		require.Equal(t, breaker.StateOpen, b.State())
	})
	bubble(t, "it leaves the group to the others", func(t *testing.T) {
		b := newBreaker(t, cfg)
		p := acquire(t, b)
		acquire(t, b)
		p.Progress()
		time.Sleep(time.Second + 1)
		require.Equal(t, 1, b.Status().Trip.SlowCalls)
	})
}

func TestSuccessesAndFailuresAreOfTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{WindowDuration: 10 * time.Second})
		spell(b, "sff")
		s := b.Status()
		require.Equal(t, []int{2, 1}, []int{s.FailureCount, s.SuccessCount})
		time.Sleep(20 * time.Second)
		s = b.Status()
		require.Zero(t, s.FailureCount+s.SuccessCount)
		require.Nil(t, s.FailureRate)
		require.Equal(t, 2, s.ConsecutiveFailures, "the run does not decay")
	})
}

// A call that is slow before its group counts when it ends, whatever way that is.
func TestASlowCallThatEndsBeforeItsGroupTurns(t *testing.T) {
	for name, finish := range map[string]func(p *breaker.Permit){
		"ignored":   func(p *breaker.Permit) { p.Done(breaker.Ignore(errDown)) },
		"cancelled": func(p *breaker.Permit) { p.Cancel() },
		"done":      func(p *breaker.Permit) { p.Done(nil) },
		"progress":  func(p *breaker.Permit) { p.Progress() },
	} {
		bubble(t, name, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{SlowCallDuration: 16 * time.Second, MinimumCalls: 1})
			p := acquire(t, b)
			time.Sleep(time.Second - 1)
			acquire(t, b)
			time.Sleep(15*time.Second + 2)
			require.Equal(t, breaker.StateClosed, b.State())
			finish(p)
			s := b.Status()
			require.Equal(t, breaker.StateOpen, s.State)
			require.Equal(t, time.Now(), s.OpenedAt)
			require.Equal(t, "slow-call rate 1.00 >= 0.80 over 1 calls", s.Trip.String())
		})
	}
}
