package demo

import (
	"fmt"
	"time"
)

// limit is how long the whole demo may take.
const limit = 60 * time.Second

// Check returns every promise that r breaks, as sentences; none when all of them hold.
func (r Report) Check() []string {
	var broken []string
	for _, a := range r.Acts {
		broken = append(broken, a.checkAnswered()...)
		if a.Ill != "" {
			broken = append(broken, r.checkSpared(a)...)
			broken = append(broken, r.checkRecovery(a)...)
		}
	}
	broken = append(broken, r.checkCache()...)
	if r.Took > limit {
		broken = append(broken, fmt.Sprintf("it took %v, more than %v", r.Took.Round(time.Second), limit))
	}
	return broken
}

// checkAnswered: every request is answered, whatever is ill.
func (a Act) checkAnswered() []string {
	if len(a.Requests) == 0 {
		return []string{fmt.Sprintf("%s: no request was sent", a.Name)}
	}
	var broken []string
	for _, q := range a.Requests {
		if !q.answered() {
			broken = append(broken, fmt.Sprintf("%s: %q was not answered: status %d %s", a.Name, q.Question, q.Status, q.Err))
		}
	}
	return broken
}

// checkSpared: once the breaker has opened, at most one probe round per open period reaches the ill upstream.
func (r Report) checkSpared(a Act) []string {
	openings := r.changes(a.Ill, true, a.Begin, a.End)
	reached := a.Reached[a.Ill]
	if len(openings) == 0 {
		return []string{fmt.Sprintf("%s: the breaker %q did not open, and %d calls reached the ill upstream", a.Name, a.Ill, len(reached))}
	}
	var broken []string
	for i, opened := range openings {
		until := a.End
		if i+1 < len(openings) {
			until = openings[i+1]
		}
		if n := between(reached, opened.Add(r.Promises[a.Ill].Arrival), until); n > r.Promises[a.Ill].ProbeRound {
			broken = append(broken, fmt.Sprintf("%s: %d calls reached the ill upstream in one open period of %q, more than the %d of a probe round",
				a.Name, n, a.Ill, r.Promises[a.Ill].ProbeRound))
		}
	}
	return broken
}

// checkRecovery: the breaker closes within one open period, and its probes, of the upstream's recovery.
func (r Report) checkRecovery(a Act) []string {
	within := r.Promises[a.Ill].Recovery
	if len(r.changes(a.Ill, true, a.Begin, a.End)) == 0 {
		return nil // there is nothing to recover from; checkSpared has said so
	}
	if len(r.changes(a.Ill, false, a.End, a.End.Add(within))) == 0 {
		return []string{fmt.Sprintf("%s: the breaker %q did not close within %v of the upstream's recovery", a.Name, a.Ill, within)}
	}
	return nil
}

// checkCache: what is cached, and what came out of the cache, is what the primary said with its sources at hand.
func (r Report) checkCache() []string {
	whole := make(map[string]bool)
	for _, a := range r.Acts {
		for _, q := range a.Requests {
			if q.Reply.Source == "primary" && !q.Reply.Degraded {
				whole[q.Reply.Response] = true
			}
		}
	}
	var broken []string
	for _, c := range r.Cached {
		if c.Blind || !whole[c.Text] {
			broken = append(broken, fmt.Sprintf("a degraded answer was cached: %.60q", c.Text))
		}
	}
	for _, a := range r.Acts {
		for _, q := range a.Requests {
			if q.Reply.Source == "cache" && !whole[q.Reply.Response] {
				broken = append(broken, fmt.Sprintf("%s: a degraded answer came from the cache: %.60q", a.Name, q.Reply.Response))
			}
		}
	}
	return broken
}

// changes returns when the breaker opened, or closed, in the given time.
func (r Report) changes(name string, opened bool, from, to time.Time) []time.Time {
	var at []time.Time
	for _, c := range r.Changes {
		if c.Breaker == name && c.Opened == opened && !c.At.Before(from) && !c.At.After(to) {
			at = append(at, c.At)
		}
	}
	return at
}

func between(times []time.Time, from, to time.Time) int {
	n := 0
	for _, t := range times {
		if !t.Before(from) && t.Before(to) {
			n++
		}
	}
	return n
}
