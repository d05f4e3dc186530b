package breaker

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// State is what a call meets. The numbers are fixed: they may be stored and exported.
type State uint8

const (
	StateClosed     State = 0 // admits every call
	StateOpen       State = 1 // refuses every call until the open timeout has passed
	StateHalfOpen   State = 2 // admits a bounded number of probes
	StateForcedOpen State = 3 // held open by an operator
	StateDisabled   State = 4 // held closed by an operator; outcomes are still counted
)

var stateNames = [...]string{"closed", "open", "half_open", "forced_open", "disabled"}

// String returns "closed", "open", "half_open", "forced_open" or "disabled".
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// MarshalText writes the name of the state; another number is an error.
func (s State) MarshalText() ([]byte, error) {
	if int(s) >= len(stateNames) {
		return nil, fmt.Errorf("breaker: no state has the number %d", uint8(s))
	}
	return []byte(stateNames[s]), nil
}

// UnmarshalText reads the name of a state.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(stateNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("breaker: %q is no state, want one of %q", text, stateNames)
	}
	*s = State(i)
	return nil
}

// Hold is an operator's order that stands above what the breaker would do by itself.
type Hold struct {
	By     string        // who
	Reason string        // why
	For    time.Duration // how long; zero is until Release or Reset, less than zero is already over
}

func (h *Hold) text() (s string) {
	if h.By != "" {
		s = " by " + h.By
	}
	if h.Reason != "" {
		s += ": " + h.Reason
	}
	return s
}

// machine is the state machine of one breaker. It has no lock, no clock and calls no user code: time is an argument, counted
// from base; what listeners shall hear is left in outbox.
//
// Two layers: state is what the breaker does by itself, hold an operator's order above it. Each change of what calls meet
// begins a period, and a call's end has a say only in the period that admitted it. Deadlines (open timeout, probe timeouts,
// calls in flight that turn slow, end of a ramp or a hold) are applied by advance, before anything else happens, each as of
// its own instant; so it makes no difference who looked when, or whether anybody did.
type machine struct {
	name string
	base time.Time
	cfg  Config // resolved

	now     time.Duration // up to here deadlines have been applied
	state   State         // StateClosed, StateOpen or StateHalfOpen
	hold    *hold
	period  uint64     // number of the period, from 1
	refusal *OpenError // of the period, made by its first refusal
	draw    float64    // the next opening's share of the jitter, drawn when the period begins so that every look agrees

	verdicts  tally // of calls in closed, failures marked
	durations tally // of the same calls, slow ones marked
	run       int   // failures in a row
	errors    errorTally
	flight    flight
	frozen    time.Duration // when the tallies stopped; while state is not StateClosed

	trip     *Trip         // the last opening; nil in closed, but for a ramp
	until    time.Duration // of StateOpen
	reopened int           // openings in a row after the first
	ended    uint64        // the period that the last opening ended; 0 when it was made under a hold

	probes []*probe // of the period, without a verdict yet
	trial  trial

	ramping  bool
	closedAt time.Duration
	credit   float64 // of the ramp: a call is admitted for each whole one

	totals      totals
	lastFailure instant
	lastSuccess instant
	history     []Transition // the last ten, oldest first
	outbox      []Event
}

// hold is a Hold in force.
type hold struct {
	Hold
	state State // StateForcedOpen or StateDisabled
	since time.Duration
	until time.Duration // when For is not zero
}

// probe is a call admitted in half-open.
type probe struct {
	start time.Duration
	alive time.Duration // its start, or its last Progress
	pulse instant       // its first Progress
	fate  fate
}

// instant is a time that may not have come: no value of at stands for that.
type instant struct {
	known bool
	at    time.Duration
}

// first notes now, unless an earlier time is known already, and reports whether it did.
func (i *instant) first(now time.Duration) bool {
	if i.known {
		return false
	}
	*i = instant{true, now}
	return true
}

type fate uint8

const (
	undecided fate = iota
	lost           // gave no sign of life: counted as failed, and gone
	passed         // progressed for so long that it was counted as a success
)

