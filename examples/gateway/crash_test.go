package main

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/gateway/internal/config"
	"github.com/failfast-go/breaker/examples/gateway/internal/faultserver"
)

// These tests crash the gateway's upstreams in every way that was seen to hurt one, and look at both ends: at what the caller got,
// through the official client, and at what the upstreams saw.

// both runs a test for an answer in one piece and for a streamed one.
func both(t *testing.T, test func(t *testing.T, stream bool)) {
	for name, stream := range map[string]bool{"in one piece": false, "streamed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, stream)
		})
	}
}

var (
	ofPrimary  = saying("The ", "primary ", "answers.")
	ofFallback = saying("The ", "fallback ", "answers.")
)

func requirePrimary(t *testing.T, got reply) {
	t.Helper()
	requireWhole(t, got, "The primary answers.", "large", "primary")
}

func requireFallback(t *testing.T, got reply) {
	t.Helper()
	requireWhole(t, got, "The fallback answers.", "spare", "two/spare")
}

// requireWhole checks a complete answer, in the name and with the usage of the model that gave it.
func requireWhole(t *testing.T, got reply, text, model, source string) {
	t.Helper()
	require.NoError(t, got.Err)
	require.Equal(t, text, got.Text)
	require.Equal(t, model, got.Model)
	require.EqualValues(t, 4, got.Usage, "three words and one")
	require.Equal(t, source, got.source())
	require.Equal(t, strconv.FormatBool(source != "primary"), got.Header.Get("X-Breaker-Degraded"))
}

func (r *rig) requireCalls(primary, fallback int) {
	r.t.Helper()
	require.Equal(r.t, primary, r.primary.Count(), "calls of the primary")
	require.Equal(r.t, fallback, r.fallback.Count(), "calls of the fallback")
}

func TestCrash429WithRetryAfterOnceIsWaitedForOnTheSameTarget(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, stream bool) {
		busy := complaint(429, "rate_limit_error", "rate_limit_exceeded", "slow down", "Retry-After", "0.3")
		r := newRig(t, "", then(ofPrimary, busy), ofFallback)
		got := r.ask("chat", stream)
		requirePrimary(t, got)
		require.Equal(t, "2", got.attempts())
		r.requireCalls(2, 0)
		seen := r.primary.Requests()
		require.GreaterOrEqual(t, seen[1].At.Sub(seen[0].At), 300*time.Millisecond, "not before it said")
		require.Equal(t, string(seen[0].Body), string(seen[1].Body))
		require.Zero(t, r.breaker("one/large").Metrics.FailedCalls)
	})
}

func TestCrash429WithALongRetryAfterGoesToTheFallbackAtOnce(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, stream bool) {
		busy := complaint(429, "rate_limit_error", "rate_limit_exceeded", "slow down", "Retry-After", "60")
		r := newRig(t, "", then(ofPrimary, busy), ofFallback)
		for range 5 {
			requireFallback(t, r.ask("chat", stream))
		}
		r.requireCalls(1, 5)
		require.Equal(t, breaker.RuleRetryAfter, r.breaker("one/large").Trip.Rule)

		p := r.ask("alone", stream).problem(t)
		require.Equal(t, 503, p.StatusCode)
		wait, err := strconv.Atoi(p.Response.Header.Get("Retry-After"))
		require.NoError(t, err)
		require.True(t, 0 < wait && wait <= 60, wait)
		r.requireCalls(1, 5)
	})
}

