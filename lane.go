package breaker

import (
	"slices"
	"sync/atomic"
	"time"
)

// lane is the way past the lock. While no rule can open the breaker by a success, and while it refuses every call, all that
// most calls do to it is to be counted: in when it lets them in or refuses them, out when they have succeeded. A lane takes
// these two counts. Everything else takes the lock.
//
// What orders what. A count is a mark, one word, and to be counted is one compare-and-swap of it, which fails once the mark is
// sealed. Whoever takes the lock first seals the marks of every lane (but for those below), then reads the clock and adds what
// they hold to the machine; who frees it either opens them at zero or, when their period is over, leaves them sealed for ever.
// Hence:
//
//   - Between the last seal and the first opening nothing is counted, and the machine is all there is. What is done under the
//     lock takes effect in that stretch, at one instant.
//   - A call that passes takes effect at its swap: before whoever seals that mark next, and after whoever opened it. One that
//     finds the mark sealed waits until it is opened, or for the lock, so it comes after the one who holds that.
//   - Calls that pass between two holders of the lock could have taken it in any order, with the same result: none of them is
//     slow, each reads that the machine has nothing to do before (look), and no number of successes lets a rate reach its
//     threshold (calm). Thus their number is all that the machine must learn.
//   - The fence holds by itself: a period ends under the lock, its lanes are never opened again, and no other lane leads
//     into it.
//
// Who takes the lock to end a call by which nothing can open (opensNothing), such as one failure among many successes, seals
// nothing: all that must be known of those who pass is how many have succeeded before. One mark after the other is read
// (passed). Between two seals each only grows, by one at a time, so at some instant from the first reading to the last they
// held in all what was read. At that instant such a call ends. Its clock, read before, is not at look yet, so nothing was due.
//
// A call that is held up between reading the clock and its swap counts as what it then finds: of the time it has read, in the
// period that it enters. A lane's two marks are counted in one by one, but nobody reads the machine before both are sealed and
// added up, so nobody sees a call that has ended and never began.
type lane struct {
	period   uint64
	state    State         // what calls meet
	refusal  *OpenError    // what they get; nil when they pass
	how      passage       // through, or rejected
	timed    bool          // whether it matters when they come
	measured bool          // whether their durations count
	slow     time.Duration // one that lasted longer is for the machine
	base     time.Duration // what the instants in its marks are counted from; zero unless timed
	stripes  []stripe

	// look is from when on the machine has something to do before the next call: a deadline, a bucket to change, a sixteenth
	// of SlowCallDuration to begin. Zero makes the next call look.
	look    atomic.Int64
	crowded atomic.Bool // two calls met at one mark

	// Guarded by the breaker's lock.
	unsealed bool
	entered  int // successes in its marks that the machine has already
	*group
}

// group is what the machine knows of the calls in a lane. Where durations count, a lane is for calls that started within the
// same sixteenth of SlowCallDuration; so hung calls are noticed without a timer and without a list of every call, at most that
// much late, since they turn slow with the last of them, and never early.
type group struct {
	grouped bool          // it may turn slow
	number  int64         // of the sixteenth
	last    time.Duration // the last start
	calls   int           // in flight
	turned  bool          // they have turned slow
	shut    bool          // by other settings: none may pass here any more
	since   instant       // from when their durations count; where none was measured when they started
}

// passage is how far a call came without the lock.
type passage uint8

const (
	byLock  passage = iota // it is for the machine
	waiting                // the mark is sealed, for as long as somebody has the lock
	through
	rejected
)

// way is how a call came in, as far as it needs that to leave by it.
type way struct {
	lane   *lane
	stripe *stripe
	start  time.Duration
}

// enter lets a call in without the lock, or refuses it: then it gets the refusal of the lane.
func (b *Breaker) enter() (w way, how passage) {
	yieldAt("load lane")
	l := b.lane.Load()
	if l == nil {
		return w, byLock
	}
	w.lane = l
	if !l.timed {
		yieldAt("load look")
		if l.look.Load() <= 0 {
			return w, byLock
		}
		if w.stripe = l.stripe(); !w.stripe.in.add(0) && !l.count(&w.stripe.in, 0) {
			return w, waiting
		}
		return w, l.how
	}
	w.start = b.now()
	yieldAt("load look")
	if int64(w.start) >= l.look.Load() {
		return w, byLock
	}
	w.stripe = l.stripe()
	if at := w.start - l.base; !w.stripe.in.add(at) && !l.count(&w.stripe.in, at) {
		return w, waiting
	}
	return w, l.how
}

// passing returns the state, if that needs no lock.
func (b *Breaker) passing() (s State, known bool) {
	l := b.lane.Load()
	if l == nil {
		return s, false
	}
	var now time.Duration
	if l.timed {
		now = b.now()
	}
	return l.state, int64(now) < l.look.Load()
}

