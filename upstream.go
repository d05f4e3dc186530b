package breaker

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ErrorKind says what an error answer of a language model's API, or of any HTTP upstream, is about.
type ErrorKind string

// The kinds, what each is to a breaker, and what a caller may do about it.
const (
	KindInvalidRequest ErrorKind = "invalid_request" // the caller's mistake: ignored; nobody else will do better
	KindContextLength  ErrorKind = "context_length"  // too long for this model: ignored; a larger one may do
	KindContentFilter  ErrorKind = "content_filter"  // refused for what it says: ignored; the caller should hear the reason
	KindAccount        ErrorKind = "account"         // key, permission, quota or money: failure, open long; others may do
	KindModelNotFound  ErrorKind = "model_not_found" // failure, open long; others may do
	KindRateLimited    ErrorKind = "rate_limited"    // with a Retry-After ignored, open for that long; else failure
	KindTimeout        ErrorKind = "timeout"         // failure; asking the same again multiplies the wait
	KindUnavailable    ErrorKind = "unavailable"     // overloaded or broken: failure; once more may do
)

// UpstreamError is an HTTP answer that is an error: by its status, or by what its body says, whatever the status. It is what
// a [Transport] gives to the breaker, so what a [Classifier] sees, and what [Diagnose] returns.
type UpstreamError struct {
	StatusCode int // below 400 for an error inside an answer that began well
	Kind       ErrorKind
	Type, Code string        // as the body names them; empty where it does not
	Message    string        // of the body, cut at a few KiB. It may repeat a prompt or a key, so Error leaves it out
	RetryAfter time.Duration // the longest wait that a header asks for; zero for none
}

// Error is the status, and type and code from the body: nothing a caller has written.
func (e *UpstreamError) Error() string {
	var b strings.Builder
	if e.StatusCode >= 400 {
		b.WriteString(strings.TrimSpace(strconv.Itoa(e.StatusCode) + " " + http.StatusText(e.StatusCode)))
	} else {
		fmt.Fprintf(&b, "error inside an answer of status %d", e.StatusCode)
	}
	said, code := string(e.Kind), e.Code
	if code == strconv.Itoa(e.StatusCode) { // as Google says it: nothing new
		code = ""
	}
	switch {
	case e.Type != "" && code != "" && e.Type != code:
		said = e.Type + ", " + code
	case e.Type+code != "":
		said = cmp.Or(code, e.Type)
	}
	return b.String() + ": " + said
}

// openLong is how long a breaker stays open for what only a person can mend: a key, a bill, a model's name. Config.MaxRetryAfter
// is the same by default, and bounds it.
const openLong = 10 * time.Minute

func (e *UpstreamError) verdict() Verdict {
	switch e.Kind {
	case KindInvalidRequest, KindContextLength, KindContentFilter:
		return Verdict{Outcome: Ignored}
	case KindAccount, KindModelNotFound:
		return Verdict{Failure, max(openLong, e.RetryAfter)}
	case KindRateLimited:
		if e.RetryAfter > 0 {
			return Verdict{Ignored, e.RetryAfter}
		}
	}
	return Verdict{Failure, e.RetryAfter}
}

// Diagnose says what an error answer means. header may be nil; body is its beginning, 4 KiB are plenty, or the data of an
// error event, with the status of the answer it came in. What the body names as type or code outranks the status; what it says
// in words counts only where those leave it open. It understands the shapes of OpenAI, Anthropic, Google, Ollama and those who
// follow them, whole or cut off anywhere; of other bodies only the words. It is never nil.
func Diagnose(status int, header http.Header, body []byte) *UpstreamError {
	f := readFault(body)
	e := &UpstreamError{StatusCode: status, Type: f.kind, Code: f.code, Message: f.message, RetryAfter: retryAfter(header, time.Now())}
	if e.Kind = f.named(); e.Kind == "" && (status < 500 && status != http.StatusTooManyRequests) {
		e.Kind = f.worded(status)
	}
	if e.Kind == "" {
		e.Kind = kindOfStatus(status)
	}
	return e
}

