package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/gateway/internal/faultserver"
)

var nineWords = []string{"one ", "two ", "three ", "four ", "five ", "six ", "seven ", "eight ", "nine"}

// cut is a stream of which two thirds come, and how it ends then.
func cut(end faultserver.Step) faultserver.Answer {
	return faultserver.Answer{faultserver.EventStream(), faultserver.Events(events("large", nineWords...)[:7]...), end}
}

// requireBroken checks that an answer that broke after it had begun can be taken for nothing else, with the official client or
// without one.
func requireBroken(t *testing.T, r *rig, code string) {
	t.Helper()
	got := r.ask("alone", true)
	require.Error(t, got.Err, "the official client takes it for a success")
	require.Equal(t, "one two three four five six ", got.Text)

	wire := r.chat("alone", true)
	require.Equal(t, 200, wire.Status)
	require.Error(t, wire.Err, "a clean end of the body")
	require.Contains(t, wire.Body, `{"error":{`)
	require.Contains(t, wire.Body, code)
	require.NotContains(t, wire.Body, "[DONE]")
	require.NotContains(t, wire.Body, `"stop"`)
	require.Equal(t, "primary", wire.Header.Get("X-Breaker-Source"))
}

func TestCrashAStreamCutAfterTwoThirdsEndsBroken(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]faultserver.Step{
		"ended without the last chunk":     faultserver.End(),
		"reset":                            faultserver.Reset(),
		"a clean end without finish":       faultserver.LastChunk(),
		"an overloaded event":              faultserver.Events(overloaded),
		"DONE without a finish reason":     faultserver.Events("[DONE]"),
		"a malformed event, then the end":  faultserver.Chunk("data: {\"choi\n\n0\r\n\r\n"),
		"an event that ends in the middle": func(e *faultserver.Exchange) error { return faultserver.Chunk("data: {\"choi")(e) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", always(append(cut(end), faultserver.End())), ofFallback)
			requireBroken(t, r, "")
			r.requireCalls(2, 0)
			require.EqualValues(t, 2, r.breaker("one/large").Metrics.FailedCalls)
		})
	}
}

func TestCrashAStreamThatStallsEndsBrokenAtItsLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, "limits: {headers: 10m, first_content: 10m, between_contents: 1s, answer: 10m, request: 30m}\n", always(cut(faultserver.Hang())), ofFallback)
	begun := time.Now()
	requireBroken(t, r, "timeout")
	require.GreaterOrEqual(t, time.Since(begun), 2*time.Second)
	r.requireCalls(2, 0)
	for n := range 2 {
		seen, ended := r.primary.Wait(n, time.Minute)
		require.True(t, ended)
		require.False(t, seen.PeerGone.IsZero(), "the gateway gives the connection up")
	}
	require.EqualValues(t, 2, r.breaker("one/large").Metrics.FailedCalls)
}

func TestCrashAStreamCutBeforeItsFirstContentIsAnsweredByTheFallback(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]faultserver.Step{
		"ended without the last chunk": faultserver.End(), "reset": faultserver.Reset(), "a clean end": faultserver.LastChunk(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", always(faultserver.Answer{faultserver.EventStream(), faultserver.Events(role("large")), end}), ofFallback)
			requireFallback(t, r.ask("chat", true))
			r.requireCalls(2, 1)
		})
	}
}

func TestCrashAMalformedEventInTheMiddleIsLeftOut(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", always(faultserver.Answer{
		faultserver.EventStream(), faultserver.Events(role("large"), said("large", "The "), `{"choices":[{"del`, said("large", "primary "), "nonsense", said("large", "answers."),
			finished("large"), used("large", 3), "[DONE]"), faultserver.LastChunk(),
	}), ofFallback)
	requirePrimary(t, r.ask("chat", true))
	r.requireCalls(1, 0)
	require.EqualValues(t, 1, r.breaker("one/large").Metrics.SuccessfulCalls)
}

// The upstream does not even end the body, so a gateway that waits for it hangs.
func TestCrashAFinishedStreamEndsWithoutDone(t *testing.T) {
	t.Parallel()
	all := events("large", "The ", "primary ", "answers.")
	for name, end := range map[string]faultserver.Step{"then nothing": faultserver.Hang(), "a clean end": faultserver.LastChunk(), "reset": faultserver.End()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", always(faultserver.Answer{faultserver.EventStream(), faultserver.Events(all[:5]...), end}), ofFallback)
			begun := time.Now()
			wire := r.chat("chat", true)
			require.NoError(t, wire.Err)
			require.Contains(t, wire.Body, "[DONE]")
			got := r.ask("chat", true) // which asks for the usage too, in vain
			require.NoError(t, got.Err)
			require.Equal(t, "The primary answers.", got.Text)
			require.Less(t, time.Since(begun), 2*time.Minute, "the limit between contents is ten")
			r.requireCalls(2, 0)
			_, ended := r.primary.Wait(1, time.Minute)
			require.True(t, ended)
			require.EqualValues(t, 2, r.breaker("one/large").Metrics.SuccessfulCalls)
			require.Equal(t, breaker.StateClosed, r.breaker("one/large").State)
		})
	}
}
