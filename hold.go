package breaker

import "time"

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

// hold is a Hold in force.
type hold struct {
	Hold
	state State // StateForcedOpen or StateDisabled
	since time.Duration
	until time.Duration // when For is not zero
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
