package clients

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/ollama/ollama/api"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/responses"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/failfast-go/breaker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// caller is one way to use one SDK: it asks a question and returns the answer's text.
type caller struct {
	name  string
	ask   func(ctx context.Context, c *http.Client, base string) (string, error)
	kind  string   // of the answer's body
	parts []string // of a whole answer, in its wire format; the last is the marker
	error string   // an error in its midst, in that format
}

const (
	sse = "text/event-stream"

	chatChunk   = `data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"blue"},"finish_reason":null}]}` + "\n\n"
	chatEnd     = `data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n" + "data: [DONE]\n\n"
	claudeStart = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[]}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n" +
		"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
	claudeChunk = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"blue\"}}\n\n"
	claudeEnd   = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
	respChunk   = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"blue\"}\n\n"
	respEnd     = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\"}}\n\n"
	ollamaChunk = `{"model":"m","message":{"role":"assistant","content":"blue"},"done":false}` + "\n"
	ollamaEnd   = `{"model":"m","message":{"role":"assistant","content":""},"done_reason":"stop","done":true}` + "\n"
)

var streams = []caller{
	{"openai chat", streamChat, sse, []string{chatChunk, chatEnd}, `data: {"error":{"message":"m","type":"server_error","code":"server_error"}}` + "\n\n"},
	{"openai responses", streamResponses, sse, []string{respChunk, respEnd}, "event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"m\"}\n\n"},
	{"anthropic messages", streamMessages, sse, []string{claudeStart, claudeChunk, claudeEnd}, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n"},
	{"ollama chat", streamOllama, "application/x-ndjson", []string{ollamaChunk, ollamaEnd}, `{"error":"llama runner terminated"}` + "\n"},
}

var wholes = []caller{
	{"openai chat", askChat, "application/json", []string{`{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"blue"},"finish_reason":"stop"}]}`}, ""},
	{"openai responses", askResponses, "application/json", []string{`{"id":"r","object":"response","status":"completed","error":null,"output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"blue"}]}]}`}, ""},
	{"anthropic messages", askMessages, "application/json", []string{`{"id":"m","type":"message","role":"assistant","content":[{"type":"text","text":"blue"}],"stop_reason":"end_turn"}`}, ""},
	{"ollama chat", askOllama, "application/json", []string{`{"model":"m","message":{"role":"assistant","content":"blue"},"done":true}`}, ""},
}

var (
	chatParams     = openai.ChatCompletionNewParams{Model: "m", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("what colour is the sky?")}}
	responseParams = responses.ResponseNewParams{Model: "m", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("what colour is the sky?")}}
	messageParams  = anthropic.MessageNewParams{Model: "m", MaxTokens: 10, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("what colour is the sky?"))}}
)

func ollamaRequest(stream bool) *api.ChatRequest {
	return &api.ChatRequest{Model: "m", Stream: &stream, Messages: []api.Message{{Role: "user", Content: "what colour is the sky?"}}}
}

func streamChat(ctx context.Context, c *http.Client, base string) (text string, err error) {
	client := OpenAI(c, base, "key")
	stream := client.Chat.Completions.NewStreaming(ctx, chatParams)
	defer stream.Close()
	for stream.Next() {
		for _, choice := range stream.Current().Choices {
			text += choice.Delta.Content
		}
	}
	return text, stream.Err()
}

func streamResponses(ctx context.Context, c *http.Client, base string) (text string, err error) {
	client := OpenAI(c, base, "key")
	stream := client.Responses.NewStreaming(ctx, responseParams)
	defer stream.Close()
	for stream.Next() {
		if e, ok := stream.Current().AsAny().(responses.ResponseTextDeltaEvent); ok {
			text += e.Delta
		}
	}
	return text, stream.Err()
}

func streamMessages(ctx context.Context, c *http.Client, base string) (text string, err error) {
	client := Anthropic(c, base, "key")
	stream := client.Messages.NewStreaming(ctx, messageParams)
	defer stream.Close()
	for stream.Next() {
		if e, ok := stream.Current().AsAny().(anthropic.ContentBlockDeltaEvent); ok {
			text += e.Delta.Text
		}
	}
	return text, stream.Err()
}

func chatOllama(ctx context.Context, c *http.Client, base string, stream bool) (text string, err error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	err = Ollama(c, u).Chat(ctx, ollamaRequest(stream), func(r api.ChatResponse) error {
		text += r.Message.Content
		return nil
	})
	return text, err
}

func streamOllama(ctx context.Context, c *http.Client, base string) (string, error) {
	return chatOllama(ctx, c, base, true)
}

func askOllama(ctx context.Context, c *http.Client, base string) (string, error) {
	return chatOllama(ctx, c, base, false)
}

func askChat(ctx context.Context, c *http.Client, base string) (string, error) {
	client := OpenAI(c, base, "key")
	res, err := client.Chat.Completions.New(ctx, chatParams)
	if err != nil {
		return "", err
	}
	return res.Choices[0].Message.Content, nil
}

