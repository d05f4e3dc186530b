package service

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
	"github.com/failfast-go/breaker/examples/rag/internal/modelserver"
)

// few are enough to answer from, and quick to search under the race detector. The real documents are read by the tests of
// package main.
var few = []corpus.Passage{
	{ID: "1", Source: "sync", Text: "Package sync provides basic synchronization primitives such as mutual exclusion locks."},
	{ID: "2", Source: "time", Text: "Package time provides functionality for measuring and displaying time. Use a layout to format a time."},
	{ID: "3", Source: "sort", Text: "Package sort provides primitives for sorting slices and user-defined collections."},
}

// steady opens after three failures and stays open: a test then sees what it does, and no recovery.
const steady = `
circuit_breaker:
  default: {failure_threshold: 3, failure_rate_threshold: off, timeout_seconds: 3600, max_timeout_seconds: 3600, success_threshold: 1}
fallback:
  default_response: {status_code: 503, body: {error: "nobody is here", retry_after: 30}}
  cache_fallback: {enabled: true, max_age_seconds: 300}
`

// nimble probes again after a moment.
const nimble = `
circuit_breaker:
  default: {failure_threshold: 3, timeout_seconds: 0.1, max_timeout_seconds: 0.1, timeout_jitter: 0, success_threshold: 1}
`

// rig is a service, reached over HTTP, and what can be seen of it.
type rig struct {
	*Service
	url     string
	logs    *observer.ObservedLogs
	reached map[string]*atomic.Int64
}

func start(t *testing.T, yaml string, change ...func(*Config)) *rig {
	t.Helper()
	file, err := breaker.ParseFile([]byte(yaml))
	require.NoError(t, err)
	core, logs := observer.New(zap.InfoLevel)
	r := &rig{logs: logs, reached: map[string]*atomic.Int64{LLM: {}, VectorDB: {}, Database: {}}}
	cfg := Config{
		File: file, Data: t.TempDir(), Passages: few, Log: zap.New(core),
		Limits:  Limits{Model: time.Minute, Local: time.Minute, Retrieve: time.Minute, Save: time.Minute}, // a test that waits for one has its own
		Reached: func(name string) { r.reached[name].Add(1) },
	}
	for _, f := range change {
		f(&cfg)
	}
	r.Service, err = New(t.Context(), cfg)
	require.NoError(t, err)
	server := httptest.NewServer(r.Handler(t.Context()))
	r.url = server.URL
	t.Cleanup(func() {
		server.Close()
		assert.NoError(t, r.Close())
	})
	return r
}

// ask returns the reply to a question that must be answered.
func (r *rig) ask(t *testing.T, question string) Reply {
	t.Helper()
	status, body, _ := r.post(t, "/chat", `{"message": `+quote(question)+`}`)
	require.Equal(t, 200, status, body)
	var reply Reply
	require.NoError(t, json.Unmarshal([]byte(body), &reply))
	require.NotEmpty(t, reply.Response)
	return reply
}

func quote(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}

func (r *rig) post(t *testing.T, path, body string) (int, string, http.Header) {
	t.Helper()
	reply, err := http.Post(r.url+path, "application/json", strings.NewReader(body))
	require.NoError(t, err)
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	require.NoError(t, err)
	return reply.StatusCode, string(text), reply.Header
}

func (r *rig) state(name string) breaker.State { return r.breakers.Breaker(name).State() }

func (r *rig) play(t *testing.T, name, body string) {
	t.Helper()
	status, text, _ := r.post(t, "/admin/faults/"+name, body)
	require.Equal(t, 200, status, text)
}

const mutex = "What does the sync package provide for mutual exclusion?"

func TestAQuestionIsAnsweredFromPassagesAndSaved(t *testing.T) {
	r := start(t, steady)
	reply := r.ask(t, mutex)
	assert.Equal(t, "primary", reply.Source)
	assert.False(t, reply.Degraded)
	assert.Empty(t, reply.Cause)
	assert.Contains(t, reply.Sources, "sync")
	assert.Contains(t, reply.Response, "mutual exclusion")
	assert.True(t, reply.Saved)

	turns, err := r.History.Recent(t.Context(), 1)
	require.NoError(t, err)
	assert.Equal(t, mutex, turns[0].Question)
	assert.Equal(t, reply.Response, turns[0].Answer)
	assert.Zero(t, r.logs.Len(), "nothing is logged per call")
}

