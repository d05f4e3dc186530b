package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker/examples/rag/internal/service"
)

var began = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return began.Add(time.Duration(seconds * float64(time.Second))) }

func whole(text string) service.Reply { return service.Reply{Response: text, Source: "primary"} }

// kept is a run of which every promise holds: the model is ill from second 2 to 8, the breaker opens at 3, probes at 4 and 6,
// and recovers at 9.
func kept() Report {
	return Report{
		Acts: []Act{
			{Name: "all is well", Begin: at(0), End: at(2), Requests: []Request{
				{Question: "one?", Status: 200, Reply: whole("the first")},
				{Question: "two?", Status: 200, Reply: whole("the second")},
			}},
			{Name: "the model is ill", Ill: "llm", Begin: at(2), End: at(8),
				Requests: []Request{
					{Question: "one?", Status: 200, Reply: service.Reply{Response: "the first", Source: "cache", Degraded: true}},
					{Question: "three?", Status: 200, Reply: service.Reply{Response: "picked", Source: "local-model", Degraded: true}},
				},
				Reached: map[string][]time.Time{"llm": {at(2.2), at(2.6), at(3), at(3.01), at(4), at(6)}},
			},
			{Name: "it recovers", Begin: at(8), End: at(12), Requests: []Request{
				{Question: "three?", Status: 200, Reply: whole("the third")},
			}},
		},
		Changes: []Change{
			{"llm", at(3), true}, {"llm", at(4.01), true}, {"llm", at(6.01), true}, {"llm", at(9), false},
		},
		Cached:   []service.Answer{{Text: "the first"}, {Text: "the second"}, {Text: "the third"}},
		Promises: map[string]Promises{"llm": {ProbeRound: 1, Arrival: 100 * time.Millisecond, Recovery: 3 * time.Second}},
		Took:     50 * time.Second,
	}
}

func TestAReportThatKeepsEveryPromisePasses(t *testing.T) {
	assert.Empty(t, kept().Check())
}

func TestEachBrokenPromiseIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		want   string
		doctor func(*Report)
	}{
		"a request with no answer at all": {`"two?" was not answered: status 0 timeout`, func(r *Report) {
			r.Acts[0].Requests[1] = Request{Question: "two?", Err: "timeout"}
		}},
		"a request answered with 503": {"was not answered: status 503", func(r *Report) {
			r.Acts[1].Requests[1].Status = 503
		}},
		"an empty answer": {"was not answered", func(r *Report) {
			r.Acts[2].Requests[0].Reply.Response = ""
		}},
		"an act without requests": {"it recovers: no request was sent", func(r *Report) {
			r.Acts[2].Requests = nil
		}},
		"a breaker that never opens": {`the breaker "llm" did not open, and 6 calls reached`, func(r *Report) {
			r.Changes = nil
		}},
		"a breaker that opens after the outage": {"did not open", func(r *Report) {
			r.Changes = []Change{{"llm", at(8.5), true}, {"llm", at(9), false}}
		}},
		"another breaker that opens": {"did not open", func(r *Report) {
			for i := range r.Changes {
				r.Changes[i].Breaker = "database"
			}
		}},
		"a second probe in one open period": {"2 calls reached the ill upstream in one open period", func(r *Report) {
			r.Acts[1].Reached["llm"] = append(r.Acts[1].Reached["llm"], at(4.005))
		}},
		"a leak in the last open period": {"3 calls reached the ill upstream", func(r *Report) {
			r.Acts[1].Reached["llm"] = append(r.Acts[1].Reached["llm"], at(7), at(7.2), at(7.9))
		}},
		"no recovery": {"did not close within 3s", func(r *Report) {
			r.Changes = r.Changes[:3]
		}},
		"a late recovery": {"did not close within 3s", func(r *Report) {
			r.Changes[3].At = at(11.5)
		}},
		"a recovery while the upstream is ill": {"did not close within 3s", func(r *Report) {
			r.Changes[3].At = at(7)
		}},
		"a local answer in the cache": {`a degraded answer was cached: "picked"`, func(r *Report) {
			r.Cached = append(r.Cached, service.Answer{Text: "picked"})
		}},
		"an answer without the vector store in the cache": {"a degraded answer was cached", func(r *Report) {
			r.Cached = append(r.Cached, service.Answer{Text: "the first", Blind: true})
		}},
		"an answer out of the cache that the primary never gave whole": {`came from the cache: "the first"`, func(r *Report) {
			r.Acts[0].Requests[0].Reply.Degraded = true
			r.Cached = nil
		}},
		"a demo that takes too long": {"it took 1m1s, more than 1m0s", func(r *Report) {
			r.Took = 61 * time.Second
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := kept()
			c.doctor(&r)
			broken := r.Check()
			require.NotEmpty(t, broken)
			assert.Contains(t, strings.Join(broken, "\n"), c.want)
		})
	}
}

func TestCallsInFlightAtTheOpeningAreNoProbes(t *testing.T) {
	r := kept()
	r.Acts[1].Reached["llm"] = append(r.Acts[1].Reached["llm"], at(3.02), at(3.04))
	assert.Empty(t, r.Check(), "they were admitted before it")
	r.Acts[1].Reached["llm"] = append(r.Acts[1].Reached["llm"], at(3.2))
	assert.NotEmpty(t, r.Check(), "this one was not")
}

func TestEveryBrokenPromiseIsListed(t *testing.T) {
	r := kept()
	r.Acts[0].Requests[0].Status = 500
	r.Acts[2].Requests[0].Status = 500
	r.Took = time.Hour
	assert.GreaterOrEqual(t, len(r.Check()), 3)
}