// trial is what the probes of a half-open period have shown so far.
type trial struct {
	calls, failures, slow int
	successes             int
	ignored               int // in a row
}

// totals count since New and never go back, but for inFlight.
type totals struct {
	successful, failed, ignored, rejected, slow, inFlight int
}

// call is the machine's side of a permit.
type call struct {
	period  uint64
	start   time.Duration
	group   uint64  // in flight; 0 for none
	pulse   instant // its first Progress; outside half-open
	probe   *probe  // nil outside half-open
	joined  bool    // runs inside probe, and is not counted
	wasSlow bool    // already in the durations, as slow
	settled bool
}

func newMachine(name string, cfg Config, base time.Time) machine {
	return machine{
		name: name, base: base, cfg: cfg, period: 1, draw: rand.Float64(),
		verdicts: newTally(&cfg), durations: newTally(&cfg),
	}
}

// shown returns what a call meets.
func (m *machine) shown() State {
	if m.hold != nil {
		return m.hold.state
	}
	return m.state
}

func (m *machine) time(d time.Duration) time.Time { return m.base.Add(d) }

// Deadlines.

type deadline struct {
	at    time.Duration
	kind  deadlineKind
	probe *probe
}

// deadlineKind is also the order of deadlines that are due at the same instant.
type deadlineKind uint8

const (
	noDeadline deadlineKind = iota
	holdEnds
	openEnds
	rampEnds
	probePasses
	probeDies
	// Slow means longer than SlowCallDuration, so these two are due only after their instant.
	probeTurnsSlow
	callsTurnSlow
)

func (d deadline) due(now time.Duration) bool {
	return d.kind != noDeadline && (d.at < now || d.at == now && d.kind < probeTurnsSlow)
}

// earliest returns the next deadline. At most one kind in each layer can be pending, but for the probes.
func (m *machine) earliest() (first deadline) {
	consider := func(d deadline) {
		if first.kind == noDeadline || cmp.Or(cmp.Compare(d.at, first.at), cmp.Compare(d.kind, first.kind)) < 0 {
			first = d
		}
	}
	if m.hold != nil && m.hold.For != 0 {
		consider(deadline{at: m.hold.until, kind: holdEnds})
	}
	if m.state == StateOpen {
		consider(deadline{at: m.until, kind: openEnds})
	}
	if m.ramping {
		consider(deadline{at: plus(m.closedAt, m.cfg.RampUp), kind: rampEnds})
	}
	if len(m.flight.groups) > 0 && m.cfg.measuresSlow() {
		consider(deadline{at: plus(m.flight.groups[0].last, m.cfg.SlowCallDuration), kind: callsTurnSlow})
	}
	for _, p := range m.probes {
		consider(m.verdictDue(p))
	}
	return first
}

// verdictDue returns when p gets a verdict without ending.
func (m *machine) verdictDue(p *probe) deadline {
	dies := deadline{plus(p.alive, m.cfg.ProbeTimeout), probeDies, p}
	if p.pulse.known {
		if passes := plus(p.start, plus(m.cfg.ProbeTimeout, m.cfg.ProbeTimeout)); passes <= dies.at {
			return deadline{passes, probePasses, p}
		}
		return dies
	}
	if m.cfg.slowRule() {
		if slow := plus(p.start, m.cfg.SlowCallDuration); slow < dies.at {
			return deadline{slow, probeTurnsSlow, p}
		}
	}
	return dies
}

// advance applies every deadline that is due by now, in order.
func (m *machine) advance(now time.Duration) {
	now = max(now, m.now)
	for {
		d := m.earliest()
		if !d.due(now) {
			break
		}
		m.now = max(m.now, d.at)
		m.expire(d)
	}
	m.now = now
}

