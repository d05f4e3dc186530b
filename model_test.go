package breaker

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// model is the breaker's behaviour as the most obvious single-threaded program: lists of calls and of window entries, every
// number recomputed when it is asked for, and time as an argument, counted from New. The real breaker is compared with it.
//
// Tracked is one of closed, open and half-open; a hold, while there is one, is shown instead. Whoever looks, a getter on a
// copy of its own, first applies the deadlines that are due, in the order of their due instants and dated with them:
//
//	hold expiry              the tracked state shows again
//	open timeout             open becomes half-open
//	end of the ramp          the doubling is forgotten
//	2 ProbeTimeout           of a probe that called Progress: a success
//	ProbeTimeout             without a sign of life: the probe is lost, a failure
//	SlowCallDuration passed  a probe re-opens; calls in flight are counted, and the slow-call rate may trip
//
// All but the last act at exactly their instant, in this order when they coincide. Nothing else happens by time alone.
//
// A period lasts as long as what admits a call does. A call belongs to the period that admitted it; when that is over, its
// end is seen by the totals only, except that an OpenFor of the period which the present opening ended may lengthen it.
//
// Closed: each call enters the verdicts when it ends (unless ignored), and the durations when it ends or turns slow in
// flight. After each verdict the rules are asked in order: consecutive failures, failure rate, slow-call rate; after a call that
// only turned slow, the last. The longer of what trips and OpenFor wins. Open: for min(OpenTimeout*2^n, MaxOpenTimeout), n
// counting failed probe periods and trips during the ramp since the last full recovery. Half-open: SuccessThreshold successes
// close it; one failure, or HalfOpenMaxCalls probes in a row without a verdict, open it again. Held: nothing is decided, and
// the window is fed while the calls are admitted and tracked is closed.
type model struct {
	cfg   Config        // resolved
	draw  float64       // in [0, 1): the jitter of the next opening
	clock time.Duration // the latest look, or deadline applied

	tracked State
	held    *modelHold
	period  int
	calls   []modelCall // in flight, oldest first: admitted, not ended, not lost
	lastID  int

	verdicts  []modelEntry // of the window, oldest first; bad: failed
	durations []modelEntry // bad: slow
	entered   int          // entries so far
	run       int          // failures in a row
	groups    []modelGroup // of this period's calls in flight, by start

	trip   *modelTrip // why it opened; kept through half-open and the ramp
	opened time.Duration
	until  time.Duration
	n      int           // the number of the present opening, from 0
	ended  int           // the period that the present opening ended, 0 for none
	frozen time.Duration // when the window stopped: at the first opening in a row

	successes int // of this half-open period
	failures  int
	slowOnes  int
	undecided int // probes in a row without a verdict

	ramping bool
	closed  time.Duration // when the ramp began
	credit  float64       // a call needs 1

	totals               modelTotals
	lastFailed, lastGood *time.Duration
	events               []modelEvent
}

type modelHold struct {
	state      State
	by, reason string
	expires    bool
	until      time.Duration
}

type modelCall struct {
	id, period int
	start      time.Duration
	sign       time.Duration  // the last sign of life: its start or latest Progress
	lasted     *time.Duration // until the first Progress
	group      int            // index in groups plus 1, 0 for none
	slow       bool           // entered the durations already
	untimed    bool           // nobody read the clock when it started, since no duration was measured
	probe      bool
	cfg        Config // that admitted it: a reload changes no limit of a probe
	counted    bool   // entered the totals already: a probe that made progress for 2 ProbeTimeout
	joined     int    // the probe whose life it shares, 0 for none; then it enters nothing
}

type modelEntry struct {
	at  time.Duration
	bad bool
}

type modelGroup struct {
	number time.Duration // of the sixteenth of SlowCallDuration, counted from New
	last   time.Duration
	turned bool
	shut   bool // by another SlowCallDuration: nobody joins it any more
}

type modelTrip struct {
	at                         time.Duration
	rule                       string
	observed, threshold        float64
	calls, failures, slowCalls int
	reason                     string
}

type modelTotals struct {
	successful, failed, ignored, rejected, slow int
}

type modelEvent struct {
	seq      int
	from, to State
	rule     string
	at       time.Duration
	reason   string
}

