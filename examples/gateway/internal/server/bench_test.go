package server

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/failfast-go/breaker/examples/gateway/internal/config"
)

// BenchmarkOverhead compares the gateway with httputil.ReverseProxy, and no proxy at all, before the same upstream on loopback.
func BenchmarkOverhead(b *testing.B) {
	up := httptest.NewServer(http.HandlerFunc(answer))
	b.Cleanup(up.Close)
	target, err := url.Parse(up.URL)
	require.NoError(b, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 1 << 14, DisableCompression: true}
	cfg, err := config.Parse(fmt.Appendf(nil, `
callers: [{name: a, key_env: KEY}]
providers: {up: {base_url: "%s/v1", key_env: KEY}}
models: {m: {primary: {provider: up, model: m}}}
`, up.URL), func(string) (string, bool) { return "secret", true })
	require.NoError(b, err)
	g, err := New(cfg, zap.NewNop())
	require.NoError(b, err)
	for _, stream := range []bool{false, true} {
		for _, front := range []struct {
			name    string
			handler http.Handler
		}{{"none", http.HandlerFunc(answer)}, {"ReverseProxy", proxy}, {"gateway", g}} {
			b.Run(fmt.Sprintf("stream=%v/%s", stream, front.name), func(b *testing.B) { load(b, front.handler, stream) })
		}
	}
}

const question = `{"model":"m","stream":%v,"temperature":0.2,"messages":[{"role":"system","content":"You are helpful."},{"role":"user","content":"Say something about circuit breakers, please."}]}`

func load(b *testing.B, h http.Handler, stream bool) {
	front := httptest.NewServer(h)
	defer front.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1 << 14, DisableCompression: true}}
	body := fmt.Sprintf(question, stream)
	b.SetParallelism(32)
	before := processorTime(b)
	defer func() { b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op") }()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, _ := http.NewRequest(http.MethodPost, front.URL+"/v1/chat/completions", strings.NewReader(body))
			r.Header.Set("Authorization", "Bearer secret")
			resp, err := client.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			n, err := io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err != nil || n < 100 || resp.StatusCode != 200 {
				b.Errorf("%d bytes, status %d, %v", n, resp.StatusCode, err)
				return
			}
		}
	})
}

// processorTime is that of callers, gateway and upstream together, and does not depend on what else the machine does.
func processorTime(b *testing.B) int64 {
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return used.Utime.Nano() + used.Stime.Nano()
}

// answer is an upstream that says two hundred words, if asked for a stream in fifty events.
func answer(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if !strings.Contains(string(body), `"stream":true`) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":200,"total_tokens":220}}`, strings.Repeat("word ", 200))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for range 50 {
		io.WriteString(w, `data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"four words and more "},"finish_reason":null}]}`+"\n\n")
		http.NewResponseController(w).Flush()
	}
	io.WriteString(w, `data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")
}
