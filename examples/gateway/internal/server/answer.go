package server

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/failfast-go/breaker/examples/gateway/internal/wire"
)

// The headers that say who answered.
const (
	headerSource   = "X-Breaker-Source"   // primary, a fallback's provider/model, rule or default
	headerDegraded = "X-Breaker-Degraded" // whether it was not the primary
	headerAttempts = "X-Breaker-Attempts" // requests that were sent to providers; refused ones are not
)

// announce sets the headers of an answer of t.
func (c *call) announce(t *target, resp *http.Response, contentType string) {
	source := "primary"
	if degraded := t.Name != c.model.targets[0].Name; degraded {
		source = t.Name
		c.log.Warn("answered by a fallback", zap.String("model", c.model.Name), zap.String("source", source), zap.Int("attempts", c.attempts), c.reason())
	}
	h := c.w.Header()
	if id := resp.Header.Get("X-Request-Id"); id != "" {
		h.Set("X-Request-Id", id)
	}
	h.Set("Content-Type", contentType)
	c.from(h, source)
}

// reason is why the primary did not answer, for the log: it could not take the request, or failed, or was not asked.
func (c *call) reason() zap.Field {
	if c.cause == nil {
		return zap.NamedError("cause", c.misfit)
	}
	return zap.NamedError("cause", c.cause)
}

func (c *call) from(h http.Header, source string) {
	c.answers.WithLabelValues(c.model.Name, source, "200").Inc()
	h.Set(headerSource, source)
	h.Set(headerDegraded, strconv.FormatBool(source != "primary"))
	c.count(h)
}

func (c *call) count(h http.Header) { h.Set(headerAttempts, strconv.Itoa(c.attempts)) }

// deadline gives the caller time to take an answer in one piece.
func (c *call) deadline() {
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(c.cfg.Limits.Caller))
}

// lastResort says what the model's configuration has for the case that no target can answer. What is wrong with the request itself is
// no such case.
func (c *call) lastResort() bool {
	if c.embeddings || c.cause != nil && c.cause.OfCaller() {
		return false
	}
	text, source := c.model.Last.Text, "default"
	asked := ""
	for _, rule := range c.model.Last.Rules {
		if asked == "" {
			asked = strings.ToLower(c.request.LastUserText())
		}
		if rule.Matches(asked) {
			text, source = rule.Text, "rule"
			break
		}
	}
	if text == "" {
		return false
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	if c.request.Stream {
		h.Set("Content-Type", "text/event-stream")
	}
	c.from(h, source)
	c.deadline()
	c.log.Warn("answered by the last resort", zap.String("model", c.model.Name), zap.String("source", source), zap.Int("attempts", c.attempts), c.reason())
	_, _ = c.w.Write(wire.Fixed(c.request, "last-resort", text))
	return true
}

// explain says in OpenAI's format what went wrong with a target, in the provider's own words where they concern the caller.
func explain(f *wire.Failure) (int, problem) {
	p := problem{Message: f.Message, Type: f.Type, Code: f.Code}
	switch f.Kind {
	case wire.Mistake, wire.Conflict:
		p.Type = cmp.Or(p.Type, "invalid_request_error")
		return orStatus(f.Status, http.StatusBadRequest), p
	case wire.TooLong:
		p.Type, p.Code = cmp.Or(p.Type, "invalid_request_error"), "context_length_exceeded"
		return orStatus(f.Status, http.StatusBadRequest), p
	case wire.Filtered:
		p.Type, p.Code = cmp.Or(p.Type, "invalid_request_error"), cmp.Or(p.Code, "content_filter")
		return orStatus(f.Status, http.StatusBadRequest), p
	case wire.Account: // not the caller's key, so not the status that would say so
		p.Message, p.Type = "the provider refuses the gateway's account: "+masked(p.Message), "upstream_account_error"
		return http.StatusBadGateway, p
	case wire.Limited:
		p.Type = cmp.Or(p.Type, "rate_limit_error")
		return http.StatusTooManyRequests, p
	case wire.Refused:
		return http.StatusServiceUnavailable, p
	case wire.TooSlow, wire.Unreachable:
		p.Type = cmp.Or(p.Type, "timeout_error")
		return http.StatusGatewayTimeout, p
	}
	p.Type = cmp.Or(p.Type, "upstream_error")
	if f.Status >= 500 {
		return f.Status, p
	}
	return http.StatusBadGateway, p
}

func orStatus(status, otherwise int) int {
	if status >= 400 {
		return status
	}
	return otherwise
}

func unknownModel(name string) problem {
	return problem{
		Message: fmt.Sprintf("there is no model %.100q here; GET /v1/models lists those there are", name), Type: "invalid_request_error",
		Param: new("model"), Code: "model_not_found",
	}
}

// refuseRequest answers a request that cannot be sent to any target.
func refuseRequest(w http.ResponseWriter, err error) {
	p := problem{Message: err.Error(), Type: "invalid_request_error", Code: "invalid_request"}
	if invalid, ok := errors.AsType[*wire.InvalidError](err); ok && invalid.Field != "" {
		p.Param = &invalid.Field
	}
	writeError(w, http.StatusBadRequest, p)
}

var partOfKey = regexp.MustCompile(`\b(sk|key|pk|AIza)[-_A-Za-z0-9]*[-_*.A-Za-z0-9]{6,}`)

// masked hides also what providers show of a key that they refuse: its beginning and its end.
func masked(text string) string { return partOfKey.ReplaceAllString(text, "[redacted]") }
