package breaker

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// RiskLevel says how urgent a [Risk] is. The words are those of AlertChannel.SeverityFilter.
type RiskLevel uint8

const (
	RiskLow      RiskLevel = iota // nothing to do
	RiskMedium                    // look at it when there is time
	RiskHigh                      // callers are refused, or soon will be
	RiskCritical                  // and it does not recover by itself
)

// String returns "low", "medium", "high" or "critical".
func (l RiskLevel) String() string {
	if int(l) < len(severities) {
		return severities[l]
	}
	return fmt.Sprintf("RiskLevel(%d)", uint8(l))
}

// MarshalText writes the name of the level; another number is an error.
func (l RiskLevel) MarshalText() ([]byte, error) {
	if int(l) >= len(severities) {
		return nil, fmt.Errorf("breaker: no risk level has the number %d", uint8(l))
	}
	return []byte(severities[l]), nil
}

// UnmarshalText reads the name of a level.
func (l *RiskLevel) UnmarshalText(text []byte) error {
	i := slices.Index(severities, string(text))
	if i < 0 {
		return fmt.Errorf("breaker: %q is no risk level, want one of %q", text, severities)
	}
	*l = RiskLevel(i)
	return nil
}

// Risk is what [Assess] makes of a breaker.
type Risk struct {
	Level   RiskLevel `json:"level"`
	Score   int       `json:"score"`   // 0 to 100
	Reasons []string  `json:"reasons"` // what the score is made of, each with its points, most first; empty at 0, never nil
}

// RiskThresholds says where each part of a [Risk] is full, and where each level begins. In every field zero means the default,
// and so does what makes no sense there: less than zero, or no number.
type RiskThresholds struct {
	FailureRate  float64 // failures / calls; by default Config.FailureRateThreshold, where that rule is off 0.5
	SlowCallRate float64 // slow calls / calls; by default Config.SlowCallRateThreshold, where that rule is off 0.8
	RefusedShare float64 // refused / all calls since New; by default 0.1
	Reopenings   int     // openings in the last hour after its first; by default 3. Only the last ten transitions are known

	Medium, High, Critical int // scores; by default 20, 50 and 85
}

// riskParts are the parts of the score; together they make 100.
var riskParts = []riskPart{
	{"state", 50, (*Status).stateRisk, "what callers meet now counts for more than anything that led to it: an open breaker is high whatever else holds"},
	{"failures and slow calls", 25, (*Status).pressure, "how near it is to opening, or was when it opened: the larger of failure rate, failures in a row and slow-call rate " +
		"against their thresholds. The larger, not the sum: a call that times out is both slow and failed. A window with less than " +
		"`MinimumCalls` counts for as much less. From 80 % of a threshold on a closed breaker is medium"},
	{"flapping", 15, (*Status).flapping, "openings in the last hour after the first: each is a recovery that failed. Two of them make an opening by failures critical. Trips by hand are none"},
	{"refusals", 10, (*Status).refusals, "the share of all calls that were refused. Since `New`, so it tells what the breaker has cost its callers and not what it costs now: hence the least"},
}

// riskPart is one part of the score: at most weight points, for the fraction of it that how returns, with a reason in words.
type riskPart struct {
	name   string
	weight float64
	how    func(*Status, *RiskThresholds) (fraction float64, reason string)
	why    string
}

// stateRisks are the fractions of the state's part, by state.
var stateRisks = [...]struct {
	fraction float64
	reason   string
}{
	StateClosed:     {0, ""},
	StateOpen:       {1, "open: every call is refused"},
	StateHalfOpen:   {0.8, "half-open: a few probes are admitted"},
	StateForcedOpen: {0.8, "forced open: every call is refused, because somebody wants that"},
	StateDisabled:   {0.4, "disabled: nothing would be refused, however ill the upstream"},
}

// rampRisk is the fraction for a closed breaker that still refuses a share of the calls.
const rampRisk = 0.4

// Assess says how urgent the state of a breaker is: a score from 0 to 100, what it is made of, and a level for people and
// alerts. It is a pure function of its arguments, and monotone: no input that gets worse lowers the score. The states get
// worse in this order: closed, disabled (and a ramp), half_open and forced_open, open. The README has the table of weights, with
// the reason for each.
func Assess(s Status, t RiskThresholds) Risk {
	t = t.resolve(&s.Config)
	type part struct {
		points int
		text   string
	}
	var parts []part
	risk := Risk{Reasons: []string{}}
	for _, p := range riskParts {
		fraction, reason := p.how(&s, &t)
		if points := int(math.Round(p.weight * clampFraction(fraction))); points > 0 {
			risk.Score += points
			parts = append(parts, part{points, fmt.Sprintf("%s (+%d)", reason, points)})
		}
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(b.points, a.points) })
	for _, p := range parts {
		risk.Reasons = append(risk.Reasons, p.text)
	}
	risk.Level = t.level(risk.Score)
	return risk
}

