package speed

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	gopkg "github.com/bytedance/gopkg/cloud/circuitbreaker"
	cep21 "github.com/cep21/circuit/v4"
	cep21hystrix "github.com/cep21/circuit/v4/closers/hystrix"
	resiliency "github.com/eapache/go-resiliency/breaker"
	"github.com/failsafe-go/failsafe-go"
	failsafebreaker "github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/go-kratos/aegis/circuitbreaker/sre"
	mercari "github.com/mercari/go-circuitbreaker"
	rubyist "github.com/rubyist/circuitbreaker"
	"github.com/sony/gobreaker/v2"
	"github.com/stretchr/testify/require"
	gozero "github.com/zeromicro/go-zero/core/breaker"
	"github.com/zeromicro/go-zero/core/logx"

	ours "github.com/failfast-go/breaker"
)

// TestMain keeps go-zero from printing its statistics, each minute, into the middle of a result.
func TestMain(m *testing.M) {
	logx.Disable()
	m.Run()
}

// A situation is what a call meets. A breaker in one stays in it, however long it is called.
type situation string

const (
	closed   situation = "closed"
	refused  situation = "refused"
	halfOpen situation = "half-open"
)

// limit is after how many failures in a row a breaker shall open.
func limit(s situation) int {
	if s == closed {
		return 1 << 30
	}
	return 1
}

// openFor is how long it shall stay open.
func openFor(s situation) time.Duration {
	if s == halfOpen {
		return time.Nanosecond
	}
	return time.Hour
}

// The rules by which a breaker opens: configurations stand beside each other only when they have the same.
const (
	slowRule    = "slow"        // a slow-call rate and a failure rate over the last 100 calls
	lastCalls   = "calls"       // a failure rate over the last 100 calls
	lastSeconds = "time"        // a failure rate over the last 10 s
	inARow      = "consecutive" // failures in a row
)

// A subject is a library with a rule. make puts a breaker into a situation and returns what calls it; nil if the library cannot
// be in that situation, or not stay in it.
type subject struct {
	lib, rule string
	make      func(testing.TB, situation, *calls) work
}

var bg = context.Background()

var subjects = []subject{
	{"breaker", slowRule, withOurs(ours.Config{SlowCallDuration: time.Second})},
	{"breaker", lastCalls, withOurs(ours.Config{})},
	{"breaker", lastSeconds, withOurs(ours.Config{WindowDuration: 10 * time.Second})},
	{"breaker", inARow, withOurs(ours.Config{FailureRateThreshold: ours.Off})},
	{"gobreaker", inARow, withGobreaker(0)},
	{"gobreaker", lastSeconds, withGobreaker(10 * time.Second)},
	{"failsafe-go", lastCalls, withFailsafe(failsafeLastCalls)},
	{"failsafe-go-permits", lastCalls, withFailsafePermits(failsafeLastCalls)},
	{"failsafe-go-permits", lastSeconds, withFailsafePermits(failsafeLastSeconds)},
	{"failsafe-go-permits", inARow, withFailsafePermits(failsafeInARow)},
	{"go-resiliency", inARow, withResiliency},
	{"mercari", inARow, withMercari},
	{"bytedance-gopkg", lastSeconds, withGopkg},
	{"rubyist", lastSeconds, withRubyist},
	{"cep21", lastSeconds, withCep21},
	{"hystrix-go", lastSeconds, withHystrix},
	{"go-zero", lastSeconds, withGoZero},
	{"aegis", lastSeconds, withAegis},
}

// withOurs adds to cfg what keeps the breaker in its situation.
func withOurs(cfg ours.Config) func(testing.TB, situation, *calls) work {
	return func(_ testing.TB, s situation, c *calls) work {
		b := newOurs(cfg, s)
		return func(from, to int) {
			for _, call := range c.ctxVal[from:to] {
				_, _ = ours.Execute(bg, b, call)
			}
		}
	}
}

func newOurs(cfg ours.Config, s situation) *ours.Breaker {
	if cfg.FailureRateThreshold == ours.Off {
		cfg.FailureThreshold = limit(closed)
	} else {
		cfg.FailureThreshold, cfg.FailureRateThreshold, cfg.MinimumCalls = ours.Off, 0.99, 100
	}
	cfg.OpenTimeout, cfg.MaxOpenTimeout = openFor(s), openFor(s)
	cfg.HalfOpenMaxCalls, cfg.SuccessThreshold = 1024, 1<<30
	b := ours.Must(ours.New("x", cfg))
	if s != closed {
		b.Trip("")
	}
	return b
}