// modelRefusal is what an OpenError says.
type modelRefusal struct {
	state State
	until time.Duration // 0: not known
	trip  *modelTrip
	hold  *modelHold
}

func newModel(cfg Config) *model {
	resolved, err := cfg.resolve()
	if err != nil {
		panic(err)
	}
	return &model{cfg: resolved, period: 1}
}

// after returns a copy as a getter sees it: with every deadline until now applied.
func (m *model) after(now time.Duration) *model {
	c := m.copy()
	c.look(now)
	return c
}

func (m *model) copy() *model {
	c := *m
	c.calls = slices.Clone(m.calls)
	c.verdicts = slices.Clone(m.verdicts)
	c.durations = slices.Clone(m.durations)
	c.groups = slices.Clone(m.groups)
	c.events = slices.Clip(m.events)
	return &c
}

// shown is the state that a call meets. Of a model that has looked, or of after.
func (m *model) shown() State {
	if m.held != nil {
		return m.held.state
	}
	return m.tracked
}

// Calls.

// ask is a call arriving: it is admitted under an id, or refused.
func (m *model) ask(now time.Duration) (id int, refused *modelRefusal) {
	m.look(now)
	if !m.admits() {
		m.totals.rejected++
		return 0, m.refusal()
	}
	c := modelCall{start: now, sign: now, period: m.period, probe: m.shown() == StateHalfOpen, cfg: m.cfg}
	c.untimed = !c.probe && !m.cfg.measuresSlow()
	if m.tracked == StateClosed && m.cfg.measuresSlow() {
		c.group = m.group(now)
	}
	return m.admit(c), nil
}

func (m *model) admit(c modelCall) int {
	m.lastID++
	c.id = m.lastID
	m.calls = append(m.calls, c)
	return c.id
}

func (m *model) admits() bool {
	switch m.shown() {
	case StateClosed:
		if !m.ramping {
			return true
		}
		m.credit += 0.1 + 0.9*float64(m.clock-m.closed)/float64(m.cfg.RampUp)
		if m.credit < 1 {
			return false
		}
		m.credit--
		return true
	case StateHalfOpen:
		return len(m.probes()) < m.cfg.HalfOpenMaxCalls
	default:
		return m.shown() == StateDisabled
	}
}

// probes returns the undecided probes of the period.
func (m *model) probes() (probes []*modelCall) {
	for i := range m.calls {
		if c := &m.calls[i]; c.probe && c.period == m.period && !c.counted {
			probes = append(probes, c)
		}
	}
	return probes
}

func (m *model) refusal() *modelRefusal {
	r := &modelRefusal{state: m.shown(), trip: m.trip, hold: m.held}
	if m.held != nil {
		r.until = m.held.until
	} else if m.tracked == StateOpen {
		r.until = m.until
	}
	return r
}

// group returns the group of a call that starts now. Calls that start within the same sixteenth of SlowCallDuration turn slow
// together, with the last of them.
func (m *model) group(now time.Duration) int {
	number := sixteenth(now, m.cfg)
	for g, group := range m.groups {
		if group.number == number && !group.turned && !group.shut {
			m.groups[g].last = now
			return g + 1
		}
	}
	m.groups = append(m.groups, modelGroup{number: number, last: now})
	return len(m.groups)
}

// join is a call arriving under the context of call id: it joins that call while it is an undecided probe of this period.
func (m *model) join(now time.Duration, id int) (int, *modelRefusal) {
	m.look(now)
	for _, c := range m.probes() {
		if c.id == id {
			return m.admit(modelCall{start: now, period: m.period, joined: id}), nil
		}
	}
	return m.ask(now)
}

// sixteenth is the one of SlowCallDuration in which t lies, counted from New.
func sixteenth(t time.Duration, cfg Config) time.Duration {
	return t / time.Duration(math.Ceil(float64(cfg.SlowCallDuration)/16))
}

