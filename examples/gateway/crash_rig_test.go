package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/gateway/internal/config"
	"github.com/failfast-go/breaker/examples/gateway/internal/faultserver"
	"github.com/failfast-go/breaker/examples/gateway/internal/server"
)

// rig is a gateway that listens, in front of two providers that fail as they are told.
type rig struct {
	t                 *testing.T
	url               string
	primary, fallback *faultserver.Server
	registry          *breaker.Registry
	http              *http.Client
}

// models of a rig. The primary of each has room for 8,000 tokens. The fallbacks of chat are spare, which has room for less, and
// roomy, which has room for more.
const rigConfig = `
callers: [{name: team, key_env: TEAM_KEY}]
providers:
  one: {base_url: %q, key_env: ONE_KEY, format: %s}
  two: {base_url: %q, key_env: TWO_KEY}
models:
  chat:
    primary: {provider: one, model: large, context: 8000}
    fallbacks:
      - {provider: two, model: spare, context: 4000}
      - {provider: two, model: roomy, context: 100000}
  alone:
    primary: {provider: one, model: large, context: 8000}
  last:
    primary: {provider: one, model: large, context: 8000}
    last_resort: {text: "Ask again later."}
retry: {backoff: 10ms}
`

const (
	teamKey = "team-key-0123456789"
	oneKey  = "sk-one-0123456789abcdef"
	twoKey  = "sk-two-0123456789abcdef"
)

func rigEnv(name string) (string, bool) {
	key, ok := map[string]string{"TEAM_KEY": teamKey, "ONE_KEY": oneKey, "TWO_KEY": twoKey}[name]
	return key, ok
}

// patient is what a rig is, but where a test sets its own limits or breakers: no machine is so slow that a limit or the end of
// an open period comes where the test does not wait for it.
const (
	patientLimits   = "limits: {headers: 10m, first_content: 10m, between_contents: 10m, answer: 10m, request: 30m}\n"
	patientBreakers = "circuit_breaker: {default: {timeout_seconds: 3600, max_timeout_seconds: 3600}}\n"
)

func patient(settings string) string {
	if !strings.Contains(settings, "limits:") {
		settings += patientLimits
	}
	if !strings.Contains(settings, "circuit_breaker:") {
		settings += patientBreakers
	}
	return settings
}

func newRig(t *testing.T, settings string, primary, fallback faultserver.Chooser) *rig {
	return newRigFor(t, config.OpenAI, settings, primary, fallback)
}

// newRigFor is newRig with a primary of another format.
func newRigFor(t *testing.T, format, settings string, primary, fallback faultserver.Chooser) *rig {
	r := &rig{t: t, primary: startUpstream(t, primary), fallback: startUpstream(t, fallback)}
	text := fmt.Sprintf(rigConfig, r.primary.URL, format, r.fallback.URL) + patient(settings)
	cfg, err := config.Parse([]byte(text), rigEnv)
	require.NoError(t, err)
	g, err := server.New(cfg, zap.NewNop())
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, g, zap.NewNop()) }()
	r.url, r.registry = "http://"+listener.Addr().String(), g.Registry()
	r.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}}
	t.Cleanup(func() {
		r.http.CloseIdleConnections()
		stop()
		require.NoError(t, <-ended)
		g.Close()
	})
	return r
}

func startUpstream(t *testing.T, choose faultserver.Chooser) *faultserver.Server {
	s, err := faultserver.Start(choose)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// reply is what a caller got.
type reply struct {
	Text, Model, Finish string
	Usage               int64 // total tokens
	Err                 error // nil for what the caller takes for a success
	Header              http.Header
	Took                time.Duration
}

func (r reply) source() string   { return r.Header.Get("X-Breaker-Source") }
func (r reply) attempts() string { return r.Header.Get("X-Breaker-Attempts") }

// problem is the error in the gateway's words.
func (r reply) problem(t *testing.T) *openai.Error {
	t.Helper()
	require.Error(t, r.Err)
	p, ok := errors.AsType[*openai.Error](r.Err)
	require.True(t, ok, "want an answer of the gateway with an error: %v", r.Err)
	return p
}

// ask calls as users do: with the official client, its own retries and all.
func (r *rig) ask(model string, stream bool) reply {
	return r.askWith(context.Background(), openai.ChatCompletionNewParams{
		Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hello")},
		StreamOptions: openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)},
	}, stream)
}

func (r *rig) askWith(ctx context.Context, params openai.ChatCompletionNewParams, stream bool) (got reply) {
	var response *http.Response
	client := openai.NewClient(option.WithBaseURL(r.url+"/v1"), option.WithAPIKey(teamKey), option.WithHTTPClient(r.http), option.WithResponseInto(&response))
	begun := time.Now()
	if stream {
		got = streamed(ctx, &client, params)
	} else {
		params.StreamOptions = openai.ChatCompletionStreamOptionsParam{}
		got = whole(ctx, &client, params)
	}
	got.Took = time.Since(begun)
	if response != nil {
		got.Header = response.Header
	}
	return got
}

