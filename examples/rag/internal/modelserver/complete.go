package modelserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// Model is the name of the only model there is.
const Model = "extractive-1"

type completionRequest struct {
	Messages []struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	} `json:"messages"`
	Stream bool `json:"stream"`
}

func (s *Server) complete(w http.ResponseWriter, r *http.Request) {
	if s.OnRequest != nil {
		s.OnRequest()
	}
	var in completionRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&in); err != nil || len(in.Messages) == 0 {
		writeError(w, http.StatusBadRequest, "invalid_request_error", "want a JSON object with messages")
		return
	}
	f := s.Fault()
	if s.failed(w, r, f) {
		return
	}
	answer := Answer(in.Messages[len(in.Messages)-1].Content)
	if in.Stream {
		stream(w, answer, f.Kind == Cut)
		return
	}
	whole(w, answer, f.Kind == Cut)
}

// failed plays the faults that leave no answer, and the pause before one.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, f Fault) bool {
	pause := s.Thinking
	switch f.Kind {
	case ServerError:
		writeError(w, http.StatusInternalServerError, "server_error", "The server had an error while processing your request")
		return true
	case Unavailable:
		retryAfter(w, f.RetryAfter)
		writeError(w, http.StatusServiceUnavailable, "server_error", "The engine is currently overloaded, please try again later")
		return true
	case TooManyRequests:
		retryAfter(w, either(f.RetryAfter, defaultRetryAfter))
		writeError(w, http.StatusTooManyRequests, "rate_limit_exceeded", "Rate limit reached for requests")
		return true
	case Hang:
		<-r.Context().Done()
		return true
	case Slow:
		pause = either(f.Delay, defaultDelay)
	}
	select {
	case <-r.Context().Done():
		return true
	case <-time.After(pause):
		return false
	}
}

func either(set, otherwise time.Duration) time.Duration {
	if set > 0 {
		return set
	}
	return otherwise
}

// retryAfter rounds up: the header has whole seconds, and a client that comes early comes in vain.
func retryAfter(w http.ResponseWriter, d time.Duration) {
	if d > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(d.Seconds()))))
	}
}

// errCut drops the connection in the middle of an answer; net/http treats it as a plain end of the handler.
var errCut = http.ErrAbortHandler

func whole(w http.ResponseWriter, answer string, cut bool) {
	reply := map[string]any{
		"id": "chatcmpl-local", "object": "chat.completion", "created": time.Now().Unix(), "model": Model,
		"choices": []any{map[string]any{
			"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": answer},
		}},
		"usage": map[string]any{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
	}
	if !cut {
		writeJSON(w, http.StatusOK, reply)
		return
	}
	text, _ := json.Marshal(reply) // of strings and numbers: cannot fail
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	fmt.Fprintf(w, "%s", text[:len(text)/2])
	hangUp(w)
}

// hangUp sends what is written and closes the connection without an end.
func hangUp(w http.ResponseWriter) {
	if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return
	}
	panic(errCut)
}

func writeError(w http.ResponseWriter, status int, kind, message string) {
	writeJSON(w, status, map[string]any{"error": map[string]any{"message": message, "type": kind, "code": kind, "param": nil}})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone if this fails
}
