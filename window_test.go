package breaker

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// entry is a call in the slow, obvious window that the tally is compared with: a list of everything ever entered.
type entry struct {
	at     time.Duration
	marked bool
}

// listed counts what of the list is in cfg's window at now.
func listed(list []entry, cfg *Config, now time.Duration) (entries, marked int) {
	if cfg.WindowDuration == 0 {
		list = list[max(0, len(list)-cfg.WindowCalls):]
	}
	for _, e := range list {
		if width := cfg.WindowDuration / windowBuckets; width > 0 && int64(e.at/width) <= int64(now/width)-windowBuckets {
			continue
		}
		entries++
		if e.marked {
			marked++
		}
	}
	return entries, marked
}

// FuzzWindow plays a byte string as gaps and calls against both windows and the list.
func FuzzWindow(f *testing.F) {
	f.Add(uint32(50), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13})
	f.Add(uint32(1), []byte("every gap, one call each: 0aA1bB2cC3dD4eE5fF"))
	f.Add(uint32(1000), []byte{255, 254, 253, 252, 251, 250, 6, 13, 20, 27, 34, 41})
	f.Fuzz(func(t *testing.T, size uint32, moves []byte) {
		timed := Config{WindowDuration: time.Second + time.Duration(size%86_399_000)*time.Millisecond + time.Duration(size%50)}
		counted := Config{WindowCalls: 1 + int(size%300)}
		compareWindow(t, timed, moves)
		compareWindow(t, counted, moves)
	})
}

func compareWindow(t *testing.T, cfg Config, moves []byte) {
	moves = moves[:min(len(moves), 200)] // the list is slow
	width := max(1, cfg.WindowDuration/windowBuckets)
	gaps := []time.Duration{0, 1, width / 2, width - 1, width, width + 1, 49 * width, 50 * width, 50*width - 1, 51 * width, 500 * width}
	w := newTally(&cfg)
	var list []entry
	now := time.Duration(0)
	for _, m := range moves {
		now += gaps[int(m>>2)%len(gaps)]
		switch m & 3 {
		case 0:
			if m == 0 {
				w.empty()
				list = nil
			}
		case 3: // several at once, as a group that turns slow or successes that took no lock
			n, marked := int(m>>3)*2, m&4 != 0
			w.add(now, n, marked)
			for range n {
				list = append(list, entry{now, marked})
			}
		default:
			w.add(now, 1, m&3 == 1)
			list = append(list, entry{now, m&3 == 1})
		}
		requireTally(t, list, &cfg, &w, now)
		requireTally(t, list, &cfg, &w, now+gaps[int(m)%len(gaps)])
	}
}

func requireTally(t *testing.T, list []entry, cfg *Config, w *tally, now time.Duration) {
	t.Helper()
	before := w.clone()
	entries, marked := w.at(now)
	wantEntries, wantMarked := listed(list, cfg, now)
	require.Equal(t, []int{wantEntries, wantMarked}, []int{entries, marked}, "entries and marked at %v", now)
	require.Equal(t, before, *w, "asking changes nothing")
	before.add(now, 1, true)
	before.empty()
	entries, marked = w.at(now)
	require.Equal(t, []int{wantEntries, wantMarked}, []int{entries, marked}, "a clone is another tally")
}

func TestTheWindowForgetsAtTheBucketsEnd(t *testing.T) {
	cfg := Config{WindowDuration: 50 * time.Second}
	for _, c := range []struct {
		name   string
		gap    time.Duration
		remain int
	}{
		{"at once", 0, 1},
		{"after half a bucket", 500 * time.Millisecond, 1},
		{"after one", time.Second, 1},
		{"after N-1 and a nanosecond less", 50*time.Second - 1, 1},
		{"after N", 50 * time.Second, 0},
		{"after 10 N", 500 * time.Second, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTally(&cfg)
			w.add(0, 1, true)
			entries, marked := w.at(c.gap)
			require.Equal(t, []int{c.remain, c.remain}, []int{entries, marked})
			w.add(c.gap, 1, false)
			entries, marked = w.at(c.gap)
			require.Equal(t, []int{c.remain + 1, c.remain}, []int{entries, marked}, "a write after the gap is not lost")
		})
	}
}

func TestTheWindowNeverExpiresUnderSteadyTraffic(t *testing.T) {
	cfg := Config{WindowDuration: 10 * time.Second}
	w := newTally(&cfg)
	w.add(0, 1000, true)
	for now := time.Duration(0); now < time.Minute; now += 10 * time.Millisecond {
		w.add(now, 1, false)
		entries, marked := w.at(now)
		if now >= 10*time.Second {
			require.Zero(t, marked)
			require.InDelta(t, 1000, entries, 21, "a window's worth of calls, by a bucket")
		}
	}
}

