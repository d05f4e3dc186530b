package breaker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// A plain breaker of these tests: no jitter, so that every instant is known.
func steady(cfg breaker.Config) breaker.Config {
	if cfg.OpenTimeoutJitter == 0 {
		cfg.OpenTimeoutJitter = breaker.Off
	}
	return cfg
}

func newBreaker(t *testing.T, cfg breaker.Config, opts ...breaker.Option) *breaker.Breaker {
	t.Helper()
	b, err := breaker.New("x", steady(cfg), opts...)
	require.NoError(t, err)
	return b
}

var (
	errDown = errors.New("upstream is down")
	bg      = context.Background()
)

// end makes one call that ends with err at once.
func end(b *breaker.Breaker, err error) error {
	return b.Do(bg, func(context.Context) error { return err })
}

func ends(b *breaker.Breaker, n int, err error) {
	for range n {
		_ = end(b, err)
	}
}

func acquire(t *testing.T, b *breaker.Breaker) *breaker.Permit {
	t.Helper()
	p, err := b.Acquire(bg)
	require.NoError(t, err)
	return p
}

// refuses asks without changing more than the count of refusals, and gives an admitted call back.
func refuses(b *breaker.Breaker) bool {
	p, err := b.Acquire(bg)
	p.Cancel()
	return errors.Is(err, breaker.ErrOpen)
}

// admitted asks for n permits and returns those it got.
func admitted(b *breaker.Breaker, n int) (permits []*breaker.Permit) {
	for range n {
		if p, err := b.Acquire(bg); err == nil {
			permits = append(permits, p)
		}
	}
	return permits
}

// toHalfOpen trips b and waits until it probes.
func toHalfOpen(t *testing.T, b *breaker.Breaker) {
	t.Helper()
	b.Trip("test")
	time.Sleep(b.Config().MaxOpenTimeout)
	require.Equal(t, breaker.StateHalfOpen, b.State())
}

// bubble runs a subtest on a fake clock.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// caught returns what f panics with.
func caught(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

// exits runs f on a goroutine of its own, since it may end by Goexit, and waits for it.
func exits(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// step is one line of a scenario: wait, then do, then the breaker must look so. A zero want is closed.
type step struct {
	name string
	wait time.Duration
	do   func(b *breaker.Breaker)
	want breaker.State
}

func play(t *testing.T, b *breaker.Breaker, steps []step) {
	t.Helper()
	for i, s := range steps {
		time.Sleep(s.wait)
		if s.do != nil {
			s.do(b)
		}
		require.Equal(t, s.want.String(), b.State().String(), "step %d: %s", i+1, s.name)
	}
}