func (m *machine) expire(d deadline) {
	switch d.kind {
	case holdEnds:
		m.lift(RuleHoldExpired)
	case openEnds:
		m.errors = errorTally{}
		m.enter(StateHalfOpen, Event{Rule: RuleOpenTimeout})
	case rampEnds:
		m.endRamp()
	case probePasses:
		d.probe.fate = passed
		m.settled(Success)
		m.probeEnded(d.probe, ending{Verdict: Verdict{Outcome: Success}})
	case probeDies:
		m.loseProbes()
		m.open(m.explain(RuleProbeLost, m.cfg.ProbeTimeout.Seconds(), m.cfg.ProbeTimeout.Seconds()), 0)
	case probeTurnsSlow:
		m.trial.calls++
		m.trial.slow++
		m.open(m.explain(RuleProbeSlow, m.cfg.SlowCallDuration.Seconds(), m.cfg.SlowCallDuration.Seconds()), 0)
	case callsTurnSlow:
		m.durations.add(m.now, m.flight.pop(), true)
		if m.hold == nil {
			m.open(m.slowTrip(), 0)
		}
	}
}

// loseProbes counts each probe as failed that gives no sign of life any more, since a deadline of its own is due by now.
func (m *machine) loseProbes() {
	m.probes = slices.DeleteFunc(m.probes, func(p *probe) bool {
		if d := m.verdictDue(p); d.kind != probeDies || !d.due(m.now) {
			return false
		}
		p.fate = lost
		m.totals.inFlight--
		m.settled(Failure)
		m.trial.calls++
		m.trial.failures++
		return true
	})
}

// seen returns the machine as a look at now would find it, and changes nothing: getters use it.
func (m *machine) seen(now time.Duration) *machine {
	if d := m.earliest(); !d.due(max(now, m.now)) {
		return m
	}
	c := *m
	c.outbox = nil
	c.history = slices.Clone(m.history)
	c.flight.groups = slices.Clone(m.flight.groups)
	c.verdicts, c.durations = m.verdicts.clone(), m.durations.clone()
	c.probes = nil
	for _, p := range m.probes {
		c.probes = append(c.probes, new(*p))
	}
	c.advance(now)
	return &c
}

// Calls.

// admit lets a call in or refuses it. parent is the probe inside which the caller already runs, if any.
func (m *machine) admit(now time.Duration, parent *probe) (call, *OpenError) {
	m.advance(now)
	c := call{period: m.period, start: m.now}
	switch m.shown() {
	case StateOpen, StateForcedOpen:
		return c, m.refuse()
	case StateHalfOpen:
		if parent != nil && slices.Contains(m.probes, parent) {
			c.probe, c.joined = parent, true
			return c, nil
		}
		if len(m.probes) >= m.cfg.HalfOpenMaxCalls {
			return c, m.refuse()
		}
		c.probe = &probe{start: m.now, alive: m.now}
		m.probes = append(m.probes, c.probe)
	case StateClosed:
		if m.ramping && !m.rampAdmits() {
			return c, m.refuse()
		}
	}
	if m.state == StateClosed && m.cfg.measuresSlow() {
		c.group = m.flight.add(m.now, m.cfg.SlowCallDuration/flightGroups)
	}
	m.totals.inFlight++
	return c, nil
}

func (m *machine) refuse() *OpenError {
	m.totals.rejected++
	if m.refusal == nil {
		m.refusal = m.newRefusal()
	}
	return m.refusal
}

func (m *machine) newRefusal() *OpenError {
	e := &OpenError{Name: m.name, State: m.shown(), Trip: m.trip, probes: m.cfg.HalfOpenMaxCalls}
	switch {
	case m.hold != nil:
		e.Hold = &m.hold.Hold
		if m.hold.For != 0 {
			e.Until = m.time(m.hold.until)
		}
	case m.state == StateOpen:
		e.Until = m.time(m.until)
	}
	return e
}

// rampAdmits spreads the admitted share evenly over the calls: the rest of each is carried to the next.
func (m *machine) rampAdmits() bool {
	m.credit += 0.1 + 0.9*float64(m.now-m.closedAt)/float64(m.cfg.RampUp)
	if m.credit < 1 {
		return false
	}
	m.credit--
	return true
}

