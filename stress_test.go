package breaker_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// probing counts how many undecided probes there are, as the callers see it, and how many there ever were at once.
type probing struct{ now, most atomic.Int32 }

func (p *probing) enter() {
	n := p.now.Add(1)
	for most := p.most.Load(); n > most && !p.most.CompareAndSwap(most, n); most = p.most.Load() {
	}
}

// Whatever goroutines do at the instant of expiry, no more than HalfOpenMaxCalls are inside at once.
func TestNeverMoreProbesThanAllowedUnderAnyInterleaving(t *testing.T) {
	for round := range 200 {
		b := newBreaker(t, breaker.Config{HalfOpenMaxCalls: 1 + round%4, SuccessThreshold: 1 << 20, OpenTimeout: time.Microsecond, MaxOpenTimeout: time.Microsecond})
		b.Trip("")
		for b.State() != breaker.StateHalfOpen {
			runtime.Gosched()
		}
		var inside probing
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				for range 10 {
					p, err := b.Acquire(bg)
					if err != nil {
						continue
					}
					inside.enter()
					runtime.Gosched()
					inside.now.Add(-1)
					p.Done(nil)
				}
			})
		}
		all.Wait()
		require.LessOrEqual(t, int(inside.most.Load()), 1+round%4)
	}
}

func TestAlwaysOpenAfterManyFailAtOnce(t *testing.T) {
	for range 100 {
		b := newBreaker(t, breaker.Config{FailureThreshold: breaker.Off})
		var start, all sync.WaitGroup
		start.Add(1)
		for range 32 {
			p := acquire(t, b)
			all.Go(func() { start.Wait(); p.Done(errDown) })
		}
		start.Done()
		all.Wait()
		require.Equal(t, breaker.StateOpen, b.State())
		require.Equal(t, 10, b.Status().Trip.Calls, "at exactly the tenth")
		require.Equal(t, 32, b.Status().Metrics.FailedCalls)
	}
}

// chaos does one random thing to b and books what it knows of the outcome.
func chaos(b *breaker.Breaker, r *rand.Rand, booked *[4]atomic.Int64, held *[]*breaker.Permit) {
	book := func(err error) {
		switch {
		case errors.Is(err, breaker.ErrOpen):
			booked[3].Add(1)
		case err == nil:
			booked[0].Add(1)
		case errors.Is(err, errDown):
			booked[1].Add(1)
		default:
			booked[2].Add(1)
		}
	}
	switch n := r.IntN(100); {
	case n < 40:
		book(end(b, nil))
	case n < 55:
		book(end(b, errDown))
	case n < 60:
		book(end(b, breaker.Ignore(context.Canceled)))
	case n < 75:
		p, err := b.Acquire(bg)
		if err != nil {
			book(err)
			return
		}
		*held = append(*held, p)
	case n < 90 && len(*held) > 0:
		p := (*held)[0]
		*held = (*held)[1:]
		p.Progress()
		if err := []error{nil, errDown}[r.IntN(2)]; p.Done(err) {
			book(err)
		}
	case n < 91:
		b.Trip("chaos")
	case n < 92:
		b.Reset("chaos")
	case n < 93:
		b.ForceOpen(breaker.Hold{For: time.Microsecond})
	case n < 94:
		b.Disable(breaker.Hold{For: time.Microsecond})
	case n < 95:
		b.Release()
	case n < 96:
		cfg := b.Config()
		cfg.WindowCalls, cfg.MinimumCalls = 1+r.IntN(100), 1
		_ = b.Apply(cfg)
	case n < 97:
		b.Subscribe(func(breaker.Event) {})()
	default:
		_ = b.Status()
	}
}

func TestTotalsAddUpUnderChaos(t *testing.T) {
	var d diary
	b := newBreaker(t, breaker.Config{OpenTimeout: 20 * time.Microsecond, MaxOpenTimeout: 50 * time.Microsecond, ProbeTimeout: time.Hour, SlowCallDuration: time.Minute, SuccessThreshold: 2}, breaker.WithListener(d.hear))
	var booked [4]atomic.Int64
	var all sync.WaitGroup
	for seed := range uint64(8) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			var held []*breaker.Permit
			for range 3000 {
				chaos(b, r, &booked, &held)
			}
			for _, p := range held {
				p.Cancel()
			}
		})
	}
	all.Wait()
	m := b.Status().Metrics
	require.Equal(t, []int{int(booked[0].Load()), int(booked[1].Load()), int(booked[2].Load()), int(booked[3].Load()), 0},
		[]int{m.SuccessfulCalls, m.FailedCalls, m.IgnoredCalls, m.RejectedCalls, m.InFlight})
	requireSeq(t, d.heard)
	b.Reset("")
	require.NoError(t, end(b, nil))
}

// The same on a fake clock, with permits that are forgotten and clocks that jump: it must come back by itself.
func TestNeverWedgedUnderChaos(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			cfg := breaker.Config{ProbeTimeout: time.Minute, MaxOpenTimeout: 5 * time.Minute, HalfOpenMaxCalls: 1 + r.IntN(3), SuccessThreshold: 1 + r.IntN(5), MaxRetryAfter: 5 * time.Minute}
			if r.IntN(2) == 0 {
				cfg.SlowCallDuration, cfg.WindowDuration = time.Second, time.Minute
			}
			b := newBreaker(t, cfg)
			var booked [4]atomic.Int64
			var held []*breaker.Permit
			for range 300 {
				chaos(b, r, &booked, &held)
				time.Sleep(time.Duration(r.Int64N(int64(time.Duration(1) << r.IntN(36)))))
				if len(held) > 10 {
					held = nil // forgotten
				}
			}
			b.Release()
			refusing := time.Duration(0)
			for refuses(b) {
				time.Sleep(time.Second)
				refusing += time.Second
				require.Less(t, refusing, 2*time.Minute+5*time.Minute+time.Second)
			}
		})
	}
}
