package breaker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sent is one event of a stream.
type sent struct {
	kind string
	data json.RawMessage
}

func (e sent) statuses(t *testing.T) (all map[string]Status) {
	t.Helper()
	require.NoError(t, json.Unmarshal(e.data, &all), string(e.data))
	return all
}

// watcher is an event client.
type watcher struct {
	t      *testing.T
	events *bufio.Scanner
	close  func()
}

func watchStream(t *testing.T, client *http.Transport) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x"+listPath, nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "text/event-stream")
	res, err := client.RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, "text/event-stream", res.Header.Get("Content-Type"))
	require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	scanner := bufio.NewScanner(res.Body)
	scanner.Buffer(nil, 64<<20)
	return &watcher{t, scanner, func() { cancel(); res.Body.Close() }}
}

// next returns the next event, of one of the kinds if any are given.
func (w *watcher) next(kinds ...string) sent {
	w.t.Helper()
	var e sent
	for w.events.Scan() {
		line := w.events.Text()
		switch kind, ok := strings.CutPrefix(line, "event: "); {
		case ok:
			e.kind = kind
		case strings.HasPrefix(line, "data: "):
			e.data = json.RawMessage(strings.TrimPrefix(line, "data: "))
		case line == "":
			if slices.Contains(kinds, e.kind) {
				return e
			}
			if len(kinds) == 0 {
				return e
			}
		default:
			w.t.Fatalf("not a line of an event stream: %q", line)
		}
	}
	require.NoError(w.t, w.events.Err())
	return sent{} // the stream has ended
}

// registryOf makes a registry and the handler of somebody who may give orders.
func registryOf(t *testing.T, names ...string) (*Registry, http.Handler) {
	t.Helper()
	r, err := NewRegistry(RegistryConfig{Default: Config{OpenTimeoutJitter: Off}})
	require.NoError(t, err)
	for _, name := range names {
		r.Breaker(name)
	}
	return r, r.Handler(Authorize(func(*http.Request) (string, bool) { return "ann", true }))
}

// streaming runs a test of the event stream on a fake clock. Each call of watch is another client.
func streaming(t *testing.T, names []string, test func(t *testing.T, r *Registry, watch func() *watcher)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r, h := registryOf(t, names...)
		client := serveInBubble(t, &http.Server{Handler: h})
		test(t, r, func() *watcher { return watchStream(t, client) })
	})
}

func TestAStreamIsASnapshotThenWhatHappens(t *testing.T) {
	streaming(t, []string{"a", "b"}, func(t *testing.T, r *Registry, watch func() *watcher) {
		w := watch()
		first := w.next()
		require.Equal(t, "snapshot", first.kind)
		require.Len(t, first.statuses(t), 2)
		require.JSONEq(t, `{"who": "ann", "may_act": true}`, string(w.next("session").data))

		began := time.Now()
		r.Breaker("b").ForceOpen(Hold{By: "raj", Reason: "test", For: time.Hour})
		moved := w.next("transition", "status")
		require.Equal(t, "transition", moved.kind, "before the status that it led to")
		var e struct {
			Name, From, To, Rule, Reason string
			Seq                          int
			At                           time.Time
			Hold                         map[string]string
		}
		require.NoError(t, json.Unmarshal(moved.data, &e))
		assert.Equal(t, []any{"b", "closed", "forced_open", "hold", "test", 1}, []any{e.Name, e.From, e.To, e.Rule, e.Reason, e.Seq})
		assert.Equal(t, map[string]string{"by": "raj", "reason": "test", "for": "1h0m0s"}, e.Hold)
		assert.True(t, began.Equal(e.At), e.At)

		changed := w.next("status").statuses(t)
		require.Len(t, changed, 1, "only what changed")
		require.Equal(t, StateForcedOpen, changed["b"].State)
		assert.Zero(t, time.Since(began), "at once, not with the next second")
	})
}

