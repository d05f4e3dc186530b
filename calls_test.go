package breaker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// pocket is the breaker as one would explain it to a newcomer: a window of calls, no slow rule, holds or ramp, and every rule
// in plain sight. FuzzCalls compares the real one with it.
type pocket struct {
	cfg breaker.Config
	now time.Duration

	state         breaker.State
	window        []bool // of the last WindowCalls verdicts, true for a failure
	run           int
	until         time.Duration
	doublings     int
	period        int
	probes        []*pocketCall
	good, ignored int // of this period's probes

	successful, failed, ignoredCalls, rejected, inFlight int
}

type pocketCall struct {
	period int
	start  time.Duration
	lost   bool
}

func (m *pocket) enter(s breaker.State) {
	m.state, m.probes, m.good, m.ignored = s, nil, 0, 0
	m.period++
}

func (m *pocket) open(doublings int) {
	m.doublings = doublings
	m.until = m.now + min(m.cfg.OpenTimeout<<doublings, m.cfg.MaxOpenTimeout)
	m.enter(breaker.StateOpen)
}

func (m *pocket) close() {
	m.window, m.run, m.doublings = nil, 0, 0
	m.enter(breaker.StateClosed)
}

// wait lets time pass, one deadline after the other.
func (m *pocket) wait(d time.Duration) {
	for end := m.now + d; ; {
		switch {
		case m.state == breaker.StateOpen && m.until <= end:
			m.now = m.until
			m.enter(breaker.StateHalfOpen)
		case m.state == breaker.StateHalfOpen && len(m.probes) > 0 && m.probes[0].start+m.cfg.ProbeTimeout <= end:
			m.now = m.probes[0].start + m.cfg.ProbeTimeout
			for _, p := range m.probes {
				if p.start+m.cfg.ProbeTimeout == m.now {
					p.lost = true
					m.failed++
					m.inFlight--
				}
			}
			m.open(m.doublings + 1)
		default:
			m.now = end
			return
		}
	}
}

func (m *pocket) ask() *pocketCall {
	if m.state == breaker.StateOpen || m.state == breaker.StateHalfOpen && len(m.probes) == m.cfg.HalfOpenMaxCalls {
		m.rejected++
		return nil
	}
	c := &pocketCall{period: m.period, start: m.now}
	if m.state == breaker.StateHalfOpen {
		m.probes = append(m.probes, c)
	}
	m.inFlight++
	return c
}

func (m *pocket) end(c *pocketCall, o breaker.Outcome) bool {
	if c.lost {
		return false
	}
	m.inFlight--
	switch o {
	case breaker.Success:
		m.successful++
	case breaker.Failure:
		m.failed++
	case breaker.Ignored:
		m.ignoredCalls++
	}
	switch {
	case c.period != m.period:
	case m.state == breaker.StateHalfOpen:
		m.probed(c, o)
	case o == breaker.Success || o == breaker.Failure:
		m.counted(o == breaker.Failure)
	}
	return true
}

func (m *pocket) probed(c *pocketCall, o breaker.Outcome) {
	for i, p := range m.probes {
		if p == c {
			m.probes = append(m.probes[:i:i], m.probes[i+1:]...)
			break
		}
	}
	switch o {
	case breaker.Failure:
		m.open(m.doublings + 1)
	case breaker.Success:
		m.ignored = 0
		if m.good++; m.good == m.cfg.SuccessThreshold {
			m.close()
		}
	default:
		if m.ignored++; m.ignored == m.cfg.HalfOpenMaxCalls {
			m.open(m.doublings)
		}
	}
}

func (m *pocket) counted(failure bool) {
	m.window = append(m.window, failure)
	m.window = m.window[max(0, len(m.window)-m.cfg.WindowCalls):]
	m.run++
	if !failure {
		m.run = 0
	}
	if m.run >= m.cfg.FailureThreshold || len(m.window) >= m.cfg.MinimumCalls && float64(m.failures())/float64(len(m.window)) >= m.cfg.FailureRateThreshold {
		m.open(0)
	}
}

func (m *pocket) failures() (n int) {
	for _, failure := range m.window {
		if failure {
			n++
		}
	}
	return n
}

// pair is a permit of the real breaker and its call in the model.
type pair struct {
	permit *breaker.Permit
	call   *pocketCall
}

