package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What the gateway costs, against net/http/httputil's proxy in front of the same upstream. Upstream, gateway, proxy and load are
// processes apart, and rounds of both take turns, so that whatever else the machine does slows down both.
//
//	GATEWAY_OVERHEAD=9 go test -run TestOverhead -v .      nine rounds of half a second each, medians, and a verdict
//
// Without the variable it is one short round, which shows only that all parts work.
func TestOverhead(t *testing.T) {
	rounds, length := 1, time.Second
	if text := os.Getenv("GATEWAY_OVERHEAD"); text != "" {
		var err error
		rounds, err = strconv.Atoi(text)
		require.NoError(t, err)
		length = time.Second / 2
	}
	up := start(t, "upstream").line()
	gateway := startGateway(t, fmt.Sprintf("callers: [{name: team, key_env: TEAM_KEY}]\nproviders: {one: {base_url: 'http://%s', key_env: ONE_KEY}}\n"+
		"models: {chat: {primary: {provider: one, model: large}}}\n", up))
	plain := start(t, "proxy", up)
	proxy := plain.line()
	t.Log("profiles: ", gateway.inside+"/debug/pprof")
	for _, kind := range []string{"whole", "stream"} {
		t.Run(kind, func(t *testing.T) {
			var ours, theirs []loadResult
			for n := range rounds + 1 {
				b := measure(t, plain, proxy, kind, length)
				a := measure(t, gateway.process, trimURL(gateway.url), kind, length)
				if n > 0 || rounds == 1 { // the first warms up
					ours, theirs = append(ours, a), append(theirs, b)
					require.Zero(t, a.Failed, "answers of the gateway that were not whole")
				}
			}
			a, b := median(ours), median(theirs)
			loss := 1 - a.Rate/b.Rate
			t.Logf("gateway: %v; proxy: %v; %.1f %% fewer requests", a, b, 100*loss)
			if rounds > 1 {
				require.LessOrEqual(t, loss, 0.15)
			}
		})
	}
}

// median returns the medians of rate and latencies.
func median(all []loadResult) (m loadResult) {
	middle := func(less func(a, b loadResult) int) loadResult {
		slices.SortFunc(all, less)
		return all[len(all)/2]
	}
	m.Rate = middle(func(a, b loadResult) int { return int(a.Rate - b.Rate) }).Rate
	m.P50 = middle(func(a, b loadResult) int { return int(a.P50 - b.P50) }).P50
	m.P99 = middle(func(a, b loadResult) int { return int(a.P99 - b.P99) }).P99
	m.CPU = middle(func(a, b loadResult) int { return int(a.CPU - b.CPU) }).CPU
	return m
}

// measure has a load ask of what listens at address.
func measure(t *testing.T, of *process, address, kind string, length time.Duration) (result loadResult) {
	t.Helper()
	before := of.cpu()
	p := start(t, "load", address, kind, length.String())
	require.NoError(t, json.Unmarshal([]byte(p.line()), &result))
	p.kill()
	require.Positive(t, result.Answers)
	result.CPU = (of.cpu() - before) / time.Duration(result.Answers)
	return result
}

// cpu is the time that the process has had on a processor, to 10 ms. It is zero where there is no /proc.
func (p *process) cpu() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may have spaces in it
	fields := strings.Fields(rest)
	var ticks time.Duration
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		require.NoError(p.t, err)
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}

// loadResult is what a load brought.
type loadResult struct {
	Rate     float64 // whole answers a second
	P50, P99 time.Duration
	CPU      time.Duration // of what was asked, for an answer
	Answers  int           // whole
	Failed   int           // others
}

func (r loadResult) String() string {
	return fmt.Sprintf("%.0f/s, p50 %v, p99 %v, %v of CPU for each", r.Rate, r.P50, r.P99, r.CPU.Round(time.Microsecond))
}

const loadCallers = 32

// playLoad asks as often as it can, on loadCallers connections.
func playLoad(args []string) {
	address, kind := args[0], args[1]
	length, err := time.ParseDuration(args[2])
	if err != nil {
		fail(err)
	}
	body := chatBody("chat", kind == "stream")
	request := fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nUser-Agent: load\r\nContent-Type: application/json\r\n"+
		"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", teamKey, len(body), body)
	var callers sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	failed, last := 0, errNotWhole
	begun := time.Now()
	for range loadCallers {
		callers.Go(func() {
			for time.Since(begun) < length {
				own, err := askAgain(address, request, begun.Add(length))
				mu.Lock()
				if took = append(took, own...); err != nil {
					failed++
					last = err
				}
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	if len(took) == 0 {
		fail(last)
	}
	rate := float64(len(took)) / time.Since(begun).Seconds()
	slices.Sort(took)
	say(loadResult{
		Rate: rate, P50: took[len(took)/2].Round(time.Microsecond), P99: took[len(took)*99/100].Round(time.Microsecond),
		Answers: len(took), Failed: failed,
	})
}

// askAgain asks on one connection, one request after the other, until the instant or the first answer that is not whole.
func askAgain(address string, request []byte, until time.Time) (took []time.Duration, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	br := bufio.NewReader(conn)
	for last := time.Now(); last.Before(until); {
		if _, err := conn.Write(request); err != nil {
			return took, err
		}
		if err := readAnswer(br); err != nil {
			return took, err
		}
		now := time.Now()
		took, last = append(took, now.Sub(last)), now
	}
	return took, nil
}

var errNotWhole = errors.New("not an answer, or not all of it")

func readAnswer(br *bufio.Reader) error {
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != 200 || n < 300) {
		err = fmt.Errorf("%w: status %d, %d bytes", errNotWhole, resp.StatusCode, n)
	}
	return err
}

// playUpstream answers at once: in one piece, or with twenty events, each sent by itself.
func playUpstream([]string) {
	answer := []byte(completion("large", strings.SplitAfter("What is asked most often is answered with a sentence or two, and that is all.", " ")...))
	var stream [][]byte
	for _, e := range events("large", strings.SplitAfter("What is asked most often is answered with a sentence or two, and that is all.", " ")...) {
		stream = append(stream, []byte("data: "+e+"\n\n"))
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if !strings.Contains(string(asked), `"stream":true`) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
			_, _ = w.Write(answer)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		control := http.NewResponseController(w)
		for _, e := range stream {
			_, _ = w.Write(e)
			_ = control.Flush()
		}
	})}
	fail(s.Serve(listen()))
}

// playProxy is what there is without a gateway. Its transport keeps as many connections as there are callers, as the gateway's does.
func playProxy(args []string) {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: args[0]})
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 1 << 14, DisableCompression: true}
	s := &http.Server{Handler: proxy, ReadHeaderTimeout: 5 * time.Second}
	fail(s.Serve(listen()))
}
