// Package bench sets this library beside its peers: what each does in the situations in which circuit breakers fail. The
// table in the README is what TestTable prints; time is that of a synctest bubble, so hours cost nothing.
package bench

import (
	"context"
	"errors"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/sony/gobreaker/v2"

	"github.com/failfast-go/breaker"
)

// A peer is a circuit breaker of some library. All are made alike: five failures in a row open it, it stays open for 30 s,
// three successful probes close it, at most three run at once. All else is the library's default.
type peer interface {
	do(ctx context.Context, call func(context.Context) error) error
	state() string // "closed", "open" or "half-open"
}

// settings are what a check needs beyond that.
type settings struct {
	window    time.Duration // also a failure rate of half the calls, of at least ten, over so long
	slow      time.Duration // calls that take longer are slow
	onChanged func(peer)    // called at each change of state
}

type library struct {
	name string
	make func(settings) peer
}

var libraries = []library{
	{"breaker", newOurs},
	{"gobreaker v2.4.0", newGobreaker},
	{"failsafe-go v0.9.8", newFailsafe},
}

type ours struct{ *breaker.Breaker }

func newOurs(s settings) peer {
	var o ours
	o.Breaker = breaker.Must(breaker.New("x", breaker.Config{
		FailureThreshold: 5, WindowDuration: s.window, SlowCallDuration: s.slow,
		OpenTimeout: 30 * time.Second, OpenTimeoutJitter: breaker.Off, HalfOpenMaxCalls: 3, SuccessThreshold: 3,
	}))
	if s.onChanged != nil {
		o.Subscribe(func(breaker.Event) { s.onChanged(o) })
	}
	return o
}

func (o ours) do(ctx context.Context, call func(context.Context) error) error { return o.Do(ctx, call) }

func (o ours) state() string {
	if s := o.State(); s != breaker.StateHalfOpen {
		return s.String()
	}
	return "half-open"
}

type sony struct{ *gobreaker.CircuitBreaker[any] }

func newGobreaker(s settings) peer {
	g := new(sony)
	set := gobreaker.Settings{
		MaxRequests: 3, Timeout: 30 * time.Second, Interval: s.window, BucketPeriod: s.window / 10,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			rate := s.window > 0 && c.Requests >= 10 && float64(c.TotalFailures)/float64(c.Requests) >= 0.5
			return c.ConsecutiveFailures >= 5 || rate
		},
	}
	if s.onChanged != nil {
		set.OnStateChange = func(string, gobreaker.State, gobreaker.State) { s.onChanged(g) }
	}
	g.CircuitBreaker = gobreaker.NewCircuitBreaker[any](set)
	return g
}

func (g *sony) do(ctx context.Context, call func(context.Context) error) error {
	_, err := g.Execute(func() (any, error) { return nil, call(ctx) })
	return err
}

func (g *sony) state() string { return g.State().String() }

// fail is one circuit breaker of failsafe-go, or two around each other: one for failures in a row and one for the rate.
type fail struct {
	breakers []circuitbreaker.CircuitBreaker[any]
}

func newFailsafe(s settings) peer {
	f := new(fail)
	add := func(b circuitbreaker.Builder[any]) {
		b.WithDelay(30 * time.Second).WithSuccessThreshold(3)
		if s.onChanged != nil {
			b.OnStateChanged(func(circuitbreaker.StateChangedEvent) { s.onChanged(f) })
		}
		f.breakers = append(f.breakers, b.Build())
	}
	add(circuitbreaker.NewBuilder[any]().WithFailureThreshold(5))
	if s.window > 0 {
		add(circuitbreaker.NewBuilder[any]().WithFailureRateThreshold(0.5, 10, s.window))
	}
	return f
}

func (f *fail) do(ctx context.Context, call func(context.Context) error) error {
	chain := failsafe.With[any](f.breakers[0])
	for _, b := range f.breakers[1:] {
		chain = chain.Compose(b)
	}
	return chain.WithContext(ctx).Run(func() error { return call(ctx) })
}

// state is the worse of the two.
func (f *fail) state() string {
	for _, b := range f.breakers {
		if !b.IsClosed() {
			return b.State().String()
		}
	}
	return "closed"
}

func refused(err error) bool {
	for _, e := range []error{breaker.ErrOpen, gobreaker.ErrOpenState, gobreaker.ErrTooManyRequests, circuitbreaker.ErrOpen} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
