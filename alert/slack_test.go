package alert

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// sample is a message such as on-call engineers get.
func sample(event string) *Alert {
	a := (&options{service: "shop", instance: "web-7", page: "https://ops.example.com/?a=1&b=2"}).blank(event, "payments")
	a.Severity, a.Since, a.Openings, a.Refused = breaker.RiskCritical, t0, 3, 412
	a.Trip = &breaker.Trip{At: t0, Rule: breaker.RuleFailureRate, Observed: 0.62, Threshold: 0.5, Calls: 50, Failures: 31, SlowCalls: 4,
		Errors: []breaker.ErrorCount{{Text: "connection refused", Count: 28}, {Text: "503 Service Unavailable", Count: 3}}}
	a.Why = a.Trip.String()
	a.Risk = breaker.Risk{Level: breaker.RiskCritical, Score: 90, Reasons: []string{"open: every call is refused (+50)"}}
	a.Status.State = breaker.StateOpen
	a.Status.Metrics = breaker.Metrics{RejectedCalls: 430, InFlight: 2}
	if event == eventRecovered {
		a.RecoveredAt = t0.Add(4*time.Minute + 12*time.Second)
		a.Status.State = breaker.StateClosed
	} else {
		a.NextProbe = t0.Add(30 * time.Second)
	}
	return &a
}

type slackBlock struct {
	Type     string
	Text     struct{ Type, Text string }
	Fields   []struct{ Type, Text string }
	Elements []struct{ Type, Text string }
}

type slackBody struct {
	Text   string
	Blocks []slackBlock
}

func slackOf(t *testing.T, a *Alert) (parsed slackBody, all string) {
	t.Helper()
	body, err := encode(slackMessage(a))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(body, &parsed))
	return parsed, string(body)
}

func TestSlackSaysWhatSinceWhenWhyNumbersNextProbeAndLink(t *testing.T) {
	m, _ := slackOf(t, sample(eventOpened))
	require.Equal(t, "payments is open — failure rate 0.62 &gt;= 0.50 over 50 calls", m.Text)
	require.Equal(t, "header", m.Blocks[0].Type)
	require.Equal(t, "payments is open", m.Blocks[0].Text.Text)
	var fields []string
	for _, f := range m.Blocks[1].Fields {
		require.Equal(t, "mrkdwn", f.Type)
		fields = append(fields, f.Text)
	}
	require.Equal(t, []string{
		"*Since*\n<!date^1795316400^{date_short_pretty} {time_secs}|2026-11-22 03:00:00 UTC>",
		"*Why*\nfailure rate 0.62 &gt;= 0.50 over 50 calls",
		"*Openings*\n3 since then",
		"*Refused*\n412 calls since then",
		"*Numbers*\n31 of 50 calls failed, 4 slow, 2 in flight, 430 refused in all",
		"*Next probe*\n<!date^1795316430^{date_short_pretty} {time_secs}|2026-11-22 03:00:30 UTC>",
		"*Risk*\ncritical, 90 of 100: open: every call is refused (+50)",
		"*Service*\nshop on web-7",
	}, fields)
	require.Equal(t, "*Errors*\n```\n28× connection refused\n3× 503 Service Unavailable\n```", m.Blocks[2].Text.Text)
	require.Equal(t, ":red_circle: critical · <https://ops.example.com/?a=1&amp;b=2|open the live page>", m.Blocks[3].Elements[0].Text)
}

func TestSlackSaysThatItIsOver(t *testing.T) {
	m, all := slackOf(t, sample(eventRecovered))
	require.Equal(t, "payments has recovered after 4m12s", m.Blocks[0].Text.Text)
	require.Contains(t, all, "2026-11-22 03:04:12 UTC")
	require.Contains(t, all, ":large_green_circle: critical")
	require.NotContains(t, all, "Next probe")
	require.NotContains(t, all, "*Errors*")
}

func TestSlackSaysWhenItIsProbing(t *testing.T) {
	a := sample(eventOpened)
	a.Status.State, a.NextProbe = breaker.StateHalfOpen, time.Time{}
	_, all := slackOf(t, a)
	require.Contains(t, all, `*Next probe*\nwith the next call`)
	require.Contains(t, all, "payments is half-open")
	a.Status.State = breaker.StateClosed // it was quicker than the message
	_, all = slackOf(t, a)
	require.Contains(t, all, "payments is open")
}

