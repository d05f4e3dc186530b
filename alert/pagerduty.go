package alert

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/failfast-go/breaker"
)

const pagerDutyURL = "https://events.pagerduty.com/v2/enqueue"

// pagerDuty speaks Events API v2.
type pagerDuty struct {
	client *http.Client
	url    string
	key    string // the routing key
}

func (p *pagerDuty) send(ctx context.Context, d *delivery) error {
	actions := []string{"trigger"}
	switch d.alert.Event {
	case eventRecovered:
		actions = []string{"resolve"}
	case eventTest: // leaves nothing behind
		actions = []string{"trigger", "resolve"}
	}
	for _, action := range actions {
		body, err := encode(p.event(action, &d.alert))
		if err != nil {
			return err
		}
		if err := post(ctx, p.client, p.url, body, nil); err != nil {
			return err
		}
	}
	return nil
}

type pagerDutyEvent struct {
	RoutingKey string           `json:"routing_key"`
	Action     string           `json:"event_action"`
	DedupKey   string           `json:"dedup_key"`
	Client     string           `json:"client"`
	ClientURL  string           `json:"client_url,omitempty"`
	Links      []pagerDutyLink  `json:"links,omitempty"`
	Payload    pagerDutyPayload `json:"payload"`
}

type pagerDutyLink struct {
	Href string `json:"href"`
	Text string `json:"text"`
}

type pagerDutyPayload struct {
	Summary   string            `json:"summary"` // at most 1024 characters
	Source    string            `json:"source"`
	Severity  string            `json:"severity"`
	Timestamp time.Time         `json:"timestamp"`
	Component string            `json:"component"`
	Group     string            `json:"group"`
	Class     string            `json:"class,omitempty"`
	Details   map[string]string `json:"custom_details"`
}

// pagerDutySeverities are PagerDuty's words, which decide how loud it gets.
var pagerDutySeverities = map[breaker.RiskLevel]string{
	breaker.RiskCritical: "critical", breaker.RiskHigh: "error", breaker.RiskMedium: "warning", breaker.RiskLow: "info",
}

func (p *pagerDuty) event(action string, a *Alert) pagerDutyEvent {
	e := pagerDutyEvent{RoutingKey: p.key, Action: action, DedupKey: a.DedupKey, Client: plain(a.Service), ClientURL: a.Link}
	if a.Link != "" {
		e.Links = []pagerDutyLink{{Href: a.Link, Text: "Live page"}}
	}
	summary := plain(a.Service + ": " + a.title())
	if a.Event == eventOpened {
		summary += ": " + plain(a.Why)
	}
	e.Payload = pagerDutyPayload{Summary: cut(summary, 1024), Source: plain(a.Instance), Severity: pagerDutySeverities[a.Severity],
		Timestamp: a.Since, Component: plain(a.Breaker), Group: plain(a.Service), Details: map[string]string{}}
	if a.Trip != nil {
		e.Payload.Class = string(a.Trip.Rule)
	}
	for _, f := range a.facts() {
		e.Payload.Details[strings.ToLower(f.label)] = cut(plain(f.show()), 1000)
	}
	for i, line := range a.errorLines() {
		e.Payload.Details[fmt.Sprintf("error %d", i+1)] = cut(plain(line), 1000)
	}
	return e
}