func TestEveryFaultOfTheModelIsAnsweredLocallyAndOpensTheBreaker(t *testing.T) {
	for fault, c := range map[modelserver.Kind]struct {
		rule breaker.Rule
		most int64 // calls that may reach the model before the breaker opens
	}{
		modelserver.ServerError:     {breaker.RuleConsecutiveFailures, 3},
		modelserver.Unavailable:     {breaker.RuleConsecutiveFailures, 3},
		modelserver.TooManyRequests: {breaker.RuleRetryAfter, 1},
		modelserver.Hang:            {breaker.RuleConsecutiveFailures, 3},
		modelserver.Slow:            {breaker.RuleConsecutiveFailures, 3},
		modelserver.Cut:             {breaker.RuleConsecutiveFailures, 3},
		modelserver.Refuse:          {breaker.RuleConsecutiveFailures, 0},
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			r := start(t, steady, func(c *Config) {
				if fault == modelserver.Hang || fault == modelserver.Slow {
					c.Limits.Model = 150 * time.Millisecond
				}
			})
			r.play(t, LLM, `{"fault": "`+string(fault)+`"}`)
			for range 6 {
				reply := r.ask(t, mutex)
				assert.Equal(t, LocalModel, reply.Source)
				assert.True(t, reply.Degraded)
				assert.NotEmpty(t, reply.Cause)
				assert.Contains(t, reply.Sources, "sync")
			}
			status := r.breakers.Breaker(LLM).Status()
			require.Equal(t, breaker.StateOpen, status.State)
			assert.Equal(t, c.rule, status.Trip.Rule)
			assert.LessOrEqual(t, r.reached[LLM].Load(), c.most)
			assert.Positive(t, r.ask(t, mutex).RetryAfter, "a refusal says when to come back")
		})
	}
}

func TestNobodyWaitsForThePauseThatTheModelAsksFor(t *testing.T) {
	r := start(t, steady, func(c *Config) { c.Limits.Model = 10 * time.Minute })
	r.play(t, LLM, `{"fault": "429", "retry_after": "2m"}`)
	began := time.Now()
	assert.Equal(t, LocalModel, r.ask(t, mutex).Source)
	assert.Less(t, time.Since(began), time.Minute)
}

func TestTheChainGoesDownOneStepAtATime(t *testing.T) {
	r := start(t, steady)
	whole := r.ask(t, mutex)
	r.play(t, LLM, `{"fault": "503"}`)

	cached := r.ask(t, "  what does the SYNC package provide for mutual exclusion? ")
	assert.Equal(t, "cache", cached.Source)
	assert.Equal(t, whole.Response, cached.Response)
	assert.Equal(t, whole.Sources, cached.Sources)
	assert.Positive(t, cached.Age)
	assert.Contains(t, cached.Cause, "503")

	assert.Equal(t, LocalModel, r.ask(t, "How do I format a time?").Source)

	r.play(t, VectorDB, `{"fault": "error"}`) // nothing for the local model to answer from
	assert.Equal(t, "rule", r.ask(t, "Hello!").Source)
	still := r.ask(t, mutex)
	assert.Equal(t, "cache", still.Source)
	assert.Equal(t, whole.Sources, still.Sources, "a cached answer has the sources it had")

	status, body, header := r.post(t, "/chat", `{"message": "How do I sort a slice?"}`)
	assert.Equal(t, 503, status)
	assert.JSONEq(t, `{"error": "nobody is here", "retry_after": 30}`, body)
	assert.NotEmpty(t, header.Get("Retry-After"))
}

