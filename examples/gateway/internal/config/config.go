// Package config reads the gateway's YAML file. It is strict: what is wrong with a file is one error that lists everything with
// its line, key, value and what is allowed. The section circuit_breaker is the breaker library's own, in its own syntax.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/failfast-go/breaker"
)

// Config is a gateway's configuration, complete: what the file leaves out has its default here.
type Config struct {
	Listen          string
	MaxRequestBytes int64
	Callers         []Key // who may ask, in the order of the file
	Admins          []Key // who may operate the breakers; may be empty
	Providers       map[string]Provider
	Models          map[string]Model // by the name that callers use
	Limits          Limits
	Retry           Retry
	Breakers        breaker.RegistryConfig // its services are the targets of Models, all of them
}

// Key is a key that callers show, and who shows it. The key itself is not kept, only its hash.
type Key struct {
	Name  string
	Hash  [32]byte // SHA-256
	Rate  float64  // requests a second; 0 for no limit
	Burst int      // requests at once
}

// The formats of providers.
const (
	OpenAI    = "openai"
	Anthropic = "anthropic"
	Ollama    = "ollama"
)

// Provider is a server with models.
type Provider struct {
	Name    string
	BaseURL string         // without a slash at its end
	Key     breaker.Secret // empty for none
	Format  string         // OpenAI, Anthropic or Ollama
}

// Model is a name that callers use and what stands behind it.
type Model struct {
	Name    string
	Targets []Target // the primary, then the fallbacks in their order
	Last    LastResort
}

// Target is a provider's model.
type Target struct {
	Name         string // of its breaker: provider/model
	Provider     string
	Model        string   // as the provider calls it
	Context      int      // tokens; 0 when not known
	Capabilities []string // nil when not declared: whatever the format can express
}

// The capabilities that a target may declare.
const (
	Tools  = "tools"
	Images = "images"
	JSON   = "json" // response_format
)

// LastResort is what is said when no target can answer. The zero value says nothing.
type LastResort struct {
	Rules []Rule
	Text  string // empty for none
}

// Rule answers with Text when the last message of the user contains one of the words, in any case.
type Rule struct {
	Contains []string
	Text     string
}

// Matches reports whether the rule is for a text in lower case.
func (r Rule) Matches(text string) bool {
	return slices.ContainsFunc(r.Contains, func(word string) bool { return strings.Contains(text, word) })
}

// Limits bounds what a caller waits for. All are above zero.
type Limits struct {
	Connect         time.Duration // until a connection to a provider stands
	Headers         time.Duration // of a streamed answer, from the start of the attempt
	FirstContent    time.Duration // of a streamed answer, from the start of the attempt
	BetweenContents time.Duration // of a streamed answer
	Answer          time.Duration // an attempt whose answer is not streamed, until its last byte
	Request         time.Duration // everything together
	Caller          time.Duration // how long the caller may take to send its request, or to take a piece of the answer
}

// Retry says how an attempt is repeated on the same target.
type Retry struct {
	Max      int           // more attempts on the same target; 0 for none
	Backoff  time.Duration // before them, doubled each time; the pause is random, between half of it and the whole
	MaxWait  time.Duration // a longer Retry-After is not waited for
	Attempts int           // of one request, on all targets together
}

// Defaults are what the gateway uses where the file says nothing.
//
// The breaker's differ from the library's own in four settings. Three failures open, not five: each is a caller who waited for
// nothing while a fallback stood ready. One probe at a time, and one success closes: an answer followed to its last event is
// strong evidence, and each probe is a caller who waits. The open period does not double: the primary is what the operator
// wants to be used, and one probe in 30 s costs little. So a primary that is dead for a minute gets four calls, three to open
// the breaker and one after 30 s, and is used again 30 s after its recovery at the latest (33 s with the jitter).
func Defaults() Config {
	return Config{
		Listen:          "127.0.0.1:8080",
		MaxRequestBytes: 10 << 20,
		Limits: Limits{
			Connect: 3 * time.Second, Headers: 15 * time.Second, FirstContent: 30 * time.Second, BetweenContents: 20 * time.Second,
			Answer: time.Minute, Request: 5 * time.Minute, Caller: 30 * time.Second,
		},
		Retry: Retry{Max: 1, Backoff: 200 * time.Millisecond, MaxWait: 2 * time.Second, Attempts: 4},
		Breakers: breaker.RegistryConfig{Default: breaker.Config{
			FailureThreshold: 3, HalfOpenMaxCalls: 1, SuccessThreshold: 1, OpenTimeout: 30 * time.Second, MaxOpenTimeout: 30 * time.Second,
		}},
	}
}

// Error lists everything that is wrong with a file.
type Error struct {
	Path     string // empty for content from memory
	Problems []breaker.Problem
}

// Error has one problem a line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("gateway: invalid configuration")
	if e.Path != "" {
		b.WriteString(" in " + e.Path)
	}
	if len(e.Problems) == 1 {
		return b.String() + ": " + e.Problems[0].String()
	}
	fmt.Fprintf(&b, ": %d problems:", len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n\t" + p.String())
	}
	return b.String()
}

const maxFile = 4 << 20

// Load reads the file at path; see Parse. It returns also the content that it read.
func Load(path string, env func(string) (string, bool)) (c *Config, content []byte, err error) {
	if content, err = Read(path); err != nil {
		return nil, nil, err
	}
	c, err = Parse(content, env)
	if invalid, ok := errors.AsType[*Error](err); ok {
		invalid.Path = path
	}
	return c, content, err
}

// Read returns the content of the file at path, a little more than is allowed at most.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("gateway: reading the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("gateway: reading the configuration: %w", err)
	}
	return data, nil
}