func kindOfStatus(status int) ErrorKind {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusPaymentRequired:
		return KindAccount
	case status == http.StatusRequestEntityTooLarge:
		return KindContextLength
	case status == http.StatusTooManyRequests:
		return KindRateLimited
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		return KindTimeout
	case status >= 400 && status < 500:
		return KindInvalidRequest
	}
	return KindUnavailable
}

// named are the types and codes that decide. Those of a plain mistake are not among them: they come with everything.
var named = map[string]ErrorKind{
	"insufficient_quota": KindAccount, "credit_balance_exhausted": KindAccount, "billing_hard_limit_reached": KindAccount,
	"billing_not_active": KindAccount, "billing_error": KindAccount, "account_deactivated": KindAccount,
	"invalid_api_key": KindAccount, "incorrect_api_key": KindAccount, "api_key_invalid": KindAccount,
	"authentication_error": KindAccount, "invalid_authentication": KindAccount, "unauthenticated": KindAccount,
	"permission_error": KindAccount, "permission_denied": KindAccount, "unsupported_country_region_territory": KindAccount,

	"model_not_found": KindModelNotFound, "deploymentnotfound": KindModelNotFound,

	"context_length_exceeded": KindContextLength, "request_too_large": KindContextLength,
	"exceed_context_size_error": KindContextLength,

	"content_policy_violation": KindContentFilter, "content_filter": KindContentFilter,
	"responsibleaipolicyviolation": KindContentFilter, "moderation_blocked": KindContentFilter,

	"rate_limit_error": KindRateLimited, "rate_limit_exceeded": KindRateLimited, "rate_limit_reached": KindRateLimited,
	"too_many_requests": KindRateLimited, "resource_exhausted": KindRateLimited,

	"timeout_error": KindTimeout, "timeout": KindTimeout, "request_timeout": KindTimeout, "deadline_exceeded": KindTimeout,

	"overloaded_error": KindUnavailable, "overloaded": KindUnavailable, "engine_overloaded": KindUnavailable,
	"engine_overloaded_error": KindUnavailable, "server_is_overloaded": KindUnavailable, "slow_down": KindUnavailable,
	"server_error": KindUnavailable, "api_error": KindUnavailable, "internal": KindUnavailable,
	"internal_error": KindUnavailable, "internal_server_error": KindUnavailable, "unavailable": KindUnavailable,
	"service_unavailable": KindUnavailable,
}

// fault is what a body says is wrong.
type fault struct {
	kind, code, message string   // kind is its type
	words               []string // whatever else it names: Google's status and reasons
	within              bool     // an error object, not just at the top
}

// named decides by the code, then the type, then the rest.
func (f *fault) named() ErrorKind {
	for _, word := range append([]string{f.code, f.kind}, f.words...) {
		word = strings.ToLower(word)
		if k, ok := named[word]; ok {
			return k
		}
		if strings.HasSuffix(word, "_spend_limit_exceeded") {
			return KindAccount
		}
	}
	return ""
}

// worded decides by what the message says, as far as that is needed to tell mistakes of the caller from others.
func (f *fault) worded(status int) ErrorKind {
	text := strings.ToLower(f.message)
	says := func(phrases ...string) bool {
		for _, p := range phrases {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	switch {
	case says("credit balance is too low", "api key not valid", "invalid api key", "incorrect api key"):
		return KindAccount
	case status == http.StatusForbidden && says("api key", "api-key", "api_key", "access token", "credential"):
		return KindAccount
	case status == http.StatusNotFound && says("model") && (strings.HasPrefix(text, "model") || says("not found", "not exist")),
		says("not a valid model"):
		return KindModelNotFound
	case says("prompt is too long", "maximum context length", "exceeds the context", "context window"):
		return KindContextLength
	case says("content management policy", "content policy"):
		return KindContentFilter
	case status < 400 && f.kind == "invalid_request_error":
		return KindInvalidRequest
	}
	return ""
}

const maxMessage = 512 // of a body that is no JSON

// readFault reads what a body names. A body cut off in the middle is read as far as it goes.
func readFault(body []byte) (f fault) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, byteOrderMark))
	if len(body) == 0 {
		return f
	}
	if body[0] != '{' && body[0] != '[' {
		f.message = strings.ToValidUTF8(string(body[:min(len(body), maxMessage)]), "\uFFFD")
		return f
	}
	w := faultReader{dec: json.NewDecoder(bytes.NewReader(body)), fault: &f}
	w.dec.UseNumber()
	w.value("", false, 0)
	f.kind = cmp.Or(f.kind, w.outer.kind)
	f.code = cmp.Or(f.code, w.outer.code)
	f.message = cmp.Or(f.message, w.outer.message)
	return f
}

