package breaker_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// move is one step that two breakers take together; the permits they hold are side by side.
type move func(b *breaker.Breaker, held *[]*breaker.Permit, pick int)

var everyMove = []move{
	func(b *breaker.Breaker, _ *[]*breaker.Permit, _ int) { _ = end(b, nil) },
	func(b *breaker.Breaker, _ *[]*breaker.Permit, _ int) { ends(b, 2, errDown) },
	func(b *breaker.Breaker, _ *[]*breaker.Permit, _ int) { _ = end(b, breaker.Ignore(errDown)) },
	func(b *breaker.Breaker, _ *[]*breaker.Permit, pick int) {
		_ = end(b, breaker.OpenFor(errDown, time.Duration(pick)*time.Second))
	},
	func(b *breaker.Breaker, held *[]*breaker.Permit, _ int) { *held = append(*held, admitted(b, 3)...) },
	func(b *breaker.Breaker, held *[]*breaker.Permit, _ int) { *held = append(*held, admitted(b, 1)...) },
	func(_ *breaker.Breaker, held *[]*breaker.Permit, pick int) {
		if len(*held) > 0 {
			(*held)[pick%len(*held)].Done([]error{nil, errDown, breaker.Ignore(errDown)}[pick%3])
		}
	},
	func(_ *breaker.Breaker, held *[]*breaker.Permit, pick int) {
		if len(*held) > 0 {
			(*held)[pick%len(*held)].Progress()
		}
	},
	func(_ *breaker.Breaker, held *[]*breaker.Permit, pick int) {
		if len(*held) > 0 {
			(*held)[pick%len(*held)].Cancel()
		}
	},
	func(_ *breaker.Breaker, held *[]*breaker.Permit, _ int) { *held = nil },
	func(b *breaker.Breaker, _ *[]*breaker.Permit, pick int) {
		switch pick % 6 {
		case 0:
			b.Trip("by hand")
		case 1:
			b.Reset("by hand")
		case 2:
			b.ForceOpen(breaker.Hold{For: time.Duration(pick) * time.Second})
		case 3:
			b.Disable(breaker.Hold{For: time.Duration(pick) * time.Second})
		default:
			b.Release()
		}
	},
}

// noMove are ways to look that change nothing but what was due. The last two are for a breaker without a hold.
var noMove = []func(b *breaker.Breaker){
	func(b *breaker.Breaker) { b.State() },
	func(b *breaker.Breaker) { b.Status() },
	func(b *breaker.Breaker) { b.Config() },
	func(b *breaker.Breaker) { _ = b.Apply(b.Config()) },
	func(b *breaker.Breaker) { b.Subscribe(func(breaker.Event) {})() },
	func(b *breaker.Breaker) {
		if b.Status().Hold == nil {
			b.Release()
		}
	},
}

var somePauses = []time.Duration{0, 1, time.Second - 1, time.Second, time.Second + 1, 5 * time.Second, 10*time.Second - 1, 10 * time.Second, 20 * time.Second, 40 * time.Second}

// What a breaker does never depends on who happened to look before: two live through the same, and one is looked at all the time.
func TestWhoLooksMakesNoDifference(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			cfg := breaker.Config{
				FailureThreshold: 4, MinimumCalls: 4, SlowCallDuration: time.Second, ProbeTimeout: 10 * time.Second, OpenTimeout: 10 * time.Second,
				MaxOpenTimeout: 40 * time.Second, HalfOpenMaxCalls: 1 + r.IntN(3), SuccessThreshold: 1 + r.IntN(3), RampUp: time.Duration(r.IntN(2)) * 20 * time.Second,
			}
			if r.IntN(2) == 0 {
				cfg.WindowDuration = 20 * time.Second
			}
			if r.IntN(2) == 0 {
				cfg.SlowCallRateThreshold = breaker.Off
			}
			seen, unseen := newBreaker(t, cfg), newBreaker(t, cfg)
			var heldSeen, heldUnseen []*breaker.Permit
			for range 60 {
				pause := somePauses[r.IntN(len(somePauses))]
				for range 4 {
					noMove[r.IntN(len(noMove))](seen)
					time.Sleep(pause / 4)
				}
				time.Sleep(pause - pause/4*4)
				do, pick := everyMove[r.IntN(len(everyMove))], r.IntN(60)
				do(seen, &heldSeen, pick)
				do(unseen, &heldUnseen, pick)
				require.Equal(t, unseen.Status(), seen.Status())
			}
		})
	}
}

// What State says is what a call arriving now meets.
func TestStateIsWhatACallMeets(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 4))
			b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second, OpenTimeout: 10 * time.Second, MaxOpenTimeout: 40 * time.Second, ProbeTimeout: 10 * time.Second})
			var held []*breaker.Permit
			for range 60 {
				time.Sleep(somePauses[r.IntN(len(somePauses))])
				everyMove[r.IntN(len(everyMove))](b, &held, r.IntN(60))
				before := b.Status()
				p, err := b.Acquire(bg)
				switch before.State {
				case breaker.StateOpen, breaker.StateForcedOpen:
					require.ErrorIs(t, err, breaker.ErrOpen)
				case breaker.StateClosed, breaker.StateDisabled:
					require.NoError(t, err)
				}
				if refusal, ok := err.(*breaker.OpenError); ok {
					require.Equal(t, before.State, refusal.State)
					require.Equal(t, before.Trip, refusal.Trip)
					if before.RetryAfterSeconds != nil {
						require.Equal(t, *before.RetryAfterSeconds, refusal.RetryAfter().Seconds())
					}
				}
				held = append(held, p)
			}
		})
	}
}
