package breaker_test

import (
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/failfast-go/breaker"
)

// diary is a listener that notes what it hears.
type diary struct {
	mu    sync.Mutex
	heard []breaker.Event
}

func (d *diary) hear(e breaker.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard = append(d.heard, e)
}

func (d *diary) rules() (rules []breaker.Rule) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.heard {
		rules = append(rules, e.Rule)
	}
	return rules
}

func TestEventsOfAWholeCycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		b := newBreaker(t, breaker.Config{SuccessThreshold: 1}, breaker.WithListener(d.hear))
		start := time.Now()
		ends(b, 5, errDown)
		trip := b.Status().Trip
		time.Sleep(time.Minute)
		ends(b, 1, nil)
		b.ForceOpen(breaker.Hold{By: "ann", Reason: "deploy", For: time.Minute})
		hold := breaker.Hold{By: "ann", Reason: "deploy", For: time.Minute}
		time.Sleep(2 * time.Minute)
		require.Len(t, d.heard, 4, "time alone delivers nothing")
		b.State()
		require.Len(t, d.heard, 4, "nor does a getter")
		ends(b, 1, nil)
		b.Trip("x")
		b.Reset("y")
		at := func(d time.Duration) time.Time { return start.Add(d) }
		require.Equal(t, []breaker.Event{
			{Breaker: b, Seq: 1, From: breaker.StateClosed, To: breaker.StateOpen, At: at(0), Rule: breaker.RuleConsecutiveFailures, Trip: trip},
			{Breaker: b, Seq: 2, From: breaker.StateOpen, To: breaker.StateHalfOpen, At: at(30 * time.Second), Rule: breaker.RuleOpenTimeout},
			{Breaker: b, Seq: 3, From: breaker.StateHalfOpen, To: breaker.StateClosed, At: at(time.Minute), Rule: breaker.RuleRecovered},
			{Breaker: b, Seq: 4, From: breaker.StateClosed, To: breaker.StateForcedOpen, At: at(time.Minute), Rule: breaker.RuleHold, Hold: &hold, Reason: "deploy"},
			{Breaker: b, Seq: 5, From: breaker.StateForcedOpen, To: breaker.StateClosed, At: at(2 * time.Minute), Rule: breaker.RuleHoldExpired},
			{Breaker: b, Seq: 6, From: breaker.StateClosed, To: breaker.StateOpen, At: at(3 * time.Minute), Rule: breaker.RuleManual, Trip: d.heard[5].Trip, Reason: "x"},
			{Breaker: b, Seq: 7, From: breaker.StateOpen, To: breaker.StateClosed, At: at(3 * time.Minute), Rule: breaker.RuleReset, Reason: "y"},
		}, d.plain())
	})
}

// plain is what was heard, without what only the logger uses.
func (d *diary) plain() []breaker.Event {
	plain := slices.Clone(d.heard)
	for i, e := range plain {
		plain[i] = breaker.Event{Breaker: e.Breaker, Seq: e.Seq, From: e.From, To: e.To, At: e.At, Rule: e.Rule, Trip: e.Trip, Hold: e.Hold, Reason: e.Reason, Dropped: e.Dropped}
	}
	return plain
}

func TestListenersHearInTheOrderMade(t *testing.T) {
	var heard []string
	note := func(who string) func(breaker.Event) {
		return func(breaker.Event) { heard = append(heard, who) }
	}
	b := newBreaker(t, breaker.Config{}, breaker.WithListener(note("first")), breaker.WithListener(nil), breaker.WithListener(note("second")))
	stop := b.Subscribe(note("third"))
	b.Subscribe(nil)()
	b.Subscribe(note("fourth"))
	b.Trip("")
	require.Equal(t, []string{"first", "second", "third", "fourth"}, heard)
	stop()
	stop()
	heard = nil
	b.Reset("")
	require.Equal(t, []string{"first", "second", "fourth"}, heard)
}

