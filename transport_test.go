package breaker

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeLLM is a server on loopback, and a client whose Transport has one breaker before it. When the test is over, all its
// connections must be closed and all goroutines gone.
type fakeLLM struct {
	*httptest.Server
	b      *Breaker
	client *http.Client
}

func newFakeLLM(t *testing.T, cfg Config, serve http.HandlerFunc, opts ...TransportOption) *fakeLLM {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	var mu sync.Mutex
	conns := map[net.Conn]http.ConnState{}
	server := httptest.NewUnstartedServer(serve)
	server.Config.ConnState = func(c net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if conns[c] = s; s == http.StateClosed || s == http.StateHijacked {
			delete(conns, c)
		}
	}
	server.Start()
	reg, err := NewRegistry(RegistryConfig{Default: cfg})
	require.NoError(t, err)
	next := &http.Transport{}
	client := &http.Client{Transport: NewTransport(reg, next, opts...)}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		within(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(conns) == 0
		}, "connections are left: %v", conns)
		server.Close()
		within(t, func() bool { return runtime.NumGoroutine() <= goroutines }, "goroutines are left")
	})
	return &fakeLLM{server, reg.Breaker(server.URL), client}
}

// newFakeLLMInBubble is newFakeLLM on a fake clock: no machine is too slow for the limits of a test.
func newFakeLLMInBubble(t *testing.T, cfg Config, serve http.HandlerFunc, opts ...TransportOption) *fakeLLM {
	t.Helper()
	const url = "http://llm"
	reg, err := NewRegistry(RegistryConfig{Default: cfg})
	require.NoError(t, err)
	next := serveInBubble(t, &http.Server{Handler: serve})
	return &fakeLLM{&httptest.Server{URL: url}, reg.Breaker(url), &http.Client{Transport: NewTransport(reg, next, opts...)}}
}

// within waits for something that happens elsewhere.
func within(t *testing.T, ok func() bool, msg string, args ...any) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf(msg, args...)
		}
		time.Sleep(time.Millisecond)
	}
}

func (f *fakeLLM) post(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.URL+"/v1/chat/completions", strings.NewReader(`{"model":"m","stream":true}`))
	if err != nil {
		return nil, err
	}
	return f.client.Do(req)
}

// ask reads a whole answer.
func (f *fakeLLM) ask(t *testing.T) (resp *http.Response, body string, err error) {
	t.Helper()
	resp, err = f.post(t.Context())
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, resp.Body.Close())
	return resp, string(text), err
}

// counts are the totals of a breaker: successes, failures, ignored, in flight.
type counts struct{ Success, Failure, Ignored, InFlight int }

func (f *fakeLLM) outcomes() counts {
	m := f.b.Status().Metrics
	return counts{m.SuccessfulCalls, m.FailedCalls, m.IgnoredCalls, m.InFlight}
}

var (
	oneSuccess = counts{Success: 1}
	oneFailure = counts{Failure: 1}
	oneIgnored = counts{Ignored: 1}
)

