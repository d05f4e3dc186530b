package breaker_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/failfast-go/breaker"
)

// served is a registry behind its handler, on a real port.
type served struct {
	*breaker.Registry
	url string
}

func asAnn(*http.Request) (string, bool) { return "ann", true }

func serve(t *testing.T, names []string, opts ...breaker.HandlerOption) served {
	t.Helper()
	r, err := breaker.NewRegistry(breaker.RegistryConfig{Default: steady(breaker.Config{})})
	require.NoError(t, err)
	for _, name := range names {
		_, err := r.Register(name, steady(breaker.Config{}))
		require.NoError(t, err)
	}
	server := httptest.NewServer(r.Handler(opts...))
	t.Cleanup(server.Close)
	return served{r, server.URL}
}

type answer struct {
	status int
	header http.Header
	body   string
}

// why is the text of an error's JSON.
func (a answer) why(t *testing.T) string {
	t.Helper()
	require.Equal(t, "application/json", a.header.Get("Content-Type"))
	var said struct{ Error string }
	require.NoError(t, json.Unmarshal([]byte(a.body), &said), a.body)
	return said.Error
}

func (a answer) breaker(t *testing.T) (s breaker.Status) {
	t.Helper()
	require.Equal(t, http.StatusOK, a.status, a.body)
	require.NoError(t, json.Unmarshal([]byte(a.body), &s))
	return s
}

