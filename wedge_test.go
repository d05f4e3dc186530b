package breaker

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// tick is the step in which the explorer lets time pass. Every duration of its configurations is a multiple of it, so that
// deadlines are met exactly and missed by one tick.
const tick = time.Second

// maxStates is far above what any world here has. A model that never gives up a probe, say, has no end of states.
const maxStates = 300_000

// explorer visits, breadth first, every state of the model that is reachable under a configuration with at most maxCalls in
// flight and three entries in a window of time. Two models are one state when nothing that happens from now on can tell them
// apart; see key.
type explorer struct {
	configs  []Config // New's, then those that Apply brings
	aside    []Config // those that Apply brings too, but to states that are not explored further
	maxCalls int

	seen  map[string]struct{}
	queue []*model
	edges int

	visit func(m *model)                                       // each state, once
	edge  func(row string, before, after *model, found string) // each action in each state; found: what an ask returned
}

func (x *explorer) explore() {
	x.seen = map[string]struct{}{}
	for i, c := range x.configs {
		x.configs[i] = newModel(c).cfg // resolved, as m.cfg is
	}
	x.found(newModel(x.configs[0]))
	for len(x.queue) > 0 {
		m := x.queue[0]
		x.queue = x.queue[1:]
		if x.visit != nil {
			x.visit(m)
		}
		for _, a := range x.actions(m) {
			x.try(m, a)
		}
	}
}

func (x *explorer) try(m *model, a action) {
	after := m.after(m.clock)
	result := a.do(after)
	x.edges++
	if x.edge != nil {
		x.edge(a.row, m, after, result)
	}
	if !slices.Contains(x.aside, a.cfg) {
		x.found(after.after(after.clock))
	}
}

// found queues m, unless its state is known or outside these bounds.
func (x *explorer) found(m *model) {
	m.events = nil
	k := x.key(m)
	if _, known := x.seen[k]; known || len(m.calls) > x.maxCalls || len(m.verdicts) > 3 || len(m.durations) > 3 {
		return
	}
	if len(x.seen) == maxStates {
		panic(fmt.Sprintf("more than %d states, as if time alone made new ones: %+v", maxStates, *m))
	}
	x.seen[k] = struct{}{}
	x.queue = append(x.queue, m)
}

// action is something that can happen, under the name of its row in the table of the README.
type action struct {
	row string
	do  func(m *model) (found string)
	cfg Config // of Apply
}

// quiet is an action that returns nothing.
func quiet(row string, do func(m *model)) action {
	return action{row: row, do: func(m *model) string { do(m); return "" }}
}

func (x *explorer) actions(m *model) []action {
	list := []action{
		{row: rowAsk, do: func(m *model) string { _, refused := m.ask(m.clock); return foundText(m, refused) }},
		quiet(rowTime, func(m *model) { m.look(m.clock + tick) }),
		quiet(rowTrip, func(m *model) { m.manual(m.clock, "") }),
		quiet(rowReset, func(m *model) { m.reset(m.clock, "") }),
		quiet(rowForce, func(m *model) { m.hold(m.clock, StateForcedOpen, "", "", 0) }),
		quiet(rowForce, func(m *model) { m.hold(m.clock, StateForcedOpen, "", "", 2*tick) }),
		quiet(rowDisable, func(m *model) { m.hold(m.clock, StateDisabled, "", "", 0) }),
		quiet(rowDisable, func(m *model) { m.hold(m.clock, StateDisabled, "", "", 2*tick) }),
		quiet(rowRelease, func(m *model) { m.release(m.clock) }),
	}
	brought := x.aside
	if len(x.configs) > 1 {
		brought = x.configs
	}
	for _, cfg := range brought {
		a := quiet(rowApply, func(m *model) { m.apply(m.clock, cfg) })
		a.cfg = cfg
		list = append(list, a)
	}
	for i, c := range m.calls {
		if !slices.ContainsFunc(m.calls[:i], func(o modelCall) bool { return string(x.appendCall(nil, m, o)) == string(x.appendCall(nil, m, c)) }) {
			list = append(list, callActions(m, c)...)
		}
	}
	return list
}

func callActions(m *model, c modelCall) []action {
	end := func(row string, o Outcome, openFor time.Duration) action {
		if c.period != m.period {
			row = rowLate
			if openFor > 0 {
				row = rowLateOpenFor
			}
		}
		return quiet(row, func(m *model) { m.done(m.clock, c.id, o, openFor) })
	}
	list := []action{
		end(rowSuccess, Success, 0), end(rowFailure, Failure, 0), end(rowIgnored, Ignored, 0),
		end(rowOpenFor, Success, 3*tick), end(rowOpenFor, Failure, tick), end(rowOpenFor, Failure, 3*tick), end(rowOpenFor, Ignored, 3*tick),
	}
	if c.period == m.period {
		list = append(list,
			quiet(rowCancel, func(m *model) { m.cancel(m.clock, c.id) }),
			quiet(rowProgress, func(m *model) { m.progress(m.clock, c.id) }))
	}
	if c.probe {
		list = append(list, action{row: rowJoin, do: func(m *model) string {
			id, refused := m.join(m.clock, c.id)
			if refused == nil && m.calls[len(m.calls)-1].joined > 0 {
				m.done(m.clock, id, Failure, 0)
				return "admitted with it"
			}
			return foundText(m, refused)
		}})
	}
	return list
}