// withGobreaker opens at failures in a row, which is its default, or, given a window, at a rate of failures.
func withGobreaker(window time.Duration) func(testing.TB, situation, *calls) work {
	return func(_ testing.TB, s situation, c *calls) work {
		most := uint32(limit(s))
		set := gobreaker.Settings{
			MaxRequests: math.MaxUint32, Timeout: openFor(s), Interval: window, BucketPeriod: window / 10,
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= most },
		}
		if window > 0 {
			set.ReadyToTrip = func(c gobreaker.Counts) bool {
				return c.Requests >= min(100, most) && float64(c.TotalFailures)/float64(c.Requests) >= 0.99
			}
		}
		b := gobreaker.NewCircuitBreaker[int](set)
		if s != closed {
			_, _ = b.Execute(func() (int, error) { return 0, errDown })
		}
		return func(from, to int) {
			for _, call := range c.val[from:to] {
				_, _ = b.Execute(call)
			}
		}
	}
}

type failsafeRule func(failsafebreaker.Builder[int], situation)

func failsafeLastCalls(b failsafebreaker.Builder[int], s situation) {
	b.WithFailureThresholdRatio(uint(min(99, limit(s))), uint(min(100, limit(s))))
}

func failsafeLastSeconds(b failsafebreaker.Builder[int], s situation) {
	b.WithFailureRateThreshold(0.99, uint(min(100, limit(s))), 10*time.Second)
}

func failsafeInARow(b failsafebreaker.Builder[int], s situation) {
	b.WithFailureThreshold(uint(min(1<<20, limit(s)))) // it allocates a bit for each
}

func newFailsafe(set failsafeRule, s situation) failsafebreaker.CircuitBreaker[int] {
	b := failsafebreaker.NewBuilder[int]().WithDelay(openFor(s)).WithSuccessThreshold(1 << 24) // likewise
	set(b, s)
	cb := b.Build()
	if s != closed {
		cb.Open()
	}
	if s == halfOpen && cb.TryAcquirePermit() { // the change of state allocates those bits
		cb.RecordSuccess()
	}
	return cb
}

func withFailsafe(set failsafeRule) func(testing.TB, situation, *calls) work {
	return func(_ testing.TB, s situation, c *calls) work {
		executor := failsafe.With[int](newFailsafe(set, s))
		return func(from, to int) {
			for _, call := range c.val[from:to] {
				_, _ = executor.Get(call)
			}
		}
	}
}

// withFailsafePermits uses the breaker without the executor, as one may where no other policy is wanted.
func withFailsafePermits(set failsafeRule) func(testing.TB, situation, *calls) work {
	return func(_ testing.TB, s situation, c *calls) work {
		b := newFailsafe(set, s)
		return func(from, to int) {
			for _, call := range c.err[from:to] {
				if !b.TryAcquirePermit() {
					continue
				}
				if call() != nil {
					b.RecordFailure()
				} else {
					b.RecordSuccess()
				}
			}
		}
	}
}

func withResiliency(tb testing.TB, s situation, c *calls) work {
	b := resiliency.New(limit(s), 1<<30, openFor(s))
	if s != closed {
		_ = b.Run(func() error { return errDown })
	}
	if s == halfOpen { // a goroutine of its own gets it there
		require.Eventually(tb, func() bool { return b.GetState() == resiliency.HalfOpen }, time.Minute, time.Millisecond)
	}
	return func(from, to int) {
		for _, call := range c.err[from:to] {
			_ = b.Run(call)
		}
	}
}

func withMercari(tb testing.TB, s situation, c *calls) work {
	b := mercari.New(mercari.WithTripFunc(mercari.NewTripFuncConsecutiveFailures(int64(limit(s)))),
		mercari.WithOpenTimeout(openFor(s)), mercari.WithHalfOpenMaxSuccesses(1<<40))
	if s != closed {
		b.Fail()
	}
	if s == halfOpen { // a timer gets it there
		require.Eventually(tb, b.Ready, time.Minute, time.Millisecond)
	}
	return func(from, to int) {
		for _, call := range c.iface[from:to] {
			_, _ = b.Do(bg, call)
		}
	}
}