// hostile texts try to mention everybody, to end a link or a block, to fake lines, and to turn the reading direction.
const hostile = "<!channel> & <https://evil.example|click> ```x``` |> \n*Severity*: none\r\n\u202egnp.exe\u0000 \xff \u2028 @here"

func hostileAlert() *Alert {
	a := sample(eventOpened)
	a.Breaker, a.Why, a.Service, a.Instance = hostile, hostile, hostile, hostile
	a.Trip.Errors = []breaker.ErrorCount{{Text: hostile, Count: 1}}
	a.Risk.Reasons = []string{hostile}
	a.Link = "https://ops.example.com/|evil>"
	return a
}

func TestSlackShowsNamesAndErrorsAsTheyAreAndNoMore(t *testing.T) {
	m, _ := slackOf(t, hostileAlert())
	texts := []string{m.Text}
	for _, b := range m.Blocks {
		texts = append(texts, b.Text.Text)
		for _, f := range append(b.Fields, b.Elements...) {
			texts = append(texts, f.Text)
		}
	}
	ours := regexp.MustCompile(`<!date\^\d+\^\{date_short_pretty\} \{time_secs\}\|[^<>|]+>|<https://ops\.example\.com/%7Cevil%3E\|open the live page>`)
	for _, text := range texts {
		rest := ours.ReplaceAllString(text, "")
		require.NotContains(t, rest, "<")
		require.NotContains(t, rest, ">")
		require.NotRegexp(t, `&(?:[^alg]|$)`, rest)
		require.NotContains(t, text, "\u202e")
		require.NotContains(t, text, "\r")
		require.NotContains(t, text, "\u2028")
	}
	require.NotContains(t, m.Blocks[0].Text.Text, "\n")
	require.Equal(t, 2, strings.Count(m.Blocks[2].Text.Text, "```"))
	require.Equal(t, 3, strings.Count(m.Blocks[2].Text.Text, "\n"), "an error has one line")
}

func TestSlacksLimitsAreKept(t *testing.T) {
	a := sample(eventOpened)
	for _, char := range []string{"a", "&", "中", "😀"} {
		long := strings.Repeat(char, 5000)
		a.Breaker, a.Why, a.Service = long, long, long
		a.Trip.Errors = []breaker.ErrorCount{{Text: long, Count: 1}}
		a.Risk.Reasons = []string{long}
		m, _ := slackOf(t, a)
		length := func(s string) int { return len(utf16.Encode([]rune(s))) }
		require.LessOrEqual(t, length(m.Blocks[0].Text.Text), 150)
		require.LessOrEqual(t, len(m.Blocks[1].Fields), 10)
		for _, f := range m.Blocks[1].Fields {
			require.LessOrEqual(t, length(f.Text), 2000)
		}
		require.LessOrEqual(t, length(m.Blocks[2].Text.Text), 3000)
		require.Greater(t, length(m.Blocks[2].Text.Text), 2900)
		require.NotRegexp(t, `&[a-z]*…`, m.Blocks[0].Text.Text, "no entity is cut")
		require.Contains(t, m.Blocks[0].Text.Text, "…")
	}
}

func TestSlackIsPostedToItsWebhook(t *testing.T) {
	s := newWeb(t, nil)
	a := newAlerter(t, []breaker.AlertChannel{{Type: "slack", WebhookURL: breaker.Secret(s.URL + "/services/T0/B0/hunter2")}})
	r := stayingOpen(t, "payments")
	a.Watch(r)
	fail(r.Breaker("payments"))
	s.await(t, 1)
	r.Breaker("payments").Reset("")
	all := s.await(t, 2)
	require.Equal(t, "/services/T0/B0/hunter2", all[0].path)
	require.Contains(t, string(all[0].body), "payments is open")
	require.Contains(t, string(all[1].body), "payments has recovered after")
	keep(t, "slack.json", string(all[0].body))
}
