package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// request is what a server on loopback has received.
type request struct {
	path   string
	header http.Header
	body   []byte
	at     time.Time
}

// web is an HTTP server on loopback that keeps what it gets and answers as it is told.
type web struct {
	*httptest.Server
	mu   sync.Mutex
	got  []request
	gone chan struct{} // closed at the end, for handlers that hang
}

func newWeb(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *web {
	t.Helper()
	s := &web{gone: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		n := len(s.got)
		s.got = append(s.got, request{r.URL.Path, r.Header, body, time.Now()})
		s.mu.Unlock()
		if answer != nil {
			answer(n, w, r)
		}
	}))
	t.Cleanup(func() { close(s.gone); s.Close() })
	return s
}

func (s *web) requests() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.got...)
}

// await waits until the server has got n requests.
func (s *web) await(t *testing.T, n int) []request {
	t.Helper()
	require.Eventually(t, func() bool { return len(s.requests()) >= n }, time.Minute, 2*time.Millisecond, "%d requests", n)
	return s.requests()
}

// impatient makes New's channels try again soon, so that tests in real time are short.
func impatient(o *options) {
	o.timing.first, o.timing.most, o.quiet = 5*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
}

// newAlerter is New for a test, which closes it.
func newAlerter(t *testing.T, channels []breaker.AlertChannel, opts ...Option) *Alerter {
	t.Helper()
	a, err := New(breaker.Alerts{Channels: channels}, append([]Option{impatient, WithService("shop")}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		_ = a.Close(ctx)
	})
	return a
}

func webhookTo(url string) breaker.AlertChannel {
	return breaker.AlertChannel{Type: "webhook", URL: breaker.Secret(url)}
}

func TestOverHTTPFailuresAreRetriedAndRefusalsAreNot(t *testing.T) {
	for code, again := range map[int]bool{
		408: true, 429: true, 500: true, 502: true, 503: true, 504: true, 529: true,
		400: false, 401: false, 403: false, 404: false, 410: false, 413: false, 301: false, 302: false, 307: false, 308: false, 304: false,
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			s := newWeb(t, func(n int, w http.ResponseWriter, _ *http.Request) {
				if n < 2 {
					w.Header().Set("Location", "/elsewhere")
					w.WriteHeader(code)
					fmt.Fprint(w, "no such hook")
				}
			})
			a := newAlerter(t, []breaker.AlertChannel{webhookTo(s.URL)})
			a.channels[0].offer(opened("x"))
			if again {
				all := s.await(t, 3)
				require.Equal(t, all[0].body, all[2].body)
				require.Eventually(t, func() bool { return a.Stats().Channels[0].Sent == 1 }, time.Minute, time.Millisecond)
				require.EqualValues(t, 2, a.Stats().Channels[0].Retried)
				return
			}
			require.Eventually(t, func() bool { return a.Stats().Channels[0].Failed == 1 }, time.Minute, time.Millisecond)
			require.Contains(t, a.Stats().Channels[0].LastError, fmt.Sprintf("the receiver answered %d", code))
			if code != 304 {
				require.Contains(t, a.Stats().Channels[0].LastError, "no such hook")
			}
			require.Len(t, s.requests(), 1)
		})
	}
}

func TestEverySuccessfulStatusWillDo(t *testing.T) {
	for _, code := range []int{200, 201, 202, 204} {
		s := newWeb(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
		a := newAlerter(t, []breaker.AlertChannel{webhookTo(s.URL)})
		a.channels[0].offer(opened("x"))
		mustClose(t, a)
		require.EqualValues(t, 1, a.Stats().Channels[0].Sent)
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	s := newWeb(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 0 {
			w.Header().Set("Retry-After", "0.3")
			w.WriteHeader(429)
		}
	})
	a := newAlerter(t, []breaker.AlertChannel{webhookTo(s.URL)})
	a.channels[0].offer(opened("x"))
	all := s.await(t, 2)
	require.GreaterOrEqual(t, all[1].at.Sub(all[0].at), 300*time.Millisecond)
}

func TestRetryAfterIsReadInItsForms(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "0.5": 500 * time.Millisecond, "0": 0, "-3": 0, "soon": 0, "NaN": 0, "Inf": (1<<31 - 1) * time.Second, "1e300": (1<<31 - 1) * time.Second,
		"Sun, 22 Nov 2026 03:00:30 GMT": 30 * time.Second, "Sun, 22 Nov 2026 02:00:00 GMT": 0,
	} {
		require.Equal(t, want, retryAfter(value, now), value)
	}
}

func TestAServerThatHangsIsGivenUpAndAskedAgain(t *testing.T) {
	var s *web
	ready := make(chan struct{})
	s = newWeb(t, func(n int, _ http.ResponseWriter, r *http.Request) {
		<-ready
		if n == 0 {
			select {
			case <-r.Context().Done():
			case <-s.gone:
			}
		}
	})
	close(ready)
	a := newAlerter(t, []breaker.AlertChannel{webhookTo(s.URL)})
	a.channels[0].limit = time.Second // nothing is queued yet, so the worker has not looked at it
	a.channels[0].offer(opened("x"))
	s.await(t, 2)
	require.Eventually(t, func() bool { return a.Stats().Channels[0].Sent == 1 }, time.Minute, time.Millisecond)
}

