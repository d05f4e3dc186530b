package service

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// call asks the handler as somebody at that address would.
func call(r *rig, method, path, from string, header ...string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, path, strings.NewReader(`{}`))
	request.RemoteAddr = from
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.Handler(context.Background()).ServeHTTP(w, request)
	return w
}

const (
	here  = "127.0.0.1:4711"
	there = "192.0.2.7:4711"
)

func TestHealthShowsEveryBreakerByNameAtZeroTraffic(t *testing.T) {
	r := start(t, steady)
	w := call(r, "GET", "/health/circuit-breakers", there)
	require.Equal(t, 200, w.Code)
	assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var all map[string]struct {
		Name  string
		State string
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &all))
	require.Len(t, all, 4)
	for _, name := range []string{LLM, VectorDB, Database, LocalModel} {
		assert.Equal(t, name, all[name].Name)
		assert.Equal(t, "closed", all[name].State)
	}
}

func TestResetClosesOneBreaker(t *testing.T) {
	r := start(t, steady)
	r.breakers.Breaker(LLM).Trip("test")
	r.breakers.Breaker(Database).Trip("test")
	for _, from := range []string{here, "[::1]:4711"} {
		assert.Equal(t, 200, call(r, "POST", "/admin/circuit-breakers/llm/reset", from).Code, from)
	}
	assert.Equal(t, breaker.StateClosed, r.state(LLM))
	assert.Equal(t, breaker.StateOpen, r.state(Database))
}

func TestThePageIsThereAndAHoldSaysFromWhere(t *testing.T) {
	r := start(t, steady)
	assert.Contains(t, call(r, "GET", "/", there).Body.String(), "<title>Circuit breakers</title>")
	require.Equal(t, 200, call(r, "POST", "/admin/circuit-breakers/llm/force-open", here).Code)
	assert.Equal(t, "127.0.0.1", r.breakers.Breaker(LLM).Status().Hold.By)
}

func TestResetOfAnUnknownNameIsNotFoundAndMakesNone(t *testing.T) {
	r := start(t, steady)
	assert.Equal(t, 404, call(r, "POST", "/admin/circuit-breakers/nobody/reset", here).Code)
	_, made := r.breakers.Lookup("nobody")
	assert.False(t, made)
}

func TestAdminIsForThisMachineOnly(t *testing.T) {
	r := start(t, steady)
	r.breakers.Breaker(LLM).Trip("test")
	assert.Equal(t, 403, call(r, "POST", "/admin/circuit-breakers/llm/reset", there).Code)
	assert.Equal(t, 403, call(r, "POST", "/admin/faults/llm", there).Code)
	assert.Equal(t, 403, call(r, "POST", "/admin/circuit-breakers/llm/reset", there, "X-Forwarded-For", "127.0.0.1").Code)
	assert.Equal(t, 403, call(r, "POST", "/admin/circuit-breakers/llm/reset", here, "Sec-Fetch-Site", "cross-site").Code,
		"a page open in a browser here is not somebody here")
	assert.Equal(t, breaker.StateOpen, r.state(LLM))
	assert.Equal(t, 405, call(r, "GET", "/admin/circuit-breakers/llm/reset", here).Code)
}

func TestAMessageThatIsNoneIsABadRequest(t *testing.T) {
	r := start(t, steady)
	for name, body := range map[string]string{
		"no JSON":     `hello`,
		"no message":  `{}`,
		"blank":       `{"message": "  "}`,
		"a number":    `{"message": 5}`,
		"too long":    `{"message": "` + strings.Repeat("x", maxMessage+1) + `"}`,
		"a huge body": `{"message": "` + strings.Repeat("x", maxBody) + `"}`,
	} {
		status, text, _ := r.post(t, "/chat", body)
		assert.Equal(t, http.StatusBadRequest, status, name)
		assert.Contains(t, text, `"error"`, name)
	}
	assert.Zero(t, r.reached[VectorDB].Load())
}

func TestFaultsAreChecked(t *testing.T) {
	r := start(t, steady)
	for path, body := range map[string]string{
		"/admin/faults/llm":      `{"fault": "fire"}`,
		"/admin/faults/vectordb": `{"fault": "fire"}`,
	} {
		status, text, _ := r.post(t, path, body)
		assert.Equal(t, http.StatusBadRequest, status, path)
		assert.Contains(t, text, "fault", path)
	}
	status, _, _ := r.post(t, "/admin/faults/database", `{"fault": "error"}`)
	assert.Equal(t, http.StatusNotFound, status)
}
