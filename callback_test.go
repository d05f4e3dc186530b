package breaker_test

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// everyMethod calls each method of a Breaker once. A callback that may call any method calls them all.
var everyMethod = map[string]func(b *breaker.Breaker){
	"Name":   func(b *breaker.Breaker) { b.Name() },
	"State":  func(b *breaker.Breaker) { b.State() },
	"Status": func(b *breaker.Breaker) { b.Status() },
	"Config": func(b *breaker.Breaker) { b.Config() },
	"Apply":  func(b *breaker.Breaker) { _ = b.Apply(b.Config()) },
	"Do":     func(b *breaker.Breaker) { ends(b, 1, errDown) },
	"Acquire": func(b *breaker.Breaker) {
		p, _ := b.Acquire(bg)
		p.Progress()
		p.Context(bg)
		p.Done(errDown)
		p.Cancel()
	},
	"Subscribe": func(b *breaker.Breaker) { b.Subscribe(func(breaker.Event) {})() },
	"Trip":      func(b *breaker.Breaker) { b.Trip("callback") },
	"Reset":     func(b *breaker.Breaker) { b.Reset("callback") },
	"ForceOpen": func(b *breaker.Breaker) { b.ForceOpen(breaker.Hold{By: "callback"}) },
	"Disable":   func(b *breaker.Breaker) { b.Disable(breaker.Hold{By: "callback"}) },
	"Release":   func(b *breaker.Breaker) { b.Release() },
}

func callEveryMethod(b *breaker.Breaker) {
	for _, call := range everyMethod {
		call(b)
	}
	b.Reset("end of callback")
}

func TestCallbacksAreCheckedAgainstEveryMethod(t *testing.T) {
	of := reflect.TypeFor[*breaker.Breaker]()
	for m := range of.Methods() {
		require.Contains(t, everyMethod, m.Name)
	}
}

// guest is user code in every place where the breaker calls some. One of them, named by place, does what the test wants, the
// first time only: it may lead to itself again.
type guest struct {
	place string
	do    func()
	spent atomic.Bool
}

func (g *guest) at(place string) {
	if place == g.place && g.spent.CompareAndSwap(false, true) {
		g.do()
	}
}

type guestError struct{ *guest }

func (e guestError) Error() string { e.at("Error of an error"); return "guest" }
func (e guestError) Unwrap() error { e.at("Unwrap of an error"); return nil }
func (e guestError) Is(error) bool { e.at("Is of an error"); return false }
func (e guestError) As(any) bool   { e.at("As of an error"); return false }

type guestContext struct {
	context.Context
	*guest
}

func (c guestContext) Err() error      { c.at("Err of a context"); return nil }
func (c guestContext) Value(k any) any { c.at("Value of a context"); return c.Context.Value(k) }

var places = []string{
	"call", "classifier", "error text", "listener", "subscriber",
	"Error of an error", "Unwrap of an error", "Is of an error", "As of an error", "Err of a context", "Value of a context",
}

// guested returns a breaker that meets g in each place on its way to open, half-open and back; see visit.
func guested(t *testing.T, g *guest) *breaker.Breaker {
	b := newBreaker(t, breaker.Config{FailureThreshold: 2, SuccessThreshold: 1, OpenTimeout: time.Nanosecond, MaxOpenTimeout: time.Nanosecond},
		breaker.WithClassifier(func(context.Context, error) breaker.Verdict { g.at("classifier"); return breaker.Verdict{} }),
		breaker.WithListener(func(breaker.Event) { g.at("listener") }),
		breaker.WithErrorText(func(err error) string { g.at("error text"); return err.Error() }))
	b.Subscribe(func(breaker.Event) { g.at("subscriber") })
	return b
}

func visit(b *breaker.Breaker, g *guest) {
	ctx := guestContext{bg, g}
	fails := func(context.Context) error { return guestError{g} }
	for range 4 {
		exits(func() {
			_ = caught(func() {
				_ = b.Do(ctx, func(inner context.Context) error {
					g.at("call")
					_ = b.Do(ctx, fails)   // a context that is asked for its probe in vain
					_ = b.Do(inner, fails) // and one that has it
					return guestError{g}
				})
			})
		})
	}
}

// within fails the test instead of the whole run when f deadlocks.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		buf := make([]byte, 1<<16)
		require.Fail(t, "deadlock", "%s", buf[:runtime.Stack(buf, true)])
	}
}

