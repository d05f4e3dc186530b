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
	random  func() float64

	verdicts  tally // of calls in closed, failures marked
	durations tally // of the same calls, slow ones marked
	run       int   // failures in a row
	errors    errorTally
	lanes     []*lane       // of the period, oldest first; the last is for calls that arrive now
	stripes   int           // of the next lane
	timesAll  bool          // a histogram wants to know how long each call took
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
	ledger      ledger       // all of them
	outbox      []Event
}

// totals count since New and never go back, but for inFlight.
type totals struct {
	successful, failed, ignored, rejected, slow int64

	inFlight int
}

func newMachine(name string, cfg Config, base time.Time) machine {
	return machine{
		name: name, base: base, cfg: cfg, period: 1, draw: rand.Float64(), random: rand.Float64,
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
	if m.hold != nil && m.hold.For != 0 {
		first = deadline{at: m.hold.until, kind: holdEnds}
	}
	if m.state == StateOpen {
		first = first.or(deadline{at: m.until, kind: openEnds})
	}
	if m.ramping {
		first = first.or(deadline{at: plus(m.closedAt, m.cfg.RampUp), kind: rampEnds})
	}
	if l := m.hung(); l != nil {
		first = first.or(deadline{at: plus(l.last, m.cfg.SlowCallDuration), kind: callsTurnSlow})
	}
	for _, p := range m.probes {
		first = first.or(p.verdictDue())
	}
	return first
}

// or returns the earlier of two deadlines; d may be none.
func (d deadline) or(other deadline) deadline {
	if d.kind == noDeadline || cmp.Or(cmp.Compare(other.at, d.at), cmp.Compare(other.kind, d.kind)) < 0 {
		return other
	}
	return d
}

// verdictDue returns when p, which is undecided, gets a verdict without ending.
func (p *probe) verdictDue() deadline {
	dies := deadline{plus(p.alive, p.timeout), probeDies, p}
	if p.pulse.known {
		if passes := plus(p.start, plus(p.timeout, p.timeout)); passes <= dies.at {
			return deadline{passes, probePasses, p}
		}
		return dies
	}
	if p.slow != Off {
		return deadline{plus(p.start, p.slow), probeTurnsSlow, p} // always the earlier: ProbeTimeout is longer
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
		m.settled(Success, m.outlasted(d.probe.start, d.probe.pulse))
		m.probeEnded(d.probe, ending{Verdict: Verdict{Outcome: Success}})
	case probeDies:
		m.loseProbes()
		m.open(m.explain(RuleProbeLost, d.probe.timeout.Seconds(), d.probe.timeout.Seconds()), 0)
	case probeTurnsSlow:
		m.trial.calls++
		m.trial.slow++
		m.open(m.explain(RuleProbeSlow, d.probe.slow.Seconds(), d.probe.slow.Seconds()), 0)
	case callsTurnSlow:
		m.turn(m.hung())
		if m.hold == nil {
			m.open(m.slowTrip(), 0)
		}
	}
}

// loseProbes counts each probe as failed that gives no sign of life any more, since a deadline of its own is due by now. None
// of a period outlives it, so they are all dropped by the opening that follows.
func (m *machine) loseProbes() {
	for _, p := range m.probes {
		if d := p.verdictDue(); d.kind == probeDies && d.due(m.now) {
			p.fate = lost
			m.totals.inFlight--
			m.settled(Failure, false)
			m.trial.calls++
			m.trial.failures++
		}
	}
}

// behind reports whether a deadline is due by now.
func (m *machine) behind(now time.Duration) bool { return m.earliest().due(max(now, m.now)) }

// seen returns the machine as a look at now would find it, and changes nothing: getters use it.
func (m *machine) seen(now time.Duration) *machine {
	if !m.behind(now) {
		return m
	}
	c := *m
	c.outbox = nil
	c.history = slices.Clone(m.history)
	c.ledger.kinds = slices.Clone(m.ledger.kinds)
	c.verdicts, c.durations = m.verdicts.clone(), m.durations.clone()
	c.lanes, c.probes = nil, nil
	for i, l := range m.lanes {
		group := new(*l.group)
		if i > 0 && l.group == m.lanes[i-1].group {
			group = c.lanes[i-1].group
		}
		c.lanes = append(c.lanes, &lane{group: group})
	}
	for _, p := range m.probes {
		c.probes = append(c.probes, new(*p))
	}
	c.advance(now)
	return &c
}

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
	if m.state == StateClosed {
		m.frozen = m.now // the tallies show what led to the opening until the breaker closes
	}
	m.trip, m.until, m.reopened, m.ramping = t, plus(m.now, wait), again, false
	m.ended = 0
	if m.hold == nil {
		m.ended = m.period
	}
	m.enter(StateOpen, Event{Reason: t.Reason})
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
	m.ramping, m.reopened, m.trip, m.refusal = false, 0, nil, nil
}

func (m *machine) emptyWindow() {
	m.verdicts.empty()
	m.durations.empty()
	m.run = 0
	m.errors = errorTally{}
}

// enter is how the machine comes to another state; only reset, which also lifts a hold, assigns it itself. Under a hold that is
// not seen from outside, so nothing is announced.
func (m *machine) enter(s State, e Event) {
	e.From = m.shown()
	m.state = s
	m.refusal = nil // under a hold it names the trip below
	if m.hold != nil {
		m.shutLanes(false)
		return
	}
	m.beginPeriod()
	m.announce(e)
}

// beginPeriod makes the calls that are in flight strangers to what follows.
func (m *machine) beginPeriod() {
	m.period++
	m.refusal = nil
	m.draw = m.random()
	m.lanes, m.probes = nil, nil // whoever is in a lane finds it sealed for ever
	m.trial = trial{}
}

const maxHistory = 10

func (m *machine) announce(e Event) {
	e.To, e.At = m.shown(), m.time(m.now)
	if e.To == StateOpen {
		e.Trip, e.wait = m.trip, m.until-m.now
		if e.Rule == "" {
			e.Rule = m.trip.Rule
		}
	}
	if len(m.history) == maxHistory {
		m.history = append(m.history[:0:0], m.history[1:]...)
	}
	m.history = append(m.history, Transition{From: e.From, To: e.To, Time: e.At, Rule: e.Rule})
	m.ledger.enter(e.From, e.To, e.Rule, m.now)
	m.outbox = append(m.outbox, e)
}

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
	}
	if cfg.SlowCallDuration != old.SlowCallDuration || cfg.WindowDuration != old.WindowDuration {
		m.shutLanes(m.state == StateClosed)
	}
	// Calls that the new SlowCallDuration makes slow are counted, but a reload trips nothing.
	for l := m.hung(); l != nil && m.now-l.last > cfg.SlowCallDuration; l = m.hung() {
		m.turn(l)
	}
}
