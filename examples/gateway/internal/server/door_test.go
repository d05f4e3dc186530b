package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOnlyCallersWithAKey(t *testing.T) {
	a, b := newProvider(t, says("large", "ok")), newProvider(t, says("small", "no"))
	g := start(t, two, a, b)
	for _, authorization := range []string{"", "Bearer ", "Bearer " + callerKey + "x", "Bearer " + callerKey[1:], "Basic " + callerKey, "Bearer " + providerKey, callerKey} {
		for _, path := range []string{"/v1/chat/completions", "/v1/embeddings", "/v1/models", "/v1/models/chat"} {
			method := http.MethodPost
			if strings.Contains(path, "models") {
				method = http.MethodGet
			}
			r, err := http.NewRequest(method, g.server.URL+path, strings.NewReader(plain))
			require.NoError(t, err)
			r.Header.Set("Authorization", authorization)
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, http.StatusUnauthorized, resp.StatusCode, "%s with %q", path, authorization)
		}
	}
	require.Zero(t, a.calls())
	g.ask(t).source(t, "primary", "1")
}

func TestRequestsThatAreRefusedByTheirForm(t *testing.T) {
	a, b := newProvider(t, says("large", "ok")), newProvider(t, says("small", "no"))
	g := start(t, strings.Replace(two, "\nproviders", "\nmax_request_bytes: 2000\nproviders", 1), a, b)
	tests := []struct {
		name, body string
		status     int
		param      string
	}{
		{"not JSON", `{"model":`, 400, ""},
		{"not an object", `[]`, 400, ""},
		{"no model", `{"messages":[]}`, 400, "model"},
		{"an unknown model", `{"model":"x","messages":[]}`, 404, "model"},
		{"no messages", `{"model":"chat"}`, 400, "messages"},
		{"a field twice", `{"model":"chat","messages":[],"model":"x"}`, 400, "model"},
		{"stream is no bool", `{"model":"chat","messages":[],"stream":1}`, 400, "stream"},
		{"too large", `{"model":"chat","messages":["` + strings.Repeat("x", 2000) + `"]}`, 413, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := g.post(t, "/v1/chat/completions", tt.body)
			require.Equal(t, tt.status, r.status)
			if tt.param != "" {
				require.Contains(t, r.body, fmt.Sprintf(`"param":%q`, tt.param))
			}
		})
	}
	require.Zero(t, a.calls())
}

func TestAWrongPathOrMethodIsAnErrorThatClientsCanRead(t *testing.T) {
	g := start(t, two, newProvider(t, says("large", "ok")), newProvider(t, says("small", "no")))
	tests := []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/v1/chat/completions", 405, "POST"},
		{"DELETE", "/v1/embeddings", 405, "POST"},
		{"POST", "/v1/models", 405, "GET, HEAD"},
		{"DELETE", "/v1/models/chat", 405, "GET, HEAD"},
		{"POST", "/health", 405, "GET, HEAD"},
		{"POST", "/ready", 405, "GET, HEAD"},
		{"POST", "/metrics", 405, "GET, HEAD"},
		{"POST", "/v1/responses", 404, ""},
		{"POST", "/v1/chat/completions/", 404, ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), tt.method, g.server.URL+tt.path, nil)
			require.NoError(t, err)
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, tt.status, resp.StatusCode)
			require.Equal(t, tt.allow, resp.Header.Get("Allow"))
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Contains(t, string(body), `"error":{"message":`)
		})
	}
}

func TestACallerHasARate(t *testing.T) {
	a, b := newProvider(t, says("large", "ok")), newProvider(t, says("small", "no"))
	limited := strings.Replace(two, "key_env: CALLER_KEY}", "key_env: CALLER_KEY, rate: 0.01, burst: 2}", 1)
	g := start(t, limited, a, b)
	g.ask(t).source(t, "primary", "1")
	g.ask(t).source(t, "primary", "1")
	r := g.ask(t)
	require.Equal(t, http.StatusTooManyRequests, r.status)
	require.Regexp(t, "^(9.|100)$", r.header.Get("Retry-After"))
	require.NoError(t, g.Apply(parse(t, limited, a, b)))
	require.Equal(t, http.StatusTooManyRequests, g.ask(t).status, "a reload is no new allowance")
	require.Equal(t, 2, a.calls())
}

