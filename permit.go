package breaker

import (
	"context"
	"sync/atomic"
)

// Permit is a call that was admitted by [Breaker.Acquire] and has not ended yet. Its methods may be called from any goroutine,
// in any order. A nil Permit accepts them all and does nothing.
type Permit struct {
	breaker    *Breaker
	ctx        context.Context // the caller's, for the classifier
	claimed    atomic.Bool     // by the one Done or Cancel that counts
	progressed atomic.Bool     // Progress was called

	// Guarded by the breaker's lock; but probe stays as it was made, and until progressed is set, the rest is that of the one
	// who has claimed the permit.
	call call
}

// Progress tells that the upstream is alive, such as by the first token of a stream and each that follows. The first call
// stops the slow clock: what follows it may take as long as it likes. Each call gives a probe another Config.ProbeTimeout; a
// probe that has gone on for twice that long counts as a success, and its end decides nothing. Once Done or Cancel has begun it
// does nothing.
func (p *Permit) Progress() {
	if p == nil {
		return
	}
	p.progressed.Store(true)
	now := p.breaker.lock()
	defer p.breaker.notify()
	defer p.breaker.unlock()
	p.breaker.machine.advance(now)
	if !p.claimed.Load() { // else it may be leaving without the lock, by one who has not seen progressed set
		p.breaker.machine.progressed(&p.call)
	}
}

// Done settles the permit with the call's error, nil for a success, as [Execute] does. It reports whether it was this call
// that settled it: false after another Done, a Cancel, or when the breaker has given the probe up. A panic of a classifier
// counts as a failure and goes on.
func (p *Permit) Done(err error) (first bool) {
	if p == nil || !p.claimed.CompareAndSwap(false, true) {
		return false
	}
	_, first = p.end(err)
	return first
}

// Cancel gives the permit back without a verdict, in no total. After Done it does nothing, so it can be deferred.
func (p *Permit) Cancel() {
	if p == nil || !p.claimed.CompareAndSwap(false, true) {
		return
	}
	p.settle(ending{})
}

// Context returns ctx so that a call made with it, and asking the same breaker again, joins this permit's probe instead of
// needing a place of its own. Outside half-open, and for a nil Permit, it is ctx itself.
func (p *Permit) Context(ctx context.Context) context.Context {
	if p == nil || p.call.probe == nil {
		return ctx
	}
	return p.inside(ctx)
}

func (p *Permit) inside(ctx context.Context) context.Context {
	return context.WithValue(ctx, probeKey{p.breaker}, p.call.probe)
}

// end decides what err means, outside the lock, and settles. Until that is known the call has failed: a classifier may panic.
func (p *Permit) end(err error) (v Verdict, first bool) {
	if err == nil {
		v = Verdict{Outcome: Success}
		return v, p.pass() || p.settle(ending{Verdict: v})
	}
	e := ending{Verdict: Verdict{Outcome: Failure}}
	defer func() {
		plain := e.Outcome == Success && e.OpenFor == 0
		v, first = e.Verdict, plain && p.pass() || p.settle(e)
	}()
	if err == errDidNotReturn {
		e.text = p.breaker.options.text(err, 0)
		return
	}
	e.text = "the code that judges errors panicked or exited its goroutine"
	t := traitsOf(err)
	e.Verdict = p.breaker.options.verdict(p.ctx, err, t)
	if e.Outcome == Failure {
		e.text = p.breaker.options.text(err, t)
	}
	return
}

func (p *Permit) settle(e ending) (first bool) {
	b := p.breaker
	if !b.catches() {
		b.acquire()
	}
	if b.settleAmong(&p.call, e) {
		return true
	}
	now := b.seal()
	defer b.notify()
	defer b.unlock()
	return b.settle(now, &p.call, e)
}

// pass settles a plain success past the lock, if that is possible.
func (p *Permit) pass() bool {
	if p.call.lane == nil || p.progressed.Load() {
		return false
	}
	b := p.breaker
	how := b.leave(p.call.way)
	if how == waiting && p.call.stripe.out.reopens() {
		how = b.leave(p.call.way)
	}
	if how == waiting {
		b.acquire()
		how = b.leave(p.call.way)
		b.mu.Unlock()
	}
	return how == through
}

// flight is what [Execute] has in a permit's stead for a call that came in without the lock, while it runs. What is deferred reads
// it in place: a closure would get one more copy of each part.
type flight struct {
	way
	breaker *Breaker // nil once the call has returned
}

// ended is deferred: it settles a call that panics or exits its goroutine.
func (f *flight) ended() {
	if f.breaker != nil {
		f.breaker.end(context.Background(), f.way, errDidNotReturn)
	}
}
