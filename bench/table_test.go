package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the table into the README")

var errDown = errors.New("down")

func down(context.Context) error { return errDown }
func well(context.Context) error { return nil }

// A check puts a fresh breaker of one library into a situation and says what came of it. want is what this library promises.
type check struct {
	situation string
	want      string
	run       func(*testing.T, library) string
}

var checks = []check{
	{"three probes hang; 24 h later a call is", "admitted", with(settings{}, afterLostProbes(hang))},
	{"three probes end by `runtime.Goexit`; 24 h later a call is", "admitted", with(settings{}, afterLostProbes(goexit))},
	{"three calls from before the outage succeed while it probes; it then is", "half-open", with(settings{}, lateSuccesses)},
	{"20 calls hang for a minute, the limit for slow calls being 2 s; it", "opens", with(settings{slow: 2 * time.Second}, hungCalls)},
	{"5 calls fail in a row, 90 s apart, beside a rate over 60 s; it", "opens", with(settings{window: time.Minute}, sparseFailures)},
	{"150 calls fail, each after 3 min, with a rate over 60 s; it", "opens", with(settings{window: time.Minute}, longFailures)},
	{"100 callers cancel their calls, by default it", "stays closed", with(settings{}, cancellations)},
	{"a state callback asks for the state; it gets", "an answer", callbackAsks},
	{"a state callback panics; the calls that follow are", "refused, later admitted", callbackPanics},
}

// with runs a check in a synctest bubble, on a breaker with these settings.
func with(s settings, run func(*testing.T, peer) string) func(*testing.T, library) string {
	return func(t *testing.T, l library) (found string) {
		synctest.Test(t, func(t *testing.T) { found = run(t, l.make(s)) })
		return found
	}
}

func hang(release chan struct{}) { <-release }
func goexit(chan struct{})       { runtime.Goexit() }

// trip fails until p is open, and waits until it probes if asked to.
func trip(t *testing.T, p peer, wait time.Duration) {
	for range 5 {
		require.ErrorIs(t, p.do(t.Context(), down), errDown)
	}
	require.Equal(t, "open", p.state())
	time.Sleep(wait)
}

func afterLostProbes(lose func(release chan struct{})) func(*testing.T, peer) string {
	return func(t *testing.T, p peer) string {
		trip(t, p, 31*time.Second)
		release := make(chan struct{})
		var probes sync.WaitGroup
		for range 3 {
			probes.Go(func() {
				_ = p.do(t.Context(), func(context.Context) error { lose(release); return nil })
			})
		}
		synctest.Wait()
		_ = p.do(t.Context(), well) // one that looks in while the probes run
		time.Sleep(24 * time.Hour)
		err := p.do(t.Context(), well)
		close(release)
		probes.Wait()
		return admission(err)
	}
}

func admission(err error) string {
	if refused(err) {
		return "refused"
	}
	return "admitted"
}

func lateSuccesses(t *testing.T, p peer) string {
	release := make(chan struct{})
	var early sync.WaitGroup
	for range 3 {
		early.Go(func() {
			_ = p.do(t.Context(), func(context.Context) error { <-release; return nil })
		})
	}
	synctest.Wait()
	trip(t, p, 31*time.Second)
	require.NoError(t, p.do(t.Context(), well)) // the first probe: half-open now, two more to go
	close(release)
	early.Wait()
	return p.state()
}

func hungCalls(t *testing.T, p peer) string {
	release := make(chan struct{})
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			_ = p.do(t.Context(), func(context.Context) error { <-release; return nil })
		})
	}
	time.Sleep(time.Minute)
	found := opened(p)
	close(release)
	calls.Wait()
	return found
}

// opened counts half-open too: it did open.
func opened(p peer) string {
	if p.state() == "closed" {
		return "stays closed"
	}
	return "opens"
}

func sparseFailures(t *testing.T, p peer) string {
	for range 5 {
		require.ErrorIs(t, p.do(t.Context(), down), errDown)
		if p.state() == "open" {
			break
		}
		time.Sleep(90 * time.Second)
	}
	return opened(p)
}

