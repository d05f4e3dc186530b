// Package server is the gateway itself: callers in front, providers behind, and the decision who is asked next in between.
//
// The breakers, what an answer means to them and how long a provider may be silent are the business of [breaker.Transport], one
// for each target. The gateway only reads what came back and decides what to do for the caller.
package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/gateway/internal/config"
)

// Gateway is an http.Handler.
type Gateway struct {
	log      *zap.Logger
	registry *breaker.Registry
	upstream *http.Transport // the connections to all providers, kept over reloads
	handler  http.Handler
	connect  atomic.Int64 // the limit, a time.Duration
	drained  context.Context
	drain    context.CancelFunc
	answers  *prometheus.CounterVec

	reload  sync.Mutex // held while a new setup is made
	current atomic.Pointer[setup]
}

// New returns a gateway for cfg. It opens no connection and starts no goroutine.
func New(cfg *config.Config, log *zap.Logger) (*Gateway, error) {
	g := &Gateway{log: log, answers: newAnswers()}
	g.drained, g.drain = context.WithCancel(context.Background())
	registry, err := breaker.NewRegistry(cfg.Breakers, breaker.WithLogger(log), breaker.WithErrorText(g.errorText))
	if err != nil {
		return nil, err
	}
	g.registry = registry
	dialer := &net.Dialer{KeepAlive: 30 * time.Second}
	g.upstream = &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Duration(g.connect.Load()))
			defer cancel()
			return dialer.DialContext(ctx, network, address)
		},
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true,    // what comes is passed on as it is
		MaxIdleConnsPerHost: 1 << 14, // as many as there were streams at once
		IdleConnTimeout:     90 * time.Second,
	}
	g.install(cfg)
	g.handler = g.routes()
	return g, nil
}

// Apply changes the configuration of a running gateway. Requests in progress go on under the old one; breakers keep their state.
// After an error nothing has changed.
func (g *Gateway) Apply(cfg *config.Config) error {
	g.reload.Lock()
	defer g.reload.Unlock()
	if err := g.registry.Apply(cfg.Breakers); err != nil {
		return err
	}
	g.install(cfg)
	for name := range g.registry.All() {
		if _, ok := cfg.Breakers.Services[name]; !ok {
			g.registry.Remove(name)
		}
	}
	return nil
}

func (g *Gateway) install(cfg *config.Config) {
	g.connect.Store(int64(cfg.Limits.Connect))
	g.current.Store(newSetup(cfg, g.current.Load(), g.registry, g.upstream))
}

// errorText is what a breaker lists an error under. A provider that names its key as its error's code does not get it through.
func (g *Gateway) errorText(err error) string {
	return string(g.current.Load().redact([]byte(err.Error())))
}

// Registry returns the breakers, one for each target, named provider/model.
func (g *Gateway) Registry() *breaker.Registry { return g.registry }

// Drain makes /ready say no, so that no new requests are sent here, and ends the page's event streams. Everything else goes on.
func (g *Gateway) Drain() { g.drain() }

// Close closes the idle connections to the providers.
func (g *Gateway) Close() { g.upstream.CloseIdleConnections() }

// ServeHTTP answers a request. A body has its time from here on: also one that nobody will read, since net/http reads some of it
// before it closes the connection.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w) // whose errors mean that there is no connection to wait for
	_ = control.SetWriteDeadline(time.Time{})
	if r.ContentLength != 0 {
		_ = control.SetReadDeadline(time.Now().Add(g.current.Load().cfg.Limits.Caller))
	}
	g.handler.ServeHTTP(w, r)
}

func (g *Gateway) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", g.chat)
	mux.HandleFunc("POST /v1/embeddings", g.embeddings)
	mux.HandleFunc("GET /v1/models", g.listModels)
	mux.HandleFunc("GET /v1/models/{id...}", g.oneModel)
	mux.HandleFunc("GET /health", g.health)
	mux.HandleFunc("GET /ready", g.ready)
	mux.HandleFunc("/v1/", nothingHere)
	for path, method := range map[string]string{
		"/v1/chat/completions": http.MethodPost, "/v1/embeddings": http.MethodPost, "/v1/models": readOnly, "/v1/models/{id...}": readOnly,
		"/health": readOnly, "/ready": readOnly, "/metrics": readOnly,
	} {
		mux.HandleFunc(path, wantsMethod(method))
	}
	g.operate(mux)
	return mux
}

const readOnly = "GET, HEAD"

// wantsMethod answers requests whose path is right and whose method is not: the page, which takes all that is left, would say that
// nothing is there.
func wantsMethod(allow string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allow)
		writeError(w, http.StatusMethodNotAllowed, problem{
			Message: fmt.Sprintf("%.20q is not for this path: want %s", r.Method, allow), Type: "invalid_request_error", Code: "method_not_allowed",
		})
	}
}

// nothingHere answers what clients of OpenAI's API may ask for and this gateway does not have, in the form that they read.
func nothingHere(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusNotFound, problem{
		Message: fmt.Sprintf("nothing is at %.100q: want POST /v1/chat/completions, POST /v1/embeddings or GET /v1/models", r.URL.Path),
		Type:    "invalid_request_error", Code: "not_found",
	})
}
