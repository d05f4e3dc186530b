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
//	POST /chat                                 {"message": "..."}: a Reply
//	GET  /health/circuit-breakers              every breaker's Status, by name
//	GET  /metrics                              the breakers for Prometheus
//	POST /admin/circuit-breakers/{name}/reset  close one; from this machine only
//	POST /admin/faults/{name}                  make an embedded upstream misbehave; from this machine only
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /chat", s.chat)
	mux.HandleFunc("GET /health/circuit-breakers", s.health)
	mux.Handle("GET /metrics", s.metrics())
	mux.HandleFunc("POST /admin/circuit-breakers/{name}/reset", fromLoopback(s.reset))
	mux.HandleFunc("POST /admin/faults/{name}", fromLoopback(s.faults))
	return http.NewCrossOriginProtection().Handler(mux) // a web page open in a browser on this machine is not its user
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

func (s *Service) health(w http.ResponseWriter, _ *http.Request) {
	all := make(map[string]breaker.Status)
	for name, b := range s.breakers.All() {
		all[name] = b.Status()
	}
	writeJSON(w, http.StatusOK, all)
}

func (s *Service) reset(w http.ResponseWriter, r *http.Request) {
	b, ok := s.breakers.Lookup(r.PathValue("name"))
	if !ok {
		writeJSON(w, http.StatusNotFound, problem{fmt.Sprintf("there is no breaker %q", r.PathValue("name"))})
		return
	}
	b.Reset("asked for over HTTP from " + r.RemoteAddr)
	writeJSON(w, http.StatusOK, b.Status())
}

// fromLoopback lets only this machine in. Behind a proxy on the same machine everyone is this machine: do not forward /admin.
func fromLoopback(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
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
