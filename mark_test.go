package breaker

import (
	"math/bits"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAMarkKnowsTheLatestInstant(t *testing.T) {
	const base = 1000 * time.Hour
	for _, c := range []struct {
		name string
		at   []time.Duration
		want time.Duration
	}{
		{"of none", nil, 0},
		{"of one at the beginning", []time.Duration{0}, base},
		{"of one", []time.Duration{5}, base + 5},
		{"the later of two", []time.Duration{5, 7}, base + 7},
		{"an even one after an odd one", []time.Duration{5, 6}, base + 6},
		{"in any order", []time.Duration{7, 5}, base + 7},
		{"of one before the beginning, were there any", []time.Duration{-5}, base},
		{"the last there is", []time.Duration{instants, 5}, base + instants},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &lane{base: base, stripes: make([]stripe, 1)}
			w := &l.stripes[0].in
			for _, at := range c.at {
				require.True(t, l.count(w, at))
			}
			w.Or(markSealed)
			require.False(t, l.count(w, instants), "it is sealed")
			n, latest := 0, time.Duration(0)
			l.take(w, &n, &latest)
			require.Equal(t, len(c.at), n)
			require.Equal(t, c.want, latest)
		})
	}
}

func TestASealedMarkIsLookedAtForAWhile(t *testing.T) {
	var w mark
	require.True(t, w.reopens(), "it is not sealed")
	w.Store(markSealed)
	require.False(t, w.reopens())
}

func TestCallsThatMeetAtAMarkAskForAWiderLane(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0))))
	l := &lane{stripes: make([]stripe, 1)}
	l.look.Store(never)
	var callers sync.WaitGroup
	for began := time.Now(); !l.crowded.Load() && time.Since(began) < time.Minute; callers.Wait() {
		l.stripes[0].in.Store(0)
		for range 2 * runtime.GOMAXPROCS(0) {
			callers.Go(func() {
				for range 1000 {
					l.count(&l.stripes[0].in, 0)
				}
			})
		}
	}
	callers.Wait()
	require.True(t, l.crowded.Load())
	require.Zero(t, l.look.Load(), "the next call takes the lock and makes it")
}

func TestGoroutinesSpreadOverTheStripes(t *testing.T) {
	l := &lane{stripes: make([]stripe, 16)}
	var taken [64]*stripe
	var asked, leave sync.WaitGroup
	leave.Add(1)
	for i := range taken {
		asked.Add(1)
		go func() {
			taken[i] = l.stripe()
			asked.Done()
			leave.Wait() // so that each has a stack of its own
		}()
	}
	asked.Wait()
	leave.Done()
	different := map[*stripe]bool{}
	for _, s := range taken {
		require.NotNil(t, s)
		different[s] = true
	}
	require.Greater(t, len(different), 1)
}

func TestALaneHasStripesForEachProcessor(t *testing.T) {
	procs := runtime.GOMAXPROCS(0)
	require.GreaterOrEqual(t, maxStripes, min(4*procs, 64))
	require.Less(t, maxStripes, 8*procs)
	require.LessOrEqual(t, maxStripes, 64)
	require.Equal(t, 1, bits.OnesCount(uint(maxStripes)), "a hash is cut to so many bits")
}
