package server

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
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
	g := start(t, two, a, b)
	g.ask(t).source(t, "two/small", "3")

	_, body := g.do(t, "GET", "/metrics", "")
	require.Contains(t, body, `breaker_calls_total{name="one/large",outcome="failure"} 2`)
	require.Contains(t, body, `gateway_answers_total{model="chat",source="two/small",status="200"} 1`)
	require.Contains(t, body, "go_goroutines")
}
