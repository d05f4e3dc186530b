package breaker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"gopkg.in/yaml.v3"
)

// channel is a file with one channel, whose keys stand in line 3.
func channel(keys string) string { return "alerts:\n  channels:\n    - {" + keys + "}\n" }

func smtp(keys string) string { return "alerts:\n  smtp: {" + keys + "}\n" }

var badAlerts = []bad{
	{"alerts that are a list", "alerts: [hunter2]", 1, "alerts", "a list", "a mapping"},
	{"alerts of an unknown kind", "alerts: {chanels: []}", 1, "alerts.chanels", "a list", "did you mean channels?"},
	{"channels that are a mapping", "alerts: {channels: {type: slack}}", 1, "alerts.channels", "a mapping", "a list of channels"},
	{"a channel that is text", "alerts: {channels: [hunter2]}", 1, "alerts.channels[0]", "[redacted]", "a mapping"},
	{"a channel without type", channel("webhook_url: hunter2"), 3, "alerts.channels[0].type", "nothing", "one of slack, pagerduty, email, webhook"},
	{"a channel of an unknown type", channel("type: pigeon, coop: hunter2"), 3, "alerts.channels[0].type", "pigeon", "one of slack, pagerduty, email, webhook"},
	{"a type that is a number", channel("type: 5"), 3, "alerts.channels[0].type", "5", "one of slack"},
	{"an unknown severity", channel("type: slack, webhook_url: hunter2, severity_filter: [high, urgent]"), 3, "alerts.channels[0].severity_filter[1]", "urgent", "one of low, medium, high, critical"},
	{"a severity that is no list", channel("type: slack, webhook_url: hunter2, severity_filter: high"), 3, "alerts.channels[0].severity_filter", "high", "a list of severities"},
	{"no severity", channel("type: slack, webhook_url: hunter2, severity_filter: []"), 3, "alerts.channels[0].severity_filter", "an empty list", "a list of severities"},
	{"slack without its URL", channel("type: slack"), 3, "alerts.channels[0].webhook_url", "nothing", "to be set"},
	{"pagerduty without its key", channel("type: pagerduty"), 3, "alerts.channels[0].integration_key", "nothing", "to be set"},
	{"e-mail to nobody", channel("type: email, recipients: []"), 3, "alerts.channels[0].recipients", "an empty list", "at least one"},
	{"a webhook without its URL", channel("type: webhook, secret: hunter2"), 3, "alerts.channels[0].url", "nothing", "to be set"},
	{"a key of another type", channel("type: slack, webhook_url: x, integration_key: hunter2"), 3, "alerts.channels[0].integration_key", "[redacted]", "known are severity_filter, type, webhook_url"},
	{"a misspelt secret", channel("type: slack, webhok_url: hunter2"), 3, "alerts.channels[0].webhok_url", "[redacted]", "did you mean webhook_url?"},
	{"a secret twice", channel("type: slack, webhook_url: x, webhook_url: hunter2"), 3, "alerts.channels[0].webhook_url", "[redacted]", "only once"},
	{"a secret that is a number", channel("type: pagerduty, integration_key: 12345"), 3, "alerts.channels[0].integration_key", "[redacted]", "text (in quotes"},
	{"a secret that is empty", channel(`type: pagerduty, integration_key: ""`), 3, "alerts.channels[0].integration_key", "empty text", "text"},
	{"a secret that is null", channel(`type: pagerduty, integration_key: `), 3, "alerts.channels[0].integration_key", "null", "text"},
	{"an unclosed variable", channel(`type: pagerduty, integration_key: "hunter2${KEY"`), 3, "alerts.channels[0].integration_key", "[redacted]", "${NAME} or ${NAME:-default}"},
	{"a variable of a strange name", channel(`type: pagerduty, integration_key: "${hunter2-x}"`), 3, "alerts.channels[0].integration_key", "[redacted]", "${NAME} or ${NAME:-default}"},
	{"a password that looks like an alias", smtp("host: a, password: *hunter2"), 2, "", "a syntax error", "text that begins with * needs quotes"},
	{"smtp that is a list", "alerts: {smtp: [hunter2]}", 1, "alerts.smtp", "a list", "a mapping"},
	{"smtp without host", smtp("port: 25"), 2, "alerts.smtp.host", "nothing", "the name of a mail server"},
	{"a port too high", smtp("host: a, port: 65536"), 2, "alerts.smtp.port", "65536", "a whole number from 1 to 65535"},
	{"a port in quotes", smtp(`host: a, port: "25"`), 2, "alerts.smtp.port", `"25"`, "a whole number from 1 to 65535"},
	{"an unknown key for smtp", smtp(`host: a, pasword: hunter2`), 2, "alerts.smtp.pasword", `[redacted]`, "did you mean password?"},
}