// withGopkg uses a Panel, the only way in.
func withGopkg(tb testing.TB, s situation, c *calls) work {
	if s == halfOpen {
		return nil // it lets one call through each DetectTimeout
	}
	p, err := gopkg.NewPanel(nil, gopkg.Options{
		BucketTime: 100 * time.Millisecond, BucketNums: 100, CoolingTimeout: time.Hour,
		ShouldTrip: gopkg.RateTripFunc(0.99, int64(min(100, limit(s)))),
	})
	require.NoError(tb, err)
	tb.Cleanup(p.Close)
	if s != closed {
		p.Fail("x")
	}
	return func(from, to int) {
		for _, call := range c.err[from:to] {
			if !p.IsAllowed("x") {
				continue
			}
			if call() != nil {
				p.Fail("x")
			} else {
				p.Succeed("x")
			}
		}
	}
}

func withRubyist(_ testing.TB, s situation, c *calls) work {
	if s == halfOpen {
		return nil // one success closes it
	}
	b := rubyist.NewBreakerWithOptions(&rubyist.Options{
		ShouldTrip: rubyist.RateTripFunc(0.99, int64(limit(closed))), WindowTime: 10 * time.Second, WindowBuckets: 10,
	})
	if s == refused {
		b.Break()
	}
	return func(from, to int) {
		for _, call := range c.err[from:to] {
			_ = b.Call(call, 0)
		}
	}
}

func withCep21(_ testing.TB, s situation, c *calls) work {
	if s == halfOpen {
		return nil // it has no such state: one call is let through now and then
	}
	b := cep21.NewCircuitFromConfig("x", cep21.Config{
		Execution: cep21.ExecutionConfig{Timeout: -1, MaxConcurrentRequests: -1},
		General: cep21.GeneralConfig{
			ForceOpen: s == refused,
			ClosedToOpenFactory: cep21hystrix.OpenerFactory(cep21hystrix.ConfigureOpener{
				RequestVolumeThreshold: 1 << 40, RollingDuration: 10 * time.Second, NumBuckets: 10,
			}),
		},
	})
	return func(from, to int) {
		for _, call := range c.ctxErr[from:to] {
			_ = b.Run(bg, call)
		}
	}
}

func withHystrix(tb testing.TB, s situation, c *calls) work {
	if s == halfOpen {
		return nil // one success closes it
	}
	hystrix.Flush()
	hystrix.ConfigureCommand("x", hystrix.CommandConfig{
		Timeout: int(time.Hour.Milliseconds()), MaxConcurrentRequests: 1024, ErrorPercentThreshold: 100,
		RequestVolumeThreshold: limit(s), SleepWindow: int(time.Hour.Milliseconds()),
	})
	if s == refused {
		circuit, _, err := hystrix.GetCircuit("x")
		require.NoError(tb, err)
		for !circuit.IsOpen() { // it counts on a goroutine of its own
			_ = hystrix.Do("x", func() error { return errDown }, nil)
			time.Sleep(time.Millisecond)
		}
	}
	return func(from, to int) {
		for _, call := range c.err[from:to] {
			_ = hystrix.Do("x", call, nil)
		}
	}
}

// withGoZero cannot be told when to open, nor be open: it drops the more calls the more fail.
func withGoZero(_ testing.TB, s situation, c *calls) work {
	if s != closed {
		return nil
	}
	b := gozero.NewBreaker()
	return func(from, to int) {
		for _, call := range c.err[from:to] {
			_ = b.Do(call)
		}
	}
}

// withAegis is never open either; with this share of successes half of them is enough for it.
func withAegis(_ testing.TB, s situation, c *calls) work {
	if s != closed {
		return nil
	}
	b := sre.NewBreaker(sre.WithSuccess(0.01), sre.WithWindow(10*time.Second))
	return func(from, to int) {
		for _, call := range c.err[from:to] {
			if b.Allow() != nil {
				continue
			}
			if call() != nil {
				b.MarkFailed()
			} else {
				b.MarkSuccess()
			}
		}
	}
}
