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
// takes the time that it says, with the gateway's defaults as they ship. Otherwise everything lasts a sixth of it, which leaves a
// busy machine some seconds for each answer.
const haste = 6

func scaled(d time.Duration) time.Duration {
	if os.Getenv("GATEWAY_TIMING") == "real" {
		return d
	}
	return d / haste
}

// scaledDefaults are the gateway's own defaults, at the test's pace: nothing at all when that is the real one.
func scaledDefaults(silent bool) (settings string) {
	if scaled(haste) == haste {
		return ""
	}
	c := config.Defaults()
	seconds := func(d time.Duration) float64 { return scaled(d).Seconds() }
	if silent { // otherwise nobody waits for them, and a busy machine is to have its time
		settings = fmt.Sprintf("limits: {first_content: %g, answer: %g}\n", seconds(c.Limits.FirstContent), seconds(c.Limits.Answer))
	}
	return settings + fmt.Sprintf("circuit_breaker: {default: {timeout_seconds: %g, max_timeout_seconds: %g}}\n",
		seconds(c.Breakers.Default.OpenTimeout), seconds(c.Breakers.Default.MaxOpenTimeout))
}

const outage = time.Minute

func TestCrashOutageCostsADeadPrimaryFourCallsAndNoCaller(t *testing.T) {
	for name, dead := range map[string]faultserver.Answer{
		"resets": {faultserver.Reset()},
		"503":    complaint(503, "server_error", "", "down"),
		"silent": {faultserver.Hang()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, scaledDefaults(name == "silent"), ofPrimary, ofFallback)
			opening := r.watchOpening()
			traffic := r.steadyTraffic()
			require.Eventually(t, func() bool { return traffic.primary.Load() >= 20 }, time.Minute, time.Millisecond)

			r.primary.Answer(always(dead))
			down := time.Now()
			time.Sleep(scaled(outage))
			r.primary.Answer(ofPrimary)
			r.primary.Drop() // what hung, hangs no more
			recovered := time.Now()
			answered := traffic.primary.Load()
			b, _ := r.registry.Lookup("one/large")
			period := b.Config().OpenTimeout * 11 / 10

			require.Eventually(t, func() bool { return traffic.primary.Load() >= answered+20 }, 2*period+time.Minute, time.Millisecond)
			first := r.firstCallAfter(recovered)
			traffic.end()
			s := b.Status()
			later := r.callsBefore(down.Add(scaled(outage))) - opening.admitted
			t.Logf("down for %v: %d requests, %d calls of the primary opened its breaker, and %d came later; %d answered by the fallback; the primary was used again %v after its recovery (open period %v at most)",
				recovered.Sub(down).Round(time.Millisecond), traffic.asked.Load(), opening.failures, later, traffic.fallback.Load(), first.Round(time.Millisecond), period)
			require.Equal(t, 3, opening.failures)
			require.LessOrEqual(t, opening.failures+later, 4)
			require.Zero(t, traffic.failed.Load(), "every caller gets an answer: %v", traffic.firstFailure())
			require.LessOrEqual(t, longestOpen(s), period, "it is asked again after one open period")
			require.LessOrEqual(t, first, period+time.Minute, "and it is, even on a busy machine")
			require.Equal(t, breaker.StateClosed, s.State)
		})
	}
}

// callsBefore counts what has come to the primary before an instant.
func (r *rig) callsBefore(instant time.Time) (n int) {
	for _, seen := range r.primary.Requests() {
		if seen.At.Before(instant) {
			n++
		}
	}
	return n
}

// firstCallAfter is how long after an instant the primary was called.
func (r *rig) firstCallAfter(instant time.Time) time.Duration {
	for _, seen := range r.primary.Requests() {
		if seen.At.After(instant) {
			return seen.At.Sub(instant)
		}
	}
	return 0
}

// longestOpen is the longest time that a breaker refused every call.
func longestOpen(s breaker.Status) (longest time.Duration) {
	var opened time.Time
	for _, change := range s.Metrics.StateTransitions {
		if change.From == breaker.StateOpen {
			longest = max(longest, change.Time.Sub(opened))
		}
		opened = change.Time
	}
	return longest
}

// opening is the primary's breaker when it first opened.
type opening struct {
	once     sync.Once
	admitted int // calls so far, those in flight and all
	failures int // in a row
}

func (r *rig) watchOpening() *opening {
	b, ok := r.registry.Lookup("one/large")
	require.True(r.t, ok)
	o := &opening{}
	r.t.Cleanup(b.Subscribe(func(e breaker.Event) {
		if e.To == breaker.StateOpen {
			o.once.Do(func() {
				m := b.Status().Metrics
				o.admitted = m.TotalCalls - m.RejectedCalls + m.InFlight
				o.failures = int(e.Trip.Observed)
			})
		}
	}))
	return o
}

// traffic is 25 callers a second, every other one of whom wants a stream. In a hurry it is four, which any machine can answer,
// and no more while fifty wait: a machine that cannot answer so many shall not have ever more to do.
type traffic struct {
	asked, primary, fallback, failed, waiting atomic.Int64

	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex // guards the field below
	failure string
}

func (r *rig) steadyTraffic() *traffic {
	tr := &traffic{stop: make(chan struct{})}
	tr.done.Go(func() {
		pause := 40 * time.Millisecond
		tick := time.NewTicker(pause * (pause / scaled(pause)))
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tr.stop:
				return
			case <-tick.C:
				if tr.waiting.Load() < 50 || scaled(haste) == haste {
					tr.done.Go(func() { tr.ask(r, n%2 == 0) })
				}
			}
		}
	})
	r.t.Cleanup(tr.end)
	return tr
}

func (tr *traffic) ask(r *rig, stream bool) {
	tr.asked.Add(1)
	tr.waiting.Add(1)
	defer tr.waiting.Add(-1)
	got := r.ask("chat", stream)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	switch {
	case got.Err == nil && got.source() == "primary" && got.Text == "The primary answers.":
		tr.primary.Add(1)
	case got.Err == nil && got.Text == "The fallback answers." && got.source() == "two/"+got.Model:
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