// key tells apart what m will do from now on; what has been (totals, the window of an open breaker, the reason of a trip, how
// long ago a deadline began that no longer matters) is left out.
func (x *explorer) key(m *model) string {
	var b []byte
	b = append(b, byte(m.tracked), flag01(m.held != nil), flag01(m.ramping), byte(m.successes), byte(m.undecided))
	b = append(b, byte(slices.Index(x.configs, m.cfg)))
	if m.held != nil {
		b = append(b, byte(m.held.state), flag01(m.held.expires))
		if m.held.expires {
			b = appendAge(b, m.held.until-m.clock)
		}
	}
	switch m.tracked {
	case StateOpen:
		b = appendAge(b, m.until-m.clock)
	case StateClosed:
		limit := 0
		for _, c := range x.configs {
			limit = max(limit, c.FailureThreshold)
		}
		b = append(b, byte(min(m.run, limit-1))) // with one less than the limit, the next failure trips
		if x.anyHas(func(c Config) bool { return c.FailureRateThreshold != Off }) {
			b = m.appendWindow(b, m.verdicts)
		}
		b = m.appendWindow(b, m.durations)
	}
	if m.ramping {
		b = appendAge(b, m.clock-m.closed, time.Duration(math.Round(m.credit*1e6)))
	}
	for n := 0; n < m.n && m.wait(n) < m.cfg.MaxOpenTimeout; n++ {
		b = append(b, 'n')
	}
	for _, c := range m.calls {
		b = x.appendCall(append(b, 'c'), m, c)
	}
	return string(b)
}

func (x *explorer) anyHas(what func(c Config) bool) bool { return slices.ContainsFunc(x.configs, what) }

func (m *model) appendWindow(b []byte, list []modelEntry) []byte {
	for _, e := range list {
		b = append(b, flag01(e.bad))
		if m.cfg.WindowDuration != 0 {
			b = appendAge(b, m.clock-e.at)
		}
	}
	return append(b, 'w')
}

// appendCall leaves out of a call whatever its end can no longer depend on.
func (x *explorer) appendCall(b []byte, m *model, c modelCall) []byte {
	if c.period != m.period || c.counted {
		return append(b, flag01(c.probe), flag01(m.tracked == StateOpen && c.period == m.ended))
	}
	b = append(b, 'p', flag01(c.untimed), flag01(c.slow), flag01(c.probe), flag01(c.lasted != nil))
	if c.group > 0 && !m.groups[c.group-1].turned {
		g := m.groups[c.group-1]
		b = appendAge(append(b, 'g', flag01(!g.shut && g.number == sixteenth(m.clock, m.cfg))), m.clock-g.last)
	}
	limit := max(0, m.cfg.SlowCallDuration) + tick
	if c.probe {
		limit = max(limit, 3*c.cfg.ProbeTimeout)
		b = appendAge(append(b, byte(slices.Index(x.configs, c.cfg))), m.clock-c.sign)
	}
	if c.lasted != nil {
		b = appendAge(b, min(*c.lasted, limit))
	}
	if c.lasted == nil || c.probe {
		b = appendAge(b, min(m.clock-c.start, limit))
	}
	return b
}

func appendAge(b []byte, ages ...time.Duration) []byte {
	for _, d := range ages {
		b = binary.AppendVarint(b, int64(d))
	}
	return append(b, ';')
}

