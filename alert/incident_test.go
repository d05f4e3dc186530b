package alert

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

var t0 = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// a step is something that happens a while after t0, and which messages that makes: channel, event, severity.
type step struct {
	at    time.Duration
	do    string // opens, opens critical, closes, gone, time, last
	wants string
}

// Channel 0 takes all, 1 only critical, 2 high and critical.
func trackerFor3() *tracker {
	high, critical := levels(1<<breaker.RiskHigh), levels(1<<breaker.RiskCritical)
	return &tracker{quiet: time.Minute, takes: []levels{allLevels, critical, high | critical}, open: map[subject]*incident{}}
}

func (t *tracker) play(name string, s step) (all []notice) {
	now := t0.Add(s.at)
	about := subject{name: name}
	switch s.do {
	case "opens low":
		return t.opened(now, about, opening{at: now, count: 1})
	case "opens":
		return t.opened(now, about, opening{at: now, count: 1, risk: breaker.Risk{Level: breaker.RiskHigh}})
	case "opens critical":
		return t.opened(now, about, opening{at: now, count: 1, risk: breaker.Risk{Level: breaker.RiskCritical}})
	case "closes":
		t.closed(about, now)
	case "gone":
		return t.gone(about, now)
	case "last":
		return t.recovered(now, true)
	case "time":
		if !t.due(now) {
			return nil
		}
		for _, in := range t.unchecked(now) {
			all = append(all, t.repeat(in)...)
		}
		all = append(all, t.recovered(now, false)...)
		t.plan()
	}
	return all
}

func describe(all []notice) string {
	var words []string
	for _, n := range all {
		event := n.event
		if n.repeated {
			event = "again"
		}
		words = append(words, fmt.Sprintf("%d %s %s", n.channel, event, n.severity))
	}
	return strings.Join(words, ", ")
}

func TestAnIncidentLastsFromItsFirstOpeningToARecoveryThatHolds(t *testing.T) {
	const s, m = time.Second, time.Minute
	for name, steps := range map[string][]step{
		"it opens and recovers": {
			{0, "opens", "0 opened high, 2 opened high"}, {30 * s, "closes", ""}, {90*s - 1, "time", ""},
			{90 * s, "time", "0 recovered high, 2 recovered high"}, {3 * m, "time", ""},
		},
		"it opens again before the recovery has lasted": {
			{0, "opens", "0 opened high, 2 opened high"}, {30 * s, "closes", ""}, {80 * s, "opens", ""}, {90 * s, "time", ""},
			{100 * s, "closes", ""}, {159 * s, "time", ""}, {160 * s, "time", "0 recovered high, 2 recovered high"},
		},
		"it opens again after the recovery has lasted": {
			{0, "opens", "0 opened high, 2 opened high"}, {30 * s, "closes", ""}, {90 * s, "time", "0 recovered high, 2 recovered high"},
			{91 * s, "opens", "0 opened high, 2 opened high"},
		},
		"it becomes critical": {
			{0, "opens", "0 opened high, 2 opened high"}, {30 * s, "opens critical", "1 opened critical"}, {60 * s, "opens", ""},
			{61 * s, "closes", ""}, {121 * s, "time", "0 recovered high, 1 recovered critical, 2 recovered high"},
		},
		"an opening is high at least": {{0, "opens low", "0 opened high, 2 opened high"}},
		"a second recovery does not prolong the first": {
			{0, "opens", "0 opened high, 2 opened high"}, {10 * s, "closes", ""}, {50 * s, "closes", ""}, {70 * s, "time", "0 recovered high, 2 recovered high"},
		},
		"it goes on": {
			{0, "opens critical", "0 opened critical, 1 opened critical, 2 opened critical"}, {5*m - 1, "time", ""},
			{5 * m, "time", "0 again critical, 1 again critical, 2 again critical"}, {6 * m, "time", ""},
			{10 * m, "time", "0 again critical, 1 again critical, 2 again critical"},
		},
		"its breaker vanishes":                {{0, "opens", "0 opened high, 2 opened high"}, {30 * s, "gone", "0 recovered high, 2 recovered high"}, {3 * m, "time", ""}},
		"a breaker without incident vanishes": {{0, "gone", ""}},
		"a breaker without incident closes":   {{0, "closes", ""}, {5 * m, "time", ""}},
		"the end comes while it is closed":    {{0, "opens", "0 opened high, 2 opened high"}, {1, "closes", ""}, {2, "last", "0 recovered high, 2 recovered high"}},
		"the end comes while it is open":      {{0, "opens", "0 opened high, 2 opened high"}, {2, "last", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := trackerFor3()
			for i, s := range steps {
				require.Equal(t, s.wants, describe(tr.play("x", s)), "step %d: after %v it %s", i, s.at, s.do)
			}
		})
	}
}

func TestAnIncidentStaysAsSevereAsItWas(t *testing.T) {
	onlyHigh := &tracker{quiet: time.Minute, takes: []levels{1 << breaker.RiskHigh}, open: map[subject]*incident{}}
	require.Empty(t, onlyHigh.play("x", step{do: "opens critical"}))
	require.Empty(t, onlyHigh.play("x", step{do: "opens"}), "an opening later it is no less critical")
}

func TestAThousandOpeningsOfOneIncidentAreCounted(t *testing.T) {
	tr := trackerFor3()
	var all []notice
	for i := range 1000 {
		at := time.Duration(i) * 60 * time.Millisecond
		all = append(all, tr.play("x", step{at: at, do: "opens"})...)
		all = append(all, tr.play("x", step{at: at + time.Millisecond, do: "closes"})...)
		all = append(all, tr.play("x", step{at: at + time.Millisecond, do: "time"})...)
	}
	require.Equal(t, "0 opened high, 2 opened high", describe(all))
	require.Equal(t, 1000, all[0].about.openings)
	require.Equal(t, t0, all[0].about.since)
}

func TestAMessageThatFoundNoPlaceIsTriedAtTheNextOpening(t *testing.T) {
	tr := trackerFor3()
	all := tr.play("x", step{do: "opens"})
	tr.notTold(all[1])
	require.Equal(t, "2 opened high", describe(tr.play("x", step{do: "opens"})))
	tr.notTold(all[0])
	tr.play("x", step{do: "closes"})
	require.Equal(t, "2 recovered high", describe(tr.play("x", step{at: time.Minute, do: "time"})), "who does not know of it is not told that it is over")
}

func TestIncidentsAreBounded(t *testing.T) {
	tr := trackerFor3()
	for i := range maxIncidents {
		tr.play(fmt.Sprint(i), step{do: "opens"})
	}
	require.Empty(t, tr.play("one more", step{do: "opens"}))
	require.EqualValues(t, 1, tr.untracked)
	require.Len(t, tr.open, maxIncidents)
	tr.play("5", step{do: "gone"})
	require.NotEmpty(t, tr.play("one more", step{do: "opens"}))
}

func TestNothingIsPlannedWhileNothingIsWrong(t *testing.T) {
	tr := trackerFor3()
	require.False(t, tr.due(t0.Add(1000*time.Hour)))
	tr.play("x", step{do: "opens"})
	require.Equal(t, t0.Add(5*time.Minute), tr.wakeAt)
	tr.play("x", step{do: "closes"})
	require.Equal(t, t0.Add(time.Minute), tr.wakeAt)
	tr.play("x", step{at: time.Minute, do: "time"})
	require.True(t, tr.wakeAt.IsZero())
}
