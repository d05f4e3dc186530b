package model

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"

	"github.com/failfast-go/breaker"
)

// accountTrouble is for how long the breaker opens when the key or the account is refused: no retry mends that, a person does.
const accountTrouble = 5 * time.Minute

// Classify says which of the API's errors count against the model, and for how long it asked to be left alone. It decides by
// the error's code where there is one, since the same status says different things: 429 is a full minute or an empty account.
// It leaves everything that is no answer of the API to the default: timeouts and broken connections are failures.
func Classify(ctx context.Context, err error) breaker.Verdict {
	var answer *openai.Error
	if !errors.As(err, &answer) || errors.Is(ctx.Err(), context.Canceled) {
		return breaker.Verdict{}
	}
	if aboutAccount(answer) {
		return breaker.Verdict{Outcome: breaker.Failure, OpenFor: accountTrouble}
	}
	wait := retryAfter(answer.Response)
	switch status := answer.StatusCode; {
	case status == http.StatusTooManyRequests && wait > 0:
		return breaker.Verdict{Outcome: breaker.Ignored, OpenFor: wait} // it is well, and says when to come back
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500:
		return breaker.Verdict{Outcome: breaker.Failure, OpenFor: wait}
	case status >= 400:
		return breaker.Verdict{Outcome: breaker.Ignored} // the caller's mistake: another server would say the same
	}
	return breaker.Verdict{}
}

// aboutAccount recognises what only the account's owner can mend: no such key, no credit, no such model for this key.
func aboutAccount(e *openai.Error) bool {
	switch e.Code {
	case "insufficient_quota", "credit_balance_exhausted", "invalid_api_key", "model_not_found", "billing_not_active":
		return true
	}
	if strings.HasSuffix(e.Code, "_spend_limit_exceeded") || strings.Contains(e.Message, "credit balance is too low") {
		return true
	}
	return e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusPaymentRequired || e.StatusCode == http.StatusForbidden
}

// Rejected reports whether the model refused this one request, and why: the caller should hear that, and no other model's answer.
func Rejected(err error) (status int, reason string, ok bool) {
	var answer *openai.Error
	if !errors.As(err, &answer) || answer.StatusCode >= 500 {
		return 0, "", false
	}
	if v := Classify(context.Background(), err); v.Outcome != breaker.Ignored || v.OpenFor > 0 {
		return 0, "", false
	}
	return answer.StatusCode, answer.Message, true
}

// retryAfter reads the three forms in use and returns the longest: milliseconds, seconds with or without a fraction, a date.
func retryAfter(r *http.Response) time.Duration {
	if r == nil {
		return 0
	}
	var wait time.Duration
	if ms, err := strconv.ParseFloat(r.Header.Get("Retry-After-Ms"), 64); err == nil {
		wait = seconds(ms / 1000)
	}
	text := r.Header.Get("Retry-After")
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		return max(wait, seconds(s))
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(wait, time.Until(at))
	}
	return wait
}

// seconds keeps a header from asking for more than a day, which no Duration overflows at; the breaker's own limit is far less.
func seconds(s float64) time.Duration {
	if !(s > 0) {
		return 0
	}
	return time.Duration(min(s, 24*60*60) * float64(time.Second))
}