// ask sends a request whose path is written as given: no client cleans it.
func (s served) ask(t *testing.T, method, path, body string, header ...string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	var request strings.Builder
	request.WriteString(fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %d\r\n", method, path, conn.RemoteAddr(), len(body)))
	for i := 0; i+1 < len(header); i += 2 {
		request.WriteString(header[i] + ": " + header[i+1] + "\r\n")
	}
	_, err = io.WriteString(conn, request.String()+"\r\n"+body)
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return answer{res.StatusCode, res.Header, string(text)}
}

func (s served) order(t *testing.T, name, order, body string) answer {
	t.Helper()
	return s.ask(t, "POST", "/admin/circuit-breakers/"+url.PathEscape(name)+"/"+order, body, "Content-Type", "application/json")
}

const list = "/health/circuit-breakers"

func TestTheListHasEveryStatusByName(t *testing.T) {
	s := serve(t, []string{"a", "b"})
	s.Breaker("b").Trip("test")
	res := s.ask(t, "GET", list, "")
	require.Equal(t, 200, res.status, "also when something is open: this is no health check of the process")
	assert.Equal(t, "application/json", res.header.Get("Content-Type"))
	var all map[string]breaker.Status
	require.NoError(t, json.Unmarshal([]byte(res.body), &all))
	require.Len(t, all, 2)
	assert.Equal(t, breaker.StateClosed, all["a"].State)
	assert.Equal(t, breaker.StateOpen, all["b"].State)
	assert.Equal(t, "test", all["b"].Trip.Reason)

	assert.Equal(t, 200, s.ask(t, "HEAD", list, "", "Accept", "text/event-stream").status, "HEAD is answered at once")
	assert.JSONEq(t, "{}", serve(t, nil).ask(t, "GET", list, "").body)
}

func TestOneStatus(t *testing.T) {
	s := serve(t, []string{"a"})
	assert.Equal(t, "a", s.ask(t, "GET", list+"/a", "").breaker(t).Name)
}

func TestAnUnknownNameIsNotFoundAndAskingMakesNone(t *testing.T) {
	s := serve(t, []string{"a"}, breaker.Authorize(asAnn))
	for _, res := range []answer{s.ask(t, "GET", list+"/nobody", ""), s.order(t, "nobody", "trip", ""), s.ask(t, "GET", list+"/"+strings.Repeat("x", 300), "")} {
		require.Equal(t, 404, res.status)
		require.Contains(t, res.why(t), "there is no breaker")
	}
	res := s.order(t, "a", "explode", "")
	require.Equal(t, 404, res.status)
	require.Contains(t, res.why(t), "want reset, trip, force-open, disable or release")
	require.Equal(t, 404, s.ask(t, "GET", "/nothing", "").status)
	n := 0
	for range s.All() {
		n++
	}
	require.Equal(t, 1, n)
}

func TestEachOrderDoesWhatItSays(t *testing.T) {
	s := serve(t, []string{"a"}, breaker.Authorize(asAnn))
	b := s.Breaker("a")

	got := s.order(t, "a", "trip", `{"reason": "drill"}`).breaker(t)
	assert.Equal(t, breaker.StateOpen, got.State)
	assert.Equal(t, "drill", got.Trip.Reason)

	got = s.order(t, "a", "reset", "").breaker(t)
	assert.Equal(t, breaker.StateClosed, got.State)

	got = s.order(t, "a", "force-open", `{"reason": "migration", "for": "15m"}`).breaker(t)
	assert.Equal(t, breaker.StateForcedOpen, got.State)
	assert.Equal(t, "ann", got.Hold.By)
	assert.Equal(t, "migration", got.Hold.Reason)
	assert.Equal(t, 15*time.Minute, got.Hold.Until.Sub(got.Hold.Since))

	got = s.order(t, "a", "disable", `{}`).breaker(t)
	assert.Equal(t, breaker.StateDisabled, got.State)
	assert.Equal(t, "ann", got.Hold.By)
	assert.True(t, got.Hold.Until.IsZero())

	got = s.order(t, "a", "release", "").breaker(t)
	assert.Equal(t, breaker.StateClosed, got.State)
	assert.Nil(t, got.Hold)

	s.order(t, "a", "trip", "")
	assert.Equal(t, "by ann", b.Status().Trip.Reason, "who it was is known even without a reason")
}

func TestOrdersAreLoggedWithWhoGaveThem(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	r, err := breaker.NewRegistry(breaker.RegistryConfig{}, breaker.WithLogger(zap.New(core)))
	require.NoError(t, err)
	r.Breaker("a")
	server := httptest.NewServer(r.Handler(breaker.Authorize(asAnn)))
	defer server.Close()
	res, err := http.Post(server.URL+"/admin/circuit-breakers/a/release", "application/json", strings.NewReader(`{"reason": "all is well"}`))
	require.NoError(t, err)
	res.Body.Close()
	found := logs.FilterMessage("circuit breaker order").All()
	require.Len(t, found, 1, "a release without a hold is no event, but somebody asked")
	assert.Equal(t, map[string]any{"name": "a", "order": "release", "by": "ann", "reason": "all is well", "for": time.Duration(0)}, found[0].ContextMap())
}

func TestNobodyMayUnlessAuthorizeSaysYes(t *testing.T) {
	for want, opts := range map[string][]breaker.HandlerOption{
		"without the option Authorize": nil,
		"Authorize says no":            {nil, breaker.Authorize(func(*http.Request) (string, bool) { return "eve", false })},
	} {
		s := serve(t, []string{"a"}, opts...)
		for _, order := range []string{"reset", "trip", "force-open", "disable", "release", "explode"} {
			res := s.order(t, "a", order, "")
			require.Equal(t, 403, res.status)
			require.Contains(t, res.why(t), want)
		}
		require.Equal(t, 403, s.order(t, "nobody", "trip", "").status, "who may do nothing learns nothing")
		require.Equal(t, breaker.StateClosed, s.Breaker("a").State())
	}
}

func TestAuthorizeSeesTheRequest(t *testing.T) {
	s := serve(t, []string{"a"}, breaker.Authorize(func(r *http.Request) (string, bool) {
		who, password, ok := r.BasicAuth()
		return who, ok && password == "secret"
	}))
	path := "/admin/circuit-breakers/a/force-open"
	require.Equal(t, 403, s.ask(t, "POST", path, "").status)
	got := s.ask(t, "POST", path, "", "Authorization", "Basic cmFqOnNlY3JldA==").breaker(t)
	require.Equal(t, "raj", got.Hold.By)
}

func TestOtherWebPagesGiveNoOrders(t *testing.T) {
	asked := false
	s := serve(t, []string{"a"}, breaker.Authorize(func(*http.Request) (string, bool) { asked = true; return "", true }))
	path := "/admin/circuit-breakers/a/trip"
	for name, header := range map[string][]string{
		"another site":        {"Sec-Fetch-Site", "cross-site"},
		"a sibling of it":     {"Sec-Fetch-Site", "same-site"},
		"an older browser":    {"Origin", "https://evil.example"},
		"a page from a file":  {"Origin", "null"},
		"with a form's types": {"Sec-Fetch-Site", "cross-site", "Content-Type", "text/plain"},
	} {
		res := s.ask(t, "POST", path, `{}`, header...)
		require.Equal(t, 403, res.status, name)
		require.Contains(t, res.why(t), "another web page")
	}
	require.False(t, asked, "it is not even asked")
	require.Equal(t, breaker.StateClosed, s.Breaker("a").State())
	require.Equal(t, 200, s.ask(t, "POST", path, `{}`, "Sec-Fetch-Site", "same-origin").status)
	require.Equal(t, 200, s.ask(t, "GET", list, "", "Sec-Fetch-Site", "cross-site").status, "looking changes nothing")
}

func TestAWrongMethodIsToldTheRightOne(t *testing.T) {
	s := serve(t, []string{"a"}, breaker.Authorize(asAnn))
	for path, allow := range map[string]string{
		"/": "GET, HEAD", "/page/style.css": "GET, HEAD", list: "GET, HEAD", list + "/a": "GET, HEAD", "/admin/circuit-breakers/a/trip": "POST",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			if strings.HasPrefix(allow, method) {
				continue
			}
			res := s.ask(t, method, path, "")
			require.Equal(t, 405, res.status, "%s %s", method, path)
			require.Equal(t, allow, res.header.Get("Allow"))
		}
	}
}