// leave ends a call, which has succeeded, without the lock.
func (b *Breaker) leave(w way) passage {
	l := w.lane
	if !l.timed { // nothing falls due there
		if !w.stripe.out.add(0) && !l.count(&w.stripe.out, 0) {
			return waiting
		}
		return through
	}
	now := b.now()
	if now-w.start > l.slow {
		return byLock
	}
	yieldAt("load look")
	if int64(now) >= l.look.Load() {
		return byLock
	}
	if at := now - l.base; !w.stripe.out.add(at) && !l.count(&w.stripe.out, at) {
		return waiting
	}
	if h := b.durations; h != nil {
		h.observe(now - w.start)
	}
	return through
}

// sealLanes stops the counting.
func (m *machine) sealLanes() {
	for _, l := range m.lanes {
		if l.unsealed {
			l.seal()
		}
	}
}

func (l *lane) seal() {
	for i := range l.stripes {
		s := &l.stripes[i]
		yieldAt("seal in")
		s.in.Or(markSealed)
		yieldAt("seal out")
		s.out.Or(markSealed)
	}
}

// open lets calls be counted until look, or as long as instants go: those that leave, and those that come if it is the lane
// of such. Else one that was held up since it found this lane would join calls that started long before.
func (l *lane) open(look time.Duration, current bool) {
	l.unsealed, l.entered = true, 0
	l.look.Store(int64(min(look, l.end())))
	in := uint64(markSealed)
	if current {
		in = 0
	}
	for i := range l.stripes {
		s := &l.stripes[i]
		yieldAt("open in")
		s.in.Store(in)
		yieldAt("open out")
		s.out.Store(0)
	}
}

// end is from when on no instant has room in a mark.
func (l *lane) end() time.Duration {
	if !l.timed {
		return never
	}
	return l.base + instants
}

// take adds what w, which is sealed, has counted since it was opened to n and to the latest instant.
func (l *lane) take(w *mark, n *int, latest *time.Duration) {
	held := w.Load()
	counted := int(held & (markSealed - 1))
	if counted == 0 {
		return
	}
	*n += counted
	*latest = max(*latest, l.base+time.Duration(held>>markBits))
}

// collect takes over what the lanes, which are sealed, have counted since they were opened. It happened before whatever falls
// due now: nobody passes a lane from then on.
func (m *machine) collect(now time.Duration) {
	now = max(now, m.now)
	for _, l := range m.lanes {
		if !l.unsealed {
			continue
		}
		l.unsealed = false
		in, out, started, ended := 0, 0, time.Duration(0), time.Duration(0)
		for i := range l.stripes {
			l.take(&l.stripes[i].in, &in, &started)
			l.take(&l.stripes[i].out, &out, &ended)
		}
		if l.refusal != nil {
			m.totals.rejected += int64(in)
			continue
		}
		m.totals.inFlight += in
		l.calls += in
		l.last = max(l.last, min(started, now))
		m.succeeded(l, out, ended, now)
	}
}

// passed takes over the calls that have left the lanes, which stay open. Those that came in are not counted by it, so until the
// next collect there may be fewer in flight than none.
func (m *machine) passed() {
	for _, l := range m.lanes {
		out, ended := 0, time.Duration(0)
		for i := range l.stripes {
			yieldAt("read out")
			l.take(&l.stripes[i].out, &out, &ended)
		}
		m.succeeded(l, out, ended, m.now)
	}
}

// succeeded enters the calls that have left l since it was opened, the last of them at ended, as is found at now.
func (m *machine) succeeded(l *lane, out int, ended, now time.Duration) {
	n := out - l.entered
	if n == 0 {
		return
	}
	if !l.timed {
		ended = now // nobody has read a clock
	}
	l.entered = out
	l.calls -= n
	m.totals.inFlight -= n
	m.totals.successful += int64(n)
	m.lastSuccess = instant{true, max(ended, m.lastSuccess.at)}
	if m.state != StateClosed {
		return
	}
	m.run = 0
	m.verdicts.add(m.now, n, false)
	if l.measured {
		m.durations.add(m.now, n, false)
	}
}

// openLanes opens the lanes as far as calls may pass, and returns the one for those that arrive: nil if they all need the lock.
func (m *machine) openLanes() *lane {
	if m.hold == nil && (m.ramping || m.state == StateHalfOpen) || !m.calm() {
		return nil
	}
	current := m.lane()
	look := m.look(current)
	for _, l := range m.lanes {
		if !l.shut {
			l.open(look, l == current)
		}
	}
	return current
}

// calm reports whether no number of further successes can make a rate reach its threshold: then none of them needs to ask. A
// success can only lower a rate, but for the one that completes MinimumCalls.
func (m *machine) calm() bool {
	if m.hold != nil || m.state != StateClosed {
		return true // no rule is asked
	}
	return m.below(&m.verdicts, 0, m.cfg.FailureRateThreshold) && (!m.cfg.slowRule() || m.below(&m.durations, 0, m.cfg.SlowCallRateThreshold))
}

