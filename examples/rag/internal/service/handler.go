package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/model"
)

// Handler serves the API:
//
//	POST /chat                                   {"message": "..."}: a Reply
//	GET  /                                       the breakers' live page
//	GET  /health/circuit-breakers                every breaker's Status, by name, or a stream of events
//	GET  /metrics                                the breakers for Prometheus
//	POST /admin/circuit-breakers/{name}/{order}  reset, trip, force-open, disable, release; from this machine only
//	POST /admin/faults/{name}                    make an embedded upstream misbehave; from this machine only
//
// Streams of events end when ctx is done.
func (s *Service) Handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /chat", s.chat)
	mux.Handle("GET /metrics", s.metrics())
	mux.HandleFunc("POST /admin/faults/{name}", fromLoopback(s.faults))
	mux.Handle("/", endWith(ctx, s.breakers.Handler(breaker.Authorize(loopback))))
	return http.NewCrossOriginProtection().Handler(mux) // a web page open in a browser on this machine is not its user
}

// endWith ends requests when ctx is done too: the live page keeps one open for good, and Shutdown waits for every one.
func endWith(ctx context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		both, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		next.ServeHTTP(w, r.WithContext(both))
	})
}

const (
	maxBody    = 64 << 10
	maxMessage = 4000
)

func (s *Service) chat(w http.ResponseWriter, r *http.Request) {
	message, err := readMessage(w, r)
	if err != nil {
		writeJSON(w, http.StatusBadRequest, problem{err.Error()})
		return
	}
	reply, err := s.Ask(r.Context(), message)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, reply)
}

type problem struct {
	Error string `json:"error"`
}

func readMessage(w http.ResponseWriter, r *http.Request) (string, error) {
	var in struct {
		Message string `json:"message"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
		return "", fmt.Errorf(`want a JSON object {"message": "..."} of at most %d bytes`, maxBody)
	}
	message := strings.TrimSpace(in.Message)
	if message == "" || len(message) > maxMessage {
		return "", fmt.Errorf("message has %d bytes: want 1 to %d", len(message), maxMessage)
	}
	return message, nil
}

// refuse answers for a question that no step of the chain answered.
func (s *Service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(r.Context().Err(), context.Canceled) {
		return // nobody is there to read it
	}
	if status, reason, ok := model.Rejected(err); ok {
		writeJSON(w, status, problem{"the model does not take this question: " + reason})
		return
	}
	s.fallback.Write(w, err)
}

// loopback lets only this machine in, under its address. Behind a proxy on the same machine everyone is this machine: do not
// forward /admin.
func loopback(r *http.Request) (who string, ok bool) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	return host, err == nil && ip != nil && ip.IsLoopback()
}

func fromLoopback(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, ok := loopback(r); !ok {
			writeJSON(w, http.StatusForbidden, problem{"only from this machine"})
			return
		}
		next(w, r)
	}
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone if this fails
}