// TestErrorAnswersHaveTheVerdictOfTheirRow is the table of verdicts, by status and body.
func TestErrorAnswersHaveTheVerdictOfTheirRow(t *testing.T) {
	const long = 10 * time.Minute
	for _, c := range []struct {
		name   string
		status int
		header http.Header
		body   string
		want   counts
		open   time.Duration // for how long; zero: stays closed
	}{
		{"400", 400, nil, `{"error":{"message":"no","type":"invalid_request_error"}}`, oneIgnored, 0},
		{"409", 409, nil, ``, oneIgnored, 0},
		{"422", 422, nil, `{"detail":[]}`, oneIgnored, 0},
		{"400 about money", 400, nil, `{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}`, oneFailure, long},
		{"400 about the key", 400, nil, `{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT"}}`, oneFailure, long},
		{"402", 402, nil, `{"error":{"message":"Insufficient credits","code":402}}`, oneFailure, long},
		{"401", 401, nil, `{"error":{"code":"invalid_api_key"}}`, oneFailure, long},
		{"403 about the key", 403, nil, `{"type":"error","error":{"type":"permission_error","message":"m"}}`, oneFailure, long},
		{"400 context length", 400, nil, `{"error":{"code":"context_length_exceeded"}}`, oneIgnored, 0},
		{"413", 413, nil, `{"type":"error","error":{"type":"request_too_large"}}`, oneIgnored, 0},
		{"400 content policy", 400, nil, `{"error":{"code":"content_policy_violation"}}`, oneIgnored, 0},
		{"404 no such model", 404, nil, `{"error":{"code":"model_not_found"}}`, oneFailure, long},
		{"404 Ollama has no such model", 404, nil, `{"error":"model 'x' not found"}`, oneFailure, long},
		{"404 otherwise", 404, nil, `404 page not found`, oneIgnored, 0},
		{"408", 408, nil, ``, oneFailure, 0},
		{"504", 504, nil, ``, oneFailure, 0},
		{"429 with Retry-After", 429, http.Header{"Retry-After": {"20"}}, `{"error":{"code":"rate_limit_exceeded"}}`, oneIgnored, 20 * time.Second},
		{"429 with retry-after-ms", 429, http.Header{"Retry-After-Ms": {"30000"}, "Retry-After": {"20"}}, ``, oneIgnored, 30 * time.Second},
		{"429 with a date", 429, http.Header{"Retry-After": {"in 40 s"}}, ``, oneIgnored, 40 * time.Second},
		{"429 with a year is bounded", 429, http.Header{"Retry-After": {"31536000"}}, ``, oneIgnored, long},
		{"429 without", 429, nil, `{"error":{"type":"rate_limit_error"}}`, oneFailure, 0},
		{"429 quota", 429, http.Header{"Retry-After": {"1"}}, `{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}`, oneFailure, long},
		{"429 credit", 429, nil, `{"error":{"code":"credit_balance_exhausted"}}`, oneFailure, long},
		{"429 spend limit", 429, nil, `{"error":{"type":"organization_spend_limit_exceeded"}}`, oneFailure, long},
		{"500", 500, nil, `{"error":"out of memory"}`, oneFailure, 0},
		{"502", 502, nil, `<html>`, oneFailure, 0},
		{"503", 503, nil, ``, oneFailure, 0},
		{"503 with Retry-After", 503, http.Header{"Retry-After": {"15"}}, ``, oneFailure, 15 * time.Second},
		{"529", 529, nil, `{"type":"error","error":{"type":"overloaded_error"}}`, oneFailure, 0},
		{"an in-band error in a document", 200, nil, `{"error":{"type":"overloaded_error","message":"Overloaded"}}`, oneFailure, 0},
		{"a document that merely has an error", 200, nil, `{"object":"response","error":null,"type":"internal"}`, oneSuccess, 0},
		{"a document with an error of its own", 200, nil, `{"error":"wrong colour"}`, oneSuccess, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			llm := newFakeLLM(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				maps.Copy(w.Header(), c.header)
				if w.Header().Get("Retry-After") == "in 40 s" {
					w.Header().Set("Retry-After", time.Now().Add(40*time.Second).UTC().Format(http.TimeFormat))
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			before := time.Now()
			resp, body, err := llm.ask(t)
			after := time.Now()
			require.NoError(t, err)
			require.Equal(t, c.status, resp.StatusCode)
			require.Equal(t, c.body, body, "the caller gets every byte")
			require.Equal(t, c.want, llm.outcomes())
			s := llm.b.Status()
			if c.open == 0 {
				require.Equal(t, StateClosed, s.State)
				return
			}
			require.Equal(t, StateOpen, s.State)
			require.Equal(t, RuleRetryAfter, s.Trip.Rule)
			const whole = time.Second // in which a date is told
			require.WithinRange(t, s.opens(), before.Add(c.open-whole), after.Add(c.open+whole))
		})
	}
}

const (
	chatChunk   = `data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}` + "\n\n"
	chatEnd     = `data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	chatDone    = "data: [DONE]\n\n"
	claudeStart = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n"
	claudeDelta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}\n\n"
	claudeStop  = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
	overloaded  = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n"
	respDelta   = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n"
	respDone    = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{}}\n\n"
	respFailed  = "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\"}}}\n\n"
	ollamaChunk = `{"model":"m","message":{"role":"assistant","content":"a"},"done":false}` + "\n"
	ollamaDone  = `{"model":"m","message":{"content":""},"done_reason":"stop","done":true,"eval_count":3}` + "\n"

	cut  = "<cut>"  // the connection is reset
	rest = "<rest>" // nothing more comes until the caller has gone
)

// stream serves the parts, each flushed.
func stream(contentType string, parts ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // from here on the server sees when its caller goes
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(http.StatusOK)
		for _, p := range parts {
			switch p {
			case cut:
				panic(http.ErrAbortHandler)
			case rest:
				<-r.Context().Done()
				return
			}
			_, _ = io.WriteString(w, p)
			w.(http.Flusher).Flush()
		}
	}
}

func silence(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

const (
	sse    = "text/event-stream; charset=utf-8"
	ndjson = "application/x-ndjson"
)

// TestStreamsAreJudgedByHowTheyEnd: the body is part of the call.
func TestStreamsAreJudgedByHowTheyEnd(t *testing.T) {
	for _, c := range []struct {
		name  string
		kind  string
		parts []string
		want  counts
	}{
		{"chat: whole", sse, []string{chatChunk, chatEnd, chatDone}, oneSuccess},
		{"chat: no [DONE], but a finish reason", sse, []string{chatChunk, chatEnd}, oneSuccess},
		{"chat: cut after its finish reason", sse, []string{chatChunk, chatEnd, cut}, oneSuccess},
		{"chat: [DONE] without a finish reason", sse, []string{chatChunk, chatDone}, oneFailure},
		{"chat: no marker", sse, []string{chatChunk, chatChunk}, oneFailure},
		{"chat: cut", sse, []string{chatChunk, cut}, oneFailure},
		{"chat: malformed event, then complete", sse, []string{chatChunk, "data: {\"choices\":[{\"del\n\n", chatEnd, chatDone}, oneSuccess},
		{"chat: malformed event, then the end", sse, []string{chatChunk, "data: {\"choices\":[{\"del\n\n"}, oneFailure},
		{"chat: an error event", sse, []string{chatChunk, "data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\"}}\n\n"}, oneFailure},
		{"chat: a mistake told late", sse, []string{"data: {\"error\":{\"message\":\"m\",\"code\":\"context_length_exceeded\"}}\n\n"}, oneIgnored},
		{"chat: finish reason error", sse, []string{chatChunk, "data: {\"error\":{\"code\":502},\"choices\":[{\"finish_reason\":\"error\"}]}\n\n"}, oneFailure},
		{"messages: whole", sse, []string{claudeStart, claudeDelta, claudeStop}, oneSuccess},
		{"messages: no marker", sse, []string{claudeStart, claudeDelta}, oneFailure},
		{"messages: only begun", sse, []string{claudeStart}, oneFailure},
		{"messages: cut", sse, []string{claudeStart, claudeDelta, cut}, oneFailure},
		{"messages: overloaded after the headers", sse, []string{claudeStart, claudeDelta, overloaded}, oneFailure},
		{"responses: whole", sse, []string{respDelta, respDone}, oneSuccess},
		{"responses: no marker", sse, []string{respDelta}, oneFailure},
		{"responses: failed", sse, []string{respDelta, respFailed}, oneFailure},
		{"Ollama: whole", ndjson, []string{ollamaChunk, ollamaDone}, oneSuccess},
		{"Ollama: no marker", ndjson, []string{ollamaChunk, ollamaChunk}, oneFailure},
		{"Ollama: cut", ndjson, []string{ollamaChunk, cut}, oneFailure},
		{"Ollama: an error line", ndjson, []string{ollamaChunk, `{"error":"llama runner terminated"}` + "\n"}, oneFailure},
		{"an empty stream", sse, nil, oneFailure},
		{"nothing but comments", sse, []string{": keep-alive\n\n"}, oneFailure},
		{"a stream of something else", sse, []string{"event: tick\ndata: 1\n\n", "data: {\"jsonrpc\":\"2.0\"}\n\n"}, oneSuccess},
		{"a document", "application/json", []string{`{"choices":[`, `{"finish_reason":"stop"}]}`}, oneSuccess},
		{"half a document, cleanly ended", "application/json", []string{`{"choices":[`}, oneFailure},
		{"a document, cut", "application/json", []string{`{"choices":[`, cut}, oneFailure},
		{"plain text", "text/plain", []string{"a", "b"}, oneSuccess},
		{"plain text, cut", "text/plain", []string{"a", cut}, oneFailure},
	} {
		t.Run(c.name, func(t *testing.T) {
			llm := newFakeLLM(t, Config{}, stream(c.kind, c.parts...))
			_, body, err := llm.ask(t)
			broken := len(c.parts) > 0 && c.parts[len(c.parts)-1] == cut
			require.Equal(t, broken, err != nil)
			require.Equal(t, strings.TrimSuffix(strings.Join(c.parts, ""), cut), body, "not a byte is changed")
			require.Equal(t, c.want, llm.outcomes())
		})
	}
}

// TestACallersCloseIsNoVerdictUnlessTheAnswerWasComplete: closed at [DONE], as the SDK of OpenAI does; half-way; unread.
func TestACallersCloseIsNoVerdictUnlessTheAnswerWasComplete(t *testing.T) {
	for _, c := range []struct {
		name  string
		kind  string
		parts []string
		until string // read so far, then Close
		want  counts
	}{
		{"at [DONE], before the end", sse, []string{chatChunk, chatEnd, chatDone, rest}, "[DONE]\n\n", oneSuccess},
		{"half-way", sse, []string{chatChunk, rest}, "null}]}\n\n", oneIgnored},
		{"unread", sse, []string{chatChunk, rest}, "", oneIgnored},
		{"after an error event", sse, []string{claudeStart, overloaded, rest}, "Overloaded\"}}\n\n", oneFailure},
		{"at the end of a JSON value", "application/json", []string{`{"a":["}"],"b":{}}`, rest}, `{}}`, oneSuccess},
		{"within a JSON value", "application/json", []string{`{"a":["}"]`, rest}, `"]`, oneIgnored},
	} {
		t.Run(c.name, func(t *testing.T) {
			llm := newFakeLLM(t, Config{}, stream(c.kind, c.parts...))
			resp, err := llm.post(t.Context())
			require.NoError(t, err)
			var got []byte
			for c.until != "" && !bytes.HasSuffix(got, []byte(c.until)) {
				p := make([]byte, 7)
				n, err := resp.Body.Read(p)
				require.NoError(t, err)
				got = append(got, p[:n]...)
			}
			require.NoError(t, resp.Body.Close())
			_ = resp.Body.Close()
			require.Equal(t, c.want, llm.outcomes())
		})
	}
}

func TestTheCallersContextOutranksTheAnswer(t *testing.T) {
	t.Run("cancelled before the headers", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		llm := newFakeLLM(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			cancel()
			silence(w, r)
		})
		_, err := llm.post(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, oneIgnored, llm.outcomes())
	})
	t.Run("a hundred callers hang up in mid-stream", func(t *testing.T) {
		llm := newFakeLLM(t, Config{}, stream(sse, chatChunk, rest))
		for range 100 {
			ctx, cancel := context.WithCancel(t.Context())
			resp, err := llm.post(ctx)
			require.NoError(t, err)
			_, err = resp.Body.Read(make([]byte, 10))
			require.NoError(t, err)
			cancel()
			_, err = io.ReadAll(resp.Body)
			require.Error(t, err)
			require.NoError(t, resp.Body.Close())
		}
		require.Equal(t, counts{Ignored: 100}, llm.outcomes())
		require.Equal(t, StateClosed, llm.b.State())
	})
	t.Run("cancelled once the answer is complete", func(t *testing.T) {
		llm := newFakeLLM(t, Config{}, stream(sse, chatChunk, chatEnd, chatDone, rest))
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := llm.post(ctx)
		require.NoError(t, err)
		_, err = io.ReadFull(resp.Body, make([]byte, len(chatChunk+chatEnd+chatDone)))
		require.NoError(t, err)
		cancel()
		_, err = io.ReadAll(resp.Body)
		require.Error(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, oneSuccess, llm.outcomes())
	})
	t.Run("its deadline is a failure, http.Client.Timeout too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			llm := newFakeLLMInBubble(t, Config{}, stream(sse, chatChunk, rest))
			llm.client.Timeout = time.Minute
			resp, err := llm.post(t.Context())
			require.NoError(t, err)
			_, err = io.ReadAll(resp.Body)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, oneFailure, llm.outcomes())
		})
	})
}

