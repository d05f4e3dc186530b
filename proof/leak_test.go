// Package proof holds what proves the library with tools that it does not require itself.
package proof

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/failfast-go/breaker"
)

func call(b *breaker.Breaker, f func()) {
	_ = b.Do(context.Background(), func(context.Context) error { f(); return nil })
}

// TestNoGoroutineIsLeft is TestNothingIsLeftBehind of the library with goleak, which names the goroutine that stays.
func TestNoGoroutineIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "breakers.yaml")
	require.NoError(t, os.WriteFile(path, []byte("services: {llm: {}}\n"), 0o600))
	for _, c := range []struct {
		name string
		use  func()
	}{
		{"100,000 breakers", func() {
			for i := range 100_000 {
				b := breaker.Must(breaker.New(strconv.Itoa(i), breaker.Config{}, breaker.WithListener(func(breaker.Event) {})))
				b.Trip("")
				call(b, func() {})
			}
		}},
		{"1,000,000 calls", func() {
			b := breaker.Must(breaker.New("b", breaker.Config{}))
			for range 1_000_000 {
				call(b, func() {})
			}
		}},
		{"100,000 panics", func() {
			b := breaker.Must(breaker.New("b", breaker.Config{}))
			for range 100_000 {
				func() {
					defer func() { _ = recover() }()
					call(b, func() { panic("boom") })
				}()
			}
		}},
		{"100,000 exits of a goroutine", func() {
			b := breaker.Must(breaker.New("b", breaker.Config{}))
			for range 100_000 {
				var wg sync.WaitGroup
				wg.Go(func() { call(b, runtime.Goexit) })
				wg.Wait()
			}
		}},
		{"10,000 Watches", func() {
			r, err := breaker.NewRegistry(breaker.RegistryConfig{})
			require.NoError(t, err)
			for range 100 {
				ctx, stop := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				for range 100 {
					wg.Go(func() { _ = r.Watch(ctx, path) })
				}
				stop()
				wg.Wait()
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			c.use()
		})
	}
}
