package breaker

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRetryAfterIsReadInEveryForm(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	later := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, c := range []struct {
		name   string
		header http.Header
		want   time.Duration
	}{
		{"none", http.Header{}, 0},
		{"seconds", http.Header{"Retry-After": {"20"}}, 20 * time.Second},
		{"a fraction", http.Header{"Retry-After": {" 1.5 "}}, 1500 * time.Millisecond},
		{"milliseconds", http.Header{"Retry-After-Ms": {"250"}}, 250 * time.Millisecond},
		{"a date", http.Header{"Retry-After": {later(time.Minute)}}, time.Minute},
		{"a date by the server's clock", http.Header{"Retry-After": {later(time.Minute)}, "Date": {later(30 * time.Second)}}, 30 * time.Second},
		{"a date in the old form", http.Header{"Retry-After": {now.Add(time.Minute).Format(time.RFC850)}}, time.Minute},
		{"the longest wins", http.Header{"Retry-After": {"2"}, "Retry-After-Ms": {"1500"}}, 2 * time.Second},
		{"also of several", http.Header{"Retry-After": {"2", later(time.Minute), "1"}}, time.Minute},
		{"the past", http.Header{"Retry-After": {later(-time.Minute)}}, 0},
		{"zero", http.Header{"Retry-After": {"0"}}, 0},
		{"below zero", http.Header{"Retry-After": {"-5"}}, 0},
		{"too much for a duration", http.Header{"Retry-After": {strings.Repeat("9", 400)}}, math.MaxInt64},
		{"not a number", http.Header{"Retry-After": {"NaN", "Inf", "0x10", "1e3", "1_0", "soon", "1.2.3", ".", ""}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, retryAfter(c.header, now)) })
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"1", "0.5", "Sun, 01 Nov 2026 12:00:00 GMT", "-1", "1e9", "99999999999999999999", "\t3 "} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, seconds, millis string) {
		now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		wait := retryAfter(http.Header{"Retry-After": {seconds}, "Retry-After-Ms": {millis}}, now)
		require.GreaterOrEqual(t, wait, time.Duration(0))
		if n, err := strconv.ParseUint(seconds, 10, 32); err == nil {
			require.GreaterOrEqual(t, wait, time.Duration(n)*time.Second)
		}
		require.GreaterOrEqual(t, wait, retryAfter(http.Header{"Retry-After": {seconds}}, now), "the longest wins")
	})
}

