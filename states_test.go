package breaker

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// The rows of the README's table: what can happen.
const (
	rowAsk         = "a call asks"
	rowJoin        = "a call inside a probe asks"
	rowSuccess     = "a call succeeds"
	rowFailure     = "a call fails"
	rowIgnored     = "a call is ignored"
	rowCancel      = "a call is cancelled"
	rowOpenFor     = "a call ends with `OpenFor`"
	rowProgress    = "`Progress`"
	rowLate        = "a call of an earlier period ends"
	rowLateOpenFor = "the same with `OpenFor`"
	rowTime        = "time passes"
	rowTrip        = "`Trip`"
	rowReset       = "`Reset`"
	rowForce       = "`ForceOpen`"
	rowDisable     = "`Disable`"
	rowRelease     = "`Release`"
	rowApply       = "`Apply`"
)

var rows = []string{
	rowAsk, rowJoin, rowSuccess, rowFailure, rowIgnored, rowCancel, rowOpenFor, rowProgress, rowLate, rowLateOpenFor, rowTime,
	rowTrip, rowReset, rowForce, rowDisable, rowRelease, rowApply,
}

var states = []State{StateClosed, StateOpen, StateHalfOpen, StateForcedOpen, StateDisabled}

// foundText is what an ask found.
func foundText(m *model, refused *modelRefusal) string {
	switch {
	case refused == nil && m.shown() == StateHalfOpen:
		return "admitted as a probe"
	case refused == nil:
		return "admitted"
	case refused.state == StateClosed:
		return "in a ramp, a share is refused"
	case refused.state == StateHalfOpen:
		return "refused while `HalfOpenMaxCalls` are in flight"
	default:
		return "refused"
	}
}

// stateTable is what can happen in each state, by row, as the explorer has seen it.
type stateTable map[string]map[State]*cell

type cell struct {
	effects []string
	moves   map[State][]string // rules by the state they lead to
}

// add notes an action of the explorer.
func (t stateTable) add(row string, before, after *model, found string) {
	for _, e := range after.events {
		c := t.cell(row, e.from)
		if rule := "`" + e.rule + "`"; !slices.Contains(c.moves[e.to], rule) {
			c.moves[e.to] = append(c.moves[e.to], rule)
		}
	}
	if len(after.events) > 0 {
		return
	}
	if found == "" {
		found = effect(row, before, after)
	}
	if c := t.cell(row, before.shown()); !slices.Contains(c.effects, found) {
		c.effects = append(c.effects, found)
	}
}

func (t stateTable) cell(row string, s State) *cell {
	if t[row] == nil {
		t[row] = map[State]*cell{}
	}
	if t[row][s] == nil {
		t[row][s] = &cell{moves: map[State][]string{}}
	}
	return t[row][s]
}

// effect says what an action did that led to no other state.
func effect(row string, before, after *model) string {
	switch {
	case before.tracked != after.tracked:
		return fmt.Sprintf("below the hold: %v", after.tracked)
	case row == rowApply && before.cfg != after.cfg && before.until == after.until && before.held == after.held && before.run == after.run:
		return "takes effect; state, history and wait are kept"
	case before.tracked == StateOpen && after.until > before.until:
		return "may wait longer"
	case row == rowProgress && before.calls[0].sign < after.calls[0].sign, row == rowProgress && before.calls[0].lasted != after.calls[0].lasted:
		return "a sign of life"
	case row == rowReset && before.period != after.period:
		return "starts afresh"
	case before.successes != after.successes, before.undecided != after.undecided, before.entered != after.entered:
		return "counted"
	case before.ramping && !after.ramping:
		return "a ramp ends"
	case before.totals != after.totals:
		return "in the totals only"
	default:
		return "nothing"
	}
}

// markdown renders the table.
func (t stateTable) markdown() string {
	var b strings.Builder
	b.WriteString("| what happens |")
	for _, s := range states {
		fmt.Fprintf(&b, " %v |", s)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(states)) + "\n")
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |", row)
		for _, s := range states {
			fmt.Fprintf(&b, " %s |", t.cell(row, s).text())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (c *cell) text() string {
	parts := slices.Sorted(slices.Values(c.effects))
	if len(parts)+len(c.moves) > 1 {
		parts = slices.DeleteFunc(parts, func(p string) bool { return p == "nothing" })
	}
	for _, to := range states {
		if rules := c.moves[to]; len(rules) > 0 {
			parts = append(parts, fmt.Sprintf("→ **%v**: %s", to, strings.Join(slices.Sorted(slices.Values(rules)), ", ")))
		}
	}
	if len(parts) == 0 {
		return "–"
	}
	return strings.Join(parts, "; ")
}

// exploredTable walks through two small worlds: one where every rule can trip, and one with several probes.
var exploredTable = sync.OnceValue(func() stateTable {
	every := Config{
		FailureThreshold: 2, FailureRateThreshold: 0.5, SlowCallDuration: tick, SlowCallRateThreshold: 0.5, MinimumCalls: 2, WindowCalls: 2,
		OpenTimeout: tick, MaxOpenTimeout: 2 * tick, OpenTimeoutJitter: Off, HalfOpenMaxCalls: 1, SuccessThreshold: 2,
		ProbeTimeout: 2 * tick, MaxRetryAfter: 3 * tick, RampUp: 2 * tick,
	}
	several := every
	several.SlowCallDuration, several.SlowCallRateThreshold, several.RampUp, several.HalfOpenMaxCalls = 0, 0, 0, 2
	table := stateTable{}
	other := several
	other.OpenTimeout, other.WindowCalls = 2*tick, 3
	(&explorer{configs: []Config{every}, aside: []Config{other}, maxCalls: 1, edge: table.add}).explore()
	(&explorer{configs: []Config{several}, maxCalls: 2, edge: table.add}).explore()
	return table
})

const (
	statesBegin = "<!-- states:begin -->\n"
	statesEnd   = "<!-- states:end -->"
)

func TestReadmeShowsTheStateTable(t *testing.T) {
	want := "\n" + exploredTable().markdown() + "\n"
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(readme), statesBegin)
	got, after, closed := strings.Cut(rest, statesEnd)
	require.True(t, ok && closed, "README.md has no lines %s and %s", statesBegin, statesEnd)
	if *update {
		require.NoError(t, os.WriteFile("README.md", []byte(before+statesBegin+want+statesEnd+after), 0o644))
		return
	}
	require.Equal(t, want, got, "the table is out of date: go test -run %s -update .", t.Name())
}

// TestEveryRuleAndRowOccurs: no transition is missing from the explored states, and none is there that should not be.
func TestEveryRuleAndRowOccurs(t *testing.T) {
	table := exploredTable()
	seen := map[modelEvent]bool{}
	for _, cells := range table {
		for from, c := range cells {
			for to, rules := range c.moves {
				for _, r := range rules {
					seen[modelEvent{from: from, to: to, rule: strings.Trim(r, "`")}] = true
				}
			}
		}
	}
	for _, e := range possible {
		require.True(t, seen[e], "%v -> %v by %s", e.from, e.to, e.rule)
		delete(seen, e)
	}
	require.Empty(t, seen)
	for _, row := range rows {
		for _, s := range states {
			if slices.Contains([]string{rowAsk, rowLate, rowTime, rowTrip, rowReset, rowForce, rowDisable, rowRelease, rowApply}, row) {
				require.NotEqual(t, "–", table.cell(row, s).text(), "%s in %v", row, s)
			}
		}
	}
	t.Logf("\n%s", table.markdown())
}
