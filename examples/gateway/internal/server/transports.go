package server

import (
	"context"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/gateway/internal/config"
)

// transports returns the two ways through a target's breaker.
func transports(name string, l config.Limits, registry *breaker.Registry, upstream http.RoundTripper) (whole, stream http.RoundTripper) {
	named := breaker.NameUpstream(func(*http.Request) string { return name })
	return breaker.NewTransport(registry, upstream, named), breaker.NewTransport(registry, &headersLimit{upstream, l.Headers},
		named, breaker.FirstContentLimit(l.FirstContent), breaker.StallLimit(l.BetweenContents))
}

// headersLimit gives up on an answer whose headers have not come in time. It stands behind the breaker, which sees a timeout.
type headersLimit struct {
	next  http.RoundTripper
	limit time.Duration
}

func (h *headersLimit) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context()) // ends with its parent: the body is read under it
	timer := time.AfterFunc(h.limit, func() { cancel(errHeaders) })
	resp, err := h.next.RoundTrip(r.WithContext(ctx))
	if !timer.Stop() && errors.Is(context.Cause(ctx), errHeaders) {
		if resp != nil {
			resp.Body.Close()
		}
		return nil, errHeaders
	}
	if err != nil {
		cancel(nil)
	}
	return resp, err
}

var errHeaders error = headersError{}

type headersError struct{}

func (headersError) Error() string   { return "no headers of an answer within the limit" }
func (headersError) Timeout() bool   { return true }
func (headersError) Temporary() bool { return true }
func (headersError) Is(target error) bool {
	return target == os.ErrDeadlineExceeded
}
