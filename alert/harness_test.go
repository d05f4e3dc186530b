package alert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/failfast-go/breaker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a channel's other end: it keeps what arrives, and answers as it is told.
type receiver struct {
	mu       sync.Mutex
	got      []Alert
	attempts []time.Time
	answer   func(attempt int, d *delivery) error // nil: takes all
	block    chan struct{}                        // when set, an attempt lasts until it is closed or the attempt is over
}

func (r *receiver) send(ctx context.Context, d *delivery) error {
	r.mu.Lock()
	n := len(r.attempts)
	r.attempts = append(r.attempts, time.Now())
	answer, block := r.answer, r.block
	r.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if answer != nil {
		if err := answer(n, d); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, d.alert)
	return nil
}

// told returns what arrived, as "opened x" and the like, and forgets it.
func (r *receiver) told() (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.got {
		all = append(all, a.Event+" "+a.Breaker)
	}
	r.got = nil
	return all
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.attempts)
}

func (r *receiver) switchTo(answer func(int, *delivery) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func down(int, *delivery) error { return errors.New("connection refused") }

func named(name string, s sender) namedSender {
	return namedSender{sender: s, name: name, takes: allLevels, limit: 10 * time.Second, scrub: func(s string) string { return s }}
}

func testOptions() options {
	return options{log: zap.NewNop(), service: "shop", instance: "host-1", quiet: DefaultQuiet, queue: DefaultQueue, timing: defaultTiming, pagerDutyURL: pagerDutyURL}
}

func testLog() (*zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.DebugLevel)
	return zap.New(core), logs
}

// registryOf holds breakers that open at the first failure, probe after a second and close at the first success.
func registryOf(t *testing.T, names ...string) *breaker.Registry {
	t.Helper()
	return registryOpenFor(t, time.Second, names...)
}

// stayingOpen is registryOf for tests in real time: the breakers are still open when a slow machine tells of it.
func stayingOpen(t *testing.T, names ...string) *breaker.Registry {
	t.Helper()
	return registryOpenFor(t, time.Hour, names...)
}

func registryOpenFor(t *testing.T, open time.Duration, names ...string) *breaker.Registry {
	t.Helper()
	cfg := breaker.RegistryConfig{Default: breaker.Config{FailureThreshold: 1, SuccessThreshold: 1, OpenTimeout: open, MaxOpenTimeout: open, OpenTimeoutJitter: breaker.Off}}
	r, err := breaker.NewRegistry(cfg)
	require.NoError(t, err)
	for _, name := range names {
		r.Breaker(name)
	}
	return r
}

var errDown = errors.New("connection refused")

func fail(b *breaker.Breaker) {
	_ = b.Do(context.Background(), func(context.Context) error { return errDown })
}
func succeed(b *breaker.Breaker) {
	_ = b.Do(context.Background(), func(context.Context) error { return nil })
}

// settled lets every goroutine of the bubble come to rest, after d.
func settled(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func mustClose(t *testing.T, a *Alerter) {
	t.Helper()
	require.NoError(t, a.Close(context.Background()))
}

// keep writes text where BREAKER_KEEP says, to be looked at; by default nowhere.
func keep(t *testing.T, name, text string) {
	t.Helper()
	if dir := os.Getenv("BREAKER_KEEP"); dir != "" {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
}

func numbered(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("b%03d", i))
	}
	return names
}
