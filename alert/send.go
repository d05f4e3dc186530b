package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// refusal is an answer that sending again would not change.
type refusal struct {
	text   string
	partly bool // some recipients have it, and nobody else will
}

func (r *refusal) Error() string { return r.text }

// later is a failure with a time to come back.
type later struct {
	text string
	wait time.Duration
}

func (l *later) Error() string { return l.text }

// asked returns how long a receiver asked to be left alone, zero if it did not.
func asked(err error) time.Duration {
	if l, ok := errors.AsType[*later](err); ok {
		return l.wait
	}
	return 0
}

const httpLimit = 10 * time.Second // for one attempt, the answer included

// newHTTPClient makes a client whose errors can be told. Redirects are not followed: they would hand the path of the old URL,
// which is a password, to the new one as Referer, and a POST may arrive as a GET.
func newHTTPClient(o *options) (client *http.Client, clean func()) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = o.tls.Clone()
	transport.DisableKeepAlives = true // messages are rare, and net/http's log shows what a server says on an idle connection
	client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return client, transport.CloseIdleConnections
}

// post sends JSON. The errors it returns hold no URL, but for what the server quotes, which is left to the scrubber.
func post(ctx context.Context, client *http.Client, target string, body []byte, header http.Header) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return &refusal{text: "the URL cannot be used"}
	}
	maps.Copy(r.Header, header)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "breaker-alert/1")
	answer, err := client.Do(r)
	if err != nil {
		if outer, ok := errors.AsType[*url.Error](err); ok {
			err = outer.Err // the outer one quotes the URL
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v", httpLimit)
		}
		return err
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
	return judge(answer, string(text))
}

// judge says what an answer means for the message.
func judge(answer *http.Response, body string) error {
	code := answer.StatusCode
	if code/100 == 2 {
		return nil
	}
	text := "the receiver answered " + strconv.Itoa(code)
	if name := http.StatusText(code); name != "" {
		text += " " + name
	}
	if said := strings.TrimSpace(body); said != "" { // not cut here: half a secret is not recognised
		text += ": " + said
	}
	switch {
	case code/100 == 3:
		return &refusal{text: text + "; redirects are not followed: configure the URL that it leads to"}
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		return &later{text: text, wait: retryAfter(answer.Header.Get("Retry-After"), time.Now())}
	}
	return &refusal{text: text}
}

// retryAfter reads seconds or a date; zero for anything else.
func retryAfter(value string, now time.Time) time.Duration {
	if s, err := strconv.ParseFloat(value, 64); err == nil && s > 0 {
		return time.Duration(min(s, math.MaxInt32) * float64(time.Second))
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// encode writes JSON in which nothing but JSON's own characters are escaped.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, &refusal{text: "the message cannot be written as JSON: " + err.Error()}
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

// maxErrorText is how much of an error is shown.
const maxErrorText = 400

// scrubber returns a function that makes an error's text fit to be shown: one line, not long, and without the secrets, whichever
// way a receiver or a library may quote them.
func scrubber(secrets ...string) func(string) string {
	var forms []string
	for _, s := range secrets {
		inJSON, _ := json.Marshal(s)
		forms = append(forms, s, strings.Trim(string(inJSON), `"`), strings.Trim(strconv.Quote(s), `"`), html.EscapeString(s), url.QueryEscape(s), url.PathEscape(s))
	}
	forms = slices.DeleteFunc(forms, func(s string) bool { return len(s) < 2 }) // "/" is the path of many a URL
	slices.SortStableFunc(forms, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, form := range forms { // the longest first: a Replacer tries its pairs in order
		pairs = append(pairs, form, "[redacted]")
	}
	replace := strings.NewReplacer(pairs...)
	return func(text string) string { return cut(plain(replace.Replace(text)), maxErrorText) }
}

// urlSecrets are the parts of a URL that may be one: all but scheme and host.
func urlSecrets(text string) []string {
	u, err := url.Parse(text)
	if err != nil {
		return []string{text}
	}
	password, _ := u.User.Password()
	return []string{text, u.RequestURI(), u.EscapedPath(), u.Path, u.RawQuery, password}
}
