package breaker_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

func TestForceOpen(t *testing.T) {
	bubble(t, "refuses with who and why, and no end", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.ForceOpen(breaker.Hold{By: "ann", Reason: "migration"})
		err := end(b, nil)
		require.EqualError(t, err, `breaker: "x" is forced open by ann: migration`)
		refusal, _ := errors.AsType[*breaker.OpenError](err)
		require.True(t, refusal.Until.IsZero())
		require.Zero(t, refusal.RetryAfter())
		require.Nil(t, refusal.Trip)
		require.Nil(t, b.Status().RetryAfterSeconds)
		require.Equal(t, 1, b.Status().Metrics.RejectedCalls)
		time.Sleep(24 * 365 * time.Hour)
		require.Equal(t, breaker.StateForcedOpen, b.State())
		b.Release()
		require.NoError(t, end(b, nil))
	})
	bubble(t, "until exactly For has passed", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.ForceOpen(breaker.Hold{For: time.Minute})
		require.EqualError(t, end(b, nil), `breaker: "x" is forced open; retry after 1m0s`)
		require.Equal(t, new(60.0), b.Status().RetryAfterSeconds)
		since := time.Now()
		time.Sleep(time.Minute - 1)
		require.True(t, refuses(b))
		require.Equal(t, since, b.Status().Hold.Since)
		require.Equal(t, since.Add(time.Minute), b.Status().Hold.Until)
		time.Sleep(1)
		require.Nil(t, b.Status().Hold)
		require.NoError(t, end(b, nil))
	})
	bubble(t, "less than zero is already over", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.ForceOpen(breaker.Hold{For: -time.Minute})
		require.Equal(t, breaker.StateClosed, b.State())
		require.NoError(t, end(b, nil))
	})
}

func TestDisable(t *testing.T) {
	bubble(t, "admits everything in every tracked state", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.Trip("")
		b.Disable(breaker.Hold{})
		require.Len(t, admitted(b, 100), 100)
		time.Sleep(30 * time.Second)
		require.Len(t, admitted(b, 100), 100, "half-open below")
	})
	bubble(t, "feeds window and run while the tracked state is closed, and asks no rule", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.Disable(breaker.Hold{})
		ends(b, 20, errDown)
		s := b.Status()
		require.Equal(t, []int{20, 20}, []int{s.FailureCount, s.ConsecutiveFailures})
		b.Release()
		require.Equal(t, breaker.StateClosed, b.State(), "Release never trips")
		ends(b, 1, errDown)
		require.Equal(t, "21 consecutive failures >= 5", b.Status().Trip.String())
	})
	bubble(t, "feeds nothing while the tracked state is open or half-open", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.Trip("")
		b.Disable(breaker.Hold{})
		ends(b, 5, nil)
		time.Sleep(30 * time.Second)
		ends(b, 5, nil)
		s := b.Status()
		require.Zero(t, s.SuccessCount)
		require.Equal(t, 10, s.Metrics.SuccessfulCalls)
		b.Release()
		require.Equal(t, breaker.StateHalfOpen, b.State())
		require.Zero(t, b.Status().HalfOpenSuccesses)
	})
	bubble(t, "an OpenFor opens nothing", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.Disable(breaker.Hold{})
		ends(b, 1, breaker.OpenFor(errDown, time.Hour))
		b.Release()
		require.Equal(t, breaker.StateClosed, b.State())
	})
	bubble(t, "slow calls in flight are counted and trip nothing", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second})
		b.Disable(breaker.Hold{})
		admitted(b, 20)
		time.Sleep(time.Minute)
		require.Equal(t, breaker.StateDisabled, b.State())
		require.Equal(t, new(1.0), b.Status().SlowCallRate)
		b.Release()
		require.Equal(t, breaker.StateClosed, b.State())
	})
	bubble(t, "calls in flight do not turn slow any more once it has opened below", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second})
		b.Disable(breaker.Hold{})
		admitted(b, 20)
		b.Trip("")
		time.Sleep(time.Minute)
		require.Nil(t, b.Status().SlowCallRate)
	})
}