func TestAListenerThatStopsAnother(t *testing.T) {
	var d diary
	var stop func()
	b := newBreaker(t, breaker.Config{}, breaker.WithListener(func(breaker.Event) { stop() }))
	stop = b.Subscribe(d.hear)
	b.Trip("")
	require.Empty(t, d.heard, "stopped is stopped, also in the middle of an event")
}

func TestEventsThatAListenerCausesComeAfterThisOne(t *testing.T) {
	var first, second diary
	b := newBreaker(t, breaker.Config{},
		breaker.WithListener(first.hear),
		breaker.WithListener(func(e breaker.Event) {
			switch e.Seq {
			case 1:
				e.Breaker.Reset("from a listener")
				e.Breaker.Trip("from a listener")
			case 3:
				e.Breaker.ForceOpen(breaker.Hold{})
			}
		}),
		breaker.WithListener(second.hear))
	b.Trip("")
	want := []breaker.Rule{breaker.RuleManual, breaker.RuleReset, breaker.RuleManual, breaker.RuleHold}
	require.Equal(t, want, first.rules())
	require.Equal(t, want, second.rules())
}

func TestASlowListenerHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		release := make(chan struct{})
		b := newBreaker(t, breaker.Config{}, breaker.WithListener(func(e breaker.Event) {
			if e.Seq == 1 {
				<-release
			}
			d.hear(e)
		}))
		go b.Trip("")
		synctest.Wait()
		for range 50 { // 100 events while the first is being heard
			b.Reset("")
			b.Trip("")
		}
		require.ErrorIs(t, end(b, nil), breaker.ErrOpen)
		require.Empty(t, d.heard)
		close(release)
		synctest.Wait()
		require.Len(t, d.heard, 1+64, "the queue is bounded")
		b.Reset("")
		require.Len(t, d.heard, 66)
		requireSeq(t, d.heard)
		require.Equal(t, 36, d.heard[65].Dropped)
		require.Equal(t, uint64(102), d.heard[65].Seq)
	})
}

// requireSeq checks that what is missing between events is what they say was dropped.
func requireSeq(t *testing.T, events []breaker.Event) {
	t.Helper()
	last := uint64(0)
	for _, e := range events {
		require.Equal(t, last+1+uint64(e.Dropped), e.Seq)
		last = e.Seq
	}
}

func TestOneEventAtATimeInOrderUnderConcurrency(t *testing.T) {
	var busy sync.Mutex
	var d diary
	b := newBreaker(t, breaker.Config{}, breaker.WithListener(func(e breaker.Event) {
		if !busy.TryLock() {
			t.Error("two events at a time")
		}
		d.hear(e)
		runtime.Gosched()
		busy.Unlock()
	}))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				b.Trip("")
				b.Reset("")
			}
		})
	}
	all.Wait()
	requireSeq(t, d.heard)
	for i := 1; i < len(d.heard); i++ {
		if d.heard[i].Dropped == 0 {
			require.Equal(t, d.heard[i-1].To, d.heard[i].From)
		}
	}
}

func TestAListenerThatDies(t *testing.T) {
	for name, die := range map[string]func(){"panics": func() { panic("listener") }, "exits its goroutine": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			var d diary
			b := newBreaker(t, breaker.Config{}, breaker.WithListener(func(e breaker.Event) {
				if e.Seq == 1 {
					e.Breaker.Reset("an event behind this one")
				}
				die()
			}), breaker.WithListener(d.hear))
			returned := false
			var v any
			exits(func() {
				v = caught(func() { b.Trip(""); returned = true })
			})
			require.False(t, returned, "it reaches the caller")
			if name == "panics" {
				require.Equal(t, "listener", v)
			}
			require.Equal(t, []breaker.Rule{breaker.RuleManual, breaker.RuleReset}, d.rules(), "after the rest is delivered")
			exits(func() { _ = caught(func() { b.Trip("") }) })
			require.Len(t, d.heard, 3, "and the next event is delivered")
		})
	}
}

