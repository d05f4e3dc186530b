package alert

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"net"
	netmail "net/mail"
	"net/textproto"
	"os"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/failfast-go/breaker"
)

const (
	mailLimit   = 30 * time.Second // for one attempt: a mail server that checks for spam takes its time
	mailSubject = 150

	submission  = 587 // STARTTLS
	submissions = 465 // TLS from the start
)

// email sends each recipient a message of their own, so that an address which does not work keeps it from nobody else.
type email struct {
	server     breaker.AlertSMTP
	from       *netmail.Address
	recipients []string
	tls        *tls.Config
}

func newEmail(recipients []string, server breaker.AlertSMTP, base *tls.Config) (*email, error) {
	e := &email{server: server, tls: &tls.Config{}}
	to, errRecipients := addresses(recipients)
	for _, a := range to {
		e.recipients = append(e.recipients, a.String())
	}
	text := server.From
	if text == "" {
		text = server.Username
	}
	from, errFrom := netmail.ParseAddress(text)
	if errFrom != nil {
		errFrom = errors.New("smtp: from: want an address such as breaker@example.com")
	}
	if base != nil {
		e.tls = base.Clone()
	}
	if e.tls.ServerName == "" {
		e.tls.ServerName = server.Host
	}
	e.from = from
	if e.server.Port == 0 {
		e.server.Port = submission
	}
	return e, errors.Join(errRecipients, errFrom)
}

// mailSecrets are the forms in which a server may quote a password: as it is, and as the client says it.
func mailSecrets(s breaker.AlertSMTP) []string {
	if s.Password == "" {
		return nil
	}
	encode := base64.StdEncoding.EncodeToString
	return []string{string(s.Password), encode([]byte(s.Password)), encode([]byte("\x00" + s.Username + "\x00" + string(s.Password)))}
}

func (e *email) send(ctx context.Context, d *delivery) error {
	if d.missing == nil {
		d.missing = e.recipients
	}
	var messages []*mail.Msg
	for _, to := range d.missing {
		m, err := e.message(&d.alert, to)
		if err != nil {
			return &refusal{text: "the message cannot be written: " + err.Error()}
		}
		messages = append(messages, m)
	}
	line := &connection{ctx: ctx, tls: e.tls, implicit: e.server.Port == submissions}
	defer line.close()
	client, err := e.client(line)
	if err != nil {
		return err
	}
	err = client.DialAndSendWithContext(ctx, messages...)
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("the mail server did not take it within %v", mailLimit)
	}
	return e.settle(d, messages, err)
}

// settle says what became of each recipient. Whoever has the message does not get it again.
func (e *email) settle(d *delivery, messages []*mail.Msg, err error) error {
	var again, refused []string
	var reason error
	for i, m := range messages {
		to := d.missing[i]
		switch {
		case m.IsDelivered(): // whatever went wrong afterwards
		case m.HasSendError() && isFinal(m.SendError()):
			refused, reason = append(refused, to), m.SendError()
		default:
			again = append(again, to)
		}
	}
	if len(again) == len(messages) && err != nil && isFinal(err) { // it never came to the messages
		again, refused, reason = nil, again, err
	}
	delivered := len(e.recipients) - len(again) - len(refused)
	switch {
	case len(again) > 0:
		d.missing = again
		if len(refused) > 0 {
			err = fmt.Errorf("%w; refused for good: %s", err, strings.Join(refused, ", "))
		}
		if err == nil {
			err = errors.New("the mail server did not take it")
		}
		return err
	case len(refused) > 0:
		return &refusal{text: reason.Error(), partly: delivered > 0}
	}
	return nil
}

// isFinal reports whether a mail server said 5xx: no again.
func isFinal(err error) bool {
	if sent, ok := errors.AsType[*mail.SendError](err); ok {
		return sent.ErrorCode()/100 == 5
	}
	if answer, ok := errors.AsType[*textproto.Error](err); ok {
		return answer.Code/100 == 5
	}
	return false
}

func (e *email) client(line *connection) (*mail.Client, error) {
	name, _ := os.Hostname()
	if name == "" {
		name = "localhost"
	}
	options := []mail.Option{
		mail.WithPort(e.server.Port), mail.WithTimeout(mailLimit), mail.WithHELO(name), mail.WithTLSConfig(e.tls), mail.WithTLSPolicy(mail.TLSMandatory),
		mail.WithDialContextFunc(line.dial),
	}
	if line.implicit { // the connection is encrypted before the library sees it; there is nothing left to ask for
		options = append(options, mail.WithTLSPolicy(mail.TLSOpportunistic))
	}
	if e.server.Username != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(e.server.Username), mail.WithPassword(string(e.server.Password)))
	}
	return mail.NewClient(e.server.Host, options...)
}

