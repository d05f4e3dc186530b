package breaker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

func requireJSON(t *testing.T, want string, b *breaker.Breaker) {
	t.Helper()
	got, err := json.MarshalIndent(b.Status(), "", "  ")
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// The fake clock starts at midnight UTC 2000-01-01, which json writes in the local zone.
func inUTC(t *testing.T) {
	t.Helper()
	was := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = was })
}

const configJSON = `"config": {
    "failure_threshold": 3,
    "failure_rate_threshold": 0.5,
    "slow_call_duration_threshold": 2000,
    "slow_call_rate_threshold": 0.8,
    "minimum_calls": 10,
    "window_calls": 100,
    "timeout_seconds": 30,
    "max_timeout_seconds": 300,
    "timeout_jitter": "off",
    "half_open_max_calls": 3,
    "success_threshold": 5,
    "probe_timeout_seconds": 300,
    "max_retry_after_seconds": 600
  },
  `

func TestStatusJSONOfANewBreakerHasNoSentinels(t *testing.T) {
	inUTC(t)
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{FailureThreshold: 3, SuccessThreshold: 5, SlowCallDuration: 2 * time.Second})
		requireJSON(t, `{
  "name": "x",
  "state": "closed",
  "failure_count": 0,
  "success_count": 0,
  "consecutive_failures": 0,
  "half_open_successes": 0,
  "at": "2000-01-01T00:00:00Z",
  `+configJSON+`"metrics": {
    "total_calls": 0,
    "successful_calls": 0,
    "failed_calls": 0,
    "ignored_calls": 0,
    "rejected_calls": 0,
    "slow_calls": 0,
    "in_flight": 0,
    "state_transitions": []
  }
}`, b)
	})
}

func TestStatusJSONOfAnOpenBreakerUnderAHold(t *testing.T) {
	inUTC(t)
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{FailureThreshold: 3, SuccessThreshold: 5, SlowCallDuration: 2 * time.Second})
		ends(b, 1, nil)
		time.Sleep(time.Second)
		acquire(t, b)
		ends(b, 1, breaker.Ignore(errDown))
		ends(b, 2, errDown)
		ends(b, 1, errors.New("upstream is \"gone\""))
		ends(b, 7, nil)
		b.ForceOpen(breaker.Hold{By: "ann", Reason: "migration", For: time.Hour})
		time.Sleep(1500 * time.Millisecond)
		requireJSON(t, `{
  "name": "x",
  "state": "forced_open",
  "failure_count": 3,
  "success_count": 1,
  "failure_rate": 0.75,
  "slow_call_rate": 0,
  "consecutive_failures": 3,
  "last_failure_time": "2000-01-01T00:00:01Z",
  "last_success_time": "2000-01-01T00:00:00Z",
  "opened_at": "2000-01-01T00:00:01Z",
  "retry_after_seconds": 3598.5,
  "hold": {
    "by": "ann",
    "reason": "migration",
    "since": "2000-01-01T00:00:01Z",
    "until": "2000-01-01T01:00:01Z"
  },
  "trip": {
    "at": "2000-01-01T00:00:01Z",
    "rule": "consecutive_failures",
    "observed": 3,
    "threshold": 3,
    "calls": 4,
    "failures": 3,
    "slow_calls": 0,
    "errors": [
      {
        "text": "upstream is down",
        "count": 2
      },
      {
        "text": "upstream is \"gone\"",
        "count": 1
      }
    ]
  },
  "half_open_successes": 0,
  "at": "2000-01-01T00:00:02.5Z",
  `+configJSON+`"metrics": {
    "total_calls": 12,
    "successful_calls": 1,
    "failed_calls": 3,
    "ignored_calls": 1,
    "rejected_calls": 7,
    "slow_calls": 0,
    "in_flight": 1,
    "failure_rate": 0.75,
    "state_transitions": [
      {
        "from": "closed",
        "to": "open",
        "time": "2000-01-01T00:00:01Z",
        "rule": "consecutive_failures"
      },
      {
        "from": "open",
        "to": "forced_open",
        "time": "2000-01-01T00:00:01Z",
        "rule": "hold"
      }
    ]
  }
}`, b)
	})
}

func TestTheStatusReadsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		b.Trip("deploy")
		text, err := json.Marshal(b.Status())
		require.NoError(t, err)
		var back map[string]any
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, "open", back["state"])
		require.Equal(t, 30.0, back["retry_after_seconds"])
		require.Equal(t, "deploy", back["trip"].(map[string]any)["reason"])
	})
}

func TestTheWindowIsFrozenWhileNotClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{WindowDuration: 10 * time.Second, SlowCallDuration: time.Second})
		late := admitted(b, 5)
		ends(b, 5, errDown)
		for range 3 {
			time.Sleep(20 * time.Second)
			s := b.Status()
			require.Equal(t, []int{5, 0, 5}, []int{s.FailureCount, s.SuccessCount, s.ConsecutiveFailures})
			require.Equal(t, new(1.0), s.FailureRate)
			require.Equal(t, new(0.0), s.SlowCallRate)
			late[0].Done(nil)
			late = late[1:]
		}
		ends(b, 1, errDown)
		require.Equal(t, 5, b.Status().FailureCount, "half-open is not the window's business")
	})
}

func TestTheLastTenTransitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		kept := b.Status().Metrics.StateTransitions
		start := time.Now()
		for range 20 {
			time.Sleep(time.Second)
			b.Trip("")
			b.Reset("")
		}
		require.Empty(t, kept, "a snapshot stays as it was")
		ten := b.Status().Metrics.StateTransitions
		require.Len(t, ten, 10)
		require.Equal(t, breaker.Transition{From: breaker.StateClosed, To: breaker.StateOpen, Time: start.Add(16 * time.Second), Rule: breaker.RuleManual}, ten[0])
		require.Equal(t, breaker.Transition{From: breaker.StateOpen, To: breaker.StateClosed, Time: start.Add(20 * time.Second), Rule: breaker.RuleReset}, ten[9])
		ten[0].Rule = "changed by a reader"
		require.Equal(t, breaker.RuleManual, b.Status().Metrics.StateTransitions[0].Rule)
	})
}

func TestGettersStoreNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		cfg := breaker.Config{SlowCallDuration: time.Second, ProbeTimeout: time.Minute, OpenTimeoutJitter: 0.9, RampUp: time.Minute, WindowDuration: time.Minute, SuccessThreshold: 1}
		seen, unseen := newBreaker(t, cfg, breaker.WithListener(d.hear)), newBreaker(t, cfg)
		both := func(f func(b *breaker.Breaker)) { f(seen); f(unseen) }
		look := func(d time.Duration) {
			for range d / (100 * time.Millisecond) {
				time.Sleep(100 * time.Millisecond)
				seen.State()
				_ = seen.Status()
				_ = seen.Config()
			}
		}
		both(func(b *breaker.Breaker) { admitted(b, 10) })
		look(2 * time.Second)
		require.Empty(t, d.heard)
		both(func(b *breaker.Breaker) { refuses(b) })
		look(time.Minute)
		both(func(b *breaker.Breaker) { admitted(b, 1)[0].Progress() })
		look(2 * time.Minute)
		both(func(b *breaker.Breaker) { refuses(b) })
		look(2 * time.Minute)
		both(func(b *breaker.Breaker) { ends(b, 3, nil) })
		one, other := seen.Status(), unseen.Status()
		require.Equal(t, one.State, other.State)
		require.Equal(t, one.Metrics.SuccessfulCalls, other.Metrics.SuccessfulCalls)
		require.Len(t, other.Metrics.StateTransitions, len(one.Metrics.StateTransitions))
	})
}

func TestCountersAreMonotoneOverTransitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SuccessThreshold: 1, SlowCallDuration: time.Second, ProbeTimeout: time.Minute, HalfOpenMaxCalls: 1})
		var last breaker.Metrics
		moves := []func(){
			func() { ends(b, 3, nil) }, func() { ends(b, 6, errDown) }, func() { time.Sleep(time.Minute) }, func() { _, _ = b.Acquire(bg) },
			func() { b.Reset("") }, func() { b.ForceOpen(breaker.Hold{}) }, func() { b.Disable(breaker.Hold{For: time.Second}) },
			func() { b.Trip("") }, func() { b.Release() }, func() { spell(b, "SFI") }, func() { _ = b.Apply(b.Config()) },
		}
		for i := range 500 {
			moves[i*i%97%len(moves)]()
			m := b.Status().Metrics
			require.Equal(t, m.TotalCalls, m.SuccessfulCalls+m.FailedCalls+m.IgnoredCalls+m.RejectedCalls)
			for _, pair := range [][2]int{{last.SuccessfulCalls, m.SuccessfulCalls}, {last.FailedCalls, m.FailedCalls}, {last.IgnoredCalls, m.IgnoredCalls}, {last.RejectedCalls, m.RejectedCalls}, {last.SlowCalls, m.SlowCalls}} {
				require.LessOrEqual(t, pair[0], pair[1])
			}
			require.GreaterOrEqual(t, m.InFlight, 0)
			last = m
		}
		require.Positive(t, last.RejectedCalls)
	})
}

func TestForcedOpenRefusalsAreVisible(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	b.ForceOpen(breaker.Hold{})
	ends(b, 7, nil)
	require.Equal(t, 7, b.Status().Metrics.RejectedCalls)
	require.Equal(t, 7, b.Status().Metrics.TotalCalls)
	require.Nil(t, b.Status().Metrics.FailureRate, "refusals are in no rate")
}

func TestFallbackAnswersAreCountedBySource(t *testing.T) {
	b := upstream()
	require.Nil(t, b.Status().Metrics.Fallbacks)
	p := breaker.Protect(b, failsWith(errUpstream).ask).
		OrCall("local", failsWith(errLocal).ask).
		OrRules(func(p prompt) (reply, bool) { return "hi", p == "hello" }).
		OrValue("later")
	for _, ask := range []prompt{"hello", "x", "y"} {
		_, err := p.Do(bg, ask)
		require.NoError(t, err)
	}
	_, err := breaker.Protect(b, answers("yes").ask).OrValue("no").Do(bg, "x")
	require.NoError(t, err)
	_, err = breaker.Protect(b, failsWith(errUpstream).ask).Do(bg, "x")
	require.Error(t, err)
	require.Equal(t, map[string]uint64{"rule": 1, "default": 2}, b.Status().Metrics.Fallbacks, "neither the primary nor nobody is a fallback")

	text, err := json.Marshal(b.Status())
	require.NoError(t, err)
	require.Contains(t, string(text), `"fallbacks":{"default":2,"rule":1}`)
}

func TestFallbackSourcesAreBounded(t *testing.T) {
	b := upstream()
	for range 2 {
		for i := range 50 {
			_, err := breaker.Protect(b, failsWith(errUpstream).ask).OrCall(fmt.Sprint("model ", i), answers("yes").ask).Do(bg, "x")
			require.NoError(t, err)
		}
	}
	counts := b.Status().Metrics.Fallbacks
	require.Len(t, counts, 33)
	require.EqualValues(t, 36, counts["other"])
	require.EqualValues(t, 2, counts["model 31"])
}

func TestNoFallbackIsLostWhenManyLearnItsSource(t *testing.T) {
	b := upstream()
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			p := breaker.Protect(b, failsWith(errUpstream).ask).OrCall(fmt.Sprint("model ", i%40), answers("yes").ask)
			for range 50 {
				_, _ = p.Do(bg, "x")
			}
		})
	}
	all.Wait()
	var sum uint64
	for _, n := range b.Status().Metrics.Fallbacks {
		sum += n
	}
	require.EqualValues(t, 64*50, sum)
	require.Len(t, b.Status().Metrics.Fallbacks, 33)
}
