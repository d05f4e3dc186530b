package breaker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Alerts says who is told when a breaker opens. This package reads it and sends nothing.
type Alerts struct {
	Channels []AlertChannel
	SMTP     AlertSMTP // the server for email channels; zero where the file names none
}

// AlertChannel is one receiver of alerts. Its texts may hold ${NAME} and ${NAME:-default}, which stay as written until
// [AlertChannel.Resolve].
type AlertChannel struct {
	Type           string   // slack, pagerduty, email or webhook
	SeverityFilter []string // of low, medium, high and critical; nil means all

	WebhookURL     Secret   // slack: the whole URL is its password
	IntegrationKey Secret   // pagerduty
	Recipients     []string // email, at least one
	URL            Secret   // webhook
	Secret         Secret   // webhook: signs what is sent; empty for unsigned
}

// AlertSMTP is a mail server. Its texts may hold ${NAME} and ${NAME:-default}, as those of [AlertChannel].
type AlertSMTP struct {
	Host     string
	Port     int // 1 to 65535; zero means the one that the sender chooses
	Username string
	Password Secret
	From     string
}

// Secret is text that appears in no log: fmt, JSON, YAML and log/slog show "[redacted]", or the text itself where it is only a
// reference such as ${PAGERDUTY_KEY}. string(s) is what it holds.
type Secret string

var reference = regexp.MustCompile(`^\$\{[A-Za-z_][A-Za-z0-9_]*\}$`)

// String returns s as it may be shown; empty if s is.
func (s Secret) String() string {
	if s == "" || reference.MatchString(string(s)) {
		return string(s)
	}
	return "[redacted]"
}

// Format writes String, whatever the verb: also %d would otherwise show what s holds.
func (s Secret) Format(w fmt.State, verb rune) {
	if verb == 'q' || w.Flag('#') {
		fmt.Fprintf(w, "%q", s.String())
		return
	}
	_, _ = io.WriteString(w, s.String())
}

// MarshalText returns String: for JSON, YAML and log/slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

var (
	severities   = []string{"low", "medium", "high", "critical"}
	channelTypes = []string{"slack", "pagerduty", "email", "webhook"}
)

func (r *nodeReader) alerts(n *yaml.Node, at *place) (a Alerts) {
	r.keys(n, at, keys{
		"channels": func(n *yaml.Node, at *place) {
			for i, item := range r.list(n, at, "a list of channels") {
				a.Channels = append(a.Channels, r.channel(item, at.item(i)))
			}
		},
		"smtp": func(n *yaml.Node, at *place) { a.SMTP = r.smtp(n, at) },
	})
	return a
}

func (r *nodeReader) channel(n *yaml.Node, at *place) (c AlertChannel) {
	secret := func(to *Secret) func(*yaml.Node, *place) {
		return func(n *yaml.Node, at *place) { *to = Secret(r.template(n, at)) }
	}
	entries := r.mapping(n, at)
	i := slices.IndexFunc(entries, func(e pair) bool { return e.name == "type" })
	if i < 0 {
		r.missing(n, at, "type", "one of "+strings.Join(channelTypes, ", "))
		return c
	}
	read := keys{
		"type":            func(n *yaml.Node, at *place) { c.Type = r.oneOf(n, at.public(), channelTypes) },
		"severity_filter": func(n *yaml.Node, at *place) { c.SeverityFilter = r.severityFilter(n, at.public()) },
	}
	var required string
	switch entries[i].value.Value {
	case "slack":
		required, read["webhook_url"] = "webhook_url", secret(&c.WebhookURL)
	case "pagerduty":
		required, read["integration_key"] = "integration_key", secret(&c.IntegrationKey)
	case "email":
		required = "recipients"
		read[required] = func(n *yaml.Node, at *place) { c.Recipients = r.templates(n, at) }
	case "webhook":
		required, read["url"], read["secret"] = "url", secret(&c.URL), secret(&c.Secret)
	default: // what else may be here depends on the type
		read["type"](entries[i].value, at.key("type"))
		return c
	}
	if there := r.keys(n, at, read); !there[required] {
		r.missing(n, at, required, "it to be set in a channel of this type")
	}
	return c
}

