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

// Collect sends the series of each name in the order of their labels, which spares Prometheus's registry most of the sorting.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := scrape{out: out}
	for _, e := range c.registry.sorted() {
		s.breaker(e.breaker, e.series())
	}
	s.send(&series{family: unregisteredTotal}, float64(c.registry.Unregistered()))
}

// metric is one value, fixed before it is sent. The library's own constant metrics cost six times as much, nearly all of it for
// labels.
type metric struct {
	*series
	value float64
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

// series is what a metric keeps from scrape to scrape.
type series struct {
	*family
	labels []*dto.LabelPair // in the order of their names, as Prometheus wants them
}

// usual are the series that a breaker of any state may have. They depend on nothing but its name: made anew at each scrape they
// would be nearly half of this library's work.
type usual struct {
	name    *dto.LabelPair
	state   [len(statesByName)]series
	outcome [4]series                 // as outcomeLabels
	opened  [len(openingRules)]series // from closed

	slow, inFlight, openSeconds, failureRate, slowRate, retryAfter series
}

var (
	statesByName = [...]State{StateClosed, StateDisabled, StateForcedOpen, StateHalfOpen, StateOpen}
	openingRules = [...]Rule{RuleConsecutiveFailures, RuleFailureRate, RuleRetryAfter, RuleSlowCallRate}

	fromLabels    = labelsOf("from", stateNames[:])
	toLabels      = labelsOf("to", stateNames[:])
	stateLabels   = labelsOf("state", stateNames[:])
	outcomeLabels = labelsOf("outcome", []string{"failure", "ignored", "rejected", "success"})
	ruleLabels    = labelsOf("rule", openingRules[:])
)

func labelsOf[S ~string](name string, values []S) []*dto.LabelPair {
	pairs := make([]*dto.LabelPair, len(values))
	for i, v := range values {
		pairs[i] = label(name, string(v))
	}
	return pairs
}

func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

func newUsual(breaker string) *usual {
	name := label("name", breaker)
	pairs := make([]*dto.LabelPair, 0, 40) // of all: memory taken once
	of := func(f *family, labels ...*dto.LabelPair) series {
		pairs = append(pairs, labels...)
		return series{f, slices.Clip(pairs[len(pairs)-len(labels):])}
	}
	u := &usual{
		name: name,
		slow: of(slowTotal, name), inFlight: of(inFlightGauge, name), openSeconds: of(openSecondsTotal, name),
		failureRate: of(failureRateGauge, name), slowRate: of(slowRateGauge, name), retryAfter: of(retryAfterGauge, name),
	}
	for i, s := range statesByName {
		u.state[i] = of(stateGauge, name, stateLabels[s])
	}
	for i, l := range outcomeLabels {
		u.outcome[i] = of(callsTotal, name, l)
	}
	for i, l := range ruleLabels {
		u.opened[i] = of(transitionsTotal, fromLabels[StateClosed], name, l, toLabels[StateOpen])
	}
	return u
}

func (u *usual) transitionOf(t *transitionCount) *series {
	if i := slices.Index(openingRules[:], t.rule); i >= 0 && t.from == StateClosed && t.to == StateOpen {
		return &u.opened[i]
	}
	return &series{transitionsTotal, []*dto.LabelPair{fromLabels[t.from], u.name, label("rule", string(t.rule)), toLabels[t.to]}}
}

// scrape sends metrics, out of memory that it takes for many at once. Whoever receives them may keep them.
type scrape struct {
	out     chan<- prometheus.Metric
	metrics []metric
	now     sample // of one breaker after the other
}

func (s *scrape) send(of *series, v float64) {
	if len(s.metrics) == cap(s.metrics) {
		s.metrics = make([]metric, 0, 512) // those sent before stay where they are
	}
	s.metrics = append(s.metrics, metric{of, v})
	s.out <- &s.metrics[len(s.metrics)-1]
}

// known sends v unless there is none.
func (s *scrape) known(of *series, v *float64) {
	if v != nil {
		s.send(of, *v)
	}
}

func (s *scrape) breaker(b *Breaker, u *usual) {
	now := &s.now
	now.read(b)
	for i, state := range statesByName {
		s.send(&u.state[i], one(now.state == state))
	}
	t := &now.totals
	for i, n := range [...]int64{t.failed, t.ignored, t.rejected, t.successful} {
		s.send(&u.outcome[i], float64(n))
	}
	s.send(&u.slow, float64(t.slow))
	s.send(&u.inFlight, float64(t.inFlight))
	s.send(&u.openSeconds, now.refused.Seconds())
	s.known(&u.failureRate, now.failureRate)
	s.known(&u.slowRate, now.slowRate)
	s.known(&u.retryAfter, now.retryAfter)
	for i := range now.transitions {
		s.send(u.transitionOf(&now.transitions[i]), float64(now.transitions[i].n))
	}
	for _, f := range b.fallbacks.list() {
		s.send(&series{fallbackTotal, []*dto.LabelPair{u.name, label("source", f.name)}}, float64(f.n.Load()))
	}
	if b.durations != nil {
		s.out <- newDurations(b.durations, u.slow.labels)
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
	labels []*dto.LabelPair
}

func newDurations(h *histogram, labels []*dto.LabelPair) *durations {
	d := &durations{labels: labels}
	d.SampleSum = new(time.Duration(h.sum.Load()).Seconds())
	buckets := make([]struct {
		dto.Bucket
		bound float64
		calls uint64 // up to it
	}, len(h.bounds))
	d.Bucket = make([]*dto.Bucket, len(h.bounds))
	var calls uint64
	for i, bound := range h.bounds {
		calls += h.counts[i].Load()
		b := &buckets[i]
		b.bound, b.calls = bound.Seconds(), calls
		b.UpperBound, b.CumulativeCount = &b.bound, &b.calls
		d.Bucket[i] = &b.Bucket
	}
	d.SampleCount = new(calls + h.counts[len(h.bounds)].Load())
	return d
}

func (*durations) Desc() *prometheus.Desc { return durationDesc }

func (d *durations) Write(to *dto.Metric) error {
	to.Label, to.Histogram = d.labels, &d.Histogram
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