const everyChannel = `
alerts:
  smtp: {host: mail.example.com, port: 587, username: me, password: hunter2, from: me@example.com}
  channels:
    - {type: slack, webhook_url: "https://hooks.example.com/hunter2"}
    - {type: pagerduty, integration_key: "${KEY:-hunter2}", severity_filter: [low, medium, high, critical]}
    - {type: email, recipients: [a@example.com, "${CC}"]}
    - {type: webhook, url: "https://example.com/hunter2", secret: hunter2}
`

func TestEveryChannelIsRead(t *testing.T) {
	f, err := ParseFile([]byte(everyChannel))
	require.NoError(t, err)
	require.Equal(t, Alerts{
		SMTP: AlertSMTP{Host: "mail.example.com", Port: 587, Username: "me", Password: "hunter2", From: "me@example.com"},
		Channels: []AlertChannel{
			{Type: "slack", WebhookURL: "https://hooks.example.com/hunter2"},
			{Type: "pagerduty", IntegrationKey: "${KEY:-hunter2}", SeverityFilter: []string{"low", "medium", "high", "critical"}},
			{Type: "email", Recipients: []string{"a@example.com", "${CC}"}},
			{Type: "webhook", URL: "https://example.com/hunter2", Secret: "hunter2"},
		},
	}, f.Alerts)
}

func TestSecretsAreNotShown(t *testing.T) {
	f, err := ParseFile([]byte(everyChannel))
	require.NoError(t, err)
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%08b"} {
		fmt.Fprintf(&out, verb+"\n", f)
		fmt.Fprintf(&out, verb+"\n", *f)
		fmt.Fprintf(&out, verb+"\n", f.Alerts.SMTP.Password)
	}
	for _, marshal := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
		text, err := marshal(f)
		require.NoError(t, err)
		out.Write(text)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "p", f.Alerts.SMTP.Password, "a", f.Alerts)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "p", f.Alerts.SMTP.Password, "a", f.Alerts)
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&out), zap.InfoLevel)
	zap.New(core).Info("x", zap.Any("p", f.Alerts.SMTP.Password), zap.Any("a", f.Alerts))
	require.NotContains(t, out.String(), "hunter2")
	require.NotContains(t, out.String(), "68756e") // hunter2 in hexadecimal
	require.Contains(t, out.String(), "[redacted]")
}

func TestASecretThatOnlyRefersIsShown(t *testing.T) {
	require.Equal(t, `${KEY} "${KEY}" "${KEY}"`, fmt.Sprintf("%v %q %#v", Secret("${KEY}"), Secret("${KEY}"), Secret("${KEY}")))
	require.Equal(t, "[redacted]", Secret("${KEY:-x}").String())
	require.Empty(t, Secret("").String())
	text, err := json.Marshal([]Secret{"${KEY}", "hunter2", ""})
	require.NoError(t, err)
	require.JSONEq(t, `["${KEY}", "[redacted]", ""]`, string(text))
}

func env(of map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := of[name]; return v, ok }
}