// ending is how a call ended, decided outside the lock. An unset outcome is a permit given back: no verdict, in no total.
type ending struct {
	Verdict
	text string // of a failure
}

func (e *ending) hasVerdict() bool { return e.Outcome == Success || e.Outcome == Failure }

// settle ends a call, and reports whether this did.
func (m *machine) settle(now time.Duration, c *call, e ending) bool {
	m.advance(now)
	if c.settled {
		return false
	}
	c.settled = true
	if c.joined {
		return true
	}
	if c.probe != nil && c.probe.fate == lost {
		return false
	}
	m.totals.inFlight--
	if c.probe != nil && c.probe.fate == passed {
		return true
	}
	slow := m.slow(c)
	m.settled(e.Outcome)
	if slow && e.Outcome != OutcomeUnset {
		m.totals.slow++
	}
	switch {
	case c.period != m.period:
		m.lateAsk(c, e)
	case c.probe != nil:
		m.probeEnded(c.probe, e)
	case m.state == StateClosed:
		m.callEnded(c, e, slow)
	}
	return true
}

// settled enters an outcome into the totals.
func (m *machine) settled(o Outcome) {
	switch o {
	case Success:
		m.totals.successful++
		m.lastSuccess = instant{true, m.now}
	case Failure:
		m.totals.failed++
		m.lastFailure = instant{true, m.now}
	case Ignored:
		m.totals.ignored++
	}
}

// slow reports whether c has lasted longer than a call may, up to now or its first Progress.
func (m *machine) slow(c *call) bool {
	end, pulse := m.now, c.pulse
	if c.probe != nil {
		pulse = c.probe.pulse
	}
	if pulse.known {
		end = pulse.at
	}
	return m.cfg.measuresSlow() && end-c.start > m.cfg.SlowCallDuration
}

// lateAsk is all that a call from an earlier period can do: when its own period was ended by the opening that still lasts,
// the pause its upstream asks for may lengthen that.
func (m *machine) lateAsk(c *call, e ending) {
	if m.state == StateOpen && c.period == m.ended {
		m.extend(m.granted(e))
	}
}

// granted returns the pause that an ending asks for and may have.
func (m *machine) granted(e ending) time.Duration {
	if m.cfg.MaxRetryAfter == Off {
		return 0
	}
	return min(e.OpenFor, m.cfg.MaxRetryAfter)
}

// extend keeps the breaker open for wait from now, if that is longer than it would be.
func (m *machine) extend(wait time.Duration) {
	if until := plus(m.now, wait); until > m.until {
		m.until = until
		m.refusal = nil
	}
}

// callEnded enters a call of this period into the tallies and asks the rules.
func (m *machine) callEnded(c *call, e ending, slow bool) {
	turnedSlow := m.leaveFlight(c, slow)
	if e.hasVerdict() {
		if !c.wasSlow && m.cfg.measuresSlow() {
			m.durations.add(m.now, 1, false)
		}
		m.verdicts.add(m.now, 1, e.Outcome == Failure)
		m.run++
		if e.Outcome == Success {
			m.run = 0
		} else {
			m.errors.add(e.text)
		}
	}
	if m.hold != nil {
		return
	}
	switch {
	case e.hasVerdict():
		m.open(m.ruleTrip(), m.granted(e))
	case turnedSlow:
		m.open(m.slowTrip(), m.granted(e))
	default:
		m.open(nil, m.granted(e))
	}
}

// leaveFlight takes a call out of its group and enters it as slow unless its group was. It reports whether it did enter it.
func (m *machine) leaveFlight(c *call, slow bool) bool {
	if c.group != 0 && m.flight.leave(c.group) {
		c.wasSlow = true
	}
	c.group = 0
	if !slow || c.wasSlow {
		return false
	}
	c.wasSlow = true
	m.durations.add(m.now, 1, true)
	return true
}

