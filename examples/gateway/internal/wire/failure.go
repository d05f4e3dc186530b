package wire

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/failfast-go/breaker"
)

// Kind is what a failure means for the request, and what it says of the target.
type Kind uint8

// The kinds of failure.
const (
	Mistake     Kind = iota // the caller's: another target would say the same
	Conflict                // worth one more try
	TooLong                 // for the model's context: only a larger one helps
	Filtered                // by the provider's policy
	Account                 // the gateway's key, credit or model name: a person must mend it
	Limited                 // too many requests
	Overloaded              // the provider is ill, or the connection to it
	TooSlow                 // a limit of the gateway passed, or the provider's own
	Cut                     // the answer ended before its end
	Unreachable             // the caller is gone, or no time is left: nothing is known of the target
)

// Failure is an attempt without an answer.
type Failure struct {
	Kind       Kind
	Status     int    // the provider's; 0 without one
	Message    string // the provider's reason, or the gateway's
	Type, Code string // the provider's, where there are
	RetryAfter time.Duration
	Cause      error // nil when the provider answered
}

// Error is what the breaker lists the failure under: short, and the same for the same trouble.
func (f *Failure) Error() string {
	switch {
	case f.Cause != nil:
		return f.Message + ": " + f.Cause.Error()
	case f.Status != 0:
		return strings.TrimSpace(fmt.Sprintf("%d %s", f.Status, cmp.Or(f.Code, f.Type, http.StatusText(f.Status))))
	}
	return cmp.Or(f.Code, f.Type, f.Message)
}

func (f *Failure) Unwrap() error { return f.Cause }

// accountTrouble is for how long the breaker opens when the key, the credit or the model's name is refused.
const accountTrouble = 5 * time.Minute

// plan is what a kind leads to.
type plan struct {
	outcome breaker.Outcome
	retry   bool // on the same target
	next    bool // on to the next target
}

var plans = [...]plan{
	Mistake:     {breaker.Ignored, false, false},
	Conflict:    {breaker.Ignored, true, false},
	TooLong:     {breaker.Ignored, false, true},
	Filtered:    {breaker.Ignored, false, false},
	Account:     {breaker.Failure, false, true},
	Limited:     {breaker.Failure, true, true},
	Overloaded:  {breaker.Failure, true, true},
	TooSlow:     {breaker.Failure, false, true},
	Cut:         {breaker.Failure, true, true},
	Unreachable: {breaker.Ignored, false, false},
}

// Retry reports whether the same target may be asked once more.
func (f *Failure) Retry() bool { return plans[f.Kind].retry }

// Next reports whether another target may be asked.
func (f *Failure) Next() bool { return plans[f.Kind].next }

// OfCaller reports whether it is the request that is wrong, and not the target.
func (f *Failure) OfCaller() bool {
	return f.Kind == Mistake || f.Kind == Conflict || f.Kind == TooLong || f.Kind == Filtered
}

// Verdict says what the failure is to the target's breaker. A target that is busy and says until when is well.
func (f *Failure) Verdict() breaker.Verdict {
	v := breaker.Verdict{Outcome: plans[f.Kind].outcome}
	switch {
	case f.Kind == Account:
		v.OpenFor = accountTrouble
	case f.Kind == Limited && f.RetryAfter > 0:
		v = breaker.Verdict{Outcome: breaker.Ignored, OpenFor: f.RetryAfter}
	case v.Outcome == breaker.Failure:
		v.OpenFor = f.RetryAfter
	}
	return v
}

// Judge reads a provider's error. The code in the body outranks the status; a status of 200 is that of an error within a stream.
func Judge(status int, header http.Header, body []byte) *Failure {
	said := complaintIn(body)
	f := &Failure{Status: status, Message: said.message, Type: said.kind, Code: said.code, RetryAfter: retryAfter(header)}
	f.Message = cmp.Or(f.Message, http.StatusText(status), "the provider gave no reason")
	if kind, known := byCode(said); known {
		f.Kind = kind
	} else {
		f.Kind = byStatus(status)
	}
	return f
}

// complaint is a provider's error, whatever its format.
type complaint struct{ message, kind, code string }