// below reports whether a rate stays below its threshold with more marked calls and any number of others.
func (m *machine) below(t *tally, more int, threshold float64) bool {
	entries, marked := t.at(m.now)
	return threshold == Off || float64(marked+more)/float64(max(entries, m.cfg.MinimumCalls)) < threshold
}

// opensNothing reports whether nothing can open by the end of c, nor by successes after it. Calls pass: so those of this period
// are no probes. A success that could not leave its lane has found why the marks must be sealed.
func (m *machine) opensNothing(c *call, e ending) bool {
	if e.Outcome == Success || c.period != m.period || e.OpenFor > 0 || m.slow(c) {
		return false
	}
	return e.Outcome != Failure || (m.cfg.FailureThreshold == Off || m.run+1 < m.cfg.FailureThreshold) &&
		m.below(&m.verdicts, 1, m.cfg.FailureRateThreshold)
}

// look returns from when on calls must not pass l without somebody having looked.
func (m *machine) look(l *lane) time.Duration {
	if !l.timed {
		return never
	}
	look := l.end()
	if d := m.earliest(); d.kind != noDeadline {
		look = min(look, d.at)
	}
	if w := m.verdicts.width; w > 0 {
		look = min(look, (m.now/w+1)*w)
	}
	if l.grouped {
		look = min(look, time.Duration(l.number+1)*m.cfg.sixteenth())
	}
	return look
}

// lane returns the lane of calls that arrive now. It is the newest; older ones stay until the calls in them have ended.
func (m *machine) lane() *lane {
	now := m.newGroup()
	refusal := m.refusing()
	stripes := max(1, m.stripes)
	var same *group // goes on in another lane
	if n := len(m.lanes); n > 0 && !m.lanes[n-1].shut {
		l := m.lanes[n-1]
		if l.crowded.Load() {
			stripes = min(2*len(l.stripes), maxStripes)
		}
		fits := l.refusal == refusal && l.grouped == now.grouped && len(l.stripes) == stripes && m.now < l.end()-instants/2
		switch {
		case fits && l.number == now.number:
			return l
		case fits && l.calls == 0:
			*l.group = now
			m.lanes = slices.DeleteFunc(m.lanes, func(other *lane) bool { return other != l && other.calls == 0 })
			return l
		case l.grouped && now.grouped && l.number == now.number:
			same = l.group
		}
	}
	m.stripes = stripes
	m.lanes = slices.DeleteFunc(m.lanes, func(l *lane) bool { return l.calls == 0 && l.group != same })
	if same == nil {
		same = new(now)
	}
	l := m.newLane(refusal, stripes)
	l.group = same
	m.lanes = append(m.lanes, l)
	return l
}

// newLane is one that nobody can pass until it is opened.
func (m *machine) newLane(refusal *OpenError, stripes int) *lane {
	l := &lane{
		period: m.period, state: m.shown(), refusal: refusal, how: through, slow: never, stripes: make([]stripe, stripes),
		timed: refusal == nil && (m.cfg.measuresSlow() || m.cfg.WindowDuration > 0 || m.timesAll) || m.earliest().kind != noDeadline,
	}
	if refusal != nil {
		l.how = rejected
	}
	if m.cfg.measuresSlow() {
		l.measured, l.slow = true, m.cfg.SlowCallDuration
	}
	if l.timed {
		l.base = m.now
	}
	for i := range l.stripes {
		l.stripes[i].in.Store(markSealed)
		l.stripes[i].out.Store(markSealed)
	}
	return l
}

// newGroup is one for calls that start now.
func (m *machine) newGroup() group {
	g := group{last: m.now}
	if m.state == StateClosed && m.cfg.measuresSlow() && m.shown() != StateForcedOpen {
		g.grouped, g.number = true, int64(m.now/m.cfg.sixteenth())
	}
	return g
}

// refusing returns what every call gets now, nil when that depends on the call.
func (m *machine) refusing() *OpenError {
	if s := m.shown(); s != StateOpen && s != StateForcedOpen {
		return nil
	}
	return m.currentRefusal()
}

// shutLanes lets nobody pass where calls have passed by other settings, or under the hold while it tracked another state:
// then none of them can turn slow any more. Those in flight whose start nobody knows count as if they started now.
func (m *machine) shutLanes(grouped bool) {
	for _, l := range m.lanes {
		l.shut = true
		l.grouped = l.grouped && grouped
		if m.cfg.measuresSlow() {
			l.since.first(m.now)
		}
	}
}

// hung returns the lane whose calls turn slow next, nil if there is none.
func (m *machine) hung() *lane {
	if m.cfg.measuresSlow() {
		for _, l := range m.lanes {
			if l.grouped && l.calls > 0 {
				return l
			}
		}
	}
	return nil
}

// turn enters the calls of a lane as slow.
func (m *machine) turn(l *lane) {
	m.durations.add(m.now, l.calls, true)
	l.turned = true
	m.lanes = slices.DeleteFunc(m.lanes, func(other *lane) bool { return other.group == l.group })
}