// progressed notes a sign of life of c. The first stops the slow clock.
func (m *machine) progressed(now time.Duration, c *call) {
	m.advance(now)
	if c.settled {
		return
	}
	if c.probe != nil { // a call inside a probe speaks for it
		c.probe.alive = m.now
		c.probe.pulse.first(m.now)
		return
	}
	if c.pulse.first(m.now) && c.period == m.period && m.state == StateClosed && m.leaveFlight(c, m.slow(c)) && m.hold == nil {
		m.open(m.slowTrip(), 0)
	}
}

// probeEnded takes the verdict of a probe of this period.
func (m *machine) probeEnded(p *probe, e ending) {
	m.drop(p)
	if e.hasVerdict() {
		m.trial.calls++
		m.trial.ignored = 0
	}
	switch e.Outcome {
	case Failure:
		m.trial.failures++
		m.errors.add(e.text)
		m.open(m.explain(RuleProbeFailed, float64(m.trial.failures), 1), m.granted(e))
	case Success:
		m.trial.successes++
		if asked := m.granted(e); asked > 0 {
			m.open(nil, asked)
		} else if m.trial.successes >= m.cfg.SuccessThreshold {
			m.recover()
		}
	default:
		m.trial.ignored++
		if asked := m.granted(e); asked > 0 {
			m.open(nil, asked)
		} else if m.trial.ignored >= m.cfg.HalfOpenMaxCalls {
			m.open(m.explain(RuleProbeIgnored, float64(m.trial.ignored), float64(m.cfg.HalfOpenMaxCalls)), 0)
		}
	}
}

func (m *machine) drop(p *probe) {
	m.probes = slices.DeleteFunc(m.probes, func(other *probe) bool { return other == p })
}

// Rules.

// ruleTrip returns why the breaker must open, nil if it must not.
func (m *machine) ruleTrip() *Trip {
	cfg := &m.cfg
	if cfg.FailureThreshold != Off && m.run >= cfg.FailureThreshold {
		return m.explain(RuleConsecutiveFailures, float64(m.run), float64(cfg.FailureThreshold))
	}
	if rate, reached := m.reached(&m.verdicts, cfg.FailureRateThreshold); reached {
		return m.explain(RuleFailureRate, rate, cfg.FailureRateThreshold)
	}
	return m.slowTrip()
}

func (m *machine) slowTrip() *Trip {
	if !m.cfg.slowRule() {
		return nil
	}
	rate, reached := m.reached(&m.durations, m.cfg.SlowCallRateThreshold)
	if !reached {
		return nil
	}
	t := m.explain(RuleSlowCallRate, rate, m.cfg.SlowCallRateThreshold)
	t.Calls, _ = m.durations.at(m.now)
	return t
}

// reached compares the marked share of t with a threshold, by division: 57 of 100 do reach 0.57.
func (m *machine) reached(t *tally, threshold float64) (rate float64, reached bool) {
	entries, marked := t.at(m.now)
	if threshold == Off || entries < m.cfg.MinimumCalls {
		return 0, false
	}
	rate = float64(marked) / float64(entries)
	return rate, rate >= threshold
}

func (m *machine) explain(r Rule, observed, threshold float64) *Trip {
	t := &Trip{At: m.time(m.now), Rule: r, Observed: observed, Threshold: threshold, Errors: m.errors.commonest()}
	if m.state == StateHalfOpen {
		t.Calls, t.Failures, t.SlowCalls = m.trial.calls, m.trial.failures, m.trial.slow
		return t
	}
	t.Calls, t.Failures = m.verdicts.at(m.now)
	_, t.SlowCalls = m.durations.at(m.now)
	return t
}

// Transitions.

