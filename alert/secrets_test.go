package alert

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/failfast-go/breaker"
)

// Each secret has hunter2 in it, and the last two what quoting changes.
const (
	slackSecret     = "hunter2-slack"
	pagerDutySecret = `hunter2-"pager"<&>`
	hookPath        = "/hunter2-hook/a%20b?token=hunter2-token"
	hookSecret      = `hunter2\"hmac`
	mailPassword    = "hunter2-mail"
)

// quoting answers with everything that it was sent, as a proxy's error page may, and with the secrets in other clothes.
func quoting(code int) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		quoted, _ := json.Marshal("the key is " + pagerDutySecret + ".")
		fmt.Fprintf(w, "%s %s %s %q %s %q %q", r.URL, r.URL.Path, r.RequestURI, pagerDutySecret, quoted, hookSecret, pagerDutySecret)
	}
}

func secretChannels(s *web) []breaker.AlertChannel {
	return []breaker.AlertChannel{
		{Type: "slack", WebhookURL: breaker.Secret(s.URL + "/services/" + slackSecret)},
		{Type: "pagerduty", IntegrationKey: pagerDutySecret},
		{Type: "webhook", URL: breaker.Secret(strings.Replace(s.URL, "http://", "http://user:hunter2-basic@", 1) + hookPath), Secret: hookSecret},
		{Type: "email", Recipients: []string{"oncall@example.com"}},
	}
}

// printed is all that fmt, logs and encoders make of a, which is closed: where it hides in a private field, fmt walks its fields.
func printed(a *Alerter) string {
	var out bytes.Buffer
	type holder struct {
		Public  *Alerter
		private *Alerter
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{a, holder{a, a}, &holder{a, a}, []*Alerter{a}, map[string]any{"a": a}, a.channels, struct{ all []*channel }{a.channels}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "a", a)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "a", a)
	zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&out), zap.DebugLevel)).Info("x", zap.Any("a", a), zap.Reflect("b", a))
	_ = json.NewEncoder(&out).Encode(map[string]any{"a": a})
	_ = json.NewEncoder(&out).Encode(a.Stats())
	return out.String()
}

func requireNoSecret(t *testing.T, text string) {
	t.Helper()
	require.NotContains(t, text, "hunter2")
	require.NotContains(t, text, "68756e74657232", "in hexadecimal")
	for shift := range 3 { // base64 of it looks different at each place in three bytes
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + "hunter2-"))
		require.NotContains(t, text, encoded[(shift*8+5)/6+1:10], "in base64")
	}
}

func TestSecretsAreInNoLogErrorOrPrint(t *testing.T) {
	for _, code := range []int{500, 403} {
		s := newWeb(t, quoting(code))
		mails := startMailServer(t, "starttls")
		account := mails.account()
		account.Password = "hunter2-wrong" // which the server quotes
		var out bytes.Buffer
		locked := zapcore.Lock(zapcore.AddSync(&out))
		log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), locked, zap.DebugLevel))
		a := newAlerter(t, secretChannels(s), WithSMTP(account), WithTLS(mails.trust), WithPagerDutyURL(s.URL), WithLogger(log))
		r := stayingOpen(t, "x")
		a.Watch(r)
		fail(r.Breaker("x"))
		for i := range a.channels {
			require.Eventually(t, func() bool { return a.Stats().Channels[i].LastError != "" }, time.Minute, time.Millisecond)
		}
		text := fmt.Sprint(a.Test(t.Context())) + fmt.Sprint(a.Stats())
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := a.Close(ctx)
		cancel()
		text += fmt.Sprintf("%v %+v %#v", err, err, err) + printed(a) + out.String()
		requireNoSecret(t, text)
		require.Contains(t, text, "[redacted]")
	}
}

// Servers that are not there: what the HTTP client and the mail library say by themselves.
func TestSecretsAreInNoErrorOfAConnection(t *testing.T) {
	s := newWeb(t, nil)
	s.Close()
	a := newAlerter(t, secretChannels(s), WithSMTP(breaker.AlertSMTP{Host: "127.0.0.1", Port: 1, Username: "u", Password: mailPassword, From: "a@example.com"}), WithPagerDutyURL(s.URL+"/hunter2"))
	err := a.Test(t.Context())
	require.ErrorContains(t, err, "alert: email: ")
	require.ErrorContains(t, err, "alert: slack: ")
	requireNoSecret(t, fmt.Sprintf("%v %+v %#v", err, err, err))
}

func TestHoweverAnAlerterIsPrintedItOnlyNamesItsChannels(t *testing.T) {
	a := newAlerter(t, []breaker.AlertChannel{{Type: "pagerduty", IntegrationKey: "a"}, {Type: "pagerduty", IntegrationKey: "b"}})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		require.Equal(t, "alert.Alerter pagerduty-1 pagerduty-2", fmt.Sprintf(verb, a))
	}
}

func TestALongAnswerIsCutAfterItWasScrubbed(t *testing.T) {
	scrub := scrubber("hunter2-long-secret")
	for before := range 500 {
		text := scrub(strings.Repeat("x", before) + "hunter2-long-secret")
		require.NotContains(t, text, "hunter2")
		require.LessOrEqual(t, units(text), maxErrorText)
	}
}

// The child prints all it can: a panic with the Alerter itself, with every goroutine's stack, in the middle of sending.
func TestSecretsAreInNoPanicTrace(t *testing.T) {
	if os.Getenv("BREAKER_PANIC") != "" {
		panicWhileSending(t)
		return
	}
	for _, with := range []string{"alerter", "printed", "error"} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestSecretsAreInNoPanicTrace$", "-test.v")
		cmd.Env = append(os.Environ(), "BREAKER_PANIC="+with, "GOTRACEBACK=all")
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "goroutine ")
		require.Contains(t, string(out), "panic: ")
		requireNoSecret(t, string(out))
	}
}

func panicWhileSending(t *testing.T) {
	hold := make(chan struct{})
	s := newWeb(t, func(int, http.ResponseWriter, *http.Request) { <-hold })
	a, err := New(breaker.Alerts{Channels: secretChannels(s)}, WithPagerDutyURL(s.URL),
		WithSMTP(breaker.AlertSMTP{Host: "127.0.0.1", Port: 1, Username: "u", Password: mailPassword, From: "a@example.com"}))
	require.NoError(t, err)
	r := stayingOpen(t, "x")
	a.Watch(r)
	fail(r.Breaker("x"))
	s.await(t, 3)
	var value any
	switch os.Getenv("BREAKER_PANIC") {
	case "alerter":
		value = a
	case "printed":
		value = fmt.Sprintf("%+v", a)
	case "error":
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		value = errors.Join(a.Test(ctx), a.Close(ctx))
	}
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.WriteString(os.Stderr, "now\n"); panic(value) }()
	<-done
	select {}
}
