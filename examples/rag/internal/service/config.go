// Package service is the chat service: an HTTP API that retrieves passages, answers from them and saves the conversation,
// each through a breaker of its own.
package service

import (
	"cmp"
	_ "embed"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
)

// Config says what the service stands on. The zero value of a field means the embedded form of that upstream.
type Config struct {
	File *breaker.File // breakers and fallback; nil means the embedded breakers.yaml
	Data string        // directory of SQLite and of the vector index; must be set
	Log  *zap.Logger   // nil logs nothing

	Index    string           // directory of the vector index; empty: vectors, under Data
	Passages []corpus.Passage // what to answer from; nil: the documents of this machine

	OpenAIBaseURL string // of an OpenAI-compatible server; empty: one in this process, answering out of the prompt
	OpenAIKey     string
	OpenAIModel   string // empty: gpt-4o-mini, or the embedded server's
	OllamaHost    string // empty: sentences picked in this process
	OllamaModel   string // empty: llama3.2
	DatabaseURL   string // of PostgreSQL; empty: SQLite under Data
	RedisURL      string // empty: the process's memory

	Limits Limits

	// NoBreakers holds every breaker disabled: calls are admitted and counted, nothing is ever refused.
	NoBreakers bool

	// Reached, when set, is called with a breaker's name as a call arrives at the embedded upstream behind it.
	Reached func(name string)

	// Cache, when set, replaces the one of RedisURL.
	Cache breaker.Cache[Answer]
}

// Limits bound what a user waits for. Zero means the default.
type Limits struct {
	Model    time.Duration // all attempts at the model together; 20 s
	Local    time.Duration // the local model; 2 s, and 20 s for Ollama
	Retrieve time.Duration // 1 s
	Save     time.Duration // 1 s
}

func (l Limits) withDefaults(ollama bool) Limits {
	local := 2 * time.Second
	if ollama {
		local = 20 * time.Second
	}
	return Limits{
		Model:    cmp.Or(l.Model, 20*time.Second),
		Local:    cmp.Or(l.Local, local),
		Retrieve: cmp.Or(l.Retrieve, time.Second),
		Save:     cmp.Or(l.Save, time.Second),
	}
}

//go:embed breakers.yaml
var breakersYAML []byte

func (c Config) file() (*breaker.File, error) {
	if c.File != nil {
		return c.File, nil
	}
	return breaker.ParseFile(breakersYAML)
}

func (c Config) historyFile() string { return filepath.Join(c.Data, "history.db") }
func (c Config) vectorsDir() string  { return cmp.Or(c.Index, filepath.Join(c.Data, "vectors")) }

// FromEnvironment fills in the upstreams that getenv names: OPENAI_BASE_URL, OPENAI_API_KEY, OPENAI_MODEL, OLLAMA_HOST,
// OLLAMA_MODEL, DATABASE_URL and REDIS_URL.
func (c Config) FromEnvironment(getenv func(string) string) Config {
	c.OpenAIBaseURL, c.OpenAIKey, c.OpenAIModel = getenv("OPENAI_BASE_URL"), getenv("OPENAI_API_KEY"), getenv("OPENAI_MODEL")
	c.OllamaHost, c.OllamaModel = getenv("OLLAMA_HOST"), getenv("OLLAMA_MODEL")
	c.DatabaseURL, c.RedisURL = getenv("DATABASE_URL"), getenv("REDIS_URL")
	return c
}
