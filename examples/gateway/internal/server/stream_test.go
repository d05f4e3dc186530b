package server

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

func TestAStreamIsPassedOnByteForByte(t *testing.T) {
	odd := `data: {"id":"x", "choices":[{"index":0, "delta":{"content":"é\u00e9"}, "finish_reason" : null}], "x":{"y":[1]}}` + "\n\n"
	a, b := newProvider(t, streams(roleEvent, delta("one"), odd, finishEvent, doneEvent)), newProvider(t, says("", ""))
	r := start(t, two, a, b).askStream(t)
	r.source(t, "primary", "1")
	require.Equal(t, "text/event-stream", r.header.Get("Content-Type"))
	require.Equal(t, roleEvent+delta("one")+odd+finishEvent+doneEvent, r.body)
}

// Each row: what the primary streams, and what the caller gets. A fallback stands ready.
func TestHowStreamsEnd(t *testing.T) {
	fallback := []string{roleEvent, delta("fallback"), finishEvent, doneEvent}
	whole := strings.Join(fallback, "")
	tests := []struct {
		name    string
		primary []string
		body    string // "" for a broken end
		source  string
		code    string // of the error event at a broken end
		limits  []string
	}{
		{"cut before the first content", []string{roleEvent, "cut"}, whole, "two/small", "", nil},
		{"ended before the first content", []string{roleEvent}, whole, "two/small", "", nil},
		{"stalled before the first content", []string{roleEvent, ": ping\n\n", "wait"}, whole, "two/small", "", []string{"first_content: 1s"}},
		{"an error event before the first content", []string{roleEvent, `data: {"error":{"message":"busy","type":"overloaded_error"}}` + "\n\n"}, whole, "two/small", "", nil},
		{"done before anything", []string{doneEvent}, whole, "two/small", "", nil},
		{"cut in the middle", []string{delta("a"), delta("b"), "cut"}, "", "primary", "answer_cut", nil},
		{"ended in the middle", []string{delta("a"), delta("b")}, "", "primary", "answer_cut", nil},
		{"DONE without a finish reason", []string{delta("a"), doneEvent}, "", "primary", "answer_cut", nil},
		{"stalled in the middle", []string{delta("a"), "wait"}, "", "primary", "timeout", []string{"between_contents: 1s"}},
		{"kept alive but silent in the middle", []string{delta("a"), ": ping\n\n", "wait"}, "", "primary", "timeout", []string{"between_contents: 1s"}},
		{"an error event in the middle", []string{delta("a"), `data: {"error":{"message":"busy","type":"overloaded_error","code":"busy_now"}}` + "\n\n", doneEvent}, "", "primary", "busy_now", nil},
		{"a malformed event in the middle", []string{delta("a"), "data: {\"cho\n\n", delta("b"), finishEvent, doneEvent}, delta("a") + delta("b") + finishEvent + doneEvent, "primary", "", nil},
		{"no DONE", []string{delta("a"), finishEvent}, delta("a") + finishEvent + doneEvent, "primary", "", nil},
		{"no DONE and no end", []string{delta("a"), finishEvent, "wait"}, delta("a") + finishEvent + doneEvent, "primary", "", nil},
		{"an empty answer", []string{roleEvent, finishEvent, doneEvent}, roleEvent + finishEvent + doneEvent, "primary", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // some wait for a limit
			a, b := newProvider(t, streams(tt.primary...)), newProvider(t, streams(fallback...))
			r := start(t, short(two, tt.limits...), a, b).askStream(t)
			require.Equal(t, 200, r.status)
			require.Less(t, r.took, prompt)
			require.Equal(t, tt.source, r.header.Get("x-breaker-source"))
			if tt.body != "" {
				require.NoError(t, r.err)
				require.Equal(t, tt.body, r.body)
				return
			}
			require.ErrorIs(t, r.err, io.ErrUnexpectedEOF, "the end must be a broken one")
			require.NotContains(t, r.body, "[DONE]")
			events := strings.Split(strings.TrimSpace(r.body), "\n\n")
			require.Contains(t, events[len(events)-1], `data: {"error":{`)
			require.Contains(t, events[len(events)-1], `"code":"`+tt.code+`"`)
			require.Zero(t, b.calls(), "no other answer after content")
		})
	}
}

func TestAFinishedStreamEndsAtOnce(t *testing.T) {
	a, b := newProvider(t, streams(delta("a"), finishEvent, "wait")), newProvider(t, says("", ""))
	g := start(t, two, a, b)
	r := g.askStream(t)
	require.Less(t, r.took, prompt, "the limit between contents is a minute")
	require.Equal(t, 1, g.status(t, "one/large").Metrics.SuccessfulCalls)
}

