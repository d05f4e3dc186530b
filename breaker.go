// Package breaker is a circuit breaker for calls that fail: language models, vector stores, databases, HTTP and gRPC upstreams.
//
// A [Breaker] stands before one upstream. It watches how calls end, refuses them at once while the upstream is ill, and finds
// out by itself when it is well again:
//
//	llm := breaker.Must(breaker.New("llm", breaker.Config{}))
//	answer, err := breaker.Execute(ctx, llm, func(ctx context.Context) (string, error) {
//		return client.Ask(ctx, prompt)
//	})
//	if errors.Is(err, breaker.ErrOpen) {
//		// refused: nothing was called
//	}
//
// Which call when: [Execute] for a function with a result, [Breaker.Do] for one without, [Breaker.Acquire] for a stream whose
// end comes later, [Protect] to answer from a cache, a second model, rules or a default while the upstream is ill, a
// [Registry] for many breakers from one YAML file.
//
//	closed       admits every call; opens by a rule: failures in a row, failure rate, slow-call rate
//	open         refuses every call until the open timeout has passed
//	half_open    admits a few probes; enough successes close it, a failure, a slow or a lost probe re-opens it
//	forced_open  an operator refuses every call
//	disabled     an operator admits every call
//
// All methods are safe for concurrent use. No lock is held while code of yours runs: the call itself, a [Classifier], a
// listener; and while it is closed and well, or open, most calls take none at all. The package starts no goroutine;
// [Registry.Watch] blocks the one that calls it.
package breaker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Breaker is a circuit breaker for one upstream. Make it with [New], or let a [Registry] do so.
type Breaker struct {
	base      time.Time // of the monotonic clock
	options   options
	listeners listeners
	fallbacks fallbackCounts
	durations *histogram // nil unless asked for

	// Hints that spare work without the lock. Both are written under mu: undelivered says that queue holds events, probing
	// that there are probes. Whoever must see one set is ordered behind the write: notify follows its own unlock, and a call
	// inside a probe follows the probe's admission.
	undelivered, probing atomic.Bool

	// lane is where calls that arrive now pass without the lock; nil when they all need it. Written under mu.
	lane atomic.Pointer[lane]

	mu      sync.Mutex // guards the fields below
	machine machine
	queue   queue
}

// New returns a closed breaker. name appears in errors, logs and metrics: not empty, UTF-8, at most 256 bytes. The zero Config
// is a good start. The error, a *[ConfigError] where cfg is to blame, lists everything that is wrong.
func New(name string, cfg Config, opts ...Option) (*Breaker, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	resolved, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	return newBreaker(name, resolved, opts), nil
}

func newBreaker(name string, resolved Config, opts []Option) *Breaker {
	b := &Breaker{base: time.Now()}
	for _, set := range opts {
		if set != nil {
			set(&b.options)
		}
	}
	if b.options.logger != nil {
		b.listeners.add(logTo(b.options.logger))
	}
	for _, f := range b.options.listeners {
		b.listeners.add(f)
	}
	if bounds := b.options.durations; bounds != nil {
		b.durations = &histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
	}
	b.machine = newMachine(name, resolved, b.base)
	b.machine.timesAll = b.durations != nil
	return b
}

// Must returns b, or panics with err. For breakers made when a program starts.
func Must(b *Breaker, err error) *Breaker {
	if err != nil {
		panic(err)
	}
	return b
}

const maxName = 256

func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("breaker: the name is empty: want 1 to %d bytes of UTF-8", maxName)
	case len(name) > maxName:
		return fmt.Errorf("breaker: the name %.40q... has %d bytes: want at most %d", name, len(name), maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("breaker: the name %q is not UTF-8", name)
	}
	return nil
}

// Execute runs call unless b refuses, and returns what it returns.
//
// A refusal is an *[OpenError] (errors.Is [ErrOpen]) and runs nothing. If ctx is already done its error is returned before b
// is asked, and nothing counts. A panic or runtime.Goexit of call counts as a failure and goes on untouched. call gets ctx, in
// half-open one derived from it, by which a call inside it that asks b again joins the probe instead of being refused.
func Execute[T any](ctx context.Context, b *Breaker, call func(context.Context) (T, error)) (res T, err error) {
	if err = ctx.Err(); err != nil {
		return res, err
	}
	w, how := b.enter()
	switch how {
	case rejected:
		return res, w.lane.refusal
	case through:
	default:
		res, _, err = executeLocked(ctx, b, call)
		return res, err
	}
	f := flight{w, b}
	defer f.ended()
	res, err = call(ctx)
	f.breaker = nil
	if err != nil || b.leave(f.way) != through {
		b.end(ctx, f.way, err)
	}
	return res, err
}