// complaintIn reads {"error":{"message","type","code"}} (OpenAI, Anthropic), {"error":"text"} (Ollama), and a list of one of them
// (Google).
func complaintIn(body []byte) (c complaint) {
	var list []json.RawMessage
	if body = bytes.TrimSpace(body); len(body) > 0 && body[0] == '[' && json.Unmarshal(body, &list) == nil && len(list) > 0 {
		body = list[0]
	}
	var outer struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
	}
	if json.Unmarshal(body, &outer) != nil {
		return c
	}
	c.message = outer.Message
	if json.Unmarshal(outer.Error, &c.message) == nil {
		return c
	}
	var inner struct {
		Message string `json:"message"`
		Type    string `json:"type"`
		Status  string `json:"status"`
		Code    any    `json:"code"`
	}
	if json.Unmarshal(outer.Error, &inner) == nil {
		c.message, c.kind = cmp.Or(inner.Message, c.message), cmp.Or(inner.Type, inner.Status)
		c.code, _ = inner.Code.(string)
	}
	return c
}

var codes = map[string]Kind{
	"context_length_exceeded": TooLong, "request_too_large": TooLong, "string_above_max_length": TooLong,
	"content_policy_violation": Filtered, "content_filter": Filtered, "moderation_blocked": Filtered, "ResponsibleAIPolicyViolation": Filtered,
	"insufficient_quota": Account, "credit_balance_exhausted": Account, "billing_not_active": Account, "billing_hard_limit_reached": Account,
	"billing_error": Account, "invalid_api_key": Account, "account_deactivated": Account, "authentication_error": Account,
	"permission_error": Account, "model_not_found": Account, "UNAUTHENTICATED": Account, "PERMISSION_DENIED": Account,
	"rate_limit_exceeded": Limited, "rate_limit_error": Limited, "RESOURCE_EXHAUSTED": Limited,
	"overloaded_error": Overloaded, "server_is_overloaded": Overloaded, "slow_down": Overloaded, "server_error": Overloaded,
	"api_error": Overloaded, "internal_error": Overloaded, "service_unavailable": Overloaded, "UNAVAILABLE": Overloaded,
	"timeout_error": TooSlow, "timeout": TooSlow,
}

// texts are the reasons of providers that give no code.
var texts = []struct {
	pattern *regexp.Regexp
	kind    Kind
}{
	{regexp.MustCompile(`(?i)maximum context length|prompt is too long|context window|exceeds? (the )?(available )?context|exceed context limit`), TooLong},
	{regexp.MustCompile(`(?i)content filter|content management policy|content policy`), Filtered},
	{regexp.MustCompile(`(?i)credit balance is too low|api key not valid|invalid api key|incorrect api key|exceeded your current quota`), Account},
	{regexp.MustCompile(`(?i)^model:? .*(not found|does not exist)|^model: |the model .* does not exist`), Account},
}

// byCode decides by the code, then the type, then the text. An invalid_request_error says nothing but what the status says.
func byCode(c complaint) (Kind, bool) {
	for _, code := range []string{c.code, c.kind} {
		if kind, ok := codes[code]; ok {
			return kind, true
		}
		if strings.HasSuffix(code, "_spend_limit_exceeded") {
			return Account, true
		}
	}
	for _, t := range texts {
		if t.pattern.MatchString(c.message) {
			return t.kind, true
		}
	}
	return 0, false
}

func byStatus(status int) Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden:
		return Account
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return TooSlow
	case http.StatusConflict:
		return Conflict
	case http.StatusRequestEntityTooLarge:
		return TooLong
	case http.StatusTooManyRequests:
		return Limited
	}
	if status >= 400 && status < 500 {
		return Mistake
	}
	return Overloaded // also for a redirect, or an error within a stream that gives no reason
}

// retryAfter reads the forms in use and returns the longest: milliseconds, seconds with or without a fraction, a date.
func retryAfter(h http.Header) time.Duration {
	var wait time.Duration
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil {
		wait = seconds(ms / 1000)
	}
	text := h.Get("Retry-After")
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
	return time.Duration(math.Min(s, 24*60*60) * float64(time.Second))
}
