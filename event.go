package breaker

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Rule names what changed a breaker's state.
type Rule string

// The rules that open a breaker: those of a [Trip].
const (
	RuleConsecutiveFailures Rule = "consecutive_failures" // Config.FailureThreshold failures in a row
	RuleFailureRate         Rule = "failure_rate"         // failures / calls in the window
	RuleSlowCallRate        Rule = "slow_call_rate"       // slow calls / calls in the window, those in flight included
	RuleProbeFailed         Rule = "probe_failed"         // a probe ended as a failure
	RuleProbeSlow           Rule = "probe_slow"           // a probe outlasted Config.SlowCallDuration
	RuleProbeLost           Rule = "probe_lost"           // a probe gave no sign of life for Config.ProbeTimeout
	RuleProbeIgnored        Rule = "probe_ignored"        // Config.HalfOpenMaxCalls probes in a row gave no verdict
	RuleRetryAfter          Rule = "retry_after"          // the upstream asked for it, see OpenFor
	RuleManual              Rule = "manual"               // Breaker.Trip
)

// The rules of the other transitions.
const (
	RuleOpenTimeout Rule = "open_timeout" // open to half-open
	RuleRecovered   Rule = "recovered"    // half-open to closed
	RuleReset       Rule = "reset"        // Breaker.Reset
	RuleHold        Rule = "hold"         // Breaker.ForceOpen or Breaker.Disable
	RuleRelease     Rule = "release"      // Breaker.Release
	RuleHoldExpired Rule = "hold_expired" // Hold.For has passed
)

// Trip says why a breaker opened. It is read only.
type Trip struct {
	At   time.Time `json:"at"`
	Rule Rule      `json:"rule"`
	// Observed reached Threshold: failures for consecutive_failures, a fraction for the rates, seconds for probe_slow,
	// probe_lost and retry_after (where Threshold is the most that would be granted), probes for probe_failed and
	// probe_ignored. Both are zero for manual.
	Observed  float64 `json:"observed"`
	Threshold float64 `json:"threshold"`
	// Calls, Failures and SlowCalls are those of the window, or of half-open's probes for the probe rules. Calls counts
	// verdicts, for slow_call_rate durations.
	Calls     int    `json:"calls"`
	Failures  int    `json:"failures"`
	SlowCalls int    `json:"slow_calls"`
	Reason    string `json:"reason,omitempty"` // given to Breaker.Trip
	// Errors are the five commonest texts among the last 128 failures since the breaker closed or began to probe,
	// commonest first. See WithErrorText.
	Errors []ErrorCount `json:"errors,omitempty"`

	wait time.Duration // from At to Until, as first set
}

// ErrorCount is how often a failure had this text.
type ErrorCount struct {
	Text  string `json:"text"`
	Count int    `json:"count"`
}

// String says in a few words why the breaker opened, such as "failure rate 0.62 >= 0.50 over 50 calls".
func (t *Trip) String() string {
	switch t.Rule {
	case RuleConsecutiveFailures:
		return fmt.Sprintf("%.0f consecutive failures >= %.0f", t.Observed, t.Threshold)
	case RuleFailureRate:
		return "failure rate " + rates(t.Observed, t.Threshold) + fmt.Sprintf(" over %d calls", t.Calls)
	case RuleSlowCallRate:
		return "slow-call rate " + rates(t.Observed, t.Threshold) + fmt.Sprintf(" over %d calls", t.Calls)
	case RuleProbeFailed:
		return "a probe failed"
	case RuleProbeSlow:
		return "a probe took longer than " + seconds(t.Threshold).String()
	case RuleProbeLost:
		return "a probe gave no sign of life for " + seconds(t.Threshold).String()
	case RuleProbeIgnored:
		return fmt.Sprintf("%.0f probes in a row gave no verdict", t.Observed)
	case RuleRetryAfter:
		return "the upstream asked for a pause of " + roundWait(seconds(t.Observed)).String()
	case RuleManual:
		if t.Reason != "" {
			return "tripped by hand: " + t.Reason
		}
		return "tripped by hand"
	}
	return string(t.Rule)
}

// rates writes two fractions with two decimals, or as many more, up to six, as the threshold needs.
func rates(observed, threshold float64) string {
	digits := 2
	for digits < 6 && math.Abs(threshold*math.Pow10(digits)-math.Round(threshold*math.Pow10(digits))) > 1e-6 {
		digits++
	}
	return strconv.FormatFloat(observed, 'f', digits, 64) + " >= " + strconv.FormatFloat(threshold, 'f', digits, 64)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

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
			fields = append(fields, zap.Float64("observed", t.Observed), zap.Float64("threshold", t.Threshold), zap.Int("calls", t.Calls), zap.Duration("retry_after", t.wait))
		}
		if e.Hold != nil && e.Hold.By != "" {
			fields = append(fields, zap.String("by", e.Hold.By))
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
