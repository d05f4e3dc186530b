package breaker

import (
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// Transport is an [http.RoundTripper] with a breaker before each upstream. Give it to the http.Client of any SDK:
//
//	client := openai.NewClient(option.WithHTTPClient(&http.Client{Transport: breaker.NewTransport(reg, nil)}))
//
// A call lasts until its body has ended, been closed, or told of an error. How it ended:
//
//	no answer                        failure; ignored when the caller cancelled
//	an error, by status or body      by its kind: see UpstreamError
//	body read to its end             success; failure when a language model's answer is not complete
//	body broken off, or a limit      failure
//	body closed by the caller        success when the answer was complete, or nothing of it was read and it is no stream;
//	                                 else ignored
//	no body, 3xx, 101                success, at the headers
//
// Bodies are handed on as they come: nothing is held back, added or changed. It starts no goroutine. Where callers choose keys
// or models, name a breaker for each ([NameUpstream]): one wrong key opens the breaker it was used through.
type Transport struct {
	registry *Registry
	next     http.RoundTripper
	transportOptions
}

type transportOptions struct {
	name               func(*http.Request) string
	answersRefusals    bool
	firstContent, rest time.Duration
}

// TransportOption is a setting of a [Transport].
type TransportOption func(*transportOptions)

// NameUpstream has f name the breaker of a request, such as by its model or tenant, instead of by scheme and host as in
// "https://api.openai.com", which is also what an empty name means. f must be safe for concurrent use and leave the request
// and its body alone.
func NameUpstream(f func(*http.Request) string) TransportOption {
	return func(o *transportOptions) { o.name = f }
}

// RefuseWithResponse has refusals be answers instead of errors: 503 with Retry-After and "x-should-retry: false", since the
// SDKs of OpenAI and Anthropic repeat a call that ended with an error of the transport, but not this. [IsOpen] knows it again.
func RefuseWithResponse() TransportOption {
	return func(o *transportOptions) { o.answersRefusals = true }
}

// FirstContentLimit fails a call whose answer has not begun after d: its first byte or, in an event stream, its first event
// that is more than a ping. Zero or less, the default, means no limit. Once headers have come only the time counts that the
// caller waits in Read. The error is a timeout: errors.Is [os.ErrDeadlineExceeded].
func FirstContentLimit(d time.Duration) TransportOption {
	return func(o *transportOptions) { o.firstContent = d }
}

// StallLimit fails a call whose answer has begun and then has no more content for d; comments and pings are none. Zero or less,
// the default, means no limit. Only the time counts that the caller waits in Read. The error is that of [FirstContentLimit].
func StallLimit(d time.Duration) TransportOption {
	return func(o *transportOptions) { o.rest = d }
}

// NewTransport returns a transport that asks the breakers of reg and sends what they admit through next, which is
// [http.DefaultTransport] if nil. With a nil reg each request is an error.
func NewTransport(reg *Registry, next http.RoundTripper, opts ...TransportOption) *Transport {
	t := &Transport{registry: reg, next: next}
	if next == nil {
		t.next = http.DefaultTransport
	}
	for _, set := range opts {
		if set != nil {
			set(&t.transportOptions)
		}
	}
	answersExist.Store(true)
	return t
}

var (
	errNoRegistry = errors.New("breaker: this Transport has no Registry: give NewTransport one")
	errNoURL      = errors.New("breaker: the request has no URL")
	errNoAnswer   = errors.New("the RoundTripper returned neither an answer nor an error")
)

// RoundTrip sends req unless the breaker of its upstream refuses. A refusal is an *[OpenError], or the answer that
// [RefuseWithResponse] tells of; req is not sent then, and its body is closed. Of an answer of status 400 or more it waits for
// up to 4 KiB of the body, which says what the status means.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.cannot(req); err != nil {
		closeRequest(req)
		return nil, err
	}
	b := t.registry.Breaker(t.upstream(req))
	c := &exchange{ctx: req.Context(), breaker: b}
	inner, err := b.begin(c.ctx, &c.permit)
	if err != nil {
		closeRequest(req)
		if refusal, ok := err.(*OpenError); ok && t.answersRefusals {
			return refusal.answer(req), nil
		}
		return nil, err
	}
	return c.send(t, inner, req)
}

func (t *Transport) cannot(req *http.Request) error {
	switch {
	case t.registry == nil:
		return errNoRegistry
	case req.URL == nil:
		return errNoURL
	}
	return nil
}

// CloseIdleConnections does so for the RoundTripper below, if that can. http.Client asks for it.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func closeRequest(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

func (t *Transport) upstream(req *http.Request) string {
	if t.name != nil {
		if name := t.name(req); name != "" {
			return name
		}
	}
	scheme, host := req.URL.Scheme, strings.ToLower(req.URL.Host)
	if h, port, err := net.SplitHostPort(host); err == nil && (scheme == "https" && port == "443" || scheme == "http" && port == "80") {
		host = h
		if strings.Contains(h, ":") {
			host = "[" + h + "]"
		}
	}
	return scheme + "://" + host
}

// exchange is one admitted request and its answer.
type exchange struct {
	ctx     context.Context // the caller's
	breaker *Breaker
	permit  Permit
	clock   *stallClock // nil without limits

	progressed bool // the breaker knows that there is content
}