func TestASlowCallerIsCutOff(t *testing.T) {
	a, b := newProvider(t, says("large", "ok")), newProvider(t, says("small", "no"))
	g := start(t, short(two, "caller: 100ms"), a, b)
	conn, err := net.Dial("tcp", g.server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\n{", callerKey)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	head := make([]byte, 12)
	_, err = conn.Read(head)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 408", string(head))
	require.Zero(t, a.calls())
}

// Whatever a provider says back, neither an answer nor a log has its key.
func TestKeysOfProvidersStayHere(t *testing.T) {
	leaks := []http.HandlerFunc{
		fails(401, "invalid_api_key", "Incorrect API key provided: "+providerKey+". You can find yours at ..."),
		fails(400, "", "your key "+providerKey+" is wrong"),
		fails(500, providerKey, "oops "+providerKey),
		streams(delta("a"), `data: {"error":{"message":"bad key `+providerKey+`","code":"`+providerKey+`"}}`+"\n\n"),
		streams(`data: {"error":{"message":"bad key ` + providerKey + `"}}` + "\n\n"),
		func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"error":{"message":"%s"}}`, providerKey)
		},
	}
	for i, leak := range leaks {
		a, b := newProvider(t, leak), newProvider(t, fails(500, "", "down"))
		g := start(t, two, a, b)
		var got strings.Builder
		for range 4 {
			for _, body := range []string{plain, streamed} {
				r := g.post(t, "/v1/chat/completions", body)
				got.WriteString(fmt.Sprint(r.header) + r.body)
			}
		}
		for _, entry := range g.logs.All() {
			got.WriteString(entry.Message + fmt.Sprint(entry.ContextMap()))
		}
		for name, b := range g.Registry().All() {
			got.WriteString(name + fmt.Sprintf("%+v", b.Status()))
			if trip := b.Status().Trip; trip != nil {
				got.WriteString(fmt.Sprintf("%+v", *trip))
			}
		}
		require.NotContains(t, got.String(), providerKey, "leak %d", i)
		require.NotContains(t, got.String(), callerKey, "leak %d", i)
		require.Contains(t, a.requests()[0].header.Get("Authorization"), providerKey)
		require.NotContains(t, fmt.Sprint(a.requests()[0].header)+a.requests()[0].body, callerKey)
	}
}

func TestModelsAreListed(t *testing.T) {
	a, b := newProvider(t, says("large", "ok")), newProvider(t, says("small", "no"))
	g := start(t, two, a, b)
	get := func(path string) (int, string) {
		r, err := http.NewRequest(http.MethodGet, g.server.URL+path, nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+callerKey)
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := readAll(resp.Body, -1)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	status, body := get("/v1/models")
	require.Equal(t, 200, status)
	require.JSONEq(t, `{"object":"list","data":[{"id":"chat","object":"model","created":0,"owned_by":"gateway"}]}`, body)
	status, _ = get("/v1/models/nobody")
	require.Equal(t, 404, status)
	status, body = get("/health")
	require.Equal(t, 200, status)
	require.JSONEq(t, `{"status":"ok"}`, body)
	_, body = get("/ready")
	require.JSONEq(t, `{"ready":true,"models":{"chat":"ok"}}`, body)
	one, _ := g.Registry().Lookup("one/large")
	one.Trip("test")
	_, body = get("/ready")
	require.JSONEq(t, `{"ready":true,"models":{"chat":"degraded"}}`, body)
	g.Drain()
	status, _ = get("/ready")
	require.Equal(t, 503, status)
}

// A body that nobody reads has its time too: net/http would read on for as long as it drips.
func TestABodyThatNobodyReadsEndsInTime(t *testing.T) {
	a, b := newProvider(t, says("large", "ok")), newProvider(t, says("small", "no"))
	g := start(t, short(two, "caller: 100ms"), a, b)
	for _, path := range []string{"/v1/chat/completions", "/health", "/nobody"} {
		conn, err := net.Dial("tcp", g.server.Listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", path)
		dripping := time.AfterFunc(0, func() {
			for {
				if _, err := conn.Write([]byte{'x'}); err != nil {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
		_, err = io.Copy(io.Discard, conn)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, path)
		dripping.Stop()
	}
}