// A primary that fails for good is asked three times: twice for the first caller and once for the second.
func TestCrashAPrimaryThatGoesOnFailingIsAskedThreeTimesAndNobodyNotices(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]faultserver.Answer{
		"429 without Retry-After": complaint(429, "rate_limit_error", "rate_limit_exceeded", "slow down"),
		"500":                     complaint(500, "server_error", "", "oops"),
		"503":                     complaint(503, "server_error", "", "down"),
		"529":                     faultserver.Whole(529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`),
		"502 with a page":         faultserver.Whole(502, "<html>Bad Gateway</html>"),
		"reset before headers":    {faultserver.Reset()},
		"ended before headers":    {faultserver.End()},
		"an overloaded event":     {faultserver.EventStream(), faultserver.Events(overloaded), faultserver.LastChunk()},
		"an overloaded 200":       faultserver.Whole(200, overloaded),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, stream bool) {
				if name == "an overloaded event" && !stream {
					t.Skip("no provider answers so")
				}
				r := newRig(t, "", always(answer), ofFallback)
				for i := range 8 {
					got := r.ask("chat", stream)
					requireFallback(t, got)
					require.Equal(t, []string{"3", "2", "1"}[min(i, 2)], got.attempts())
				}
				r.requireCalls(3, 8)
				require.Equal(t, breaker.StateOpen, r.breaker("one/large").State)

				p := r.ask("alone", stream).problem(t)
				require.Equal(t, 503, p.StatusCode)
				require.Equal(t, "circuit_open", p.Code)
				require.NotEmpty(t, p.Response.Header.Get("Retry-After"))
				last := r.ask("last", stream)
				require.NoError(t, last.Err)
				require.Equal(t, "Ask again later.", last.Text)
				require.Equal(t, "default", last.source())
				r.requireCalls(3, 8)
			})
		})
	}
}

const overloaded = `{"error":{"message":"Overloaded","type":"overloaded_error"}}`

func TestCrashWhatFailsOnceIsAskedOnceMore(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]faultserver.Answer{
		"500":                  complaint(500, "server_error", "", "oops"),
		"429":                  complaint(429, "rate_limit_error", "rate_limit_exceeded", "slow down"),
		"reset before headers": {faultserver.Reset()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, stream bool) {
				r := newRig(t, "", then(ofPrimary, answer), ofFallback)
				got := r.ask("chat", stream)
				requirePrimary(t, got)
				require.Equal(t, "2", got.attempts())
				r.requireCalls(2, 0)
				seen := r.primary.Requests()
				require.Equal(t, string(seen[0].Body), string(seen[1].Body))
				require.Equal(t, "Bearer "+oneKey, seen[1].Header.Get("Authorization"))
			})
		})
	}
}

// What a fallback needs to answer on a busy machine is far less than these limits, and they are far less than the others.
const impatient = "limits: {headers: 10m, first_content: 4s, between_contents: 10m, answer: 4s, request: 30m}\n"

// A provider that hangs costs each of the first three callers its limit, once: another try would cost them another.
func TestCrashASilentUpstreamIsTriedOnceAndCostsItsLimit(t *testing.T) {
	t.Parallel()
	ping := func(e *faultserver.Exchange) error {
		for {
			if err := faultserver.Chunk(": ping\n\n")(e); err != nil {
				return err
			}
			if err := faultserver.Pause(100 * time.Millisecond)(e); err != nil {
				return err
			}
		}
	}
	for name, answer := range map[string]faultserver.Answer{
		"accepts and never answers":        {faultserver.Hang()},
		"headers at once and then nothing": {faultserver.EventStream(), faultserver.Hang()},
		"headers at once and then pings":   {faultserver.EventStream(), ping},
		"the first token far too late":     {faultserver.EventStream(), faultserver.Events(role("large")), faultserver.Hang()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, stream bool) {
				r := newRig(t, impatient, always(answer), ofFallback)
				got := r.ask("chat", stream)
				requireFallback(t, got)
				require.Equal(t, "2", got.attempts())
				require.GreaterOrEqual(t, got.Took, 4*time.Second)
				require.Less(t, got.Took, 2*time.Minute, "not the limit between contents, or for headers")
				r.requireCalls(1, 1)
				seen, ended := r.primary.Wait(0, time.Minute)
				require.True(t, ended)
				require.False(t, seen.PeerGone.IsZero(), "the gateway gives the connection up")
				require.EqualValues(t, 1, r.breaker("one/large").Metrics.FailedCalls)
			})
		})
	}
}

func TestCrashASilentUpstreamWithoutFallbackIsATimeout(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, stream bool) {
		r := newRig(t, impatient, always(faultserver.Answer{faultserver.Hang()}), ofFallback)
		p := r.ask("alone", stream).problem(t)
		require.Equal(t, 504, p.StatusCode)
		r.requireCalls(1, 0) // the client does not repeat it either
	})
}

func TestCrashContextLengthGoesOnlyToALargerModel(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, stream bool) {
		tooLong := complaint(400, "invalid_request_error", "context_length_exceeded", "This model's maximum context length is 8000 tokens.")
		r := newRig(t, "", always(tooLong), ofFallback)
		requireWhole(t, r.ask("chat", stream), "The fallback answers.", "roomy", "two/roomy")
		r.requireCalls(1, 1)

		p := r.ask("alone", stream).problem(t)
		require.Equal(t, 400, p.StatusCode)
		require.Equal(t, "context_length_exceeded", p.Code)
		require.Contains(t, p.Message, "8000 tokens", "the provider's reason")
		r.requireCalls(2, 1)
		require.Equal(t, breaker.StateClosed, r.breaker("one/large").State)
		require.Zero(t, r.breaker("one/large").Metrics.FailedCalls)
	})
}

func TestCrashAContentFiltersRefusalGoesToTheCallerAndNotAroundIt(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, stream bool) {
		filtered := complaint(400, "invalid_request_error", "content_filter", "The prompt was filtered.")
		r := newRig(t, "", always(filtered), ofFallback)
		for i := range 5 {
			p := r.ask("chat", stream).problem(t)
			require.Equal(t, 400, p.StatusCode)
			require.Equal(t, "content_filter", p.Code)
			require.Equal(t, "The prompt was filtered.", p.Message)
			r.requireCalls(i+1, 0)
		}
		require.Equal(t, breaker.StateClosed, r.breaker("one/large").State)
	})
}

// prefill is a fallback's complaint about a conversation that ends with half of an answer.
var prefill = complaint(400, "invalid_request_error", "", "This model does not support assistant message prefill.")

func TestCrashACutStreamIsNotContinuedByAFallback(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", always(cut(faultserver.End())), always(prefill))
	got := r.ask("chat", true)
	require.Error(t, got.Err)
	require.NotContains(t, got.Err.Error(), "prefill")
	r.requireCalls(1, 0)
}

func TestCrashAFallbacksComplaintIsNotTheCause(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, stream bool) {
		r := newRig(t, "", always(complaint(503, "server_error", "", "The primary is down.")), always(prefill))
		p := r.ask("chat", stream).problem(t)
		require.Equal(t, 503, p.StatusCode)
		require.Equal(t, "The primary is down.", p.Message)
		require.Zero(t, r.breaker("two/spare").Metrics.FailedCalls, "it is not ill")
	})
}

func TestCrashTroubleWithTheAccountIsAskedOnceInAll(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]faultserver.Answer{
		"quota 429":       complaint(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota.", "Retry-After", "1"),
		"invalid key 400": faultserver.Whole(400, `[{"error":{"code":400,"message":"API key not valid: `+oneKey+`","status":"INVALID_ARGUMENT"}}]`),
		"invalid key 401": complaint(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-one-0*******cdef."),
		"no credit 400":   complaint(400, "invalid_request_error", "", "Your credit balance is too low to access the API."),
		"no model 404":    complaint(404, "invalid_request_error", "model_not_found", "The model large does not exist."),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, stream bool) {
				r := newRig(t, "", always(answer), ofFallback)
				alone := r.ask("alone", stream).problem(t)
				require.Equal(t, 502, alone.StatusCode, "it is not the caller's account")
				require.NotContains(t, alone.Error(), "sk-one-0", "no part of the gateway's key")
				for range 5 {
					requireFallback(t, r.ask("chat", stream))
				}
				r.requireCalls(1, 5)
				s := r.breaker("one/large")
				require.Equal(t, breaker.StateOpen, s.State)
				require.Greater(t, *s.RetryAfterSeconds, 60.0, "a person has to mend it")
			})
		})
	}
}

func TestCrashAnAnswerInOnePieceIsWholeOrNotGiven(t *testing.T) {
	t.Parallel()
	text := completion("large", "The ", "primary ", "answers.")
	for name, answer := range map[string]faultserver.Answer{
		"cut after two thirds":              faultserver.Short(text, len(text)*2/3),
		"chunks without the last":           {faultserver.Headers(200), faultserver.Chunk(text[:len(text)/2]), faultserver.End()},
		"chunks without the last, all text": {faultserver.Headers(200), faultserver.Chunk(text), faultserver.End()},
		"reset":                             {faultserver.Headers(200), faultserver.Chunk(text[:len(text)/2]), faultserver.Reset()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", always(answer), ofFallback)
			requireFallback(t, r.ask("chat", false))
			r.requireCalls(2, 1)
			require.EqualValues(t, 2, r.breaker("one/large").Metrics.FailedCalls)
			require.Error(t, r.ask("alone", false).Err)
		})
	}
}

func TestCrashAnthropicsOverloadedEventWithinA200(t *testing.T) {
	t.Parallel()
	event := func(kind, data string) faultserver.Step {
		return faultserver.Chunk("event: " + kind + "\ndata: " + data + "\n\n")
	}
	start := event("message_start", `{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"large","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}`)
	block := event("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`)
	word := event("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"The "}}`)
	failed := event("error", `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`)

	t.Run("before content", func(t *testing.T) {
		t.Parallel()
		r := newRigFor(t, config.Anthropic, "", always(faultserver.Answer{faultserver.EventStream(), start, failed, faultserver.LastChunk()}), ofFallback)
		requireFallback(t, r.ask("chat", true))
		r.requireCalls(2, 1)
		require.Equal(t, "/v1/messages", r.primary.Requests()[0].Path)
	})
	t.Run("after content", func(t *testing.T) {
		t.Parallel()
		r := newRigFor(t, config.Anthropic, "", always(faultserver.Answer{faultserver.EventStream(), start, block, word, failed, faultserver.LastChunk()}), ofFallback)
		got := r.ask("chat", true)
		require.ErrorContains(t, got.Err, "Overloaded")
		require.Equal(t, "The ", got.Text)
		r.requireCalls(1, 0)
		require.EqualValues(t, 1, r.breaker("one/large").Metrics.FailedCalls)
	})
}
