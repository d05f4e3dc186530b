package alert

import (
	"sync"
	"time"

	"github.com/failfast-go/breaker"
)

// mailbox takes events from the goroutines of calls, without ever keeping one waiting, and holds them until the watcher has time.
// What happens to one breaker meanwhile is one entry, so it is bounded by the number of breakers.
type mailbox struct {
	ready chan struct{} // holds one token while there may be news

	mu   sync.Mutex // guards the fields below
	news map[subject]*news
	lost uint64 // openings without a place
}

// news is what happened to a breaker since the watcher last looked.
type news struct {
	breaker  *breaker.Breaker
	openings int
	openedAt time.Time     // the first opening
	trip     *breaker.Trip // of the last
	closedAt time.Time     // zero when it opened after it closed
}

// put notes an event. Half-open says nothing new, and holds are an operator's business.
func (m *mailbox) put(s subject, e breaker.Event) {
	if e.To != breaker.StateOpen && e.To != breaker.StateClosed {
		return
	}
	m.mu.Lock()
	m.noteLocked(s, e)
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

func (m *mailbox) noteLocked(s subject, e breaker.Event) {
	n := m.news[s]
	if n == nil {
		if len(m.news) >= maxIncidents {
			m.lost++
			return
		}
		if m.news == nil {
			m.news = map[subject]*news{}
		}
		n = &news{}
		m.news[s] = n
	}
	n.breaker = e.Breaker
	if e.To == breaker.StateClosed {
		n.closedAt = e.At
		return
	}
	if n.openings == 0 {
		n.openedAt = e.At
	}
	n.openings++
	n.trip, n.closedAt = e.Trip, time.Time{}
}

func (m *mailbox) take() map[subject]*news {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.news
	m.news = nil
	return all
}

func (m *mailbox) lostCount() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lost
}

// watch runs until Close. It does no I/O and asks breakers for nothing but their Status.
func (a *Alerter) watch() {
	w := &watcher{alerter: a, tracker: tracker{quiet: a.quiet, open: map[subject]*incident{}}}
	for _, c := range a.channels {
		w.takes = append(w.takes, c.takes)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		w.look(time.Now(), false)
		timer.Stop()
		if !w.wakeAt.IsZero() {
			timer.Reset(time.Until(w.wakeAt))
		}
		select {
		case <-a.mailbox.ready:
		case <-timer.C:
		case <-a.stopWatcher:
			w.look(time.Now(), true)
			return
		}
	}
}

// watcher is the goroutine between the breakers and the channels.
type watcher struct {
	alerter *Alerter
	tracker
}

// look takes the news and does what is due; with last it is the end of watching.
func (w *watcher) look(now time.Time, last bool) {
	for s, n := range w.alerter.mailbox.take() {
		w.heed(now, s, n)
	}
	if w.due(now) || last {
		for _, in := range w.unchecked(now) {
			w.check(now, in)
		}
		w.send(now, w.recovered(now, last))
		w.plan()
	}
	w.alerter.mu.Lock()
	defer w.alerter.mu.Unlock()
	w.alerter.incidents, w.alerter.untracked = len(w.open), w.untracked
}

// heed turns news into messages. A breaker that its registry does not hold is nobody's: it is on no page and in no metric.
func (w *watcher) heed(now time.Time, s subject, n *news) {
	if b, ok := s.registry.Lookup(s.name); !ok || b != n.breaker {
		return
	}
	if n.openings > 0 {
		status := n.breaker.Status()
		w.send(now, w.opened(now, s, opening{breaker: n.breaker, at: n.openedAt, count: n.openings, trip: n.trip,
			risk: breaker.Assess(status, w.alerter.thresholds), refused: status.Metrics.RejectedCalls}))
	}
	if !n.closedAt.IsZero() {
		w.closed(s, n.closedAt)
	}
}

// check looks after an incident that has gone on for a while.
func (w *watcher) check(now time.Time, in *incident) {
	b, ok := in.registry.Lookup(in.name)
	if !ok {
		w.send(now, w.gone(in.subject, now))
		return
	}
	in.breaker = b
	switch s := b.Status(); {
	case s.State == breaker.StateClosed:
		w.closed(in.subject, now) // its event was dropped, or it is a new breaker of that name
	case s.Hold == nil: // who holds it knows, and may have resolved it by hand
		w.send(now, w.repeat(in))
	}
}

// send hands messages to the channels' queues.
func (w *watcher) send(now time.Time, all []notice) {
	for _, n := range all {
		c := w.alerter.channels[n.channel]
		if n.repeated && !c.repeats {
			continue
		}
		if !c.offer(&delivery{alert: w.compose(now, n), queued: now, repeated: n.repeated}) && n.event == eventOpened && !n.repeated {
			w.notTold(n)
		}
	}
}
