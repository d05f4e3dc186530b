// Package modelserver is a language model for a machine without one: an OpenAI-compatible server on a loopback port that
// answers with sentences out of the prompt, and that can be made to misbehave in the ways such servers do.
package modelserver

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server is a running server. Its methods may be called at any time by anyone.
type Server struct {
	OnRequest func()        // called as each completion request arrives, when set before the first
	Thinking  time.Duration // before an answer begins; set before the first request

	address string

	mu       sync.Mutex // guards the fields below
	fault    Fault
	serving  *http.Server // nil while refusing
	finished bool
}

// Start listens on a loopback port of the system's choice. Close ends it.
func Start() (*Server, error) {
	s := &Server{address: "127.0.0.1:0", fault: Fault{Kind: None}}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s, s.listenLocked()
}

// BaseURL is what OPENAI_BASE_URL would be for this server. It stays the same for the server's life.
func (s *Server) BaseURL() string { return "http://" + s.address + "/v1/" }

// Fault returns the fault in force.
func (s *Server) Fault() Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// SetFault replaces the fault in force. Requests that hang because of the old one stay hung, as they would.
func (s *Server) SetFault(f Fault) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished {
		return errors.New("modelserver: closed")
	}
	s.fault = f
	if f.Kind == Refuse {
		s.hangUpLocked()
		return nil
	}
	return s.listenLocked()
}

// Close drops every connection and listens no more.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	s.hangUpLocked()
}

func (s *Server) listenLocked() error {
	if s.serving != nil {
		return nil
	}
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		return fmt.Errorf("modelserver: cannot listen on loopback: %w", err)
	}
	s.address = listener.Addr().String()
	serving := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = serving.Serve(listener) }() // ends with hangUpLocked
	s.serving = serving
	return nil
}

func (s *Server) hangUpLocked() {
	if s.serving != nil {
		s.serving.Close()
		s.serving = nil
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.complete)
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []any{
			map[string]any{"id": Model, "object": "model", "created": 0, "owned_by": "breaker"},
		}})
	})
	return mux
}
