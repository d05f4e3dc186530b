package speed

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	ours "github.com/failfast-go/breaker"
)

func echo(_ context.Context, n int) (int, error) { return n, nil }

// held returns by how many bytes the heap grows through f, which returns what shall live on.
func held(f func() any) float64 {
	var before, after runtime.MemStats
	collect(&before)
	kept := f()
	collect(&after)
	runtime.KeepAlive(kept)
	return float64(after.HeapAlloc) - float64(before.HeapAlloc)
}

func collect(m *runtime.MemStats) {
	for range 3 { // finalizers and pools take more than one cycle
		runtime.GC()
	}
	runtime.ReadMemStats(m)
}

// breakerBytes is what a default breaker holds that has opened once.
func breakerBytes() float64 {
	const n = 1000
	return held(func() any {
		all := make([]*ours.Breaker, n)
		for i := range all {
			all[i] = ours.Must(ours.New("x", ours.Config{}))
			for range 5 {
				_ = all[i].Do(bg, func(context.Context) error { return errDown })
			}
		}
		return all
	}) / n
}

// windowBits is what each call of a window of n calls holds.
func windowBits(n int) float64 {
	of := func(calls int) float64 {
		return held(func() any {
			b := newOurs(ours.Config{WindowCalls: calls}, closed)
			call := mix(1)
			for i := range calls {
				_ = b.Do(bg, call.ctxErr[i%100])
			}
			return b
		})
	}
	return 8 * (of(n) - of(100)) / float64(n-100)
}

func BenchmarkMemory(b *testing.B) {
	for _, m := range []struct {
		name, unit string
		measure    func() float64
	}{
		{"breaker", "B/breaker", breakerBytes},
		{"window", "bits/call", func() float64 { return windowBits(1_000_000) }},
	} {
		b.Run("of="+m.name, func(b *testing.B) {
			var found float64
			for b.Loop() {
				found = m.measure()
			}
			b.ReportMetric(found, m.unit)
		})
	}
}

// BenchmarkScrape has Prometheus's registry gather 10,000 breakers that have all been called.
func BenchmarkScrape(b *testing.B) {
	r, err := ours.NewRegistry(ours.RegistryConfig{})
	require.NoError(b, err)
	source, ok := any(r).(interface{ Collector() prometheus.Collector })
	if !ok {
		b.Skip("this library has no collector yet")
	}
	c, call := source.Collector(), mix(50)
	for i := range names {
		for j := range 4 {
			_ = r.Breaker(fmt.Sprint("upstream-", i)).Do(bg, call.ctxErr[j])
		}
	}
	all := prometheus.NewRegistry()
	require.NoError(b, all.Register(c))
	gather := func() { _, err := all.Gather(); require.NoError(b, err) }
	gather() // the first scrape makes what all others use again
	b.Run("of=collect", func(b *testing.B) { collectAll(b, c) })
	b.Run("of=gather", func(b *testing.B) {
		for b.Loop() {
			gather()
		}
		perScrape(b)
	})
}

func perScrape(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/scrape")
}

// collectAll is this library's own part: nothing makes it wait, and what it sends is thrown away at leisure.
func collectAll(b *testing.B, c prometheus.Collector) {
	series := make(chan prometheus.Metric, 32*names)
	for b.Loop() {
		c.Collect(series)
		b.StopTimer()
		require.Less(b, len(series), cap(series))
		for range len(series) {
			<-series
		}
		b.StartTimer()
	}
	perScrape(b)
}

// TestNothingIsAllocated: exact, so no noise can hide a regression or fake one.
func TestNothingIsAllocated(t *testing.T) {
	c := mix(0)
	r, err := ours.NewRegistry(ours.RegistryConfig{})
	require.NoError(t, err)
	r.Breaker("known")
	for _, cfg := range []struct {
		name string
		cfg  ours.Config
	}{
		{"slow rule on", ours.Config{SlowCallDuration: 1 << 40}},
		{"window of calls", ours.Config{}},
		{"window of time", ours.Config{WindowDuration: 1 << 35}},
		{"failures in a row", ours.Config{FailureRateThreshold: ours.Off}},
	} {
		b, open := newOurs(cfg.cfg, closed), newOurs(cfg.cfg, refused)
		protected := ours.Protect(b, echo)
		for name, call := range map[string]func(){
			"Execute":          func() { _, _ = ours.Execute(bg, b, c.ctxVal[0]) },
			"Do":               func() { _ = b.Do(bg, c.ctxErr[0]) },
			"Protected.Do":     func() { _, _ = protected.Do(bg, 1) },
			"a refusal":        func() { _, _ = ours.Execute(bg, open, c.ctxVal[0]) },
			"a refusal of Do":  func() { _ = open.Do(bg, c.ctxErr[0]) },
			"Registry.Breaker": func() { _ = r.Breaker("known") },
		} {
			t.Run(cfg.name+", "+name, func(t *testing.T) {
				require.Zero(t, testing.AllocsPerRun(1000, call))
			})
		}
	}
}

// middle is the median of five: goroutines of the peers take and free some heap as they please.
func middle(measure func() float64) float64 {
	var all []float64
	for range 5 {
		all = append(all, measure())
	}
	slices.Sort(all)
	return all[2]
}

func TestMemoryIsWithinItsBounds(t *testing.T) {
	require.LessOrEqual(t, middle(breakerBytes), float64(8<<10), "bytes of a default breaker")
	bits := middle(func() float64 { return windowBits(100_000) })
	require.LessOrEqual(t, bits, 3.0, "bits per call of a window")
	require.Greater(t, bits, 0.5, "bits per call of a window: the measurement itself is wrong")
}