// executeLocked is [Execute] for a call that needs the lock, and tells the verdict: unset when it was refused.
func executeLocked[T any](ctx context.Context, b *Breaker, call func(context.Context) (T, error)) (res T, v Verdict, err error) {
	var p Permit
	if err := b.admit(ctx, &p); err != nil {
		return res, v, err
	}
	end := errDidNotReturn
	defer func() { v, _ = p.end(end) }()
	res, err = call(p.Context(ctx))
	end = err
	return res, v, err
}

// end settles a call that came in past the lock and cannot leave so.
func (b *Breaker) end(ctx context.Context, w way, err error) (v Verdict, first bool) {
	p := Permit{breaker: b, ctx: ctx, call: call{period: w.lane.period, way: w}}
	return p.end(err)
}

// Do is [Execute] for a call without a result.
func (b *Breaker) Do(ctx context.Context, call func(context.Context) error) error {
	_, err := Execute(ctx, b, func(ctx context.Context) (struct{}, error) { return struct{}{}, call(ctx) })
	return err
}

// Acquire is the two-step form, for calls whose end comes later, such as streams: it admits a call, or refuses it like
// [Execute] with a nil Permit. The caller must settle the permit:
//
//	p, err := b.Acquire(ctx)
//	if err != nil {
//		return err
//	}
//	defer p.Cancel() // does nothing after Done
//	...
//	p.Done(err)
//
// A permit that is forgotten keeps a place in half-open until Config.ProbeTimeout after its last sign of life.
func (b *Breaker) Acquire(ctx context.Context) (*Permit, error) {
	p := new(Permit)
	if _, err := b.begin(ctx, p); err != nil {
		return nil, err
	}
	return p, nil
}

// begin admits a call, unless its context is done, and fills in its permit. The context is that for the call.
func (b *Breaker) begin(ctx context.Context, p *Permit) (context.Context, error) {
	if err := ctx.Err(); err != nil {
		return ctx, err
	}
	if err := b.admit(ctx, p); err != nil {
		return ctx, err
	}
	return p.Context(ctx), nil
}

// admit lets a call in, and fills in its permit, or refuses it.
func (b *Breaker) admit(ctx context.Context, p *Permit) error {
	w, how := b.enter()
	if how == waiting && w.stripe.in.reopens() {
		w, how = b.enter()
	}
	if how == waiting {
		b.acquire()
		w, how = b.enter()
		b.mu.Unlock()
	}
	if how == rejected {
		return w.lane.refusal
	}
	p.breaker, p.ctx = b, ctx
	if how == through {
		p.call.way, p.call.period = w, w.lane.period
		return nil
	}
	return b.admitLocked(p, b.probeOf(ctx))
}

// admitLocked is admit for calls that need the lock. parent is the probe inside which the caller already runs, if any. Listeners
// hear first of what fell due since the last look: one that panics must not take an admission with it, whose permit nobody would
// hold.
func (b *Breaker) admitLocked(p *Permit, parent *probe) error {
	now := b.lock()
	for b.machine.behind(now) {
		b.machine.advance(now)
		b.unlock()
		b.notify()
		now = b.lock()
	}
	defer b.unlock()
	c, refusal := b.machine.admit(now, parent)
	if refusal != nil {
		return refusal
	}
	p.call = c
	return nil
}

// probeKey is the context key under which a probe of a breaker travels.
type probeKey struct{ *Breaker }

// probeOf returns the probe inside which ctx runs. It is called without the lock: a context is user code.
func (b *Breaker) probeOf(ctx context.Context) *probe {
	if !b.probing.Load() {
		return nil
	}
	p, _ := ctx.Value(probeKey{b}).(*probe)
	return p
}

// now reads the clock.
func (b *Breaker) now() time.Duration { return time.Since(b.base) }

// acquire takes mu. The lanes stay open.
func (b *Breaker) acquire() {
	if stepping {
		yieldAt("lock")
		for !b.mu.TryLock() {
			blocked()
		}
		return
	}
	b.mu.Lock()
}

// catches takes mu if it is free soon, while calls pass: then whoever has it needs it for less than it takes to be put to sleep
// and woken. The mutex itself waits so only where no other goroutine is ready to run.
func (b *Breaker) catches() bool {
	if stepping || b.lane.Load() == nil {
		return false
	}
	for range patience {
		if b.mu.TryLock() {
			return true
		}
	}
	return false
}

// lock takes the lock, so that nobody passes it, and reads the clock, once for all that happens under it.
func (b *Breaker) lock() (now time.Duration) {
	b.acquire()
	return b.seal()
}

// seal is lock for who has taken mu.
func (b *Breaker) seal() (now time.Duration) {
	b.machine.sealLanes()
	now = b.now()
	b.machine.collect(now)
	return now
}