// Each of 50 events, caused by the first, meets a listener that panics and one that exits; all are delivered to the third.
func TestListenersThatDieOneAfterTheOther(t *testing.T) {
	var d diary
	b := newBreaker(t, breaker.Config{}, breaker.WithListener(func(e breaker.Event) {
		if e.Seq == 1 {
			for range 25 {
				e.Breaker.Reset("")
				e.Breaker.Trip("")
			}
		}
		panic("listener")
	}), breaker.WithListener(func(e breaker.Event) {
		if e.Seq%5 == 0 {
			runtime.Goexit()
		}
	}), breaker.WithListener(d.hear))
	returned := false
	exits(func() { _ = caught(func() { b.Trip(""); returned = true }) })
	require.False(t, returned)
	require.Len(t, d.heard, 51)
	requireSeq(t, d.heard)
	exits(func() { _ = caught(func() { b.Reset("") }) })
	require.Len(t, d.heard, 52)
	require.NoError(t, end(b, nil))
}

func TestTripTextsShowTheDurationsAsConfigured(t *testing.T) {
	for ms := range 5000 {
		d := time.Duration(ms+1) * time.Millisecond
		trip := breaker.Trip{Rule: breaker.RuleProbeSlow, Threshold: d.Seconds()}
		require.Equal(t, "a probe slower than "+d.String(), trip.String())
	}
}

func TestTripTexts(t *testing.T) {
	for want, trip := range map[string]breaker.Trip{
		"5 consecutive failures >= 5":                       {Rule: breaker.RuleConsecutiveFailures, Observed: 5, Threshold: 5},
		"failure rate 0.62 >= 0.50 over 50 calls":           {Rule: breaker.RuleFailureRate, Observed: 0.62, Threshold: 0.5, Calls: 50},
		"failure rate 0.333333 >= 0.333333 over 3 calls":    {Rule: breaker.RuleFailureRate, Observed: 1.0 / 3, Threshold: 1.0 / 3, Calls: 3},
		"failure rate 0.0050 >= 0.0012 over 200 calls":      {Rule: breaker.RuleFailureRate, Observed: 0.005, Threshold: 0.0012, Calls: 200},
		"failure rate 0.50001 >= 0.50001 over 100000 calls": {Rule: breaker.RuleFailureRate, Observed: 0.50001, Threshold: 0.50001, Calls: 100_000},
		"failure rate 0.01 >= 0.00 over 100 calls":          {Rule: breaker.RuleFailureRate, Observed: 0.01, Threshold: 1e-8, Calls: 100},
		"slow-call rate 0.80 >= 0.80 over 10 calls":         {Rule: breaker.RuleSlowCallRate, Observed: 0.8, Threshold: 0.8, Calls: 10},
		"a failed probe":                           {Rule: breaker.RuleProbeFailed, Observed: 1, Threshold: 1},
		"a probe slower than 2.5s":                 {Rule: breaker.RuleProbeSlow, Observed: 2.5, Threshold: 2.5},
		"a probe without a sign of life for 5m0s":  {Rule: breaker.RuleProbeLost, Observed: 300, Threshold: 300},
		"3 probes in a row without a verdict":      {Rule: breaker.RuleProbeIgnored, Observed: 3, Threshold: 3},
		"the upstream's wish for a pause of 12.3s": {Rule: breaker.RuleRetryAfter, Observed: 12.345, Threshold: 600},
		"the upstream's wish for a pause of 250ms": {Rule: breaker.RuleRetryAfter, Observed: 0.25, Threshold: 600},
		"a trip by hand":                           {Rule: breaker.RuleManual},
		"a trip by hand: deploy":                   {Rule: breaker.RuleManual, Reason: "deploy"},
		"a rule of tomorrow":                       {Rule: "a rule of tomorrow"},
	} {
		require.Equal(t, want, trip.String())
	}
}

func logged(t *testing.T, cfg breaker.Config) (*breaker.Breaker, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.DebugLevel)
	return newBreaker(t, cfg, breaker.WithLogger(zap.New(core)), breaker.WithLogger(nil)), logs
}

