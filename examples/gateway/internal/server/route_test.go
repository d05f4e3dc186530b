package server

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

func TestThePrimaryAnswersUnchanged(t *testing.T) {
	a, b := newProvider(t, says("large-2026", "hello")), newProvider(t, says("small", "no"))
	g := start(t, two, a, b)
	r := g.post(t, "/v1/chat/completions", `{"model":"chat", "unknown_field": {"x": [1, 2.50]}, "messages":[{"role":"user","content":"hi"}]}`)
	r.source(t, "primary", "1")
	require.Contains(t, r.body, `"model":"large-2026"`)
	require.Contains(t, r.body, `"total_tokens":7`)
	got := a.requests()[0]
	require.Equal(t, `{"model":"large", "unknown_field": {"x": [1, 2.50]}, "messages":[{"role":"user","content":"hi"}]}`, got.body, "only the model's name changes")
	require.Equal(t, "/v1/chat/completions", got.path)
	require.Equal(t, "Bearer "+providerKey, got.header.Get("Authorization"))
	require.Zero(t, b.calls())
}

// Each row: what the primary does, in what the caller gets and how often the two were asked.
func TestWhoIsAskedAfterAFailure(t *testing.T) {
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, `{"id":"x"`)
	}
	tests := []struct {
		name          string
		primary       []http.HandlerFunc
		status        int
		source        string
		asked, failed int // the primary, the fallback
		code          string
	}{
		{"a 500 is tried once more", []http.HandlerFunc{fails(500, "server_error", "oops"), says("large", "ok")}, 200, "primary", 2, 0, ""},
		{"a 503 that stays goes to the fallback", []http.HandlerFunc{fails(503, "", "down")}, 200, "two/small", 2, 1, ""},
		{"a 529 likewise", []http.HandlerFunc{fails(529, "overloaded_error", "busy")}, 200, "two/small", 2, 1, ""},
		{"a 429 without Retry-After is tried once more", []http.HandlerFunc{fails(429, "", "slow down"), says("large", "ok")}, 200, "primary", 2, 0, ""},
		{"a 429 with a long Retry-After is not waited for", []http.HandlerFunc{fails(429, "", "slow down", "Retry-After", "5")}, 200, "two/small", 1, 1, ""},
		{"a 429 for quota is not tried again", []http.HandlerFunc{fails(429, "insufficient_quota", "pay")}, 200, "two/small", 1, 1, ""},
		{"a 400 for the key", []http.HandlerFunc{fails(400, "", "API key not valid")}, 200, "two/small", 1, 1, ""},
		{"a 401", []http.HandlerFunc{fails(401, "invalid_api_key", "no")}, 200, "two/small", 1, 1, ""},
		{"a 404 for the model", []http.HandlerFunc{fails(404, "model_not_found", "no such model")}, 200, "two/small", 1, 1, ""},
		{"a 408 is not tried again", []http.HandlerFunc{fails(408, "", "late")}, 200, "two/small", 1, 1, ""},
		{"half an answer is none", []http.HandlerFunc{cut}, 200, "two/small", 2, 1, ""},
		{"an answer that is no JSON is none", []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }}, 200, "two/small", 1, 1, ""},
		{"an error in a 200", []http.HandlerFunc{fails(200, "overloaded_error", "busy")}, 200, "two/small", 2, 1, ""},
		{"a 400 is the caller's", []http.HandlerFunc{fails(400, "bad_value", "temperature is wrong")}, 400, "", 1, 0, "bad_value"},
		{"a 422 too", []http.HandlerFunc{fails(422, "", "no")}, 422, "", 1, 0, ""},
		{"a 404 of another kind too", []http.HandlerFunc{fails(404, "", "no such assistant")}, 404, "", 1, 0, ""},
		{"a 409 is tried once more and no further", []http.HandlerFunc{fails(409, "", "conflict")}, 409, "", 2, 0, ""},
		{"a content filter's refusal goes back", []http.HandlerFunc{fails(400, "content_policy_violation", "against the policy")}, 400, "", 1, 0, "content_policy_violation"},
		{"too long a context, and no larger model", []http.HandlerFunc{fails(400, "context_length_exceeded", "too long")}, 400, "", 1, 0, "context_length_exceeded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := newProvider(t, tt.primary...), newProvider(t, says("small", "from the fallback"))
			g := start(t, two, a, b)
			r := g.ask(t)
			require.Equal(t, tt.status, r.status, r.body)
			require.Equal(t, tt.asked, a.calls())
			require.Equal(t, tt.failed, b.calls())
			require.Equal(t, strconv.Itoa(tt.asked+tt.failed), r.header.Get("x-breaker-attempts"))
			if tt.status == 200 {
				r.source(t, tt.source, strconv.Itoa(tt.asked+tt.failed))
			} else if tt.code != "" {
				require.Contains(t, r.body, fmt.Sprintf(`"code":%q`, tt.code))
			}
		})
	}
}

