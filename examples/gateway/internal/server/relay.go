package server

import (
	"errors"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/failfast-go/breaker/examples/gateway/internal/wire"
)

// afterFinish is for how long the rest of a finished answer is waited for: usage that nobody asked for, [DONE], the end of the
// body. An answer that is finished ends whether they come or not.
const afterFinish = 250 * time.Millisecond

// afterFinishForUsage is the same where the caller asked for the usage, which providers send right behind the finish.
const afterFinishForUsage = 2 * time.Second

// relay passes a streamed answer on, event by event. Until something is said in it the caller has got nothing, and another target
// may be asked; after that the answer is this one, and if it breaks, it ends broken.
func (c *call) relay(t *target, resp *http.Response) *wire.Failure {
	s := &relay{call: c, target: t, resp: resp, stream: t.dialect.Stream(c.request)}
	s.events = wire.NewEvents(&source{resp.Body, s}, t.dialect.Lines())
	defer s.close()
	failure := s.run()
	switch {
	case failure == nil || s.lost:
		return nil
	case s.begun:
		s.breakOff(failure)
	}
	return failure
}

// maxHeld is how much is sent together, when it comes together.
const maxHeld = 16 << 10

type relay struct {
	call   *call
	target *target
	resp   *http.Response
	events *wire.Events
	stream wire.Stream

	out      []byte // not yet sent
	begun    bool   // the caller has got something
	finished bool
	lost     bool        // the caller does not take it any more
	until    time.Time   // the caller has for what is written
	grace    *time.Timer // ends the wait for what may follow the finish; nil before
}

func (s *relay) close() {
	s.events.Close()
	if s.grace != nil {
		s.grace.Stop()
	}
}

// source sends what is written before it waits for more.
type source struct {
	body  io.Reader
	relay *relay
}

func (s *source) Read(p []byte) (int, error) {
	s.relay.send()
	return s.body.Read(p)
}

func (s *relay) run() *wire.Failure {
	for !s.lost {
		data, err := s.events.Next()
		if err != nil {
			return s.ended(err)
		}
		if len(data) == 0 {
			s.keepAlive()
			continue
		}
		var step wire.Step
		var failure *wire.Failure
		if s.out, step, failure = s.stream.Event(s.out, data); failure != nil && !s.finished {
			return s.call.cleaned(failure)
		}
		s.take(step)
		if step == wire.Done {
			s.drain()
			return nil
		}
		if s.babbles() {
			return &wire.Failure{Kind: wire.Garbled, Message: "a mebibyte of events without content", Code: "invalid_answer"}
		}
	}
	return nil
}

// take does what follows from an event.
func (s *relay) take(step wire.Step) {
	switch step {
	case wire.Finish:
		s.finish()
	case wire.Done:
		s.out = s.stream.End(s.out)
	}
	if step == wire.Content || step == wire.Finish || step == wire.Done {
		s.begin()
	}
	if len(s.out) > maxHeld {
		s.send()
	}
}

// babbles reports whether there has been much, and nothing in it.
func (s *relay) babbles() bool { return !s.begun && len(s.out) > 1<<20 }

// finish waits no longer than afterFinish for what is left, and a little longer for usage that was asked for.
func (s *relay) finish() {
	if s.finished {
		return
	}
	s.finished = true
	wait := afterFinish
	if s.call.request.IncludeUsage {
		wait = min(afterFinishForUsage, max(wait, s.call.cfg.Limits.BetweenContents))
	}
	s.grace = time.AfterFunc(wait, func() { s.resp.Body.Close() })
}

// drain reads to the end of the body, so that the connection can be used again.
func (s *relay) drain() {
	s.send()
	if s.grace != nil {
		s.grace.Stop()
	}
	s.grace = time.AfterFunc(afterFinish, func() { s.resp.Body.Close() })
	_, _ = io.CopyN(io.Discard, s.resp.Body, 4<<10)
}

// ended says what the end of the stream means.
func (s *relay) ended(err error) *wire.Failure {
	switch {
	case s.finished && s.call.caller.Err() == nil:
		s.out = s.stream.End(s.out)
		s.send()
		return nil
	case errors.Is(err, io.EOF):
		return &wire.Failure{Kind: wire.Cut, Message: "the answer ended without an end", Code: "answer_cut"}
	}
	return s.call.broken(err, "the answer was cut")
}

// keepAlive passes a comment on, once there is an answer to keep alive.
func (s *relay) keepAlive() {
	if s.begun {
		s.out = append(s.out, ": keep-alive\n\n"...)
	}
}

// send gives the caller what has come, if it is an answer yet. It is called when nothing more is here to be read.
func (s *relay) send() {
	if !s.begun || len(s.out) == 0 || s.lost {
		return
	}
	s.hurry()
	_, err := s.call.w.Write(s.out)
	if err == nil {
		err = http.NewResponseController(s.call.w).Flush()
	}
	s.lost = err != nil
	s.out = s.out[:0]
}

// begin makes the answer this target's.
func (s *relay) begin() {
	if s.begun {
		return
	}
	s.begun = true
	s.call.announce(s.target, s.resp, "text/event-stream")
	s.call.w.Header().Set("Cache-Control", "no-cache")
	s.call.w.WriteHeader(http.StatusOK)
}

// hurry gives the caller time to take what is sent, anew every now and then: a call to the system for each event would be dear.
func (s *relay) hurry() {
	if limit := s.call.cfg.Limits.Caller; time.Until(s.until) < limit/2 {
		s.until = time.Now().Add(limit)
		_ = http.NewResponseController(s.call.w).SetWriteDeadline(s.until)
	}
}

// breakOff ends an answer that broke after it had begun: with an event that says so, and a connection that breaks, since most
// clients take a polite end for a success.
func (s *relay) breakOff(f *wire.Failure) {
	s.call.log.Warn("answer broken off", zap.String("model", s.call.model.Name), zap.String("target", s.target.Name), zap.Error(f))
	if s.call.caller.Err() == nil {
		_, p := explain(f)
		s.out = wire.AppendEvent(s.out, map[string]problem{"error": p})
		s.send()
	}
	panic(http.ErrAbortHandler)
}
