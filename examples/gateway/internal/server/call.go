package server

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/gateway/internal/wire"
)

func (g *Gateway) chat(w http.ResponseWriter, r *http.Request) { g.serve(w, r, false) }

func (g *Gateway) embeddings(w http.ResponseWriter, r *http.Request) { g.serve(w, r, true) }

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, embeddings bool) {
	s := g.current.Load()
	if !s.enter(w, r) {
		return
	}
	body, ok := s.readBody(w, r)
	if !ok {
		return
	}
	must := "messages"
	if embeddings {
		must = "input"
	}
	request, err := wire.ParseRequest(body, must)
	if err != nil {
		refuseRequest(w, err)
		return
	}
	m := s.models[request.Model]
	if m == nil {
		writeError(w, http.StatusNotFound, unknownModel(request.Model))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Limits.Request)
	defer cancel()
	c := &call{setup: s, log: g.log, answers: g.answers, w: w, caller: r.Context(), ctx: ctx, request: request, model: m, embeddings: embeddings}
	c.run()
}

// call is one request on its way to an answer.
type call struct {
	*setup
	log        *zap.Logger
	answers    *prometheus.CounterVec
	w          http.ResponseWriter
	caller     context.Context // ends when the caller hangs up
	ctx        context.Context // ends also when the time for everything is over
	request    *wire.Request
	model      *model
	embeddings bool

	attempts  int           // sent, to all targets
	cause     *wire.Failure // why the first target did not answer
	misfit    error         // why the first target that cannot take the request cannot
	retryable time.Time     // the soonest at which a target may answer again; zero when not known
	tooLong   bool          // for a context of so many tokens
	context   int
}

// run asks the targets in their order until one has answered. A target is asked at most once, its own retry aside.
func (c *call) run() {
	for _, t := range c.candidates() {
		if c.tooLong && t.Context <= c.context {
			continue
		}
		path, body, err := c.translate(t)
		if err != nil {
			if c.misfit == nil {
				c.misfit = err
			}
			continue
		}
		failure := c.ask(t, path, body)
		if failure == nil {
			return
		}
		if !c.goOn(t, failure) {
			break
		}
	}
	c.giveUp()
}

// candidates are the targets that may be asked at all. An embedding of another model would be no answer but noise.
func (c *call) candidates() []*target {
	if c.embeddings {
		return c.model.targets[:1]
	}
	return c.model.targets
}

func (c *call) translate(t *target) (path string, body []byte, err error) {
	if c.embeddings {
		return t.dialect.Embeddings(c.request, t.Model)
	}
	if err := c.request.Fits(t.Capabilities); err != nil {
		return "", nil, err
	}
	return t.dialect.Chat(c.request, t.Model)
}

// goOn notes a target's failure and says whether to ask the next one. The first failure is the one that the caller hears of: what
// a fallback complains about is not why there is no answer. A filter's refusal is the exception: it is an answer, and final.
func (c *call) goOn(t *target, f *wire.Failure) bool {
	first := c.cause == nil
	if first || f.Kind == wire.Filtered {
		c.cause = f
	}
	if f.RetryAfter > 0 {
		c.comeBack(time.Now().Add(f.RetryAfter))
	}
	switch f.Kind {
	case wire.Filtered, wire.Unreachable:
		return false
	case wire.TooLong:
		c.tooLong, c.context = true, max(c.context, t.Context)
	}
	return c.attempts < c.cfg.Retry.Attempts && (f.Next() || !first)
}

// ask asks one target, and again as far as the failure and the limits allow. Without a failure the caller has an answer.
func (c *call) ask(t *target, path string, body []byte) (last *wire.Failure) {
	backoff := c.cfg.Retry.Backoff
	for n := 0; ; n++ {
		failure := c.attempt(t, path, body)
		switch {
		case failure == nil:
			return nil
		case failure.Kind == wire.Refused && last != nil:
			return last // why there was another attempt
		}
		last = failure
		if n >= c.cfg.Retry.Max || c.attempts >= c.cfg.Retry.Attempts || !failure.Retry() || !c.pause(t, failure, backoff) {
			return last
		}
		backoff *= 2
	}
}

// refused says what a breaker's refusal means, and notes when it admits again.
func (c *call) refused(err error) *wire.Failure {
	open, ok := errors.AsType[*breaker.OpenError](err)
	switch {
	case !ok:
	case !open.Until.IsZero():
		c.comeBack(open.Until)
	case open.State != breaker.StateForcedOpen: // a probe is on its way, which decides
		c.comeBack(time.Now().Add(time.Second))
	}
	return &wire.Failure{Kind: wire.Refused, Message: "the model is unavailable at the moment: " + err.Error(), Type: "service_unavailable", Code: "circuit_open", Cause: err}
}

// comeBack notes when a target may answer again; the soonest counts.
func (c *call) comeBack(at time.Time) {
	if c.retryable.IsZero() || at.Before(c.retryable) {
		c.retryable = at
	}
}

// pause waits before another attempt on the same target, and reports whether there is to be one: not when the target asks for more
// time than the caller has, and not when its breaker would refuse.
func (c *call) pause(t *target, f *wire.Failure, backoff time.Duration) bool {
	wait := backoff/2 + rand.N(backoff/2+1)
	if f.RetryAfter > 0 {
		if f.RetryAfter > c.cfg.Retry.MaxWait {
			return false
		}
		wait = f.RetryAfter + rand.N(f.RetryAfter/10+time.Millisecond)
	} else if t.breaker.State() == breaker.StateOpen {
		return false
	}
	if deadline, ok := c.ctx.Deadline(); ok && time.Until(deadline) <= wait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// giveUp tells the caller why there is no answer, or says what is left to be said.
func (c *call) giveUp() {
	if c.caller.Err() != nil {
		return // nobody listens
	}
	if c.cause == nil {
		refuseRequest(c.w, c.misfit)
		return
	}
	if c.lastResort() {
		return
	}
	status, p := explain(c.cause)
	h := c.w.Header()
	c.count(h)
	if status == http.StatusTooManyRequests || status >= 500 {
		if !c.retryable.IsZero() {
			setRetryAfter(h, time.Until(c.retryable))
		}
		h.Set("x-should-retry", "false") // the gateway has done that already, on every target
	}
	c.log.Warn("request not answered", zap.String("model", c.model.Name), zap.Int("status", status), zap.Int("attempts", c.attempts), zap.NamedError("cause", c.cause))
	c.answers.WithLabelValues(c.model.Name, "none", strconv.Itoa(status)).Inc()
	writeError(c.w, status, p)
}