func TestAResizedWindowKeepsTheNewest(t *testing.T) {
	counted := func(n int) *Config { return &Config{WindowCalls: n} }
	timed := func(d time.Duration) *Config { return &Config{WindowDuration: d} }
	now := 100 * time.Second
	for _, c := range []struct {
		name            string
		from, to        *Config
		entries, marked int
	}{
		{"of ten calls the last five", counted(10), counted(5), 5, 5},
		{"of ten calls all in a larger one", counted(10), counted(20), 10, 5},
		{"of a time all in a longer one", timed(20 * time.Second), timed(time.Minute), 10, 5},
		{"of a time the last of a shorter one", timed(20 * time.Second), timed(4500 * time.Millisecond), 5, 5},
		{"a count becomes a time: all are of now", counted(10), timed(time.Second), 10, 5},
		{"a time becomes a count: the last three", timed(20 * time.Second), counted(3), 3, 3},
		{"a time becomes a larger count", timed(20 * time.Second), counted(300), 10, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTally(c.from)
			for i := range 10 { // the older five succeed, the newer fail; one a second, the last one now
				w.add(now-time.Duration(9-i)*time.Second, 1, i >= 5)
			}
			w = w.resized(c.to, now)
			entries, marked := w.at(now)
			require.Equal(t, []int{c.entries, c.marked}, []int{entries, marked})
		})
	}
}

func TestAWindowOfCallsForgetsTheOldest(t *testing.T) {
	for _, size := range []int{1, 2, 63, 64, 65, 127, 128, 1000} {
		cfg := Config{WindowCalls: size}
		w := newTally(&cfg)
		var list []entry
		for i := range 3 * size {
			e := entry{0, i*i%7 < 3}
			w.add(0, 1, e.marked)
			list = append(list, e)
		}
		requireTally(t, list, &cfg, &w, 0)
		w.empty()
		requireTally(t, nil, &cfg, &w, 0)
		w.add(0, 10*size, true)
		entries, marked := w.at(0)
		require.Equal(t, []int{size, size}, []int{entries, marked})
	}
}

func TestAResizedWindowOfCallsKeepsTheOrder(t *testing.T) {
	for _, size := range []int{64, 65, 200} {
		for _, n := range []int{size - 1, size, size + 30, 3 * size} {
			requireResizedInOrder(t, size, 2*size, n)
			requireResizedInOrder(t, size, size/3, n)
		}
	}
}

func requireResizedInOrder(t *testing.T, size, then, n int) {
	t.Helper()
	from, to := Config{WindowCalls: size}, Config{WindowCalls: then}
	w := newTally(&from)
	var list []entry
	for i := range n {
		list = append(list, entry{0, i*i%7 < 3})
		w.add(0, 1, list[i].marked)
	}
	list = list[max(0, n-size):]
	w = w.resized(&to, 0)
	for i := range 2 * then {
		requireTally(t, list, &to, &w, 0)
		list = append(list, entry{0, i%3 == 0})
		w.add(0, 1, i%3 == 0)
	}
}

func TestManyCallsAtOnceAreAsManyOneByOne(t *testing.T) {
	for _, size := range []int{1, 2, 63, 64, 65, 127, 128, 200} {
		for _, before := range []int{0, 1, 30, 63, 64, 100} {
			for _, n := range []int{0, 1, 2, 33, 34, 63, 64, 65, 100, 130, 500} {
				cfg := Config{WindowCalls: size}
				w := newTally(&cfg)
				w.add(0, 2*size, true)
				w.empty()
				var list []entry
				enter := func(n int, marked bool) {
					w.add(0, n, marked)
					list = append(list, slices.Repeat([]entry{{0, marked}}, n)...)
					requireTally(t, list, &cfg, &w, 0)
				}
				enter(before, true)
				enter(n, false)
				for range min(size, 70) {
					enter(1, true)
					enter(2, false)
				}
				enter(n, true)
			}
		}
	}
}

// What a window of time holds moves to the last instant of its bucket, or to now, and then counts by the rule of the new window.
func TestAResizedWindowOfTimeAgreesWithTheList(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	lengths := []time.Duration{time.Second, 5 * time.Second, 20 * time.Second, time.Minute, 59_999_999_999}
	for range 300 {
		from, to := Config{WindowDuration: lengths[rng.IntN(len(lengths))]}, Config{WindowDuration: lengths[rng.IntN(len(lengths))]}
		w := newTally(&from)
		var list []entry
		now := time.Duration(0)
		for range rng.IntN(60) {
			e := entry{now, rng.IntN(2) == 0}
			w.add(now, 1, e.marked)
			list = append(list, e)
			now += time.Duration(rng.IntN(4)) * from.WindowDuration / time.Duration(20+rng.IntN(100))
		}
		now += time.Duration(rng.IntN(3)) * from.WindowDuration * 2 / 3
		width := from.WindowDuration / windowBuckets
		list = slices.DeleteFunc(list, func(e entry) bool { return int64(e.at/width) <= int64(now/width)-windowBuckets })
		for i, e := range list {
			list[i].at = min((e.at/width+1)*width-1, now)
		}
		w = w.resized(&to, now)
		for _, later := range []time.Duration{0, 1, to.WindowDuration / 100, to.WindowDuration / 3, to.WindowDuration * 49 / 50} {
			requireTally(t, list, &to, &w, now+later)
		}
		for range 30 {
			now += to.WindowDuration / 40
			w.add(now, 1, true)
			list = append(list, entry{now, true})
			requireTally(t, list, &to, &w, now)
		}
	}
}

