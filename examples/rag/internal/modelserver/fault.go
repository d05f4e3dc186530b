package modelserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Fault is how the server misbehaves until another is set.
type Fault struct {
	Kind       Kind
	RetryAfter time.Duration // of TooManyRequests, and of Unavailable when set: the header's value, in whole seconds
	Delay      time.Duration // of Slow: how long before the answer; zero means 3 s
}

// Kind names a way to misbehave.
type Kind string

const (
	None            Kind = "none"   // answers
	ServerError     Kind = "500"    // 500 with an error body
	Unavailable     Kind = "503"    // 503 with an error body
	TooManyRequests Kind = "429"    // 429 with Retry-After
	Hang            Kind = "hang"   // accepts the request and never answers
	Slow            Kind = "slow"   // answers, after Delay
	Cut             Kind = "cut"    // begins an answer and drops the connection in the middle
	Refuse          Kind = "refuse" // listens no more, and drops what is connected
)

var kinds = []Kind{None, ServerError, Unavailable, TooManyRequests, Hang, Slow, Cut, Refuse}

const (
	defaultDelay      = 3 * time.Second
	defaultRetryAfter = 2 * time.Second
)

// ParseFault reads {"fault": "429", "retry_after": "2s", "delay": "3s"}, of which only the first is required.
func ParseFault(text []byte) (Fault, error) {
	var in struct {
		Fault      Kind   `json:"fault"`
		RetryAfter string `json:"retry_after"`
		Delay      string `json:"delay"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return Fault{}, fmt.Errorf(`modelserver: want {"fault": KIND}, KIND one of %s: %w`, kindList(), err)
	}
	if !slices.Contains(kinds, in.Fault) {
		return Fault{}, fmt.Errorf("modelserver: fault %q is not one of %s", in.Fault, kindList())
	}
	f := Fault{Kind: in.Fault}
	for _, field := range []struct {
		key, text string
		into      *time.Duration
	}{{"retry_after", in.RetryAfter, &f.RetryAfter}, {"delay", in.Delay, &f.Delay}} {
		if field.text == "" {
			continue
		}
		d, err := time.ParseDuration(field.text)
		if err != nil || d <= 0 {
			return Fault{}, fmt.Errorf(`modelserver: %s %q is not a duration above zero, such as "2s"`, field.key, field.text)
		}
		*field.into = d
	}
	return f, nil
}

func kindList() string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

// ServeFault sets the fault that the request's body names; see [ParseFault]. It is not part of the server's own address, where
// Refuse would lock it out: mount it elsewhere.
func (s *Server) ServeFault(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4096))
	if err != nil {
		http.Error(w, "modelserver: a fault is short", http.StatusRequestEntityTooLarge)
		return
	}
	f, err := ParseFault(text)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := s.SetFault(f); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"fault": f.Kind})
}
