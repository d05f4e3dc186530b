package server

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/failfast-go/breaker/examples/gateway/internal/config"
)

// provider is an upstream on loopback that answers as it is told, each request by the next of its answers, the last for good.
type provider struct {
	*httptest.Server

	mu      sync.Mutex
	answers []http.HandlerFunc
	asked   []asked
}

// asked is a request that a provider got.
type asked struct {
	path, body string
	header     http.Header
}

func newProvider(t *testing.T, answers ...http.HandlerFunc) *provider {
	t.Helper()
	p := &provider{answers: answers}
	p.Server = httptest.NewServer(p)
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
	})
	return p
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p.mu.Lock()
	p.asked = append(p.asked, asked{r.URL.Path, string(body), r.Header.Clone()})
	next := p.answers[0]
	if len(p.answers) > 1 {
		p.answers = p.answers[1:]
	}
	p.mu.Unlock()
	next(w, r)
}

func (p *provider) set(answers ...http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = answers
}

func (p *provider) requests() []asked {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]asked(nil), p.asked...)
}

func (p *provider) calls() int { return len(p.requests()) }

// says is a whole answer in OpenAI's format.
func says(model, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":"x","object":"chat.completion","created":1,"model":%q,"choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`, model, text)
	}
}

// fails is an error in OpenAI's format, with headers as pairs.
func fails(status int, code, message string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":{"message":%q,"type":"some_error","param":null,"code":%q}}`, message, code)
	}
}

// streams sends each part at once, as it is. A part "wait" waits for the caller to go; "cut" breaks the connection.
func streams(parts ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		control := http.NewResponseController(w)
		control.Flush()
		for _, part := range parts {
			switch part {
			case "wait":
				<-r.Context().Done()
				return
			case "cut":
				panic(http.ErrAbortHandler)
			}
			io.WriteString(w, part)
			control.Flush()
		}
	}
}

func delta(text string) string {
	return fmt.Sprintf(`data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"served","choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]}`+"\n\n", text)
}

const (
	roleEvent   = `data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"served","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n"
	finishEvent = `data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"served","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	doneEvent   = "data: [DONE]\n\n"
)

const (
	callerKey   = "key-of-the-caller"
	providerKey = "key-of-the-provider-0123456789"
)

func environment(name string) (string, bool) {
	v, ok := map[string]string{"CALLER_KEY": callerKey, "PROVIDER_KEY": providerKey, "ADMIN_KEY": "key-of-the-admin"}[name]
	return v, ok
}

// gateway is a running gateway with one model, "chat", whose primary and fallback are two providers.
type gateway struct {
	*Gateway
	server *httptest.Server
	logs   *observer.ObservedLogs
	config string
}

// limitsForTests are such that no machine is too slow for them. Where a test waits for one, it is that which short names.
const limitsForTests = `
limits: {headers: 1m, first_content: 1m, between_contents: 1m, answer: 1m, request: 5m, caller: 1m}
retry: {backoff: 1ms}
`

// short replaces limits of a configuration, such as "answer: 1s", by theirs.
func short(text string, limits ...string) string {
	for _, l := range limits {
		name, _, _ := strings.Cut(l, ":")
		text = strings.Replace(text, name+": 1m", l, 1)
	}
	return text
}

// prompt is less than any limit that is not shortened, and more than a machine takes for what waits for none.
const prompt = 30 * time.Second

// start runs a gateway with a configuration in which {a}, {b} and {c} are the base URLs of providers.
func start(t *testing.T, text string, providers ...*provider) *gateway {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	g := &gateway{logs: logs, config: text}
	made, err := New(parse(t, text, providers...), zap.New(core))
	require.NoError(t, err)
	g.Gateway = made
	g.server = httptest.NewServer(made)
	t.Cleanup(func() {
		g.server.Close()
		made.Close()
	})
	return g
}

func parse(t *testing.T, text string, providers ...*provider) *config.Config {
	t.Helper()
	for i, p := range providers {
		text = strings.ReplaceAll(text, "{"+string(rune('a'+i))+"}", p.URL)
	}
	cfg, err := config.Parse([]byte(text), environment)
	require.NoError(t, err)
	return cfg
}

const two = `
callers: [{name: team, key_env: CALLER_KEY}]
providers:
  one: {base_url: "{a}/v1", key_env: PROVIDER_KEY}
  two: {base_url: "{b}/v1"}
models:
  chat:
    primary: {provider: one, model: large, context: 1000}
    fallbacks: [{provider: two, model: small, context: 1000}]
` + limitsForTests

// reply is what a caller got.
type reply struct {
	status int
	header http.Header
	body   string
	err    error // of the body
	took   time.Duration
}

func (g *gateway) post(t *testing.T, path, body string) reply {
	t.Helper()
	began := time.Now()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.server.URL+path, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+callerKey)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(answer), err, time.Since(began)}
}

func (g *gateway) ask(t *testing.T) reply { return g.post(t, "/v1/chat/completions", plain) }

func (g *gateway) askStream(t *testing.T) reply { return g.post(t, "/v1/chat/completions", streamed) }

const (
	plain    = `{"model":"chat","messages":[{"role":"user","content":"hi"}]}`
	streamed = `{"model":"chat","stream":true,"messages":[{"role":"user","content":"hi"}]}`
)

func (r reply) source(t *testing.T, source, attempts string) {
	t.Helper()
	require.NoError(t, r.err)
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.Equal(t, source, r.header.Get("x-breaker-source"))
	require.Equal(t, fmt.Sprint(source != "primary"), r.header.Get("x-breaker-degraded"))
	require.Equal(t, attempts, r.header.Get("x-breaker-attempts"))
}