// progress is a sign of life of call id, or of the probe that it joined.
func (m *model) progress(now time.Duration, id int) {
	m.look(now)
	i := m.index(id)
	if i >= 0 && m.calls[i].joined > 0 {
		i = m.index(m.calls[i].joined)
	}
	if i < 0 {
		return
	}
	c := &m.calls[i]
	c.sign = now
	if c.lasted != nil {
		return
	}
	c.lasted = new(now - c.start)
	if c.untimed {
		c.lasted = new(time.Duration(0))
	}
	c.group = 0
	if c.period == m.period && m.tracked == StateClosed && m.overdue(*c) {
		c.slow = true
		m.enter(&m.durations, true)
		m.judge(m.slowRate(), 0)
	}
}

// done ends call id, with OpenFor if openFor > 0, and says whether that was its end.
func (m *model) done(now time.Duration, id int, o Outcome, openFor time.Duration) bool {
	m.look(now)
	c, ok := m.remove(id)
	if !ok {
		return false
	}
	if c.joined > 0 || c.counted {
		return true
	}
	m.count(c, o)
	if m.cfg.MaxRetryAfter == Off {
		openFor = 0
	}
	openFor = min(openFor, m.cfg.MaxRetryAfter)
	switch {
	case c.period == m.period:
		m.settle(c, o, openFor)
	case c.period == m.ended && m.tracked == StateOpen && openFor > 0:
		m.until = max(m.until, plus(now, openFor))
	}
	return true
}

// cancel takes call id back.
func (m *model) cancel(now time.Duration, id int) {
	m.look(now)
	if c, ok := m.remove(id); ok && c.joined == 0 && !c.counted && c.period == m.period {
		m.settle(c, Ignored, 0)
	}
}

func (m *model) index(id int) int {
	return slices.IndexFunc(m.calls, func(c modelCall) bool { return c.id == id })
}

func (m *model) remove(id int) (modelCall, bool) {
	i := m.index(id)
	if i < 0 {
		return modelCall{}, false
	}
	c := m.calls[i]
	m.calls = slices.Delete(m.calls, i, i+1)
	return c, true
}

// count enters the end of c in the totals.
func (m *model) count(c modelCall, o Outcome) {
	switch o {
	case Success:
		m.totals.successful++
		m.lastGood = new(m.clock)
	case Failure:
		m.totals.failed++
		m.lastFailed = new(m.clock)
	default:
		m.totals.ignored++
	}
	if m.slow(c) {
		m.totals.slow++
	}
}

// slow says whether c, ending now, has been slow.
func (m *model) slow(c modelCall) bool {
	lasted := m.clock - c.start
	if c.lasted != nil {
		lasted = *c.lasted
	}
	return m.cfg.measuresSlow() && !c.untimed && lasted > m.cfg.SlowCallDuration
}

// overdue says whether c, ending now, is to enter the durations as slow.
func (m *model) overdue(c modelCall) bool { return !c.slow && m.slow(c) }

// settle lets the end of c, of this period, have its effect.
func (m *model) settle(c modelCall, o Outcome, openFor time.Duration) {
	if m.tracked == StateClosed {
		m.judge(m.feed(c, o), openFor)
	} else if m.shown() == StateHalfOpen {
		m.probed(o, openFor)
	}
}

// feed enters the end of c in the window and returns the rule that trips by it.
func (m *model) feed(c modelCall, o Outcome) *modelTrip {
	overdue := m.overdue(c)
	if overdue || o != Ignored && !c.slow && m.cfg.measuresSlow() {
		m.enter(&m.durations, overdue)
	}
	if o == Ignored {
		if overdue {
			return m.slowRate()
		}
		return nil
	}
	m.enter(&m.verdicts, o == Failure)
	m.run++
	if o == Success {
		m.run = 0
	}
	return cmp.Or(m.consecutive(), m.failureRate(), m.slowRate())
}

// probed is the end of a probe of this period.
func (m *model) probed(o Outcome, openFor time.Duration) {
	m.undecided++
	switch o {
	case Success:
		m.undecided = 0
		m.successes++
	case Failure:
		m.undecided = 0
		m.failures++
	}
	switch {
	case o == Failure:
		m.open(m.why("probe_failed", float64(m.failures), 1), m.n+1, openFor)
	case o == Ignored && m.undecided >= m.cfg.HalfOpenMaxCalls:
		m.open(m.why("probe_ignored", float64(m.undecided), float64(m.cfg.HalfOpenMaxCalls)), m.n, openFor)
	case openFor > 0:
		m.open(nil, m.n, openFor)
	case o == Success && m.successes >= m.cfg.SuccessThreshold:
		m.recover()
	}
}

