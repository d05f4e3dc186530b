package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/gateway/internal/config"
	"github.com/failfast-go/breaker/examples/gateway/internal/faultserver"
)

// Callers crash too, or mean harm.

func TestCrashAHundredCallersHangingUpChangeNoBreaker(t *testing.T) {
	t.Parallel()
	first := faultserver.Events(role("large"), said("large", "The "))
	for name, c := range map[string]struct {
		answer faultserver.Answer
		stream bool
	}{
		"in mid-stream":            {faultserver.Answer{faultserver.EventStream(), first, faultserver.Hang()}, true},
		"before the first content": {faultserver.Answer{faultserver.EventStream(), faultserver.Hang()}, true},
		"before a whole answer":    {faultserver.Answer{faultserver.Hang()}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", always(c.answer), ofFallback)
			ctx, hangUp := context.WithCancel(t.Context())
			var callers sync.WaitGroup
			early := make(chan raw, 100) // answers to callers who have not hung up
			for range 100 {
				callers.Go(func() {
					if got := r.post(ctx, "/v1/chat/completions", chatBody("chat", c.stream)); ctx.Err() == nil {
						early <- got
					}
				})
			}
			require.Eventually(t, func() bool { return r.primary.Count() == 100 || len(early) > 0 }, 5*time.Minute, time.Millisecond)
			hangUp()
			select {
			case got := <-early:
				require.Failf(t, "a caller was not kept waiting", "%+v", got)
			default:
			}
			callers.Wait()
			for n := range 100 {
				seen, ended := r.primary.Wait(n, time.Minute)
				require.True(t, ended)
				require.False(t, seen.PeerGone.IsZero(), "nobody reads on for a caller who has gone")
			}
			require.Eventually(t, func() bool { return r.breaker("one/large").Metrics.InFlight == 0 }, time.Minute, time.Millisecond)
			s := r.breaker("one/large")
			require.Equal(t, breaker.StateClosed, s.State)
			require.Zero(t, s.FailureCount)
			require.Zero(t, s.ConsecutiveFailures)
			require.Empty(t, s.Metrics.StateTransitions)
			require.Zero(t, r.fallback.Count(), "a caller who has gone needs no fallback")
			r.primary.Answer(ofPrimary)
			requirePrimary(t, r.ask("chat", c.stream))
		})
	}
}

// dial opens a connection to the gateway and writes what a slow caller begins with.
func (r *rig) dial(text string) net.Conn {
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	require.NoError(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, text)
	require.NoError(r.t, err)
	return conn
}

// drip writes a byte now and then until the gateway ends the connection.
func drip(conn net.Conn) {
	for range time.Tick(50 * time.Millisecond) {
		if _, err := conn.Write([]byte("a")); err != nil {
			return
		}
	}
}

func TestCrashACallerWhoSendsForEverIsEndedAndReachesNoUpstream(t *testing.T) {
	t.Parallel()
	opening := "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " + teamKey + "\r\n"
	for name, text := range map[string]string{
		"in the headers":       opening + "X-Slow: ",
		"in the body":          opening + "Content-Length: 1000\r\n\r\n{\"model\": \"",
		"in a body of chunks":  opening + "Transfer-Encoding: chunked\r\n\r\n3e8\r\n{\"model\": \"",
		"after an unknown key": "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Length: 1000\r\n\r\n{\"model\": \"",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "limits: {headers: 10m, first_content: 10m, between_contents: 10m, answer: 10m, request: 30m, caller: 1s}\n", ofPrimary, ofFallback)
			conn := r.dial(text)
			go drip(conn)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
			answer, err := io.ReadAll(conn)
			require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "the gateway still waits: %q", answer)
			if strings.HasPrefix(string(answer), "HTTP/1.1 200") {
				t.Fatalf("an answer to half a request: %s", answer)
			}
			r.requireCalls(0, 0)
		})
	}
}

// A caller who takes nothing must not hold the upstream's connection, nor count against the upstream.
func TestCrashACallerWhoDoesNotReadIsEnded(t *testing.T) {
	t.Parallel()
	word := faultserver.Events(said("large", strings.Repeat("word ", 10_000)))
	endless := func(e *faultserver.Exchange) error {
		for {
			if err := word(e); err != nil {
				return err
			}
		}
	}
	r := newRig(t, "limits: {headers: 10m, first_content: 10m, between_contents: 10m, answer: 10m, request: 30m, caller: 1s}\n", always(faultserver.Answer{faultserver.EventStream(), endless}), ofFallback)
	body := chatBody("chat", true)
	conn := r.dial(fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", teamKey, len(body), body))
	line, err := bufio.NewReaderSize(conn, 16).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "200")
	_, ended := r.primary.Wait(0, time.Minute)
	require.True(t, ended, "the upstream sends for ever")
	require.Eventually(t, func() bool { return r.breaker("one/large").Metrics.InFlight == 0 }, time.Minute, time.Millisecond)
	require.Zero(t, r.breaker("one/large").Metrics.FailedCalls, "the upstream is well")
	r.requireCalls(1, 0)
}

func TestCrashEmbeddingsNeverComeFromAnotherModel(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]faultserver.Answer{
		"503": complaint(503, "server_error", "", "down"), "reset": {faultserver.Reset()}, "quota": complaint(429, "insufficient_quota", "insufficient_quota", "no"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", always(answer), ofFallback)
			for range 5 {
				got := r.post(t.Context(), "/v1/embeddings", `{"model":"chat","input":"hello"}`)
				require.NoError(t, got.Err)
				require.GreaterOrEqual(t, got.Status, 500)
				got = r.post(t.Context(), "/v1/embeddings", `{"model":"last","input":"hello"}`)
				require.GreaterOrEqual(t, got.Status, 500, "a text is no embedding")
			}
			require.LessOrEqual(t, r.primary.Count(), 3)
			require.Zero(t, r.fallback.Count())
		})
	}
}

func TestCrashAFieldThatATargetCannotExpressIsNamedAndNotDropped(t *testing.T) {
	t.Parallel()
	r := newRigFor(t, config.Anthropic, "", ofPrimary, ofFallback)
	body := `{"model":"%s","messages":[{"role":"user","content":"hello"}],"logit_bias":{"50256":-100}}`
	got := r.post(t.Context(), "/v1/chat/completions", fmt.Sprintf(body, "alone"))
	require.Equal(t, http.StatusBadRequest, got.Status)
	require.Contains(t, got.Body, "logit_bias")
	r.requireCalls(0, 0)

	got = r.post(t.Context(), "/v1/chat/completions", fmt.Sprintf(body, "chat"))
	require.Equal(t, http.StatusOK, got.Status, "the fallback's format can express it")
	require.Contains(t, string(r.fallback.Requests()[0].Body), `"logit_bias":{"50256":-100}`)
	r.requireCalls(0, 1)
}
