package alert

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// mailServer is a real one: aiosmtpd, with TLS and a password.
type mailServer struct {
	port  int
	mails chan sentMail
	trust *tls.Config
}

type sentMail struct {
	From          string
	To            []string
	Data          string
	Authenticated bool
	TLS           bool
	Port          int
}

// python finds an interpreter that has aiosmtpd. Debian's package puts it where only Debian's interpreter looks.
func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(name, "-c", "import aiosmtpd").Run() == nil {
			return name
		}
	}
	const reason = "no mail server to test with: install Debian's package python3-aiosmtpd"
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
	return ""
}

func startMailServer(t *testing.T, mode string) *mailServer {
	t.Helper()
	interpreter := python(t)
	cert, key, trust := certificate(t)
	cmd := exec.Command(interpreter, "testdata/smtpd.py", cert, key, mode)
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	s := &mailServer{mails: make(chan sentMail, 100), trust: trust}
	lines := bufio.NewReader(out)
	ready := s.read(t, lines)
	s.port = ready.Port
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			var m sentMail
			if json.Unmarshal(line, &m) == nil {
				s.mails <- m
			}
		}
	}()
	t.Cleanup(func() {
		in.Close()
		<-done
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the mail server said:\n%s", said.String())
		}
	})
	return s
}

func (*mailServer) read(t *testing.T, from *bufio.Reader) (m sentMail) {
	t.Helper()
	line, err := from.ReadBytes('\n')
	require.NoError(t, err, "the mail server does not start")
	require.NoError(t, json.Unmarshal(line, &m))
	return m
}

func (s *mailServer) await(t *testing.T) sentMail {
	t.Helper()
	select {
	case m := <-s.mails:
		return m
	case <-time.After(time.Minute):
		t.Fatal("no mail arrives")
		return sentMail{}
	}
}

// certificate is one for 127.0.0.1, as files, and what a client needs to trust it.
func certificate(t *testing.T) (cert, key string, trust *tls.Config) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: public}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	pool := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(public)
	require.NoError(t, err)
	pool.AddCert(parsed)
	return cert, key, &tls.Config{RootCAs: pool}
}

func (s *mailServer) account() breaker.AlertSMTP {
	return breaker.AlertSMTP{Host: "127.0.0.1", Port: s.port, Username: "breaker", Password: "hunter2-mail", From: "Breaker <breaker@example.com>"}
}

// newMailer is an Alerter whose one channel mails through s.
func newMailer(t *testing.T, s *mailServer, change func(*breaker.AlertSMTP), recipients ...string) *Alerter {
	t.Helper()
	account := s.account()
	if change != nil {
		change(&account)
	}
	return newAlerter(t, []breaker.AlertChannel{{Type: "email", Recipients: recipients}}, WithSMTP(account), WithTLS(s.trust))
}

// parts returns the bodies of a mail by their type.
func (m sentMail) parts(t *testing.T) (header mail.Header, bodies map[string]string) {
	t.Helper()
	parsed, err := mail.ReadMessage(strings.NewReader(m.Data))
	require.NoError(t, err)
	kind, parameters, err := mime.ParseMediaType(parsed.Header.Get("Content-Type"))
	require.NoError(t, err)
	require.Equal(t, "multipart/alternative", kind)
	bodies = map[string]string{}
	for reader := multipart.NewReader(parsed.Body, parameters["boundary"]); ; {
		part, err := reader.NextRawPart()
		if errors.Is(err, io.EOF) {
			return parsed.Header, bodies
		}
		require.NoError(t, err)
		require.Equal(t, "quoted-printable", part.Header.Get("Content-Transfer-Encoding"))
		text, err := io.ReadAll(quotedprintable.NewReader(part))
		require.NoError(t, err)
		kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
		bodies[kind] = string(text)
	}
}

func subjectOf(t *testing.T, h mail.Header) string {
	t.Helper()
	text, err := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
	require.NoError(t, err)
	return text
}