func TestAShortRetryAfterIsWaitedFor(t *testing.T) {
	a := newProvider(t, fails(429, "", "slow down", "retry-after-ms", "50"), says("large", "ok"))
	b := newProvider(t, says("small", "no"))
	r := start(t, two, a, b).ask(t)
	r.source(t, "primary", "2")
	require.GreaterOrEqual(t, r.took, 50*time.Millisecond)
	require.Zero(t, b.calls())
}

func TestASilentProviderIsAskedOnceAndCostsItsLimit(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	a, b := newProvider(t, hang), newProvider(t, says("small", "ok"))
	g := start(t, short(two, "answer: 1s"), a, b)
	r := g.ask(t)
	r.source(t, "two/small", "2")
	require.Equal(t, 1, a.calls())
	require.GreaterOrEqual(t, r.took, time.Second)
	require.Less(t, r.took, prompt)
	require.Equal(t, 1, g.status(t, "one/large").Metrics.FailedCalls)
}

func (g *gateway) status(t *testing.T, name string) breaker.Status {
	t.Helper()
	b, ok := g.Registry().Lookup(name)
	require.True(t, ok)
	return b.Status()
}

func TestContextGoesOnlyToALargerModel(t *testing.T) {
	const three = `
callers: [{name: team, key_env: CALLER_KEY}]
providers:
  one: {base_url: "{a}"}
  two: {base_url: "{b}"}
  three: {base_url: "{c}"}
models:
  chat:
    primary: {provider: one, model: large, context: 8000}
    fallbacks: [{provider: two, model: small, context: 8000}, {provider: three, model: huge, context: 100000}]
` + limitsForTests
	a := newProvider(t, fails(400, "context_length_exceeded", "too long for large"))
	b, c := newProvider(t, says("small", "no")), newProvider(t, says("huge", "ok"))
	g := start(t, three, a, b, c)
	g.ask(t).source(t, "three/huge", "2")
	require.Zero(t, b.calls())
	c.set(fails(500, "", "oops"))
	r := g.ask(t)
	require.Equal(t, 400, r.status)
	require.Contains(t, r.body, "too long for large", "the real cause, not the larger model's trouble")
}

func TestTheCallerHearsTheRealCause(t *testing.T) {
	a := newProvider(t, fails(503, "engine_overloaded", "the engine is overloaded"))
	b := newProvider(t, fails(400, "", "assistant prefill is not supported"))
	g := start(t, two, a, b)
	r := g.ask(t)
	require.Equal(t, 503, r.status)
	require.Contains(t, r.body, "the engine is overloaded")
	require.NotContains(t, r.body, "prefill")
	require.Equal(t, "false", r.header.Get("x-should-retry"))

	one, _ := g.Registry().Lookup("one/large")
	one.Trip("test")
	r = g.ask(t)
	require.Equal(t, 503, r.status)
	require.NotContains(t, r.body, "prefill", "also when the cause is that the primary is not asked")

	b.set(fails(400, "content_filter", "against the policy"))
	r = g.ask(t)
	require.Equal(t, 400, r.status)
	require.Contains(t, r.body, "against the policy", "a filter's refusal is an answer")
}

func TestAllOpen(t *testing.T) {
	a, b := newProvider(t, says("large", "no")), newProvider(t, says("small", "no"))
	g := start(t, two, a, b)
	for name, d := range map[string]time.Duration{"one/large": 10 * time.Minute, "two/small": 5 * time.Minute} {
		p, _ := g.Registry().Lookup(name)
		permit, err := p.Acquire(t.Context())
		require.NoError(t, err)
		permit.Done(breaker.OpenFor(breaker.Ignore(http.ErrServerClosed), d))
	}
	r := g.ask(t)
	require.Equal(t, 503, r.status)
	require.Regexp(t, "^(2[7-9].|300)$", r.header.Get("Retry-After"), "the soonest")
	require.Equal(t, "0", r.header.Get("x-breaker-attempts"))
	require.Contains(t, r.body, `"code":"circuit_open"`)
	require.Less(t, r.took, prompt)
	require.Zero(t, a.calls()+b.calls())
}

func TestAttemptsOfARequestAreBounded(t *testing.T) {
	a, b := newProvider(t, fails(500, "", "a")), newProvider(t, fails(500, "", "b"))
	g := start(t, two+"\n# one\n", a, b)
	cfg := parse(t, two, a, b)
	cfg.Retry.Attempts = 3
	require.NoError(t, g.Apply(cfg))
	r := g.ask(t)
	require.Equal(t, "3", r.header.Get("x-breaker-attempts"))
	require.Equal(t, []int{2, 1}, []int{a.calls(), b.calls()})
	require.Equal(t, 500, r.status)
	require.Contains(t, r.body, `"message":"a"`)
}

