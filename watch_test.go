package breaker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// watched runs Watch on a file in a bubble of fake time. edit writes the file, wait lets time pass.
func watched(t *testing.T, content string, test func(r *Registry, path string, logs *observer.ObservedLogs)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "breakers.yaml")
	write(t, path, content)
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		r := newRegistry(t, RegistryConfig{MaxBreakers: 3}, WithLogger(zap.New(core)))
		ctx, stop := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Watch(ctx, path) }()
		synctest.Wait()
		test(r, path, logs)
		stop(errors.New("shutdown"))
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

const (
	oneService  = "version: \"1.0.0\"\ncircuit_breaker:\n  services:\n    db:\n      failure_threshold: 2\n"
	twoServices = oneService + "    llm:\n      failure_threshold: 7\n"
)

func TestWatchAppliesTheFileAtOnceAndAfterEachChange(t *testing.T) {
	watched(t, oneService, func(r *Registry, path string, logs *observer.ObservedLogs) {
		db, ok := r.Lookup("db")
		require.True(t, ok)
		require.Equal(t, 2, db.Config().FailureThreshold)
		db.Trip("outage")

		write(t, path, twoServices)
		wait(time.Second)
		_, ok = r.Lookup("llm")
		require.False(t, ok, "it may be half-written")
		wait(time.Second)
		llm, ok := r.Lookup("llm")
		require.True(t, ok)
		require.Equal(t, 7, llm.Config().FailureThreshold)
		require.Equal(t, StateOpen, db.State())
		require.Equal(t, 2, logs.FilterMessageSnippet("configuration loaded").Len())
		wait(time.Minute)
		require.Equal(t, 2, logs.FilterMessageSnippet("configuration").Len(), "an unchanged file is left alone")
		require.Equal(t, 3, r.config.MaxBreakers)
	})
}

func TestWatchTakesNoFileThatIsStillBeingWritten(t *testing.T) {
	watched(t, oneService, func(r *Registry, path string, _ *observer.ObservedLogs) {
		for i := range len(twoServices) - len(oneService) - 1 {
			write(t, path, twoServices[:len(oneService)+i])
			wait(time.Second)
		}
		_, ok := r.Lookup("llm")
		require.False(t, ok)
	})
}

func TestWatchLogsABadFileOnceAndKeepsTheOldSettings(t *testing.T) {
	watched(t, oneService, func(r *Registry, path string, logs *observer.ObservedLogs) {
		require.NoError(t, os.Remove(path))
		wait(time.Minute)
		require.Equal(t, 1, logs.FilterMessageSnippet("not reloaded").Len())
		write(t, path, "version: \"1.0.0\"\ncircuit_breaker:\n  default:\n    failure_threshold: 5.5\n")
		wait(time.Minute)
		bad := logs.FilterMessageSnippet("not reloaded").All()
		require.Len(t, bad, 2)
		require.Contains(t, bad[1].ContextMap()["error"], "line 4")
		require.Equal(t, path, bad[1].ContextMap()["path"])
		require.Equal(t, 2, r.Breaker("db").Config().FailureThreshold)
		write(t, path, oneService)
		wait(time.Minute)
		require.Equal(t, 2, logs.FilterMessageSnippet("configuration loaded").Len())
	})
}

func TestWatchWaitsForAFileThatIsNotThereYet(t *testing.T) {
	watched(t, "", func(r *Registry, path string, logs *observer.ObservedLogs) {
		require.Equal(t, 1, logs.FilterMessageSnippet("not reloaded").Len(), "an empty file is no configuration")
		write(t, path, oneService)
		wait(2 * time.Second)
		_, ok := r.Lookup("db")
		require.True(t, ok)
	})
}

func TestWatchReturnsAtOnceWhenItsContextIsDone(t *testing.T) {
	r := newRegistry(t, RegistryConfig{})
	ctx, stop := context.WithCancel(context.Background())
	stop()
	require.ErrorIs(t, r.Watch(ctx, "missing.yaml"), context.Canceled)
}

func TestWatchSaysWhyAFileCannotBeRead(t *testing.T) {
	watched(t, oneService, func(_ *Registry, path string, logs *observer.ObservedLogs) {
		logs.TakeAll()
		require.NoError(t, os.Remove(path))
		wait(3 * time.Second)
		told := logs.FilterMessageSnippet("not reloaded")
		require.Equal(t, 1, told.Len())
		require.Contains(t, told.All()[0].ContextMap()["error"], "no such file")
	})
}