// The window.

func (m *model) enter(list *[]modelEntry, bad bool) {
	*list = append(*list, modelEntry{m.clock, bad})
	m.entered++
	m.forget()
}

// forget drops what has left the window.
func (m *model) forget() {
	for _, list := range []*[]modelEntry{&m.verdicts, &m.durations} {
		if m.cfg.WindowDuration == 0 {
			*list = (*list)[max(0, len(*list)-m.cfg.WindowCalls):]
			continue
		}
		*list = slices.DeleteFunc(slices.Clone(*list), func(e modelEntry) bool {
			return fiftieth(e.at, m.cfg) <= fiftieth(m.windowClock(), m.cfg)-50
		})
	}
}

// fiftieth is the bucket of the window in which t lies, counted from New.
func fiftieth(t time.Duration, cfg Config) time.Duration { return t / (cfg.WindowDuration / 50) }

// windowClock is the instant of which the window tells.
func (m *model) windowClock() time.Duration {
	if m.tracked != StateClosed {
		return m.frozen
	}
	return m.clock
}

func counted(list []modelEntry) (bad, n int) {
	for _, e := range list {
		if e.bad {
			bad++
		}
	}
	return bad, len(list)
}

// The rules. Each returns the trip that it asks for, or nil.

func (m *model) consecutive() *modelTrip {
	if limit := m.cfg.FailureThreshold; limit != Off && m.run >= limit {
		return m.why("consecutive_failures", float64(m.run), float64(limit))
	}
	return nil
}

func (m *model) failureRate() *modelTrip {
	return m.rate("failure_rate", m.verdicts, m.cfg.FailureRateThreshold)
}

func (m *model) slowRate() *modelTrip {
	if !m.cfg.slowRule() {
		return nil
	}
	t := m.rate("slow_call_rate", m.durations, m.cfg.SlowCallRateThreshold)
	if t != nil {
		_, t.calls = counted(m.durations)
	}
	return t
}

func (m *model) rate(rule string, list []modelEntry, limit float64) *modelTrip {
	m.forget()
	bad, n := counted(list)
	if limit == Off || n < m.cfg.MinimumCalls || float64(bad)/float64(n) < limit {
		return nil
	}
	return m.why(rule, float64(bad)/float64(n), limit)
}

// why is a trip at this moment, with the numbers of the window, or of the probes in half-open.
func (m *model) why(rule string, observed, threshold float64) *modelTrip {
	t := &modelTrip{at: m.clock, rule: rule, observed: observed, threshold: threshold}
	if m.tracked == StateHalfOpen {
		t.calls, t.failures, t.slowCalls = m.successes+m.failures+m.slowOnes, m.failures, m.slowOnes
		return t
	}
	t.failures, t.calls = counted(m.verdicts)
	t.slowCalls, _ = counted(m.durations)
	return t
}

// Transitions.

// judge opens, from closed or half-open, by a tripped rule or for as long as the upstream has asked, whichever is longer.
func (m *model) judge(tripped *modelTrip, openFor time.Duration) {
	if m.held != nil {
		return
	}
	n := m.n
	if tripped != nil && m.ramping {
		n++
	}
	m.open(tripped, n, openFor)
}

func (m *model) open(t *modelTrip, n int, openFor time.Duration) {
	wait := m.wait(n)
	if openFor > 0 && (t == nil || openFor > wait) {
		t, n, wait = m.why("retry_after", openFor.Seconds(), m.cfg.MaxRetryAfter.Seconds()), m.n, openFor
	}
	if t == nil {
		return
	}
	if m.tracked == StateClosed {
		m.frozen = m.clock
		m.forget()
	}
	m.trip, m.opened, m.until, m.n, m.ended, m.ramping = t, m.clock, plus(m.clock, wait), n, 0, false
	if m.held != nil {
		m.tracked = StateOpen
		return
	}
	m.ended = m.period
	m.change(t.rule, t.reason, func() { m.tracked = StateOpen })
}