func flag01(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// smallConfigs are configurations whose state space can be walked through: every rule, threshold and cap from 1 to 3.
func smallConfigs() (list []Config) {
	base := Config{
		FailureThreshold: 2, FailureRateThreshold: 0.6, MinimumCalls: 2, WindowCalls: 2, OpenTimeout: tick, MaxOpenTimeout: 2 * tick,
		OpenTimeoutJitter: Off, HalfOpenMaxCalls: 2, SuccessThreshold: 2, ProbeTimeout: 2 * tick, MaxRetryAfter: 3 * tick,
	}
	with := func(change func(c *Config)) {
		c := base
		change(&c)
		list = append(list, c)
	}
	for limit := 1; limit <= 3; limit++ {
		with(func(c *Config) { c.FailureThreshold, c.FailureRateThreshold, c.RampUp = limit, Off, tick })
		with(func(c *Config) { c.HalfOpenMaxCalls, c.SuccessThreshold = limit, 4-limit })
		with(func(c *Config) { c.HalfOpenMaxCalls, c.SuccessThreshold, c.FailureRateThreshold = limit, limit, Off })
		with(func(c *Config) {
			c.MinimumCalls, c.WindowCalls, c.FailureThreshold, c.FailureRateThreshold = limit, limit, Off, Off
			c.SlowCallDuration, c.SlowCallRateThreshold = tick, 0.5
		})
	}
	with(func(c *Config) { c.WindowCalls, c.WindowDuration, c.FailureThreshold = 0, 2*tick, Off })
	with(func(c *Config) { c.SlowCallDuration, c.RampUp, c.FailureThreshold = tick, 2*tick, 1 })
	with(func(c *Config) { c.MaxOpenTimeout, c.MaxRetryAfter, c.ProbeTimeout = c.OpenTimeout, Off, 3*tick })
	return list
}

// reloads are pairs of configurations that Apply goes back and forth between.
func reloads() (list [][]Config) {
	all := smallConfigs()
	counts, timed, strict := all[2], all[12], all[1]
	strict.MinimumCalls, strict.WindowCalls, strict.ProbeTimeout = 1, 1, tick
	ramped := counts
	ramped.RampUp, ramped.OpenTimeout, ramped.MaxRetryAfter = tick, 2*tick, Off
	return [][]Config{{counts, strict}, {counts, ramped}, {counts, timed}}
}

// TestNoStateRefusesForEver walks through every reachable state and lets a caller that keeps asking be admitted.
func TestNoStateRefusesForEver(t *testing.T) {
	var worlds [][]Config
	for i, cfg := range smallConfigs() {
		if proving() || i != 13 { // the largest
			worlds = append(worlds, []Config{cfg})
		}
	}
	maxCalls := 2
	if proving() {
		maxCalls = 3
		worlds = append(worlds, reloads()...)
	} else {
		worlds = append(worlds, reloads()[0])
	}
	states, edges, longest := 0, 0, time.Duration(0)
	for _, configs := range worlds {
		x := &explorer{configs: configs, maxCalls: maxCalls}
		x.visit = func(m *model) {
			x.checkLooks(t, m)
			if m.held == nil || m.held.expires {
				longest = max(longest, x.untilAdmitted(t, m, false), x.untilAdmitted(t, m, true))
			}
		}
		x.edge = func(row string, before, after *model, _ string) { before.checkMove(t, row, after) }
		x.explore()
		states, edges = states+len(x.seen), edges+x.edges
		t.Logf("%d states, %d edges of %+v", len(x.seen), x.edges, configs)
	}
	t.Logf("%d states, %d edges; a caller that keeps asking is admitted within %v", states, edges, longest)
}

// checkLooks: it makes no difference whether somebody looked in between.
func (x *explorer) checkLooks(t *testing.T, m *model) {
	seldom, often := m.after(m.clock+3*tick), m.after(m.clock)
	for now := m.clock; now < m.clock+3*tick; now += tick / 2 {
		often.look(now)
	}
	often.look(m.clock + 3*tick)
	if x.key(seldom) != x.key(often) || !slices.Equal(seldom.events, often.events) {
		t.Fatalf("whoever looks changes what happens:\n%+v\n%+v\nafter %+v", *seldom, *often, *m)
	}
}

// untilAdmitted asks once a tick until the answer is yes, and returns how long that took. Stirred, every other call in flight
// makes progress all the time.
func (x *explorer) untilAdmitted(t *testing.T, m *model, stir bool) time.Duration {
	asking := m.after(m.clock)
	var bound time.Duration
	for _, c := range x.configs {
		bound = max(bound, 2*c.MaxOpenTimeout+c.MaxRetryAfter+3*c.ProbeTimeout+c.RampUp+10*tick)
	}
	for now := m.clock; ; now += tick {
		if _, refused := asking.ask(now); refused == nil {
			return now - m.clock
		}
		if now > m.clock+bound {
			t.Fatalf("%v still refuses after %v (stirred: %v), began with %+v", asking.shown(), bound, stir, *m)
		}
		for _, c := range slices.Clone(asking.calls) {
			if stir {
				asking.progress(now, c.id)
			}
		}
	}
}

// checkMove checks what must hold across every action.
func (m *model) checkMove(t *testing.T, row string, after *model) {
	state, at := m.shown(), m.clock
	for _, e := range after.events {
		if e.from != state || e.at < at {
			t.Fatalf("%s: event %+v in %v at %v", row, e, state, at)
		}
		state, at = e.to, e.at
	}
	if state != after.shown() || at > after.clock {
		t.Fatalf("%s: the events end in %v at %v, the state is %v at %v", row, state, at, after.shown(), after.clock)
	}
	if n := len(after.probes()); n > m.cfg.HalfOpenMaxCalls && n > len(m.probes()) {
		t.Fatalf("%s: %d probes", row, n)
	}
	if after.tracked == StateClosed && !after.ramping && (after.n != 0 || after.trip != nil) {
		t.Fatalf("%s: closed, and an opening is remembered: %+v", row, *after)
	}
	if after.tracked == StateOpen && after.until < m.until && m.tracked == StateOpen && after.period == m.period {
		t.Fatalf("%s: the wait went from %v to %v", row, m.until, after.until)
	}
	settled, begun := after.totals.sum()-m.totals.sum(), after.lastID-m.lastID
	if gone := len(m.calls) + begun - len(after.calls); gone > 0 && settled > gone && row != rowTime {
		t.Fatalf("%s: %d calls entered the totals, %d ended", row, settled, gone)
	}
}

func (t modelTotals) sum() int { return t.successful + t.failed + t.ignored + t.rejected }
