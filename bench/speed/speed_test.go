// Package speed measures what a call costs with this library and with its peers. `make bench` runs it in rounds and writes the
// tables of the README and of docs/speed.md from it.
package speed

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ours "github.com/failfast-go/breaker"
)

// goroutines are how many call at once: alone, 2, 16 and one per core.
func goroutines() []int {
	all := []int{1, 2, 16, runtime.NumCPU()}
	slices.Sort(all)
	return slices.Compact(all)
}

// each runs a benchmark with each number of goroutines. Its b.N calls are for their allocations only; how long a call takes is
// measured beside them.
func each(b *testing.B, name string, prepare func(*testing.B) work) {
	for _, n := range goroutines() {
		var m *measurement
		b.Run(fmt.Sprintf("%s/goroutines=%d", name, n), func(b *testing.B) {
			do := prepare(b)
			b.ReportAllocs()
			b.ResetTimer()
			do.makeFrom(n, b.N)
			b.StopTimer()
			if m == nil {
				m = measure(n, do)
			}
			m.report(b)
		})
	}
}

// cases are the columns of the table.
var cases = []struct {
	name    string
	in      situation
	failing int // of 100 calls
}{
	{"closed", closed, 0},
	{"closed-1%", closed, 1},
	{"closed-50%", closed, 50},
	{"refused", refused, 0},
	{"half-open", halfOpen, 0},
}

// has reports whether a library can be measured in a case.
func (s subject) has(t testing.TB, in situation, failing int) bool {
	return (s.lib != "go-zero" || failing < 50) && s.make(t, in, mix(failing)) != nil
}

// BenchmarkFloor is what no breaker can go below: the same loop around an empty call, reads of the monotonic clock, a mutex.
func BenchmarkFloor(b *testing.B) {
	base, c := time.Now(), mix(0)
	var mu sync.Mutex
	var turns int
	for _, f := range []struct {
		name string
		do   work
	}{
		{"empty-call", func(from, to int) {
			for _, call := range c.ctxVal[from:to] {
				_, _ = call(bg)
			}
		}},
		{"clock-read", func(from, to int) {
			for range to - from {
				_ = time.Since(base)
			}
		}},
		{"two-clock-reads", func(from, to int) {
			for range to - from {
				_ = time.Since(base)
				_ = time.Since(base)
			}
		}},
		{"mutex", func(from, to int) {
			for range to - from {
				mu.Lock()
				turns++
				mu.Unlock()
			}
		}},
	} {
		each(b, "of="+f.name, func(*testing.B) work { return f.do })
	}
}

func BenchmarkCall(b *testing.B) {
	for _, c := range cases {
		for _, s := range subjects {
			if s.has(b, c.in, c.failing) {
				each(b, fmt.Sprintf("case=%s/lib=%s/rule=%s", c.name, s.lib, s.rule), func(b *testing.B) work {
					return s.make(b, c.in, mix(c.failing))
				})
			}
		}
	}
}

// BenchmarkOwn is this library alone: the other verbs.
func BenchmarkOwn(b *testing.B) {
	c := mix(0)
	br := newOurs(ours.Config{SlowCallDuration: time.Second}, closed)
	protected := ours.Protect(br, echo)
	for _, f := range []struct {
		name string
		do   work
	}{
		{"Execute", func(from, to int) {
			for _, call := range c.ctxVal[from:to] {
				_, _ = ours.Execute(bg, br, call)
			}
		}},
		{"Do", func(from, to int) {
			for _, call := range c.ctxErr[from:to] {
				_ = br.Do(bg, call)
			}
		}},
		{"Protected.Do", func(from, to int) {
			for i := range to - from {
				_, _ = protected.Do(bg, i)
			}
		}},
	} {
		each(b, "of="+f.name, func(*testing.B) work { return f.do })
	}
}

const names = 10_000

// BenchmarkLookup finds one of 10,000 breakers by its name, beside the sync.Map load that this cannot go below.
func BenchmarkLookup(b *testing.B) {
	r, err := ours.NewRegistry(ours.RegistryConfig{})
	require.NoError(b, err)
	var all sync.Map
	var name [names]string
	for i := range name {
		name[i] = fmt.Sprint("upstream-", i)
		all.Store(name[i], r.Breaker(name[i]))
	}
	var hundreds atomic.Int64
	each(b, "of=Registry.Breaker", func(*testing.B) work {
		return func(from, to int) {
			at := int(hundreds.Add(1)) * 100
			for i := range to - from {
				_ = r.Breaker(name[(at+i)*7919%names])
			}
		}
	})
	each(b, "of=sync.Map", func(*testing.B) work {
		return func(from, to int) {
			at := int(hundreds.Add(1)) * 100
			for i := range to - from {
				v, _ := all.Load(name[(at+i)*7919%names])
				_ = v.(*ours.Breaker)
			}
		}
	})
}

// TestEachSubjectIsInItsSituation makes the calls of every benchmark and counts which of them ran: all, or none.
func TestEachSubjectIsInItsSituation(t *testing.T) {
	for _, s := range subjects {
		for _, c := range cases {
			if !s.has(t, c.in, c.failing) {
				continue
			}
			t.Run(s.lib+", "+s.rule+", "+c.name, func(t *testing.T) {
				var ran atomic.Int64
				do := s.make(t, c.in, counted(c.failing, &ran))
				var wg sync.WaitGroup
				for g := range 4 {
					wg.Go(func() { do.make(g*500, 500) })
				}
				wg.Wait()
				require.Equal(t, map[bool]int64{true: 0, false: 2000}[c.in == refused], ran.Load())
			})
		}
	}
}

func TestMixFailsSoManyInAHundred(t *testing.T) {
	for _, failing := range []int{0, 1, 50} {
		c, failed := mix(failing), 0
		for i := range 100 {
			if c.err[i]() != nil {
				failed++
			}
		}
		require.Equal(t, failing, failed)
	}
}

func TestAMeasurementIsThatOfItsCalls(t *testing.T) {
	m := measure(1, func(from, to int) { time.Sleep(time.Duration(to-from) * time.Millisecond) })
	require.GreaterOrEqual(t, m.perCall, float64(time.Millisecond))
}
