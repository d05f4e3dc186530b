package server

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// get asks for a path with a key, if there is one.
func (g *gateway) do(t *testing.T, method, path, key string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.server.URL+path, nil)
	require.NoError(t, err)
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(answer)
}

func TestOperating(t *testing.T) {
	a, b := newProvider(t, fails(503, "", "down")), newProvider(t, says("small", "ok"))
	g := start(t, strings.Replace(two, "\nproviders", "\nadmins: [{name: ann, key_env: ADMIN_KEY}]\nproviders", 1), a, b)
	g.ask(t).source(t, "two/small", "3")

	_, body := g.do(t, "GET", "/health/circuit-breakers", "")
	require.Contains(t, body, `"one/large"`)
	_, body = g.do(t, "GET", "/metrics", "")
	require.Contains(t, body, `breaker_calls_total{name="one/large",outcome="failure"} 2`)
	require.Contains(t, body, `gateway_answers_total{model="chat",source="two/small",status="200"} 1`)
	require.Contains(t, body, "go_goroutines")
	status, body := g.do(t, "GET", "/", "")
	require.Equal(t, 200, status)
	require.Contains(t, body, "<html")

	one, _ := g.Registry().Lookup("one/large")
	const order = "/admin/circuit-breakers/one%2Flarge/force-open"
	for _, key := range []string{"", callerKey, "key-of-the-admin-"} {
		status, _ = g.do(t, "POST", order, key)
		require.Equal(t, http.StatusForbidden, status)
		require.Equal(t, breaker.StateClosed, one.State())
	}
	status, body = g.do(t, "POST", order, "key-of-the-admin")
	require.Equal(t, 200, status, body)
	require.Equal(t, breaker.StateForcedOpen, one.State())
	require.Equal(t, "ann", one.Status().Hold.By)
	status, _ = g.do(t, "GET", "/v1/models", "key-of-the-admin")
	require.Equal(t, http.StatusUnauthorized, status, "an operator is no caller")
	g.ask(t).source(t, "two/small", "1")
}

func TestDrainingEndsThePagesStreams(t *testing.T) {
	a, b := newProvider(t, says("large", "ok")), newProvider(t, says("small", "ok"))
	g := start(t, two, a, b)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.server.URL+"/health/circuit-breakers", nil)
	require.NoError(t, err)
	r.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = resp.Body.Read(make([]byte, 1))
	require.NoError(t, err)
	g.Drain()
	_, err = io.Copy(io.Discard, resp.Body) // ends, sooner than the test's time
	require.NoError(t, err)
}