// connection is the one that an attempt uses. The library closes it only when all goes well, and does not heed a context once it
// is made; this does.
type connection struct {
	ctx      context.Context
	tls      *tls.Config
	implicit bool
	conn     net.Conn
	stop     func() bool
}

func (c *connection) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d interface {
		DialContext(context.Context, string, string) (net.Conn, error)
	} = &net.Dialer{}
	if c.implicit {
		d = &tls.Dialer{Config: c.tls}
	}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.conn, c.stop = conn, context.AfterFunc(c.ctx, func() { _ = conn.Close() })
	return conn, nil
}

func (c *connection) close() {
	if c.conn != nil {
		c.stop()
		_ = c.conn.Close()
	}
}

func (e *email) message(a *Alert, to string) (*mail.Msg, error) {
	m := mail.NewMsg()
	m.FromMailAddress(e.from)
	if err := m.To(to); err != nil {
		return nil, err
	}
	m.Subject(mailSubjectOf(a))
	m.SetDate()
	m.SetGenHeader("Auto-Submitted", "auto-generated") // nobody's absence notice shall answer
	sum := sha256.Sum256([]byte(a.DedupKey + a.Since.UTC().String()))
	thread := fmt.Sprintf("%x@%s", sum[:12], e.server.Host)
	if a.Event == eventRecovered {
		m.SetMessageID()
		m.SetGenHeader(mail.HeaderInReplyTo, "<"+thread+">")
		m.SetGenHeader(mail.HeaderReferences, "<"+thread+">")
	} else {
		m.SetMessageIDWithValue(thread)
	}
	text, html, err := mailBody(a)
	if err != nil {
		return nil, err
	}
	m.SetBodyString(mail.TypeTextPlain, text)
	m.AddAlternativeString(mail.TypeTextHTML, html)
	return m, nil
}

// mailSubjectOf is one line whatever the breaker's name holds: a line break in it would begin a header.
func mailSubjectOf(a *Alert) string {
	text := "[" + a.Severity.String() + "] " + a.title()
	if a.Event == eventOpened {
		text += ": " + a.Why
	}
	return cut(plain(text), mailSubject)
}

type mailPage struct {
	Title, Severity, Color string
	Facts                  []mailFact
	Errors                 []string
	Link                   string
}

type mailFact struct{ Label, Text string }

var mailColors = map[string]string{eventOpened: "#b3261e", eventRecovered: "#1b6e3c", eventTest: "#1f5fa8"}

func mailBody(a *Alert) (text, html string, err error) {
	page := mailPage{Title: plain(a.title()), Severity: a.Severity.String(), Color: mailColors[a.Event], Link: a.Link}
	for _, f := range a.facts() {
		page.Facts = append(page.Facts, mailFact{f.label, plain(f.show())})
	}
	for _, line := range a.errorLines() {
		page.Errors = append(page.Errors, plain(line))
	}
	var out strings.Builder
	if err := mailHTML.Execute(&out, page); err != nil {
		return "", "", err
	}
	return page.text(), out.String(), nil
}

func (p *mailPage) text() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s (%s)\n\n", p.Title, p.Severity)
	for _, f := range p.Facts {
		fmt.Fprintf(&out, "%-11s %s\n", f.Label+":", f.Text)
	}
	if len(p.Errors) > 0 {
		out.WriteString("\nErrors:\n")
	}
	for _, line := range p.Errors {
		out.WriteString("  " + line + "\n")
	}
	if p.Link != "" {
		out.WriteString("\nLive page: " + p.Link + "\n")
	}
	return out.String()
}

var mailHTML = template.Must(template.New("mail").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{{.Title}}</title></head>
<body style="font-family: sans-serif; color: #1c1b1f; background: #ffffff">
<h1 style="font-size: 1.25em; border-left: 6px solid {{.Color}}; padding-left: 0.5em">{{.Title}}</h1>
<table style="border-collapse: collapse">
<tr><th scope="row" style="text-align: left; padding: 2px 1em 2px 0; vertical-align: top">Severity</th><td>{{.Severity}}</td></tr>
{{- range .Facts}}
<tr><th scope="row" style="text-align: left; padding: 2px 1em 2px 0; vertical-align: top">{{.Label}}</th><td>{{.Text}}</td></tr>
{{- end}}
</table>
{{- if .Errors}}
<h2 style="font-size: 1em">Errors</h2>
<pre style="white-space: pre-wrap">{{range .Errors}}{{.}}
{{end}}</pre>
{{- end}}
{{- if .Link}}
<p><a href="{{.Link}}">Open the live page</a></p>
{{- end}}
</body>
</html>
`))
