package server

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

func TestAReloadLeavesRequestsAndBreakersAlone(t *testing.T) {
	release := make(chan struct{})
	primary := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, delta("a"))
		http.NewResponseController(w).Flush()
		<-release
		io.WriteString(w, delta("b")+finishEvent+doneEvent)
	}
	a, b := newProvider(t, primary), newProvider(t, says("small", "ok"))
	g := start(t, two, a, b)
	resp := g.open(t, t.Context())
	open, _ := g.Registry().Lookup("two/small")
	open.Trip("test")

	other := strings.ReplaceAll(two, "{provider: one, model: large, context: 1000}", "{provider: two, model: new}")
	require.NoError(t, g.Apply(parse(t, other+"\ncircuit_breaker: {default: {failure_threshold: 7}}\n", a, b)))
	close(release)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "[DONE]", "a stream of the old configuration goes on to its end")

	require.Equal(t, breaker.StateOpen, open.State(), "a breaker keeps its state")
	require.Equal(t, 7, open.Config().FailureThreshold)
	_, there := g.Registry().Lookup("one/large")
	require.False(t, there, "a target that is gone has no breaker")
	r := g.ask(t)
	r.source(t, "primary", "1")
	require.Contains(t, b.requests()[0].body, `"model":"new"`)
}

const withLast = `
callers: [{name: team, key_env: CALLER_KEY}]
providers: {one: {base_url: "{a}"}}
models:
  chat:
    primary: {provider: one, model: large}
    last_resort:
      rules: [{contains: [price, COST], text: "See the price list."}]
      text: "Please come back later."
` + limitsForTests

func TestTheLastResort(t *testing.T) {
	a := newProvider(t, fails(503, "", "down"))
	g := start(t, withLast, a)
	r := g.ask(t)
	r.source(t, "default", "2")
	require.Contains(t, r.body, `"content":"Please come back later."`)
	require.Contains(t, r.body, `"model":"last-resort"`)

	r = g.post(t, "/v1/chat/completions", `{"model":"chat","messages":[{"role":"user","content":[{"type":"text","text":"What does it Cost?"}]}]}`)
	require.Equal(t, "rule", r.header.Get("x-breaker-source"))
	require.Contains(t, r.body, "See the price list.")

	one, _ := g.Registry().Lookup("one/large")
	one.Trip("test")
	r = g.askStream(t)
	r.source(t, "default", "0")
	require.Equal(t, "text/event-stream", r.header.Get("Content-Type"))
	require.Contains(t, r.body, "Please come back later.")
	require.True(t, strings.HasSuffix(r.body, doneEvent))
	require.Equal(t, 503, g.post(t, "/v1/embeddings", `{"model":"chat","input":"x"}`).status, "a text is no vector")

	one.Reset("test")
	a.set(fails(400, "", "your mistake"))
	require.Equal(t, 400, g.ask(t).status, "the caller's mistake is no outage")
}