func longFailures(t *testing.T, p peer) string {
	var calls sync.WaitGroup
	for range 150 {
		time.Sleep(time.Second)
		calls.Go(func() {
			_ = p.do(t.Context(), func(context.Context) error { time.Sleep(3 * time.Minute); return errDown })
		})
	}
	calls.Wait()
	return opened(p)
}

func cancellations(t *testing.T, p peer) string {
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		_ = p.do(ctx, func(ctx context.Context) error { cancel(); return ctx.Err() })
	}
	return opened(p)
}

// callbackAsks lets the callback ask on another goroutine: with the lock held that one cannot get on until the callback has
// returned, and a callback that asked by itself would wait for ever. No clock is needed to tell the two apart.
func callbackAsks(t *testing.T, l library) string {
	answered := false
	var asking sync.WaitGroup
	p := l.make(settings{onChanged: func(p peer) {
		var done atomic.Bool
		asking.Go(func() { p.state(); done.Store(true) })
		for range 1_000_000 {
			if runtime.Gosched(); done.Load() {
				answered = true
				return
			}
		}
	}})
	for range 5 {
		_ = p.do(t.Context(), down)
	}
	asking.Wait()
	if answered {
		return "an answer"
	}
	return "a deadlock"
}

// callbackPanics runs in a process of its own, since not every library survives it.
func callbackPanics(t *testing.T, l library) string {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestPanickingCallback$")
	cmd.Env = append(os.Environ(), "BENCH_LIBRARY="+l.name)
	out, err := cmd.CombinedOutput()
	if err != nil {
		require.Contains(t, string(out), "fatal error: sync: unlock of unlocked mutex", "%s", out)
		return "none: the process dies"
	}
	_, found, _ := strings.Cut(string(out), "found: ")
	found, _, _ = strings.Cut(found, "\n")
	return found
}

// TestPanickingCallback is the body of that process.
func TestPanickingCallback(t *testing.T) {
	i := slices.IndexFunc(libraries, func(l library) bool { return l.name == os.Getenv("BENCH_LIBRARY") })
	if i < 0 {
		return // the check starts it, with a library
	}
	s := settings{onChanged: func(peer) { panic("in a callback") }}
	fmt.Println("found: " + with(s, useAfterPanic)(t, libraries[i]))
}

func useAfterPanic(t *testing.T, p peer) string {
	ask := func(call func(context.Context) error) (err error) {
		defer func() { _ = recover() }() // the panic of the callback, on the call that changed the state
		return p.do(t.Context(), call)
	}
	for range 5 {
		_ = ask(down)
	}
	soon := admission(ask(well))
	time.Sleep(31 * time.Second)
	_ = ask(well)
	return soon + ", later " + admission(ask(well))
}

const begin, end = "<!-- compare:begin -->\n", "<!-- compare:end -->"

// TestTable runs every check on every library. With -update it writes what it found into the README, else it compares.
func TestTable(t *testing.T) {
	var table strings.Builder
	table.WriteString("| situation |")
	for _, l := range libraries {
		table.WriteString(" " + l.name + " |")
	}
	table.WriteString("\n|---|" + strings.Repeat("---|", len(libraries)) + "\n")
	for _, c := range checks {
		fmt.Fprintf(&table, "| %s |", c.situation)
		for i, l := range libraries {
			found := c.run(t, l)
			if i == 0 {
				require.Equal(t, c.want, found, c.situation)
			}
			table.WriteString(" " + found + " |")
		}
		table.WriteString("\n")
	}
	t.Log("\n" + table.String())
	compareWithREADME(t, table.String())
}

func compareWithREADME(t *testing.T, table string) {
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), begin)
	require.True(t, found, "README.md has no %s", begin)
	old, after, found := strings.Cut(rest, end)
	require.True(t, found, "README.md has no %s", end)
	if *update {
		require.NoError(t, os.WriteFile("../README.md", []byte(before+begin+table+end+after), 0o644))
		return
	}
	require.Equal(t, old, table, "README.md: write it again with make compare")
}
