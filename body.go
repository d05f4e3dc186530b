package breaker

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// answerBody is a body on its way to the caller. It may be closed while it is being read, and more than once.
type answerBody struct {
	io.ReadCloser
	call        *exchange
	length      int64 // as announced, or below zero
	wantsAnswer bool  // an empty stream is none

	head     []byte // read already
	headFail error  // what came with it

	mu   sync.Mutex // guards the fields below; never held while reading
	scan *scanner
}

func newAnswerBody(c *exchange, resp *http.Response, head []byte, failure error) *answerBody {
	format := opaque
	if head == nil && failure == nil && resp.StatusCode < 300 {
		format = formatOf(resp)
	}
	return &answerBody{
		ReadCloser: resp.Body, call: c, length: resp.ContentLength,
		wantsAnswer: wantsAnswer(resp),
		head:        head, headFail: failure, scan: newScanner(format),
	}
}

// Read reads on, and settles the call at the end.
func (b *answerBody) Read(p []byte) (n int, err error) {
	if len(b.head) > 0 {
		n = copy(p, b.head)
		b.head = b.head[n:]
		return n, nil
	}
	if b.headFail != nil {
		return 0, b.ended(b.headFail)
	}
	if len(p) == 0 {
		return b.ReadCloser.Read(p)
	}
	b.call.clock.start()
	n, err = b.ReadCloser.Read(p)
	b.call.clock.stop()
	b.took(p[:n])
	if err != nil {
		err = b.ended(err)
	}
	return n, err
}

// took looks at what has come.
func (b *answerBody) took(p []byte) {
	b.mu.Lock()
	b.scan.feed(p)
	content := b.scan.tookContent()
	fault := b.scan.fault
	b.mu.Unlock()
	if content {
		b.call.sawContent()
	}
	if fault != nil {
		b.call.permit.Done(fault)
	}
}

// ended settles the call by the error that its body ended with, and returns it, or what is to blame for it.
func (b *answerBody) ended(err error) error {
	b.mu.Lock()
	verdict := b.call.clock.blame(err)
	switch {
	case err == io.EOF:
		verdict = b.scan.end(b.wantsAnswer)
	case b.scan.complete() && b.call.ctx.Err() == context.Canceled: // as good as a Close
		verdict = b.scan.err()
	}
	b.mu.Unlock()
	b.call.permit.Done(verdict)
	b.call.clock.release()
	if err != io.EOF {
		err = b.call.clock.blame(err)
	}
	return err
}

// Close settles the call, if its end has not, by what has been read.
func (b *answerBody) Close() error {
	b.mu.Lock()
	verdict := b.scan.err()
	if verdict == nil && !b.scan.complete() && (b.length < 0 || int64(b.scan.total) < b.length) {
		verdict = errClosedEarly
	}
	b.mu.Unlock()
	b.call.permit.Done(verdict)
	err := b.ReadCloser.Close()
	b.call.clock.release()
	return err
}

var errClosedEarly = Ignore(fmt.Errorf("the caller closed the body before its end"))

// sawContent tells the breaker that the upstream is alive. Only a probe cares for more than the first time.
func (c *exchange) sawContent() {
	first := c.clock.renew()
	if !c.progressed || c.permit.call.probe != nil {
		c.progressed = true
		c.permit.Progress()
	}
	_ = first
}

// stallClock cancels a call that does not get on. It runs only while somebody waits: for headers, or in Read. A nil one does
// nothing.
type stallClock struct {
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	name    string
	between time.Duration // zero for no limit

	limit  time.Duration // in force; zero for none
	left   time.Duration // of it
	since  time.Time     // running
	passed atomic.Pointer[limitError]
}

func newStallClock(ctx context.Context, name string, first, between time.Duration) (context.Context, *stallClock) {
	s := &stallClock{name: name, between: max(0, between), limit: max(0, first), left: first}
	ctx, s.cancel = context.WithCancelCause(ctx)
	return ctx, s
}

func (s *stallClock) start() {
	if s == nil || s.limit <= 0 {
		return
	}
	s.since = time.Now()
	if s.timer == nil {
		s.timer = time.AfterFunc(s.left, s.pass)
		return
	}
	s.timer.Reset(s.left)
}

func (s *stallClock) stop() {
	if s == nil || s.limit <= 0 {
		return
	}
	s.timer.Stop()
	s.left = max(0, s.left-time.Since(s.since))
}

// pass ends the call: its limit has passed. It runs on the timer's goroutine.
func (s *stallClock) pass() {
	e := &limitError{s.name, s.limit}
	s.passed.Store(e)
	s.cancel(e)
}

// renew gives the upstream another while, after content has come.
func (s *stallClock) renew() (first bool) {
	if s == nil {
		return false
	}
	s.limit, s.left = s.between, s.between
	return false
}

// blame returns err, or the limit that brought it about.
func (s *stallClock) blame(err error) error {
	if s != nil && err != nil {
		if e := s.passed.Load(); e != nil {
			return e
		}
	}
	return err
}

// release frees what the clock holds, once the call is over.
func (s *stallClock) release() {
	if s != nil {
		s.cancel(nil)
	}
}

// limitError is a call that did not get on.
type limitError struct {
	name  string
	limit time.Duration
}

// Error says which limit passed.
func (e *limitError) Error() string {
	return fmt.Sprintf("breaker: %q sent no content for %v", e.name, e.limit)
}

// Timeout makes it a [net.Error] that is a timeout.
func (e *limitError) Timeout() bool { return true }

// Temporary completes [net.Error].
func (e *limitError) Temporary() bool { return true }

// Is reports whether target is [os.ErrDeadlineExceeded].
func (e *limitError) Is(target error) bool { return target == os.ErrDeadlineExceeded }