func TestATripIsToldWithItsReason(t *testing.T) {
	streaming(t, []string{"a"}, func(t *testing.T, r *Registry, watch func() *watcher) {
		w := watch()
		w.next("session")
		fail(r.Breaker("a"), 5)
		var e struct{ Trip Trip }
		require.NoError(t, json.Unmarshal(w.next("transition").data, &e))
		assert.Equal(t, RuleConsecutiveFailures, e.Trip.Rule)
		assert.NotEmpty(t, e.Trip.Errors)
	})
}

func TestEveryClientHearsOfATransitionAtOnce(t *testing.T) {
	streaming(t, []string{"a"}, func(t *testing.T, r *Registry, watch func() *watcher) {
		clients := make([]*watcher, 5)
		for i := range clients {
			clients[i] = watch()
			clients[i].next("session")
		}
		for range 3 {
			clients[0].next("tick")
			time.Sleep(300 * time.Millisecond) // before the next
			began := time.Now()
			r.Breaker("a").ForceOpen(Hold{})
			for _, w := range clients {
				require.Equal(t, "transition", w.next("transition").kind)
				require.NotEmpty(t, w.next("status").statuses(t))
			}
			assert.Zero(t, time.Since(began))
		}
	})
}

func TestRisksComeWithTheStatusesTheyAreOf(t *testing.T) {
	streaming(t, []string{"a", "b"}, func(t *testing.T, r *Registry, watch func() *watcher) {
		w := watch()
		var risks map[string]Risk
		require.NoError(t, json.Unmarshal(w.next("risk").data, &risks))
		require.Len(t, risks, 2)
		require.Equal(t, RiskLow, risks["a"].Level)
		r.Breaker("a").Trip("")
		risks = nil
		require.NoError(t, json.Unmarshal(w.next("risk").data, &risks))
		require.Equal(t, map[string]Risk{"a": Assess(r.Breaker("a").Status(), RiskThresholds{})}, risks)
	})
}

func TestChangedStatusesComeEachSecondAndOthersDoNot(t *testing.T) {
	streaming(t, []string{"busy", "idle", "open"}, func(t *testing.T, r *Registry, watch func() *watcher) {
		r.Breaker("open").Trip("its countdown alone is no change")
		w := watch()
		w.next("session")
		for range 3 {
			_ = succeedQuietly(r.Breaker("busy"), 1)
			changed := w.next("status").statuses(t)
			require.Len(t, changed, 1)
			require.Contains(t, changed, "busy")
		}
		var tick struct{ At time.Time }
		require.NoError(t, json.Unmarshal(w.next("tick").data, &tick))
		assert.True(t, time.Now().Equal(tick.At), tick.At)
	})
}

func TestATickComesEachSecondThoughNothingHappens(t *testing.T) {
	streaming(t, []string{"a"}, func(t *testing.T, _ *Registry, watch func() *watcher) {
		w := watch()
		began := time.Now()
		for n := range 3 {
			w.next("tick")
			assert.Equal(t, time.Duration(n)*time.Second, time.Since(began))
		}
	})
}

func TestNamesThatComeAndGo(t *testing.T) {
	streaming(t, []string{"old"}, func(t *testing.T, r *Registry, watch func() *watcher) {
		w := watch()
		w.next("session")
		r.Remove("old")
		r.Breaker("new")
		require.JSONEq(t, `["old"]`, string(w.next("removed").data))
		require.Contains(t, w.next("status").statuses(t), "new")
		r.Remove("new")
		r.Breaker("new").Trip("another of that name")
		require.Equal(t, StateOpen, w.next("status").statuses(t)["new"].State)
	})
}

func TestHowAStreamIsAskedFor(t *testing.T) {
	for accept, want := range map[string]bool{
		"text/event-stream": true, "application/json, text/event-stream;q=0.9": true, "Text/Event-Stream": true,
		"": false, "*/*": false, "text/*": false, "application/json": false, "text/event-stream;q=0": false, ";;;": false,
	} {
		r := httptest.NewRequest(http.MethodGet, listPath, nil)
		r.Header.Set("Accept", accept)
		assert.Equal(t, want, wantsEvents(r), accept)
	}
}

