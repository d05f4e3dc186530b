package main

import (
	"context"
	"errors"
	"time"

	"github.com/failfast-go/breaker"
)

// A hotPath is something whose cost every user pays. prepare returns what makes n calls.
type hotPath struct {
	name    string
	prepare func() func(n int)
}

var (
	bg      = context.Background()
	errDown = errors.New("down")

	lastCalls = breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: 1}
	slowRule  = breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: 1, SlowCallDuration: time.Hour}
	neverOpen = breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: breaker.Off}
)

func well(context.Context) (int, error)          { return 1, nil }
func down(context.Context) (int, error)          { return 0, errDown }
func done(context.Context) error                 { return nil }
func echo(_ context.Context, n int) (int, error) { return n, nil }

var cases = []hotPath{
	{"Execute, closed, slow rule on", func() func(int) { return executing(slowRule, well) }},
	{"Execute, closed, slow rule off", func() func(int) { return executing(lastCalls, well) }},
	{"Execute, a failure", func() func(int) { return executing(neverOpen, down) }},
	{"Execute, refused", refusing},
	{"Do, closed, slow rule off", doing},
	{"Protected.Do, slow rule off", protecting},
	{"Registry.Breaker, a known name", finding},
}

func executing(cfg breaker.Config, call func(context.Context) (int, error)) func(int) {
	b := breaker.Must(breaker.New("x", cfg))
	return func(n int) {
		for range n {
			_, _ = breaker.Execute(bg, b, call)
		}
	}
}

func refusing() func(int) {
	b := breaker.Must(breaker.New("x", breaker.Config{OpenTimeout: time.Hour, MaxOpenTimeout: time.Hour}))
	b.Trip("")
	return func(n int) {
		for range n {
			_, _ = breaker.Execute(bg, b, well)
		}
	}
}

func doing() func(int) {
	b := breaker.Must(breaker.New("x", lastCalls))
	return func(n int) {
		for range n {
			_ = b.Do(bg, done)
		}
	}
}

func protecting() func(int) {
	p := breaker.Protect(breaker.Must(breaker.New("x", lastCalls)), echo)
	return func(n int) {
		for range n {
			_, _ = p.Do(bg, n)
		}
	}
}

func finding() func(int) {
	r, err := breaker.NewRegistry(breaker.RegistryConfig{})
	if err != nil {
		panic(err)
	}
	r.Breaker("known")
	return func(n int) {
		for range n {
			_ = r.Breaker("known")
		}
	}
}
