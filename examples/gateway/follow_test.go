package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/failfast-go/breaker/examples/gateway/internal/config"
	"github.com/failfast-go/breaker/examples/gateway/internal/embedded"
	"github.com/failfast-go/breaker/examples/gateway/internal/server"
)

// embeddedGateway serves the embedded upstream until the test ends, as the program does without a configuration.
func embeddedGateway(t *testing.T) (url string) {
	t.Helper()
	cfg, _, closeUpstream, err := configuration("")
	require.NoError(t, err)
	g, err := server.New(cfg, zap.NewNop())
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, g, zap.NewNop()) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
		g.Close()
		closeUpstream()
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + listener.Addr().String()
}

func TestWithoutAConfigurationItAnswersAtOnce(t *testing.T) {
	url := embeddedGateway(t)
	// In this order: two requests that fail are three failures, and open the breaker of the primary.
	for _, asked := range []struct{ said, source string }{{"hello", "primary"}, {"please fail", "embedded/small"}} {
		for _, stream := range []string{"true", "false"} {
			body := `{"model":"demo","stream":` + stream + `,"messages":[{"role":"user","content":"` + asked.said + `"}]}`
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
			require.NoError(t, err)
			r.Header.Set("Authorization", "Bearer "+embedded.Key)
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			answer, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode, string(answer))
			require.Equal(t, asked.source, resp.Header.Get("x-breaker-source"))
			require.Contains(t, string(answer), "heard")
		}
	}
}

func TestTheFileIsFollowed(t *testing.T) {
	upstream, err := embedded.Start()
	require.NoError(t, err)
	defer upstream.Close()
	t.Setenv("GATEWAY_DEMO_KEY", embedded.Key)
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	write := func(old, with string) {
		text := bytes.ReplaceAll(upstream.Config(), []byte(old), []byte(with))
		require.NoError(t, os.WriteFile(path, text, 0o600))
	}
	write("", "")
	cfg, content, err := config.Load(path, os.LookupEnv)
	require.NoError(t, err)
	core, logs := observer.New(zapcore.InfoLevel)
	g, err := server.New(cfg, zap.NewNop())
	require.NoError(t, err)
	defer g.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		follow(ctx, path, content, g, zap.New(core))
	}()
	defer func() {
		stop()
		<-done
	}()
	write("model: small", "model: other")
	has := func(name string) func() bool {
		return func() bool { _, ok := g.Registry().Lookup(name); return ok }
	}
	require.Eventually(t, has("embedded/other"), time.Minute, 10*time.Millisecond)
	write("models:", "modles:")
	require.Eventually(t, func() bool { return logs.FilterLevelExact(zapcore.ErrorLevel).Len() == 1 }, time.Minute, 10*time.Millisecond)
	require.True(t, has("embedded/other")(), "the configuration in force stays")
	write("model: small", "model: third")
	require.Eventually(t, has("embedded/third"), time.Minute, 10*time.Millisecond)
}