func TestVariablesAreResolved(t *testing.T) {
	lookup := env(map[string]string{"KEY": "hunter2", "HOST": "example.com", "EMPTY": "", "NESTED": "${KEY}"})
	for template, want := range map[string]string{
		"plain": "plain", "${KEY}": "hunter2", "https://${HOST}/${KEY}": "https://example.com/hunter2", "${NONE:-x}": "x", "${EMPTY:-x}": "x",
		"${KEY:-x}": "hunter2", "${NESTED}": "${KEY}", "$KEY": "$KEY", "${NONE:-http://a:1/b}": "http://a:1/b",
	} {
		c, err := AlertChannel{Type: "slack", WebhookURL: Secret(template)}.Resolve(lookup)
		require.NoError(t, err)
		require.Equal(t, want, string(c.WebhookURL))
		s, err := AlertSMTP{Host: template, Port: 25, Username: template, Password: Secret(template), From: template}.Resolve(lookup)
		require.NoError(t, err)
		require.Equal(t, AlertSMTP{want, 25, want, Secret(want), want}, s)
	}
	every := AlertChannel{WebhookURL: "${HOST}/1", IntegrationKey: "${HOST}/2", URL: "${HOST}/3", Secret: "${HOST}/4"}
	resolved, err := every.Resolve(lookup)
	require.NoError(t, err)
	require.Equal(t, AlertChannel{
		WebhookURL: "example.com/1", IntegrationKey: "example.com/2", URL: "example.com/3", Secret: "example.com/4",
	}, resolved)
	raw := AlertChannel{Type: "email", Recipients: []string{"${HOST}", "b"}}
	c, err := raw.Resolve(lookup)
	require.NoError(t, err)
	require.Equal(t, []string{"example.com", "b"}, c.Recipients)
	require.Equal(t, "${HOST}", raw.Recipients[0], "the one from the file is left alone")
	t.Setenv("BREAKER_TEST_KEY", "from the environment")
	c, err = AlertChannel{IntegrationKey: "${BREAKER_TEST_KEY}"}.Resolve(nil)
	require.NoError(t, err)
	require.Equal(t, "from the environment", string(c.IntegrationKey))
}

func TestVariablesWithoutAValueAreNamed(t *testing.T) {
	lookup := env(map[string]string{"EMPTY": "", "KEY": "hunter2"})
	c, err := AlertChannel{Type: "slack", WebhookURL: "https://${KEY}/${NONE}"}.Resolve(lookup)
	require.EqualError(t, err, "breaker: alerts: slack channel: webhook_url: the variable NONE is unset or empty: set it, or write ${NONE:-default}")
	require.Zero(t, c)
	_, err = AlertChannel{Type: "webhook", URL: "${EMPTY}", Secret: "${NONE:-}"}.Resolve(lookup)
	require.ErrorContains(t, err, "webhook channel: url: the variable EMPTY is unset or empty")
	require.ErrorContains(t, err, "webhook channel: secret: the variable NONE is unset or empty")
	s, err := AlertSMTP{Host: "${NONE}", Password: "${KEY}"}.Resolve(lookup)
	require.ErrorContains(t, err, "smtp: host: the variable NONE")
	require.NotContains(t, err.Error(), "hunter2")
	require.Zero(t, s)
}

func TestAChannelsProblemsComeAllAtOnce(t *testing.T) {
	_, err := ParseFile([]byte("alerts:\n  channels:\n    - type: slack\n      severity_filter: [urgent, high, 5]\n      recipients: [x]\n"))
	invalid, ok := errors.AsType[*ConfigError](err)
	require.True(t, ok)
	var keys []string
	for _, p := range invalid.Problems {
		keys = append(keys, strings.TrimPrefix(p.Key, "alerts.channels[0]."))
	}
	require.Equal(t, []string{"webhook_url", "severity_filter[0]", "severity_filter[2]", "recipients"}, keys)
}

func TestEveryPortIsOne(t *testing.T) {
	for port, want := range map[int]bool{0: false, 1: true, 65535: true, 65536: false} {
		f, err := ParseFile(fmt.Appendf(nil, "alerts:\n  smtp: {host: a, port: %d}\n", port))
		require.Equal(t, want, err == nil, port)
		if want {
			require.Equal(t, port, f.Alerts.SMTP.Port)
		}
	}
}