func TestUsageAfterTheFinishArrives(t *testing.T) {
	usage := `data: {"choices":[],"usage":{"total_tokens":3}}` + "\n\n"
	a, b := newProvider(t, streams(delta("a"), finishEvent+usage+doneEvent)), newProvider(t, says("", ""))
	r := start(t, two, a, b).askStream(t)
	require.Equal(t, delta("a")+finishEvent+usage+doneEvent, r.body)
}

func TestEventsArriveAsTheyCome(t *testing.T) {
	next := make(chan struct{})
	primary := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, delta("a"))
		http.NewResponseController(w).Flush()
		<-next
		io.WriteString(w, delta("b")+finishEvent+doneEvent)
	}
	a, b := newProvider(t, primary), newProvider(t, says("", ""))
	g := start(t, two, a, b)
	resp := g.open(t, t.Context())
	reader := bufio.NewReader(resp.Body)
	line, err := reader.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, `"a"`)
	close(next)
	rest, err := io.ReadAll(reader)
	require.NoError(t, err)
	require.Contains(t, string(rest), "[DONE]")
}

// open begins a streamed request and leaves its body to the test.
func (g *gateway) open(t *testing.T, ctx context.Context) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.server.URL+"/v1/chat/completions", strings.NewReader(streamed))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+callerKey)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestCallersThatHangUpChangeNoBreaker(t *testing.T) {
	gone := make(chan struct{}, 200)
	primary := func(w http.ResponseWriter, r *http.Request) {
		streams(delta("a"), "wait")(w, r)
		gone <- struct{}{}
	}
	a, b := newProvider(t, primary), newProvider(t, says("", ""))
	g := start(t, two, a, b)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		resp := g.open(t, ctx)
		_, err := resp.Body.Read(make([]byte, 10))
		require.NoError(t, err)
		cancel()
		<-gone // the provider is not left talking
	}
	require.Eventually(t, func() bool { return g.status(t, "one/large").Metrics.IgnoredCalls == 20 }, time.Minute, time.Millisecond)
	s := g.status(t, "one/large")
	require.Equal(t, breaker.StateClosed, s.State)
	require.Zero(t, s.Metrics.FailedCalls)
	require.Zero(t, b.calls(), "nobody is asked for a caller that has gone")
}

func TestEventsWithoutContentAreNotCollectedForEver(t *testing.T) {
	a := newProvider(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, roleEvent); err != nil {
				return
			}
		}
	})
	b := newProvider(t, streams(delta("fallback"), finishEvent, doneEvent))
	start(t, two, a, b).askStream(t).source(t, "two/small", "2")
}

// Each limit costs the caller what it says, and no more.
func TestAStreamWithoutHeadersCostsTheirLimit(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	a, b := newProvider(t, hang), newProvider(t, streams(delta("fallback"), finishEvent, doneEvent))
	g := start(t, short(two, "headers: 100ms"), a, b)
	r := g.askStream(t)
	r.source(t, "two/small", "2")
	require.Less(t, r.took, prompt, "the limit of the first content is a minute")
	require.Equal(t, 1, g.status(t, "one/large").Metrics.FailedCalls)
}

func TestAConnectionHasALimit(t *testing.T) {
	a, b := newProvider(t, says("large", "no")), newProvider(t, says("small", "no"))
	r := start(t, strings.Replace(two, "limits: {", "limits: {connect: 1ns, ", 1), a, b).ask(t)
	require.Equal(t, http.StatusGatewayTimeout, r.status, r.body)
	require.Zero(t, a.calls()+b.calls())
}

func TestACallerWhoDoesNotReadIsCutOff(t *testing.T) {
	left := make(chan struct{})
	primary := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for more := delta(strings.Repeat("x", 10_000)); r.Context().Err() == nil; {
			if _, err := io.WriteString(w, more); err != nil {
				break
			}
		}
		close(left)
	}
	a, b := newProvider(t, primary), newProvider(t, says("", ""))
	g := start(t, short(two, "caller: 300ms"), a, b)
	g.open(t, t.Context())
	select {
	case <-left:
	case <-time.After(time.Minute):
		t.Fatal("the provider is still talking to a caller who does not listen")
	}
	require.Eventually(t, func() bool { return g.status(t, "one/large").Metrics.IgnoredCalls == 1 }, time.Minute, time.Millisecond)
	require.Zero(t, g.status(t, "one/large").Metrics.FailedCalls)
}
