// Scale shows how the cost of a call grows with what may grow: callers, windows, breakers, error texts. It prints a table for
// each, in Markdown, and says of each column whether it is flat, and if not, why. `make scale` writes them into docs/speed.md.
package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	rounds = 9                     // each point is the median of so many
	long   = 10 * time.Millisecond // and each of them lasts at least so long
	flat   = 1.5                   // a column is flat if its largest figure is at most so often its smallest
)

func main() {
	fmt.Printf("%s, %d cores; %s; `make scale`, medians of %d rounds; ns per call.\n", processor(), runtime.NumCPU(), runtime.Version(), rounds)
	for _, c := range curves() {
		c.print(os.Stdout, c.measure())
	}
	fmt.Println("\n" + throughput())
}

// A work makes n calls, the first of which is number from.
type work func(from, n int)

// A curve is a table: a row for each of xs, a column for each series.
type curve struct {
	title, x string
	xs       []int
	series   []series
}

type series struct {
	name    string
	why     string // it is not flat, if it is not
	prepare func(x int) work
	callers func(x int) int // goroutines; nil for one
}

// measure returns the time of a call for each series and each x. Rounds go over all points, so that a busy moment of the
// machine meets all alike.
func (c curve) measure() [][]time.Duration {
	samples := make([][][]time.Duration, len(c.series))
	works := make([][]work, len(c.series))
	for i, s := range c.series {
		samples[i] = make([][]time.Duration, len(c.xs))
		for _, x := range c.xs {
			works[i] = append(works[i], s.prepare(x))
		}
	}
	for range rounds {
		for i, s := range c.series {
			for j, x := range c.xs {
				callers := 1
				if s.callers != nil {
					callers = s.callers(x)
				}
				samples[i][j] = append(samples[i][j], perCall(callers, works[i][j]))
			}
		}
	}
	medians := make([][]time.Duration, len(c.series))
	for i := range samples {
		for _, s := range samples[i] {
			medians[i] = append(medians[i], median(s))
		}
	}
	return medians
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// perCall makes more and more calls until that takes long enough, and returns what one of the last took, in picoseconds.
func perCall(callers int, do work) time.Duration {
	for n := 1 << 10; ; n *= 2 {
		begin := time.Now()
		share(callers, n, do)
		if took := time.Since(begin); took >= long {
			return took * 1000 / time.Duration(n)
		}
	}
}

// share has n calls made by so many goroutines, which take them in small shares.
func share(callers, n int, do work) {
	if callers == 1 {
		do(0, n)
		return
	}
	size := max(1, n/(20*callers))
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for {
				from := int(taken.Add(int64(size))) - size
				if from >= n {
					return
				}
				do(from, min(size, n-from))
			}
		})
	}
	wg.Wait()
}

func (c curve) print(w io.Writer, times [][]time.Duration) {
	fmt.Fprintf(w, "\n### %s\n\n| %s |", c.title, c.x)
	for _, s := range c.series {
		fmt.Fprintf(w, " %s |", s.name)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(c.series)))
	for j, x := range c.xs {
		fmt.Fprintf(w, "| %s |", thousands(x))
		for i := range c.series {
			fmt.Fprintf(w, " %.0f |", float64(times[i][j])/1000)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	for i, s := range c.series {
		fmt.Fprintf(w, "- %s: %s\n", s.name, verdict(times[i], s.why))
	}
}

// verdict says whether a column is flat, and otherwise how it goes, and why.
func verdict(column []time.Duration, why string) string {
	spread := float64(slices.Max(column)) / float64(slices.Min(column))
	last := float64(column[len(column)-1]) / float64(column[0])
	switch {
	case spread <= flat:
		return fmt.Sprintf("flat, all within × %.2f", spread)
	case last < 1:
		return fmt.Sprintf("falls to × %.2f from the first to the last; %s", last, why)
	default:
		return fmt.Sprintf("× %.2f from the first to the last, × %.2f from the least to the most; %s", last, spread, why)
	}
}

// thousands writes 1000000 as 1,000,000.
func thousands(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// processor is the name of the machine's, as the kernel has it.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := strings.Cut(string(text), "model name\t: ")
	name, _, _ := strings.Cut(rest, "\n")
	return cmp.Or(name, runtime.GOARCH)
}

const threads = 16

// throughput compares 16 threads with one, where there are 16 cores to run them.
func throughput() string {
	if runtime.NumCPU() < threads {
		return fmt.Sprintf("Throughput at %d threads against one: not measured, since this machine has %d cores.", threads, runtime.NumCPU())
	}
	do := calling(slowRule, 0)
	at := func(n int) float64 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
		var all []time.Duration
		for range rounds {
			all = append(all, perCall(n, do))
		}
		return 1e6 / float64(median(all)) // calls in a microsecond
	}
	one, many := at(1), at(threads)
	return fmt.Sprintf("Throughput, slow-call rule on, no failures: %.1f million calls a second at one thread, %.1f at %d, × %.1f (wanted: at least × 10).",
		one, many, threads, many/one)
}