func TestNetworkErrorsAreFailures(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		llm := newFakeLLM(t, Config{}, nil)
		llm.Listener.Close()
		_, err := llm.post(t.Context())
		require.Error(t, err)
		require.Equal(t, oneFailure, llm.outcomes())
	})
	t.Run("reset before the headers", func(t *testing.T) {
		llm := newFakeLLM(t, Config{}, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		_, err := llm.post(t.Context())
		require.Error(t, err)
		require.Equal(t, oneFailure, llm.outcomes())
	})
	t.Run("a chunked body that lies", func(t *testing.T) {
		llm := newFakeLLM(t, Config{}, rawAnswer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nnot a chunk"))
		_, _, err := llm.ask(t)
		require.Error(t, err)
		require.Equal(t, oneFailure, llm.outcomes())
	})
	t.Run("shorter than its Content-Length", func(t *testing.T) {
		llm := newFakeLLM(t, Config{}, rawAnswer("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"))
		_, _, err := llm.ask(t)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.Equal(t, oneFailure, llm.outcomes())
	})
	t.Run("a caller whose own body cannot be read is his own fault", func(t *testing.T) {
		llm := newFakeLLM(t, Config{}, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		_, err := llm.client.Post(llm.URL, "text/plain", io.MultiReader(strings.NewReader("x"), errReader{}))
		require.ErrorIs(t, err, errDisk)
		require.Equal(t, oneIgnored, llm.outcomes())
	})
	t.Run("a RoundTripper that panics", func(t *testing.T) {
		reg, _ := NewRegistry(RegistryConfig{})
		tr := NewTransport(reg, roundTripper(func(*http.Request) (*http.Response, error) { panic("boom") }))
		req, _ := http.NewRequest(http.MethodGet, "http://x", nil)
		require.PanicsWithValue(t, "boom", func() { _, _ = tr.RoundTrip(req) })
		require.Equal(t, 1, reg.Breaker("http://x").Status().Metrics.FailedCalls)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

var errDisk = errors.New("disk")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errDisk }

// rawAnswer answers with these bytes and closes the connection.
func rawAnswer(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, text)
			_ = conn.Close()
		}
	}
}

func TestLimitsFailACallThatDoesNotGetOn(t *testing.T) {
	limits := []TransportOption{FirstContentLimit(15 * time.Second), StallLimit(10 * time.Second)}
	for _, c := range []struct {
		name  string
		serve http.HandlerFunc
		limit string
	}{
		{"no headers", silence, "15s"},
		{"headers, then nothing", stream(sse, rest), "15s"},
		{"comments and pings only", stream(sse, ": hello\n\n", claudeStart, rest), "15s"},
		{"a stall", stream(sse, chatChunk, rest), "10s"},
		{"a stall in which comments go on", func(w http.ResponseWriter, r *http.Request) {
			stream(sse, chatChunk)(w, r)
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, ": keep-alive\n\n")
				w.(http.Flusher).Flush()
				time.Sleep(time.Second)
			}
		}, "10s"},
		{"an error whose body does not come", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			w.(http.Flusher).Flush()
			silence(w, r)
		}, "15s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				llm := newFakeLLMInBubble(t, Config{}, c.serve, limits...)
				begun := time.Now()
				resp, err := llm.post(t.Context())
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					require.NoError(t, resp.Body.Close())
				}
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				nerr, ok := errors.AsType[net.Error](err)
				require.True(t, ok && nerr.Timeout())
				require.Equal(t, c.limit, time.Since(begun).String())
				require.Equal(t, oneFailure, llm.outcomes())
			})
		})
	}
	t.Run("a role alone is no content", func(t *testing.T) {
		begun := `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n"
		synctest.Test(t, func(t *testing.T) {
			llm := newFakeLLMInBubble(t, Config{}, stream(sse, begun, rest), FirstContentLimit(15*time.Second), StallLimit(time.Hour))
			_, _, err := llm.ask(t)
			require.EqualError(t, err, `breaker: "http://llm" sent no content for 15s`)
			require.Equal(t, oneFailure, llm.outcomes())
		})
	})
	t.Run("a caller who takes his time is no stall", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			llm := newFakeLLMInBubble(t, Config{}, stream(sse, chatChunk, chatChunk, chatEnd, chatDone), limits...)
			resp, err := llm.post(t.Context())
			require.NoError(t, err)
			for err == nil {
				time.Sleep(time.Minute)
				_, err = resp.Body.Read(make([]byte, 60))
			}
			require.Equal(t, io.EOF, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, oneSuccess, llm.outcomes())
		})
	})
}

func TestTheSlowClockStopsAtTheFirstContent(t *testing.T) {
	cfg := Config{SlowCallDuration: time.Second}
	for name, c := range map[string]struct {
		early string
		slow  int
	}{
		"content in time":     {chatChunk, 0},
		"comments in time":    {": keep-alive\n\n", 1},
		"a beginning in time": {claudeStart, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				llm := newFakeLLMInBubble(t, cfg, func(w http.ResponseWriter, r *http.Request) {
					stream(sse, c.early)(w, r)
					time.Sleep(time.Second + 1)
					_, _ = io.WriteString(w, chatChunk+chatEnd+chatDone)
				})
				_, _, err := llm.ask(t)
				require.NoError(t, err)
				require.Equal(t, oneSuccess, llm.outcomes())
				require.Equal(t, c.slow, llm.b.Status().Metrics.SlowCalls)
			})
		})
	}
}

func TestARefusalSendsNothing(t *testing.T) {
	var calls atomic.Int32
	llm := newFakeLLM(t, Config{}, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	llm.b.Trip("test")
	body := &closed{Reader: strings.NewReader("x")}
	_, err := llm.client.Post(llm.URL, "text/plain", body)
	require.True(t, body.is)
	require.True(t, IsOpen(err))
	require.ErrorIs(t, err, ErrOpen)
	refusal, _ := errors.AsType[*OpenError](err)
	require.Equal(t, llm.URL, refusal.Name)
	require.Zero(t, calls.Load())
	require.Equal(t, 1, llm.b.Status().Metrics.RejectedCalls)
	require.False(t, IsOpen(nil))
	require.False(t, IsOpen(errors.New("x")))
}

type closed struct {
	io.Reader
	is bool
}

func (c *closed) Close() error { c.is = true; return nil }

// sdkError is how the SDKs of OpenAI and Anthropic show an answer that is an error.
type sdkError struct {
	StatusCode int
	Response   *http.Response
}

func (*sdkError) Error() string { return "sdk" }

// textError is how others do.
type textError struct{ Body string }

func (e textError) Error() string { return "503: " + e.Body }

func TestARefusalCanBeAnAnswer(t *testing.T) {
	llm := newFakeLLM(t, Config{OpenTimeout: time.Hour, OpenTimeoutJitter: Off}, nil, RefuseWithResponse())
	llm.b.Trip("test")
	resp, body, err := llm.ask(t)
	require.NoError(t, err)
	require.Equal(t, 503, resp.StatusCode)
	require.Regexp(t, "^3[56]..$", resp.Header.Get("Retry-After"))
	require.Equal(t, "false", resp.Header.Get("x-should-retry"))
	require.Contains(t, body, `"type":"circuit_open"`)
	require.Contains(t, body, `breaker: \"`+llm.URL+`\" is open: a trip by hand: test`)
	for _, err := range []error{&sdkError{Response: resp}, fmt.Errorf("x: %w", &sdkError{Response: resp}), errors.Join(errDisk, &sdkError{Response: resp}), textError{body},
		&textError{body}, errors.New(body), fmt.Errorf("x: %w", errors.Join(errDisk, textError{body}))} {
		require.True(t, IsOpen(err), "%T", err)
		require.Equal(t, Verdict{Outcome: Ignored}, Classify(t.Context(), err))
	}
	w := httptest.NewRecorder()
	Fallback{}.Write(w, &sdkError{Response: resp})
	require.Equal(t, resp.Header.Get("Retry-After"), w.Header().Get("Retry-After"))
	for _, err := range []error{&sdkError{}, &sdkError{Response: &http.Response{}}, (*sdkError)(nil), textError{`{"error":{"type":"circuit_open"}}`}} {
		require.False(t, IsOpen(err), "%T", err)
	}
	head, err := llm.client.Head(llm.URL)
	require.NoError(t, err)
	require.Equal(t, http.NoBody, head.Body)
}

// TestAnSDKsErrorHasTheVerdictOfItsAnswer: Execute or Protect around an SDK sees an error that only holds the answer.
func TestAnSDKsErrorHasTheVerdictOfItsAnswer(t *testing.T) {
	llm := newFakeLLM(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	resp, _, err := llm.ask(t)
	require.NoError(t, err)
	require.Equal(t, Verdict{Ignored, 7 * time.Second}, Classify(t.Context(), &sdkError{429, resp}))
	require.Equal(t, Verdict{Outcome: Failure}, Classify(t.Context(), &sdkError{429, &http.Response{StatusCode: 429}}))
	res, err := Protect(Must(New("outer", Config{})), func(context.Context, int) (string, error) { return "", &sdkError{429, resp} }).OrValue("later").Call(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "later", res.Value)
}

func TestAClassifierOverridesTheVerdict(t *testing.T) {
	reg, err := NewRegistry(RegistryConfig{}, WithClassifier(func(_ context.Context, err error) Verdict {
		if e, ok := errors.AsType[*UpstreamError](err); ok && e.Kind == KindAccount { // keys are the callers' own
			return Verdict{Outcome: Ignored}
		}
		return Verdict{}
	}))
	require.NoError(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) }))
	defer server.Close()
	client := &http.Client{Transport: NewTransport(reg, nil)}
	defer client.CloseIdleConnections()
	resp, err := client.Get(server.URL)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	s := reg.Breaker(server.URL).Status()
	require.Equal(t, StateClosed, s.State)
	require.Equal(t, 1, s.Metrics.IgnoredCalls)
}

