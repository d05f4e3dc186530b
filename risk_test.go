package breaker_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/failfast-go/breaker"
)

func assess(b *breaker.Breaker) breaker.Risk {
	return breaker.Assess(b.Status(), breaker.RiskThresholds{})
}

func TestRiskFollowsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SuccessThreshold: 1, RampUp: time.Minute})
		require.Equal(t, breaker.Risk{Reasons: []string{}}, assess(b))

		ends(b, 20, nil)
		ends(b, 4, errDown)
		require.Equal(t, breaker.Risk{Level: breaker.RiskMedium, Score: 20, Reasons: []string{"4 failures in a row against a threshold of 5 (+20)"}}, assess(b))

		ends(b, 1, errDown)
		require.Equal(t, breaker.Risk{Level: breaker.RiskHigh, Score: 75, Reasons: []string{
			"open: every call is refused (+50)", "5 failures in a row against a threshold of 5 (+25)",
		}}, assess(b))

		for range 2 { // the trial fails
			time.Sleep(5 * time.Minute)
			require.Equal(t, breaker.StateHalfOpen, b.State())
			ends(b, 1, errDown)
		}
		require.Equal(t, breaker.RiskCritical, assess(b).Level)
		require.Contains(t, assess(b).Reasons, "opened 3 times within an hour (+10)")

		time.Sleep(5 * time.Minute)
		ends(b, 1, nil)
		require.Equal(t, breaker.StateClosed, b.State())
		require.Contains(t, assess(b).Reasons, "closed again, but a share of the calls is refused until the ramp ends (+20)")
		time.Sleep(2 * time.Hour)
		require.Zero(t, assess(b).Score, "an hour later it is forgotten")
	})
}

func TestRiskLevelsByState(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	b.Disable(breaker.Hold{})
	require.Equal(t, breaker.RiskMedium, assess(b).Level)
	b.ForceOpen(breaker.Hold{})
	require.Equal(t, breaker.RiskMedium, assess(b).Level)
	ends(b, 10, nil)
	require.Equal(t, breaker.RiskHigh, assess(b).Level, "once calls are refused")
	b.Reset("")
	b.Trip("by hand")
	require.Equal(t, breaker.RiskHigh, assess(b).Level)
}

// A single failure of a single call is a rate of 1.
func TestARateOfFewCallsCountsForLittle(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	ends(b, 1, errDown)
	require.Equal(t, breaker.RiskLow, assess(b).Level)

	slow := newBreaker(t, breaker.Config{SlowCallDuration: time.Nanosecond})
	p := acquire(t, slow)
	time.Sleep(time.Microsecond)
	p.Done(nil)
	require.InDelta(t, 1, *slow.Status().SlowCallRate, 0)
	require.Equal(t, breaker.RiskLow, assess(slow).Level)
}

func TestHungCallsAreARisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SlowCallDuration: time.Second, SlowCallRateThreshold: breaker.Off})
		admitted(b, 20)
		time.Sleep(time.Minute)
		require.Equal(t, []string{"slow-call rate 1.00 against a threshold of 0.80 (+25)"}, assess(b).Reasons)
	})
}

func TestThresholdsReplaceTheDefaults(t *testing.T) {
	s := breaker.Status{State: breaker.StateClosed, FailureRate: new(0.25)}
	score := func(x breaker.RiskThresholds) int { return breaker.Assess(s, x).Score }
	require.Equal(t, 13, score(breaker.RiskThresholds{}))
	require.Equal(t, 25, score(breaker.RiskThresholds{FailureRate: 0.25}))
	require.Equal(t, 13, score(breaker.RiskThresholds{FailureRate: -1}), "what makes no sense is the default")
	require.Equal(t, 13, score(breaker.RiskThresholds{FailureRate: math.NaN()}))
	require.Equal(t, breaker.RiskCritical, breaker.Assess(s, breaker.RiskThresholds{Critical: 13}).Level)
	require.Equal(t, breaker.RiskLow, breaker.Assess(s, breaker.RiskThresholds{Medium: 14}).Level)

	s = breaker.Status{Metrics: breaker.Metrics{TotalCalls: 100, RejectedCalls: 5}}
	require.Equal(t, 5, score(breaker.RiskThresholds{}))
	require.Equal(t, 10, score(breaker.RiskThresholds{RefusedShare: 0.05}))

	s = breaker.Status{SlowCallRate: new(0.4)}
	require.Equal(t, 25, score(breaker.RiskThresholds{SlowCallRate: 0.4}))

	s = breaker.Status{Metrics: breaker.Metrics{StateTransitions: []breaker.Transition{{To: breaker.StateOpen}, {To: breaker.StateOpen}}}}
	require.Equal(t, 15, score(breaker.RiskThresholds{Reopenings: 1}))
}

