package breaker_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

func TestAListenersTimeIsNotThatOfTheCallItHoldsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second, SuccessThreshold: 1}, breaker.WithListener(func(e breaker.Event) {
			if e.Rule == breaker.RuleOpenTimeout {
				time.Sleep(2 * time.Second)
			}
		}))
		b.Trip("")
		time.Sleep(30 * time.Second)
		require.NoError(t, b.Do(bg, func(context.Context) error { time.Sleep(time.Second); return nil }))
		require.Equal(t, breaker.StateClosed, b.State(), "the probe was not slow")
	})
}

// totals counts what the last calls added to the totals: successful, failed, ignored, rejected, still in flight.
func totals(b *breaker.Breaker) [5]int {
	m := b.Status().Metrics
	return [5]int{m.SuccessfulCalls, m.FailedCalls, m.IgnoredCalls, m.RejectedCalls, m.InFlight}
}

func TestEveryEndingInEveryState(t *testing.T) {
	states := map[string]func(b *breaker.Breaker){
		"closed":      func(*breaker.Breaker) {},
		"open":        func(b *breaker.Breaker) { b.Trip("") },
		"half_open":   func(b *breaker.Breaker) { b.Trip(""); time.Sleep(30 * time.Second) },
		"forced_open": func(b *breaker.Breaker) { b.ForceOpen(breaker.Hold{}) },
		"disabled":    func(b *breaker.Breaker) { b.Disable(breaker.Hold{}) },
	}
	endings := map[string][5]int{ // what it adds where it is admitted
		"returns":               {1, 0, 0, 0, 0},
		"fails":                 {0, 1, 0, 0, 0},
		"is ignored":            {0, 0, 1, 0, 0},
		"panics":                {0, 1, 0, 0, 0},
		"panics with nil":       {0, 1, 0, 0, 0},
		"exits its goroutine":   {0, 1, 0, 0, 0},
		"hangs":                 {0, 0, 0, 0, 1},
		"is forgotten":          {0, 0, 0, 0, 1},
		"is given back":         {0, 0, 0, 0, 0},
		"is done":               {0, 1, 0, 0, 0},
		"goes on for ever":      {0, 0, 0, 0, 1},
		"goes on, then hangs":   {0, 0, 0, 0, 1},
		"asks to be left alone": {0, 1, 0, 0, 0},
	}
	for state, bring := range states {
		for ending, want := range endings {
			bubble(t, state+": "+ending, func(t *testing.T) {
				b := newBreaker(t, breaker.Config{})
				bring(b)
				require.Equal(t, state, b.State().String())
				go waysToEnd[ending](b)
				synctest.Wait()
				if state == "open" || state == "forced_open" {
					want = [5]int{0, 0, 0, 1, 0}
				}
				require.Equal(t, want, totals(b))
				time.Sleep(6 * time.Hour)
				b.Reset("")
				require.NoError(t, end(b, nil))
				require.Equal(t, breaker.StateClosed, b.State())
			})
		}
	}
}

func TestExecuteReturnsWhatTheCallReturns(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	for range 3 { // the first one needs the lock
		v, err := breaker.Execute(bg, b, func(context.Context) (string, error) { return "whole", nil })
		require.Equal(t, "whole", v)
		require.NoError(t, err)
		v, err = breaker.Execute(bg, b, func(context.Context) (string, error) { return "partial", errDown })
		require.Equal(t, "partial", v, "a value beside an error is handed on")
		require.Equal(t, errDown, err)
	}
	b.Trip("")
	v, err := breaker.Execute(bg, b, func(context.Context) (string, error) { t.Error("ran"); return "", nil })
	require.Empty(t, v)
	require.ErrorIs(t, err, breaker.ErrOpen)
}

func TestANilPermitAcceptsAll(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	b.Trip("")
	p, err := b.Acquire(bg)
	require.ErrorIs(t, err, breaker.ErrOpen)
	require.Nil(t, p)
	defer p.Cancel()
	p.Progress()
	require.Equal(t, bg, p.Context(bg))
	require.False(t, p.Done(nil))
}

func TestAPermitIsSettledOnce(t *testing.T) {
	settle := map[string]func(p *breaker.Permit) bool{
		"Done":   func(p *breaker.Permit) bool { return p.Done(errDown) },
		"Cancel": func(p *breaker.Permit) bool { p.Cancel(); return false },
	}
	for first, do := range settle {
		for second, again := range settle {
			t.Run(first+", then "+second, func(t *testing.T) {
				b := newBreaker(t, breaker.Config{})
				p := acquire(t, b)
				require.Equal(t, first == "Done", do(p))
				after := totals(b)
				require.False(t, again(p))
				p.Progress()
				require.Equal(t, after, totals(b))
			})
		}
	}
	t.Run("by one of many goroutines", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		for range 100 {
			p := acquire(t, b)
			var firsts atomic.Int32
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					p.Progress()
					if p.Done(nil) {
						firsts.Add(1)
					}
				})
			}
			all.Wait()
			require.EqualValues(t, 1, firsts.Load())
		}
		require.Equal(t, [5]int{100, 0, 0, 0, 0}, totals(b))
	})
}

func TestACancelledPermitMovesNothing(t *testing.T) {
	bubble(t, "in closed", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		ends(b, 4, errDown)
		before := b.Status()
		acquire(t, b).Cancel()
		require.Equal(t, before, b.Status())
	})
	bubble(t, "but when it was slow, which it was", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second, MinimumCalls: 1})
		p := acquire(t, b)
		time.Sleep(time.Second + 1)
		p.Cancel()
		require.Equal(t, breaker.RuleSlowCallRate, b.Status().Trip.Rule)
		require.Zero(t, b.Status().Metrics.TotalCalls)
	})
}

func TestFencing(t *testing.T) {
	for name, begin := range map[string]func(b *breaker.Breaker){
		"Reset":             func(b *breaker.Breaker) { b.Reset("") },
		"a hold":            func(b *breaker.Breaker) { b.Disable(breaker.Hold{}) },
		"hold and Release":  func(b *breaker.Breaker) { b.Disable(breaker.Hold{}); b.Release() },
		"a hold that ended": func(b *breaker.Breaker) { b.Disable(breaker.Hold{For: 1}); time.Sleep(1) },
		"an opening":        func(b *breaker.Breaker) { b.Trip("") },
		"a whole cycle":     func(b *breaker.Breaker) { b.Trip(""); time.Sleep(30 * time.Second); ends(b, 3, nil) },
	} {
		bubble(t, name+" makes earlier calls strangers", func(t *testing.T) {
			b := newBreaker(t, breaker.Config{})
			late := admitted(b, 10)
			begin(b)
			before, state := b.Status().ConsecutiveFailures, b.State()
			for _, p := range late {
				require.True(t, p.Done(errDown))
			}
			require.Equal(t, before, b.Status().ConsecutiveFailures)
			require.Equal(t, state, b.State())
			require.Equal(t, 10, b.Status().Metrics.FailedCalls, "the totals see them all the same")
			require.Zero(t, b.Status().Metrics.InFlight)
		})
	}
	bubble(t, "slow calls in flight of an earlier period trip nothing", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second})
		admitted(b, 50)
		b.Reset("")
		time.Sleep(time.Hour)
		require.Equal(t, breaker.StateClosed, b.State())
		require.Nil(t, b.Status().SlowCallRate)
	})
}