func TestEachUseOfAFallbackIsLoggedOnceWithItsLevel(t *testing.T) {
	r := start(t, steady)
	r.ask(t, mutex)
	r.breakers.Breaker(LLM).ForceOpen(breaker.Hold{By: "test"})
	r.ask(t, mutex)
	r.ask(t, "How do I format a time?")
	r.breakers.Breaker(VectorDB).ForceOpen(breaker.Hold{By: "test"})
	r.ask(t, "hello")
	r.post(t, "/chat", `{"message": "How do I sort a slice?"}`)

	var got [][3]any
	for _, line := range r.logs.FilterMessage("fallback used").All() {
		fields := line.ContextMap()
		got = append(got, [3]any{fields["breaker"], fields["level"], fields["source"]})
		assert.NotEmpty(t, fields["error"])
	}
	assert.Equal(t, [][3]any{
		{LLM, int64(1), "cache"},
		{LLM, int64(2), LocalModel},
		{VectorDB, int64(4), "default"}, {LLM, int64(3), "rule"},
		{VectorDB, int64(4), "default"}, {LLM, int64(4), "default"},
	}, got)
}

func TestWithoutTheVectorStoreTheAnswerSaysItHasNoSourcesAndIsNotCached(t *testing.T) {
	r := start(t, steady)
	r.play(t, VectorDB, `{"fault": "error"}`)
	for range 5 {
		reply := r.ask(t, mutex)
		assert.Equal(t, "primary", reply.Source)
		assert.True(t, reply.Degraded)
		assert.Contains(t, reply.Response, WithoutSources)
		assert.Equal(t, []string{}, reply.Sources)
		assert.NotEmpty(t, reply.Cause)
	}
	assert.EqualValues(t, 3, r.reached[VectorDB].Load(), "the breaker spares the store")

	r.play(t, VectorDB, `{"fault": "none"}`)
	status, _, _ := r.post(t, "/admin/circuit-breakers/vectordb/reset", "")
	require.Equal(t, 200, status)
	r.play(t, LLM, `{"fault": "503"}`)
	assert.Equal(t, LocalModel, r.ask(t, mutex).Source, "the answer without sources was not kept")
}

func TestALockedDatabaseCostsNobodyTheAnswer(t *testing.T) {
	r := start(t, steady, func(c *Config) { c.Limits.Save = 100 * time.Millisecond })
	unlock, err := r.History.Lock(t.Context())
	require.NoError(t, err)
	for range 5 {
		reply := r.ask(t, mutex)
		assert.Equal(t, "primary", reply.Source)
		assert.False(t, reply.Degraded, "the answer is whole")
		assert.False(t, reply.Saved)
	}
	assert.Equal(t, breaker.StateOpen, r.state(Database))
	assert.EqualValues(t, 3, r.reached[Database].Load(), "the breaker spares users the wait")
	require.NoError(t, unlock())
}

func TestTheServiceRecoversByItself(t *testing.T) {
	r := start(t, nimble)
	r.play(t, LLM, `{"fault": "503"}`)
	for range 3 {
		r.ask(t, mutex)
	}
	require.NotEqual(t, breaker.StateClosed, r.state(LLM))
	r.play(t, LLM, `{"fault": "none"}`)
	require.Eventually(t, func() bool { return r.ask(t, mutex).Source == "primary" }, time.Minute, 20*time.Millisecond)
	assert.Equal(t, breaker.StateClosed, r.state(LLM))
}

func TestAQuestionTheModelRejectsIsTheCallersMistake(t *testing.T) {
	strict := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error": {"message": "not that", "code": "content_policy_violation", "type": "invalid_request_error"}}`)
	}))
	defer strict.Close()
	r := start(t, steady, func(c *Config) { c.OpenAIBaseURL = strict.URL + "/v1/" })
	for range 5 {
		status, body, _ := r.post(t, "/chat", `{"message": "Something forbidden?"}`)
		assert.Equal(t, http.StatusBadRequest, status)
		assert.Contains(t, body, "not that")
	}
	assert.Equal(t, breaker.StateClosed, r.state(LLM))
	status, _, _ := r.post(t, "/admin/faults/llm", `{"fault": "503"}`)
	assert.Equal(t, http.StatusNotFound, status, "another's server cannot be made to fail")
}