func TestOperatorsDoNotFlap(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	for range 3 {
		b.Trip("by hand")
		b.ForceOpen(breaker.Hold{})
		b.Release()
		b.Reset("")
	}
	require.Zero(t, assess(b).Score)
}

// worse is the order of the states in the score.
var worse = []breaker.State{breaker.StateClosed, breaker.StateDisabled, breaker.StateForcedOpen, breaker.StateHalfOpen, breaker.StateOpen}

var someStatus = rapid.Custom(func(t *rapid.T) breaker.Status {
	rate := func(name string) *float64 {
		if rapid.Bool().Draw(t, name+" known") {
			return new(rapid.Float64Range(0, 1).Draw(t, name))
		}
		return nil
	}
	count := func(name string) int { return rapid.IntRange(0, 30).Draw(t, name) }
	s := breaker.Status{
		State: rapid.SampledFrom(worse).Draw(t, "state"), At: time.Unix(100_000, 0),
		FailureRate: rate("failure rate"), SlowCallRate: rate("slow-call rate"),
		FailureCount: count("failures"), SuccessCount: count("successes"), ConsecutiveFailures: count("run"),
		Metrics: breaker.Metrics{
			TotalCalls: count("total"), RejectedCalls: count("rejected"), InFlight: count("in flight"),
			SuccessfulCalls: count("successful"), FailedCalls: count("failed"), IgnoredCalls: count("ignored"),
		},
		Config: breaker.Config{
			MinimumCalls:         rapid.SampledFrom([]int{0, 1, 10}).Draw(t, "MinimumCalls"),
			FailureThreshold:     rapid.SampledFrom([]int{0, 1, 5, breaker.Off}).Draw(t, "FailureThreshold"),
			FailureRateThreshold: rapid.SampledFrom([]float64{0, 0.1, 1, breaker.Off}).Draw(t, "FailureRateThreshold"),
		},
	}
	for range rapid.IntRange(0, 10).Draw(t, "transitions") {
		s.Metrics.StateTransitions = append(s.Metrics.StateTransitions, someTransition(t, s.At))
	}
	if rapid.Bool().Draw(t, "trip") {
		s.Trip = &breaker.Trip{}
	}
	return s
})

func someTransition(t *rapid.T, now time.Time) breaker.Transition {
	return breaker.Transition{
		From: rapid.SampledFrom(worse).Draw(t, "from"), To: rapid.SampledFrom(worse).Draw(t, "to"),
		Time: now.Add(-time.Duration(rapid.IntRange(0, 2).Draw(t, "hours")) * time.Hour),
		Rule: rapid.SampledFrom([]breaker.Rule{breaker.RuleFailureRate, breaker.RuleManual, breaker.RuleRecovered}).Draw(t, "rule"),
	}
}

