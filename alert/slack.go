package alert

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// slack posts to an incoming webhook.
type slack struct {
	client *http.Client
	url    string
}

// What Slack takes, in characters.
const (
	slackHeader  = 150
	slackText    = 3000
	slackField   = 2000
	slackFields  = 10
	slackSummary = 1000 // its limit is higher; this is what a notification shows
)

func (s *slack) send(ctx context.Context, d *delivery) error {
	body, err := encode(slackMessage(&d.alert))
	if err != nil {
		return err
	}
	return post(ctx, s.client, s.url, body, nil)
}

func mrkdwn(text string) map[string]any { return map[string]any{"type": "mrkdwn", "text": text} }

// slackMessage lays a message out in blocks. Everything that came from outside is escaped.
func slackMessage(a *Alert) map[string]any {
	mark := map[string]string{eventOpened: ":red_circle:", eventRecovered: ":large_green_circle:", eventTest: ":large_blue_circle:"}[a.Event]
	title := plain(a.title())
	blocks := []any{map[string]any{"type": "header", "text": map[string]any{"type": "plain_text", "text": slackEscape(title, slackHeader), "emoji": false}}}
	facts := a.facts()
	var fields []any
	for _, f := range facts[:min(len(facts), slackFields)] {
		fields = append(fields, mrkdwn("*"+f.label+"*\n"+slackFact(f, slackField-len(f.label)-3)))
	}
	blocks = append(blocks, map[string]any{"type": "section", "fields": fields})
	if lines := a.errorLines(); len(lines) > 0 {
		const frame = "*Errors*\n```\n```"
		// One backtick less than three cannot end the block, and none at all is simplest.
		text := slackEscape(strings.ReplaceAll(plainLines(lines), "`", "'"), slackText-len(frame))
		blocks = append(blocks, map[string]any{"type": "section", "text": mrkdwn("*Errors*\n```\n" + text + "```")})
	}
	foot := mark + " " + a.Severity.String()
	if a.Link != "" {
		foot += " · <" + slackLink(a.Link) + "|open the live page>"
	}
	blocks = append(blocks, map[string]any{"type": "context", "elements": []any{mrkdwn(foot)}})
	return map[string]any{"text": slackEscape(title+" — "+plain(a.Why), slackSummary), "blocks": blocks}
}

// slackFact writes an instant so that each reader sees it in their own time zone.
func slackFact(f fact, limit int) string {
	if f.at.IsZero() {
		return slackEscape(plain(f.text), limit)
	}
	return fmt.Sprintf("<!date^%d^{date_short_pretty} {time_secs}|%s>", f.at.Unix(), f.show())
}

// slackEscape writes text as Slack wants it, in at most limit characters: & < > begin an entity, a mention or a link otherwise.
func slackEscape(text string, limit int) string {
	return cutTo(text, limit, func(r rune) string {
		switch r {
		case '&':
			return "&amp;"
		case '<':
			return "&lt;"
		case '>':
			return "&gt;"
		}
		return string(r)
	})
}

// slackLink keeps a URL from ending its own link.
func slackLink(url string) string {
	return strings.NewReplacer("|", "%7C", ">", "%3E", "<", "%3C", "&", "&amp;").Replace(url)
}

// plainLines joins lines, each kept to one.
func plainLines(lines []string) string {
	var out strings.Builder
	for _, l := range lines {
		out.WriteString(plain(l) + "\n")
	}
	return out.String()
}