func TestItStartsAndAnswersWhileEverythingOnTheNetworkIsDown(t *testing.T) {
	nobody := "127.0.0.1:1"
	r := start(t, steady, func(c *Config) {
		*c = c.FromEnvironment(func(name string) string {
			return map[string]string{
				"OPENAI_BASE_URL": "http://" + nobody + "/v1/", "DATABASE_URL": "postgres://" + nobody + "/none", "REDIS_URL": "redis://" + nobody,
			}[name]
		})
	})
	for range 4 {
		reply := r.ask(t, mutex)
		assert.Equal(t, LocalModel, reply.Source)
		assert.False(t, reply.Saved)
	}
}

func TestOllamaIsTheLocalModelWhereItsHostIsNamed(t *testing.T) {
	ollama := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"message": {"content": "It has Mutex."}, "done": true}`)
	}))
	defer ollama.Close()
	r := start(t, steady, func(c *Config) { c.OllamaHost = ollama.URL })
	r.play(t, LLM, `{"fault": "500"}`)
	reply := r.ask(t, mutex)
	assert.Equal(t, LocalModel, reply.Source)
	assert.Equal(t, "It has Mutex.", reply.Response)
}

func TestWithNoBreakersNothingIsEverRefused(t *testing.T) {
	r := start(t, steady, func(c *Config) { c.NoBreakers = true })
	r.play(t, LLM, `{"fault": "503"}`)
	for range 6 {
		assert.Equal(t, LocalModel, r.ask(t, mutex).Source)
	}
	assert.EqualValues(t, 6, r.reached[LLM].Load(), "each question reaches the ill model")
	assert.Equal(t, breaker.StateDisabled, r.state(LLM))
}

func TestTheEmbeddedFileNamesEveryBreaker(t *testing.T) {
	file, err := Config{}.file()
	require.NoError(t, err)
	for _, name := range []string{LLM, VectorDB, Database, LocalModel} {
		assert.Contains(t, file.Breakers.Services, name)
	}
	assert.Positive(t, file.Fallback.CacheMaxAge)
}

func TestTheEnvironmentNamesTheUpstreams(t *testing.T) {
	cfg := Config{}.FromEnvironment(func(name string) string { return "<" + name + ">" })
	assert.Equal(t, Config{
		OpenAIBaseURL: "<OPENAI_BASE_URL>", OpenAIKey: "<OPENAI_API_KEY>", OpenAIModel: "<OPENAI_MODEL>",
		OllamaHost: "<OLLAMA_HOST>", OllamaModel: "<OLLAMA_MODEL>", DatabaseURL: "<DATABASE_URL>", RedisURL: "<REDIS_URL>",
	}, cfg)
}

func TestBadSettingsAreErrorsThatNameThem(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"DATABASE_URL": func(c *Config) { c.DatabaseURL = "mysql://x" },
		"REDIS_URL":    func(c *Config) { c.RedisURL = "memcached://x" },
	} {
		cfg := Config{Data: t.TempDir(), Passages: few}
		change(&cfg)
		_, err := New(t.Context(), cfg)
		require.ErrorContains(t, err, want)
	}
}

func TestCallersWhoLeaveAreNoFailures(t *testing.T) {
	r := start(t, steady, func(c *Config) { c.Limits.Model = time.Minute })
	r.play(t, LLM, `{"fault": "hang"}`)
	for n := range int64(5) {
		ctx, leave := context.WithCancel(t.Context())
		go func() {
			assert.Eventually(t, func() bool { return r.reached[LLM].Load() > n }, time.Minute, time.Millisecond)
			leave()
		}()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/chat", strings.NewReader(`{"message": "anyone?"}`))
		require.NoError(t, err)
		_, err = http.DefaultClient.Do(request)
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Eventually(t, func() bool { return r.breakers.Breaker(LLM).Status().Metrics.InFlight == 0 }, time.Minute, 5*time.Millisecond)
	assert.Equal(t, breaker.StateClosed, r.state(LLM))
	assert.Equal(t, 5, r.breakers.Breaker(LLM).Status().Metrics.IgnoredCalls)
}
