package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/failfast-go/breaker"
)

// noAlerts unsets what the machine may have set.
func noAlerts(t *testing.T) {
	t.Helper()
	for _, name := range []string{"SLACK_WEBHOOK_URL", "PAGERDUTY_KEY", "ALERT_WEBHOOK_URL", "ALERT_WEBHOOK_SECRET", "ALERT_EMAIL", "SMTP_HOST"} {
		t.Setenv(name, "")
	}
}

func TestAlertsAreOffUntilTheirVariablesAreSet(t *testing.T) {
	noAlerts(t)
	file, err := breaker.LoadFile("internal/service/breakers.yaml")
	require.NoError(t, err)
	core, logs := observer.New(zap.InfoLevel)
	r, err := breaker.NewRegistry(file.Breakers)
	require.NoError(t, err)

	alerts, err := startAlerts(file.Alerts, r, "http://localhost:8080", zap.New(core))
	require.NoError(t, err)
	require.NoError(t, alerts.Close(t.Context()))
	require.Equal(t, 1, logs.Len())
	require.Equal(t, "alerts are off", logs.All()[0].Message)
	require.Contains(t, logs.All()[0].ContextMap()["error"], "SLACK_WEBHOOK_URL is unset or empty")

	got := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- string(body)
	}))
	defer hook.Close()
	t.Setenv("SLACK_WEBHOOK_URL", hook.URL+"/hunter2")
	alerts, err = startAlerts(file.Alerts, r, "http://localhost:8080", zap.New(core))
	require.NoError(t, err)
	require.Equal(t, []any{"slack"}, logs.All()[1].ContextMap()["channels"])
	require.NotContains(t, logs.All()[1].ContextMap()["off"], "slack channel")
	require.Contains(t, logs.All()[1].ContextMap()["off"], "PAGERDUTY_KEY")
	r.Breaker("llm").Trip("a drill")
	select {
	case body := <-got:
		require.Contains(t, body, "llm is open")
		require.Contains(t, body, "http://localhost:8080")
	case <-time.After(time.Minute):
		t.Fatal("nobody is told")
	}
	require.NoError(t, alerts.Close(t.Context()))
}
