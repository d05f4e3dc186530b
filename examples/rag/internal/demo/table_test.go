package demo

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/failfast-go/breaker/examples/rag/internal/service"
)

func TestTheTableCountsWhatTheReportHolds(t *testing.T) {
	with := kept()
	with.Acts[1].Refused = 7
	with.Acts[1].Requests[0].Took = 2 * time.Millisecond
	with.Acts[1].Requests[1].Took = 1500 * time.Millisecond
	with.Acts[1].Requests = append(with.Acts[1].Requests, Request{Status: 503, Took: 12 * time.Millisecond},
		Request{Status: 200, Reply: service.Reply{Response: service.WithoutSources + "Hm.", Source: "primary", Degraded: true}})
	without := kept()

	var out bytes.Buffer
	Table(&out, Run{"with", with}, Run{"without", without})
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	assert.Len(t, lines, 2+2*3)
	assert.Equal(t, "the model is ill with 4 1 1 1 0 1 1 7 6 12 ms 1500 ms", strings.Join(strings.Fields(lines[4]), " "))
	assert.Equal(t, "without 2 0 1 1 0 0 0 0 6 0.0 ms 0.0 ms", strings.Join(strings.Fields(lines[5]), " "))
	for _, line := range lines[1:] {
		assert.Len(t, line, len(lines[0]), "columns stand under their heads")
	}
}

func TestLatenciesOfAnActWithoutRequests(t *testing.T) {
	median, worst := Act{}.latencies()
	assert.Zero(t, median)
	assert.Zero(t, worst)
}