// TestDiagnoseReadsWhatProvidersSend has bodies as the providers' documentation and servers show them.
func TestDiagnoseReadsWhatProvidersSend(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   ErrorKind
	}{
		{"OpenAI: a mistake", 400, `{"error":{"message":"Missing required parameter: 'messages'.","type":"invalid_request_error","param":"messages","code":"missing_required_parameter"}}`, KindInvalidRequest},
		{"OpenAI: too long", 400, `{"error":{"message":"This model's maximum context length is 128000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, KindContextLength},
		{"OpenAI: content", 400, `{"error":{"message":"Your request was rejected","type":"image_generation_user_error","param":null,"code":"content_policy_violation"}}`, KindContentFilter},
		{"OpenAI: the key", 401, `{"error":{"message":"Incorrect API key provided: sk-abc.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`, KindAccount},
		{"OpenAI: no key", 401, `{"error":{"message":"You didn't provide an API key.","type":"invalid_request_error","param":null,"code":null}}`, KindAccount},
		{"OpenAI: the quota", 429, `{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`, KindAccount},
		{"OpenAI: the rate", 429, `{"error":{"message":"Rate limit reached","type":"tokens","param":null,"code":"rate_limit_exceeded"}}`, KindRateLimited},
		{"OpenAI: no such model", 404, `{"error":{"message":"The model 'x' does not exist","type":"invalid_request_error","param":null,"code":"model_not_found"}}`, KindModelNotFound},
		{"OpenAI: no such thing", 404, `{"error":{"message":"No assistant found with id 'a'.","type":"invalid_request_error","param":null,"code":null}}`, KindInvalidRequest},
		{"OpenAI: broken", 500, `{"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}`, KindUnavailable},
		{"Azure: content", 400, `{"error":{"message":"The response was filtered due to the prompt","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}`, KindContentFilter},
		{"Anthropic: a mistake", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: Field required"}}`, KindInvalidRequest},
		{"Anthropic: money", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}`, KindAccount},
		{"Anthropic: too long", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}`, KindContextLength},
		{"Anthropic: the key", 401, `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`, KindAccount},
		{"Anthropic: not allowed", 403, `{"type":"error","error":{"type":"permission_error","message":"Your API key does not have permission"}}`, KindAccount},
		{"Anthropic: no such model", 404, `{"type":"error","error":{"type":"not_found_error","message":"model: claude-x"}}`, KindModelNotFound},
		{"Anthropic: too large", 413, `{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}`, KindContextLength},
		{"Anthropic: the rate", 429, `{"type":"error","error":{"type":"rate_limit_error","message":"too fast"}}`, KindRateLimited},
		{"Anthropic: overloaded", 529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, KindUnavailable},
		{"Anthropic: a spend limit", 400, `{"type":"error","error":{"type":"workspace_spend_limit_exceeded","message":"m"}}`, KindAccount},
		{"overloaded inside a stream", 200, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, KindUnavailable},
		{"the rate inside a stream", 200, `{"type":"response.failed","response":{"id":"r","error":{"code":"rate_limit_exceeded","message":"m"}}}`, KindRateLimited},
		{"an error event of responses", 200, `{"type":"error","code":"server_error","message":"m","param":null}`, KindUnavailable},
		{"a mistake inside a stream", 200, `{"error":{"type":"invalid_request_error","message":"no"}}`, KindInvalidRequest},
		{"Google: the key", 400, `{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"x","reason":"API_KEY_INVALID"}]}}`, KindAccount},
		{"Google: the rate, in a list", 429, `[{"error":{"code":429,"message":"Resource has been exhausted","status":"RESOURCE_EXHAUSTED"}}]`, KindRateLimited},
		{"Ollama: no such model", 404, `{"error":"model 'llama9' not found"}`, KindModelNotFound},
		{"Ollama: broken", 500, `{"error":"llama runner process has terminated"}`, KindUnavailable},
		{"OpenRouter: in a chunk", 200, `{"id":"1","object":"chat.completion.chunk","error":{"code":502,"message":"Provider disconnected"},"choices":[{"finish_reason":"error"}]}`, KindUnavailable},
		{"a proxy's words", 502, `<html><title>502 Bad Gateway</title></html>`, KindUnavailable},
		{"no body", 402, ``, KindAccount},
		{"forbidden, for whatever reason", 403, `<html>Forbidden</html>`, KindInvalidRequest},
		{"forbidden, by the key", 403, `{"message":"The API key is not allowed here"}`, KindAccount},
		{"any 409", 409, ``, KindInvalidRequest},
		{"any 422", 422, `{"detail":[{"msg":"field required","type":"value_error.missing"}]}`, KindInvalidRequest},
		{"any 408", 408, ``, KindTimeout},
		{"any 504", 504, `upstream request timeout`, KindTimeout},
		{"any 413", 413, ``, KindContextLength},
		{"any 418", 418, ``, KindInvalidRequest},
		{"any 5xx", 599, ``, KindUnavailable},
		{"the code outranks the status", 500, `{"error":{"code":"context_length_exceeded"}}`, KindContextLength},
		{"words do not", 503, `{"error":{"message":"maximum context length"}}`, KindUnavailable},
		{"deep nesting", 500, strings.Repeat(`{"error":`, 1000), KindUnavailable},
		{"broken JSON", 429, `{"error":{"type":"insufficient_quota","mess`, KindAccount},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, Diagnose(c.status, nil, []byte(c.body)).Kind)
			spaced := strings.ReplaceAll(strings.ReplaceAll(c.body, `":`, `" : `), `{"`, "{\n\t\"")
			require.Equal(t, c.want, Diagnose(c.status, nil, []byte("\xEF\xBB\xBF \n"+spaced)).Kind, "spaced out")
		})
	}
}

func TestAnUpstreamErrorsTextHoldsNothingThatACallerWrote(t *testing.T) {
	e := Diagnose(401, http.Header{"Retry-After": {"3"}}, []byte(`{"error":{"message":"Incorrect API key: sk-123","type":"invalid_request_error","code":"invalid_api_key"}}`))
	require.Equal(t, "401 Unauthorized: invalid_request_error, invalid_api_key", e.Error())
	require.Equal(t, UpstreamError{401, KindAccount, "invalid_request_error", "invalid_api_key", "Incorrect API key: sk-123", 3 * time.Second}, *e)
	require.Equal(t, "529: overloaded_error", Diagnose(529, nil, []byte(`{"error":{"type":"overloaded_error"}}`)).Error())
	require.Equal(t, "503 Service Unavailable: unavailable", Diagnose(503, nil, nil).Error())
	require.Equal(t, "error inside an answer of status 200: x", Diagnose(200, nil, []byte(`{"error":{"code":"x"}}`)).Error())
}

func FuzzDiagnose(f *testing.F) {
	f.Add(400, []byte(`{"error":{"message":"m","type":"t","code":1}}`))
	f.Add(200, []byte(`[[[{"error":"x"}]]]`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := Diagnose(status, nil, body)
		require.NotEmpty(t, e.Kind)
		require.NotEmpty(t, e.Error())
		v := e.verdict()
		require.NotEqual(t, Success, v.Outcome)
		if json.Valid(body) && len(body) > 0 && body[0] == '{' {
			require.Equal(t, e.Kind, Diagnose(status, nil, append([]byte("  "), body...)).Kind)
		}
	})
}

func TestACodeThatRepeatsTheStatusIsNotShown(t *testing.T) {
	e := Diagnose(400, nil, []byte(`{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT"}}`))
	require.Equal(t, "400 Bad Request: account", e.Error())
	require.Equal(t, "400", e.Code)
}
