package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// How well-known breakers fail, one test each: what happened there must not happen here.

// waysToEnd are all the ways a call can end, or not end. Each is given a permit's worth of work in its own goroutine.
var waysToEnd = map[string]func(b *breaker.Breaker){
	"returns":    func(b *breaker.Breaker) { _ = end(b, nil) },
	"fails":      func(b *breaker.Breaker) { _ = end(b, errDown) },
	"is ignored": func(b *breaker.Breaker) { _ = end(b, breaker.Ignore(errDown)) },
	"panics": func(b *breaker.Breaker) {
		_ = caught(func() { _ = b.Do(bg, func(context.Context) error { panic("call") }) })
	},
	"panics with nil": func(b *breaker.Breaker) {
		_ = caught(func() { _ = b.Do(bg, func(context.Context) error { panic(nil) }) })
	},
	"exits its goroutine": func(b *breaker.Breaker) { _ = b.Do(bg, func(context.Context) error { runtime.Goexit(); return nil }) },
	"hangs": func(b *breaker.Breaker) {
		_ = b.Do(bg, func(context.Context) error { time.Sleep(3 * time.Hour); return nil })
	},
	"is forgotten":        func(b *breaker.Breaker) { _, _ = b.Acquire(bg) },
	"is given back":       func(b *breaker.Breaker) { p, _ := b.Acquire(bg); p.Cancel() },
	"is done":             func(b *breaker.Breaker) { p, _ := b.Acquire(bg); p.Done(errDown) },
	"goes on for ever":    func(b *breaker.Breaker) { p, _ := b.Acquire(bg); progressFor(p, 3*time.Hour) },
	"goes on, then hangs": func(b *breaker.Breaker) { p, _ := b.Acquire(bg); progressFor(p, time.Minute) },
	"asks itself": func(b *breaker.Breaker) {
		_ = b.Do(bg, func(ctx context.Context) error { return b.Do(ctx, func(context.Context) error { return errDown }) })
	},
	"asks to be left alone": func(b *breaker.Breaker) { _ = end(b, breaker.OpenFor(errDown, time.Hour)) },
}

func progressFor(p *breaker.Permit, d time.Duration) {
	for range d / (10 * time.Second) {
		p.Progress()
		time.Sleep(10 * time.Second)
	}
}

func TestHalfOpenForEver(t *testing.T) {
	for way, call := range waysToEnd {
		bubble(t, "every probe "+way, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{ProbeTimeout: 5 * time.Minute, OpenTimeout: 30 * time.Second, MaxOpenTimeout: 30 * time.Second})
			toHalfOpen(t, b)
			for range 20 {
				go call(b)
			}
			synctest.Wait()
			// ProbeTimeout until the places are free or lost, twice that for endless streams, the longest opening after it.
			deadline := time.Now().Add(2*5*time.Minute + 10*time.Minute + 30*time.Second)
			for refuses(b) {
				require.True(t, time.Now().Before(deadline), "still refusing")
				time.Sleep(time.Second)
			}
			time.Sleep(3 * time.Hour)
		})
	}
}

func TestHalfOpenForEverWithSuccessThresholdAboveTheCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SuccessThreshold: 5, HalfOpenMaxCalls: 3})
		toHalfOpen(t, b)
		for range 4 {
			require.NoError(t, end(b, nil))
			require.Equal(t, breaker.StateHalfOpen, b.State())
		}
		require.NoError(t, end(b, nil))
		require.Equal(t, breaker.StateClosed, b.State())
	})
}

func TestNoProbeCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{HalfOpenMaxCalls: 3})
		b.Trip("")
		hold := make(chan struct{})
		var ran sync.WaitGroup
		var mu sync.Mutex
		inside, most := 0, 0
		for range 200 {
			ran.Go(func() {
				time.Sleep(30 * time.Second)
				_ = b.Do(bg, func(context.Context) error {
					mu.Lock()
					inside++
					most = max(most, inside)
					mu.Unlock()
					<-hold
					return nil
				})
			})
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Equal(t, 3, most)
		require.Equal(t, 197, b.Status().Metrics.RejectedCalls)
		close(hold)
		ran.Wait()
	})
}

func TestACallAdmittedBeforeTheTripDecidesNothing(t *testing.T) {
	for name, late := range map[string]error{"a success": nil, "a failure": errDown, "an ignored one": breaker.Ignore(errDown)} {
		bubble(t, name, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{SuccessThreshold: 1, HalfOpenMaxCalls: 1})
			old := admitted(b, 30)
			settle := func() { old[0].Done(late); old = old[1:] }
			ends(b, 5, errDown)
			trip := b.Status().Trip
			settle()
			require.Equal(t, breaker.StateOpen, b.State())
			require.Equal(t, trip, b.Status().Trip)
			time.Sleep(30 * time.Second)
			for range 5 {
				settle()
				require.Equal(t, breaker.StateHalfOpen, b.State())
			}
			require.NoError(t, end(b, nil))
			for range 20 {
				settle()
			}
			s := b.Status()
			require.Equal(t, breaker.StateClosed, s.State)
			require.Zero(t, s.FailureCount+s.SuccessCount, "nothing old in the new window")
		})
	}
}

