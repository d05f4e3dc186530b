package breaker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// CallOption says how a call is made: to [Protect] of the primary, to [Protected.OrCall] of a step.
type CallOption func(*callOptions)

type callOptions struct {
	breaker *Breaker // nil for none
	within  time.Duration
	retries int
	base    time.Duration
	invalid error
}

// Within bounds a call, all its attempts and the pauses between them together, by a deadline on its context. To the breaker
// that deadline is a failure, and the chain goes on with what time the caller has left. Zero or less means no bound.
func Within(d time.Duration) CallOption {
	return func(o *callOptions) { o.within = d }
}

// Retry makes up to n more attempts after one that failed. Each asks the breaker anew and has its own outcome there.
//
// The pause before the k-th of them is random, between half and the whole of base * 2^(k-1). After an [OpenFor] it lasts
// instead until the breaker admits calls again; without a breaker, for the time asked, at most 10 min. A pause for which the
// deadline leaves no room is not begun: the chain goes on at once. Without any deadline a pause is as long as the upstream
// asks, so use it with [Within].
//
// No attempt follows a refusal, an outcome ignored without OpenFor, or the caller's cancellation, which also ends a pause. n
// of zero or less means no attempt, base of zero or less no pause.
func Retry(n int, base time.Duration) CallOption {
	return func(o *callOptions) { o.retries, o.base = n, base }
}

// Through puts the call of [Protected.OrCall] behind a breaker of its own; a refusal is that step's failure. For the primary,
// whose breaker [Protect] names, it is an error, as is a nil b.
func Through(b *Breaker) CallOption {
	return func(o *callOptions) {
		o.breaker = b
		if b == nil {
			o.invalid = errors.New("the breaker given to Through is nil")
		}
	}
}

// target is a call and how it is made.
type target[Req, Res any] struct {
	callOptions
	name     string
	call     func(context.Context, Req) (Res, error)
	survives bool // a panic is an error like others
}

func newTarget[Req, Res any](name string, call func(context.Context, Req) (Res, error), opts []CallOption) (target[Req, Res], error) {
	t := target[Req, Res]{name: name, call: call}
	for _, set := range opts {
		if set != nil {
			set(&t.callOptions)
		}
	}
	return t, errors.Join(t.invalid, notNil(call == nil, "its call"))
}

// ask makes the call, and again as far as Retry and Within allow. The results are those of the last attempt.
func (t *target[Req, Res]) ask(ctx context.Context, req Req, log *journal) (res Res, v Verdict, err error) {
	if t.within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.within)
		defer cancel()
	}
	backoff := t.base
	for n := 0; ; n++ {
		began := log.now()
		if t.survives {
			res, v, err = t.attemptAndSurvive(ctx, req)
		} else {
			res, v, err = t.attempt(ctx, req)
		}
		err = t.note(log, began, err)
		if n >= t.retries || !worthRetrying(v, err) || !pause(ctx, t.pauseAfter(v, backoff)) {
			return res, v, err
		}
		backoff = plus(backoff, backoff)
	}
}

// note enters an attempt in the journal and returns its error as others can use it.
func (t *target[Req, Res]) note(log *journal, began time.Time, err error) error {
	if isNilPointer(err) { // errors.Is would panic with it, here or in the caller's hands
		err = fmt.Errorf("the call returned a nil %T as its error", err)
	}
	log.add(t.name, began, err)
	return err
}

func worthRetrying(v Verdict, err error) bool {
	return (v.Outcome == Failure || v.Outcome == Ignored && v.OpenFor > 0) && !isRefusal(err)
}

func (t *target[Req, Res]) attemptAndSurvive(ctx context.Context, req Req) (res Res, v Verdict, err error) {
	v.Outcome = Failure
	err = survive(func() (err error) {
		res, v, err = t.attempt(ctx, req)
		return err
	})
	return res, v, err
}

// attempt is [Execute], but that the breaker may be missing and that it tells the verdict: unset when nothing was called.
func (t *target[Req, Res]) attempt(ctx context.Context, req Req) (res Res, v Verdict, err error) {
	if err := ctx.Err(); err != nil {
		if !cancelled(ctx) {
			err = fmt.Errorf("not called: %w", err)
		}
		return res, v, err
	}
	if t.breaker == nil {
		res, err = t.call(ctx, req)
		return res, Classify(ctx, err), err
	}
	w, how := t.breaker.enter()
	switch how {
	case rejected:
		return res, v, w.lane.refusal
	case through:
	default:
		return executeLocked(ctx, t.breaker, func(ctx context.Context) (Res, error) { return t.call(ctx, req) })
	}
	f := flight{w, t.breaker}
	defer f.ended()
	res, err = t.call(ctx, req)
	f.breaker = nil
	if err == nil && t.breaker.leave(f.way) == through {
		return res, Verdict{Outcome: Success}, nil
	}
	v, _ = t.breaker.end(ctx, f.way, err)
	return res, v, err
}

// pauseAfter returns how long to wait before the next attempt.
func (t *target[Req, Res]) pauseAfter(v Verdict, backoff time.Duration) time.Duration {
	if v.OpenFor > 0 {
		if wait := t.breaker.comeBack(v.OpenFor); wait > 0 {
			return wait
		}
	}
	if backoff <= 0 {
		return 0
	}
	return backoff/2 + rand.N(backoff-backoff/2+1)
}

// comeBack returns when to try again an upstream that asked for a pause: when b admits calls, or after that pause if b does so
// already. Zero if it ignores such wishes, or an operator holds it open.
func (b *Breaker) comeBack(asked time.Duration) time.Duration {
	if b == nil {
		return min(asked, 10*time.Minute)
	}
	now := b.lock()
	defer b.unlock()
	m := b.machine.seen(now)
	switch m.shown() {
	case StateOpen:
		return m.until - max(now, m.now)
	case StateForcedOpen:
		return 0
	}
	return m.granted(ending{Verdict: Verdict{OpenFor: asked}})
}

// pause waits for d and reports whether there is still time for a call then. If not, it does not wait at all.
func pause(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
