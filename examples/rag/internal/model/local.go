package model

import (
	"context"
	"errors"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/text"
)

// Answerer answers a question from its passages: [Client], [Extractive], [Ollama].
type Answerer interface {
	Answer(ctx context.Context, r Request) (string, error)
}

// Extractive answers with the best sentences of the passages. It makes nothing up, and needs nothing.
type Extractive struct{}

var errNoPassage = errors.New("model: no passage to answer from")

// Answer fails when there is no passage.
func (Extractive) Answer(ctx context.Context, r Request) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	answer := text.Extract(r.Question, r.texts(), 3)
	if answer == "" {
		return "", breaker.Ignore(errNoPassage) // no fault of the answerer's: it does not count against its breaker
	}
	return answer, nil
}
