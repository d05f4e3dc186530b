package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWrongWordsAreAnsweredWithTheUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"sing"}, {"demo", "no-breakers"}, {"serve", "-port", "1"}} {
		require.ErrorIs(t, run(t.Context(), args), errUsage, args)
	}
}

func TestABadConfigurationFileIsNamed(t *testing.T) {
	require.ErrorContains(t, run(t.Context(), []string{"serve", "-config", "/does/not/exist.yaml"}), "exist.yaml")

	file := filepath.Join(t.TempDir(), "bad.yaml")
	require.NoError(t, os.WriteFile(file, []byte("circuit_breaker:\n  default:\n    timeout_seconds: -3\n"), 0o644))
	err := run(t.Context(), []string{"serve", "-config", file})
	require.ErrorContains(t, err, "timeout_seconds")
	require.ErrorContains(t, err, "3", "with its line")
}

func TestAnAddressInUseIsAnErrorThatSaysWhatToDo(t *testing.T) {
	err := run(t.Context(), []string{"serve", "-addr", "256.0.0.1:1", "-data", t.TempDir()})
	require.ErrorContains(t, err, "-addr")
}

func TestServeAnswersUntilItIsInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	log := captureStderr(t)
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"serve", "-addr", "127.0.0.1:0", "-data", t.TempDir()}) }()

	url := servedURL(t, log)
	watching, err := http.NewRequest("GET", url+"/health/circuit-breakers", nil)
	require.NoError(t, err)
	watching.Header.Set("Accept", "text/event-stream")
	stream, err := http.DefaultClient.Do(watching)
	require.NoError(t, err)
	defer stream.Body.Close() // after the end: an open page must not keep the service from ending

	reply, err := http.Post(url+"/chat", "application/json", strings.NewReader(`{"message": "What is in package sort?"}`))
	require.NoError(t, err)
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	require.NoError(t, err)
	assert.Equal(t, 200, reply.StatusCode)
	assert.Contains(t, string(body), `"source":"primary"`)

	interrupt()
	select {
	case err := <-ended:
		assert.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
}

// captureStderr returns what is written to standard error, where the log goes.
func captureStderr(t *testing.T) io.Reader {
	t.Helper()
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	old := os.Stderr
	os.Stderr = writer
	t.Cleanup(func() { os.Stderr = old; writer.Close(); reader.Close() })
	return reader
}

var loggedURL = regexp.MustCompile(`"url":"([^"]+)"`)

func servedURL(t *testing.T, log io.Reader) string {
	t.Helper()
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if match := loggedURL.FindStringSubmatch(lines.Text()); match != nil {
			return match[1]
		}
	}
	t.Fatal("it did not say where it serves")
	return ""
}
