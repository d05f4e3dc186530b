// Package model asks language models: the official OpenAI client for the primary, and for the second step of the fallback
// chain an extractive answerer in the process or an Ollama server.
package model

import (
	"fmt"
	"strings"

	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
)

// Request is a question and the passages to answer it from.
type Request struct {
	Question string
	Passages []corpus.Passage
}

const instructions = "Answer the question from the numbered passages alone, in two or three sentences. " +
	"Say so when they do not hold the answer."

// prompt is the user's message: the passages, then the question, which models weigh most at the end.
func (r Request) prompt() string {
	var b strings.Builder
	for i, p := range r.Passages {
		fmt.Fprintf(&b, "[%d] (%s) %s\n\n", i+1, p.Source, p.Text)
	}
	// A question of several lines could pass for a passage.
	fmt.Fprintf(&b, "\nQuestion: %s", strings.Join(strings.Fields(r.Question), " "))
	return b.String()
}

// texts returns the passages' text.
func (r Request) texts() []string {
	texts := make([]string, len(r.Passages))
	for i, p := range r.Passages {
		texts[i] = p.Text
	}
	return texts
}