func TestMaxRetryAfterOffMakesEvery429AFailure(t *testing.T) {
	llm := newFakeLLM(t, Config{MaxRetryAfter: Off}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	_, _, err := llm.ask(t)
	require.NoError(t, err)
	require.Equal(t, oneFailure, llm.outcomes())
	require.Equal(t, StateClosed, llm.b.State())
}

// TestAProbeThatStreamsHoldsItsPlace until the stream has ended, or its lifetime has passed.
func TestAProbeThatStreamsHoldsItsPlace(t *testing.T) {
	cfg := Config{OpenTimeoutJitter: Off, HalfOpenMaxCalls: 1, SuccessThreshold: 1, ProbeTimeout: time.Minute}
	halfOpen := func(name string, test func(t *testing.T, llm *fakeLLM, resp *http.Response), parts ...string) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				llm := newFakeLLMInBubble(t, cfg, stream(sse, parts...))
				llm.b.Trip("test")
				time.Sleep(llm.b.Config().OpenTimeout)
				resp, err := llm.post(t.Context())
				require.NoError(t, err)
				_, err = llm.post(t.Context())
				require.True(t, IsOpen(err), "the place is taken")
				test(t, llm, resp)
				require.NoError(t, resp.Body.Close())
			})
		})
	}
	halfOpen("until its end", func(t *testing.T, llm *fakeLLM, resp *http.Response) {
		_, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, StateClosed, llm.b.State())
	}, chatChunk, chatEnd, chatDone)
	halfOpen("abandoned, until its lifetime has passed", func(t *testing.T, llm *fakeLLM, _ *http.Response) {
		time.Sleep(time.Minute - 1)
		require.Equal(t, StateHalfOpen, llm.b.State())
		time.Sleep(1)
		require.Equal(t, RuleProbeLost, llm.b.Status().Trip.Rule)
		require.Equal(t, 1, llm.b.Status().Metrics.FailedCalls)
	}, chatChunk, rest)
	chunks := slices.Repeat([]string{chatChunk}, 1000)
	halfOpen("alive for ever, until it counts as a success", func(t *testing.T, llm *fakeLLM, resp *http.Response) {
		for range chunks {
			_, err := io.ReadFull(resp.Body, make([]byte, len(chatChunk)))
			require.NoError(t, err)
			time.Sleep(time.Second)
			if llm.b.State() == StateClosed {
				break
			}
		}
		require.Equal(t, StateClosed, llm.b.State())
	}, append(chunks, rest)...)
}