// settle ends a call, and reports whether this did.
func (b *Breaker) settle(now time.Duration, c *call, e ending) (first bool) {
	first = b.machine.settle(now, c, e)
	if h := b.durations; h != nil && first && !c.joined && e.Outcome != unset {
		h.observe(b.machine.lasted(c))
	}
	return first
}

// settleAmong ends a call while others pass, if nothing can open by it, and then frees mu.
func (b *Breaker) settleAmong(c *call, e ending) bool {
	l, m := b.lane.Load(), &b.machine
	if l == nil {
		return false
	}
	now := b.now()
	yieldAt("load look")
	if int64(now) >= l.look.Load() {
		return false
	}
	m.now = max(m.now, now)
	m.passed()
	if !m.opensNothing(c, e) {
		return false
	}
	b.settle(now, c, e)
	b.mu.Unlock()
	return true
}

// unlock queues what listeners shall hear, opens the lanes as far as the machine allows, and frees the lock.
func (b *Breaker) unlock() {
	for _, e := range b.machine.outbox {
		e.Breaker = b
		b.queue.push(e)
	}
	if len(b.machine.outbox) > 0 {
		clear(b.machine.outbox)
		b.machine.outbox = b.machine.outbox[:0]
		b.undelivered.Store(true)
	}
	if probing := len(b.machine.probes) > 0; probing != b.probing.Load() {
		b.probing.Store(probing)
	}
	if l := b.machine.openLanes(); l != b.lane.Load() {
		yieldAt("store lane")
		b.lane.Store(l)
	}
	b.mu.Unlock()
}

// Name returns the name given to [New].
func (b *Breaker) Name() string { return b.machine.name }

// Config returns the settings in force, with every default filled in.
func (b *Breaker) Config() Config {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.machine.cfg
}

// State returns what a call arriving now would meet. It changes nothing and delivers no event.
func (b *Breaker) State() State {
	if s, known := b.passing(); known {
		return s
	}
	now := b.lock()
	defer b.unlock()
	return b.machine.seen(now).shown()
}

// Apply changes the settings of a running breaker. State, history (as far as the new window holds it) and the remaining open
// time are kept; nothing opens or closes by it. An invalid cfg is an error, a *[ConfigError], and changes nothing.
func (b *Breaker) Apply(cfg Config) error {
	resolved, err := cfg.resolve()
	if err != nil {
		return err
	}
	b.applyResolved(resolved)
	b.notify()
	return nil
}

// applyResolved leaves calling the listeners to its caller, which may hold a lock.
func (b *Breaker) applyResolved(resolved Config) {
	now := b.lock()
	defer b.unlock()
	b.machine.advance(now)
	b.machine.apply(resolved)
}

// idle reports whether nothing would be lost with this breaker but the numbers of a closed one that nobody is calling.
func (b *Breaker) idle() bool {
	now := b.lock()
	defer b.unlock()
	m := &b.machine
	if m.totals.inFlight > 0 || m.state != StateClosed || m.hold != nil && m.hold.For == 0 {
		return false // time alone will not change that: no need to look any closer
	}
	m = m.seen(now)
	return m.shown() == StateClosed && !m.ramping
}

// Trip opens the breaker now, as a rule would: it recovers by itself. An open one stays so at least as long as a new opening
// would last, and keeps its first cause. Under a hold it is seen once the hold is lifted.
func (b *Breaker) Trip(reason string) {
	now := b.lock()
	defer b.notify()
	defer b.unlock()
	b.machine.advance(now)
	b.machine.manualTrip(reason)
}

// Reset closes the breaker: empty window, no hold, no memory of earlier openings. Calls in flight no longer count.
func (b *Breaker) Reset(reason string) {
	now := b.lock()
	defer b.notify()
	defer b.unlock()
	b.machine.advance(now)
	b.machine.reset(reason)
}

// ForceOpen refuses every call until [Breaker.Release], [Breaker.Reset] or the end of h.For. It replaces an earlier hold. What
// the breaker would do by itself goes on below it: only deadlines, no rules.
func (b *Breaker) ForceOpen(h Hold) { b.holdAs(StateForcedOpen, h) }

// Disable admits every call until [Breaker.Release], [Breaker.Reset] or the end of h.For. It replaces an earlier hold. Outcomes
// still count in the totals, and in the window if the breaker was closed, but no rule is asked.
func (b *Breaker) Disable(h Hold) { b.holdAs(StateDisabled, h) }

func (b *Breaker) holdAs(s State, h Hold) {
	now := b.lock()
	defer b.notify()
	defer b.unlock()
	b.machine.advance(now)
	b.machine.setHold(s, h)
}

// Release lifts the hold; what the breaker does by itself shows again. Half-open starts its trial afresh. Without a hold it
// does nothing.
func (b *Breaker) Release() {
	now := b.lock()
	defer b.notify()
	defer b.unlock()
	b.machine.advance(now)
	b.machine.lift(RuleRelease)
}
