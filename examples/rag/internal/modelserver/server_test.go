package modelserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const prompt = "Answer from these passages.\n\n[1] (cats) Cats sleep most of the day. Cats hunt at night.\n\n" +
	"[2] (dogs) Dogs bark at strangers.\n\nQuestion: When do cats hunt?"

func start(t *testing.T) *Server {
	t.Helper()
	s, err := Start()
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func ask(t *testing.T, s *Server, streamed bool) (status int, body string, err error) {
	t.Helper()
	return askUntil(t.Context(), t, s, streamed)
}

// askBriefly is ask for a server that does not answer.
func askBriefly(t *testing.T, s *Server, streamed bool) (status int, body string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	return askUntil(ctx, t, s, streamed)
}

func askUntil(ctx context.Context, t *testing.T, s *Server, streamed bool) (status int, body string, err error) {
	t.Helper()
	in, _ := json.Marshal(map[string]any{"stream": streamed, "messages": []any{map[string]string{"role": "user", "content": prompt}}})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.BaseURL()+"chat/completions", strings.NewReader(string(in)))
	require.NoError(t, err)
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	return reply.StatusCode, string(text), err
}

func TestAnswersOutOfThePrompt(t *testing.T) {
	assert.Contains(t, Answer(prompt), "Cats hunt at night.")
	assert.NotContains(t, Answer(prompt), "[1]")
	assert.Equal(t, WithoutSources, Answer("Question: When do cats hunt?"))
}

func TestWholeAndStreamedAnswersSayTheSame(t *testing.T) {
	s := start(t)
	status, body, err := ask(t, s, false)
	require.NoError(t, err)
	assert.Equal(t, 200, status)
	var reply struct {
		Choices []struct {
			Message struct{ Content string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &reply))
	assert.Equal(t, Answer(prompt), reply.Choices[0].Message.Content)

	_, body, err = ask(t, s, true)
	require.NoError(t, err)
	assert.Equal(t, Answer(prompt), joined(t, body))
	assert.Contains(t, body, `"finish_reason":"stop"`)
	assert.True(t, strings.HasSuffix(body, "data: [DONE]\n\n"))
}

func joined(t *testing.T, events string) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(events) {
		data, found := strings.CutPrefix(strings.TrimSpace(line), "data: {")
		if !found {
			continue
		}
		var chunk struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		require.NoError(t, json.Unmarshal([]byte("{"+data), &chunk))
		out.WriteString(chunk.Choices[0].Delta.Content)
	}
	return out.String()
}

func TestFaults(t *testing.T) {
	s := start(t)
	for kind, status := range map[Kind]int{ServerError: 500, Unavailable: 503, TooManyRequests: 429} {
		require.NoError(t, s.SetFault(Fault{Kind: kind}))
		got, body, err := ask(t, s, true)
		require.NoError(t, err)
		assert.Equal(t, status, got)
		assert.Contains(t, body, `"error"`)
	}
	for _, streamed := range []bool{false, true} {
		require.NoError(t, s.SetFault(Fault{Kind: Hang}))
		_, _, err := askBriefly(t, s, streamed)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		require.NoError(t, s.SetFault(Fault{Kind: Slow, Delay: time.Hour}))
		_, _, err = askBriefly(t, s, streamed)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		require.NoError(t, s.SetFault(Fault{Kind: Slow, Delay: time.Millisecond}))
		_, _, err = ask(t, s, streamed)
		require.NoError(t, err)

		require.NoError(t, s.SetFault(Fault{Kind: Cut}))
		_, body, err := ask(t, s, streamed)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.NotEmpty(t, body, "the cut comes after the answer began")
	}
}

func TestRefusesConnectionsAndComesBackAtTheSameAddress(t *testing.T) {
	s := start(t)
	address := s.BaseURL()
	_, _, err := ask(t, s, false)
	require.NoError(t, err)

	require.NoError(t, s.SetFault(Fault{Kind: Refuse}))
	http.DefaultClient.CloseIdleConnections() // a kept connection ends with EOF, a new one is refused
	_, _, err = ask(t, s, false)
	require.Truef(t, errors.Is(err, syscall.ECONNREFUSED), "got %v", err)

	require.NoError(t, s.SetFault(Fault{Kind: None}))
	status, _, err := ask(t, s, false)
	require.NoError(t, err)
	assert.Equal(t, 200, status)
	assert.Equal(t, address, s.BaseURL())
}

func TestRetryAfterIsSentInWholeSeconds(t *testing.T) {
	w := httptest.NewRecorder()
	retryAfter(w, 1200*time.Millisecond)
	assert.Equal(t, "2", w.Header().Get("Retry-After"))
}

func TestTheFaultEndpointChecksWhatItIsGiven(t *testing.T) {
	s := start(t)
	post := func(body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.ServeFault(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
		return w
	}
	assert.Equal(t, 200, post(`{"fault":"429","retry_after":"5s"}`).Code)
	assert.Equal(t, Fault{Kind: TooManyRequests, RetryAfter: 5 * time.Second}, s.Fault())
	for _, bad := range []string{``, `{}`, `{"fault":"fire"}`, `{"fault":"slow","delay":"-1s"}`, `{"fault":"slow","delay":3}`} {
		assert.Equal(t, 400, post(bad).Code, bad)
	}
	assert.Equal(t, TooManyRequests, s.Fault().Kind, "a bad request changes nothing")
}

func TestEachRequestIsReportedAlsoWhenItFails(t *testing.T) {
	s := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	var arrived atomic.Int32
	s.OnRequest = func() {
		if arrived.Add(1) == 2 {
			cancel()
		}
	}
	_, _, err := ask(t, s, false)
	require.NoError(t, err)
	require.NoError(t, s.SetFault(Fault{Kind: Hang}))
	_, _, err = askUntil(ctx, t, s, false)
	require.ErrorIs(t, err, context.Canceled)
	assert.EqualValues(t, 2, arrived.Load())
}

func TestAMalformedRequestIsTheCallersMistake(t *testing.T) {
	s := start(t)
	reply, err := http.Post(s.BaseURL()+"chat/completions", "application/json", strings.NewReader(`{"messages": []}`))
	require.NoError(t, err)
	defer reply.Body.Close()
	assert.Equal(t, 400, reply.StatusCode)
}