func TestExecuteAroundASDKJoinsItsProbe(t *testing.T) {
	cfg := Config{OpenTimeout: time.Millisecond, MaxOpenTimeout: time.Millisecond, HalfOpenMaxCalls: 1, SuccessThreshold: 1}
	llm := newFakeLLM(t, cfg, stream(sse, chatChunk, chatEnd, chatDone))
	llm.b.Trip("test")
	within(t, func() bool { return llm.b.State() == StateHalfOpen }, "still open")
	text, err := Execute(t.Context(), llm.b, func(ctx context.Context) (string, error) {
		resp, err := llm.post(ctx)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	})
	require.NoError(t, err)
	require.Equal(t, chatChunk+chatEnd+chatDone, text)
	require.Equal(t, StateClosed, llm.b.State())
	require.Equal(t, oneSuccess, llm.outcomes(), "counted once")
}

func TestAnUpgradeIsTheCallersConnection(t *testing.T) {
	for name, opts := range map[string][]TransportOption{"": nil, "with limits": {FirstContentLimit(time.Second), StallLimit(time.Second)}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				llm := newFakeLLMInBubble(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
					conn, buf, err := w.(http.Hijacker).Hijack()
					if err != nil {
						return
					}
					defer conn.Close()
					_, _ = buf.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
					_ = buf.Flush()
					line, _ := buf.ReadString('\n')
					_, _ = io.WriteString(conn, line)
				}, opts...)
				req, err := http.NewRequest(http.MethodGet, llm.URL, nil)
				require.NoError(t, err)
				req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"echo"}}
				resp, err := llm.client.Do(req)
				require.NoError(t, err)
				require.Equal(t, oneSuccess, llm.outcomes(), "settled at the headers")
				conn, ok := resp.Body.(io.ReadWriteCloser)
				require.True(t, ok)
				time.Sleep(time.Hour) // no limit ends it
				_, err = io.WriteString(conn, "hello\n")
				require.NoError(t, err)
				line, err := bufio.NewReader(conn).ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, "hello\n", line)
				require.NoError(t, conn.Close())
			})
		})
	}
}

func TestHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(stream(sse, chatChunk, chatEnd, chatDone))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	reg, err := NewRegistry(RegistryConfig{})
	require.NoError(t, err)
	client := server.Client()
	client.Transport = NewTransport(reg, client.Transport, StallLimit(time.Minute))
	resp, err := client.Post(server.URL, "text/plain", strings.NewReader("x"))
	require.NoError(t, err)
	require.Equal(t, 2, resp.ProtoMajor)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, chatChunk+chatEnd+chatDone, string(body))
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 1, reg.Breaker(server.URL).Status().Metrics.SuccessfulCalls)
	client.CloseIdleConnections()
}

func TestAnswersWithoutABodyEndAtTheHeaders(t *testing.T) {
	for _, status := range []int{200, 204, 304, 302} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			llm := newFakeLLM(t, Config{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }, StallLimit(time.Minute))
			resp, err := llm.client.Transport.RoundTrip(httptest.NewRequest(http.MethodGet, llm.URL, nil))
			require.NoError(t, err)
			require.Equal(t, oneSuccess, llm.outcomes())
			require.NoError(t, resp.Body.Close())
		})
	}
	t.Run("HEAD", func(t *testing.T) {
		llm := newFakeLLM(t, Config{}, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "10") })
		resp, err := llm.client.Head(llm.URL)
		require.NoError(t, err)
		require.EqualValues(t, 10, resp.ContentLength)
		require.Equal(t, oneSuccess, llm.outcomes())
	})
}