func TestAHoldFencesProbesAndHalfOpenStartsAfresh(t *testing.T) {
	for name, hold := range map[string]func(b *breaker.Breaker){
		"forced open": func(b *breaker.Breaker) { b.ForceOpen(breaker.Hold{}) },
		"disabled":    func(b *breaker.Breaker) { b.Disable(breaker.Hold{}) },
	} {
		inHalfOpen(t, name, breaker.Config{}, func(t *testing.T, b *breaker.Breaker) {
			ends(b, 2, nil)
			probes := admitted(b, 3)
			hold(b)
			probes[0].Done(errDown)
			probes[1].Done(nil)
			b.Release()
			s := b.Status()
			require.Equal(t, breaker.StateHalfOpen, s.State)
			require.Zero(t, s.HalfOpenSuccesses)
			probes[2].Done(errDown)
			require.Equal(t, breaker.StateHalfOpen, b.State())
			require.Len(t, admitted(b, 10), 3)
		})
	}
	bubble(t, "a probe under a hold is not lost", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{ProbeTimeout: time.Minute})
		toHalfOpen(t, b)
		p := acquire(t, b)
		b.ForceOpen(breaker.Hold{})
		time.Sleep(time.Hour)
		b.Release()
		require.Equal(t, breaker.StateHalfOpen, b.State())
		require.True(t, p.Done(nil))
	})
}

func TestUnderAHoldOnlyDeadlinesRunOnWithoutEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard []breaker.Event
		b := newBreaker(t, breaker.Config{}, breaker.WithListener(func(e breaker.Event) { heard = append(heard, e) }))
		b.Trip("")
		b.ForceOpen(breaker.Hold{By: "ann"})
		time.Sleep(time.Hour)
		refuses(b)
		require.Len(t, heard, 2)
		require.Len(t, b.Status().Metrics.StateTransitions, 2)
		b.Release()
		require.Len(t, heard, 3)
		require.Equal(t, breaker.StateHalfOpen, heard[2].To, "Release's event says where it is now")
		require.Equal(t, breaker.RuleRelease, heard[2].Rule)
	})
}

func TestHoldOverHold(t *testing.T) {
	bubble(t, "the last one wins, with its own end", func(t *testing.T) {
		var heard []breaker.Event
		b := newBreaker(t, breaker.Config{}, breaker.WithListener(func(e breaker.Event) { heard = append(heard, e) }))
		b.ForceOpen(breaker.Hold{By: "ann", For: time.Minute})
		b.ForceOpen(breaker.Hold{By: "bob"})
		b.Disable(breaker.Hold{By: "eve", For: 2 * time.Minute})
		require.Len(t, heard, 3, "each is announced")
		require.Equal(t, []breaker.State{breaker.StateForcedOpen, breaker.StateForcedOpen}, []breaker.State{heard[1].From, heard[1].To})
		require.Equal(t, "bob", heard[1].Hold.By)
		time.Sleep(2*time.Minute - 1)
		require.Equal(t, "eve", b.Status().Hold.By)
		time.Sleep(1)
		require.Equal(t, breaker.StateClosed, b.State())
	})
	bubble(t, "a call admitted under one is a stranger to the next", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.Disable(breaker.Hold{})
		p := acquire(t, b)
		b.Disable(breaker.Hold{})
		p.Done(errDown)
		require.Zero(t, b.Status().ConsecutiveFailures)
		require.Equal(t, 1, b.Status().Metrics.FailedCalls)
	})
}

