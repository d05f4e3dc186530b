package breaker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// IsOpen reports whether err is a breaker's refusal: it matches [ErrOpen], or it is what an SDK has made of the answer of
// [RefuseWithResponse]. It knows that again by the *http.Response that the errors of OpenAI's and Anthropic's SDKs carry in
// their field Response, and by the body in a text field of others, such as Ollama's.
func IsOpen(err error) bool { return isRefusal(err) }

// Errors of SDKs hide what their Transport knew. These tell whether there can be such at all, so that nobody else pays.
var answersExist, refusalsExist atomic.Bool

// refusalMark is in the body of every refusal this process answers with, and cannot be guessed by an upstream.
var refusalMark = sync.OnceValue(func() string { return "breaker_" + rand.Text() })

type carriedKey struct{}

// carry leaves e with the answer, for those who get to see nothing but an SDK's error that holds it.
func carry(resp *http.Response, e error) {
	if resp.Request != nil {
		resp.Request = resp.Request.WithContext(context.WithValue(resp.Request.Context(), carriedKey{}, e))
	}
}

// carried returns what a Transport of this process has left with the answer that err, or an error it wraps, holds.
func carried(err error) error {
	if err == nil || !answersExist.Load() {
		return nil
	}
	return leftWith(err)
}

func leftWith(err error) error {
	if resp := responseIn(err); resp != nil && resp.Request != nil { //nolint:bodyclose // the SDK has read it
		e, _ := resp.Request.Context().Value(carriedKey{}).(error)
		return e
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return carried(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if found := carried(inner); found != nil {
				return found
			}
		}
	}
	return nil
}

// responseIn returns the field Response of a struct, or of a pointer to one.
func responseIn(err error) *http.Response {
	v := reflect.Indirect(reflect.ValueOf(err))
	if v.Kind() != reflect.Struct {
		return nil
	}
	f := v.FieldByName("Response")
	if !f.IsValid() || !f.CanInterface() {
		return nil
	}
	resp, _ := f.Interface().(*http.Response)
	return resp
}

const maxMarked = 8 << 10 // bytes of a text in which the mark is looked for

// marksRefusal reports whether a text that err, or an error it wraps, is made of holds the mark. It reads the texts where they
// are: Error may be anybody's code, and costly.
func marksRefusal(err error) bool {
	return err != nil && refusalsExist.Load() && holdsMark(err)
}

func holdsMark(err error) bool {
	v := reflect.Indirect(reflect.ValueOf(err))
	if marked := isMarked(v); marked || v.Kind() != reflect.Struct {
		return marked
	}
	for _, field := range v.Fields() {
		if isMarked(field) {
			return true
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return marksRefusal(e.Unwrap())
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), marksRefusal)
	}
	return false
}

func isMarked(v reflect.Value) bool {
	if v.Kind() != reflect.String {
		return false
	}
	text := v.String()
	return strings.Contains(text[:min(len(text), maxMarked)], refusalMark())
}

// answer is the refusal as an answer. Its body has the shape that both OpenAI and Anthropic give to errors.
func (e *OpenError) answer(req *http.Request) *http.Response {
	refusalsExist.Store(true)
	body, _ := json.Marshal(map[string]any{
		"type":       "error",
		"error":      map[string]any{"type": "circuit_open", "code": "circuit_open", "param": nil, "message": e.Error()},
		"request_id": refusalMark(),
	})
	resp := &http.Response{
		Status:     "503 Service Unavailable",
		StatusCode: http.StatusServiceUnavailable,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Content-Type":   {"application/json"},
			"Content-Length": {strconv.Itoa(len(body))},
			"Retry-After":    {strconv.Itoa(max(1, wholeSeconds(e.RetryAfter().Seconds())))},
			"X-Should-Retry": {"false"},
		},
		ContentLength: int64(len(body)),
		Body:          io.NopCloser(strings.NewReader(string(body))),
		Request:       req,
	}
	if req.Method == http.MethodHead {
		resp.Body = http.NoBody
	}
	carry(resp, e)
	return resp
}
