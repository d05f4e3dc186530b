package breaker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// upstream is a server on loopback, a registry, and a client whose Transport has one breaker, "llm".
type upstream struct {
	*httptest.Server
	reg    *Registry
	llm    *Breaker
	client *http.Client
}

func newUpstream(t *testing.T, serve http.HandlerFunc, opts ...TransportOption) *upstream {
	t.Helper()
	server := httptest.NewServer(serve)
	t.Cleanup(server.Close)
	reg, err := NewRegistry(RegistryConfig{})
	require.NoError(t, err)
	next := &http.Transport{}
	t.Cleanup(next.CloseIdleConnections)
	name := NameUpstream(func(*http.Request) string { return "llm" })
	client := &http.Client{Transport: NewTransport(reg, next, append([]TransportOption{name}, opts...)...)}
	return &upstream{server, reg, reg.Breaker("llm"), client}
}

func (u *upstream) post(t *testing.T) *http.Response {
	t.Helper()
	resp, err := u.client.Post(u.URL+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"m"}`))
	require.NoError(t, err)
	return resp
}

func TestRefusalsCarryTheirReason(t *testing.T) {
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {}, RefuseWithResponse())
	u.llm.Trip("test")
	resp := u.post(t)
	require.Equal(t, 503, resp.StatusCode)
	require.Equal(t, "false", resp.Header.Get("x-should-retry"))
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.True(t, IsOpen(errors.New(string(body))))
	require.True(t, IsOpen(fmt.Errorf("x: %w", &sdkError{Response: resp})))
	require.False(t, IsOpen(&sdkError{}))
	require.NoError(t, resp.Body.Close())
	_ = context.Background
	_ = time.Second
}

type sdkError struct{ Response *http.Response }

func (*sdkError) Error() string { return "sdk" }
