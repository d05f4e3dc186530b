package breaker

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var laneConfigs = map[string]Config{
	"window of calls, no clock": {},
	"slow rule on":              {SlowCallDuration: time.Hour},
	"window of time":            {WindowDuration: 24 * time.Hour},
	"after a failure":           {SlowCallDuration: time.Hour, WindowDuration: 24 * time.Hour, FailureThreshold: 2},
}

// Somebody has the lock and keeps it; whoever needs it would wait for ever.
func TestMostCallsTakeNoLock(t *testing.T) {
	for name, cfg := range laneConfigs {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // time stands still, so that there is nothing to look at
				b := Must(New("b", cfg))
				time.Sleep(1000 * time.Hour) // longer than a mark knows instants from its base
				if name == "after a failure" {
					fail(b, 1)
				}
				require.Zero(t, succeedQuietly(b, 1))
				b.mu.Lock()
				require.Zero(t, succeedQuietly(b, 100))
				require.Equal(t, StateClosed, b.State())
				b.mu.Unlock()
				require.Equal(t, 101, b.Status().Metrics.SuccessfulCalls)

				for _, refuse := range []func(){func() { b.Trip("") }, func() { b.ForceOpen(Hold{For: time.Hour}) }, func() { b.ForceOpen(Hold{}) }} {
					before := b.Status().Metrics.RejectedCalls
					refuse()
					b.mu.Lock()
					require.Equal(t, 100, succeedQuietly(b, 100))
					require.NotEqual(t, StateClosed, b.State())
					b.mu.Unlock()
					require.Equal(t, before+100, b.Status().Metrics.RejectedCalls)
				}
				b.Disable(Hold{})
				b.mu.Lock()
				require.Zero(t, succeedQuietly(b, 100))
				b.mu.Unlock()
				require.Equal(t, 201, b.Status().Metrics.SuccessfulCalls)
			})
		})
	}
}

// What the marks hold shows whether they were sealed since: then they begin at zero again.
func TestAnEndThatOpensNothingSealsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   Config
		fails int // before
		end   func(*Permit)
		seals bool
	}{
		"a success":       {Config{}, 0, func(p *Permit) { p.Done(nil) }, false},
		"a failure":       {Config{}, 0, func(p *Permit) { p.Done(errScripted) }, false},
		"an ignored call": {Config{}, 0, func(p *Permit) { p.Done(Ignore(errScripted)) }, false},
		"an ignored call, where a failure would open": {Config{FailureThreshold: 3}, 2, func(p *Permit) { p.Done(Ignore(errScripted)) }, false},
		"a cancelled call":                            {Config{}, 0, func(p *Permit) { p.Cancel() }, false},
		"the last but one in a row":                   {Config{FailureThreshold: 3}, 1, func(p *Permit) { p.Done(errScripted) }, false},
		"the last in a row":                           {Config{FailureThreshold: 3}, 2, func(p *Permit) { p.Done(errScripted) }, true},
		"the last but one of the rate":                {Config{FailureThreshold: Off}, 3, func(p *Permit) { p.Done(errScripted) }, false},
		"one that successes may follow":               {Config{FailureThreshold: Off}, 4, func(p *Permit) { p.Done(errScripted) }, true},
		"OpenFor":                                     {Config{}, 0, func(p *Permit) { p.Done(OpenFor(Ignore(errScripted), 1)) }, true},
		"from another period":                         {Config{}, 0, func(p *Permit) { p.breaker.Reset(""); succeedQuietly(p.breaker, 1); p.Done(errScripted) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := Must(New("b", c.cfg))
			p, err := b.Acquire(context.Background())
			require.NoError(t, err)
			fail(b, c.fails)
			l := b.lane.Load()
			l.stripes[0].in.Store(7)
			c.end(p)
			require.Equal(t, c.seals, l.stripes[0].in.Load() != 7)
		})
	}
}