// wait is how long opening number n lasts.
func (m *model) wait(n int) time.Duration {
	wait := float64(m.cfg.OpenTimeout) * math.Pow(2, float64(n))
	d := m.cfg.MaxOpenTimeout
	if wait < float64(d) {
		d = time.Duration(wait)
	}
	return plus(d, time.Duration(m.draw*max(0, m.cfg.OpenTimeoutJitter)*float64(d)))
}

func (m *model) recover() {
	m.change("recovered", "", func() { m.clear() })
	if m.cfg.RampUp > 0 {
		m.ramping, m.closed, m.credit = true, m.clock, 0.9
	} else {
		m.settled()
	}
}

// clear closes it with an empty window, settled ends the story of the last opening.
func (m *model) clear() {
	m.tracked, m.verdicts, m.durations, m.run = StateClosed, nil, nil, 0
}

func (m *model) settled() { m.ramping, m.n, m.trip = false, 0, nil }

// change does what begins a new period and tells of it.
func (m *model) change(rule, reason string, do func()) {
	from := m.shown()
	do()
	m.begin()
	m.events = append(m.events, modelEvent{len(m.events) + 1, from, m.shown(), rule, m.clock, reason})
}

func (m *model) begin() {
	m.period++
	m.groups, m.successes, m.failures, m.slowOnes, m.undecided = nil, 0, 0, 0, 0
}

// Control.

func (m *model) manual(now time.Duration, reason string) {
	m.look(now)
	if m.tracked == StateOpen {
		m.until = max(m.until, plus(now, m.wait(m.n)))
		return
	}
	t := m.why("manual", 0, 0)
	t.reason = reason
	m.open(t, m.n, 0)
}

func (m *model) reset(now time.Duration, reason string) {
	m.look(now)
	was := m.shown()
	m.held = nil
	m.clear()
	m.settled()
	m.begin()
	if was != StateClosed {
		m.events = append(m.events, modelEvent{len(m.events) + 1, was, StateClosed, "reset", now, reason})
	}
}

// hold sets a hold; a length of 0 has no end.
func (m *model) hold(now time.Duration, state State, by, reason string, length time.Duration) {
	m.look(now)
	h := &modelHold{state: state, by: by, reason: reason, expires: length != 0}
	if h.expires {
		h.until = plus(now, length)
	}
	m.change("hold", reason, func() { m.held = h })
}

func (m *model) release(now time.Duration) {
	m.look(now)
	if m.held != nil {
		m.change("release", "", func() { m.held = nil })
	}
}

// apply changes the configuration and what is counted by it, never the state.
func (m *model) apply(now time.Duration, cfg Config) {
	m.look(now)
	m.forget()
	old := m.cfg
	m.cfg, _ = cfg.resolve()
	m.rewindow(old)
	if !m.cfg.measuresSlow() {
		m.durations = nil
	}
	for g := range m.groups {
		m.groups[g].shut = m.groups[g].shut || m.cfg.SlowCallDuration != old.SlowCallDuration || m.cfg.WindowDuration != old.WindowDuration
	}
	for i := range m.calls { // those that were not timed are from now on
		if c := &m.calls[i]; c.untimed && c.period == m.period && m.cfg.measuresSlow() {
			c.untimed, c.start = false, now
		}
	}
	for g, group := range m.groups {
		if m.cfg.measuresSlow() && now-group.last > m.cfg.SlowCallDuration && m.tracked == StateClosed {
			m.turn(g)
		}
	}
	m.forget()
}

// rewindow gives the entries of the old window the times and the order under which the new one takes them over: those of a
// count become those of now; those of a bucket have its last instant, and successes before failures.
func (m *model) rewindow(old Config) {
	if m.cfg.WindowCalls == old.WindowCalls && m.cfg.WindowDuration == old.WindowDuration {
		return
	}
	for _, list := range []*[]modelEntry{&m.verdicts, &m.durations} {
		for i, e := range *list {
			(*list)[i].at = m.windowClock()
			if old.WindowDuration != 0 {
				(*list)[i].at = min(m.windowClock(), (fiftieth(e.at, old)+1)*(old.WindowDuration/50)-1)
			}
		}
		if old.WindowDuration != 0 {
			slices.SortStableFunc(*list, func(a, b modelEntry) int {
				return cmp.Or(cmp.Compare(a.at, b.at), compareBool(a.bad, b.bad))
			})
		}
	}
}

