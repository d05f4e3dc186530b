// Package embedded is an upstream for a gateway that has none: an OpenAI-compatible server on a loopback port with two models that
// repeat what they are told, one of which can be told to fail.
package embedded

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Config is the gateway's configuration for this upstream. It has one %s: the base URL.
const Config = `callers:
  - {name: demo, key_env: GATEWAY_DEMO_KEY}
admins:
  - {name: demo, key_env: GATEWAY_DEMO_KEY}
providers:
  embedded: {base_url: "%s"}
models:
  demo:
    primary: {provider: embedded, model: large}
    fallbacks:
      - {provider: embedded, model: small}
    last_resort:
      text: "No model can answer at the moment."
`

// Key is the caller's and the operator's key of Config.
const Key = "demo"

// Upstream is a running server.
type Upstream struct {
	server *http.Server
	url    string
}

// Start listens on a loopback port of the system's choice. Close ends it.
func Start() (*Upstream, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("embedded: cannot listen on loopback: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /chat/completions", complete)
	mux.HandleFunc("POST /embeddings", embed)
	u := &Upstream{&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, "http://" + listener.Addr().String()}
	go func() { _ = u.server.Serve(listener) }() // ends with Close
	return u, nil
}

// Close drops every connection.
func (u *Upstream) Close() { u.server.Close() }

// Config returns the configuration of a gateway in front of this server.
func (u *Upstream) Config() []byte { return fmt.Appendf(nil, Config, u.url) }

// Env knows the key of Config.
func Env(name string) (string, bool) { return Key, name == "GATEWAY_DEMO_KEY" }

func complete(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Model    string
		Stream   bool
		Messages []struct{ Content string }
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&in); err != nil || len(in.Messages) == 0 {
		reply(w, http.StatusBadRequest, map[string]any{"error": map[string]any{"message": "want messages with text", "type": "invalid_request_error"}})
		return
	}
	said := in.Messages[len(in.Messages)-1].Content
	if in.Model == "large" && strings.Contains(said, "fail") {
		reply(w, http.StatusServiceUnavailable, map[string]any{"error": map[string]any{"message": "told to fail", "type": "server_error"}})
		return
	}
	answer := fmt.Sprintf("The %s model heard: %s", in.Model, said)
	if in.Stream {
		stream(w, in.Model, answer)
		return
	}
	reply(w, http.StatusOK, map[string]any{
		"id": "chatcmpl-embedded", "object": "chat.completion", "created": time.Now().Unix(), "model": in.Model,
		"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": answer}}},
		"usage":   usage(said, answer),
	})
}

func stream(w http.ResponseWriter, model, answer string) {
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(delta map[string]any, finish any) {
		text, _ := json.Marshal(map[string]any{ // of strings and numbers: cannot fail
			"id": "chatcmpl-embedded", "object": "chat.completion.chunk", "created": time.Now().Unix(), "model": model,
			"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}},
		})
		fmt.Fprintf(w, "data: %s\n\n", text)
		http.NewResponseController(w).Flush()
	}
	for _, word := range strings.SplitAfter(answer, " ") {
		send(map[string]any{"content": word}, nil)
	}
	send(map[string]any{}, "stop")
	fmt.Fprint(w, "data: [DONE]\n\n")
}

func embed(w http.ResponseWriter, r *http.Request) {
	var in struct{ Model string }
	_ = json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&in) // the answer is the same for anything
	reply(w, http.StatusOK, map[string]any{
		"object": "list", "model": in.Model, "usage": map[string]int{"prompt_tokens": 1, "total_tokens": 1},
		"data": []any{map[string]any{"object": "embedding", "index": 0, "embedding": []float64{0.6, 0.8}}},
	})
}

func usage(question, answer string) map[string]int {
	q, a := len(strings.Fields(question)), len(strings.Fields(answer))
	return map[string]int{"prompt_tokens": q, "completion_tokens": a, "total_tokens": q + a}
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone if this fails
}
