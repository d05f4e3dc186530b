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

// family is all series of one name.
type family struct {
	desc  *prometheus.Desc
	gauge bool // else a counter
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("breaker_"+name, help, labels, nil)
}

func counter(name, help string, labels ...string) *family {
	return &family{desc: describe(name, help, labels...)}
}

func gauge(name, help string, labels ...string) *family {
	return &family{desc: describe(name, help, labels...), gauge: true}
}

var (
	stateGauge       = gauge("state", "1 for the state that a call meets, 0 for the others.", "name", "state")
	callsTotal       = counter("calls_total", "Calls that ended (success, failure, ignored) or were refused (rejected).", "name", "outcome")
	slowTotal        = counter("slow_calls_total", "Calls that lasted longer than the breaker's limit, whatever their outcome.", "name")
	inFlightGauge    = gauge("in_flight", "Calls that were admitted and have not ended.", "name")
	failureRateGauge = gauge("failure_rate", "Failures by calls in the window; absent while there are none.", "name")
	slowRateGauge    = gauge("slow_call_rate", "Slow calls by calls in the window; absent while no duration is known.", "name")
	transitionsTotal = counter("transitions_total", "Changes of state, by the rule that caused them.", "name", "from", "to", "rule")
	openSecondsTotal = counter("open_seconds_total", "Time spent refusing every call: open or forced open.", "name")
	retryAfterGauge  = gauge("retry_after_seconds", "Time until calls are admitted again; absent where that is not known.", "name")
	fallbackTotal    = counter("fallback_total", "Answers given in the stead of calls, by who gave them.", "name", "source")

	unregisteredTotal = counter("unregistered_total", "Breakers made without a place in the registry, which is full: they are not to be seen here.")

	durationDesc = describe("call_duration_seconds",
		"How long calls took up to their first progress or their end, which is what makes them slow or not.", "name")
)

// Describe names every metric: so registering twice is an error.
func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range []*family{
		stateGauge, callsTotal, slowTotal, inFlightGauge, failureRateGauge, slowRateGauge, transitionsTotal, openSecondsTotal,
		retryAfterGauge, fallbackTotal, unregisteredTotal,
	} {
		out <- f.desc
	}
	out <- durationDesc
}

// Collect sends the series of each name in the order of their labels, which spares Prometheus's registry the work of sorting them.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := scrape{out: out}
	for _, b := range c.registry.All() {
		s.breaker(b)
	}
	s.send(unregisteredTotal, float64(c.registry.Unregistered()))
}

// metric is one value, fixed before it is sent. The library's own constant metrics cost six times as much, nearly all of it for
// labels: here the breaker's name is made once a scrape, and labels that never change once a program.
type metric struct {
	*family
	value  float64
	labels []*dto.LabelPair // in the order of their names, as Prometheus wants them
}

func (m *metric) Desc() *prometheus.Desc { return m.desc }