// send makes the call. A panic of the RoundTripper below counts as a failure and goes on.
func (c *exchange) send(t *Transport, ctx context.Context, req *http.Request) (resp *http.Response, err error) {
	returned := false
	defer func() {
		if !returned {
			c.fail(errDidNotReturn)
		}
	}()
	if t.firstContent > 0 || t.rest > 0 {
		ctx, c.clock = newStallClock(ctx, c.breaker.Name(), t.firstContent, t.rest)
	}
	out := req
	if ctx != c.ctx {
		out = req.WithContext(ctx)
	}
	upload := watch(out)
	c.clock.start()
	resp, err = t.next.RoundTrip(upload.request)
	c.clock.stop()
	returned = true
	if resp == nil || err != nil {
		err = c.clock.blame(err)
		c.fail(upload.blame(err))
		return resp, err
	}
	if resp.Request == upload.request {
		resp.Request = req
	}
	c.answered(resp)
	return resp, nil
}

// fail settles a call that brought no answer.
func (c *exchange) fail(err error) {
	if err == nil {
		err = errNoAnswer
	}
	c.clock.release()
	c.permit.Done(err)
}

// answered takes the headers of an answer. What can be settled by then is.
func (c *exchange) answered(resp *http.Response) {
	switch {
	case resp.StatusCode == http.StatusSwitchingProtocols: // from here on it is the caller's connection
		c.permit.Done(nil)
	case resp.StatusCode >= 400:
		c.refusedBy(resp)
	case resp.Body == nil || resp.Body == http.NoBody:
		c.permit.Done(newScanner(formatOf(resp)).end(wantsAnswer(resp)))
		c.clock.release()
	default:
		if resp.StatusCode >= 300 { // nobody reads what a redirection says
			c.permit.Done(nil)
		}
		resp.Body = newAnswerBody(c, resp, nil, nil)
	}
}

// wantsAnswer reports whether an empty event stream is a failure: whoever posted something asked for an answer.
func wantsAnswer(resp *http.Response) bool {
	return resp.Request != nil && resp.Request.Method == http.MethodPost && resp.StatusCode == http.StatusOK
}

// refusedBy takes an answer of status 400 or more: it is judged by the beginning of its body.
func (c *exchange) refusedBy(resp *http.Response) {
	var head []byte
	var failure error
	if resp.Body != nil && resp.Body != http.NoBody && readable(resp) {
		c.clock.start()
		head, failure = beginning4K(resp)
		c.clock.stop()
	}
	e := Diagnose(resp.StatusCode, resp.Header, head)
	if c.breaker.Config().MaxRetryAfter == Off {
		e.RetryAfter = 0
	}
	carry(resp, e)
	c.permit.Done(e)
	if resp.Body != nil && resp.Body != http.NoBody {
		resp.Body = newAnswerBody(c, resp, head, failure)
	} else {
		c.clock.release()
	}
}

const maxErrorBody = 4 << 10 // bytes of an error's body that are read to judge it

// beginning4K reads what is needed to judge an error: as long as there is more, up to 4 KiB or the end of a JSON value. The
// error is that of the body, which the caller is to get after these bytes.
func beginning4K(resp *http.Response) (head []byte, err error) {
	head = make([]byte, 0, maxErrorBody)
	var depth jsonDepth
	for len(head) < cap(head) && err == nil && !depth.ended && int64(len(head)) != resp.ContentLength {
		var n int
		n, err = resp.Body.Read(head[len(head):cap(head)])
		depth.feed(head[len(head) : len(head)+n])
		head = head[:len(head)+n]
	}
	return head, err
}

// readable reports whether a body can be read as it comes, and comes to an end.
func readable(resp *http.Response) bool {
	switch kind := mediaType(resp); {
	case encoded(resp), kind == "text/event-stream":
		return false
	case kind == "", strings.HasPrefix(kind, "text/"), strings.Contains(kind, "json"):
		return true
	}
	return false
}

func mediaType(resp *http.Response) string {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		kind, _, _ = strings.Cut(resp.Header.Get("Content-Type"), ";")
	}
	return strings.ToLower(strings.TrimSpace(kind))
}

// encoded reports whether a body is compressed or the like. What net/http unpacks by itself is not, any more.
func encoded(resp *http.Response) bool {
	e := resp.Header.Get("Content-Encoding")
	return e != "" && !strings.EqualFold(e, "identity")
}

func formatOf(resp *http.Response) bodyFormat {
	kind := mediaType(resp)
	switch {
	case encoded(resp):
		return opaque
	case kind == "text/event-stream":
		return events
	case kind == "application/x-ndjson", kind == "application/ndjson", kind == "application/jsonl", kind == "application/x-jsonlines":
		return values
	case kind == "application/json", strings.HasSuffix(kind, "+json"):
		return document
	}
	return opaque
}

// upload is a request on its way out, with its body watched.
type upload struct {
	request *http.Request
	body    *watchedBody // nil if there is none
}

// watch has the reads of a request's body looked at: that it cannot be read is no fault of the upstream's.
func watch(req *http.Request) upload {
	if req.Body == nil || req.Body == http.NoBody {
		return upload{request: req}
	}
	u := upload{body: &watchedBody{ReadCloser: req.Body}}
	u.request = req.WithContext(req.Context())
	u.request.Body = u.body
	return u
}

// blame marks err as the caller's own if his body is what failed.
func (u *upload) blame(err error) error {
	if u.body != nil && u.body.failed.Load() {
		return Ignore(err)
	}
	return err
}

type watchedBody struct {
	io.ReadCloser
	failed atomic.Bool
}

func (w *watchedBody) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		w.failed.Store(true)
	}
	return n, err
}