func TestAWriterThatCannotFlushIsAnErrorThatSaysSo(t *testing.T) {
	r, err := NewRegistry(RegistryConfig{})
	require.NoError(t, err)
	w := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, listPath, nil)
	req.Header.Set("Accept", "text/event-stream")
	r.Handler().ServeHTTP(struct{ http.ResponseWriter }{w}, req)
	assert.Equal(t, 500, w.Code)
	assert.Contains(t, w.Body.String(), "Unwrap")
}

func TestAServersTimeoutsDoNotEndAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, h := registryOf(t)
		w := watchStream(t, serveInBubble(t, &http.Server{Handler: h, ReadTimeout: 300 * time.Millisecond, WriteTimeout: 300 * time.Millisecond}))
		for range 3 {
			require.Equal(t, "tick", w.next("tick").kind)
		}
	})
}

// The feed without a server, on a fake clock.

func feedOf(t *testing.T, names ...string) (*Registry, *feed) {
	t.Helper()
	r, _ := registryOf(t, names...)
	return r, newFeed(r)
}

func text(b telling) (s string) {
	for _, f := range b.frames {
		s += string(f)
	}
	return s
}

func TestStatusesAreMarshalledOnceForAllClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := make([]string, 1000)
		for i := range names {
			names[i] = fmt.Sprint("b", i)
		}
		r, f := feedOf(t, names...)
		var clients []*cursor
		for range 1000 {
			clients = append(clients, f.join())
			f.next(clients[len(clients)-1])
		}
		for _, name := range names {
			_ = succeedQuietly(r.Breaker(name), 1)
		}
		time.Sleep(time.Second)
		first := f.next(clients[0])
		require.Contains(t, text(first), "event: status")
		allocated := testing.AllocsPerRun(1, func() {
			for _, c := range clients[1:] {
				again := *c
				b := f.next(&again)
				if &b.frames[0][0] != &first.frames[0][0] {
					t.Fatal("its own copy")
				}
			}
		})
		assert.Less(t, allocated, 5.0*1000, "a million statuses are not made")
		for range clients {
			f.leave()
		}
	})
}

func TestAFastSecondIsLookedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f := feedOf(t, "a")
		a, b := f.join(), f.join()
		f.next(a)
		f.next(b)
		for range 10 {
			time.Sleep(time.Second)
			looks := f.looks
			f.next(a)
			time.Sleep(time.Millisecond)
			f.next(b)
			require.Equal(t, looks+1, f.looks)
			require.Equal(t, a.version, b.version)
		}
	})
}

func TestALongerWaitIsNewsThoughNothingElseChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := feedOf(t, "a")
		b := r.Breaker("a")
		b.Trip("")
		c := f.join()
		f.next(c)
		for _, want := range []bool{false, true, false} {
			time.Sleep(10 * time.Second)
			if want {
				b.Trip("again")
			}
			require.Equal(t, want, strings.Contains(text(f.next(c)), "event: status"))
		}
	})
}

func TestAClientThatFallsBehindIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := feedOf(t, "a")
		quick, slow := f.join(), f.join()
		f.next(quick)
		f.next(slow)
		b := r.Breaker("a")
		for range maxMoves {
			b.ForceOpen(Hold{})
			require.False(t, f.next(quick).behind)
		}
		same := *slow
		require.Equal(t, maxMoves, strings.Count(text(f.next(&same)), "event: transition"), "so far it can be")
		b.Release()
		require.False(t, f.next(quick).behind)
		require.True(t, f.next(slow).behind)
		require.LessOrEqual(t, len(f.moves), maxMoves)
	})
}

func TestEventsThatNobodyTakesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := feedOf(t, "a")
		c := f.join()
		f.next(c)
		for range 10 * maxMoves {
			r.Breaker("a").ForceOpen(Hold{})
		}
		require.Len(t, f.inbox.events, maxMoves)
		require.True(t, f.next(c).behind, "it could not be told of all")
		fresh := f.join()
		require.Contains(t, text(f.next(fresh)), "event: snapshot")
	})
}

