package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

const specification = "../../../testdata/circuit_breaker_config.yaml"

func TestEachChannelIsTestedByItself(t *testing.T) {
	var bodies []string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(body))
	}))
	defer s.Close()
	t.Setenv("SLACK_WEBHOOK_URL", s.URL+"/hunter2")
	t.Setenv("PAGERDUTY_KEY", "")
	t.Setenv("SMTP_HOST", "")
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-file", specification, "-channel", "slack"}, &out))
	require.Equal(t, "1 slack     sent\n", out.String())
	require.Contains(t, bodies[0], "Test alert of risk-modules-circuit-breaker")

	out.Reset()
	require.EqualError(t, run(t.Context(), []string{"-file", specification}, &out), "2 of 3 channels did not take the test")
	require.Contains(t, out.String(), "1 slack     sent\n2 pagerduty not sent: alert: channel pagerduty: integration_key: the variable PAGERDUTY_KEY is unset")
	require.Contains(t, out.String(), "3 email     not sent: alert: channel email: no mail server")

	t.Setenv("PAGERDUTY_KEY", "hunter2")
	out.Reset()
	require.NoError(t, run(t.Context(), []string{"-file", specification, "-channel", "pagerduty", "-pagerduty-url", s.URL, "-page", "https://ops.example.com"}, &out))
	require.Contains(t, bodies[len(bodies)-1], `"event_action":"resolve"`)
	require.Contains(t, bodies[len(bodies)-1], "https://ops.example.com")

	s.Close()
	out.Reset()
	require.Error(t, run(t.Context(), []string{"-file", specification, "-channel", "slack"}, &out))
	require.Regexp(t, `^1 slack     not sent: alert: slack: dial tcp .* connection refused\n$`, out.String())
	require.NotContains(t, out.String(), "hunter2")
}

func TestMistakesAreNamed(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.yaml")
	require.NoError(t, os.WriteFile(empty, []byte(`version: "1.0"`), 0o644))
	for want, args := range map[string][]string{
		"want -file FILE": nil, "want -file FILE, and": {"-file", specification, "slack"}, "no such file": {"-file", "none.yaml"},
		`there is no channel of type "pigeon": it has slack, pagerduty, email`: {"-file", specification, "-channel", "pigeon"},
		"there is no channel under alerts.channels":                            {"-file", empty},
	} {
		require.ErrorContains(t, run(t.Context(), args, io.Discard), want)
	}
}

func TestTheEnvironmentNamesAMailServerWhereTheFileDoesNot(t *testing.T) {
	env := map[string]string{"SMTP_HOST": "mail.example.com"}
	get := func(name string) string { return env[name] }
	own := breaker.AlertSMTP{Host: "own"}
	s, err := mailServer(own, get)
	require.NoError(t, err)
	require.Equal(t, own, s)
	s, err = mailServer(breaker.AlertSMTP{}, get)
	require.NoError(t, err)
	require.Equal(t, breaker.AlertSMTP{Host: "${SMTP_HOST}", Port: 587, From: "${SMTP_FROM}"}, s)
	env["SMTP_USERNAME"], env["SMTP_PORT"] = "me", "465"
	s, err = mailServer(breaker.AlertSMTP{}, get)
	require.NoError(t, err)
	require.Equal(t, breaker.AlertSMTP{Host: "${SMTP_HOST}", Port: 465, Username: "${SMTP_USERNAME}", Password: "${SMTP_PASSWORD}", From: "${SMTP_FROM}"}, s)
	env["SMTP_PORT"] = "many"
	_, err = mailServer(breaker.AlertSMTP{}, get)
	require.ErrorContains(t, err, "SMTP_PORT")
}