func (m *metric) Write(to *dto.Metric) error {
	to.Label = m.labels
	if m.gauge {
		to.Gauge = &dto.Gauge{Value: &m.value}
	} else {
		to.Counter = &dto.Counter{Value: &m.value}
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
	fromLabels    = labelsOf("from", stateNames[:]...)
	toLabels      = labelsOf("to", stateNames[:]...)
	stateLabels   = labelsOf("state", stateNames[:]...)
	outcomeLabels = labelsOf("outcome", "failure", "ignored", "rejected", "success")
	ruleLabels    = labelsOf("rule", string(RuleConsecutiveFailures), string(RuleFailureRate), string(RuleRetryAfter), string(RuleSlowCallRate))

	statesByName = [...]State{StateClosed, StateDisabled, StateForcedOpen, StateHalfOpen, StateOpen}
)

// ruleLabel spares the memory for the rules that nearly every breaker shows.
func ruleLabel(r Rule) *dto.LabelPair {
	if i := slices.IndexFunc(ruleLabels, func(l *dto.LabelPair) bool { return *l.Value == string(r) }); i >= 0 {
		return ruleLabels[i]
	}
	return label("rule", string(r))
}

// scrape sends metrics out of memory that is taken for many at once. The receiver may keep them, so none of it is used again.
type scrape struct {
	out     chan<- prometheus.Metric
	metrics []metric
	labels  []*dto.LabelPair
	now     sample // of one breaker after the other
}

// more returns n further elements of a chunk, or of a new one: those given before stay where they are.
func more[T any](chunk *[]T, n int) []T {
	const size = 200
	if cap(*chunk)-len(*chunk) < n {
		*chunk = make([]T, 0, size)
	}
	first := len(*chunk)
	*chunk = (*chunk)[:first+n]
	return (*chunk)[first : first+n : first+n]
}

func (s *scrape) send(f *family, v float64, labels ...*dto.LabelPair) {
	m := &more(&s.metrics, 1)[0]
	m.family, m.value, m.labels = f, v, more(&s.labels, len(labels))
	copy(m.labels, labels)
	s.out <- m
}

// known sends v unless there is none.
func (s *scrape) known(f *family, v *float64, name *dto.LabelPair) {
	if v != nil {
		s.send(f, *v, name)
	}
}

func (s *scrape) breaker(b *Breaker) {
	now, name := &s.now, label("name", b.Name())
	now.read(b)
	for _, state := range statesByName {
		s.send(stateGauge, one(now.state == state), name, stateLabels[state])
	}
	t := &now.totals
	for i, n := range [...]int64{t.failed, t.ignored, t.rejected, t.successful} {
		s.send(callsTotal, float64(n), name, outcomeLabels[i])
	}
	s.send(slowTotal, float64(t.slow), name)
	s.send(inFlightGauge, float64(t.inFlight), name)
	s.send(openSecondsTotal, now.refused.Seconds(), name)
	s.known(failureRateGauge, now.failureRate, name)
	s.known(slowRateGauge, now.slowRate, name)
	s.known(retryAfterGauge, now.retryAfter, name)
	for _, t := range now.transitions {
		s.send(transitionsTotal, float64(t.n), fromLabels[t.from], name, ruleLabel(t.rule), toLabels[t.to])
	}
	for _, f := range b.fallbacks.list() {
		s.send(fallbackTotal, float64(f.n.Load()), name, label("source", f.name))
	}
	if b.durations != nil {
		s.out <- newDurations(b.durations, name)
	}
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// durations is a histogram as it was when the scrape came to it.
type durations struct {
	dto.Histogram
	label [1]*dto.LabelPair
}

func newDurations(h *histogram, name *dto.LabelPair) *durations {
	d := &durations{label: [1]*dto.LabelPair{name}}
	d.SampleSum = new(time.Duration(h.sum.Load()).Seconds())
	var calls uint64
	for i, bound := range h.bounds {
		calls += h.counts[i].Load()
		d.Bucket = append(d.Bucket, &dto.Bucket{UpperBound: new(bound.Seconds()), CumulativeCount: new(calls)})
	}
	d.SampleCount = new(calls + h.counts[len(h.bounds)].Load())
	return d
}

func (*durations) Desc() *prometheus.Desc { return durationDesc }

func (d *durations) Write(to *dto.Metric) error {
	to.Label, to.Histogram = d.label[:], &d.Histogram
	return nil
}

// sample is what a scrape reads, all of one instant.
type sample struct {
	state                             State
	totals                            totals
	failureRate, slowRate, retryAfter *float64
	refused                           time.Duration
	transitions                       []transitionCount
}

func (s *sample) read(b *Breaker) {
	now := b.lock()
	defer b.unlock()
	m := b.machine.seen(now)
	now = max(now, m.now)
	calls, failures, timed, slow := m.window(now)
	*s = sample{
		state: m.shown(), totals: m.totals,
		failureRate: share(failures, calls), slowRate: share(slow, timed), retryAfter: m.retryAfterSeconds(now),
		refused: m.ledger.refusedFor(m.shown(), now), transitions: m.ledger.appendTo(s.transitions[:0], &m.cfg),
	}
}
