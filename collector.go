package breaker

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Collector returns the metrics of every breaker that is registered when Prometheus scrapes, for one Registerer:
//
//	prometheus.MustRegister(registry.Collector())
//
// Everything is read at the scrape; a call pays nothing for it. The metrics, with their labels beside name:
//
//	breaker_state                  state            1 for the state that a call meets, 0 for the others
//	breaker_calls_total            outcome          success, failure, ignored, rejected
//	breaker_slow_calls_total                        longer than Config.SlowCallDuration, whatever their outcome
//	breaker_in_flight                               admitted and not ended
//	breaker_failure_rate                            of the window; absent while no call is known
//	breaker_slow_call_rate                          likewise; absent while no duration is known
//	breaker_transitions_total      from, to, rule   see [Rule]; from closed to open there from the start
//	breaker_open_seconds_total                      spent in open and forced_open, up to now
//	breaker_retry_after_seconds                     until calls are admitted again; absent where that is not known
//	breaker_fallback_total         source           answers given by [Protect] in the stead of calls
//	breaker_call_duration_seconds                   a histogram, where [WithDurationHistogram] is on
//
// and, of the registry, breaker_unregistered_total (see [Registry.Unregistered]).
//
// Counters never go back while a breaker is registered. One that was removed, or evicted because it was idle, has no series any
// more; made anew under the same name it counts from 0, which Prometheus takes for a restart, as rate and increase expect.
// There are as many names as MaxBreakers allows; every other label has a fixed set of values, but for source, see
// [Metrics].Fallbacks. For two registries in one process give each a label of its own with prometheus.WrapRegistererWith.
func (r *Registry) Collector() prometheus.Collector { return collector{r} }

type collector struct{ registry *Registry }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("breaker_"+name, help, labels, nil)
}

var (
	stateDesc       = describe("state", "1 for the state that a call meets, 0 for the others.", "name", "state")
	callsDesc       = describe("calls_total", "Calls that ended (success, failure, ignored) or were refused (rejected).", "name", "outcome")
	slowDesc        = describe("slow_calls_total", "Calls that lasted longer than the breaker's limit, whatever their outcome.", "name")
	inFlightDesc    = describe("in_flight", "Calls that were admitted and have not ended.", "name")
	failureRateDesc = describe("failure_rate", "Failures by calls in the window; absent while there are none.", "name")
	slowRateDesc    = describe("slow_call_rate", "Slow calls by calls in the window; absent while no duration is known.", "name")
	transitionsDesc = describe("transitions_total", "Changes of state, by the rule that caused them.", "name", "from", "to", "rule")
	openSecondsDesc = describe("open_seconds_total", "Time spent refusing every call: open or forced open.", "name")
	retryAfterDesc  = describe("retry_after_seconds", "Time until calls are admitted again; absent where that is not known.", "name")
	fallbackDesc    = describe("fallback_total", "Answers given in the stead of calls, by who gave them.", "name", "source")
	durationDesc    = describe("call_duration_seconds", "How long calls took up to their first progress or their end, which is what makes them slow or not.", "name")

	unregisteredDesc = describe("unregistered_total", "Breakers made without a place in the registry, which is full: they are not to be seen here.")
)

// Describe names every metric: so registering twice is an error.
func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		stateDesc, callsDesc, slowDesc, inFlightDesc, failureRateDesc, slowRateDesc, transitionsDesc, openSecondsDesc,
		retryAfterDesc, fallbackDesc, durationDesc, unregisteredDesc,
	} {
		out <- d
	}
}

func (c collector) Collect(out chan<- prometheus.Metric) {
	for _, b := range c.registry.All() {
		newBatch(out, b.Name()).breaker(b)
	}
	(&batch{out: out}).send(unregisteredDesc, counter, float64(c.registry.Unregistered()))
}

// metric is one value, fixed before it is sent. The library's own constant metrics cost six times as much, nearly all of it for
// labels: here the breaker's name is made once a scrape, and labels that never change once a program.
type metric struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair // in the order of their names, as Prometheus wants them
	kind   kind
	value  float64

	histogram *dto.Histogram // of that kind
}

type kind uint8

const (
	counter kind = iota
	gauge
	durations
)

func (m *metric) Desc() *prometheus.Desc { return m.desc }

func (m *metric) Write(to *dto.Metric) error {
	to.Label = m.labels
	switch m.kind {
	case counter:
		to.Counter = &dto.Counter{Value: &m.value}
	case gauge:
		to.Gauge = &dto.Gauge{Value: &m.value}
	case durations:
		to.Histogram = m.histogram
	}
	return nil
}