// inputs are what can get worse, each with a step that makes it so. A step that changes nothing is fine.
var inputs = []struct {
	name string
	step func(*rapid.T, *breaker.Status)
}{
	{"state", func(_ *rapid.T, s *breaker.Status) {
		s.State = worse[min(slices.Index(worse, s.State)+1, len(worse)-1)]
	}},
	{"ramp", func(_ *rapid.T, s *breaker.Status) { s.Trip = &breaker.Trip{} }},
	{"failure rate", func(t *rapid.T, s *breaker.Status) { s.FailureRate = higher(t, s.FailureRate) }},
	{"slow-call rate", func(t *rapid.T, s *breaker.Status) { s.SlowCallRate = higher(t, s.SlowCallRate) }},
	{"failures", func(t *rapid.T, s *breaker.Status) { s.FailureCount += more(t) }},
	{"run", func(t *rapid.T, s *breaker.Status) { s.ConsecutiveFailures += more(t) }},
	{"refusals", func(t *rapid.T, s *breaker.Status) {
		n := more(t)
		s.Metrics.RejectedCalls += n
		if rapid.Bool().Draw(t, "as a whole") {
			s.Metrics.TotalCalls = max(s.Metrics.TotalCalls, s.Metrics.RejectedCalls-n) + n
		}
	}},
	{"failed", func(t *rapid.T, s *breaker.Status) { s.Metrics.FailedCalls += more(t) }},
	{"in flight", func(t *rapid.T, s *breaker.Status) { s.Metrics.InFlight += more(t) }},
	{"transitions", func(t *rapid.T, s *breaker.Status) {
		s.Metrics.StateTransitions = append(s.Metrics.StateTransitions, someTransition(t, s.At))
	}},
}

func more(t *rapid.T) int { return rapid.IntRange(0, 20).Draw(t, "more") }

func higher(t *rapid.T, rate *float64) *float64 {
	if rate == nil {
		return new(rapid.Float64Range(0, 1).Draw(t, "rate"))
	}
	return new(rapid.Float64Range(*rate, 1).Draw(t, "higher rate"))
}

func TestRiskIsMonotoneInEachInputAndDeterministic(t *testing.T) {
	for _, in := range inputs {
		t.Run(in.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				s := someStatus.Draw(t, "status")
				before := breaker.Assess(s, breaker.RiskThresholds{})
				if again := breaker.Assess(s, breaker.RiskThresholds{}); again.Score != before.Score || !slices.Equal(again.Reasons, before.Reasons) {
					t.Fatalf("%+v, then %+v", before, again)
				}
				s.Metrics.StateTransitions = slices.Clip(s.Metrics.StateTransitions)
				in.step(t, &s)
				after := breaker.Assess(s, breaker.RiskThresholds{})
				switch {
				case after.Score < before.Score || after.Level < before.Level:
					t.Fatalf("%+v got worse and became %+v", before, after)
				case before.Score < 0 || after.Score > 100:
					t.Fatalf("%+v, %+v", before, after)
				case (after.Score == 0) != (len(after.Reasons) == 0):
					t.Fatalf("%+v", after)
				}
			})
		})
	}
}

// The levels of the score and those that the channels of a file filter by are the same words.
func TestRiskLevelsAreTheSeveritiesOfAlertChannels(t *testing.T) {
	for l := breaker.RiskLow; l <= breaker.RiskCritical; l++ {
		_, err := breaker.ParseFile([]byte("alerts: {channels: [{type: webhook, url: https://x, severity_filter: [" + l.String() + "]}]}"))
		require.NoError(t, err)
		var back breaker.RiskLevel
		require.NoError(t, back.UnmarshalText([]byte(l.String())))
		require.Equal(t, l, back)
	}
	require.Equal(t, "RiskLevel(4)", breaker.RiskLevel(4).String())
	_, err := breaker.RiskLevel(4).MarshalText()
	require.ErrorContains(t, err, "4")
	require.ErrorContains(t, new(breaker.RiskLevel).UnmarshalText([]byte("severe")), `"severe"`)
}

func TestRiskAsJSON(t *testing.T) {
	text, err := json.Marshal(breaker.Assess(breaker.Status{}, breaker.RiskThresholds{}))
	require.NoError(t, err)
	require.JSONEq(t, `{"level":"low","score":0,"reasons":[]}`, string(text))
	text, err = json.Marshal(breaker.Assess(breaker.Status{State: breaker.StateOpen}, breaker.RiskThresholds{}))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(text), `{"level":"high","score":50,"reasons":["open`), string(text))
}

func TestAnUnknownStateIsNoPanic(t *testing.T) {
	require.Zero(t, breaker.Assess(breaker.Status{State: 99}, breaker.RiskThresholds{}).Score)
}
