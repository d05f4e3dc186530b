package alert

import (
	"time"

	"github.com/failfast-go/breaker"
)

// maxIncidents bounds what is remembered, by as many breakers as a registry has by default.
const maxIncidents = 10_000

// checkEvery is how often an incident that goes on is looked at: whether its breaker is still there, and whether a recovery was
// missed. PagerDuty is told again then. Five minutes is what a wrong "resolved" may last; more often says nothing new.
const checkEvery = 5 * time.Minute

// subject is what an incident is about.
type subject struct {
	registry *breaker.Registry
	name     string
}

// incident is one trouble of one breaker: from an opening until a recovery that has lasted.
type incident struct {
	subject
	breaker  *breaker.Breaker
	since    time.Time // its first opening
	openings int
	trip     *breaker.Trip             // of the last opening; never nil
	risk     breaker.Risk              // at the last opening
	severity breaker.RiskLevel         // the highest so far
	refused  int                       // the breaker's count at the first opening
	told     map[int]breaker.RiskLevel // by channel: the severity it was told
	closedAt time.Time                 // zero while not closed
	checkAt  time.Time                 // the next look; zero while closed
}

// notice is a message to be sent to one channel.
type notice struct {
	channel  int
	event    string
	severity breaker.RiskLevel
	repeated bool
	about    *incident
}

// tracker makes messages of what happens to breakers. It has no clock and no lock.
type tracker struct {
	quiet     time.Duration
	takes     []levels // by channel
	open      map[subject]*incident
	untracked uint64
	wakeAt    time.Time // nothing is due before; zero when nothing will be
}

// opening is one or more openings of a breaker, as they are seen together.
type opening struct {
	breaker *breaker.Breaker
	at      time.Time // of the first one
	count   int
	trip    *breaker.Trip // of the last one
	risk    breaker.Risk
	refused int // calls so far
}

// opened begins an incident or goes on with one, and returns who must be told.
func (t *tracker) opened(now time.Time, s subject, o opening) []notice {
	in := t.open[s]
	if in == nil {
		if len(t.open) >= maxIncidents {
			t.untracked++
			return nil
		}
		in = &incident{subject: s, since: o.at, refused: o.refused, told: map[int]breaker.RiskLevel{}}
		t.open[s] = in
	}
	in.breaker, in.trip, in.risk = o.breaker, o.trip, o.risk
	in.openings += o.count
	in.severity = max(in.severity, o.risk.Level, breaker.RiskHigh)
	in.closedAt = time.Time{}
	in.checkAt = now.Add(checkEvery)
	t.wakeBy(in.checkAt)
	return t.tell(in)
}

// tell makes a message for each channel that has not heard of in and takes its severity.
func (t *tracker) tell(in *incident) (all []notice) {
	for i, takes := range t.takes {
		if _, heard := in.told[i]; heard || !takes.has(in.severity) {
			continue
		}
		in.told[i] = in.severity
		all = append(all, notice{channel: i, event: eventOpened, severity: in.severity, about: in})
	}
	return all
}

// notTold takes back that a channel was told: its queue was full. The next opening tries again.
func (t *tracker) notTold(n notice) { delete(n.about.told, n.channel) }

// closed notes that a breaker has closed: its incident is over once that has lasted.
func (t *tracker) closed(s subject, at time.Time) {
	if in := t.open[s]; in != nil && in.closedAt.IsZero() {
		in.closedAt = at
		in.checkAt = time.Time{}
		t.wakeBy(at.Add(t.quiet))
	}
}

// gone ends an incident at once: nobody can see its breaker any more.
func (t *tracker) gone(s subject, at time.Time) []notice {
	in := t.open[s]
	if in == nil {
		return nil
	}
	if in.closedAt.IsZero() {
		in.closedAt = at
	}
	return t.end(in)
}

// end forgets an incident and tells those who know of it.
func (t *tracker) end(in *incident) (all []notice) {
	delete(t.open, in.subject)
	for i := range t.takes {
		if was, heard := in.told[i]; heard {
			all = append(all, notice{channel: i, event: eventRecovered, severity: was, about: in})
		}
	}
	return all
}

// recovered ends the incidents whose breakers have been closed for long enough, or just closed if last is set, since nobody will
// look again.
func (t *tracker) recovered(now time.Time, last bool) (all []notice) {
	for _, in := range t.open {
		if !in.closedAt.IsZero() && (last || now.Sub(in.closedAt) >= t.quiet) {
			all = append(all, t.end(in)...)
		}
	}
	return all
}

// unchecked returns the incidents that must be looked at now, and plans the next look.
func (t *tracker) unchecked(now time.Time) (all []*incident) {
	for _, in := range t.open {
		if !in.checkAt.IsZero() && !now.Before(in.checkAt) {
			in.checkAt = now.Add(checkEvery)
			all = append(all, in)
		}
	}
	return all
}

// repeat tells the channels again that know of in.
func (t *tracker) repeat(in *incident) (all []notice) {
	for i := range t.takes {
		if was, heard := in.told[i]; heard {
			all = append(all, notice{channel: i, event: eventOpened, severity: was, repeated: true, about: in})
		}
	}
	return all
}

// due reports whether there may be something to do.
func (t *tracker) due(now time.Time) bool { return !t.wakeAt.IsZero() && !now.Before(t.wakeAt) }

// plan looks for what is due next.
func (t *tracker) plan() {
	t.wakeAt = time.Time{}
	for _, in := range t.open {
		if in.closedAt.IsZero() {
			t.wakeBy(in.checkAt)
		} else {
			t.wakeBy(in.closedAt.Add(t.quiet))
		}
	}
}

func (t *tracker) wakeBy(at time.Time) {
	if t.wakeAt.IsZero() || at.Before(t.wakeAt) {
		t.wakeAt = at
	}
}
