package alert

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

func pagerDutyTo(s *web) (breaker.AlertChannel, Option) {
	return breaker.AlertChannel{Type: "pagerduty", IntegrationKey: "hunter2"}, WithPagerDutyURL(s.URL + "/v2/enqueue")
}

func eventsOf(t *testing.T, all []request) (events []pagerDutyEvent) {
	t.Helper()
	for _, r := range all {
		var e pagerDutyEvent
		require.NoError(t, json.Unmarshal(r.body, &e))
		events = append(events, e)
	}
	return events
}

func TestPagerDutyIsTriggeredAndResolvedWithOneKey(t *testing.T) {
	s := newWeb(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	c, to := pagerDutyTo(s)
	a := newAlerter(t, []breaker.AlertChannel{c}, to, WithPage("https://ops.example.com/"))
	r := stayingOpen(t, "payments")
	a.Watch(r)
	fail(r.Breaker("payments"))
	s.await(t, 1)
	r.Breaker("payments").Reset("")
	all := s.await(t, 2)
	require.Equal(t, "/v2/enqueue", all[0].path)
	events := eventsOf(t, all)
	first, second := events[0], events[1]
	require.Equal(t, "trigger", first.Action)
	require.Equal(t, "resolve", second.Action)
	for _, e := range events {
		require.Equal(t, "hunter2", e.RoutingKey)
		require.Equal(t, "breaker/shop/payments", e.DedupKey)
		require.Equal(t, "error", e.Payload.Severity, "the resolve has that of the trigger")
		require.Equal(t, "payments", e.Payload.Component)
		require.Equal(t, "shop", e.Payload.Group)
		require.Equal(t, "consecutive_failures", e.Payload.Class)
		require.NotEmpty(t, e.Payload.Source)
		require.Equal(t, "https://ops.example.com/", e.Links[0].Href)
	}
	require.Equal(t, "shop: payments is open: 1 consecutive failures >= 1", first.Payload.Summary)
	require.Contains(t, second.Payload.Summary, "shop: payments has recovered after")
	require.Equal(t, "1 consecutive failures >= 1", first.Payload.Details["why"])
	require.Equal(t, "1× connection refused", first.Payload.Details["error 1"])
	require.Contains(t, first.Payload.Details, "next probe")
	require.Contains(t, second.Payload.Details, "recovered")
}

func TestPagerDutysSeveritiesAndLimits(t *testing.T) {
	for level, want := range map[breaker.RiskLevel]string{breaker.RiskLow: "info", breaker.RiskMedium: "warning", breaker.RiskHigh: "error", breaker.RiskCritical: "critical"} {
		a := sample(eventOpened)
		a.Severity = level
		a.Breaker = strings.Repeat("长", 2000)
		e := (&pagerDuty{}).event("trigger", a)
		require.Equal(t, want, e.Payload.Severity)
		require.LessOrEqual(t, units(e.Payload.Summary), 1024)
	}
	e := (&pagerDuty{}).event("trigger", hostileAlert())
	require.NotContains(t, e.Payload.Summary, "\n")
	require.NotContains(t, e.Payload.Component, "\u202e")
}

func TestATestAtPagerDutyLeavesNothingBehind(t *testing.T) {
	s := newWeb(t, nil)
	c, to := pagerDutyTo(s)
	a := newAlerter(t, []breaker.AlertChannel{c}, to)
	require.NoError(t, a.Test(t.Context()))
	events := eventsOf(t, s.requests())
	require.Len(t, events, 2)
	require.Equal(t, []string{"trigger", "resolve"}, []string{events[0].Action, events[1].Action})
	require.Equal(t, events[0].DedupKey, events[1].DedupKey)
	require.NotEqual(t, "breaker/shop/test", events[0].DedupKey)
	require.Equal(t, "info", events[0].Payload.Severity)
	require.Contains(t, events[0].Payload.Details["what"], "Nothing is wrong")
}
