package breaker

import (
	"context"
	"sync/atomic"
)

// Permit is a call that was admitted by [Breaker.Acquire] and has not ended yet. Its methods may be called from any goroutine,
// in any order. A nil Permit accepts them all and does nothing.
type Permit struct {
	breaker *Breaker
	ctx     context.Context // the caller's, for the classifier
	claimed atomic.Bool     // by the one Done or Cancel that counts

	call call // guarded by the breaker's lock, but for probe, which stays as it was made
}

// Progress tells that the upstream is alive, such as by the first token of a stream and each that follows. The first call
// stops the slow clock: what follows it may take as long as it likes. Each call gives a probe another Config.ProbeTimeout; a
// probe that has gone on for twice that long counts as a success, and its end decides nothing. After Done it does nothing.
func (p *Permit) Progress() {
	if p == nil {
		return
	}
	now := p.breaker.lock()
	defer p.breaker.notify()
	defer p.breaker.unlock()
	p.breaker.machine.progressed(now, &p.call)
}

// Done settles the permit with the call's error, nil for a success, as [Execute] does. It reports whether it was this call
// that settled it: false after another Done, a Cancel, or when the breaker has given the probe up. A panic of a classifier
// counts as a failure and goes on.
func (p *Permit) Done(err error) (first bool) {
	if p == nil || !p.claimed.CompareAndSwap(false, true) {
		return false
	}
	return p.end(err)
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
	return context.WithValue(ctx, probeKey{p.breaker}, p.call.probe)
}

// end decides what err means, outside the lock, and settles. Until that is known the call has failed: a classifier may panic.
func (p *Permit) end(err error) (first bool) {
	if err == nil {
		return p.settle(ending{Verdict: Verdict{Outcome: Success}})
	}
	e := ending{Verdict: Verdict{Outcome: Failure}}
	defer func() { first = p.settle(e) }()
	if err == errDidNotReturn {
		e.text = p.breaker.options.text(err)
		return
	}
	e.text = "the classifier panicked or exited its goroutine"
	e.Verdict = p.breaker.options.verdict(p.ctx, err)
	if e.Outcome == Failure {
		e.text = p.breaker.options.text(err)
	}
	return
}

func (p *Permit) settle(e ending) (first bool) {
	now := p.breaker.lock()
	defer p.breaker.notify()
	defer p.breaker.unlock()
	return p.breaker.machine.settle(now, &p.call, e)
}
