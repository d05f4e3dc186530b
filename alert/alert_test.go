package alert

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

const specification = "../testdata/circuit_breaker_config.yaml"

// The file that the library was specified with, unchanged: its mail channel names no server.
func TestTheSpecifiedFileWorksUnchanged(t *testing.T) {
	file, err := breaker.LoadFile(specification)
	require.NoError(t, err)
	_, err = New(file.Alerts)
	require.ErrorContains(t, err, "alert: channel slack: webhook_url: the variable SLACK_WEBHOOK_URL is unset or empty")
	require.ErrorContains(t, err, "PAGERDUTY_KEY")
	require.ErrorContains(t, err, "alert: channel email: no mail server: set alerts.smtp in the file, or pass WithSMTP")

	hooks, events := newWeb(t, nil), newWeb(t, nil)
	mails := startMailServer(t, "starttls")
	t.Setenv("SLACK_WEBHOOK_URL", hooks.URL+"/services/hunter2")
	t.Setenv("PAGERDUTY_KEY", "hunter2")
	a := newAlerter(t, file.Alerts.Channels, WithSMTP(mails.account()), WithTLS(mails.trust), WithPagerDutyURL(events.URL), WithQuiet(20*time.Millisecond))
	r, err := breaker.NewRegistry(file.Breakers)
	require.NoError(t, err)
	a.Watch(r)
	b := r.Breaker("payment_service")
	for range 3 {
		fail(b)
	}
	require.Contains(t, string(hooks.await(t, 1)[0].body), "payment_service is open")
	require.Contains(t, mails.await(t).Data, "payment_service is open")
	require.Empty(t, events.requests(), "only what is critical")
	require.Equal(t, []string{"slack", "pagerduty", "email"}, []string{a.Stats().Channels[0].Name, a.Stats().Channels[1].Name, a.Stats().Channels[2].Name})
	b.Reset("")
	require.Contains(t, string(hooks.await(t, 2)[1].body), "payment_service has recovered")
	require.Contains(t, mails.await(t).Data, "payment_service has recovered")
}

func TestEverythingWrongWithTheChannelsIsSaidAtOnce(t *testing.T) {
	_, err := New(breaker.Alerts{Channels: []breaker.AlertChannel{
		{Type: "slack", WebhookURL: "hunter2 is no URL"},
		{Type: "slack", WebhookURL: "ftp://example.com/hunter2"},
		{Type: "webhook", URL: "https://"},
		{Type: "pagerduty"},
		{Type: "pigeon"},
		{Type: "slack", WebhookURL: "https://example.com/", SeverityFilter: []string{"urgent"}},
		{Type: "email", Recipients: []string{"hunter2", "a@example.com"}},
		{Type: "email"},
	}}, WithSMTP(breaker.AlertSMTP{Host: "mail.example.com", From: "hunter2"}), WithQuiet(-1), WithQueue(0), WithService(""), WithPage("hunter2"), WithPagerDutyURL("hunter2"), nil)
	for _, text := range []string{
		"alert: channel slack-1: webhook_url: want a URL that begins with https://", "alert: channel slack-2: webhook_url", "alert: channel webhook: url: want",
		"alert: channel pagerduty: integration_key: want", `alert: channel pigeon: type: "pigeon" is not allowed: want slack, pagerduty, email or webhook`,
		`alert: channel slack-3: severity_filter: "urgent" is not allowed`, "alert: channel email-1: recipients[0]: want an address", "smtp: from: want an address",
		"alert: channel email-2: recipients: want at least one", "WithQuiet: -1ns", "WithQueue: 0", "WithService: empty", "WithPage: want a URL", "WithPagerDutyURL: want a URL",
	} {
		require.ErrorContains(t, err, text)
	}
	require.NotContains(t, err.Error(), "hunter2")
}

func TestTheMailServersVariablesAreResolved(t *testing.T) {
	t.Setenv("BREAKER_TEST_HOST", "mail.example.com")
	channels := []breaker.AlertChannel{{Type: "email", Recipients: []string{"a@example.com", "b@example.com", "A <a@example.com>"}}}
	a, err := New(breaker.Alerts{Channels: channels, SMTP: breaker.AlertSMTP{Host: "${BREAKER_TEST_HOST}", Username: "me@example.com"}})
	require.NoError(t, err)
	defer mustClose(t, a)
	e := a.channels[0].sender.(*email)
	require.Equal(t, "mail.example.com", e.server.Host)
	require.Equal(t, "mail.example.com", e.tls.ServerName)
	require.Equal(t, submission, e.server.Port)
	require.Equal(t, "me@example.com", e.from.Address, "the account, where no sender is set")
	require.Equal(t, []string{"<a@example.com>", "<b@example.com>"}, e.recipients, "nobody twice")

	_, err = New(breaker.Alerts{Channels: channels}, WithSMTP(breaker.AlertSMTP{Host: "h", From: "a@example.com", Password: "${BREAKER_TEST_NONE}"}))
	require.ErrorContains(t, err, "alert: channel email: smtp: password: the variable BREAKER_TEST_NONE is unset")
}

func TestWithoutChannelsNothingIsTold(t *testing.T) {
	a, err := New(breaker.Alerts{})
	require.NoError(t, err)
	r := stayingOpen(t, "x")
	a.Watch(r)
	fail(r.Breaker("x"))
	require.Eventually(t, func() bool { return a.Stats().Incidents == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, a.Test(t.Context()))
	mustClose(t, a)
}

func TestATestGoesToEveryChannelPastItsFilter(t *testing.T) {
	good, bad := newWeb(t, nil), newWeb(t, nil)
	bad.Close()
	mails := startMailServer(t, "starttls")
	a := newAlerter(t, []breaker.AlertChannel{
		{Type: "slack", WebhookURL: breaker.Secret(good.URL), SeverityFilter: []string{"critical"}}, webhookTo(bad.URL + "/hunter2"), webhookTo(good.URL),
		{Type: "email", Recipients: []string{"oncall@example.com"}, SeverityFilter: []string{"high"}},
	}, WithSMTP(mails.account()), WithTLS(mails.trust))
	err := a.Test(t.Context())
	require.Regexp(t, `^alert: webhook-1: dial tcp .* connection refused$`, err.Error())
	require.Len(t, good.requests(), 2)
	require.Contains(t, string(good.requests()[0].body), "Test alert of shop")
	require.Contains(t, string(good.requests()[1].body), `"event":"test"`)
	header, bodies := mails.await(t).parts(t)
	require.Equal(t, "[low] Test alert of shop", subjectOf(t, header))
	require.Contains(t, bodies["text/plain"], "Nothing is wrong")
}
