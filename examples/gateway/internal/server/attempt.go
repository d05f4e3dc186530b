package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/gateway/internal/wire"
)

// attempt asks a target once. Without a failure the caller has an answer.
func (c *call) attempt(t *target, path string, body []byte) *wire.Failure {
	streamed := c.request.Stream && !c.embeddings
	ctx, cancel := c.limited(streamed)
	defer cancel()
	via := t.whole
	if streamed {
		via = t.stream
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.baseURL+path, bytes.NewReader(body))
	if err != nil {
		return &wire.Failure{Kind: wire.Overloaded, Message: "the request cannot be made", Cause: err}
	}
	r.Header = t.header // which nobody changes
	resp, err := via.RoundTrip(r)
	if errors.Is(err, breaker.ErrOpen) {
		return c.refused(err)
	}
	if c.attempts++; err != nil {
		return c.broken(err, "no answer")
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 300:
		return c.declined(resp)
	case streamed:
		return c.relay(t, resp)
	}
	return c.pass(t, resp)
}

// limited returns the context of an attempt. That of a streamed answer has its limits in the transport, and only its end here.
func (c *call) limited(streamed bool) (context.Context, context.CancelFunc) {
	if streamed {
		return context.WithCancel(c.ctx)
	}
	return context.WithTimeout(c.ctx, c.cfg.Limits.Answer)
}

// broken says what an error in place of an answer, or within one, means.
func (c *call) broken(err error, what string) *wire.Failure {
	var late interface{ Timeout() bool }
	switch {
	case c.caller.Err() != nil:
		return &wire.Failure{Kind: wire.Unreachable, Message: "the caller has gone", Cause: err}
	case c.ctx.Err() != nil:
		return &wire.Failure{Kind: wire.Unreachable, Message: fmt.Sprintf("no answer within %v", c.cfg.Limits.Request), Code: "timeout", Cause: err}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &late) && late.Timeout():
		return &wire.Failure{Kind: wire.TooSlow, Message: "the provider was silent for too long", Code: "timeout", Cause: err}
	case what == "no answer":
		return &wire.Failure{Kind: wire.Overloaded, Message: "the provider cannot be reached", Code: "unreachable", Cause: err}
	}
	return &wire.Failure{Kind: wire.Cut, Message: what, Code: "answer_cut", Cause: err}
}

const maxErrorBody = 64 << 10

// declined reads a provider's error. A provider that repeats its key in it does not get it through.
func (c *call) declined(resp *http.Response) *wire.Failure {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what there is of it says more than nothing
	return c.cleaned(wire.Judge(resp.StatusCode, resp.Header, body))
}

// cleaned returns f without the providers' keys.
func (s *setup) cleaned(f *wire.Failure) *wire.Failure {
	for _, text := range []*string{&f.Message, &f.Type, &f.Code} {
		*text = string(s.redact([]byte(*text)))
	}
	return f
}

func (s *setup) redact(body []byte) []byte {
	for _, secret := range s.secrets {
		body = bytes.ReplaceAll(body, []byte(secret), []byte("[redacted]"))
	}
	return body
}

// maxAnswer is the size of the largest answer in one piece: a full batch of embeddings has some tens of megabytes.
const maxAnswer = 256 << 20

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func giveBack(b *bytes.Buffer) {
	if b.Cap() <= 1<<20 {
		b.Reset()
		buffers.Put(b)
	}
}

// pass reads an answer in one piece, the whole of it before the caller gets a byte: half of one would be no answer.
func (c *call) pass(t *target, resp *http.Response) *wire.Failure {
	buffer, _ := buffers.Get().(*bytes.Buffer)
	defer giveBack(buffer)
	n, err := buffer.ReadFrom(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return c.broken(err, "the answer was cut")
	}
	if n > maxAnswer {
		return &wire.Failure{Kind: wire.TooSlow, Message: fmt.Sprintf("the answer has more than %d bytes", maxAnswer), Code: "answer_too_large"}
	}
	read := t.dialect.Answer
	if c.embeddings {
		read = t.dialect.EmbeddingsAnswer
	}
	answer, failure := read(buffer.Bytes())
	if failure != nil {
		return c.cleaned(failure)
	}
	c.deadline()
	c.announce(t, resp, "application/json")
	c.w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(answer) // the caller is gone if this fails
	return nil
}
