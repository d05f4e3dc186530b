package model

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/modelserver"
)

func startServer(t *testing.T) (*modelserver.Server, *Client) {
	t.Helper()
	server, err := modelserver.Start()
	require.NoError(t, err)
	t.Cleanup(server.Close)
	return server, NewClient(server.BaseURL(), "test", modelserver.Model)
}

func TestTheClientAnswersFromThePassages(t *testing.T) {
	_, client := startServer(t)
	answer, err := client.Answer(t.Context(), question)
	require.NoError(t, err)
	assert.Equal(t, "A mutex is a lock.", answer)
}

func TestTheClientAsksOnce(t *testing.T) {
	server, client := startServer(t)
	asked := 0
	server.OnRequest = func() { asked++ }
	require.NoError(t, server.SetFault(modelserver.Fault{Kind: modelserver.Unavailable}))
	_, err := client.Answer(t.Context(), question)
	require.Error(t, err)
	assert.Equal(t, 1, asked, "the SDK must not retry inside the breaker")
}

func TestEveryFaultIsAnErrorWithItsVerdict(t *testing.T) {
	server, client := startServer(t)
	for _, c := range []struct {
		fault   modelserver.Fault
		outcome breaker.Outcome
		openFor time.Duration
	}{
		{modelserver.Fault{Kind: modelserver.ServerError}, breaker.Failure, 0},
		{modelserver.Fault{Kind: modelserver.Unavailable}, breaker.Failure, 0},
		{modelserver.Fault{Kind: modelserver.Unavailable, RetryAfter: 4 * time.Second}, breaker.Failure, 4 * time.Second},
		{modelserver.Fault{Kind: modelserver.TooManyRequests, RetryAfter: 7 * time.Second}, breaker.Ignored, 7 * time.Second},
		{modelserver.Fault{Kind: modelserver.Hang}, breaker.Failure, 0},
		{modelserver.Fault{Kind: modelserver.Slow}, breaker.Failure, 0},
		{modelserver.Fault{Kind: modelserver.Cut}, breaker.Failure, 0},
		{modelserver.Fault{Kind: modelserver.Refuse}, breaker.Failure, 0},
	} {
		require.NoError(t, server.SetFault(c.fault))
		patience := time.Minute
		if c.fault.Kind == modelserver.Hang || c.fault.Kind == modelserver.Slow {
			patience = 100 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := client.Answer(ctx, question)
		cancel()
		require.Error(t, err, c.fault.Kind)
		verdict := Classify(t.Context(), err)
		if verdict.Outcome == 0 { // left to the default, as in a breaker
			verdict = breaker.Classify(t.Context(), err)
		}
		assert.Equal(t, breaker.Verdict{Outcome: c.outcome, OpenFor: c.openFor}, verdict, c.fault.Kind)
	}
}

func TestAStreamWithoutAFinishReasonWasCut(t *testing.T) {
	body := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, body)
	}))
	defer server.Close()
	client := NewClient(server.URL+"/v1/", "test", "m")
	for want, text := range map[error]string{
		errCut:   `data: {"choices":[{"index":0,"delta":{"content":"half an"}}]}` + "\n\n",
		errEmpty: `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n",
	} {
		body = text
		_, err := client.Answer(t.Context(), question)
		require.ErrorIs(t, err, want)
	}
}

func apiError(status int, code, message string, header ...string) error {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return fmt.Errorf("model: %w", &openai.Error{StatusCode: status, Code: code, Message: message, Response: &http.Response{Header: h}})
}

func TestVerdictsOfTheAPIsErrors(t *testing.T) {
	ignored, failure, unset := breaker.Ignored, breaker.Failure, breaker.Outcome(0)
	for _, c := range []struct {
		name    string
		err     error
		outcome breaker.Outcome
		openFor time.Duration
	}{
		{"a bad request", apiError(400, "", ""), ignored, 0},
		{"too long a context", apiError(400, "context_length_exceeded", ""), ignored, 0},
		{"an unprocessable request", apiError(422, "", ""), ignored, 0},
		{"a bad request about the account", apiError(400, "", "Your credit balance is too low"), failure, accountTrouble},
		{"a wrong key", apiError(401, "", ""), failure, accountTrouble},
		{"a wrong key as a bad request", apiError(400, "invalid_api_key", ""), failure, accountTrouble},
		{"a forbidden key", apiError(403, "", ""), failure, accountTrouble},
		{"an unknown model", apiError(404, "model_not_found", ""), failure, accountTrouble},
		{"an unknown anything else", apiError(404, "", ""), ignored, 0},
		{"a timeout of the server's", apiError(408, "", ""), failure, 0},
		{"too many requests", apiError(429, "rate_limit_exceeded", ""), failure, 0},
		{"too many requests until then", apiError(429, "rate_limit_exceeded", "", "Retry-After", "3"), ignored, 3 * time.Second},
		{"no quota, whatever it says about retrying", apiError(429, "insufficient_quota", "", "Retry-After", "3"), failure, accountTrouble},
		{"a spend limit", apiError(429, "monthly_spend_limit_exceeded", ""), failure, accountTrouble},
		{"overloaded", apiError(529, "", "", "Retry-After", "1.5"), failure, 1500 * time.Millisecond},
		{"not the API's answer", context.DeadlineExceeded, unset, 0},
	} {
		assert.Equal(t, breaker.Verdict{Outcome: c.outcome, OpenFor: c.openFor}, Classify(t.Context(), c.err), c.name)
	}

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Zero(t, Classify(gone, apiError(500, "", "")), "a caller who left says nothing about the model")
}

func TestRetryAfterTakesTheLongestOfItsForms(t *testing.T) {
	wait := func(header ...string) time.Duration {
		return Classify(t.Context(), apiError(503, "", "", header...)).OpenFor
	}
	assert.Equal(t, 2500*time.Millisecond, wait("Retry-After", "2", "Retry-After-Ms", "2500"))
	assert.Equal(t, 3*time.Second, wait("Retry-After", "3", "Retry-After-Ms", "2500"))
	assert.InDelta(t, time.Minute, wait("Retry-After", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)), float64(30*time.Second))
	for _, nonsense := range []string{"", "-5", "soon", "NaN", "Sat, 01 Jan 2000 00:00:00 GMT"} {
		assert.LessOrEqual(t, wait("Retry-After", nonsense), time.Duration(0), nonsense)
	}
	assert.Equal(t, 24*time.Hour, wait("Retry-After", "1e300"))
}

func TestOnlyTheCallersMistakesAreRejections(t *testing.T) {
	status, reason, ok := Rejected(apiError(400, "content_policy_violation", "not that"))
	assert.True(t, ok)
	assert.Equal(t, 400, status)
	assert.Equal(t, "not that", reason)
	for _, err := range []error{apiError(503, "", ""), apiError(401, "", ""), apiError(429, "", "", "Retry-After", "1"), context.Canceled} {
		_, _, ok := Rejected(err)
		assert.False(t, ok, err)
	}
}
