package alert

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/failfast-go/breaker"
)

// What a message is about: Alert.Event.
const (
	eventOpened    = "opened"
	eventRecovered = "recovered"
	eventTest      = "test"
)

// Alert is one message. As JSON it is what a webhook receives.
type Alert struct {
	Version  int               `json:"version"`   // of this form: 1
	ID       string            `json:"id"`        // of this message, the same at each attempt to send it
	Event    string            `json:"event"`     // "opened", "recovered" or "test"
	DedupKey string            `json:"dedup_key"` // of service and breaker: the same when it opens and when it recovers
	Severity breaker.RiskLevel `json:"severity"`  // "low" to "critical"; a recovery has that of the opening

	Service  string `json:"service"`
	Instance string `json:"instance"` // the host
	Breaker  string `json:"breaker"`

	Since       time.Time     `json:"since"`                 // the incident's first opening
	RecoveredAt time.Time     `json:"recovered_at,omitzero"` // when it closed for good
	Openings    int           `json:"openings"`              // since then, the first included
	Refused     int           `json:"refused"`               // calls refused since then
	Why         string        `json:"why"`                   // the last opening's trip, in words
	Trip        *breaker.Trip `json:"trip,omitempty"`        // the same in numbers, with the commonest errors
	NextProbe   time.Time     `json:"next_probe,omitzero"`   // from when on a call is admitted again, while it is open
	Link        string        `json:"link,omitempty"`        // to the live page, if WithPage says where that is

	Risk   breaker.Risk   `json:"risk"`   // at the last opening
	Status breaker.Status `json:"status"` // as the message was written
}

// compose writes the message of a notice.
func (w *watcher) compose(now time.Time, n notice) Alert {
	in := n.about
	a := w.alerter.blank(n.event, in.name)
	a.Severity, a.Since, a.Openings, a.Risk = n.severity, in.since, in.openings, in.risk
	a.Trip, a.Why = in.trip, in.trip.String()
	a.Status = in.breaker.Status()
	a.Refused = max(0, a.Status.Metrics.RejectedCalls-in.refused) // a new breaker of that name counts from 0
	if n.event == eventRecovered {
		a.RecoveredAt = in.closedAt
	} else if s := a.Status; s.State == breaker.StateOpen && s.RetryAfterSeconds != nil {
		a.NextProbe = now.Add(time.Duration(*s.RetryAfterSeconds * float64(time.Second)))
	}
	return a
}

func (o *options) blank(event, name string) Alert {
	return Alert{Version: 1, ID: rand.Text(), Event: event, DedupKey: dedupKey(o.service, name), Service: o.service, Instance: o.instance,
		Breaker: name, Link: o.page, Risk: breaker.Risk{Reasons: []string{}}}
}

// title says it in one line.
func (a *Alert) title() string {
	switch a.Event {
	case eventTest:
		return "Test alert of " + a.Service
	case eventRecovered:
		return a.Breaker + " has recovered after " + roughly(a.RecoveredAt.Sub(a.Since))
	}
	return a.Breaker + " is " + strings.ReplaceAll(a.now(), "_", "-")
}

// now is the state to show. When the breaker has moved on between its opening and this message, what matters is that it opened.
func (a *Alert) now() string {
	if a.Status.State == breaker.StateClosed {
		return breaker.StateOpen.String()
	}
	return a.Status.State.String()
}

// fact is one line of a message.
type fact struct {
	label string
	text  string
	at    time.Time // in place of text
}

// facts are the lines of a message, what matters most first.
func (a *Alert) facts() (all []fact) {
	add := func(label, format string, args ...any) {
		all = append(all, fact{label: label, text: fmt.Sprintf(format, args...)})
	}
	if a.Event == eventTest {
		add("What", "A test. Nothing is wrong, and nothing needs to be done.")
		add("Service", "%s on %s", a.Service, a.Instance)
		return all
	}
	all = append(all, fact{label: "Since", at: a.Since})
	if a.Event == eventRecovered {
		all = append(all, fact{label: "Recovered", at: a.RecoveredAt})
	}
	add("Why", "%s", a.Why)
	if a.Openings > 1 {
		add("Openings", "%d since then", a.Openings)
	}
	add("Refused", "%d calls since then", a.Refused)
	add("Numbers", "%s", a.numbers())
	if a.Event == eventOpened {
		a.addNextProbe(&all)
		add("Risk", "%s, %d of 100: %s", a.Risk.Level, a.Risk.Score, strings.Join(a.Risk.Reasons, "; "))
	}
	add("Service", "%s on %s", a.Service, a.Instance)
	return all
}

func (a *Alert) addNextProbe(to *[]fact) {
	switch {
	case !a.NextProbe.IsZero():
		*to = append(*to, fact{label: "Next probe", at: a.NextProbe})
	case a.Status.State == breaker.StateHalfOpen:
		*to = append(*to, fact{label: "Next probe", text: "with the next call"})
	}
}

// numbers are those of the last opening, which say more than those of a window that stands still.
func (a *Alert) numbers() string {
	var parts []string
	if t := a.Trip; t != nil {
		parts = append(parts, fmt.Sprintf("%d of %d calls failed", t.Failures, t.Calls))
		if t.SlowCalls > 0 {
			parts = append(parts, fmt.Sprintf("%d slow", t.SlowCalls))
		}
	}
	m := a.Status.Metrics
	parts = append(parts, fmt.Sprintf("%d in flight", m.InFlight), fmt.Sprintf("%d refused in all", m.RejectedCalls))
	return strings.Join(parts, ", ")
}

// errorLines are the commonest errors behind the last opening.
func (a *Alert) errorLines() (lines []string) {
	if a.Trip == nil || a.Event == eventRecovered {
		return nil
	}
	for _, e := range a.Trip.Errors {
		lines = append(lines, fmt.Sprintf("%d× %s", e.Count, e.Text))
	}
	return lines
}

// show writes a fact for a reader without a time zone.
func (f fact) show() string {
	if f.at.IsZero() {
		return f.text
	}
	return f.at.UTC().Format("2006-01-02 15:04:05 UTC")
}

// roughly rounds a duration to what a reader wants to know.
func roughly(d time.Duration) string {
	unit := time.Second
	if d < time.Second {
		unit = time.Millisecond
	}
	return d.Round(unit).String()
}
