package main

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		column []time.Duration
		want   string
	}{
		{[]time.Duration{100, 150, 120}, "flat, all within × 1.50"},
		{[]time.Duration{100, 151, 120}, "× 1.20 from the first to the last, × 1.51 from the least to the most; so it is"},
		{[]time.Duration{100, 40}, "falls to × 0.40 from the first to the last; so it is"},
	} {
		require.Equal(t, c.want, verdict(c.column, "so it is"))
	}
}

func TestShareMakesEachCallOnce(t *testing.T) {
	for _, callers := range []int{1, 3, 64} {
		var mu sync.Mutex
		made := make([]int, 1000)
		share(callers, len(made), func(from, n int) {
			mu.Lock()
			defer mu.Unlock()
			for i := range n {
				made[from+i]++
			}
		})
		for i := range made {
			require.Equal(t, 1, made[i], "call %d from %d goroutines", i, callers)
		}
	}
}

func TestACurveIsATable(t *testing.T) {
	c := curve{title: "So many", x: "things", xs: []int{1, 10_000}, series: []series{{name: "a"}, {name: "b", why: "since b"}}}
	var out strings.Builder
	c.print(&out, [][]time.Duration{{1000, 1000}, {1000, 2400}}) // picoseconds
	require.Equal(t, `
### So many

| things | a | b |
|---|---|---|
| 1 | 1 | 1 |
| 10,000 | 1 | 2 |

- a: flat, all within × 1.00
- b: × 2.40 from the first to the last, × 2.40 from the least to the most; since b
`, out.String())
}

// TestEveryPointCanBeMeasured makes a few calls of each.
func TestEveryPointCanBeMeasured(t *testing.T) {
	for _, c := range curves() {
		for _, s := range c.series {
			for _, x := range c.xs {
				if x <= 1000 {
					share(4, 100, s.prepare(x))
				}
			}
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{1: "1", 999: "999", 1000: "1,000", 86_400: "86,400", 1_000_000: "1,000,000"} {
		require.Equal(t, want, thousands(n))
	}
}

func TestPerCallIsTheTimeOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.Equal(t, 100*time.Microsecond, perCall(1, func(_, n int) { time.Sleep(time.Duration(n) * 100) }), "picoseconds")
	})
}