func TestCallbacksUnderTheLock(t *testing.T) {
	for _, place := range places {
		for name, do := range map[string]func(b *breaker.Breaker){
			"calls every method": callEveryMethod,
			"panics":             func(*breaker.Breaker) { panic("guest") },
			"exits":              func(*breaker.Breaker) { runtime.Goexit() },
		} {
			t.Run(place+" "+name, func(t *testing.T) {
				g := &guest{place: place}
				b := guested(t, g)
				g.do = func() { do(b) }
				within(t, func() { visit(b, g) })
				require.True(t, g.spent.Load(), "never got there")
				b.Reset("")
				require.NoError(t, end(b, nil), "usable")
				require.Zero(t, b.Status().Metrics.InFlight)
			})
		}
	}
}

func TestACallbackOfABreakerMayCallEveryMethodOfIt(t *testing.T) {
	for name, call := range everyMethod {
		t.Run("a listener calls "+name, func(t *testing.T) {
			var spent atomic.Bool
			b := newBreaker(t, breaker.Config{}, breaker.WithListener(func(e breaker.Event) {
				if spent.CompareAndSwap(false, true) {
					call(e.Breaker)
				}
			}))
			within(t, func() {
				ends(b, 5, errDown)
				b.Reset("")
				require.NoError(t, end(b, nil))
			})
		})
	}
}

func TestWhatACallbackPanicsWithReachesTheCaller(t *testing.T) {
	boom := func() { panic("guest") }
	ask := func(err error, opts ...breaker.Option) (*breaker.Breaker, any) {
		b := newBreaker(t, breaker.Config{FailureThreshold: 1}, opts...)
		return b, caught(func() { _ = end(b, err) })
	}
	t.Run("of a classifier, and the call has failed", func(t *testing.T) {
		b, v := ask(errDown, breaker.WithClassifier(func(context.Context, error) breaker.Verdict { boom(); return breaker.Verdict{Outcome: breaker.Success} }))
		require.Equal(t, "guest", v)
		require.Equal(t, breaker.StateOpen, b.State())
		require.Equal(t, 1, b.Status().Metrics.FailedCalls)
		require.Equal(t, "the code that judges errors panicked or exited its goroutine", b.Status().Trip.Errors[0].Text)
	})
	t.Run("of an error text, and the call has failed", func(t *testing.T) {
		b, v := ask(errDown, breaker.WithErrorText(func(error) string { boom(); return "" }))
		require.Equal(t, "guest", v)
		require.Equal(t, breaker.StateOpen, b.State())
	})
	t.Run("of a listener, once the others are served", func(t *testing.T) {
		var heard []string
		b, v := ask(errDown, breaker.WithListener(func(breaker.Event) { heard = append(heard, "first"); boom() }),
			breaker.WithListener(func(breaker.Event) { heard = append(heard, "second") }))
		require.Equal(t, "guest", v)
		require.Equal(t, []string{"first", "second"}, heard)
		require.Equal(t, breaker.StateOpen, b.State())
	})
	t.Run("not of an error's text: fmt guards it", func(t *testing.T) {
		b, v := ask(guestError{&guest{place: "Error of an error", do: boom}})
		require.Nil(t, v)
		require.Contains(t, b.Status().Trip.Errors[0].Text, "PANIC")
	})
	t.Run("not of a nil pointer's text", func(t *testing.T) {
		b, v := ask((*nilError)(nil))
		require.Nil(t, v)
		require.Equal(t, []breaker.ErrorCount{{Text: "<nil>", Count: 1}}, b.Status().Trip.Errors)
	})
	t.Run("not of an error that fits no comparison", func(t *testing.T) {
		b, v := ask(sliceError{"a"}, breaker.WithClassifier(breaker.Expect(sliceError{"a"}, errDown)))
		require.Nil(t, v)
		require.Equal(t, breaker.StateOpen, b.State())
	})
}

type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

type sliceError []string

func (e sliceError) Error() string { return "slice" }

func TestAnEventDuringAPanicReachesAll(t *testing.T) {
	var heard []breaker.Rule
	b := newBreaker(t, breaker.Config{FailureThreshold: 1}, breaker.WithListener(func(e breaker.Event) { heard = append(heard, e.Rule); panic(e.Rule) }))
	v := caught(func() { _ = b.Do(bg, func(context.Context) error { panic("call") }) })
	require.Contains(t, []any{"call", breaker.RuleConsecutiveFailures}, v)
	require.Equal(t, []breaker.Rule{breaker.RuleConsecutiveFailures}, heard)
	require.True(t, errors.Is(end(b, nil), breaker.ErrOpen))
	require.True(t, slices.Contains(heard, breaker.RuleConsecutiveFailures))
}