func TestASuccessIsDatedThoughAFailureComesFirst(t *testing.T) {
	for _, since := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			b := Must(New("b", Config{SlowCallDuration: time.Hour}))
			require.Zero(t, succeedQuietly(b, 1))
			time.Sleep(since)
			require.Zero(t, succeedQuietly(b, 1))
			at := time.Now()
			time.Sleep(time.Second)
			fail(b, 1)
			require.True(t, at.Equal(b.Status().LastSuccessTime))
		})
	}
}

func TestASuccessCountsInItsOwnBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Must(New("b", Config{WindowDuration: windowBuckets * time.Second}))
		require.Zero(t, succeedQuietly(b, 1))
		time.Sleep(time.Second)
		require.Zero(t, succeedQuietly(b, 1))
		time.Sleep((windowBuckets - 1) * time.Second)
		require.Equal(t, 1, b.Status().SuccessCount, "the first has left the window")
	})
}

// A call from before a SlowCallDuration was set has no deadline, so it may end as slow while others pass.
func TestASlowFailureMayTripWhileOthersPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{FailureThreshold: Off, FailureRateThreshold: Off}
		b := Must(New("b", cfg))
		held, err := b.Acquire(context.Background())
		require.NoError(t, err)
		cfg.SlowCallDuration, cfg.SlowCallRateThreshold, cfg.MinimumCalls = time.Second, 0.5, 2
		require.NoError(t, b.Apply(cfg))
		time.Sleep(time.Second + 1)
		require.Zero(t, succeedQuietly(b, 1))
		require.NotNil(t, b.lane.Load())
		held.Done(errScripted)
		require.Equal(t, StateOpen, b.State())
		require.Equal(t, RuleSlowCallRate, b.Status().Trip.Rule)
	})
}

// While a success may be the outcome that opens it, each has to ask.
func TestASuccessThatMayTripTakesTheLock(t *testing.T) {
	b := Must(New("b", Config{FailureThreshold: Off, MinimumCalls: 10}))
	fail(b, 5)
	require.Nil(t, b.lane.Load(), "5 of 10 would do")
	require.Zero(t, succeedQuietly(b, 5))
	require.Equal(t, StateOpen, b.State())
	require.Equal(t, 10, b.Status().Trip.Calls)

	b = Must(New("b", Config{FailureThreshold: Off, MinimumCalls: 10}))
	fail(b, 4)
	require.NotNil(t, b.lane.Load(), "4 of 10 would not")

	b = Must(New("b", Config{}))
	fail(b, 5)
	require.Equal(t, StateOpen, b.State())
	require.NotNil(t, b.lane.Load(), "what is refused cannot trip")
	b.Reset("")
	b.Disable(Hold{})
	fail(b, 20)
	require.NotNil(t, b.lane.Load(), "under a hold nothing does")
}

// Instants have room for three days, calls may last for years, and a breaker lives as long.
func TestALaneIsReplacedInTime(t *testing.T) {
	const half = instants/2 + 1
	for name, cfg := range laneConfigs {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg.SlowCallRateThreshold = Off
				b := Must(New("b", cfg))
				held, err := b.Acquire(context.Background())
				require.NoError(t, err)
				first := b.lane.Load()
				for i := range 4 {
					require.Zero(t, succeedQuietly(b, 1))
					time.Sleep(half)
					require.Zero(t, succeedQuietly(b, 1))
					now := time.Now()
					if name != "window of calls, no clock" {
						require.NotSame(t, first, b.lane.Load())
						require.True(t, now.Equal(b.Status().LastSuccessTime))
					}
					require.Equal(t, 2*i+2, b.Status().Metrics.SuccessfulCalls)
					require.Equal(t, 1, b.Status().Metrics.InFlight)
				}
				if name == "window of calls, no clock" {
					require.Same(t, first, b.lane.Load(), "it notes no instant")
				}
				require.True(t, held.Done(nil))
				now := time.Now()
				m := b.Status()
				require.Equal(t, []int{9, 0}, []int{m.Metrics.SuccessfulCalls, m.Metrics.InFlight})
				require.True(t, now.Equal(m.LastSuccessTime))
			})
		})
	}
}

