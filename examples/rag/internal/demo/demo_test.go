package demo

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
	"github.com/failfast-go/breaker/examples/rag/internal/modelserver"
	"github.com/failfast-go/breaker/examples/rag/internal/service"
)

func TestTheScriptFitsIntoAMinute(t *testing.T) {
	var lasts time.Duration
	ill := map[string]int{}
	for _, a := range script() {
		lasts += a.lasts
		ill[a.ill]++
	}
	assert.Less(t, lasts, limit-15*time.Second, "room for a slow machine's start")
	assert.Equal(t, 2, ill[service.LLM])
	assert.Equal(t, 1, ill[service.VectorDB])
	assert.Equal(t, 1, ill[service.Database])
	assert.Empty(t, script()[len(script())-1].ill, "it ends well")
}

func TestThereAreFiftyQuestionsAndTheyComeAgain(t *testing.T) {
	q := newQuestions()
	require.Len(t, q.list, 50)
	seen := map[string]bool{}
	first := q.next()
	seen[first] = true
	for range 49 {
		seen[q.next()] = true
	}
	assert.Len(t, seen, 50)
	assert.Equal(t, first, q.next())
}

// quick is demo.yaml with less in it. Its times are as long, for machines that are busy with other tests.
const quick = `
circuit_breaker:
  default: {failure_threshold: 3, timeout_seconds: 2, max_timeout_seconds: 2, half_open_max_calls: 1, success_threshold: 2}
fallback:
  cache_fallback: {enabled: true, max_age_seconds: 300}
`

func quickScript() []act {
	return []act{
		{"all is well", "", 500 * time.Millisecond, nil},
		{"the model returns 503", service.LLM, 4500 * time.Millisecond, breakModel(modelserver.Unavailable)},
		{"everything recovers", "", 6 * time.Second, nil},
	}
}

// echo has a passage for each question, and no more than those: few enough to search under the race detector.
func echo() (passages []corpus.Passage) {
	for _, question := range newQuestions().list {
		passages = append(passages, corpus.Passage{ID: question, Source: "echo", Text: question})
	}
	return passages
}

func playQuickly(t *testing.T, noBreakers bool) Report {
	t.Helper()
	file, err := breaker.ParseFile([]byte(quick))
	require.NoError(t, err)
	p, err := newPlayer(t.Context(), 100*time.Millisecond, service.Config{
		File: file, NoBreakers: noBreakers, Data: t.TempDir(),
		Limits:   service.Limits{Model: time.Minute, Local: time.Minute, Retrieve: time.Minute, Save: time.Minute},
		Passages: echo(),
	})
	require.NoError(t, err)
	defer p.close()
	for name, promise := range p.promises { // made for a machine that has little else to do
		promise.Arrival, promise.Recovery = 1500*time.Millisecond, time.Minute
		p.promises[name] = promise
	}
	begun := time.Now()
	require.NoError(t, p.play(t.Context(), quickScript(), newQuestions(), func(act) {}))
	return p.recorder.result(time.Since(begun), p.promises)
}

func TestAnOutageWithBreakersKeepsEveryPromise(t *testing.T) {
	t.Parallel()
	r := playQuickly(t, false)
	assert.Empty(t, r.Check())
	assert.Positive(t, r.Acts[1].Refused)
	assert.NotEmpty(t, r.Cached)
}

func TestTheSameOutageWithoutBreakersBreaksTheirPromise(t *testing.T) {
	t.Parallel()
	r := playQuickly(t, true)
	require.NotEmpty(t, r.Check())
	assert.Contains(t, strings.Join(r.Check(), "\n"), "did not open")
	assert.Zero(t, r.Acts[1].Refused)
	assert.GreaterOrEqual(t, len(r.Acts[1].Reached[service.LLM]), len(r.Acts[1].Requests), "each request reaches the ill model")
}

func TestDescribeSaysWhyAndWhatComesNext(t *testing.T) {
	b := breaker.Must(breaker.New("llm", breaker.Config{OpenTimeoutJitter: breaker.Off}))
	assert.Empty(t, describe(b.Status()))
	b.Trip("drill")
	assert.Contains(t, describe(b.Status()), "drill; next probe in ")
	b.Disable(breaker.Hold{By: "ann", Reason: "drill"})
	assert.Contains(t, describe(b.Status()), "by ann: drill")
}

func TestTheLiveViewRedrawsInPlaceAndNeverWraps(t *testing.T) {
	var out bytes.Buffer
	v := &live{out: &out, width: func() int { return 20 }}
	v.draw("", []string{"one", strings.Repeat("x", 50)})
	assert.Equal(t, "one\n"+strings.Repeat("x", 18)+"…\n", out.String())
	out.Reset()
	v.draw("done", nil)
	assert.Equal(t, "\x1b[2A\x1b[Jdone\n", out.String(), "two lines give way to one that stays")
	out.Reset()
	v.draw("", []string{"next"})
	assert.Equal(t, "next\n", out.String())
}

func TestAFileIsNoTerminal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "out")
	require.NoError(t, err)
	defer f.Close()
	assert.IsType(t, &plain{}, newView(f, nil))
}

func TestTallyCountsBySource(t *testing.T) {
	assert.Equal(t, "5 answered: 2 cache, 3 primary", tally(map[string]int{"primary": 3, "cache": 2}))
}