func TestManyRemovalsBetweenTwoLooksAreASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := feedOf(t, "stays")
		c := f.join()
		for i := range maxRemoved + 1 {
			r.Breaker(fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		f.next(c)
		late := *c
		for i := range maxRemoved + 1 {
			r.Remove(fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		out := text(f.next(&late))
		require.Contains(t, out, "event: snapshot")
		require.NotContains(t, out, "event: removed")
		require.LessOrEqual(t, len(f.removed), maxRemoved)
	})
}

func TestTheFeedIsEmptyWithoutClients(t *testing.T) {
	r, f := feedOf(t, "a")
	for range 3 {
		a, b := f.join(), f.join()
		f.next(a)
		f.next(b)
		r.Breaker("a").Trip("")
		f.next(a)
		f.leave()
		require.Len(t, f.entries, 1)
		require.Len(t, r.listeners.all(), 1)
		f.leave()
		require.Empty(t, f.entries)
		require.Empty(t, f.moves)
		require.Empty(t, r.listeners.all(), "calls pay nothing for a page that nobody looks at")
		r.Breaker("a").Reset("")
		require.Empty(t, f.inbox.events)
	}
}

// A caller whose call opens a breaker waits for no client: put takes no lock that a client holds while it works.
func TestATransitionWaitsForNoClient(t *testing.T) {
	r, f := feedOf(t, "a")
	f.join()
	f.mu.Lock()
	defer f.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 1000 {
			r.Breaker("a").Trip("")
			r.Breaker("a").Reset("")
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("a caller waits for the feed")
	}
}

func TestAClientGetsItsSnapshotHoweverMuchHappensAsItComes(t *testing.T) {
	r, f := feedOf(t, "a")
	c := f.join()
	for range 2 * maxMoves {
		r.Breaker("a").Trip("")
		r.Breaker("a").Reset("")
	}
	told := f.next(c)
	require.False(t, told.behind)
	require.NotEmpty(t, told.frames)
	require.True(t, strings.HasPrefix(string(told.frames[0]), "event: snapshot"))
}

func TestAThousandEventClientsComeAndVanishAndNothingIsLeft(t *testing.T) {
	names := make([]string, 20)
	for i := range names {
		names[i] = fmt.Sprint("b", i)
	}
	r, h := registryOf(t, names...)
	server := httptest.NewServer(h)
	defer server.Close()
	before := held(t)
	stop := make(chan struct{})
	var calls sync.WaitGroup
	calls.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				r.Breaker(names[i%20]).ForceOpen(Hold{Reason: fmt.Sprint(i)})
			}
		}
	})
	var served atomic.Int64
	var clients sync.WaitGroup
	places := make(chan struct{}, 100)
	for range 1000 {
		clients.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close() // without a word
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n", listPath)
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			read := bufio.NewReader(conn)
			for {
				line, err := read.ReadString('\n')
				if err != nil {
					t.Error(err)
					return
				}
				if strings.HasPrefix(line, "event: snapshot") {
					served.Add(1)
					return
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	calls.Wait()
	assert.EqualValues(t, 1000, served.Load())
	assert.True(t, settles(t, before))
	assert.Empty(t, r.listeners.all())
}

func TestAClientThatNeverReadsIsDisconnected(t *testing.T) {
	names := make([]string, 200)
	for i := range names {
		names[i] = fmt.Sprint("b", i)
	}
	r, err := NewRegistry(RegistryConfig{})
	require.NoError(t, err)
	for _, name := range names {
		r.Breaker(name)
	}
	h := &handler{registry: r, feed: newFeed(r), patience: 200 * time.Millisecond}
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h.stream(w, req)
		close(ended)
	}))
	defer server.Close()
	before := held(t)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")

	deadline := time.After(2 * time.Minute)
	for i := 0; ; i++ {
		select {
		case <-ended:
			assert.Empty(t, r.listeners.all())
			_, err := io.Copy(io.Discard, conn)
			_ = err // reset, or the end
			conn.Close()
			assert.True(t, settles(t, before))
			return
		case <-deadline:
			t.Fatal("it is served for ever")
		default:
			r.Breaker(names[i%len(names)]).ForceOpen(Hold{Reason: strings.Repeat("x", 4000)})
			time.Sleep(10 * time.Microsecond)
		}
	}
}
