package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// enter checks who asks and how often, and answers if that is no. It reads no body.
func (s *setup) enter(w http.ResponseWriter, r *http.Request) bool {
	who := whose(s.callers, r)
	if who == nil {
		w.Header().Set("WWW-Authenticate", `Bearer realm="gateway"`)
		writeError(w, http.StatusUnauthorized, problem{
			Message: "no valid key of this gateway: send Authorization: Bearer KEY, with a key of the gateway and not of a provider",
			Type:    "authentication_error", Code: "invalid_api_key",
		})
		return false
	}
	if who.limiter == nil {
		return true
	}
	now := time.Now()
	place := who.limiter.ReserveN(now, 1)
	wait := place.DelayFrom(now)
	if wait == 0 {
		return true
	}
	place.CancelAt(now)
	setRetryAfter(w.Header(), wait)
	writeError(w, http.StatusTooManyRequests, problem{
		Message: fmt.Sprintf("this key may make %g requests a second; try again in %v", who.Rate, wait.Round(time.Millisecond)),
		Type:    "rate_limit_error", Code: "rate_limit_exceeded",
	})
	return false
}

// whose returns whose key the request shows. It takes as long for a key that is nearly right as for any other.
func whose(all []caller, r *http.Request) (who *caller) {
	scheme, key, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(key)))
	for i := range all {
		if subtle.ConstantTimeCompare(hash[:], all[i].Hash[:]) == 1 {
			who = &all[i]
		}
	}
	return who
}

// readBody reads the request's body within the limits on its size and on the caller's time, or answers why not.
func (s *setup) readBody(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	body, err := readAll(http.MaxBytesReader(w, r.Body, s.cfg.MaxRequestBytes), r.ContentLength)
	if err == nil {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		return body, true
	}
	w.Header().Set("Connection", "close")
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		writeError(w, http.StatusRequestEntityTooLarge, problem{
			Message: fmt.Sprintf("the request has more than %d bytes", tooLarge.Limit), Type: "invalid_request_error", Code: "request_too_large",
		})
		return nil, false
	}
	writeError(w, http.StatusRequestTimeout, problem{
		Message: "the request's body did not come whole and in time", Type: "invalid_request_error", Code: "request_incomplete",
	})
	return nil, false
}

// readAll is io.ReadAll with a guess at the length, which may be wrong.
func readAll(r io.Reader, length int64) ([]byte, error) {
	body := make([]byte, 0, min(max(length, 0), 1<<20)+512)
	for {
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF {
			return body, nil
		}
		if err != nil {
			return nil, err
		}
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
	}
}

// problem is an error in OpenAI's format.
type problem struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code,omitempty"`
}

func writeError(w http.ResponseWriter, status int, p problem) {
	writeJSON(w, status, map[string]problem{"error": p})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(body) // the caller is gone if this fails
}

// setRetryAfter rounds up: the header has whole seconds, and who comes early comes in vain.
func setRetryAfter(h http.Header, wait time.Duration) {
	h.Set("Retry-After", strconv.Itoa(int(max(1, math.Ceil(wait.Seconds())))))
}