func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

func labelsOf(name string, values ...string) []*dto.LabelPair {
	pairs := make([]*dto.LabelPair, len(values))
	for i, v := range values {
		pairs[i] = label(name, v)
	}
	return pairs
}

var (
	stateLabels   = labelsOf("state", stateNames[:]...)
	fromLabels    = labelsOf("from", stateNames[:]...)
	toLabels      = labelsOf("to", stateNames[:]...)
	outcomeLabels = labelsOf("outcome", "success", "failure", "ignored", "rejected")
	ruleLabels    = labelsOf("rule", string(RuleConsecutiveFailures), string(RuleFailureRate), string(RuleSlowCallRate), string(RuleRetryAfter))
)

// ruleLabel spares the memory for the rules that nearly every breaker shows.
func ruleLabel(r Rule) *dto.LabelPair {
	if i := slices.IndexFunc(ruleLabels, func(l *dto.LabelPair) bool { return *l.Value == string(r) }); i >= 0 {
		return ruleLabels[i]
	}
	return label("rule", string(r))
}

// batch sends the metrics of one breaker, out of memory taken at once.
type batch struct {
	out     chan<- prometheus.Metric
	name    *dto.LabelPair
	metrics []metric
	labels  []*dto.LabelPair
}

// usual is how many series most breakers have.
const usual = 18

func newBatch(out chan<- prometheus.Metric, name string) *batch {
	return &batch{out: out, name: label("name", name), metrics: make([]metric, 0, usual), labels: make([]*dto.LabelPair, 0, 2*usual)}
}

func (s *batch) send(d *prometheus.Desc, k kind, v float64, labels ...*dto.LabelPair) {
	if len(s.metrics) == cap(s.metrics) { // those sent before stay where they are
		s.metrics = make([]metric, 0, usual)
	}
	first := len(s.labels)
	s.labels = append(s.labels, labels...)
	s.metrics = append(s.metrics, metric{desc: d, labels: slices.Clip(s.labels[first:]), kind: k, value: v})
	s.out <- &s.metrics[len(s.metrics)-1]
}

func (s *batch) histogram(h *histogram) {
	if h == nil {
		return
	}
	out := &dto.Histogram{SampleSum: new(time.Duration(h.sum.Load()).Seconds())}
	var calls uint64
	for i, bound := range h.bounds {
		calls += h.counts[i].Load()
		out.Bucket = append(out.Bucket, &dto.Bucket{UpperBound: new(bound.Seconds()), CumulativeCount: new(calls)})
	}
	out.SampleCount = new(calls + h.counts[len(h.bounds)].Load())
	s.out <- &metric{desc: durationDesc, labels: []*dto.LabelPair{s.name}, kind: durations, histogram: out}
}

// known sends v unless there is none.
func (s *batch) known(d *prometheus.Desc, v *float64) {
	if v != nil {
		s.send(d, gauge, *v, s.name)
	}
}

func (s *batch) breaker(b *Breaker) {
	now := b.sample()
	for i, l := range stateLabels {
		s.send(stateDesc, gauge, one(now.State == State(i)), s.name, l)
	}
	m := &now.Metrics
	for i, n := range [...]int{m.SuccessfulCalls, m.FailedCalls, m.IgnoredCalls, m.RejectedCalls} {
		s.send(callsDesc, counter, float64(n), s.name, outcomeLabels[i])
	}
	s.send(slowDesc, counter, float64(m.SlowCalls), s.name)
	s.send(inFlightDesc, gauge, float64(m.InFlight), s.name)
	s.send(openSecondsDesc, counter, now.refused.Seconds(), s.name)
	s.known(failureRateDesc, now.FailureRate)
	s.known(slowRateDesc, now.SlowCallRate)
	s.known(retryAfterDesc, now.RetryAfterSeconds)
	for _, t := range now.transitions {
		s.send(transitionsDesc, counter, float64(t.n), fromLabels[t.from], s.name, ruleLabel(t.rule), toLabels[t.to])
	}
	for _, f := range b.fallbacks.list() {
		s.send(fallbackDesc, counter, float64(f.n.Load()), s.name, label("source", f.name))
	}
	s.histogram(b.durations)
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// sample is what a scrape reads, all of one instant.
type sample struct {
	Status
	refused     time.Duration
	transitions []transitionCount
}

func (b *Breaker) sample() sample {
	now := b.lock()
	defer b.unlock()
	m := b.machine.seen(now)
	now = max(now, m.now)
	return sample{m.status(now), m.ledger.refusedFor(m.shown(), now), m.ledger.known(&m.cfg)}
}
