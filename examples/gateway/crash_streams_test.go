package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker/examples/gateway/internal/faultserver"
)

// Some thousand callers, each on a connection of its own, are in the middle of their answers when the upstream's process dies. A
// quarter of them has got nothing yet. Gateway, upstream and callers are processes apart.
//
//	GATEWAY_STREAMS=4000 go test -run TestCrashStreams -v ./gateway
//
// The default is fewer, since the race detector stops at 8,128 goroutines and the gateway has four for each stream.
func TestCrashStreamsOverAnUpstreamThatDiesEndBrokenOrAreAnsweredByTheFallback(t *testing.T) {
	n := 500
	if text := os.Getenv("GATEWAY_STREAMS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	files := allowFiles()
	require.Greater(t, files, uint64(2*n+200), "the gateway needs two files a stream: raise the limit (ulimit -n), or set GATEWAY_STREAMS lower")

	endless := start(t, "endless")
	fallback := startUpstream(t, ofFallback)
	gateway := startGateway(t, fmt.Sprintf(rigConfig, endless.line(), "openai", fallback.URL)+patient(""))
	before := gateway.vitals()

	callers := start(t, "streams", trimURL(gateway.url), strconv.Itoa(n))
	require.Equal(t, "streaming", callers.line())
	during := gateway.vitals()
	endless.kill()
	var got outcomes
	require.NoError(t, json.Unmarshal([]byte(callers.line()), &got))
	callers.kill()

	t.Logf("%d streams: %+v; gateway before %+v, during %+v", n, got, before, during)
	require.Equal(t, n-n/4, got.Broken, "each that had begun")
	require.Equal(t, n/4, got.Whole, "each that had not")
	require.Equal(t, n/4, fallback.Count())
	require.Zero(t, got.Polite, "half an answer that ends as if it were whole")

	fallback.Drop()
	var after vitals
	require.Eventually(t, func() bool {
		after = gateway.vitals()
		return after.Goroutines <= before.Goroutines+5 && after.Files <= before.Files+5
	}, 2*time.Minute, 50*time.Millisecond, "left in the gateway: %+v, before: %+v", &after, before)

	r := &rig{t: t, url: gateway.url, http: &http.Client{Transport: &http.Transport{}}}
	requireFallback(t, r.ask("chat", true))
	r.http.CloseIdleConnections()
}

// playEndless is an upstream whose answers never end, and of which every fourth has not begun yet.
func playEndless([]string) {
	word := faultserver.Events(said("large", "word "))
	words := func(e *faultserver.Exchange) error {
		for {
			if err := word(e); err != nil {
				return err
			}
			if err := faultserver.Pause(200 * time.Millisecond)(e); err != nil {
				return err
			}
		}
	}
	s, err := faultserver.Start(func(r faultserver.Request) faultserver.Answer {
		if r.N%4 == 3 {
			return faultserver.Answer{faultserver.EventStream(), faultserver.Hang()}
		}
		return faultserver.Answer{faultserver.EventStream(), faultserver.Events(role("large")), words}
	})
	if err != nil {
		fail(err)
	}
	say(s.URL)
	select {}
}

// outcomes is how streams ended.
type outcomes struct {
	Whole  int // complete, and a clean end
	Broken int // an error event, and a broken end
	Torn   int // a broken end without an error event
	Failed int // an error in place of an answer, or no answer
	Polite int // a clean end, and not complete
	Hints  []string
}

// playStreams opens streams and reads them to their ends. It says "streaming" when those that can have begun.
func playStreams(args []string) {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		fail(err)
	}
	var begun atomic.Int64
	var callers sync.WaitGroup
	var mu sync.Mutex
	var all outcomes
	for range n {
		callers.Go(func() {
			body, status, err := readStream(args[0], func() {
				if begun.Add(1) == int64(n-n/4) {
					say("streaming")
				}
			})
			mu.Lock()
			defer mu.Unlock()
			all.count(body, status, err)
		})
		time.Sleep(200 * time.Microsecond) // the kernel's queue of connections has its limit
	}
	callers.Wait()
	say(all)
}

func (o *outcomes) count(body []byte, status int, err error) {
	told := bytes.Contains(body, []byte(`{"error":{`))
	switch {
	case status != 200:
		o.Failed++
		if len(o.Hints) < 3 {
			o.Hints = append(o.Hints, fmt.Sprint(status, err, string(body)))
		}
	case err != nil && told:
		o.Broken++
	case err != nil:
		o.Torn++
	case bytes.Contains(body, []byte(`"finish_reason":"stop"`)) && bytes.HasSuffix(body, []byte("data: [DONE]\n\n")) && !told:
		o.Whole++
	default:
		o.Polite++
	}
}

// readStream reads one stream to its end. It calls begun when something has been said in it.
func readStream(address string, begun func()) (body []byte, status int, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	request := chatBody("chat", true)
	_, err = fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", teamKey, len(request), request)
	if err != nil {
		return nil, 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	piece := make([]byte, 1<<10)
	for {
		n, err := resp.Body.Read(piece)
		if body = append(body, piece[:n]...); begun != nil && bytes.Contains(body, []byte("word")) {
			begun()
			begun = nil
		}
		if err != nil {
			return body, resp.StatusCode, notEOF(err)
		}
	}
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
