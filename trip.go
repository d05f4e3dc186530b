package breaker

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Rule names what changed a breaker's state.
type Rule string

// The rules that open a breaker: those of a [Trip].
const (
	RuleConsecutiveFailures Rule = "consecutive_failures" // Config.FailureThreshold failures in a row
	RuleFailureRate         Rule = "failure_rate"         // failures / calls in the window
	RuleSlowCallRate        Rule = "slow_call_rate"       // slow calls / calls in the window, those in flight included
	RuleProbeFailed         Rule = "probe_failed"         // a probe ended as a failure
	RuleProbeSlow           Rule = "probe_slow"           // a probe outlasted Config.SlowCallDuration
	RuleProbeLost           Rule = "probe_lost"           // a probe without a sign of life for Config.ProbeTimeout
	RuleProbeIgnored        Rule = "probe_ignored"        // Config.HalfOpenMaxCalls probes in a row without a verdict
	RuleRetryAfter          Rule = "retry_after"          // the upstream asked for it, see OpenFor
	RuleManual              Rule = "manual"               // Breaker.Trip
)

// The rules of the other transitions.
const (
	RuleOpenTimeout Rule = "open_timeout" // open to half-open
	RuleRecovered   Rule = "recovered"    // half-open to closed
	RuleReset       Rule = "reset"        // Breaker.Reset
	RuleHold        Rule = "hold"         // Breaker.ForceOpen or Breaker.Disable
	RuleRelease     Rule = "release"      // Breaker.Release
	RuleHoldExpired Rule = "hold_expired" // Hold.For has passed
)

// Trip says why a breaker opened. It is read only.
type Trip struct {
	At   time.Time `json:"at"`
	Rule Rule      `json:"rule"`
	// Observed reached Threshold: failures for consecutive_failures, a fraction for the rates, seconds for probe_slow,
	// probe_lost and retry_after (where Threshold is the most that would be granted), probes for probe_failed and
	// probe_ignored. Both are zero for manual.
	Observed  float64 `json:"observed"`
	Threshold float64 `json:"threshold"`
	// Calls, Failures and SlowCalls are those of the window, or of half-open's probes for the probe rules. Calls counts
	// verdicts, for slow_call_rate durations.
	Calls     int    `json:"calls"`
	Failures  int    `json:"failures"`
	SlowCalls int    `json:"slow_calls"`
	Reason    string `json:"reason,omitempty"` // given to Breaker.Trip
	// Errors are the five commonest texts among the last 128 failures since the breaker closed or began to probe,
	// commonest first. See WithErrorText.
	Errors []ErrorCount `json:"errors,omitempty"`
}

// ErrorCount is how often a failure had this text.
type ErrorCount struct {
	Text  string `json:"text"`
	Count int    `json:"count"`
}

// String says in a few words what opened the breaker, such as "failure rate 0.62 >= 0.50 over 50 calls".
func (t *Trip) String() string {
	switch t.Rule {
	case RuleConsecutiveFailures:
		return fmt.Sprintf("%.0f consecutive failures >= %.0f", t.Observed, t.Threshold)
	case RuleFailureRate:
		return "failure rate " + rates(t.Observed, t.Threshold) + fmt.Sprintf(" over %d calls", t.Calls)
	case RuleSlowCallRate:
		return "slow-call rate " + rates(t.Observed, t.Threshold) + fmt.Sprintf(" over %d calls", t.Calls)
	case RuleProbeFailed:
		return "a failed probe"
	case RuleProbeSlow:
		return "a probe slower than " + seconds(t.Threshold).String()
	case RuleProbeLost:
		return "a probe without a sign of life for " + seconds(t.Threshold).String()
	case RuleProbeIgnored:
		return fmt.Sprintf("%.0f probes in a row without a verdict", t.Observed)
	case RuleRetryAfter:
		return "the upstream's wish for a pause of " + roundWait(seconds(t.Observed)).String()
	case RuleManual:
		if t.Reason != "" {
			return "a trip by hand: " + t.Reason
		}
		return "a trip by hand"
	}
	return string(t.Rule)
}

