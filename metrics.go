package breaker

import (
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Status is a snapshot of a breaker, all of one instant, with deadlines applied as [Breaker.State] does. It marshals to JSON
// with RFC 3339 times and rates as fractions; what is not known or does not apply is left out.
type Status struct {
	Name  string `json:"name"`
	State State  `json:"state"`

	// Of the window: the calls that the rates are made of. They stand still while the breaker is not closed.
	FailureCount int      `json:"failure_count"`
	SuccessCount int      `json:"success_count"`
	FailureRate  *float64 `json:"failure_rate,omitempty"`   // nil while no call is known
	SlowCallRate *float64 `json:"slow_call_rate,omitempty"` // nil while no duration is known, or none is measured

	ConsecutiveFailures int       `json:"consecutive_failures"`
	LastFailureTime     time.Time `json:"last_failure_time,omitzero"`
	// LastSuccessTime is exact where a success reads the clock: with a SlowCallDuration, a WindowDuration or a histogram. Else it is when
	// a Status, a failure or whatever else looks at the breaker first found one that had come since the look before.
	LastSuccessTime time.Time `json:"last_success_time,omitzero"`

	OpenedAt          time.Time   `json:"opened_at,omitzero"`            // of Trip
	RetryAfterSeconds *float64    `json:"retry_after_seconds,omitempty"` // until calls are admitted again, where that is known
	Hold              *HoldStatus `json:"hold,omitempty"`                // nil without one
	Trip              *Trip       `json:"trip,omitempty"`                // why it is not closed, or was not before a ramp
	HalfOpenSuccesses int         `json:"half_open_successes"`           // of Config.SuccessThreshold
	At                time.Time   `json:"at"`                            // when the snapshot was taken
	Config            Config      `json:"config"`                        // in force, in YAML keys and units
	Metrics           Metrics     `json:"metrics"`
}

// HoldStatus is the hold in force.
type HoldStatus struct {
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero without an end
}

// Metrics are totals since New: total = successful + failed + ignored + rejected. A call counts when it ends.
type Metrics struct {
	TotalCalls       int          `json:"total_calls"`
	SuccessfulCalls  int          `json:"successful_calls"`
	FailedCalls      int          `json:"failed_calls"`
	IgnoredCalls     int          `json:"ignored_calls"`
	RejectedCalls    int          `json:"rejected_calls"` // refused: nothing ran
	SlowCalls        int          `json:"slow_calls"`     // longer than Config.SlowCallDuration, whatever their outcome
	InFlight         int          `json:"in_flight"`
	FailureRate      *float64     `json:"failure_rate,omitempty"` // failed / (successful + failed); nil while there are none
	StateTransitions []Transition `json:"state_transitions"`      // the last ten, oldest first

	// Fallbacks counts the answers that [Protect] gave in the stead of calls through this breaker, by source: cache, rule,
	// default and the names of OrCall. From the 33rd source on all are counted as "other". It is counted as the answer is
	// given, a moment after the call itself. nil while there are none.
	Fallbacks map[string]uint64 `json:"fallbacks,omitempty"`
}

// Transition is one change of what calls meet.
type Transition struct {
	From State     `json:"from"`
	To   State     `json:"to"`
	Time time.Time `json:"time"`
	Rule Rule      `json:"rule"`
}

// Status returns a snapshot. It changes nothing and delivers no event.
func (b *Breaker) Status() Status {
	s := b.status()
	s.Metrics.Fallbacks = b.fallbacks.all()
	return s
}

func (b *Breaker) status() Status {
	now := b.lock()
	defer b.unlock()
	return b.machine.seen(now).status(now)
}

// status describes m, which has no deadline due by now.
func (m *machine) status(now time.Duration) Status {
	now = max(now, m.now)
	calls, failures, timed, slow := m.window(now)
	s := Status{
		Name: m.name, State: m.shown(), At: m.time(now), Config: m.cfg,
		FailureCount: failures, SuccessCount: calls - failures, FailureRate: share(failures, calls), SlowCallRate: share(slow, timed),
		ConsecutiveFailures: m.run, HalfOpenSuccesses: m.trial.successes, RetryAfterSeconds: m.retryAfterSeconds(now),
		Metrics: m.totals.metrics(m.history),
	}
	if m.lastFailure.known {
		s.LastFailureTime = m.time(m.lastFailure.at)
	}
	if m.lastSuccess.known {
		s.LastSuccessTime = m.time(m.lastSuccess.at)
	}
	if m.trip != nil {
		s.Trip, s.OpenedAt = m.trip, m.trip.At
	}
	if m.hold != nil {
		s.Hold = &HoldStatus{By: m.hold.By, Reason: m.hold.Reason, Since: m.time(m.hold.since)}
		if m.hold.For != 0 {
			s.Hold.Until = m.time(m.hold.until)
		}
	}
	return s
}

// window returns how many calls the rates are made of.
func (m *machine) window(now time.Duration) (calls, failures, timed, slow int) {
	if m.state != StateClosed {
		now = m.frozen
	}
	calls, failures = m.verdicts.at(now)
	timed, slow = m.durations.at(now)
	return calls, failures, timed, slow
}

// retryAfterSeconds returns nil where nobody knows.
func (m *machine) retryAfterSeconds(now time.Duration) *float64 {
	switch s := m.shown(); {
	case s == StateForcedOpen && m.hold.For != 0:
		return new((m.hold.until - now).Seconds())
	case s == StateOpen:
		return new((m.until - now).Seconds())
	}
	return nil
}

func (t *totals) metrics(history []Transition) Metrics {
	return Metrics{
		TotalCalls:      clamp(t.successful + t.failed + t.ignored + t.rejected),
		SuccessfulCalls: clamp(t.successful), FailedCalls: clamp(t.failed), IgnoredCalls: clamp(t.ignored), RejectedCalls: clamp(t.rejected),
		SlowCalls: clamp(t.slow), InFlight: t.inFlight, FailureRate: share(t.failed, t.successful+t.failed),
		StateTransitions: append([]Transition{}, history...),
	}
}

// clamp keeps a total from going back to less than nothing where an int has 32 bits.
func clamp(n int64) int { return int(min(n, math.MaxInt)) }

func share[N int | int64](part, whole N) *float64 {
	if whole == 0 {
		return nil
	}
	return new(float64(part) / float64(whole))
}

// ledger counts a breaker's transitions, and for how long it has refused every call. It never goes back.
type ledger struct {
	kinds []transitionCount // there are only so many; linear search beats a map that few fill

	refused time.Duration // open or forced open, up to since
	since   time.Duration // when that began, while it is
}

type transitionCount struct {
	from, to State
	rule     Rule
	n        int
}

func (k *transitionCount) is(from, to State, rule Rule) bool {
	return k.from == from && k.to == to && k.rule == rule
}

func (l *ledger) enter(from, to State, rule Rule, now time.Duration) {
	if from.refusesAll() {
		l.refused += now - l.since
	}
	l.since = now
	for i := range l.kinds {
		if k := &l.kinds[i]; k.is(from, to, rule) {
			k.n++
			return
		}
	}
	l.kinds = append(l.kinds, transitionCount{from, to, rule, 1})
}

// refusedFor includes the time that still runs.
func (l *ledger) refusedFor(shown State, now time.Duration) time.Duration {
	if shown.refusesAll() {
		return l.refused + now - l.since
	}
	return l.refused
}

// appendTo appends to all the counts of what has happened, and a zero for each way in which a closed breaker of that configuration
// may open by itself: Prometheus does not see the first of a series that was not there before, and an outage begins with one of these.
func (l *ledger) appendTo(all []transitionCount, cfg *Config) []transitionCount {
	all = append(all, l.kinds...)
	may := func(r Rule, on bool) {
		if on && !slices.ContainsFunc(l.kinds, func(k transitionCount) bool { return k.is(StateClosed, StateOpen, r) }) {
			all = append(all, transitionCount{from: StateClosed, to: StateOpen, rule: r})
		}
	}
	may(RuleConsecutiveFailures, cfg.FailureThreshold != Off)
	may(RuleFailureRate, cfg.FailureRateThreshold != Off)
	may(RuleRetryAfter, cfg.MaxRetryAfter != Off)
	may(RuleSlowCallRate, cfg.slowRule())
	return all
}

func (s State) refusesAll() bool { return s == StateOpen || s == StateForcedOpen }

// histogram counts durations. It is written and read without a lock.
type histogram struct {
	bounds []time.Duration // upper ones, ascending, included
	counts []atomic.Uint64 // one more, for what lasts longer
	sum    atomic.Int64    // of the durations
}

func (h *histogram) observe(d time.Duration) {
	i, _ := slices.BinarySearch(h.bounds, d)
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

const (
	maxFallbackSources = 32      // names of their own; a program may make them from anything
	otherSource        = "other" // stands for the rest
)

// fallbackCounts counts fallback answers by source. A known source is counted without a lock: during an outage all callers come
// this way.
type fallbackCounts struct {
	known atomic.Pointer[[]*sourceCount] // replaced, never changed

	mu sync.Mutex // held by whoever replaces it
}

type sourceCount struct {
	name string
	n    atomic.Uint64
}

func (c *fallbackCounts) add(source string) {
	s := sourceNamed(c.list(), source)
	if s == nil {
		s = c.learn(source)
	}
	s.n.Add(1)
}

func (c *fallbackCounts) list() []*sourceCount {
	if p := c.known.Load(); p != nil {
		return *p
	}
	return nil
}

func sourceNamed(list []*sourceCount, name string) *sourceCount {
	if i := slices.IndexFunc(list, func(s *sourceCount) bool { return s.name == name }); i >= 0 {
		return list[i]
	}
	return nil
}

// learn returns the count of a new source, or the common one when there are enough. A name that is not UTF-8 is made so: as a
// label it would fail the whole scrape.
func (c *fallbackCounts) learn(name string) *sourceCount {
	name = strings.ToValidUTF8(name, "\uFFFD")
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.list()
	if len(list) >= maxFallbackSources && sourceNamed(list, name) == nil {
		name = otherSource
	}
	if s := sourceNamed(list, name); s != nil {
		return s
	}
	s := &sourceCount{name: name}
	c.known.Store(new(append(slices.Clip(list), s)))
	return s
}

// all returns the counts by source, nil where nothing was counted.
func (c *fallbackCounts) all() map[string]uint64 {
	list := c.list()
	if list == nil {
		return nil
	}
	counts := make(map[string]uint64, len(list))
	for _, s := range list {
		counts[s.name] = s.n.Load()
	}
	return counts
}