func TestIgnoredProbesNeitherCloseNorMultiply(t *testing.T) {
	for name, one := range map[string]func(*breaker.Breaker) error{
		"ignored":   func(b *breaker.Breaker) error { return end(b, breaker.Ignore(errDown)) },
		"cancelled": func(b *breaker.Breaker) error { p, err := b.Acquire(bg); p.Cancel(); return err },
	} {
		bubble(t, name, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{SuccessThreshold: 1, HalfOpenMaxCalls: 3})
			toHalfOpen(t, b)
			ran := 0
			for range 1000 {
				if err := one(b); !errors.Is(err, breaker.ErrOpen) {
					ran++
				}
			}
			require.Equal(t, 3, ran)
			require.Equal(t, breaker.StateOpen, b.State())
			require.Equal(t, breaker.RuleProbeIgnored, b.Status().Trip.Rule)
		})
	}
}

func TestPanicAndGoexitNotCounted(t *testing.T) {
	t.Run("a panic trips and propagates untouched", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		for range 5 {
			require.Equal(t, "call", caught(func() { _ = b.Do(bg, func(context.Context) error { panic("call") }) }))
		}
		require.Equal(t, breaker.StateOpen, b.State())
	})
	t.Run("a Goexit trips and propagates", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		for range 5 {
			returned := false
			exits(func() {
				_ = b.Do(bg, func(context.Context) error { runtime.Goexit(); return nil })
				returned = true
			})
			require.False(t, returned)
		}
		require.Equal(t, breaker.StateOpen, b.State())
	})
	t.Run("its text says so", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{FailureThreshold: 1})
		_ = caught(func() { _ = b.Do(bg, func(context.Context) error { panic("call") }) })
		require.Equal(t, []breaker.ErrorCount{{Text: "the call panicked or exited its goroutine", Count: 1}}, b.Status().Trip.Errors)
	})
}

func TestTheCallersCancellationCountedAsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		for i := range 100 {
			ctx, cancel := context.WithCancel(bg)
			_ = b.Do(ctx, func(ctx context.Context) error {
				cancel()
				if i%2 == 0 {
					return ctx.Err()
				}
				return errDown // whatever the error says
			})
		}
		s := b.Status()
		require.Equal(t, breaker.StateClosed, s.State)
		require.Equal(t, 100, s.Metrics.IgnoredCalls)
		require.Zero(t, s.FailureCount+s.ConsecutiveFailures)
	})
}

func TestDeadlinesIgnoredSoThatTimeoutsNeverTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		for range 5 {
			ctx, cancel := context.WithTimeout(bg, time.Second)
			_ = b.Do(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			cancel()
		}
		require.Equal(t, breaker.StateOpen, b.State())
	})
}

func TestCallsLongerThanTheWindowAreNeverCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{WindowDuration: 10 * time.Second, MinimumCalls: 10, FailureThreshold: breaker.Off})
		for range 150 {
			go func() {
				_ = b.Do(bg, func(context.Context) error { time.Sleep(30 * time.Second); return errDown })
			}()
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Equal(t, breaker.StateOpen, b.State())
		require.Equal(t, breaker.RuleFailureRate, b.Status().Trip.Rule)
	})
}

func TestConsecutiveFailuresDecayWithTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{WindowDuration: time.Second, FailureThreshold: 20})
		for range 19 {
			ends(b, 1, errDown)
			time.Sleep(10 * time.Second)
		}
		require.Equal(t, breaker.StateClosed, b.State())
		ends(b, 1, errDown)
		require.Equal(t, breaker.RuleConsecutiveFailures, b.Status().Trip.Rule)
	})
}

func TestTheThresholdIsSkippedUnderConcurrency(t *testing.T) {
	for range 50 {
		b := newBreaker(t, breaker.Config{FailureThreshold: 20, FailureRateThreshold: breaker.Off})
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() { ends(b, 1, errDown) })
		}
		all.Wait()
		require.Equal(t, breaker.StateOpen, b.State())
		require.Equal(t, 20.0, b.Status().Trip.Observed, "opened at exactly the twentieth")
	}
}

func TestHungCallsNeverTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: 2 * time.Second})
		admitted(b, 20)
		time.Sleep(2 * time.Second)
		require.Equal(t, breaker.StateClosed, b.State(), "at exactly the duration no call is slow")
		time.Sleep(1)
		require.Equal(t, breaker.StateOpen, b.State())
		s := b.Status()
		require.Equal(t, "slow-call rate 1.00 >= 0.80 over 20 calls", s.Trip.String())
		require.Equal(t, time.Now().Add(-1), s.Trip.At, "dated when they turned slow")
	})
}

