package breaker

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"
)

// Fallback is what is left when no call can answer. The zero value answers with a plain 503.
type Fallback struct {
	DefaultResponse DefaultResponse
	CacheMaxAge     time.Duration // how old a cached answer may be; 0 where cache_fallback is not enabled
}

// DefaultResponse is the answer of last resort to an HTTP request.
type DefaultResponse struct {
	StatusCode int // 400 to 599; zero means 503
	Body       any // sent as JSON, unchanged; nil means {"error":"Service temporarily unavailable"}
}

const plainBody = `{"error":"Service temporarily unavailable"}` + "\n"

func (r *nodeReader) fallback(n *yaml.Node, at *place) (f Fallback) {
	r.keys(n, at, keys{
		"default_response": func(n *yaml.Node, at *place) { f.DefaultResponse = r.defaultResponse(n, at) },
		"cache_fallback":   func(n *yaml.Node, at *place) { f.CacheMaxAge = r.cacheFallback(n, at) },
	})
	return f
}

func (r *nodeReader) defaultResponse(n *yaml.Node, at *place) (d DefaultResponse) {
	r.keys(n, at, keys{
		"status_code": func(n *yaml.Node, at *place) { d.StatusCode = r.between(n, at, 400, 599) },
		"body": func(n *yaml.Node, at *place) {
			if n.ShortTag() == "!!null" {
				r.refuse(n, at, "a mapping, a list, text, a number, true or false")
			}
			d.Body = r.free(n, at)
		},
	})
	return d
}

func (r *nodeReader) cacheFallback(n *yaml.Node, at *place) (age time.Duration) {
	var enabled, ok bool
	there := r.keys(n, at, keys{
		"enabled": func(n *yaml.Node, at *place) {
			if enabled, ok = boolean(n); !ok {
				r.refuse(n, at, "true or false")
			}
		},
		"max_age_seconds": func(n *yaml.Node, at *place) {
			if age, ok = duration(n, time.Second); !ok || age <= 0 {
				r.refuse(n, at, `seconds > 0, or a duration such as "5m"`)
			}
		},
	})
	if !there["enabled"] {
		r.missing(n, at, "enabled", "true or false")
	}
	if enabled && !there["max_age_seconds"] {
		r.missing(n, at, "max_age_seconds", "how old an answer may be, since the cache is enabled")
	}
	if !enabled {
		return 0
	}
	return age
}

// Write answers a request that failed with err, or was refused, with the default response as JSON. It sets Retry-After to the
// seconds until the breaker that refused admits again, rounded up and at least 1. Where err holds no refusal it repeats the
// body's own retry_after, if that is a number of seconds above zero, and sets none otherwise. err itself is not sent.
func (f Fallback) Write(w http.ResponseWriter, err error) {
	d, body := f.DefaultResponse, []byte(plainBody)
	if d.Body != nil {
		if text, err := unescaped(d.Body); err == nil {
			body = text
		}
	}
	header := w.Header()
	header.Del("Content-Encoding") // of the answer there was to be
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	if seconds := d.retryAfter(err); seconds > 0 {
		header.Set("Retry-After", strconv.Itoa(seconds))
	}
	w.WriteHeader(cmp.Or(d.StatusCode, http.StatusServiceUnavailable))
	_, _ = w.Write(body) // the client is gone: nothing more can be done for it
}

// retryAfter returns the whole seconds after which to come back, 0 where nobody knows.
func (d DefaultResponse) retryAfter(err error) int {
	if t := traitsOf(err); refuses(err, t) {
		if e := refusalIn(err, t); e != nil {
			return max(1, wholeSeconds(e.RetryAfter().Seconds()))
		}
	}
	body, _ := d.Body.(map[string]any)
	switch v := body["retry_after"].(type) {
	case int:
		return v
	case float64:
		if v > 0 {
			return wholeSeconds(v)
		}
	}
	return 0
}

func wholeSeconds(s float64) int { return int(min(math.Ceil(s), math.MaxInt32)) }

// unescaped returns v as JSON in which <, > and & are themselves.
func unescaped(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}
