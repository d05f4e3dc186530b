package breaker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// resources are what a process holds: goroutines, bytes of live heap, open files.
type resources struct {
	goroutines, files int
	heap              uint64
}

func held(t *testing.T) resources {
	t.Helper()
	var mem runtime.MemStats
	for range 3 { // finalizers and pools take more than one cycle
		runtime.GC()
	}
	runtime.ReadMemStats(&mem)
	files := 0
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		files = len(entries)
	}
	return resources{runtime.NumGoroutine(), files, mem.HeapAlloc}
}

// settles reports whether the process comes back to what it held before: goroutines need a moment to exit.
func settles(t *testing.T, before resources) bool {
	t.Helper()
	var now resources
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); runtime.Gosched() {
		now = held(t)
		if now.goroutines <= before.goroutines && now.files <= before.files && now.heap <= before.heap+1<<20 {
			return true
		}
	}
	t.Logf("before: %+v, now: %+v", before, now)
	return false
}

// boom makes a call that panics, as a caller sees it who survives that.
func boom(b *Breaker) {
	defer func() { _ = recover() }()
	_ = b.Do(context.Background(), func(context.Context) error { panic("boom") })
}

func TestNothingIsLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "breakers.yaml")
	write(t, path, oneService)
	for name, use := range map[string]func(){
		"100,000 breakers, each opened and called": func() {
			for i := range 100_000 {
				b := Must(New(fmt.Sprint(i), Config{}, WithListener(func(Event) {})))
				b.Trip("")
				fail(b, 1)
			}
		},
		"1,000,000 calls": func() {
			b := Must(New("b", Config{SlowCallDuration: time.Minute, WindowDuration: time.Minute}))
			_ = succeedQuietly(b, 1_000_000)
		},
		"100,000 panics": func() {
			b := Must(New("b", Config{}))
			for range 100_000 {
				boom(b)
			}
		},
		"100,000 exits of a goroutine": func() {
			b := Must(New("b", Config{FailureThreshold: Off, FailureRateThreshold: Off}))
			for range 100_000 {
				var wg sync.WaitGroup
				wg.Go(func() {
					_ = b.Do(context.Background(), func(context.Context) error { runtime.Goexit(); return nil })
				})
				wg.Wait()
			}
		},
		"10,000 Watches": func() {
			for range 100 {
				r, err := NewRegistry(RegistryConfig{})
				require.NoError(t, err)
				ctx, stop := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				for range 100 {
					wg.Go(func() { _ = r.Watch(ctx, path) })
				}
				stop()
				wg.Wait()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := held(t)
			use()
			require.True(t, settles(t, before))
		})
	}
}

func succeedQuietly(b *Breaker, n int) (refused int) {
	ctx := context.Background()
	for range n {
		if _, err := Execute(ctx, b, func(context.Context) (int, error) { return 1, nil }); err != nil {
			refused++
		}
	}
	return refused
}

func TestADefaultBreakerIsSmall(t *testing.T) {
	const n = 1000
	before := held(t)
	all := make([]*Breaker, n)
	for i := range all {
		all[i] = Must(New("b", Config{}))
		fail(all[i], 5)
		_ = succeedQuietly(all[i], 1)
	}
	each := (held(t).heap - before.heap) / n
	runtime.KeepAlive(all)
	require.LessOrEqual(t, each, uint64(8<<10), "bytes")
	t.Logf("%d bytes", each)
}

func TestALargeWindowCostsThreeBitsACall(t *testing.T) {
	before := held(t)
	b := Must(New("b", Config{WindowCalls: 1_000_000, SlowCallDuration: time.Second}))
	_ = succeedQuietly(b, 1)
	bits := (held(t).heap - before.heap) * 8
	runtime.KeepAlive(b)
	require.LessOrEqual(t, bits, uint64(3_000_000))
}
