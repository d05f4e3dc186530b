// Server shows the live page in states that a test or a picture needs. It is not part of the library.
//
//	/closed/ /open/ /half-open/ /held/    a small shop's breakers in these states, with calls
//	/crowd/                               a thousand breakers, of which ten a second change their state
//	/read-only/                           as /open/, for somebody who may give no orders
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/failfast-go/breaker"
)

func main() {
	address := flag.String("addr", "127.0.0.1:0", "where to listen")
	flag.Parse()
	mux := http.NewServeMux()
	ann := breaker.Authorize(func(*http.Request) (string, bool) { return "ann", true })
	for path, play := range map[string]func(*shop){"closed": closed, "open": opened, "half-open": halfOpen, "held": held} {
		s := newShop()
		go play(s)
		mount(mux, path, s.registry.Handler(ann))
		if path == "open" {
			mount(mux, "read-only", s.registry.Handler())
		}
	}
	mount(mux, "crowd", crowd().Handler(ann))
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("http://" + listener.Addr().String())
	log.Fatal(http.Serve(listener, mux))
}

func mount(mux *http.ServeMux, path string, h http.Handler) {
	mux.Handle("/"+path+"/", http.StripPrefix("/"+path, h))
}

// shop is a handful of breakers, each called some times a second.
type shop struct {
	registry *breaker.Registry
}

var paces = map[string]float64{"llm": 24, "vectordb": 31, "payments": 12, "inventory": 18, "session-store": 44, "local-model": 6, "emails": 3, "search/Zürich": 9}

func newShop() *shop {
	file := breaker.RegistryConfig{
		Default:  breaker.Config{FailureThreshold: 8, OpenTimeout: 40 * time.Second, SlowCallDuration: 2 * time.Second, HalfOpenMaxCalls: 1},
		Services: map[string]breaker.Config{},
	}
	for name := range paces {
		file.Services[name] = file.Default
	}
	registry, err := breaker.NewRegistry(file)
	if err != nil {
		log.Fatal(err)
	}
	return &shop{registry}
}

var errs = []error{
	errors.New("POST https://api.example.com: 503 Service Unavailable: overloaded_error"), errors.New("POST https://api.example.com: 503 Service Unavailable: overloaded_error"),
	errors.New("context deadline exceeded"), errors.New("dial tcp 10.0.1.12:443: connect: connection refused"),
}

// call makes a breaker's calls from now on; ill says what share of them fails. The llm has a chain of fallbacks.
func (s *shop) call(name string, ill func() float64) {
	b := s.registry.Breaker(name)
	ask := func(context.Context, string) (string, error) {
		time.Sleep(time.Duration(20+rand.IntN(30)) * time.Millisecond)
		if rand.Float64() < ill() {
			return "", errs[rand.IntN(len(errs))]
		}
		return "an answer", nil
	}
	chain := breaker.Protect(b, ask).
		OrCache(nil, func(q string) string { return q }, time.Minute).
		OrCall("local-model", func(context.Context, string) (string, error) {
			if rand.IntN(3) == 0 {
				return "", errs[0]
			}
			return "a guess", nil
		}).OrValue("sorry")
	for {
		time.Sleep(time.Duration(float64(time.Second) * (0.5 + rand.Float64()) / paces[name]))
		go func() {
			if name == "llm" {
				_, _ = chain.Call(context.Background(), fmt.Sprint(rand.IntN(60)))
				return
			}
			_ = b.Do(context.Background(), func(ctx context.Context) error { _, err := ask(ctx, ""); return err })
		}()
	}
}

func share(f float64) func() float64 { return func() float64 { return f } }

// callAll calls every breaker; those not named in ill are well.
func (s *shop) callAll(ill map[string]func() float64) {
	for name := range paces {
		f, ok := ill[name]
		if !ok {
			f = share(0.004)
		}
		go s.call(name, f)
	}
}

func (s *shop) set(name string, cfg breaker.Config) *breaker.Breaker {
	b := s.registry.Breaker(name)
	if err := b.Apply(cfg); err != nil {
		log.Fatal(err)
	}
	return b
}

func closed(s *shop) {
	s.callAll(nil)
}

// opened has an outage of the model after some good seconds, and another service on its way to one.
func opened(s *shop) {
	s.set("llm", breaker.Config{FailureThreshold: 8, OpenTimeout: 2 * time.Minute, SlowCallDuration: 2 * time.Second})
	s.set("payments", breaker.Config{FailureThreshold: breaker.Off, SlowCallDuration: 2 * time.Second})
	start := time.Now()
	s.callAll(map[string]func() float64{
		"llm":      func() float64 { return step(time.Since(start), 20*time.Second) },
		"payments": func() float64 { return min(0.33, 0.005*time.Since(start).Seconds()) },
	})
}

func step(now, at time.Duration) float64 {
	if now < at {
		return 0.02
	}
	return 1
}

// halfOpen opens, probes in vain, and probes again, slowly enough to be seen.
func halfOpen(s *shop) {
	b := s.set("llm", breaker.Config{FailureThreshold: 5, OpenTimeout: 4 * time.Second, MaxOpenTimeout: 8 * time.Second, HalfOpenMaxCalls: 1, SuccessThreshold: 80})
	start := time.Now()
	s.callAll(map[string]func() float64{"llm": func() float64 {
		if b.State() == breaker.StateHalfOpen && time.Since(start) > 20*time.Second {
			time.Sleep(time.Second)
			return 0
		}
		return step(time.Since(start), 8*time.Second)
	}})
}

// held has one breaker forced open and one disabled, by people, with reasons.
func held(s *shop) {
	go s.callAll(map[string]func() float64{"emails": share(0.5)})
	time.Sleep(6 * time.Second)
	s.registry.Breaker("payments").ForceOpen(breaker.Hold{By: "ann", Reason: "database migration, ticket OPS-412", For: 45 * time.Minute})
	s.registry.Breaker("emails").Disable(breaker.Hold{By: "raj", Reason: "the provider's test numbers fail on purpose"})
}

// crowd is a thousand breakers of which ten a second change their state, and as many are called.
func crowd() *breaker.Registry {
	const size = 1000
	registry, err := breaker.NewRegistry(breaker.RegistryConfig{Default: breaker.Config{OpenTimeout: 20 * time.Second}})
	if err != nil {
		log.Fatal(err)
	}
	name := func(i int) string { return fmt.Sprintf("tenant-%04d <b>%d</b>", i, i%7) }
	for i := range size {
		registry.Breaker(name(i))
	}
	go func() {
		for tick := range time.Tick(100 * time.Millisecond) {
			b := registry.Breaker(name(rand.IntN(size)))
			if b.State() == breaker.StateClosed {
				b.Trip("played at " + tick.Format(time.TimeOnly))
			} else {
				b.Reset("played")
			}
			for range 20 {
				_ = registry.Breaker(name(rand.IntN(size))).Do(context.Background(), func(context.Context) error { return nil })
			}
		}
	}()
	return registry
}