func (r *nodeReader) smtp(n *yaml.Node, at *place) (s AlertSMTP) {
	text := func(to *string) func(*yaml.Node, *place) {
		return func(n *yaml.Node, at *place) { *to = r.template(n, at) }
	}
	there := r.keys(n, at, keys{
		"host":     text(&s.Host),
		"port":     func(n *yaml.Node, at *place) { s.Port = r.between(n, at.public(), 1, 65535) },
		"username": text(&s.Username),
		"password": func(n *yaml.Node, at *place) { s.Password = Secret(r.template(n, at)) },
		"from":     text(&s.From),
	})
	if !there["host"] {
		r.missing(n, at, "host", "the name of a mail server")
	}
	return s
}

func (r *nodeReader) severityFilter(n *yaml.Node, at *place) (filter []string) {
	const want = "a list of severities: low, medium, high, critical"
	items := r.list(n, at, want)
	for i, item := range items {
		filter = append(filter, r.oneOf(item, at.item(i), severities))
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		r.report(n, at, "an empty list", want)
	}
	return filter
}

func (r *nodeReader) oneOf(n *yaml.Node, at *place, words []string) string {
	if !isText(n) || !slices.Contains(words, n.Value) {
		r.refuse(n, at, "one of "+strings.Join(words, ", "))
	}
	return n.Value
}

func (r *nodeReader) between(n *yaml.Node, at *place, low, high int) int {
	v, ok := wholeNumber(n)
	if !ok || v < low || v > high {
		r.refuse(n, at, fmt.Sprintf("a whole number from %d to %d", low, high))
	}
	return v
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}`)

// template reads text that may refer to variables.
func (r *nodeReader) template(n *yaml.Node, at *place) string {
	switch {
	case !isText(n):
		r.refuse(n, at, "text (in quotes where it looks like something else)")
	case n.Value == "":
		r.report(n, at, "empty text", "text")
	case strings.Contains(variable.ReplaceAllString(n.Value, ""), "${"):
		r.refuse(n, at, "variables as ${NAME} or ${NAME:-default}")
	}
	return n.Value
}

func (r *nodeReader) templates(n *yaml.Node, at *place) (texts []string) {
	for i, item := range r.list(n, at, "a list of texts") {
		texts = append(texts, r.template(item, at.item(i)))
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		r.report(n, at, "an empty list", "at least one")
	}
	return texts
}

// Resolve returns c with every variable replaced by its value from lookup; nil means [os.LookupEnv]. A variable that is unset
// or empty takes its default. Without one it is an error which names channel, key and variable, all such variables at once,
// and no value.
func (c AlertChannel) Resolve(lookup func(name string) (string, bool)) (AlertChannel, error) {
	x := resolution{what: c.Type + " channel", lookup: lookup}
	c.WebhookURL = Secret(x.text("webhook_url", string(c.WebhookURL)))
	c.IntegrationKey = Secret(x.text("integration_key", string(c.IntegrationKey)))
	c.URL = Secret(x.text("url", string(c.URL)))
	c.Secret = Secret(x.text("secret", string(c.Secret)))
	c.SeverityFilter, c.Recipients = slices.Clone(c.SeverityFilter), slices.Clone(c.Recipients)
	for i := range c.Recipients {
		c.Recipients[i] = x.text("recipients", c.Recipients[i])
	}
	if len(x.errs) > 0 {
		return AlertChannel{}, errors.Join(x.errs...)
	}
	return c, nil
}

// Resolve is [AlertChannel.Resolve] for the mail server.
func (s AlertSMTP) Resolve(lookup func(name string) (string, bool)) (AlertSMTP, error) {
	x := resolution{what: "smtp", lookup: lookup}
	s.Host = x.text("host", s.Host)
	s.Username = x.text("username", s.Username)
	s.Password = Secret(x.text("password", string(s.Password)))
	s.From = x.text("from", s.From)
	if len(x.errs) > 0 {
		return AlertSMTP{}, errors.Join(x.errs...)
	}
	return s, nil
}

// resolution replaces variables and collects those that have no value.
type resolution struct {
	what   string
	lookup func(string) (string, bool)
	errs   []error
}

func (x *resolution) text(key, template string) string {
	return variable.ReplaceAllStringFunc(template, func(ref string) string {
		m := variable.FindStringSubmatch(ref)
		lookup := x.lookup
		if lookup == nil {
			lookup = os.LookupEnv
		}
		if v, _ := lookup(m[1]); v != "" {
			return v
		}
		if m[3] == "" {
			x.errs = append(x.errs, fmt.Errorf("breaker: alerts: %s: %s: the variable %s is unset or empty: set it, or write ${%[3]s:-default}", x.what, key, m[1]))
		}
		return m[3]
	})
}
