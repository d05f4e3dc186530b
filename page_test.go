package breaker_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestThePageIsServedWithAStrictPolicy(t *testing.T) {
	s := serve(t, nil)
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/page/main.js": "text/javascript; charset=utf-8", "/page/style.css": "text/css; charset=utf-8", "/page/icon.svg": "image/svg+xml",
	} {
		res := s.ask(t, "GET", path, "")
		require.Equal(t, 200, res.status, path)
		assert.Equal(t, kind, res.header.Get("Content-Type"))
		assert.NotEmpty(t, res.body)
		again := s.ask(t, "GET", path, "", "If-None-Match", res.header.Get("ETag"))
		assert.Equal(t, 304, again.status, "what has not changed is not sent again")
	}
	for _, path := range []string{"/", "/page/main.js", list, "/nothing", list + "/nobody", "/admin/circuit-breakers/x/trip"} {
		header := s.ask(t, "GET", path, "").header
		policy := header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "connect-src 'self';", "frame-ancestors 'none'"} {
			assert.Contains(t, policy, want, path)
		}
		assert.NotContains(t, policy, "unsafe", path)
		assert.Equal(t, "nosniff", header.Get("X-Content-Type-Options"), path)
		assert.NotEmpty(t, header.Get("Cache-Control"), path)
	}
	for _, path := range []string{"/page/", "/page/test/package.json", "/page/../handler.go"} {
		assert.Equal(t, 404, s.ask(t, "GET", path, "").status, path)
	}
}

func TestThePageAsksNobodyElse(t *testing.T) {
	s := serve(t, nil)
	for _, path := range []string{"/", "/page/main.js", "/page/list.js", "/page/body.js", "/page/orders.js", "/page/stream.js", "/page/chart.js", "/page/model.js", "/page/text.js", "/page/style.css"} {
		res := s.ask(t, "GET", path, "")
		require.Equal(t, 200, res.status, path)
		for _, never := range []string{"http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", " onclick=", "@import", "url("} {
			assert.NotContains(t, res.body, never, path)
		}
		if path == "/" {
			assert.Equal(t, 1, bytes.Count([]byte(res.body), []byte("<script")), "no inline script")
			assert.NotContains(t, res.body, "<style")
		}
	}
}
