package server

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/failfast-go/breaker"
)

// operate adds what operators need: the metrics, and the library's own page, status and orders.
func (g *Gateway) operate(mux *http.ServeMux) {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(g.registry.Collector(), g.answers, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.Handle("/", g.untilDrained(g.registry.Handler(breaker.Authorize(g.operator))))
}

// operator returns which of the admins a request is from.
func (g *Gateway) operator(r *http.Request) (who string, ok bool) {
	admin := whose(g.current.Load().admins, r)
	if admin == nil {
		return "", false
	}
	return admin.Name, true
}

// untilDrained ends what goes on by itself, the page's event streams, when the gateway is about to end.
func (g *Gateway) untilDrained(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(g.drained, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// newAnswers counts what callers were answered. A model is one of the configuration's, so there are not many series.
func newAnswers() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gateway_answers_total",
		Help: "Answers to callers, by who gave them (none where nobody could), and the status.",
	}, []string{"model", "source", "status"})
}

func (g *Gateway) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// ready says whether requests should be sent here: not while the gateway is about to end. A model whose targets are all refused
// does not change that, since it would be no better on another instance; the body says so.
func (g *Gateway) ready(w http.ResponseWriter, _ *http.Request) {
	status := http.StatusOK
	if g.drained.Err() != nil {
		status = http.StatusServiceUnavailable
	}
	models := map[string]string{}
	for name, m := range g.current.Load().models {
		models[name] = m.condition()
	}
	writeJSON(w, status, map[string]any{"ready": status == http.StatusOK, "models": models})
}

// condition says who would answer: the primary, only a fallback, or nobody.
func (m *model) condition() string {
	for i, t := range m.targets {
		if s := t.breaker.State(); s == breaker.StateOpen || s == breaker.StateForcedOpen {
			continue
		}
		if i == 0 {
			return "ok"
		}
		return "degraded"
	}
	return "unavailable"
}

type modelEntry struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func entryOf(name string) modelEntry { return modelEntry{name, "model", 0, "gateway"} }

func (g *Gateway) listModels(w http.ResponseWriter, r *http.Request) {
	s := g.current.Load()
	if !s.enter(w, r) {
		return
	}
	entries := []modelEntry{}
	for _, name := range slices.Sorted(maps.Keys(s.models)) {
		entries = append(entries, entryOf(name))
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": entries})
}

func (g *Gateway) oneModel(w http.ResponseWriter, r *http.Request) {
	s := g.current.Load()
	if !s.enter(w, r) {
		return
	}
	if name := r.PathValue("id"); s.models[name] != nil {
		writeJSON(w, http.StatusOK, entryOf(name))
		return
	}
	writeError(w, http.StatusNotFound, unknownModel(r.PathValue("id")))
}
