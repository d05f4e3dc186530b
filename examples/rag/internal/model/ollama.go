package model

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Ollama asks an Ollama server. It speaks its small HTTP API directly: the client package would bring the whole server's module.
type Ollama struct {
	url   string
	model string
}

// NewOllama takes what OLLAMA_HOST holds: host, host:port or a URL.
func NewOllama(host, model string) Ollama {
	if !strings.Contains(host, "://") {
		if !strings.Contains(host, ":") {
			host += ":11434"
		}
		host = "http://" + host
	}
	return Ollama{strings.TrimSuffix(host, "/") + "/api/chat", model}
}

type ollamaMessage struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Answer returns the whole answer.
func (o Ollama) Answer(ctx context.Context, r Request) (string, error) {
	body, err := json.Marshal(map[string]any{
		"model": o.model, "stream": false,
		"messages": []ollamaMessage{{"system", instructions}, {"user", r.prompt()}},
	})
	if err != nil {
		return "", fmt.Errorf("model: ollama: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url, bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("model: OLLAMA_HOST: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("model: ollama: %w", err)
	}
	defer reply.Body.Close()
	return readOllama(reply)
}

// maxReply bounds what is read of an answer: a megabyte is a book.
const maxReply = 1 << 20

func readOllama(reply *http.Response) (string, error) {
	var answer struct {
		Message ollamaMessage `json:"message"`
		Done    bool          `json:"done"`
		Error   string        `json:"error"`
	}
	err := json.NewDecoder(io.LimitReader(reply.Body, maxReply)).Decode(&answer)
	switch {
	case reply.StatusCode != http.StatusOK:
		return "", fmt.Errorf("model: ollama answered %s: %s", reply.Status, answer.Error)
	case err != nil:
		return "", fmt.Errorf("model: ollama: %w", err)
	case answer.Error != "":
		return "", fmt.Errorf("model: ollama: %s", answer.Error)
	case !answer.Done:
		return "", errCut
	case strings.TrimSpace(answer.Message.Content) == "":
		return "", errEmpty
	}
	return answer.Message.Content, nil
}