func TestReleaseShowsTheTrackedState(t *testing.T) {
	for _, c := range []struct {
		name  string
		under time.Duration
		want  breaker.State
	}{
		{"still open", 10 * time.Second, breaker.StateOpen},
		{"open for the last nanosecond", 30*time.Second - 1, breaker.StateOpen},
		{"half-open at the end of the open time", 30 * time.Second, breaker.StateHalfOpen},
	} {
		bubble(t, c.name, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{})
			b.Trip("")
			b.ForceOpen(breaker.Hold{})
			time.Sleep(c.under)
			b.Release()
			require.Equal(t, c.want, b.State())
		})
	}
	t.Run("without a hold nothing happens", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{}, breaker.WithListener(func(breaker.Event) { t.Error("an event") }))
		p := acquire(t, b)
		b.Release()
		p.Done(errDown)
		require.Equal(t, 1, b.Status().ConsecutiveFailures, "and nothing is fenced")
	})
}

func TestTripUnderAHoldMovesTheTrackedStateOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard []breaker.Event
		b := newBreaker(t, breaker.Config{}, breaker.WithListener(func(e breaker.Event) { heard = append(heard, e) }))
		b.Disable(breaker.Hold{})
		b.Trip("by hand")
		require.Equal(t, breaker.StateDisabled, b.State())
		require.Equal(t, "by hand", b.Status().Trip.Reason)
		require.Len(t, heard, 1)
		b.Release()
		require.Equal(t, breaker.StateOpen, b.State())
		require.Equal(t, "by hand", heard[1].Trip.Reason)
		require.Equal(t, 30*time.Second, left(b))
	})
}

func TestHoldExpiryAndOpenTimeoutAtOneInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard []breaker.Event
		b := newBreaker(t, breaker.Config{}, breaker.WithListener(func(e breaker.Event) { heard = append(heard, e) }))
		b.Trip("")
		b.ForceOpen(breaker.Hold{For: 30 * time.Second})
		time.Sleep(time.Minute)
		require.NoError(t, end(b, nil))
		require.Equal(t, []breaker.Rule{breaker.RuleManual, breaker.RuleHold, breaker.RuleHoldExpired, breaker.RuleOpenTimeout},
			[]breaker.Rule{heard[0].Rule, heard[1].Rule, heard[2].Rule, heard[3].Rule})
		require.Equal(t, breaker.StateOpen, heard[2].To, "the hold ends first")
		require.Equal(t, heard[0].At.Add(30*time.Second), heard[2].At)
		require.Equal(t, heard[2].At, heard[3].At)
	})
}

func TestReset(t *testing.T) {
	bubble(t, "closes with an empty window, no hold, and the backoff forgotten", func(t *testing.T) {
		var heard []breaker.Event
		b := newBreaker(t, breaker.Config{RampUp: time.Hour}, breaker.WithListener(func(e breaker.Event) { heard = append(heard, e) }))
		toHalfOpen(t, b)
		ends(b, 1, errDown)
		b.ForceOpen(breaker.Hold{})
		late := heard[len(heard)-1]
		b.Reset("all well")
		require.Equal(t, late.Seq+1, heard[len(heard)-1].Seq)
		last := heard[len(heard)-1]
		require.Equal(t, []any{breaker.StateForcedOpen, breaker.StateClosed, breaker.RuleReset, "all well"}, []any{last.From, last.To, last.Rule, last.Reason})
		s := b.Status()
		require.Zero(t, s.FailureCount+s.ConsecutiveFailures)
		require.Nil(t, s.Hold)
		require.Nil(t, s.Trip)
		require.True(t, s.OpenedAt.IsZero())
		require.Len(t, admitted(b, 100), 100, "no ramp")
		ends(b, 5, errDown)
		require.Equal(t, 30*time.Second, left(b))
	})
	bubble(t, "of a closed one empties the window, fences and says nothing", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{}, breaker.WithListener(func(breaker.Event) { t.Error("an event") }))
		late := acquire(t, b)
		ends(b, 4, errDown)
		b.Reset("")
		late.Done(errDown)
		ends(b, 4, errDown)
		s := b.Status()
		require.Equal(t, []int{4, 4, 9}, []int{s.FailureCount, s.ConsecutiveFailures, s.Metrics.FailedCalls})
	})
}