func TestManualOverrideIsOverwrittenByAnAutomaticTransition(t *testing.T) {
	t.Run("disabled stays so through every failure", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.Disable(breaker.Hold{})
		ends(b, 200, errDown)
		require.Equal(t, breaker.StateDisabled, b.State())
		require.NoError(t, end(b, nil))
	})
	bubble(t, "forced open never probes", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second})
		late := admitted(b, 50)
		b.ForceOpen(breaker.Hold{})
		for _, p := range late {
			p.Done(nil)
		}
		for range 100 {
			time.Sleep(time.Hour)
			require.True(t, refuses(b))
			b.Trip("under the hold")
			require.Equal(t, breaker.StateForcedOpen, b.State())
		}
	})
	bubble(t, "reset forgets the old timer", func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.Trip("")
		time.Sleep(20 * time.Second)
		b.Reset("")
		b.Trip("")
		time.Sleep(10 * time.Second)
		require.Equal(t, breaker.StateOpen, b.State())
		time.Sleep(20*time.Second - 1)
		require.Equal(t, breaker.StateOpen, b.State())
		time.Sleep(1)
		require.Equal(t, breaker.StateHalfOpen, b.State())
	})
}

func TestLateFailuresRestartTheOpenTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		late := admitted(b, 30)
		ends(b, 5, errDown)
		for _, p := range late[:29] {
			time.Sleep(time.Second)
			p.Done(errDown)
		}
		time.Sleep(time.Second - 1)
		require.Equal(t, breaker.StateOpen, b.State())
		time.Sleep(1)
		require.Equal(t, breaker.StateHalfOpen, b.State())
	})
}

func TestDoneCountsSevenTimes(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	p := acquire(t, b)
	require.True(t, p.Done(errDown))
	for range 6 {
		require.False(t, p.Done(errDown))
	}
	require.Equal(t, 1, b.Status().Metrics.FailedCalls)
	require.Equal(t, breaker.StateClosed, b.State())
}

func TestJitterVanishesAtTheBackoffCap(t *testing.T) {
	var waits []float64
	for range 1000 {
		b := breaker.Must(breaker.New("x", breaker.Config{OpenTimeout: 10 * time.Second, MaxOpenTimeout: 10 * time.Second, OpenTimeoutJitter: 0.2}))
		b.Trip("")
		refusal, _ := errors.AsType[*breaker.OpenError](end(b, nil))
		waits = append(waits, refusal.Until.Sub(refusal.Trip.At).Seconds())
	}
	require.InDelta(t, 10.0, slices.Min(waits), 0.05)
	require.InDelta(t, 12.0, slices.Max(waits), 0.05)
	slices.Sort(waits)
	require.InDelta(t, 11.0, waits[500], 0.2, "evenly spread")
	require.Greater(t, len(slices.Compact(waits)), 990, "of 2e9 durations a thousand have two alike now and then")
}

func TestMarkerErrorsAreMatchedThroughWrapping(t *testing.T) {
	for name, wrap := range map[string]func(error) error{
		"once":   func(err error) error { return fmt.Errorf("a: %w", err) },
		"thrice": func(err error) error { return fmt.Errorf("a: %w", fmt.Errorf("b: %w", fmt.Errorf("c: %w", err))) },
		"joined": func(err error) error { return errors.Join(errDown, err) },
	} {
		bubble(t, name, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{}, breaker.WithClassifier(breaker.Expect(context.DeadlineExceeded)))
			ends(b, 10, wrap(breaker.Ignore(errDown)))
			ends(b, 10, wrap(context.DeadlineExceeded))
			require.Equal(t, breaker.StateClosed, b.State())
			require.Equal(t, 10, b.Status().Metrics.IgnoredCalls)
			require.Equal(t, 10, b.Status().Metrics.SuccessfulCalls)
			require.ErrorIs(t, end(b, wrap(breaker.OpenFor(errDown, time.Minute))), errDown)
			require.Equal(t, breaker.RuleRetryAfter, b.Status().Trip.Rule)
		})
	}
}

func TestFloatEdgeOfTheRate(t *testing.T) {
	at := func(calls, failures int, threshold float64) breaker.State {
		b := newBreaker(t, breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: threshold, MinimumCalls: calls, WindowCalls: calls})
		ends(b, failures, errDown)
		ends(b, calls-failures, nil)
		return b.State()
	}
	for n := 1; n <= 100; n++ {
		require.Equal(t, breaker.StateOpen, at(100, n, float64(n)/100), "%d of 100 at %d/100", n, n)
		require.Equal(t, breaker.StateClosed, at(100, n-1, float64(n)/100), "%d of 100 at %d/100", n-1, n)
	}
	require.Equal(t, breaker.StateOpen, at(3, 1, 0.333))
	require.Equal(t, breaker.StateOpen, at(100, 57, 0.57))
}

func TestGoroutineLeaks(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 1000 {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second, RampUp: time.Second, WindowDuration: time.Minute})
		ends(b, 5, errDown)
		b.Subscribe(func(breaker.Event) {})
		_, _ = b.Acquire(bg)
		b.ForceOpen(breaker.Hold{For: time.Hour})
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), before)
}
