package speed

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Who shares a processor, or a core's other thread, with other programs runs at a speed that says nothing about libraries: work
// loses more by it than waiting for the clock does. Such moments show in how long a read of the clock takes, on which no library
// has an influence. So a benchmark is cut into slices, and a slice counts if the clock was about as quick as ever right before and
// right after it, on each processor that it used. What a call takes is the median of those.
const (
	enough   = 9 // slices
	patience = time.Second
	reads    = 200
	margin   = 1.1 // by the quickest
)

// quickest is how long the reads take when nobody disturbs them.
var quickest = sync.OnceValue(func() time.Duration {
	least := readClock()
	for base := time.Now(); time.Since(base) < time.Second/2; {
		least = min(least, readClock())
	}
	return least
})

func readClock() time.Duration {
	base := time.Now()
	for range reads - 1 {
		_ = time.Since(base)
	}
	return time.Since(base)
}

// quiet reports whether nobody disturbs so many processors, and keeps them awake until they are released: to wake one takes as
// long as thousands of calls.
func quiet(processors int) (is bool, release func()) {
	var read, released atomic.Int64
	took := make([]time.Duration, processors)
	for i := range took[1:] {
		go func() {
			took[i+1] = readClock()
			for read.Add(1); released.Load() == 0; {
			}
		}()
	}
	took[0] = readClock()
	for int(read.Load()) < processors-1 {
	}
	return slices.Max(took) <= time.Duration(margin*float64(quickest())), func() { released.Store(1) }
}

// measurement is how long a call takes.
type measurement struct {
	perCall   float64 // ns
	disturbed bool    // too seldom quiet: whoever reads that drops it
}

func (m *measurement) report(b *testing.B) {
	b.ReportMetric(m.perCall, "ns/op")
	if m.disturbed {
		b.ReportMetric(1, "disturbed")
	}
}

// measure times calls of do, from so many goroutines, while their processors are quiet.
func measure(goroutines int, do work) *measurement {
	quickest()
	processors := min(goroutines, runtime.GOMAXPROCS(0))
	n := callsOfSlice(goroutines, do)
	var quietly, all []float64
	before, release := quiet(processors)
	for until := time.Now().Add(patience); ; {
		from := time.Now()
		release()
		do.makeFrom(goroutines, n)
		perCall := float64(time.Since(from).Nanoseconds()) / float64(n)
		var after bool
		after, release = quiet(processors)
		if all = append(all, perCall); before && after {
			quietly = append(quietly, perCall)
		}
		before = after
		if len(quietly) == enough || time.Now().After(until) {
			break
		}
	}
	release()
	if len(quietly) < enough {
		return &measurement{median(all), true}
	}
	return &measurement{median(quietly), false}
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// callsOfSlice returns how many calls fill a slice three times in a row: one may seem long because it was disturbed. Goroutines that
// meet need longer ones: a lock that many wait for shows what it costs after a millisecond.
func callsOfSlice(goroutines int, do work) int {
	least := 100 * time.Microsecond
	if goroutines > 1 {
		least = time.Millisecond
	}
	for n, long := 1, 0; ; {
		from := time.Now()
		do.makeFrom(goroutines, n)
		if time.Since(from) < least {
			n, long = 2*n, 0
		} else if long++; long == 3 {
			return n
		}
	}
}
