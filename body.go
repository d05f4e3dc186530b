package breaker

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
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
	case b.scan.answered(), b.scan.complete() && b.call.ctx.Err() == context.Canceled: // there is nothing to miss; as good as a Close
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
	if verdict == nil && b.closedEarly() {
		verdict = errClosedEarly
	}
	b.mu.Unlock()
	b.call.permit.Done(verdict)
	err := b.ReadCloser.Close()
	b.call.clock.release()
	return err
}

var errClosedEarly = Ignore(errors.New("the caller closed the body before its end"))

// closedEarly reports whether a body that is closed now is closed in the midst of an answer. One that is no stream and of which
// nothing was read is not: to a caller who does so the headers were the answer.
func (b *answerBody) closedEarly() bool {
	switch s := b.scan; {
	case s.complete(), b.length >= 0 && int64(s.total) >= b.length:
		return false
	case s.format == opaque, s.format == document:
		return s.total > 0
	}
	return true
}

// sawContent tells the breaker that the upstream is alive. Only a probe cares for more than the first time.
func (c *exchange) sawContent() {
	c.clock.renew()
	if !c.progressed || c.permit.call.probe != nil {
		c.progressed = true
		c.permit.Progress()
	}
}
