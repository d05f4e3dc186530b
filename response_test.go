package breaker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var badFallbacks = []bad{
	{"an unknown fallback", "fallback: {default_respond: {}}", 1, "fallback.default_respond", "a mapping", "did you mean default_response?"},
	{"a status that is a success", "fallback: {default_response: {status_code: 200}}", 1, "fallback.default_response.status_code", "200", "a whole number from 400 to 599"},
	{"a status that does not exist", "fallback: {default_response: {status_code: 600}}", 1, "fallback.default_response.status_code", "600", "a whole number from 400 to 599"},
	{"a status in quotes", `fallback: {default_response: {status_code: "503"}}`, 1, "fallback.default_response.status_code", `"503"`, "a whole number from 400 to 599"},
	{"a body of nothing", `fallback: {default_response: {body: }}`, 1, "fallback.default_response.body", `null`, "a mapping, a list, text"},
	{"a body that JSON cannot say", `fallback: {default_response: {body: {a: .NaN}}}`, 1, "fallback.default_response.body.a", `.NaN`, "a finite decimal number"},
	{"a cache neither on nor off", "fallback: {cache_fallback: {max_age_seconds: 5}}", 1, "fallback.cache_fallback.enabled", "nothing", "true or false"},
	{"a cache that is on with a word", "fallback: {cache_fallback: {enabled: yes, max_age_seconds: 5}}", 1, "fallback.cache_fallback.enabled", "yes", "true or false"},
	{"a cache without age", "fallback: {cache_fallback: {enabled: true}}", 1, "fallback.cache_fallback.max_age_seconds", "nothing", "how old"},
	{"a cache of age zero", "fallback: {cache_fallback: {enabled: true, max_age_seconds: 0}}", 1, "fallback.cache_fallback.max_age_seconds", "0", "seconds > 0"},
	{"a cache of no duration", "fallback: {cache_fallback: {enabled: true, max_age_seconds: long}}", 1, "fallback.cache_fallback.max_age_seconds", "long", "seconds > 0"},
}

func TestTheCacheFallbackIsReadWhenItIsEnabled(t *testing.T) {
	for line, want := range map[string]time.Duration{
		"{enabled: true, max_age_seconds: 1.5}": 1500 * time.Millisecond, "{enabled: true, max_age_seconds: 5m}": 5 * time.Minute,
		"{enabled: true, max_age_seconds: 1ns}": 1,
		"{enabled: false, max_age_seconds: 5}":  0, "{enabled: false}": 0,
	} {
		f, err := ParseFile([]byte("fallback: {cache_fallback: " + line + "}"))
		require.NoError(t, err)
		require.Equal(t, want, f.Fallback.CacheMaxAge)
	}
}

// answer is what a client gets from f over a real connection.
func answer(t *testing.T, f Fallback, err error) (*http.Response, string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		w.Header().Set("Content-Length", "7")
		f.Write(w, err)
	}))
	defer s.Close()
	res, err := s.Client().Get(s.URL)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "application/json", res.Header.Get("Content-Type"))
	require.Empty(t, res.Header.Get("Content-Encoding"))
	require.EqualValues(t, len(body), res.ContentLength)
	return res, string(body)
}

func TestTheRFCsDefaultResponseIsSentAsConfigured(t *testing.T) {
	f, err := LoadFile(rfcFile)
	require.NoError(t, err)
	b := Must(New("llm", Config{OpenTimeout: 20 * time.Second, OpenTimeoutJitter: Off}))
	b.Trip("test")
	_, refusal := b.Acquire(context.Background())
	require.ErrorIs(t, refusal, ErrOpen)
	res, body := answer(t, f.Fallback, fmt.Errorf("chat: %w", errors.Join(errBoom, refusal)))
	require.Equal(t, 503, res.StatusCode)
	require.Equal(t, "20", res.Header.Get("Retry-After"))
	require.JSONEq(t, `{"error": "Service temporarily unavailable", "retry_after": 30}`, body)
	res, _ = answer(t, f.Fallback, errBoom)
	require.Equal(t, "30", res.Header.Get("Retry-After"), "what the body says")
	res, _ = answer(t, f.Fallback, nil)
	require.Equal(t, "30", res.Header.Get("Retry-After"))
}

func TestWithoutADefaultResponseTheAnswerIsAPlain503(t *testing.T) {
	for _, f := range []Fallback{{}, {DefaultResponse: DefaultResponse{Body: math.NaN()}}} {
		res, body := answer(t, f, errBoom)
		require.Equal(t, 503, res.StatusCode)
		require.Empty(t, res.Header.Values("Retry-After"))
		require.Equal(t, "{\"error\":\"Service temporarily unavailable\"}\n", body)
	}
}

func TestTheBodyMayBeAnyJSON(t *testing.T) {
	for line, want := range map[string]string{
		`"<b>&"`: `"<b>&"`, `[1, 2.5, x, ~, true]`: `[1,2.5,"x",null,true]`, `{b: {c: []}, a: 010x}`: `{"a":"010x","b":{"c":[]}}`, `false`: `false`, `7`: `7`,
	} {
		f, err := ParseFile([]byte("fallback: {default_response: {status_code: 429, body: " + line + "}}"))
		require.NoError(t, err)
		res, body := answer(t, f.Fallback, errBoom)
		require.Equal(t, 429, res.StatusCode)
		require.Equal(t, want+"\n", body)
	}
}

func TestRetryAfterIsInWholeSecondsRoundedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for until, want := range map[time.Duration]string{
			-time.Second: "1", 0: "1", 1: "1", time.Second: "1", time.Second + 1: "2", 90 * time.Second: "90", math.MaxInt64: "2147483647",
		} {
			w := httptest.NewRecorder()
			Fallback{}.Write(w, &OpenError{Until: time.Now().Add(until)})
			require.Equal(t, want, w.Header().Get("Retry-After"), until)
		}
	})
	w := httptest.NewRecorder()
	Fallback{}.Write(w, &OpenError{State: StateHalfOpen})
	require.Equal(t, "1", w.Header().Get("Retry-After"), "nobody knows how long")
	for retryAfter, want := range map[any]string{2.1: "3", 0.1: "1", 7: "7", 0: "", -1: "", -1.5: "", "30": "", true: "", 1e300: "2147483647"} {
		w := httptest.NewRecorder()
		Fallback{DefaultResponse: DefaultResponse{Body: map[string]any{"retry_after": retryAfter}}}.Write(w, errBoom)
		require.Equal(t, want, w.Header().Get("Retry-After"), retryAfter)
	}
}
