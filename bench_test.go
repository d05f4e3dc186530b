package breaker_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/failfast-go/breaker"
)

func nothing(context.Context) (int, error) { return 1, nil }

func BenchmarkExecute(b *testing.B) {
	for _, c := range []struct {
		name string
		cfg  breaker.Config
	}{
		{"closed", breaker.Config{}},
		{"closed, slow rule on", breaker.Config{SlowCallDuration: time.Second}},
		{"closed, window of time", breaker.Config{WindowDuration: time.Minute}},
	} {
		b.Run(c.name, func(b *testing.B) {
			br := breaker.Must(breaker.New("x", c.cfg))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = breaker.Execute(bg, br, nothing)
			}
		})
		b.Run(c.name+", parallel", func(b *testing.B) {
			br := breaker.Must(breaker.New("x", c.cfg))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					_, _ = breaker.Execute(bg, br, nothing)
				}
			})
		})
	}
}

// BenchmarkClock is what the others are measured against: ratios within one run mean more than nanoseconds.
func BenchmarkClock(b *testing.B) {
	base := time.Now()
	for b.Loop() {
		_ = time.Since(base)
	}
}

// BenchmarkCrowd: many goroutines at one breaker, of whose calls none, one in a hundred or every second one fails.
func BenchmarkCrowd(b *testing.B) {
	for _, every := range []int{0, 100, 2} {
		b.Run("one failure in "+strconv.Itoa(every), func(b *testing.B) {
			br := breaker.Must(breaker.New("x", breaker.Config{SlowCallDuration: time.Second, FailureThreshold: breaker.Off, FailureRateThreshold: breaker.Off}))
			b.SetParallelism(8)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 1; pb.Next(); i++ {
					if every > 0 && i%every == 0 {
						_ = end(br, errDown)
						continue
					}
					_, _ = breaker.Execute(bg, br, nothing)
				}
			})
		})
	}
}

// BenchmarkLookup finds a breaker among 10,000.
func BenchmarkLookup(b *testing.B) {
	reg, _ := breaker.NewRegistry(breaker.RegistryConfig{})
	names := make([]string, 10_000)
	for i := range names {
		names[i] = "upstream-" + strconv.Itoa(i)
		reg.Breaker(names[i])
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			_ = reg.Breaker(names[i*151%len(names)])
		}
	})
}

func BenchmarkFailure(b *testing.B) {
	br := breaker.Must(breaker.New("x", breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: breaker.Off}))
	b.ReportAllocs()
	for b.Loop() {
		_ = end(br, errDown)
	}
}

func BenchmarkRefused(b *testing.B) {
	br := breaker.Must(breaker.New("x", breaker.Config{}))
	br.Trip("")
	b.ReportAllocs()
	for b.Loop() {
		_, _ = breaker.Execute(bg, br, nothing)
	}
}

func BenchmarkRefusedParallel(b *testing.B) {
	br := breaker.Must(breaker.New("x", breaker.Config{}))
	br.Trip("")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, _ = breaker.Execute(bg, br, nothing)
		}
	})
}

func BenchmarkHalfOpen(b *testing.B) {
	br := breaker.Must(breaker.New("x", breaker.Config{OpenTimeout: 1, MaxOpenTimeout: 1, SuccessThreshold: 1 << 30}))
	br.Trip("")
	b.ReportAllocs()
	for b.Loop() {
		_, _ = breaker.Execute(bg, br, nothing)
	}
}

func BenchmarkPermit(b *testing.B) {
	br := breaker.Must(breaker.New("x", breaker.Config{}))
	b.ReportAllocs()
	for b.Loop() {
		p, _ := br.Acquire(bg)
		p.Done(nil)
	}
}

func BenchmarkState(b *testing.B) {
	br := breaker.Must(breaker.New("x", breaker.Config{}))
	for b.Loop() {
		_ = br.State()
	}
}

// BenchmarkFailureText: SDKs put whole responses into their errors, so the cost must not grow with the text.
func BenchmarkFailureText(b *testing.B) {
	for _, size := range []int{100, 10_000, 1_000_000} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			br := breaker.Must(breaker.New("x", breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: breaker.Off}))
			err := errors.New(strings.Repeat("a", size))
			for b.Loop() {
				_ = br.Do(context.Background(), func(context.Context) error { return err })
			}
		})
	}
}