func FuzzCalls(f *testing.F) {
	f.Add([]byte{3, 1, 2, 3}, []byte("aAbBcCdDeEfFgGhHiIjJkKlLmMnNoOpPqQrRsStTuUvVwWxXyYzZ0123456789"))
	f.Add([]byte{0, 0, 0, 0}, []byte{1, 1, 1, 1, 1, 200, 1, 201, 0, 202, 0, 203, 0, 0})
	f.Add([]byte{9, 9, 9, 9}, []byte{3, 3, 3, 1, 1, 1, 1, 255, 3, 3, 4, 12, 20, 5, 13, 254, 253, 6, 14})
	f.Fuzz(func(t *testing.T, sizes, moves []byte) {
		sizes = append(sizes, 0, 0, 0, 0)
		synctest.Test(t, func(t *testing.T) {
			cfg := breaker.Config{
				FailureThreshold: 1 + int(sizes[0]%6), FailureRateThreshold: 0.5, MinimumCalls: 1 + int(sizes[1]%6), WindowCalls: 6 + int(sizes[1]/6%4),
				HalfOpenMaxCalls: 1 + int(sizes[2]%4), SuccessThreshold: 1 + int(sizes[3]%5),
				OpenTimeout: 8 * time.Second, MaxOpenTimeout: 24 * time.Second, ProbeTimeout: 16 * time.Second,
			}
			playMoves(t, newBreaker(t, cfg), &pocket{cfg: cfg}, moves[:min(len(moves), 300)])
		})
	})
}

func playMoves(t *testing.T, b *breaker.Breaker, m *pocket, moves []byte) {
	outcomes := map[breaker.Outcome]error{breaker.Success: nil, breaker.Failure: errDown, breaker.Ignored: breaker.Ignore(errDown)}
	var held []pair
	ask := func() (p pair) {
		permit, err := b.Acquire(bg)
		p = pair{permit, m.ask()}
		require.Equal(t, p.call != nil, err == nil, "admitted")
		return p
	}
	settle := func(p pair, o breaker.Outcome) {
		require.Equal(t, m.end(p.call, o), p.permit.Done(outcomes[o]), "first")
	}
	for i, move := range moves {
		arg := int(move >> 3)
		switch move & 7 {
		case 0, 1, 2: // a call that ends at once
			if p := ask(); p.call != nil {
				settle(p, breaker.Success+breaker.Outcome(move&7))
			}
		case 3: // one that goes on
			if p := ask(); p.call != nil {
				held = append(held, p)
			}
		case 4, 5: // ends one of those
			if len(held) > 0 {
				at := arg % len(held)
				settle(held[at], breaker.Success+breaker.Outcome(arg%3))
				held = append(held[:at:at], held[at+1:]...)
			}
		case 6: // by hand
			if arg%8 == 0 {
				b.Reset("")
				m.close()
			} else if p := ask(); p.call != nil {
				p.permit.Cancel()
				m.end(p.call, 0)
			}
		case 7: // waits, to a deadline or just beside it
			d := time.Duration(arg%9)*4*time.Second + time.Duration(arg%3-1)
			time.Sleep(max(0, d))
			m.wait(max(0, d))
		}
		requireAgree(t, b, m, i)
	}
}

func requireAgree(t *testing.T, b *breaker.Breaker, m *pocket, i int) {
	t.Helper()
	s := b.Status()
	require.Equal(t, m.state.String(), s.State.String(), "state after move %d", i)
	require.Equal(t, [9]int{m.failures(), len(m.window) - m.failures(), m.run, m.good, m.successful, m.failed, m.ignoredCalls, m.rejected, m.inFlight},
		[9]int{s.FailureCount, s.SuccessCount, s.ConsecutiveFailures, s.HalfOpenSuccesses, s.Metrics.SuccessfulCalls, s.Metrics.FailedCalls, s.Metrics.IgnoredCalls, s.Metrics.RejectedCalls, s.Metrics.InFlight},
		"failures, successes, run, good probes, successful, failed, ignored, rejected, in flight after move %d", i)
	if m.state == breaker.StateOpen {
		require.Equal(t, (m.until - m.now).Seconds(), *s.RetryAfterSeconds, "after move %d", i)
	}
}