func TestTimeOfARequestIsBounded(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	a, b := newProvider(t, hang), newProvider(t, hang)
	g := start(t, two, a, b)
	cfg := parse(t, two, a, b)
	cfg.Limits.Request = 300 * time.Millisecond
	require.NoError(t, g.Apply(cfg))
	r := g.ask(t)
	require.Equal(t, http.StatusGatewayTimeout, r.status, r.body)
	require.Contains(t, r.body, "no answer within 300ms")
	require.Less(t, r.took, prompt, "the limit of an answer is a minute")
}

func TestEmbeddingsNeverGoToAnotherModel(t *testing.T) {
	vectors := func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"object":"list","model":"large","data":[{"object":"embedding","index":0,"embedding":[0.1]}],"usage":{"prompt_tokens":1,"total_tokens":1}}`)
	}
	a, b := newProvider(t, vectors), newProvider(t, vectors)
	g := start(t, two, a, b)
	g.post(t, "/v1/embeddings", `{"model":"chat","input":"x"}`).source(t, "primary", "1")
	require.Equal(t, "/v1/embeddings", a.requests()[0].path)

	a.set(fails(503, "", "down"))
	r := g.post(t, "/v1/embeddings", `{"model":"chat","input":"x"}`)
	require.Equal(t, 503, r.status)
	require.Equal(t, "2", r.header.Get("x-breaker-attempts"))
	require.Zero(t, b.calls())
}

func TestARetryThatIsRefusedIsNotTheCause(t *testing.T) {
	a, b := newProvider(t, fails(503, "engine_overloaded", "the real cause", "Retry-After", "1")), newProvider(t, fails(400, "", "no"))
	g := start(t, two, a, b)
	cfg := parse(t, two+"\ncircuit_breaker: {services: {one/large: {timeout_seconds: 60, failure_threshold: 1}}}\n", a, b)
	require.NoError(t, g.Apply(cfg))
	r := g.ask(t)
	require.Equal(t, 503, r.status)
	require.Contains(t, r.body, "the real cause")
	require.NotEmpty(t, r.header.Get("Retry-After"))
}

func TestACallerLearnsWhenToComeBack(t *testing.T) {
	a, b := newProvider(t, fails(429, "", "slow down", "Retry-After", "40")), newProvider(t, fails(503, "", "down"))
	r := start(t, two, a, b).ask(t)
	require.Equal(t, 429, r.status)
	require.Regexp(t, "^(3.|40)$", r.header.Get("Retry-After"))
}

// A request that the primary's format cannot express goes to a target whose format can, and is refused by name if there is none.
func TestInexpressibleFields(t *testing.T) {
	text := strings.Replace(two, `{base_url: "{a}/v1", key_env: PROVIDER_KEY}`, `{base_url: "{a}", format: anthropic}`, 1)
	a, b := newProvider(t, says("large", "no")), newProvider(t, says("small", "ok"))
	g := start(t, text, a, b)
	const seeded = `{"model":"chat","seed":1,"messages":[{"role":"user","content":"x"}]}`
	g.post(t, "/v1/chat/completions", seeded).source(t, "two/small", "1")
	require.Zero(t, a.calls())

	require.NoError(t, g.Apply(parse(t, strings.Replace(text, "    fallbacks: [{provider: two, model: small, context: 1000}]\n", "", 1), a, b)))
	r := g.post(t, "/v1/chat/completions", seeded)
	require.Equal(t, 400, r.status)
	require.Contains(t, r.body, `"param":"seed"`)
	require.Zero(t, a.calls())
}

func TestAnthropicAnswersInOpenAIsFormat(t *testing.T) {
	text := strings.Replace(two, `{base_url: "{b}/v1"}`, `{base_url: "{b}", format: anthropic, key_env: PROVIDER_KEY}`, 1)
	a := newProvider(t, fails(503, "", "down"))
	b := newProvider(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"type":"message","model":"claude-served","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2}}`)
	})
	g := start(t, text, a, b)
	if !strings.Contains(text, "anthropic") {
		t.Fatal("the configuration has changed")
	}
	r := g.ask(t)
	r.source(t, "two/small", "3")
	require.Contains(t, r.body, `"model":"claude-served"`)
	require.Contains(t, r.body, `"total_tokens":3`)
	got := b.requests()[0]
	require.Equal(t, "/v1/messages", got.path)
	require.Equal(t, providerKey, got.header.Get("X-Api-Key"))
	require.Empty(t, got.header.Get("Authorization"))
}
