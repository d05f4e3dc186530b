package main

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/gateway/internal/config"
	"github.com/failfast-go/breaker/examples/gateway/internal/faultserver"
)

// A primary that is down for a minute under steady traffic, and then well again.
//
//	GATEWAY_TIMING=real go test -run TestCrashOutage -timeout 10m -v ./gateway
//
// takes the time that it says, with the gateway's defaults as they ship. Otherwise everything lasts a twentieth of it.
const haste = 20

func scaled(d time.Duration) time.Duration {
	if os.Getenv("GATEWAY_TIMING") == "real" {
		return d
	}
	return d / haste
}

// scaledDefaults are the gateway's own defaults, at the test's pace: nothing at all when that is the real one.
func scaledDefaults() string {
	if scaled(haste) == haste {
		return ""
	}
	c := config.Defaults()
	seconds := func(d time.Duration) float64 { return scaled(d).Seconds() }
	return fmt.Sprintf("limits: {first_content: %g, answer: %g}\ncircuit_breaker: {default: {timeout_seconds: %g, max_timeout_seconds: %g}}\n",
		seconds(c.Limits.FirstContent), seconds(c.Limits.Answer), seconds(c.Breakers.Default.OpenTimeout), seconds(c.Breakers.Default.MaxOpenTimeout))
}

const outage = time.Minute

func TestCrashOutageCostsADeadPrimaryFourCallsAndNoCaller(t *testing.T) {
	t.Parallel()
	for name, dead := range map[string]faultserver.Answer{
		"resets": {faultserver.Reset()},
		"503":    complaint(503, "server_error", "", "down"),
		"silent": {faultserver.Hang()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, scaledDefaults(), ofPrimary, ofFallback)
			traffic := r.steadyTraffic()
			require.Eventually(t, func() bool { return traffic.primary.Load() >= 20 }, 30*time.Second, time.Millisecond)

			before := r.primary.Count()
			r.primary.Answer(always(dead))
			down := time.Now()
			time.Sleep(scaled(outage))
			calls := r.primary.Count() - before
			unfinished := r.inFlightAtOpening(before)
			r.primary.Answer(ofPrimary)
			recovered := time.Now()
			answered := traffic.primary.Load()
			period := r.openPeriod()

			require.Eventually(t, func() bool { return traffic.primary.Load() >= answered+20 }, 2*period+30*time.Second, time.Millisecond)
			first := traffic.firstPrimary(recovered)
			traffic.end()
			t.Logf("down for %v: %d requests, %d calls of the primary (%d in flight when it opened), %d answered by the fallback; the primary was used again %v after its recovery (open period %v)",
				recovered.Sub(down).Round(time.Millisecond), traffic.asked.Load(), calls, unfinished, traffic.fallback.Load(), first.Round(time.Millisecond), period)
			require.LessOrEqual(t, calls-unfinished, 4)
			require.Zero(t, traffic.failed.Load(), "every caller gets an answer: %v", traffic.firstFailure())
			require.LessOrEqual(t, first, period+scaled(10*time.Second), "it is used again within one open period")
			require.Equal(t, breaker.StateClosed, r.breaker("one/large").State)
		})
	}
}

// inFlightAtOpening is how many calls from number n on were under way when the breaker opened, the one that opened it aside.
func (r *rig) inFlightAtOpening(n int) (count int) {
	for _, change := range r.breaker("one/large").Metrics.StateTransitions {
		if change.To != breaker.StateOpen {
			continue
		}
		for _, seen := range r.primary.Requests()[n:] {
			if seen.At.Before(change.Time) && (seen.Answered.IsZero() || seen.Answered.After(change.Time)) {
				count++
			}
		}
		return count
	}
	return 0
}

// openPeriod is how long the breaker's opening in force lasts in all.
func (r *rig) openPeriod() time.Duration {
	s := r.breaker("one/large")
	require.False(r.t, s.OpenedAt.IsZero())
	require.NotNil(r.t, s.RetryAfterSeconds)
	return s.At.Sub(s.OpenedAt) + time.Duration(*s.RetryAfterSeconds*float64(time.Second))
}

// traffic is fifty callers a second, every other one of whom wants a stream.
type traffic struct {
	asked, primary, fallback, failed atomic.Int64

	stop chan struct{}
	done sync.WaitGroup

	mu        sync.Mutex // guards the fields below
	primaries []time.Time
	failure   string
}

func (r *rig) steadyTraffic() *traffic {
	tr := &traffic{stop: make(chan struct{})}
	tr.done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tr.stop:
				return
			case <-tick.C:
				tr.done.Go(func() { tr.ask(r, n%2 == 0) })
			}
		}
	})
	r.t.Cleanup(tr.end)
	return tr
}

func (tr *traffic) ask(r *rig, stream bool) {
	tr.asked.Add(1)
	got := r.ask("chat", stream)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	switch {
	case got.Err == nil && got.source() == "primary" && got.Text == "The primary answers.":
		tr.primary.Add(1)
		tr.primaries = append(tr.primaries, time.Now())
	case got.Err == nil && got.source() == "two/spare" && got.Text == "The fallback answers." && got.Model == "spare":
		tr.fallback.Add(1)
	default:
		tr.failed.Add(1)
		tr.failure = fmt.Sprintf("%+v", got)
	}
}

func (tr *traffic) end() {
	select {
	case <-tr.stop:
	default:
		close(tr.stop)
	}
	tr.done.Wait()
}

func (tr *traffic) firstFailure() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.failure
}

// firstPrimary is how long after t the primary answered.
func (tr *traffic) firstPrimary(t time.Time) time.Duration {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, at := range tr.primaries {
		if at.After(t) {
			return at.Sub(t)
		}
	}
	return -1
}