func askResponses(ctx context.Context, c *http.Client, base string) (string, error) {
	client := OpenAI(c, base, "key")
	res, err := client.Responses.New(ctx, responseParams)
	if err != nil {
		return "", err
	}
	return res.OutputText(), nil
}

func askMessages(ctx context.Context, c *http.Client, base string) (string, error) {
	client := Anthropic(c, base, "key")
	res, err := client.Messages.New(ctx, messageParams)
	if err != nil {
		return "", err
	}
	return res.Content[0].Text, nil
}

// upstream is a server on loopback with one breaker before it.
type upstream struct {
	*httptest.Server
	b     *breaker.Breaker
	reg   *breaker.Registry
	calls atomic.Int32
}

func serve(t testing.TB, answer http.HandlerFunc) *upstream {
	t.Helper()
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.calls.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		answer(w, r)
	}))
	t.Cleanup(u.Close)
	var err error
	u.reg, err = breaker.NewRegistry(breaker.RegistryConfig{})
	require.NoError(t, err)
	u.b = u.reg.Breaker(u.URL)
	return u
}

func (u *upstream) client(t testing.TB, opts ...breaker.TransportOption) *http.Client {
	next := &http.Transport{}
	c := &http.Client{Transport: breaker.NewTransport(u.reg, next, opts...)}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func (u *upstream) outcomes() [4]int {
	m := u.b.Status().Metrics
	return [...]int{m.SuccessfulCalls, m.FailedCalls, m.IgnoredCalls, m.InFlight}
}

// write sends the parts, each flushed.
func write(w http.ResponseWriter, kind string, parts ...string) {
	w.Header().Set("Content-Type", kind)
	for _, p := range parts {
		_, _ = io.WriteString(w, p)
		w.(http.Flusher).Flush()
	}
}

func TestAHealthyUpstreamIsASuccess(t *testing.T) {
	for _, c := range append(streams, wholes...) {
		t.Run(c.name+" "+c.kind, func(t *testing.T) {
			u := serve(t, func(w http.ResponseWriter, _ *http.Request) { write(w, c.kind, c.parts...) })
			text, err := c.ask(t.Context(), u.client(t), u.URL)
			require.NoError(t, err)
			require.Equal(t, "blue", text)
			require.Equal(t, [...]int{1, 0, 0, 0}, u.outcomes())
		})
	}
}

// refusing is a server behind an open breaker, and a client that gets an answer from that breaker.
func refusing(t testing.TB) (*upstream, *http.Client) {
	u := serve(t, func(http.ResponseWriter, *http.Request) {})
	u.b.ForceOpen(breaker.Hold{})
	return u, u.client(t, breaker.RefuseWithResponse())
}

// TestAnOpenBreakerCostsOneAttempt, and the SDK's own error is known as a refusal. What it costs is BenchmarkARefusal.
func TestAnOpenBreakerCostsOneAttempt(t *testing.T) {
	for _, c := range append(streams, wholes...) {
		t.Run(c.name+" "+c.kind, func(t *testing.T) {
			u, client := refusing(t)
			_, err := c.ask(t.Context(), client, u.URL)
			require.True(t, breaker.IsOpen(err), "%T: %v", err, err)
			require.Equal(t, breaker.Ignored, breaker.Classify(t.Context(), err).Outcome)
			require.Equal(t, 1, u.b.Status().Metrics.RejectedCalls)
			require.Zero(t, u.calls.Load())
		})
	}
}

// BenchmarkARefusal is what an open breaker costs a caller through each SDK: less than a millisecond, but for the 8 MB that
// Ollama's client puts aside for every answer.
func BenchmarkARefusal(b *testing.B) {
	for _, c := range append(streams, wholes...) {
		b.Run(c.name+" "+c.kind, func(b *testing.B) {
			u, client := refusing(b)
			for b.Loop() {
				_, _ = c.ask(b.Context(), client, u.URL)
			}
			require.Equal(b, b.N, u.b.Status().Metrics.RejectedCalls, "one attempt each")
		})
	}
}

func TestARefusalAsAnErrorIsKnownToo(t *testing.T) {
	for _, c := range wholes {
		t.Run(c.name, func(t *testing.T) {
			u := serve(t, func(http.ResponseWriter, *http.Request) {})
			u.b.Trip("test")
			_, err := c.ask(t.Context(), u.client(t), u.URL)
			require.True(t, breaker.IsOpen(err))
			require.ErrorIs(t, err, breaker.ErrOpen)
			require.Zero(t, u.calls.Load())
		})
	}
}

// TestStreamsThatGoWrong is what the breaker makes of what the SDKs do not all notice.
func TestStreamsThatGoWrong(t *testing.T) {
	for _, c := range streams {
		last := len(c.parts) - 1
		for _, end := range []struct {
			name   string
			answer http.HandlerFunc
			wrong  bool // the SDK says so, too
			limits []breaker.TransportOption
		}{
			{"cut half-way", func(w http.ResponseWriter, _ *http.Request) {
				write(w, c.kind, c.parts[:last]...)
				panic(http.ErrAbortHandler)
			}, c.name != "ollama chat", nil}, // its Chat drops the error of its bufio.Scanner
			{"clean end without a marker", func(w http.ResponseWriter, _ *http.Request) {
				write(w, c.kind, c.parts[:last]...)
			}, false, nil},
			{"an error event after a 200", func(w http.ResponseWriter, _ *http.Request) {
				write(w, c.kind, append(c.parts[:last:last], c.error)...)
			}, c.name != "openai responses", nil}, // its Next hands the event on like others
			{"a stall", func(w http.ResponseWriter, r *http.Request) {
				write(w, c.kind, c.parts[:last]...)
				<-r.Context().Done()
			}, c.name != "ollama chat", []breaker.TransportOption{breaker.StallLimit(100 * time.Millisecond)}},
		} {
			t.Run(c.name+": "+end.name, func(t *testing.T) {
				u := serve(t, end.answer)
				_, err := c.ask(t.Context(), u.client(t, end.limits...), u.URL)
				require.Equal(t, end.wrong, err != nil, "%v", err)
				require.Equal(t, [...]int{0, 1, 0, 0}, u.outcomes())
				require.EqualValues(t, 1, u.calls.Load())
			})
		}
	}
}

// TestOpenAIClosesAtDone: before the end of the body, which never comes here.
func TestOpenAIClosesAtDone(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		write(w, sse, chatChunk, chatEnd)
		<-r.Context().Done()
	})
	text, err := streamChat(t.Context(), u.client(t), u.URL)
	require.NoError(t, err)
	require.Equal(t, "blue", text)
	require.Equal(t, [...]int{1, 0, 0, 0}, u.outcomes())
}