// A server that takes the connection and never speaks; one that is not there; one that hangs up; one that speaks no HTTP.
func TestServersThatDoNotSpeakAreToldApart(t *testing.T) {
	listen := func(serve func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		var open []net.Conn
		var done sync.WaitGroup
		done.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				open = append(open, c)
				serve(c)
			}
		})
		t.Cleanup(func() {
			l.Close()
			done.Wait()
			for _, c := range open {
				c.Close()
			}
		})
		return "http://" + l.Addr().String() + "/hunter2-path"
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	silent := listen(func(net.Conn) {})
	for what, target := range map[string]string{
		"no answer within": silent,
		"refused":          gone.URL + "/hunter2-path",
		"EOF|reset|closed": listen(func(c net.Conn) { c.Close() }),
		"malformed HTTP": listen(func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1))
			fmt.Fprint(c, "POST /hunter2-path is what I got\r\n\r\n")
		}),
		"http: server gave HTTP response to HTTPS c": strings.Replace(newWeb(t, nil).URL, "http:", "https:", 1) + "/hunter2-path",
	} {
		t.Run(what, func(t *testing.T) {
			a := newAlerter(t, []breaker.AlertChannel{webhookTo(target)})
			a.channels[0].limit = time.Minute
			if target == silent {
				a.channels[0].limit = 100 * time.Millisecond
			}
			a.channels[0].offer(opened("x"))
			require.Eventually(t, func() bool { return a.Stats().Channels[0].LastError != "" }, time.Minute, time.Millisecond)
			require.Regexp(t, what, a.Stats().Channels[0].LastError)
			require.NotContains(t, a.Stats().Channels[0].LastError, "hunter2")
		})
	}
}

func TestACallIsNotHeldUpByServersThatHang(t *testing.T) {
	var s *web
	ready := make(chan struct{})
	s = newWeb(t, func(int, http.ResponseWriter, *http.Request) { <-ready; <-s.gone })
	close(ready)
	a := newAlerter(t, []breaker.AlertChannel{webhookTo(s.URL)})
	r := stayingOpen(t, numbered(1000)...)
	a.Watch(r)
	a.channels[0].limit = time.Hour
	called := make(chan struct{})
	go func() {
		defer close(called)
		for _, b := range r.All() {
			fail(b)
		}
	}()
	select {
	case <-called:
	case <-time.After(time.Minute):
		t.Fatal("a call waits for the server, which hangs for an hour")
	}
	s.await(t, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, a.Close(ctx), "alert: closed with 1000 unsent to webhook")
}

func TestTheURLIsInNoError(t *testing.T) {
	client, clean := newHTTPClient(&options{})
	defer clean()
	err := post(t.Context(), client, "http://127.0.0.1:1/hunter2", nil, nil)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hunter2")
	require.NotContains(t, fmt.Sprintf("%+v %#v", err, err), "hunter2")
	require.EqualError(t, post(t.Context(), client, "http://%zz/hunter2", nil, nil), "the URL cannot be used")
	_, err = encode(func() {})
	require.True(t, isRefusal(err))
}

func isRefusal(err error) bool { _, ok := errors.AsType[*refusal](err); return ok }

// From a breaker to a receiver and back, through everything.
func TestAWebhookGetsTheWholeStory(t *testing.T) {
	s := newWeb(t, nil)
	a := newAlerter(t, []breaker.AlertChannel{webhookTo(s.URL + "/hook")}, WithPage("https://ops.example.com/"))
	r := stayingOpen(t, "llm")
	a.Watch(r)
	fail(r.Breaker("llm"))
	s.await(t, 1)
	r.Breaker("llm").Reset("")
	all := s.await(t, 2)

	require.Equal(t, "/hook", all[0].path)
	require.Equal(t, "application/json", all[0].header.Get("Content-Type"))
	require.Empty(t, all[0].header.Get(SignatureHeader), "no secret, no signature")
	var first, second Alert
	require.NoError(t, json.Unmarshal(all[0].body, &first))
	require.NoError(t, json.Unmarshal(all[1].body, &second))
	require.Equal(t, "opened", first.Event)
	require.Equal(t, "recovered", second.Event)
	require.Equal(t, breaker.RiskHigh, second.Severity)
	require.Equal(t, "breaker/shop/llm", first.DedupKey)
	require.Equal(t, first.DedupKey, second.DedupKey)
	require.Equal(t, "https://ops.example.com/", first.Link)
	require.Equal(t, "connection refused", first.Trip.Errors[0].Text)
	require.Equal(t, breaker.StateOpen, first.Status.State)
	require.Equal(t, breaker.StateClosed, second.Status.State)

	var raw map[string]any
	require.NoError(t, json.Unmarshal(all[0].body, &raw))
	for _, key := range []string{"version", "id", "event", "dedup_key", "severity", "service", "instance", "breaker", "since", "openings", "refused", "why", "trip", "next_probe", "link", "risk", "status"} {
		require.Contains(t, raw, key)
	}
	require.NotContains(t, raw, "recovered_at")
}