func TestABucketEndsBeforeTheNextBegins(t *testing.T) {
	w := newTally(&Config{WindowDuration: 50 * time.Second})
	w.add(0, 1, true)
	w.eachBucket(func(b bucket, end time.Duration) {
		require.Equal(t, bucket{1, 1}, b)
		require.Equal(t, time.Second-1, end)
	})
}

func TestAnEmptiedWindowOfTimeHasForgottenAll(t *testing.T) {
	cfg := Config{WindowDuration: 50 * time.Second}
	w := newTally(&cfg)
	w.add(0, 5, true)
	w.empty()
	requireTally(t, nil, &cfg, &w, 0)
	w.add(time.Minute, 1, true)
	requireTally(t, []entry{{time.Minute, true}}, &cfg, &w, time.Minute)
}

// However many calls are in flight, and however they are spread, a breaker keeps as many groups of them as fit SlowCallDuration.
func TestCallsInFlightTakeBoundedMemory(t *testing.T) {
	cfg, err := Config{SlowCallDuration: time.Second, SlowCallRateThreshold: Off}.resolve()
	require.NoError(t, err)
	m := newMachine("x", cfg, time.Now())
	for i := range 100_000 {
		_, refusal := m.admit(time.Duration(i)*100*time.Microsecond, nil)
		require.Nil(t, refusal)
		require.LessOrEqual(t, len(m.lanes), flightGroups+2)
	}
	require.LessOrEqual(t, cap(m.lanes), 64)
	require.Equal(t, 100_000, m.totals.inFlight)
}

// A clock that steps back is clamped: nothing that was due comes back, and nothing is blinded.
func TestABackwardClockStepBlindsTheWindow(t *testing.T) {
	cfg, err := Config{WindowDuration: 10 * time.Second, FailureThreshold: Off, OpenTimeoutJitter: Off}.resolve()
	require.NoError(t, err)
	m := newMachine("x", cfg, time.Now())
	at := func(now time.Duration, o Outcome) {
		c, refusal := m.admit(now, nil)
		require.Nil(t, refusal)
		m.settle(now, &c, ending{Verdict: Verdict{Outcome: o}})
	}
	at(time.Minute, Success)
	for range 8 {
		at(time.Minute-time.Millisecond, Failure)
	}
	require.Equal(t, time.Minute, m.now)
	require.Equal(t, StateClosed, m.seen(0).shown())
	at(59*time.Second, Failure)
	require.Equal(t, StateOpen, m.shown(), "9 of 10 calls")
	require.Equal(t, time.Minute+30*time.Second, m.until)
	require.Equal(t, time.Minute, m.seen(time.Second).now)
	require.Equal(t, StateHalfOpen, m.seen(time.Minute+30*time.Second).shown())
	require.Equal(t, StateOpen, m.shown(), "seen stores nothing")
}

// coreFiles hold all arithmetic on time.
var coreFiles = []string{"breaker.go", "permit.go", "call.go", "state.go", "window.go", "event.go", "errors.go", "metrics.go", "lane.go"}

// The clock is read in one place, as a difference to a monotonic base, and nothing strips the monotonic reading.
func TestOnlyMonotonicDifferencesAnywhere(t *testing.T) {
	var reads []string
	for _, name := range coreFiles {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			require.False(t, strings.HasPrefix(sel.Sel.Name, "Unix") || slices.Contains([]string{"UTC", "Local", "In", "Truncate"}, sel.Sel.Name),
				"%s: %s strips or ignores the monotonic reading", name, sel.Sel.Name)
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" && slices.Contains([]string{"Now", "Since", "Until"}, sel.Sel.Name) {
				reads = append(reads, name+" "+sel.Sel.Name)
			}
			return true
		})
	}
	require.Equal(t, []string{"breaker.go Now", "breaker.go Since", "errors.go Until"}, reads)
}

func TestTheFarFutureIsNever(t *testing.T) {
	never := time.Duration(math.MaxInt64)
	require.Equal(t, never, plus(never, 1))
	require.Equal(t, never, plus(never-5, 6))
	require.Equal(t, never-1, plus(never-5, 4))
	cfg := Config{OpenTimeout: never, MaxOpenTimeout: never, OpenTimeoutJitter: math.Nextafter(1, 0)}
	require.Equal(t, never, cfg.openFor(100, math.Nextafter(1, 0)))
	cfg.OpenTimeout = never/2 + 1
	require.Equal(t, never, cfg.openFor(1, 0))
}