func TestABodyThatIsNoOrderSaysWhatIsWanted(t *testing.T) {
	s := serve(t, []string{"a"}, breaker.Authorize(asAnn))
	for body, want := range map[string]string{
		`hello`:                              "no JSON object",
		`[]`:                                 "no JSON object",
		`"15m"`:                              "no JSON object",
		`null`:                               "no JSON object",
		`{"reason"`:                          "reason must be a string",
		`{"reason": "x"`:                     "does not end",
		`{"reason": "x",`:                    "no JSON object",
		`{"reason": "x"} {}`:                 "something follows",
		`{"reason": 5}`:                      "reason must be a string",
		`{"reason": null}`:                   "reason must be a string",
		`{"reason": ["x"]}`:                  "reason must be a string",
		`{"Reason": "x"}`:                    `"Reason" is no field`,
		`{"why": "x"}`:                       `"why" is no field: want reason or for`,
		`{"reason": "a", "reason": "b"}`:     "twice",
		`{"for": 15}`:                        "for must be a string",
		`{"for": "15"}`:                      "want a duration above zero",
		`{"for": "soon"}`:                    `for is "soon"`,
		`{"for": ""}`:                        "want a duration above zero",
		`{"for": "0s"}`:                      "want a duration above zero",
		`{"for": "-5m"}`:                     "want a duration above zero",
		`{"for": "99999999h"}`:               "want a duration above zero",
		`{"` + strings.Repeat("k", 99) + `"`: "is no field",
	} {
		res := s.order(t, "a", "force-open", body)
		require.Equal(t, 400, res.status, body)
		require.Contains(t, res.why(t), want, body)
		require.Contains(t, res.why(t), `{"reason": "migration", "for": "15m"}`, "an example is shown")
	}
	for _, order := range []string{"trip", "reset", "release"} {
		res := s.order(t, "a", order, `{"for": "15m"}`)
		require.Equal(t, 400, res.status, order)
		require.Contains(t, res.why(t), "only force-open and disable")
	}
	require.Equal(t, breaker.StateClosed, s.Breaker("a").State(), "half an order is none")
}

func TestContentTypes(t *testing.T) {
	s := serve(t, []string{"a"}, breaker.Authorize(asAnn))
	path := "/admin/circuit-breakers/a/force-open"
	body := `{"reason": "x"}`
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp", "json", ";"} {
		res := s.ask(t, "POST", path, body, "Content-Type", kind)
		require.Equal(t, 415, res.status, kind)
		require.Contains(t, res.why(t), "want application/json")
	}
	require.Equal(t, 415, s.ask(t, "POST", path, body, "Content-Type", "application/json", "Content-Encoding", "gzip").status)
	for _, kind := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON", ""} {
		require.Equal(t, 200, s.ask(t, "POST", path, body, "Content-Type", kind).status, kind)
	}
	require.Equal(t, 200, s.ask(t, "POST", path, "").status)
	require.Equal(t, 200, s.ask(t, "POST", path, "", "Content-Type", "text/plain").status, "where nothing is, its type is no matter")
}