func compareBool(a, b bool) int {
	if a == b {
		return 0
	} else if b {
		return -1
	}
	return 1
}

// Deadlines.

type modelDeadline struct {
	due    time.Duration
	strict bool // acts once the instant has passed
	act    func()
}

// look applies every deadline that is due, each as of its instant.
func (m *model) look(now time.Duration) {
	for {
		d, ok := m.due(now)
		if !ok {
			break
		}
		m.clock = max(m.clock, d.due)
		d.act()
	}
	m.clock = max(m.clock, now)
	m.forget()
}

// due returns the first deadline in effect by now.
func (m *model) due(now time.Duration) (first modelDeadline, ok bool) {
	for _, d := range m.deadlines() {
		if d.due > now || d.strict && d.due == now {
			continue
		}
		if !ok || d.due < first.due {
			first, ok = d, true
		}
	}
	return first, ok
}

// deadlines returns them in the order in which they act when they coincide.
func (m *model) deadlines() (list []modelDeadline) {
	add := func(due time.Duration, act func()) { list = append(list, modelDeadline{due, false, act}) }
	if m.held != nil && m.held.expires {
		add(m.held.until, func() { m.change("hold_expired", "", func() { m.held = nil }) })
	}
	if m.tracked == StateOpen {
		add(m.until, m.halfOpen)
	}
	if m.ramping {
		add(plus(m.closed, m.cfg.RampUp), m.settled)
	}
	probes := m.probes()
	for _, c := range probes {
		if c.lasted != nil {
			add(m.endlessDue(*c), func() { m.endless(c) })
		}
	}
	for _, c := range probes {
		add(m.lostDue(*c), func() { m.lost(c) })
	}
	for _, c := range probes {
		if c.lasted == nil && c.cfg.slowRule() {
			list = append(list, modelDeadline{plus(c.start, c.cfg.SlowCallDuration), true, func() { m.probeSlow(c) }})
		}
	}
	for g, group := range m.groups {
		if !group.turned && m.cfg.measuresSlow() {
			list = append(list, modelDeadline{plus(group.last, m.cfg.SlowCallDuration), true, func() { m.turnSlow(g) }})
		}
	}
	return list
}

func (m *model) halfOpen() {
	if m.held != nil {
		m.tracked = StateHalfOpen
		return
	}
	m.change("open_timeout", "", func() { m.tracked = StateHalfOpen })
}

// endless counts a probe that has been alive for 2 ProbeTimeout as a success; its call goes on.
func (m *model) endless(c *modelCall) {
	c.counted = true
	m.count(*c, Success)
	m.probed(Success, 0)
}

func (m *model) endlessDue(c modelCall) time.Duration {
	return plus(c.start, plus(c.cfg.ProbeTimeout, c.cfg.ProbeTimeout))
}

func (m *model) lostDue(c modelCall) time.Duration { return plus(c.sign, c.cfg.ProbeTimeout) }

// lost gives up a probe, and every other whose time has come: those of one instant go together.
func (m *model) lost(first *modelCall) {
	limit := first.cfg.ProbeTimeout.Seconds()
	for _, c := range m.probes() {
		if m.lostDue(*c) <= m.clock && (c.lasted == nil || m.lostDue(*c) < m.endlessDue(*c)) {
			m.totals.failed++
			m.lastFailed = new(m.clock)
			m.failures++
			defer m.remove(c.id)
		}
	}
	m.open(m.why("probe_lost", limit, limit), m.n+1, 0)
}

func (m *model) probeSlow(c *modelCall) {
	m.slowOnes++
	limit := c.cfg.SlowCallDuration.Seconds()
	m.open(m.why("probe_slow", limit, limit), m.n+1, 0)
}

func (m *model) turnSlow(g int) {
	m.groups[g].turned = true
	if m.tracked == StateClosed && m.turn(g) {
		m.judge(m.slowRate(), 0)
	}
}

// turn counts the calls in flight of group g as slow and says whether there were any.
func (m *model) turn(g int) (found bool) {
	m.groups[g].turned = true
	for i := range m.calls {
		if c := &m.calls[i]; c.period == m.period && c.group == g+1 && !c.slow {
			c.slow, found = true, true
			m.enter(&m.durations, true)
		}
	}
	return found
}
