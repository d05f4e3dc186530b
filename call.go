package breaker

import (
	"math"
	"slices"
	"time"
)

// call is the machine's side of a permit.
type call struct {
	period  uint64
	way             // no lane in half-open
	left    bool    // it is not among the calls of its lane any more
	pulse   instant // its first Progress; outside half-open
	probe   *probe  // nil outside half-open
	joined  bool    // runs inside probe, and is not counted
	wasSlow bool    // already in the durations, as slow
}

// probe is a call admitted in half-open. Its limits are those in force then: a reload neither loses nor passes it.
type probe struct {
	timeout, slow time.Duration // slow is Off when its rule is

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

// admit lets a call in or refuses it. parent is the probe inside which the caller already runs, if any.
func (m *machine) admit(now time.Duration, parent *probe) (call, *OpenError) {
	m.advance(now)
	c := call{period: m.period, way: way{start: m.now}}
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
		c.probe = m.newProbe()
		m.probes = append(m.probes, c.probe)
	case StateClosed:
		if m.ramping && !m.rampAdmits() {
			return c, m.refuse()
		}
	}
	if c.probe == nil {
		c.lane = m.lane()
		c.stripe = &c.lane.stripes[0]
		c.lane.calls++
		c.lane.last = m.now
	}
	m.totals.inFlight++
	return c, nil
}

func (m *machine) newProbe() *probe {
	p := &probe{timeout: m.cfg.ProbeTimeout, slow: Off, start: m.now, alive: m.now}
	if m.cfg.slowRule() {
		p.slow = m.cfg.SlowCallDuration
	}
	return p
}

func (m *machine) refuse() *OpenError {
	m.totals.rejected++
	return m.currentRefusal()
}

func (m *machine) currentRefusal() *OpenError {
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

// settle ends a call, and reports whether this did. Who calls it has claimed the permit: it is the only one.
func (m *machine) settle(now time.Duration, c *call, e ending) bool {
	m.advance(now)
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
	c.leaveLane()
	slow := m.slow(c)
	m.settled(e.Outcome, slow)
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

// settled enters an outcome into the totals, but for a permit given back.
func (m *machine) settled(o Outcome, slow bool) {
	if slow && o != unset {
		m.totals.slow++
	}
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

func (m *machine) slow(c *call) bool {
	switch l := c.lane; {
	case l == nil:
		return m.outlasted(c.start, c.probe.pulse)
	case l.measured:
		return m.outlasted(c.start, c.pulse)
	default: // nobody knows when it started
		return l.since.known && m.outlasted(l.since.at, c.pulse)
	}
}

// outlasted reports whether a call has lasted longer than it may, up to now or its first Progress.
func (m *machine) outlasted(start time.Duration, pulse instant) bool {
	end := m.now
	if pulse.known {
		end = pulse.at
	}
	return m.cfg.measuresSlow() && end-start > m.cfg.SlowCallDuration
}

// lasted is how long c took up to now, or up to its first Progress.
func (m *machine) lasted(c *call) time.Duration {
	pulse := c.pulse
	if c.probe != nil {
		pulse = c.probe.pulse
	}
	if pulse.known {
		return pulse.at - c.start
	}
	return m.now - c.start
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
	turnedSlow := m.turnedSlow(c, slow)
	if e.hasVerdict() {
		if !c.wasSlow && m.cfg.measuresSlow() {
			m.durations.add(m.now, 1, false)
		}
		m.verdicts.add(m.now, 1, e.Outcome == Failure)
		if e.Outcome == Success {
			m.run = 0
		} else {
			m.run = min(m.run, math.MaxInt-1) + 1
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

// leaveLane takes a call out of those in flight, of which it may have been entered as slow.
func (c *call) leaveLane() {
	if c.lane != nil && !c.left {
		c.left = true
		c.lane.calls--
		c.wasSlow = c.lane.turned
	}
}

// turnedSlow enters a call as slow, if it is and was not entered before, and reports whether it did.
func (m *machine) turnedSlow(c *call, slow bool) bool {
	if !slow || c.wasSlow {
		return false
	}
	c.wasSlow = true
	m.durations.add(m.now, 1, true)
	return true
}

// progressed notes a sign of life of c, whose permit nobody has claimed. The first stops the slow clock.
func (m *machine) progressed(c *call) {
	if c.probe != nil { // a call inside a probe speaks for it
		c.probe.alive = m.now
		c.probe.pulse.first(m.now)
		return
	}
	if !c.pulse.first(m.now) {
		return
	}
	c.leaveLane()
	if c.period == m.period && m.state == StateClosed && m.turnedSlow(c, m.slow(c)) && m.hold == nil {
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
		var t *Trip
		if m.trial.ignored >= m.cfg.HalfOpenMaxCalls {
			t = m.explain(RuleProbeIgnored, float64(m.trial.ignored), float64(m.cfg.HalfOpenMaxCalls))
		}
		m.open(t, m.granted(e))
	}
}

func (m *machine) drop(p *probe) {
	m.probes = slices.DeleteFunc(m.probes, func(other *probe) bool { return other == p })
}
