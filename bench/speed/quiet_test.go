package speed

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Who shares a processor, or a core's other thread, with other programs runs at a speed that says nothing about libraries: work
// loses more by it than waiting for the clock does. Such moments show in how long a read of the clock takes, on which no library
// has an influence. So a measurement counts if the clock was about as quick as ever right before and right after it, on each
// processor that it used. Else it is made again; when patience is over, it does not count.
const (
	patience = 500 * time.Millisecond
	reads    = 500
	margin   = 1.15 // by the quickest
	trial    = 100  // calls, or fewer: then the number of calls for the measurement is still being looked for
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

// measure times f when its processors are quiet. Else it says so by the unit disturbed, and whoever reads that drops the result.
func measure(b *testing.B, processors int, f func()) {
	b.Helper()
	if b.N <= trial {
		b.ResetTimer()
		f()
		return
	}
	quickest()
	for until := time.Now().Add(patience); time.Now().Before(until); {
		is, release := quiet(processors)
		if !is {
			release()
			continue
		}
		b.ResetTimer()
		b.StartTimer()
		release()
		f()
		b.StopTimer()
		is, release = quiet(processors)
		release()
		if is {
			return
		}
	}
	b.ResetTimer()
	b.StartTimer()
	f()
	b.ReportMetric(1, "disturbed")
}