func TestALockIsLookedForWhileCallsPass(t *testing.T) {
	b := Must(New("b", Config{}))
	require.False(t, b.catches(), "none have passed yet")
	require.Zero(t, succeedQuietly(b, 1))
	require.True(t, b.catches())
	require.False(t, b.catches(), "somebody has it")
	b.mu.Unlock()
}

func TestAMarkThatIsFullIsTakenOver(t *testing.T) {
	require.Equal(t, markSealed, 2*markFull, "one more would seem to seal it")
	b := Must(New("b", Config{}))
	require.Zero(t, succeedQuietly(b, 1))
	require.Equal(t, 1, b.Status().Metrics.SuccessfulCalls)
	s := &b.lane.Load().stripes[0]
	s.in.Store(markFull)
	s.out.Store(markFull)
	require.Zero(t, succeedQuietly(b, 10))
	m := b.Status().Metrics
	require.Equal(t, markFull+11, m.SuccessfulCalls)
	require.Zero(t, m.InFlight)
}

func TestALaneWithoutAClockGrowsToo(t *testing.T) {
	b := Must(New("b", Config{}))
	require.Zero(t, succeedQuietly(b, 1))
	l := b.lane.Load()
	l.crowded.Store(true)
	l.look.Store(0)
	require.Zero(t, succeedQuietly(b, 1))
	require.Len(t, b.lane.Load().stripes, 2)
}

// More calls may leave by a stripe than its mark has room for, and none may come meanwhile.
func TestAMarkThatIsFullIsTakenOverByWhoLeaves(t *testing.T) {
	b := Must(New("b", Config{}))
	p, err := b.Acquire(context.Background())
	require.NoError(t, err)
	b.Status()
	out := &b.lane.Load().stripes[0].out
	out.Store(markFull)
	require.True(t, p.Done(nil))
	require.Zero(t, out.Load()&markShut)
}

// Calls that meet as they leave a lane that is not the last ask for a look too. Once somebody has looked, they pass again.
func TestAnOlderLaneIsOpenAgainAfterALook(t *testing.T) {
	b := Must(New("b", Config{SlowCallDuration: time.Hour}))
	ask := func() *Permit {
		p, err := b.Acquire(context.Background())
		require.NoError(t, err)
		return p
	}
	first, second := ask(), ask()
	older := b.lane.Load()
	older.crowded.Store(true)
	older.look.Store(0)
	ask()
	require.NotSame(t, older, b.lane.Load())
	older.look.Store(0)
	require.True(t, first.Done(nil))
	b.mu.Lock()
	require.True(t, second.pass())
	b.mu.Unlock()
}

func TestALaneGrowsWhereCallsMeet(t *testing.T) {
	b := Must(New("b", Config{SlowCallDuration: time.Hour}))
	var lanes, places int
	for want := 1; want <= 2*maxStripes; want *= 2 {
		held, err := b.Acquire(context.Background())
		require.NoError(t, err)
		t.Cleanup(func() { held.Done(nil) })
		places++
		if want <= maxStripes {
			lanes++
		}
		require.Len(t, b.lane.Load().stripes, min(want, maxStripes))
		b.lane.Load().crowded.Store(true)
		b.lane.Load().look.Store(0)
	}
	require.Equal(t, places, b.Status().Metrics.InFlight)
	require.Len(t, b.machine.lanes, lanes, "those with calls in them")
	for _, l := range b.machine.lanes {
		require.Same(t, b.machine.lanes[0].group, l.group, "they started in the same sixteenth")
	}
}

// A lane that grew has its calls in one group with the wider one: who only looks must find each of them slow once.
func TestALookCountsTheCallsOfAGrownLaneOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Must(New("b", Config{SlowCallDuration: time.Second, MinimumCalls: 4}))
		for range 3 {
			_, err := b.Acquire(context.Background())
			require.NoError(t, err)
			b.lane.Load().crowded.Store(true)
			b.lane.Load().look.Store(0)
		}
		require.Len(t, b.machine.lanes, 3)
		time.Sleep(2 * time.Second)
		require.Equal(t, StateClosed, b.State(), "three are too few to judge")
	})
}