func TestTheLogHasOneLineATransition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, logs := logged(t, breaker.Config{SuccessThreshold: 1})
		ends(b, 100, nil)
		require.Zero(t, logs.Len(), "nothing per call")
		ends(b, 5, errDown)
		ends(b, 100, nil)
		time.Sleep(30 * time.Second)
		ends(b, 1, nil)
		b.ForceOpen(breaker.Hold{By: "ann", Reason: "deploy"})
		b.Release()
		b.Disable(breaker.Hold{})
		b.Trip("later")
		b.Release()
		b.Reset("all well")
		type line struct {
			level   zapcore.Level
			message string
			fields  map[string]any
		}
		var lines []line
		for _, e := range logs.All() {
			lines = append(lines, line{e.Level, e.Message, e.ContextMap()})
		}
		fields := func(from, to, rule string, more map[string]any) map[string]any {
			all := map[string]any{"name": "x", "from": from, "to": to, "rule": rule}
			maps.Copy(all, more)
			return all
		}
		trip := func(observed, threshold float64, calls, failures int64) map[string]any {
			return map[string]any{
				"observed": observed, "threshold": threshold, "calls": calls, "failures": failures, "slow_calls": int64(0), "retry_after": 30 * time.Second,
			}
		}
		failed := trip(5, 5, 100, 5)
		failed["errors"] = []breaker.ErrorCount{{Text: errDown.Error(), Count: 5}}
		require.Equal(t, []line{
			{zap.WarnLevel, "circuit breaker opened", fields("closed", "open", "consecutive_failures", failed)},
			{zap.InfoLevel, "circuit breaker half-open", fields("open", "half_open", "open_timeout", nil)},
			{zap.InfoLevel, "circuit breaker closed", fields("half_open", "closed", "recovered", nil)},
			{zap.WarnLevel, "circuit breaker opened", fields("closed", "forced_open", "hold", map[string]any{"by": "ann", "reason": "deploy"})},
			{zap.InfoLevel, "circuit breaker closed", fields("forced_open", "closed", "release", nil)},
			{zap.InfoLevel, "circuit breaker disabled", fields("closed", "disabled", "hold", nil)},
			{zap.WarnLevel, "circuit breaker opened", fields("disabled", "open", "release", trip(0, 0, 0, 0))},
			{zap.InfoLevel, "circuit breaker closed", fields("open", "closed", "reset", map[string]any{"reason": "all well"})},
		}, lines)
	})
}

func TestTheLogSaysWhatIsLeftOfTheOpenTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, logs := logged(t, breaker.Config{})
		b.Trip("")
		b.ForceOpen(breaker.Hold{})
		time.Sleep(20 * time.Second)
		b.Release()
		require.Equal(t, 10*time.Second, logs.All()[2].ContextMap()["retry_after"])
	})
}

func TestTheLogTellsOfDroppedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		release := make(chan struct{})
		b := newBreaker(t, breaker.Config{}, breaker.WithLogger(zap.New(core)), breaker.WithListener(func(e breaker.Event) {
			if e.Seq == 1 {
				<-release
			}
		}))
		go b.Trip("")
		synctest.Wait()
		for range 32 {
			b.Reset("")
			b.Trip("")
		}
		b.Reset("") // the first for which there is no room
		close(release)
		synctest.Wait()
		b.Trip("")
		last := logs.All()[logs.Len()-1]
		require.Equal(t, int64(1), last.ContextMap()["dropped_events"])
	})
}

func TestTheLogSaysHowLongAHoldLasts(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	b := newBreaker(t, breaker.Config{}, breaker.WithLogger(zap.New(core)))
	b.ForceOpen(breaker.Hold{By: "ann", For: 1})
	b.ForceOpen(breaker.Hold{By: "ann"})
	require.Equal(t, time.Duration(1), logs.All()[0].ContextMap()["for"])
	require.NotContains(t, logs.All()[1].ContextMap(), "for")
}
