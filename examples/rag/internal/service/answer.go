package service

import (
	"context"
	"errors"
	"time"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
	"github.com/failfast-go/breaker/examples/rag/internal/history"
)

// Answer is what the chain yields and the cache keeps.
type Answer struct {
	Text    string   `json:"text"`
	Sources []string `json:"sources"`
	Blind   bool     `json:"blind,omitempty"` // made while the vector store could not be asked; never cached
}

// Reply is the JSON answer to POST /chat.
type Reply struct {
	Response   string   `json:"response"`
	Source     string   `json:"source"`                // who answered: primary, cache, local-model, rule
	Degraded   bool     `json:"degraded"`              // less than the whole service answered
	Cause      string   `json:"cause,omitempty"`       // why, when degraded
	Age        float64  `json:"age,omitempty"`         // of a cached answer, in seconds
	RetryAfter float64  `json:"retry_after,omitempty"` // seconds until the part that failed is tried again, where known
	Sources    []string `json:"sources"`               // where the passages of the answer are from
	Saved      bool     `json:"saved"`                 // in the history; it is no part of degraded, since the answer is whole
}

// WithoutSources begins the answers that are made while the vector store is away.
const WithoutSources = "(The document search is not available, so this answer has no sources.) "

// Ask answers one question: retrieve, answer, save. The error is the model's refusal of this very question, the caller's
// cancellation, or says that every step is gone.
func (s *Service) Ask(ctx context.Context, text string) (Reply, error) {
	asked := time.Now()
	found, err := s.retrieve.Call(ctx, text)
	if err != nil {
		return Reply{}, err // the caller has left: the retrieval has a default
	}
	s.logFallback(VectorDB, found.Source, found.Degraded, found.Cause)

	q := question{text: text, passages: found.Value, blind: found.Degraded}
	answered, err := s.answer.Call(ctx, q)
	if err != nil {
		s.logGone(ctx, err)
		return Reply{}, err
	}
	s.logFallback(LLM, answered.Source, answered.Degraded, answered.Cause)

	reply := replyOf(found, answered)
	reply.Saved = s.save(ctx, history.Turn{
		AskedAt: asked, Question: text, Answer: reply.Response, Source: reply.Source, Degraded: reply.Degraded,
	})
	return reply, nil
}

func replyOf(found breaker.Result[[]corpus.Passage], answered breaker.Result[Answer]) Reply {
	cause := errors.Join(found.Cause, answered.Cause)
	r := Reply{
		Response:   answered.Value.Text,
		Source:     answered.Source,
		Degraded:   found.Degraded || answered.Degraded,
		Age:        answered.Age.Round(time.Millisecond).Seconds(),
		RetryAfter: max(retryAfter(found.Cause), retryAfter(answered.Cause)).Round(time.Millisecond).Seconds(),
		Sources:    append([]string{}, answered.Value.Sources...), // [] in JSON, never null
	}
	if cause != nil {
		r.Cause = cause.Error()
	}
	if answered.Value.Blind {
		r.Response = WithoutSources + r.Response
	}
	return r
}

func retryAfter(err error) time.Duration {
	if open, ok := errors.AsType[*breaker.OpenError](err); ok {
		return open.RetryAfter()
	}
	return 0
}