// A call that was held up since it found its lane, while time went on and others came, is not one of those that started before.
func TestNobodyEntersALaneThatIsNotTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Must(New("b", Config{SlowCallDuration: time.Second, MinimumCalls: 1}))
		held, err := b.Acquire(context.Background())
		require.NoError(t, err)
		old := b.lane.Load()
		time.Sleep(time.Second / 2)
		require.Zero(t, succeedQuietly(b, 1))
		require.NotSame(t, old, b.lane.Load())
		require.False(t, old.count(&old.stripes[0].in, b.now()), "it has to look for another")
		b.mu.Lock()
		require.True(t, held.Done(nil), "those in it leave by it")
		b.mu.Unlock()
	})
}

func TestALaneWithoutCallsMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Must(New("b", Config{SlowCallDuration: 16 * time.Second}))
		var held []*Permit
		ask := func(lanes int) {
			t.Helper()
			p, err := b.Acquire(context.Background())
			require.NoError(t, err)
			held = append(held, p)
			require.Len(t, b.machine.lanes, lanes)
			time.Sleep(time.Second)
		}
		ask(1)
		ask(2)
		held[0].Done(nil)
		ask(2) // for a newer one
		ask(3)
		for _, p := range held[1:] {
			p.Done(nil)
		}
		time.Sleep(time.Second)
		ask(1) // for one that is used again
	})
}

// No count is lost or made twice, whoever comes between, and no reader sees one that never was.
func TestCountsAreExactUnderLoad(t *testing.T) {
	const goroutines, each = 16, 2000
	for name, cfg := range laneConfigs {
		t.Run(name, func(t *testing.T) {
			cfg.FailureThreshold, cfg.FailureRateThreshold = Off, Off
			b := Must(New("b", cfg))
			var readers, callers sync.WaitGroup
			var stop atomic.Bool
			readers.Go(func() {
				for last := (Metrics{}); !stop.Load(); {
					m := b.Status().Metrics
					if m.SuccessfulCalls < last.SuccessfulCalls || m.FailedCalls < last.FailedCalls || m.InFlight < 0 || m.InFlight > goroutines {
						t.Errorf("after %+v came %+v", last, m)
						return
					}
					last = m
				}
			})
			for g := range goroutines {
				callers.Go(func() {
					for i := range each {
						_ = b.Do(context.Background(), func(context.Context) error {
							if (g+i)%100 == 0 {
								return errScripted
							}
							return nil
						})
					}
				})
			}
			callers.Wait()
			stop.Store(true)
			readers.Wait()
			m := b.Status().Metrics
			require.Equal(t, []int{goroutines * each * 99 / 100, goroutines * each / 100, 0}, []int{m.SuccessfulCalls, m.FailedCalls, m.InFlight})
		})
	}
}

// A success is dated by its own clock, or where none is read for it by the look that finds it.
func TestTheLastSuccessIsDated(t *testing.T) {
	for name, cfg := range laneConfigs {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := Must(New("b", cfg))
				require.Zero(t, succeedQuietly(b, 1))
				b.Status()
				time.Sleep(time.Minute)
				require.Zero(t, succeedQuietly(b, 2))
				called := time.Now()
				time.Sleep(time.Minute)
				if name == "window of calls, no clock" {
					called = time.Now()
				}
				require.True(t, called.Equal(b.Status().LastSuccessTime))
				time.Sleep(time.Minute)
				require.True(t, called.Equal(b.Status().LastSuccessTime), "it stays")
			})
		})
	}
}

func TestADurationIsThatOfTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Must(New("b", Config{}, WithDurationHistogram()))
		time.Sleep(time.Minute)
		require.NoError(t, b.Do(context.Background(), func(context.Context) error { time.Sleep(2 * time.Second); return nil }))
		require.Equal(t, 2*time.Second, time.Duration(b.durations.sum.Load()))
	})
}

func TestASixteenthIsRoundedUp(t *testing.T) {
	for slow, want := range map[time.Duration]time.Duration{1: 1, 16: 1, 17: 2, 32: 2, 33: 3, time.Second: time.Second / 16} {
		require.Equal(t, want, (&Config{SlowCallDuration: slow}).sixteenth(), slow)
	}
}