func TestAStreamThatIsLeftIsNoVerdict(t *testing.T) {
	for name, leave := range map[string]func(stop func() error, cancel func()){
		"closed":    func(stop func() error, _ func()) { _ = stop() },
		"cancelled": func(_ func() error, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			u := serve(t, func(w http.ResponseWriter, r *http.Request) {
				write(w, sse, chatChunk)
				<-r.Context().Done()
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			client := OpenAI(u.client(t), u.URL, "key")
			stream := client.Chat.Completions.NewStreaming(ctx, chatParams)
			require.True(t, stream.Next())
			leave(stream.Close, cancel)
			require.False(t, stream.Next())
			require.Equal(t, [...]int{0, 0, 1, 0}, u.outcomes())
		})
	}
}

// TestAnAbandonedProbeLosesItsPlaceInTime: neither read on nor closed, it gives no sign at all.
func TestAnAbandonedProbeLosesItsPlaceInTime(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		write(w, sse, claudeStart, claudeChunk)
		<-r.Context().Done()
	})
	require.NoError(t, u.b.Apply(breaker.Config{OpenTimeout: time.Millisecond, MaxOpenTimeout: time.Millisecond, HalfOpenMaxCalls: 1, ProbeTimeout: 200 * time.Millisecond}))
	u.b.Trip("test")
	require.Eventually(t, func() bool { return u.b.State() == breaker.StateHalfOpen }, time.Minute, time.Millisecond)
	client := Anthropic(u.client(t), u.URL, "key")
	stream := client.Messages.NewStreaming(t.Context(), messageParams)
	require.True(t, stream.Next())
	require.Eventually(t, func() bool { return u.b.Status().Trip.Rule == breaker.RuleProbeLost }, time.Minute, time.Millisecond)
	require.Equal(t, [...]int{0, 1, 0, 0}, u.outcomes())
	require.NoError(t, stream.Close())
}

// TestAnErrorAnswerHasItsVerdictThroughTheSDK, for a breaker around the SDK as well.
func TestAnErrorAnswerHasItsVerdictThroughTheSDK(t *testing.T) {
	for _, c := range wholes[:3] { // Ollama's errors hold no answer
		t.Run(c.name, func(t *testing.T) {
			u := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"type":"error","error":{"type":"invalid_request_error","message":"no","code":"context_length_exceeded"}}`)
			})
			_, err := c.ask(t.Context(), u.client(t), u.URL)
			require.Error(t, err)
			require.False(t, breaker.IsOpen(err))
			require.Equal(t, breaker.Verdict{Outcome: breaker.Ignored}, breaker.Classify(t.Context(), err))
			require.Equal(t, [...]int{0, 0, 1, 0}, u.outcomes())
		})
	}
}

func TestClientIsSetUpForSDKs(t *testing.T) {
	u := serve(t, func(http.ResponseWriter, *http.Request) {})
	u.b.Trip("test")
	c := Client(u.reg, nil)
	_, err := askChat(t.Context(), c, u.URL)
	require.True(t, breaker.IsOpen(err))
	e, ok := errors.AsType[*openai.Error](err)
	require.True(t, ok)
	require.Equal(t, http.StatusServiceUnavailable, e.StatusCode)
}