func TestRequestsAndAnswersPassUnchanged(t *testing.T) {
	t.Run("trailers, early hints and Expect: 100-continue", func(t *testing.T) {
		llm := newFakeLLM(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a>")
			w.WriteHeader(http.StatusEarlyHints)
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Trailer", "Sum")
			_, _ = fmt.Fprintf(w, "%s %s", r.Header.Get("Expect"), body)
			w.(http.Flusher).Flush()
			w.Header().Set("Sum", "1")
		})
		llm.client.Transport.(*Transport).next.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
		req, err := http.NewRequest(http.MethodPut, llm.URL, strings.NewReader("body"))
		require.NoError(t, err)
		req.Header.Set("Expect", "100-continue")
		resp, err := llm.client.Do(req)
		require.NoError(t, err)
		require.Same(t, req, resp.Request)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "100-continue body", string(body))
		require.Equal(t, "1", resp.Trailer.Get("Sum"))
		require.Equal(t, oneSuccess, llm.outcomes())
	})
	t.Run("a request is sent again by GetBody when its connection had died", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { // net/http gives up a connection that a busy machine keeps it waiting for
			var calls atomic.Int32
			llm := newFakeLLMInBubble(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
				if calls.Add(1) == 2 {
					panic(http.ErrAbortHandler)
				}
				body, _ := io.ReadAll(r.Body)
				_, _ = w.Write(body)
			})
			for range 2 {
				req, err := http.NewRequest(http.MethodPut, llm.URL, strings.NewReader("body"))
				require.NoError(t, err)
				req.Header.Set("Idempotency-Key", "1")
				resp, err := llm.client.Do(req)
				require.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, "body", string(body))
				require.NoError(t, resp.Body.Close())
			}
			require.EqualValues(t, 3, calls.Load())
			require.Equal(t, counts{Success: 2}, llm.outcomes())
		})
	})
	t.Run("what is compressed is not taken for text", func(t *testing.T) {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = io.WriteString(z, chatChunk)
		require.NoError(t, z.Close())
		llm := newFakeLLM(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", sse)
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed.Bytes())
		})
		_, body, err := llm.ask(t) // net/http unpacks
		require.NoError(t, err)
		require.Equal(t, chatChunk, body)
		require.Equal(t, oneFailure, llm.outcomes(), "no marker")

		req, err := http.NewRequest(http.MethodPost, llm.URL, nil)
		require.NoError(t, err)
		req.Header.Set("Accept-Encoding", "gzip")
		resp, err := llm.client.Do(req)
		require.NoError(t, err)
		raw, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, packed.Bytes(), raw)
		require.Equal(t, counts{Failure: 1, Success: 1}, llm.outcomes())
	})
}

// TestAnEndlessErrorBodyIsNotReadAhead: a few KiB are, and the caller gets them too.
func TestAnEndlessErrorBodyIsNotReadAhead(t *testing.T) {
	llm := newFakeLLM(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		for r.Context().Err() == nil {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<16))
		}
	})
	resp, err := llm.post(t.Context())
	require.NoError(t, err)
	require.Equal(t, oneFailure, llm.outcomes(), "known before the body is read")
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte("x"), 1<<20), body)
	require.NoError(t, resp.Body.Close())
}

func TestABodyMayBeClosedWhileItIsRead(t *testing.T) {
	llm := newFakeLLM(t, Config{}, stream(sse, chatChunk, rest), StallLimit(time.Minute))
	for range 20 {
		resp, err := llm.post(t.Context())
		require.NoError(t, err)
		_, err = io.ReadFull(resp.Body, make([]byte, len(chatChunk)))
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.ReadAll(resp.Body) })
		for range 3 {
			wg.Go(func() { _ = resp.Body.Close() })
		}
		wg.Wait()
	}
	require.Equal(t, counts{Ignored: 20}, llm.outcomes())
}

func TestUpstreamsAreNamed(t *testing.T) {
	reg, err := NewRegistry(RegistryConfig{})
	require.NoError(t, err)
	for url, want := range map[string]string{
		"https://API.openai.com/v1?key=secret": "https://api.openai.com",
		"https://api.openai.com:443/":          "https://api.openai.com",
		"http://u:p@localhost:11434/api":       "http://localhost:11434",
		"http://[::1]:80/":                     "http://[::1]",
	} {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		require.NoError(t, err)
		require.Equal(t, want, NewTransport(reg, nil).upstream(req))
		byModel := NewTransport(reg, nil, NameUpstream(func(r *http.Request) string { return r.Header.Get("Model") }))
		require.Equal(t, want, byModel.upstream(req))
		req.Header.Set("Model", "m")
		require.Equal(t, "m", byModel.upstream(req))
	}
}

func TestATransportThatCannotWorkSaysSo(t *testing.T) {
	body := &closed{Reader: strings.NewReader("")}
	req := httptest.NewRequest(http.MethodPost, "http://x", body)
	_, err := NewTransport(nil, nil).RoundTrip(req)
	require.EqualError(t, err, "breaker: this Transport has no Registry: give NewTransport one")
	require.True(t, body.is)
	reg, _ := NewRegistry(RegistryConfig{})
	_, err = NewTransport(reg, nil, nil).RoundTrip(&http.Request{})
	require.EqualError(t, err, "breaker: the request has no URL")
	none := NewTransport(reg, roundTripper(func(*http.Request) (*http.Response, error) { return nil, nil }))
	resp, err := none.RoundTrip(req)
	require.True(t, resp == nil && err == nil)
	require.Equal(t, 1, reg.Breaker("http://x").Status().Metrics.FailedCalls)
	NewTransport(reg, roundTripper(nil)).CloseIdleConnections()
}

