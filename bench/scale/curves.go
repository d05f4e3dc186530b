package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/failfast-go/breaker"
)

var (
	bg      = context.Background()
	errDown = errors.New("down")

	// No breaker here opens, however many calls fail.
	slowRule = breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: breaker.Off, SlowCallDuration: time.Hour}
	noSlow   = breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: 1}

	neverOpens = breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: breaker.Off}
)

func well(context.Context) (int, error) { return 1, nil }
func down(context.Context) (int, error) { return 0, errDown }

// calling makes calls of which one in so many fails; none if that is 0.
func calling(cfg breaker.Config, oneIn int) work {
	b := breaker.Must(breaker.New("x", cfg))
	return func(from, n int) {
		for i := range n {
			call := well
			if oneIn > 0 && (from+i)%oneIn == oneIn-1 {
				call = down
			}
			_, _ = breaker.Execute(bg, b, call)
		}
	}
}

func refusing() work {
	b := breaker.Must(breaker.New("x", breaker.Config{OpenTimeout: time.Hour, MaxOpenTimeout: time.Hour}))
	b.Trip("")
	return func(_, n int) {
		for range n {
			_, _ = breaker.Execute(bg, b, well)
		}
	}
}

func curves() []curve {
	return []curve{byCallers(), byWindow(), byDuration(), byBreakers(), byTexts()}
}

const (
	whyCallers  = "goroutines beyond one per core take turns on a core; what falls is the share of each core in the work, what grows is waiting for one another"
	whySeconds  = "the shorter the window, the more often a call begins a bucket, a fiftieth of it, and takes the lock for that"
	whyWindow   = "the window no longer fits the processor's caches"
	whyBreakers = "each call finds another breaker, and all of them no longer fit the processor's caches"
	whyLookup   = "a hash table of that size no longer fits the processor's caches; a sync.Map alone does the same"
	whyTexts    = "of its last 128 failures a breaker remembers 16 different texts; one more looks for the rarest and takes its place, and beyond some hundred every failure is one more"
)

// byCallers goes from 1 to 64 goroutines per core.
func byCallers() curve {
	c := curve{title: "Goroutines on one breaker", x: "goroutines"}
	for n := 1; n <= 64*runtime.NumCPU(); n *= 2 {
		c.xs = append(c.xs, n)
	}
	callers := func(x int) int { return x }
	c.series = []series{
		{"slow rule on", whyCallers, func(int) work { return calling(slowRule, 0) }, callers},
		{"slow rule off", whyCallers, func(int) work { return calling(noSlow, 0) }, callers},
		{"slow rule on, 1 % fail", whyCallers, func(int) work { return calling(slowRule, 100) }, callers},
		{"refused", whyCallers, func(int) work { return refusing() }, callers},
	}
	return c
}

func byWindow() curve {
	with := func(cfg breaker.Config, oneIn int) func(int) work {
		return func(x int) work {
			cfg.WindowCalls = x
			do := calling(cfg, oneIn)
			do(0, x) // a full window
			return do
		}
	}
	return curve{"A window of so many calls", "calls", []int{10, 100, 1_000, 10_000, 100_000, 1_000_000}, []series{
		{"slow rule on", whyWindow, with(slowRule, 0), nil},
		{"slow rule off", whyWindow, with(noSlow, 0), nil},
		{"slow rule on, half fail", whyWindow, with(slowRule, 2), nil},
	}}
}

func byDuration() curve {
	with := func(oneIn int) func(int) work {
		return func(x int) work {
			cfg := noSlow
			cfg.WindowDuration = time.Duration(x) * time.Second
			return calling(cfg, oneIn)
		}
	}
	return curve{"A window of so many seconds", "seconds", []int{1, 10, 60, 3_600, 86_400}, []series{
		{"no failures", whySeconds, with(0), nil},
		{"half fail", whySeconds, with(2), nil},
	}}
}

// byBreakers calls each breaker in turn, as it comes for the caches, held by the caller and found by name.
func byBreakers() curve {
	held := func(x int) work {
		all := make([]*breaker.Breaker, x)
		for i := range all {
			all[i] = breaker.Must(breaker.New("x", slowRule))
		}
		return func(from, n int) {
			for i := range n {
				_, _ = breaker.Execute(bg, all[(from+i)*7919%x], well)
			}
		}
	}
	named := func(x int) work {
		r, err := breaker.NewRegistry(breaker.RegistryConfig{})
		if err != nil {
			panic(err)
		}
		names := make([]string, x)
		for i := range names {
			names[i] = fmt.Sprint("upstream-", i)
			r.Breaker(names[i])
		}
		return func(from, n int) {
			for i := range n {
				_ = r.Breaker(names[(from+i)*7919%x])
			}
		}
	}
	return curve{"So many breakers, called in turn", "breakers", []int{1, 10, 100, 1_000, 10_000}, []series{
		{"Execute on each", whyBreakers, held, nil},
		{"Registry.Breaker(name)", whyLookup, named, nil},
	}}
}

// byTexts has every call fail, with one of x errors.
func byTexts() curve {
	with := func(size int) func(int) work {
		return func(x int) work {
			b := breaker.Must(breaker.New("x", neverOpens))
			calls := make([]func(context.Context) error, x)
			for i := range calls {
				err := fmt.Errorf("request %d: %s", i, strings.Repeat("a", size))
				calls[i] = func(context.Context) error { return err }
			}
			return func(from, n int) {
				for i := range n {
					_ = b.Do(bg, calls[(from+i)%x])
				}
			}
		}
	}
	return curve{"Failures with so many different texts", "texts", []int{1, 10, 100, 1_000, 10_000}, []series{
		{"20 bytes each", whyTexts, with(8), nil},
		{"10,000 bytes each", whyTexts, with(10_000), nil},
	}}
}
