package breaker

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Event is one transition of a breaker, or an operator's new hold over an old one.
type Event struct {
	Breaker *Breaker
	Seq     uint64 // counts the breaker's events from 1; a gap is Dropped
	From    State
	To      State
	At      time.Time // when it took effect, which may lie before its delivery
	Rule    Rule
	Trip    *Trip  // why, when To is StateOpen by a trip
	Hold    *Hold  // when Rule is hold
	Reason  string // an operator's words
	Dropped int    // events lost just before this one, because listeners fell 64 behind

	wait time.Duration // until it admits again, when To is StateOpen
}

// A listener is one subscription.
type listener struct {
	call    func(Event)
	stopped atomic.Bool
}

// listeners is a set of subscriptions in the order made. The slice is replaced, never changed.
type listeners struct {
	mu   sync.Mutex // guards the field below
	list []*listener
}

func (l *listeners) add(f func(Event)) (stop func()) {
	if f == nil {
		return func() {}
	}
	one := &listener{call: f}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(slices.Clip(l.list), one)
	return func() { l.remove(one) }
}

func (l *listeners) remove(one *listener) {
	one.stopped.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = slices.DeleteFunc(slices.Clone(l.list), func(other *listener) bool { return other == one })
}

func (l *listeners) all() []*listener {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list
}

// maxQueued is how many events wait for slow listeners before new ones are dropped and counted.
const maxQueued = 64

// queue holds a breaker's undelivered events. The breaker's lock guards it.
type queue struct {
	waiting    []Event
	delivering bool // one goroutine delivers at a time: that keeps the order
	seq        uint64
	dropped    int
}

func (q *queue) push(e Event) {
	q.seq++
	if len(q.waiting) == maxQueued {
		q.dropped++
		return
	}
	e.Seq, e.Dropped = q.seq, q.dropped
	q.dropped = 0
	q.waiting = append(q.waiting, e)
}

// Subscribe calls f with each event from now on, until stop is called. Events come in order, one at a time per breaker, after
// the transition, on the goroutine of the call that caused it or of one that was already delivering; no lock is held, so f may
// call any method. A panic of f goes to that caller, once the other listeners have been served. A nil f is never called.
func (b *Breaker) Subscribe(f func(Event)) (stop func()) { return b.listeners.add(f) }

// notify delivers what is queued, unless another goroutine is at it. The lock is not held.
func (b *Breaker) notify() {
	if !b.undelivered.Load() {
		return
	}
	b.mu.Lock()
	if b.queue.delivering {
		b.mu.Unlock()
		return
	}
	b.queue.delivering = true
	b.mu.Unlock()
	b.deliver(nil, Event{})
}

// deliver calls the rest of the listeners with e, then takes the next events. When a listener panics or exits the goroutine,
// the deferred call goes on behind it, so the others are served before the panic reaches the caller, untouched by any recover.
func (b *Breaker) deliver(rest []*listener, e Event) {
	finished := false
	defer func() {
		if !finished {
			b.deliver(rest, e)
		}
	}()
	for {
		for len(rest) > 0 {
			next := rest[0]
			rest = rest[1:]
			if !next.stopped.Load() {
				next.call(e)
			}
		}
		var ok bool
		if e, ok = b.nextEvent(); !ok {
			break
		}
		rest = slices.Concat(b.listeners.all(), b.options.shared.all())
	}
	finished = true
}

// nextEvent takes the oldest event, or ends the delivery.
func (b *Breaker) nextEvent() (e Event, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue.waiting) == 0 {
		b.queue.waiting = nil
		b.queue.delivering = false
		b.undelivered.Store(false)
		return Event{}, false
	}
	e = b.queue.waiting[0]
	b.queue.waiting = b.queue.waiting[1:]
	return e, true
}

// logTo returns the listener behind WithLogger.
func logTo(l *zap.Logger) func(Event) {
	return func(e Event) {
		fields := []zap.Field{zap.String("name", e.Breaker.Name()), zap.Stringer("from", e.From), zap.Stringer("to", e.To), zap.String("rule", string(e.Rule))}
		if t := e.Trip; t != nil {
			fields = append(fields, zap.Float64("observed", t.Observed), zap.Float64("threshold", t.Threshold), zap.Int("calls", t.Calls),
				zap.Int("failures", t.Failures), zap.Int("slow_calls", t.SlowCalls), zap.Duration("retry_after", e.wait))
			if len(t.Errors) > 0 {
				fields = append(fields, zap.Any("errors", t.Errors))
			}
		}
		if e.Hold != nil && e.Hold.By != "" {
			fields = append(fields, zap.String("by", e.Hold.By))
		}
		if e.Hold != nil && e.Hold.For > 0 {
			fields = append(fields, zap.Duration("for", e.Hold.For))
		}
		if e.Reason != "" {
			fields = append(fields, zap.String("reason", e.Reason))
		}
		if e.Dropped > 0 {
			fields = append(fields, zap.Int("dropped_events", e.Dropped))
		}
		if e.To == StateOpen || e.To == StateForcedOpen {
			l.Warn("circuit breaker opened", fields...)
			return
		}
		l.Info("circuit breaker "+strings.ReplaceAll(e.To.String(), "_", "-"), fields...)
	}
}