// open opens the breaker for t, or for the pause that the upstream asked for, whichever is longer. Without either it does
// nothing. Only a rule's opening that follows a failed recovery doubles the wait.
func (m *machine) open(t *Trip, asked time.Duration) {
	again := m.reopened
	var wait time.Duration
	if t != nil {
		if (m.ramping || m.state == StateHalfOpen) && t.Rule != RuleProbeIgnored && t.Rule != RuleManual {
			again++
		}
		wait = m.cfg.openFor(again, m.draw)
	}
	if asked > wait {
		again, wait = m.reopened, asked
		t = m.explain(RuleRetryAfter, asked.Seconds(), m.cfg.MaxRetryAfter.Seconds())
	}
	if t == nil {
		return
	}
	t.wait = wait
	if m.state == StateClosed {
		m.freeze()
	}
	m.trip, m.until, m.reopened, m.ramping = t, plus(m.now, wait), again, false
	m.ended = 0
	if m.hold == nil {
		m.ended = m.period
	}
	m.enter(StateOpen, Event{Reason: t.Reason})
}

// freeze stops the tallies: they show what led to the opening until the breaker closes.
func (m *machine) freeze() {
	m.frozen = m.now
	m.verdicts.forget(m.now)
	m.durations.forget(m.now)
	m.flight.clear()
}

// recover closes the breaker after a successful trial.
func (m *machine) recover() {
	m.emptyWindow()
	m.ramping, m.closedAt, m.credit = m.cfg.RampUp > 0, m.now, 0.9
	if !m.ramping {
		m.endRamp()
	}
	m.enter(StateClosed, Event{Rule: RuleRecovered})
}

// endRamp forgets the outage.
func (m *machine) endRamp() {
	m.ramping, m.reopened, m.trip = false, 0, nil
}

func (m *machine) emptyWindow() {
	m.verdicts.empty()
	m.durations.empty()
	m.run = 0
	m.errors = errorTally{}
}

// enter is the one place that assigns the state. Under a hold that is not seen from outside, so nothing is announced.
func (m *machine) enter(s State, e Event) {
	e.From = m.shown()
	m.state = s
	if m.hold == nil {
		m.beginPeriod()
		m.announce(e)
	}
}

// beginPeriod makes the calls that are in flight strangers to what follows.
func (m *machine) beginPeriod() {
	m.period++
	m.refusal = nil
	m.draw = rand.Float64()
	m.flight.clear()
	m.probes = nil
	m.trial = trial{}
}

const maxHistory = 10

func (m *machine) announce(e Event) {
	e.To, e.At = m.shown(), m.time(m.now)
	if e.To == StateOpen {
		e.Trip = m.trip
		if e.Rule == "" {
			e.Rule = m.trip.Rule
		}
	}
	if len(m.history) == maxHistory {
		m.history = append(m.history[:0:0], m.history[1:]...)
	}
	m.history = append(m.history, Transition{From: e.From, To: e.To, Time: e.At, Rule: e.Rule})
	m.outbox = append(m.outbox, e)
}

// Operators.

func (m *machine) manualTrip(reason string) {
	t := m.explain(RuleManual, 0, 0)
	t.Reason = reason
	if m.state == StateOpen {
		m.extend(m.cfg.openFor(m.reopened, m.draw))
		return
	}
	m.open(t, 0)
}

func (m *machine) reset(reason string) {
	from := m.shown()
	m.hold, m.state = nil, StateClosed
	m.emptyWindow()
	m.endRamp()
	m.beginPeriod()
	if from != StateClosed {
		m.announce(Event{From: from, Rule: RuleReset, Reason: reason})
	}
}

func (m *machine) setHold(s State, h Hold) {
	from := m.shown()
	m.hold = &hold{Hold: h, state: s, since: m.now, until: plus(m.now, h.For)}
	m.beginPeriod()
	m.announce(Event{From: from, Rule: RuleHold, Hold: &m.hold.Hold, Reason: h.Reason})
}

func (m *machine) lift(r Rule) {
	if m.hold == nil {
		return
	}
	from := m.hold.state
	m.hold = nil
	m.beginPeriod()
	m.announce(Event{From: from, Rule: r})
}

