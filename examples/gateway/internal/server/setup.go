package server

import (
	"net/http"

	"golang.org/x/time/rate"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/gateway/internal/config"
	"github.com/failfast-go/breaker/examples/gateway/internal/wire"
)

// setup is what a configuration makes of a gateway. It does not change; a reload makes another.
type setup struct {
	cfg     *config.Config
	callers []caller
	admins  []caller
	models  map[string]*model
	secrets []string // the providers' keys, which no answer may hold
}

type model struct {
	config.Model
	targets []*target
}

// target is a provider's model and how to ask it.
type target struct {
	config.Target
	breaker *breaker.Breaker
	dialect wire.Dialect
	baseURL string
	header  http.Header       // of every request to it, with the key
	stream  http.RoundTripper // through the breaker, with the limits of a streamed answer
	whole   http.RoundTripper // the same breaker, with those of one in a piece
}

func newSetup(cfg *config.Config, before *setup, registry *breaker.Registry, upstream http.RoundTripper) *setup {
	s := &setup{cfg: cfg, callers: callersOf(cfg.Callers, before), admins: callersOf(cfg.Admins, nil), models: map[string]*model{}}
	for _, p := range cfg.Providers {
		if p.Key != "" {
			s.secrets = append(s.secrets, string(p.Key))
		}
	}
	targets := map[string]*target{}
	for name, m := range cfg.Models {
		made := &model{Model: m}
		for _, t := range m.Targets {
			if targets[t.Name] == nil {
				targets[t.Name] = newTarget(t, cfg, registry, upstream)
			}
			own := *targets[t.Name]
			own.Target = t // the same target may be declared with another context in another model
			made.targets = append(made.targets, &own)
		}
		s.models[name] = made
	}
	return s
}

func newTarget(t config.Target, cfg *config.Config, registry *breaker.Registry, upstream http.RoundTripper) *target {
	p := cfg.Providers[t.Provider]
	header := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"breaker-gateway"}}
	switch {
	case p.Format == config.Anthropic:
		header.Set("anthropic-version", "2023-06-01")
		if p.Key != "" {
			header.Set("x-api-key", string(p.Key))
		}
	case p.Key != "":
		header.Set("Authorization", "Bearer "+string(p.Key))
	}
	own := &target{Target: t, breaker: registry.Breaker(t.Name), dialect: wire.For(p.Format), baseURL: p.BaseURL, header: header}
	own.whole, own.stream = transports(t.Name, cfg.Limits, registry, upstream)
	return own
}

// caller is somebody with a key.
type caller struct {
	config.Key
	limiter *rate.Limiter // nil for no limit
}

// callersOf keeps the limiters of callers whose limit has not changed.
func callersOf(keys []config.Key, before *setup) []caller {
	all := make([]caller, len(keys))
	for i, k := range keys {
		all[i].Key = k
		if k.Rate == 0 {
			continue
		}
		all[i].limiter = rate.NewLimiter(rate.Limit(k.Rate), k.Burst)
		for j := range before.callersOrNone() {
			if old := &before.callers[j]; old.Name == k.Name && old.Rate == k.Rate && old.Burst == k.Burst {
				all[i].limiter = old.limiter
			}
		}
	}
	return all
}

func (s *setup) callersOrNone() []caller {
	if s == nil {
		return nil
	}
	return s.callers
}