// rates writes two fractions with two decimals, or as many more, up to six, as the threshold needs.
func rates(observed, threshold float64) string {
	digits := 2
	for digits < 6 && math.Abs(threshold*math.Pow10(digits)-math.Round(threshold*math.Pow10(digits))) > 1e-6 {
		digits++
	}
	return strconv.FormatFloat(observed, 'f', digits, 64) + " >= " + strconv.FormatFloat(threshold, 'f', digits, 64)
}

func seconds(s float64) time.Duration { return time.Duration(math.Round(s * float64(time.Second))) }

// ruleTrip returns why the breaker must open, nil if it must not.
func (m *machine) ruleTrip() *Trip {
	cfg := &m.cfg
	if cfg.FailureThreshold != Off && m.run >= cfg.FailureThreshold {
		return m.explain(RuleConsecutiveFailures, float64(m.run), float64(cfg.FailureThreshold))
	}
	if rate, reached := m.reached(&m.verdicts, cfg.FailureRateThreshold); reached {
		return m.explain(RuleFailureRate, rate, cfg.FailureRateThreshold)
	}
	return m.slowTrip()
}

func (m *machine) slowTrip() *Trip {
	if !m.cfg.slowRule() {
		return nil
	}
	rate, reached := m.reached(&m.durations, m.cfg.SlowCallRateThreshold)
	if !reached {
		return nil
	}
	t := m.explain(RuleSlowCallRate, rate, m.cfg.SlowCallRateThreshold)
	t.Calls, _ = m.durations.at(m.now)
	return t
}

// reached compares the marked share of t with a threshold, by division: 57 of 100 do reach 0.57.
func (m *machine) reached(t *tally, threshold float64) (rate float64, reached bool) {
	entries, marked := t.at(m.now)
	if threshold == Off || entries < m.cfg.MinimumCalls {
		return 0, false
	}
	rate = float64(marked) / float64(entries)
	return rate, rate >= threshold
}

func (m *machine) explain(r Rule, observed, threshold float64) *Trip {
	t := &Trip{At: m.time(m.now), Rule: r, Observed: observed, Threshold: threshold, Errors: m.errors.commonest()}
	if m.state == StateHalfOpen {
		t.Calls, t.Failures, t.SlowCalls = m.trial.calls, m.trial.failures, m.trial.slow
		return t
	}
	t.Calls, t.Failures = m.verdicts.at(m.now)
	_, t.SlowCalls = m.durations.at(m.now)
	return t
}

// errorTally counts the texts of the last failures. It knows sixteen texts at a time; a new one takes the place of the rarest,
// so what is common stays listed however many different texts pass by.
type errorTally struct {
	texts [16]ErrorCount
	last  [128]uint8 // of each of the last failures: 1 + the place of its text, 0 when that has gone
	next  int
}

func (t *errorTally) add(text string) {
	slot := &t.last[t.next]
	t.next = (t.next + 1) % len(t.last)
	if *slot > 0 {
		t.texts[*slot-1].Count--
		*slot = 0
	}
	i := slices.IndexFunc(t.texts[:], func(e ErrorCount) bool { return e.Text == text })
	if i < 0 {
		i = t.rarest()
		t.texts[i] = ErrorCount{Text: text}
	}
	t.texts[i].Count++
	*slot = uint8(i + 1)
}

// rarest frees the place of the text seen least often, of several the one not seen for longest.
func (t *errorTally) rarest() (place int) {
	var seen [len(t.texts)]int
	for age := range t.last { // oldest first
		if slot := t.last[(t.next+age)%len(t.last)]; slot > 0 {
			seen[slot-1] = age
		}
	}
	for i, e := range t.texts {
		if cmp.Or(cmp.Compare(e.Count, t.texts[place].Count), cmp.Compare(seen[i], seen[place])) < 0 {
			place = i
		}
	}
	for i, slot := range t.last {
		if int(slot) == place+1 {
			t.last[i] = 0
		}
	}
	return place
}

// commonest returns the five texts seen most often.
func (t *errorTally) commonest() []ErrorCount {
	var top []ErrorCount
	for _, e := range t.texts {
		if e.Count > 0 {
			top = append(top, e)
		}
	}
	slices.SortStableFunc(top, func(a, b ErrorCount) int { return b.Count - a.Count })
	return slices.Clip(top[:min(5, len(top))])
}