func whole(ctx context.Context, client *openai.Client, params openai.ChatCompletionNewParams) (got reply) {
	answer, err := client.Chat.Completions.New(ctx, params)
	if got.Err = err; err != nil {
		return got
	}
	got.Model, got.Usage = answer.Model, answer.Usage.TotalTokens
	for _, c := range answer.Choices {
		got.Text, got.Finish = c.Message.Content, c.FinishReason
	}
	return got
}

func streamed(ctx context.Context, client *openai.Client, params openai.ChatCompletionNewParams) (got reply) {
	stream := client.Chat.Completions.NewStreaming(ctx, params)
	defer stream.Close()
	for stream.Next() {
		chunk := stream.Current()
		got.Model, got.Usage = chunk.Model, max(got.Usage, chunk.Usage.TotalTokens)
		for _, c := range chunk.Choices {
			got.Text += c.Delta.Content
			got.Finish = c.FinishReason
		}
	}
	got.Err = stream.Err()
	return got
}

// raw is what came over the wire, and how the body ended.
type raw struct {
	Status int
	Header http.Header
	Body   string
	Err    error // nil for a clean end
}

// post sends a request as a caller without an SDK does, who sees what an SDK may hide.
func (r *rig) post(ctx context.Context, path, body string) raw {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+path, strings.NewReader(body))
	require.NoError(r.t, err)
	req.Header.Set("Authorization", "Bearer "+teamKey)
	resp, err := r.http.Do(req)
	if err != nil {
		return raw{Err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return raw{resp.StatusCode, resp.Header, string(text), err}
}

func (r *rig) chat(model string, stream bool) raw {
	return r.post(context.Background(), "/v1/chat/completions", chatBody(model, stream))
}

func chatBody(model string, stream bool) string {
	return fmt.Sprintf(`{"model":%q,"stream":%t,"messages":[{"role":"user","content":"hello"}]}`, model, stream)
}

func (r *rig) breaker(name string) breaker.Status {
	r.t.Helper()
	b, ok := r.registry.Lookup(name)
	require.True(r.t, ok, name)
	return b.Status()
}

// The providers' words.

// saying is a whole and correct answer in the form that the request asks for.
func saying(words ...string) faultserver.Chooser {
	return func(r faultserver.Request) faultserver.Answer {
		var asked struct {
			Model  string
			Stream bool
		}
		_ = json.Unmarshal(r.Body, &asked) // the gateway's
		if !asked.Stream {
			return faultserver.Whole(200, completion(asked.Model, words...))
		}
		return faultserver.Answer{faultserver.EventStream(), faultserver.Events(events(asked.Model, words...)...), faultserver.LastChunk()}
	}
}

// then gives the first requests these answers, and the others what next says.
func then(next faultserver.Chooser, first ...faultserver.Answer) faultserver.Chooser {
	return func(r faultserver.Request) faultserver.Answer {
		if r.N < len(first) {
			return first[r.N]
		}
		return next(r)
	}
}

func always(a faultserver.Answer) faultserver.Chooser {
	return func(faultserver.Request) faultserver.Answer { return a }
}

func completion(model string, words ...string) string {
	return fmt.Sprintf(`{"id":"c","object":"chat.completion","created":1,"model":%q,"choices":[{"index":0,"message":{"role":"assistant",`+
		`"content":%q},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}}`,
		model, strings.Join(words, ""), len(words), len(words)+1)
}

func chunk(model, rest string) string {
	return fmt.Sprintf(`{"id":"c","object":"chat.completion.chunk","created":1,"model":%q,%s}`, model, rest)
}

func said(model, word string) string {
	return chunk(model, fmt.Sprintf(`"choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]`, word))
}

func role(model string) string {
	return chunk(model, `"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]`)
}

func finished(model string) string {
	return chunk(model, `"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]`)
}

func used(model string, words int) string {
	return chunk(model, fmt.Sprintf(`"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}`, words, words+1))
}

// events are those of a whole answer.
func events(model string, words ...string) []string {
	all := []string{role(model)}
	for _, w := range words {
		all = append(all, said(model, w))
	}
	return append(all, finished(model), used(model, len(words)), "[DONE]")
}

// complaint is a provider's error in OpenAI's format.
func complaint(status int, kind, code, message string, fields ...string) faultserver.Answer {
	return faultserver.Whole(status, fmt.Sprintf(`{"error":{"message":%q,"type":%q,"code":%q}}`, message, kind, code), fields...)
}