// apply changes the settings under a running breaker. History is kept as far as the new window can hold it.
func (m *machine) apply(cfg Config) {
	old := m.cfg
	m.cfg = cfg
	m.refusal = nil
	if cfg.WindowCalls != old.WindowCalls || cfg.WindowDuration != old.WindowDuration {
		at := m.now
		if m.state != StateClosed {
			at = m.frozen
		}
		m.verdicts = m.verdicts.resized(&cfg, at)
		m.durations = m.durations.resized(&cfg, at)
	}
	if !cfg.measuresSlow() {
		m.durations.empty()
		return
	}
	// Calls that the new SlowCallDuration makes slow are counted, but a reload trips nothing.
	for len(m.flight.groups) > 0 && m.now-m.flight.groups[0].last > cfg.SlowCallDuration {
		m.durations.add(m.now, m.flight.pop(), true)
	}
}

// flightGroups is how finely the starts of calls in flight are told apart: a group turns slow as one, with its last call, so
// a hung call is noticed at most a sixteenth of SlowCallDuration late, and never early.
const flightGroups = 16

// flight groups the calls in flight by start, oldest first, so that hung calls are noticed without a timer and without a list
// of every call. A group that has turned slow, or that every call has left, is gone.
type flight struct {
	groups []group
	first  uint64 // number of the first group
}

type group struct {
	from, last time.Duration // the first and the last start
	calls      int
}

// add enters a call that starts now and returns the number of its group, from 1.
func (f *flight) add(now, width time.Duration) uint64 {
	f.first = max(f.first, 1)
	if n := len(f.groups); n == 0 || now-f.groups[n-1].from >= max(width, 1) {
		f.groups = append(f.groups, group{from: now})
	}
	g := &f.groups[len(f.groups)-1]
	g.last = now
	g.calls++
	return f.first + uint64(len(f.groups)) - 1
}

// leave takes a call out, and reports whether its group had already turned slow.
func (f *flight) leave(number uint64) (turned bool) {
	if number < f.first {
		return true
	}
	f.groups[number-f.first].calls--
	f.trim()
	return false
}

// pop removes the oldest group and returns how many calls it held.
func (f *flight) pop() (calls int) {
	calls = f.groups[0].calls
	f.groups = append(f.groups[:0], f.groups[1:]...)
	f.first++
	f.trim()
	return calls
}

// trim removes empty groups from both ends; nobody holds their numbers any more.
func (f *flight) trim() {
	n := len(f.groups)
	for n > 0 && f.groups[n-1].calls == 0 {
		n--
	}
	empty := 0
	for empty < n && f.groups[empty].calls == 0 {
		empty++
	}
	f.first += uint64(empty)
	f.groups = append(f.groups[:0], f.groups[empty:n]...)
}

func (f *flight) clear() {
	f.first += uint64(len(f.groups))
	f.groups = f.groups[:0]
}

// errorTally counts the texts of the last failures.
type errorTally struct {
	texts [16]ErrorCount
	last  [128]uint8 // which text each of the last failures had; len(texts) for one that found no place
	count int
}

func (t *errorTally) add(text string) {
	slot := &t.last[t.count%len(t.last)]
	if t.count >= len(t.last) && int(*slot) < len(t.texts) {
		t.texts[*slot].Count--
	}
	t.count++
	i := slices.IndexFunc(t.texts[:], func(e ErrorCount) bool { return e.Count > 0 && e.Text == text })
	if i < 0 {
		i = slices.IndexFunc(t.texts[:], func(e ErrorCount) bool { return e.Count == 0 })
	}
	if i < 0 {
		*slot = uint8(len(t.texts))
		return
	}
	*slot = uint8(i)
	t.texts[i] = ErrorCount{text, t.texts[i].Count + 1}
}

// commonest returns the five texts seen most often.
func (t *errorTally) commonest() []ErrorCount {
	var top []ErrorCount
	for _, e := range t.texts {
		if e.Count > 0 {
			top = append(top, e)
		}
	}
	slices.SortStableFunc(top, func(a, b ErrorCount) int { return b.Count - a.Count })
	return slices.Clip(top[:min(5, len(top))])
}