// TestAnEventIsHandedOnAsItComes: each is read before the next is sent.
func TestAnEventIsHandedOnAsItComes(t *testing.T) {
	next := make(chan struct{})
	llm := newFakeLLM(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		stream(sse)(w, r)
		for _, p := range []string{chatChunk, chatChunk[:20], chatChunk[20:], chatEnd, chatDone} {
			_, _ = io.WriteString(w, p)
			w.(http.Flusher).Flush()
			<-next
		}
	}, StallLimit(time.Minute))
	resp, err := llm.post(t.Context())
	require.NoError(t, err)
	for _, p := range []string{chatChunk, chatChunk[:20], chatChunk[20:], chatEnd, chatDone} {
		got := make([]byte, len(p))
		_, err := io.ReadFull(resp.Body, got)
		require.NoError(t, err)
		require.Equal(t, p, string(got))
		next <- struct{}{}
	}
	_, err = resp.Body.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, oneSuccess, llm.outcomes())
}

// TestTheStallClockRunsOnlyDuringRead, in simulated time: a caller who is slow himself uses up nothing of the limit.
func TestTheStallClockRunsOnlyDuringRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := io.Pipe()
		reg, err := NewRegistry(RegistryConfig{})
		require.NoError(t, err)
		var cancelled atomic.Bool
		tr := NewTransport(reg, roundTripper(func(r *http.Request) (*http.Response, error) {
			context.AfterFunc(r.Context(), func() {
				cancelled.Store(true)
				_ = to.CloseWithError(context.Canceled)
			})
			return &http.Response{StatusCode: 200, ContentLength: -1, Header: http.Header{"Content-Type": {sse}}, Body: from, Request: r}, nil
		}), FirstContentLimit(10*time.Second), StallLimit(time.Second))
		req, err := http.NewRequest(http.MethodPost, "http://x", nil)
		require.NoError(t, err)
		resp, err := tr.RoundTrip(req)
		require.NoError(t, err)
		read := func(after time.Duration, text string) error {
			if text != "" {
				go func() {
					time.Sleep(after)
					_, _ = io.WriteString(to, text)
				}()
			}
			_, err := resp.Body.Read(make([]byte, 1000))
			return err
		}
		time.Sleep(time.Hour)
		require.NoError(t, read(9*time.Second, claudeStart))
		time.Sleep(time.Hour)
		require.NoError(t, read(900*time.Millisecond, claudeDelta), "within what is left of ten seconds")
		for range 3 {
			time.Sleep(time.Hour)
			require.NoError(t, read(900*time.Millisecond, claudeDelta))
		}
		require.NoError(t, read(600*time.Millisecond, ": comment\n\n"))
		require.False(t, cancelled.Load())
		begun := time.Now()
		err = read(0, "")
		require.EqualError(t, err, `breaker: "http://x" sent no content for 1s`)
		require.Equal(t, 400*time.Millisecond, time.Since(begun), "the comment was no content")
		require.Equal(t, 1, reg.Breaker("http://x").Status().Metrics.FailedCalls)
		require.NoError(t, resp.Body.Close())
	})
}

// TestContentAtTheInstantOfItsLimit comes in time or too late; the race detector sees whether the two meet.
func TestContentAtTheInstantOfItsLimit(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			llm := newFakeLLMInBubble(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
				stream(sse)(w, r)
				w.(http.Flusher).Flush()
				time.Sleep(time.Second)
				_, _ = io.WriteString(w, chatChunk+chatEnd+chatDone)
			}, FirstContentLimit(time.Second), StallLimit(time.Minute))
			_, _, err := llm.ask(t)
			if err != nil {
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			}
			require.Equal(t, 1, llm.b.Status().Metrics.TotalCalls)
		})
	}
}

func TestAnAnswerClosedUnreadIsASuccessUnlessItIsAStream(t *testing.T) {
	for kind, want := range map[string]counts{"text/plain": oneSuccess, "application/json": oneSuccess, sse: oneIgnored} {
		llm := newFakeLLM(t, Config{}, stream(kind, "{", rest))
		resp, err := llm.post(t.Context())
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, want, llm.outcomes(), kind)
	}
}

// TestWhatIsKnownCountsAtOnce: an error need not end for its verdict.
func TestWhatIsKnownCountsAtOnce(t *testing.T) {
	t.Run("an error event", func(t *testing.T) {
		llm := newFakeLLM(t, Config{}, stream(sse, claudeStart, overloaded, rest))
		resp, err := llm.post(t.Context())
		require.NoError(t, err)
		_, err = io.ReadFull(resp.Body, make([]byte, len(claudeStart+overloaded)))
		require.NoError(t, err)
		require.Equal(t, oneFailure, llm.outcomes())
		require.NoError(t, resp.Body.Close())
	})
	t.Run("an error answer whose JSON is whole", func(t *testing.T) {
		llm := newFakeLLM(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"error":{"type":"overloaded_error"}}`)
			w.(http.Flusher).Flush()
			silence(w, r)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		resp, err := llm.post(ctx)
		require.NoError(t, err)
		require.NoError(t, ctx.Err(), "it did not wait for more")
		require.Equal(t, oneFailure, llm.outcomes())
		require.NoError(t, resp.Body.Close())
	})
}