// faultReader walks through JSON for the members of its error object and, in case there is none, those at the top.
type faultReader struct {
	dec   *json.Decoder
	fault *fault
	outer fault
}

const maxDepth = 8 // where errors are named; deeper is something else, or an attack

// value reads one value, under key, inside an error object or not. It returns false at the end of what is there.
func (r *faultReader) value(key string, inside bool, depth int) bool {
	token, err := r.dec.Token()
	if err != nil {
		return false
	}
	switch v := token.(type) {
	case json.Delim:
		if depth == maxDepth {
			return false
		}
		return r.members(v, key, inside, depth+1)
	case string:
		r.note(key, v, inside, depth)
	case json.Number:
		r.note(key, v.String(), inside, depth)
	}
	return true
}

func (r *faultReader) members(open json.Delim, key string, inside bool, depth int) bool {
	inside = inside || key == "error" || key == "errors" || key == "innererror"
	for r.dec.More() {
		if open == '{' {
			token, err := r.dec.Token()
			if err != nil {
				return false
			}
			key, _ = token.(string)
		}
		if !r.value(key, inside, depth) {
			return false
		}
	}
	_, err := r.dec.Token()
	return err == nil
}

// note keeps the first of each.
func (r *faultReader) note(key, v string, inside bool, depth int) {
	f := r.fault
	f.within = f.within || inside || key == "error"
	if !inside {
		if depth > 1 {
			return
		}
		f = &r.outer
	}
	switch key {
	case "type":
		if v != "error" {
			f.kind = cmp.Or(f.kind, v)
		}
	case "code", "error_code":
		if f.code != "" && inside {
			f.words = append(f.words, v)
		}
		f.code = cmp.Or(f.code, v)
	case "message", "detail":
		f.message = cmp.Or(f.message, v)
	case "error", "errors":
		r.fault.message = cmp.Or(r.fault.message, v)
		r.fault.words = append(r.fault.words, v)
	case "status", "reason":
		if inside {
			f.words = append(f.words, v)
		}
	}
}

// retryAfter returns the longest wait that a header asks for: retry-after-ms, or Retry-After in seconds, also fractional, or as
// a date, counted from the answer's own Date where it has one. What cannot be read, or has passed, asks for none.
func retryAfter(h http.Header, now time.Time) (wait time.Duration) {
	for _, v := range h.Values("Retry-After-Ms") {
		wait = max(wait, parseWait(v, time.Millisecond))
	}
	for _, v := range h.Values("Retry-After") {
		wait = max(wait, parseWait(v, time.Second))
		if date, err := http.ParseTime(strings.TrimSpace(v)); err == nil {
			if sent, err := http.ParseTime(h.Get("Date")); err == nil {
				now = sent
			}
			wait = max(wait, date.Sub(now))
		}
	}
	return wait
}

// parseWait reads a number of units without a sign or an exponent. It returns zero for anything else.
func parseWait(s string, unit time.Duration) time.Duration {
	s = strings.Trim(s, " \t")
	if strings.Trim(s, "0123456789.") != "" {
		return 0
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0
	}
	if n *= float64(unit); n < math.MaxInt64 {
		return time.Duration(n)
	}
	return math.MaxInt64
}