func TestAnOrderWithoutABodyNeedsNoServer(t *testing.T) {
	r := newRegistry(t, breaker.RegistryConfig{Services: map[string]breaker.Config{"a": {}}})
	request, err := http.NewRequest(http.MethodPost, "/admin/circuit-breakers/a/trip", nil)
	require.NoError(t, err)
	require.Nil(t, request.Body)
	page := httptest.NewRecorder()
	r.Handler(breaker.Authorize(asAnn)).ServeHTTP(page, request)
	require.Equal(t, 200, page.Code, page.Body.String())
	require.Equal(t, breaker.StateOpen, r.Breaker("a").State())
}

func TestABodyIsShort(t *testing.T) {
	s := serve(t, []string{"a"}, breaker.Authorize(asAnn))
	res := s.order(t, "a", "trip", `{"reason": "`+strings.Repeat("x", 4000)+`"}`)
	require.Equal(t, 200, res.status)
	res = s.order(t, "a", "trip", `{"reason": "`+strings.Repeat("x", 4096)+`"}`)
	require.Equal(t, 413, res.status)
	require.Contains(t, res.why(t), "4096 bytes")
}

var hardNames = []string{
	"a/b", "/", "//", "a/../b", "with space", " ", "100%", "%2F", "%", "%zz", "a+b", "a?b=c", "a#b", "a;b=c", "国際", "Ünïcode", "👩‍🚀", ".", "..", "...", "...../",
	`<script>alert(1)</script>`, `"quoted" & 'single'`, "back\\slash", "new\nline", "tab\t", "nul\x00", "reset", "admin", "{name}", strings.Repeat("x", 256), "https://api.example.com:8443",
}

func TestEveryNameComesThroughAPath(t *testing.T) {
	s := serve(t, hardNames, breaker.Authorize(asAnn))
	dots := strings.NewReplacer("..", "%2E%2E", ".", "%2e")
	for _, name := range hardNames {
		escaped := url.PathEscape(name)
		for _, path := range []string{escaped, dots.Replace(escaped)} {
			require.Equal(t, name, s.ask(t, "GET", list+"/"+path, "").breaker(t).Name, path)
		}
		res := s.order(t, name, "force-open", `{"reason": "test"}`)
		require.Equal(t, name, res.breaker(t).Name)
		require.NotContains(t, res.body, "<script", "markup is escaped in JSON too")
	}
	for name, b := range s.All() {
		require.Equal(t, breaker.StateForcedOpen, b.State(), name)
	}
	var all map[string]breaker.Status
	require.NoError(t, json.Unmarshal([]byte(s.ask(t, "GET", list, "").body), &all))
	for _, name := range hardNames {
		require.Equal(t, name, all[name].Name)
	}
}

func TestItCanBeMountedBelowAPrefix(t *testing.T) {
	r, err := breaker.NewRegistry(breaker.RegistryConfig{})
	require.NoError(t, err)
	for _, name := range hardNames {
		r.Breaker(name)
	}
	mux := http.NewServeMux()
	mux.Handle("/ops/breakers/", http.StripPrefix("/ops/breakers", r.Handler(breaker.Authorize(asAnn))))
	server := httptest.NewServer(mux)
	defer server.Close()
	s := served{r, server.URL}
	require.Contains(t, s.ask(t, "GET", "/ops/breakers/", "").body, `src="page/main.js"`)
	require.Equal(t, 200, s.ask(t, "GET", "/ops/breakers/page/main.js", "").status)
	for _, name := range hardNames {
		path := strings.ReplaceAll(url.PathEscape(name), ".", "%2E") // that mux would clean dots
		require.Equal(t, name, s.ask(t, "GET", "/ops/breakers"+list+"/"+path, "").breaker(t).Name)
		require.Equal(t, breaker.StateOpen, s.ask(t, "POST", "/ops/breakers/admin/circuit-breakers/"+path+"/trip", "").breaker(t).State)
	}
}