func (t RiskThresholds) level(score int) RiskLevel {
	switch {
	case score >= t.Critical:
		return RiskCritical
	case score >= t.High:
		return RiskHigh
	case score >= t.Medium:
		return RiskMedium
	}
	return RiskLow
}

// resolve fills in the defaults.
func (t RiskThresholds) resolve(c *Config) RiskThresholds {
	t.FailureRate = firstPositive(t.FailureRate, c.FailureRateThreshold, 0.5)
	t.SlowCallRate = firstPositive(t.SlowCallRate, c.SlowCallRateThreshold, 0.8)
	t.RefusedShare = firstPositive(t.RefusedShare, 0.1)
	t.Reopenings = firstPositive(t.Reopenings, 3)
	t.Medium = firstPositive(t.Medium, 20)
	t.High = firstPositive(t.High, 50)
	t.Critical = firstPositive(t.Critical, 85)
	return t
}

// firstPositive returns the first value above zero; NaN is none, nor is Off.
func firstPositive[N int | float64](values ...N) N {
	return values[slices.IndexFunc(values, func(v N) bool { return v > 0 })]
}

// clampFraction returns f within 0 and 1, and 0 for what is no number.
func clampFraction(f float64) float64 {
	if math.IsNaN(f) {
		return 0
	}
	return max(0, min(1, f))
}

func (s *Status) stateRisk(*RiskThresholds) (float64, string) {
	if s.State == StateClosed && s.Trip != nil {
		return rampRisk, "closed again, but a share of the calls is refused until the ramp ends"
	}
	if int(s.State) >= len(stateRisks) {
		return 0, ""
	}
	r := stateRisks[s.State]
	return r.fraction, r.reason
}

// pressure says how near the window is to the threshold that it is nearest to. One failure of one call is a rate of 1 and says
// little, so a rate counts by how much of MinimumCalls it is made of.
func (s *Status) pressure(t *RiskThresholds) (fraction float64, reason string) {
	consider := func(f float64, format string, observed, threshold any) {
		if f = clampFraction(f); f > fraction {
			fraction, reason = f, fmt.Sprintf(format, observed, threshold)
		}
	}
	m := &s.Metrics
	if rate := s.FailureRate; rate != nil {
		consider(*rate/t.FailureRate*s.evidence(s.FailureCount+s.SuccessCount), "failure rate %.2f against a threshold of %.2f", *rate, t.FailureRate)
	}
	if rate := s.SlowCallRate; rate != nil { // the window's durations are not told; hung calls have one and no verdict
		timed := m.SuccessfulCalls + m.FailedCalls + m.IgnoredCalls + m.InFlight
		consider(*rate/t.SlowCallRate*s.evidence(timed), "slow-call rate %.2f against a threshold of %.2f", *rate, t.SlowCallRate)
	}
	if limit := s.Config.FailureThreshold; limit > 0 {
		consider(float64(s.ConsecutiveFailures)/float64(limit), "%d failures in a row against a threshold of %d", s.ConsecutiveFailures, limit)
	}
	return fraction, reason
}

// evidence is how much a rate of so many calls counts. One is known at least where there is a rate.
func (s *Status) evidence(calls int) float64 {
	return min(1, float64(max(1, calls))/float64(max(1, s.Config.MinimumCalls)))
}

// flapWithin is for how long an opening counts as flapping: twelve times the longest wait by default, so that an outage does
// not seem to calm down while its waits grow.
const flapWithin = time.Hour

func (s *Status) flapping(t *RiskThresholds) (fraction float64, reason string) {
	openings := 0
	for _, change := range s.Metrics.StateTransitions {
		if change.To == StateOpen && change.From != StateForcedOpen && change.From != StateDisabled && change.Rule != RuleManual && s.At.Sub(change.Time) <= flapWithin {
			openings++
		}
	}
	again := max(0, openings-1)
	return float64(again) / float64(t.Reopenings), fmt.Sprintf("opened %d times within an hour", openings)
}

func (s *Status) refusals(t *RiskThresholds) (fraction float64, reason string) {
	m := &s.Metrics
	if m.RejectedCalls <= 0 || m.TotalCalls <= 0 {
		return 0, ""
	}
	refused := float64(m.RejectedCalls) / float64(m.TotalCalls)
	return refused / t.RefusedShare, fmt.Sprintf("%d of %d calls refused so far", m.RejectedCalls, m.TotalCalls)
}