func TestMailGoesOutOverSTARTTLSWithAPassword(t *testing.T) {
	s := startMailServer(t, "starttls")
	a := newMailer(t, s, nil, "On Call <oncall@example.com>")
	r := stayingOpen(t, "payments")
	a.Watch(r)
	fail(r.Breaker("payments"))
	first := s.await(t)
	r.Breaker("payments").Reset("")
	second := s.await(t)

	require.True(t, first.TLS)
	require.True(t, first.Authenticated)
	require.Equal(t, "breaker@example.com", first.From)
	require.Equal(t, []string{"oncall@example.com"}, first.To)
	header, bodies := first.parts(t)
	require.Equal(t, "[high] payments is open: 1 consecutive failures >= 1", subjectOf(t, header))
	require.Equal(t, `"On Call" <oncall@example.com>`, header.Get("To"))
	require.Equal(t, "auto-generated", header.Get("Auto-Submitted"))
	require.Contains(t, bodies["text/plain"], "Why:        1 consecutive failures >= 1")
	require.Contains(t, bodies["text/plain"], "Next probe:")
	require.Contains(t, bodies["text/plain"], "1× connection refused")
	require.Contains(t, bodies["text/html"], "<td>1 consecutive failures &gt;= 1</td>")

	over, bodies := second.parts(t)
	require.Regexp(t, `^\[high\] payments has recovered after \d+m?s$`, subjectOf(t, over))
	require.Contains(t, bodies["text/plain"], "Recovered:")
	require.Equal(t, header.Get("Message-ID"), over.Get("References"), "a mail program shows the two together")
	require.NotEqual(t, header.Get("Message-ID"), over.Get("Message-ID"))
}

func TestMailGoesOutOverTLSFromTheStart(t *testing.T) {
	s := startMailServer(t, "implicit")
	a := newMailer(t, s, nil, "oncall@example.com")
	e := a.channels[0].sender.(*email)
	d := opened("x")
	line := &connection{ctx: t.Context(), tls: e.tls, implicit: true} // the port decides that, and 465 cannot be had here
	defer line.close()
	client, err := e.client(line)
	require.NoError(t, err)
	m, err := e.message(&d.alert, "oncall@example.com")
	require.NoError(t, err)
	require.NoError(t, client.DialAndSendWithContext(t.Context(), m))
	got := s.await(t)
	require.True(t, got.TLS)
	require.True(t, got.Authenticated)
}

func TestMailIsNotSentWithoutTLS(t *testing.T) {
	s := startMailServer(t, "plain")
	a := newMailer(t, s, nil, "oncall@example.com")
	a.channels[0].offer(opened("x"))
	require.Eventually(t, func() bool { return a.Stats().Channels[0].Retried > 1 }, time.Minute, time.Millisecond)
	require.Contains(t, a.Stats().Channels[0].LastError, "STARTTLS")
	require.Empty(t, s.mails)
}

func TestMailIsNotSentToAServerThatIsNotTrusted(t *testing.T) {
	s := startMailServer(t, "starttls")
	s.trust = nil
	a := newMailer(t, s, nil, "oncall@example.com")
	a.channels[0].offer(opened("x"))
	require.Eventually(t, func() bool { return a.Stats().Channels[0].Retried > 1 }, time.Minute, time.Millisecond)
	require.Contains(t, a.Stats().Channels[0].LastError, "certificate")
	require.Empty(t, s.mails)
}

func TestAWrongPasswordIsNotTriedAgainAndNotShown(t *testing.T) {
	s := startMailServer(t, "starttls")
	a := newMailer(t, s, func(account *breaker.AlertSMTP) { account.Password = "hunter3-wrong" }, "oncall@example.com")
	a.channels[0].offer(opened("x"))
	require.Eventually(t, func() bool { return a.Stats().Channels[0].Failed == 1 }, time.Minute, time.Millisecond)
	stats := a.Stats().Channels[0]
	require.Zero(t, stats.Retried)
	require.Contains(t, stats.LastError, `535 "5.7.8 wrong password [redacted]"`)
}

func TestAnAddressThatDoesNotWorkKeepsAMailFromNobodyElse(t *testing.T) {
	s := startMailServer(t, "starttls")
	log, logs := testLog()
	a := newAlerter(t, []breaker.AlertChannel{{Type: "email", Recipients: []string{"nobody@example.com", "later@example.com", "oncall@example.com"}}},
		WithSMTP(s.account()), WithTLS(s.trust), WithLogger(log))
	a.channels[0].offer(opened("x"))
	require.Equal(t, []string{"oncall@example.com"}, s.await(t).To)
	require.Equal(t, []string{"later@example.com"}, s.await(t).To, "who was told to wait")
	require.Eventually(t, func() bool { return a.Stats().Channels[0].Sent == 1 }, time.Minute, time.Millisecond)
	require.Empty(t, s.mails, "nobody gets it twice")
	mustClose(t, a)
	require.Contains(t, fmt.Sprint(logs.All()), "nobody@example.com")
}

func TestAMailThatEverybodyRefusesIsGivenUp(t *testing.T) {
	s := startMailServer(t, "starttls")
	a := newMailer(t, s, nil, "nobody@example.com", "nobody-else@example.com")
	a.channels[0].offer(opened("x"))
	require.Eventually(t, func() bool { return a.Stats().Channels[0].Failed == 1 }, time.Minute, time.Millisecond)
	require.Contains(t, a.Stats().Channels[0].LastError, `550 "5.1.1 no such user here"`)
}

func TestAMailServerThatHangsIsGivenUpWithItsAttempt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close() // it takes connections, and that is all
	s := &mailServer{port: l.Addr().(*net.TCPAddr).Port}
	a := newMailer(t, s, nil, "oncall@example.com")
	a.channels[0].limit = 50 * time.Millisecond
	a.channels[0].offer(opened("x"))
	require.Eventually(t, func() bool { return a.Stats().Channels[0].Retried > 1 }, time.Minute, time.Millisecond)
	require.Contains(t, a.Stats().Channels[0].LastError, "did not take it within")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	begin := time.Now()
	require.Error(t, a.Close(ctx))
	require.Less(t, time.Since(begin), closeWithin/2, "its caller has a shorter limit")
}

func TestABreakersNameCannotAddAHeader(t *testing.T) {
	for _, name := range []string{"x\r\nBcc: everybody@example.com\r\n\r\nhello", "x\nX-Evil: 1", "x\rX-Evil: 1", "x\u2028X-Evil: 1", strings.Repeat("长", 500)} {
		a := sample(eventOpened)
		a.Breaker, a.Why = name, name
		e, err := newEmail([]string{"oncall@example.com"}, breaker.AlertSMTP{Host: "h", From: "a@example.com"}, nil)
		require.NoError(t, err)
		m, err := e.message(a, "oncall@example.com")
		require.NoError(t, err)
		var out bytes.Buffer
		_, err = m.WriteTo(&out)
		require.NoError(t, err)
		parsed, err := mail.ReadMessage(&out)
		require.NoError(t, err)
		require.Empty(t, parsed.Header.Get("Bcc"))
		require.Empty(t, parsed.Header.Get("X-Evil"))
		recipients, err := m.GetRecipients()
		require.NoError(t, err)
		require.Equal(t, []string{"<oncall@example.com>"}, recipients)
		require.LessOrEqual(t, units(subjectOf(t, parsed.Header)), 150)
	}
}

func TestAMailShowsMarkupAsText(t *testing.T) {
	text, html, err := mailBody(hostileAlert())
	require.NoError(t, err)
	require.NotContains(t, html, "<!channel>")
	require.NotContains(t, html, `href="https://evil`)
	require.Contains(t, html, "&lt;!channel&gt;")
	require.Contains(t, html, `<a href="https://ops.example.com/`)
	for line := range strings.Lines(text) {
		require.False(t, strings.HasPrefix(line, "*Severity*"), "a name cannot fake a line")
	}
	_, html, err = mailBody(sample(eventOpened))
	require.NoError(t, err)
	keep(t, "mail.html", html)
}
