package breaker_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// scrape returns the series of a registry as Prometheus would read them.
func scrape(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	all := prometheus.NewPedanticRegistry()
	require.NoError(t, all.Register(c))
	return scrapeFrom(t, all)
}

func scrapeFrom(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	page := httptest.NewRecorder()
	promhttp.HandlerFor(g, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(t, 200, page.Code, page.Body.String())
	series := map[string]float64{}
	for line := range strings.Lines(page.Body.String()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		cut := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[cut:]), 64)
		require.NoError(t, err, line)
		series[line[:cut]] = v
	}
	return series
}

func newRegistry(t testing.TB, cfg breaker.RegistryConfig, opts ...breaker.Option) *breaker.Registry {
	t.Helper()
	r, err := breaker.NewRegistry(cfg, opts...)
	require.NoError(t, err)
	return r
}

func TestAScrapeOfABreakerThatHasDoneNothing(t *testing.T) {
	r := newRegistry(t, breaker.RegistryConfig{Services: map[string]breaker.Config{"x": {}}})
	require.Equal(t, map[string]float64{
		`breaker_state{name="x",state="closed"}`:          1,
		`breaker_state{name="x",state="open"}`:            0,
		`breaker_state{name="x",state="half_open"}`:       0,
		`breaker_state{name="x",state="forced_open"}`:     0,
		`breaker_state{name="x",state="disabled"}`:        0,
		`breaker_calls_total{name="x",outcome="success"}`: 0, `breaker_calls_total{name="x",outcome="failure"}`: 0,
		`breaker_calls_total{name="x",outcome="ignored"}`: 0, `breaker_calls_total{name="x",outcome="rejected"}`: 0,
		`breaker_slow_calls_total{name="x"}`:   0,
		`breaker_in_flight{name="x"}`:          0,
		`breaker_open_seconds_total{name="x"}`: 0,
		`breaker_unregistered_total`:           0,
		`breaker_transitions_total{from="closed",name="x",rule="consecutive_failures",to="open"}`: 0,
		`breaker_transitions_total{from="closed",name="x",rule="failure_rate",to="open"}`:         0,
		`breaker_transitions_total{from="closed",name="x",rule="retry_after",to="open"}`:          0,
	}, scrape(t, r.Collector()), "what is not known is absent")
}

func TestAScrapeInEachState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(t, breaker.RegistryConfig{Services: map[string]breaker.Config{"x": steady(breaker.Config{
			FailureThreshold: 3, SlowCallDuration: time.Second, SlowCallRateThreshold: breaker.Off, SuccessThreshold: 1, HalfOpenMaxCalls: 1,
		})}})
		b := r.Breaker("x")
		shows := func(want map[string]float64) {
			t.Helper()
			got := scrape(t, r.Collector())
			for series, v := range want {
				require.Contains(t, got, series)
				require.InDelta(t, v, got[series], 1e-9, series)
			}
		}
		absent := func(names ...string) {
			t.Helper()
			for series := range scrape(t, r.Collector()) {
				require.False(t, slices.Contains(names, series[:strings.IndexByte(series+"{", '{')]), series)
			}
		}

		p := acquire(t, b)
		time.Sleep(2 * time.Second)
		shows(map[string]float64{`breaker_in_flight{name="x"}`: 1, `breaker_slow_call_rate{name="x"}`: 1})
		p.Done(nil)
		_ = end(b, breaker.Ignore(errDown))
		shows(map[string]float64{
			`breaker_calls_total{name="x",outcome="success"}`: 1, `breaker_calls_total{name="x",outcome="ignored"}`: 1,
			`breaker_slow_calls_total{name="x"}`: 1, `breaker_in_flight{name="x"}`: 0, `breaker_failure_rate{name="x"}`: 0,
		})
		absent("breaker_retry_after_seconds")

		ends(b, 3, errDown)
		ends(b, 7, nil) // refused
		time.Sleep(10 * time.Second)
		shows(map[string]float64{
			`breaker_state{name="x",state="open"}`: 1, `breaker_state{name="x",state="closed"}`: 0,
			`breaker_calls_total{name="x",outcome="failure"}`: 3, `breaker_calls_total{name="x",outcome="rejected"}`: 7,
			`breaker_transitions_total{from="closed",name="x",rule="consecutive_failures",to="open"}`: 1,
			`breaker_retry_after_seconds{name="x"}`:                                                   20, `breaker_open_seconds_total{name="x"}`: 10, `breaker_failure_rate{name="x"}`: 0.75,
		})

		time.Sleep(25 * time.Second) // nobody has looked: the scrape itself must see half-open
		shows(map[string]float64{
			`breaker_state{name="x",state="half_open"}`:                                          1,
			`breaker_transitions_total{from="open",name="x",rule="open_timeout",to="half_open"}`: 1,
			`breaker_open_seconds_total{name="x"}`:                                               30,
		})
		absent("breaker_retry_after_seconds")
		_ = end(b, errDown)
		time.Sleep(time.Minute)
		for range 3 { // a scrape sees it and stores nothing
			shows(map[string]float64{`breaker_transitions_total{from="open",name="x",rule="open_timeout",to="half_open"}`: 2})
		}
		_ = end(b, nil)
		shows(map[string]float64{
			`breaker_state{name="x",state="closed"}`:                                             1,
			`breaker_transitions_total{from="half_open",name="x",rule="probe_failed",to="open"}`: 1,
			`breaker_transitions_total{from="open",name="x",rule="open_timeout",to="half_open"}`: 2,
			`breaker_transitions_total{from="half_open",name="x",rule="recovered",to="closed"}`:  1,
			`breaker_open_seconds_total{name="x"}`:                                               90,
		})
		absent("breaker_failure_rate", "breaker_slow_call_rate")
	})
}

// What can open a breaker is there before it does: a rate of what appears at 1 would be 0.
func TestOpeningsAreCountedFromZero(t *testing.T) {
	off := breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: breaker.Off, MaxRetryAfter: breaker.Off}
	r := newRegistry(t, breaker.RegistryConfig{Services: map[string]breaker.Config{"off": off, "slow": {SlowCallDuration: time.Second}}})
	got := scrape(t, r.Collector())
	for series := range got {
		require.NotContains(t, series, `transitions_total{from="closed",name="off"`)
	}
	require.Contains(t, got, `breaker_transitions_total{from="closed",name="slow",rule="slow_call_rate",to="open"}`)
	r.Breaker("off").Trip("")
	require.Contains(t, scrape(t, r.Collector()), `breaker_transitions_total{from="closed",name="off",rule="manual",to="open"}`)
}

// A hold over a hold, a release into an open breaker and a reset: each second of refusing every call counts once.
func TestOpenSecondsCountWhatIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(t, breaker.RegistryConfig{Services: map[string]breaker.Config{"x": steady(breaker.Config{OpenTimeout: time.Hour, MaxOpenTimeout: time.Hour})}})
		b := r.Breaker("x")
		last := 0.0
		after := func(pass time.Duration, want float64) {
			t.Helper()
			time.Sleep(pass)
			got := scrape(t, r.Collector())[`breaker_open_seconds_total{name="x"}`]
			require.InDelta(t, want, got, 1e-9)
			require.GreaterOrEqual(t, got, last)
			last = got
		}
		b.ForceOpen(breaker.Hold{For: 30 * time.Second})
		after(10*time.Second, 10)
		b.ForceOpen(breaker.Hold{For: 20 * time.Second})
		after(10*time.Second, 20)
		after(time.Minute, 30) // the hold has ended, which nobody has looked at
		b.Trip("test")
		after(5*time.Second, 35)
		b.Disable(breaker.Hold{})
		after(time.Minute, 35)
		b.Release()
		after(time.Second, 36)
		b.ForceOpen(breaker.Hold{})
		after(time.Second, 37)
		b.Reset("")
		after(time.Minute, 37)
	})
}

func TestCountersNeverGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(t, breaker.RegistryConfig{Default: steady(breaker.Config{FailureThreshold: 2, SuccessThreshold: 1, SlowCallDuration: time.Second})},
			breaker.WithDurationHistogram())
		b := r.Breaker("x")
		answer := breaker.Protect(b, func(context.Context, int) (int, error) { return 0, errDown }).OrValue(1)
		before := map[string]float64{}
		for step := range 200 {
			switch step % 10 {
			case 0, 1, 2:
				_, _ = answer.Do(bg, 0)
			case 3:
				b.Reset("")
			case 4:
				b.ForceOpen(breaker.Hold{For: time.Duration(step) * time.Millisecond})
			case 5:
				b.Release()
			case 6:
				require.NoError(t, r.Apply(breaker.RegistryConfig{Default: breaker.Config{FailureThreshold: 1 + step%3, SlowCallDuration: time.Second}}))
			case 7:
				b.Trip("")
			default:
				_ = end(b, nil)
				time.Sleep(time.Duration(step) * time.Second)
			}
			now := scrape(t, r.Collector())
			for series, v := range before {
				if strings.Contains(series, "_total") || strings.Contains(series, "_bucket") || strings.Contains(series, "_count") || strings.Contains(series, "_sum") {
					require.Contains(t, now, series)
					require.GreaterOrEqual(t, now[series], v, "%s at step %d", series, step)
				}
			}
			before = now
		}
		require.Positive(t, before[`breaker_fallback_total{name="x",source="default"}`])
	})
}

// A removed breaker has no series, and one made anew under its name counts from zero.
func TestSeriesFollowTheRegistry(t *testing.T) {
	r := newRegistry(t, breaker.RegistryConfig{MaxBreakers: 2})
	all := prometheus.NewPedanticRegistry()
	all.MustRegister(r.Collector())
	const calls = `breaker_calls_total{name="a",outcome="success"}`
	old := r.Breaker("a")
	ends(old, 3, nil)
	require.InDelta(t, 3, scrapeFrom(t, all)[calls], 0)
	r.Remove("a")
	require.NotContains(t, scrapeFrom(t, all), calls)
	ends(r.Breaker("a"), 1, nil)
	ends(old, 5, nil)
	require.InDelta(t, 1, scrapeFrom(t, all)[calls], 0)

	r.Breaker("b")
	for _, name := range []string{"a", "b"} {
		r.Breaker(name).ForceOpen(breaker.Hold{})
	}
	before := len(scrapeFrom(t, all))
	for i := range 1000 {
		r.Breaker(fmt.Sprint("caller ", i)).ForceOpen(breaker.Hold{})
	}
	require.Len(t, scrapeFrom(t, all), before, "names from outside make no series beyond MaxBreakers")
	require.InDelta(t, 1000, scrapeFrom(t, all)["breaker_unregistered_total"], 0)
}

// Prometheus's registry sorts the series of a name by their labels, which is a fifth of its work where they come in no order.
func TestSeriesAreSentInOrder(t *testing.T) {
	r := newRegistry(t, breaker.RegistryConfig{Default: breaker.Config{SlowCallDuration: time.Hour}}, breaker.WithDurationHistogram())
	for _, name := range []string{"c", "a", "b"} {
		_ = end(r.Breaker(name), nil)
	}
	last := map[*prometheus.Desc]string{}
	for m := range collected(r.Collector()) {
		var now dto.Metric
		require.NoError(t, m.Write(&now))
		var values []string
		for _, l := range now.Label {
			values = append(values, l.GetValue())
		}
		got := strings.Join(values, "\x00")
		require.Less(t, last[m.Desc()], got+"\x00", m.Desc())
		last[m.Desc()] = got
	}
	require.Len(t, last, 10, "all but those of an outage")
}

// collected is what a scrape sends.
func collected(c prometheus.Collector) <-chan prometheus.Metric {
	series := make(chan prometheus.Metric, 1000) // as client_golang has it
	go func() {
		c.Collect(series)
		close(series)
	}()
	return series
}

// What is kept between scrapes goes with its breaker.
func TestAScrapeKeepsNoBreakerThatHasLeft(t *testing.T) {
	r := newRegistry(t, breaker.RegistryConfig{MaxBreakers: 2})
	c := r.Collector()
	r.Breaker("stays")
	left := weak.Make(r.Breaker("leaves"))
	var label weak.Pointer[dto.LabelPair]
	for m := range collected(c) {
		var now dto.Metric
		require.NoError(t, m.Write(&now))
		if len(now.Label) > 0 && now.Label[0].GetValue() == "leaves" {
			label = weak.Make(now.Label[0])
		}
	}
	runtime.GC()
	require.NotNil(t, left.Value(), "registered")
	require.NotNil(t, label.Value(), "made once, for all scrapes")
	r.Remove("leaves")
	runtime.GC()
	runtime.GC()
	require.Nil(t, left.Value())
	require.Nil(t, label.Value())
	runtime.KeepAlive(c)
}

func TestEveryLabelButNameIsBounded(t *testing.T) {
	r := newRegistry(t, breaker.RegistryConfig{})
	b := r.Breaker("x")
	for i := range 500 {
		_, _ = breaker.Protect(b, failsWith(errUpstream).ask).OrCall(fmt.Sprint("model ", i), answers("yes").ask).Do(bg, "x")
		b.ForceOpen(breaker.Hold{Reason: fmt.Sprint("reason ", i)})
		b.Reset(fmt.Sprint("reason ", i))
		b.Trip(fmt.Sprint("reason ", i))
		b.Reset("")
	}
	require.Less(t, len(scrape(t, r.Collector())), 68)
}

func TestNamesOfAnyKindAreScraped(t *testing.T) {
	r := newRegistry(t, breaker.RegistryConfig{})
	for _, name := range []string{`a"b`, "a\nb", `a\b`, "größe", "a/b c%", "\xff\xfe", strings.Repeat("ü", 1000)} {
		r.Breaker(name)
	}
	require.Len(t, scrape(t, r.Collector()), 7*15+1)
}

func TestSourcesOfAnyKindAreScraped(t *testing.T) {
	r := newRegistry(t, breaker.RegistryConfig{})
	b := r.Breaker("x")
	for _, source := range []string{"a\xffb", "a\xfeb", "a\uFFFDb", `"`, "größe"} {
		_, err := breaker.Protect(b, failsWith(errUpstream).ask).OrCall(source, answers("yes").ask).Do(bg, "x")
		require.NoError(t, err)
	}
	require.InDelta(t, 3, scrape(t, r.Collector())["breaker_fallback_total{name=\"x\",source=\"a\uFFFDb\"}"], 0)
	require.Len(t, b.Status().Metrics.Fallbacks, 3)
}

func TestRegisteringTwiceIsAnErrorAndWrappingHelps(t *testing.T) {
	a, b := newRegistry(t, breaker.RegistryConfig{}), newRegistry(t, breaker.RegistryConfig{})
	a.Breaker("x")
	b.Breaker("x")
	all := prometheus.NewPedanticRegistry()
	require.NoError(t, all.Register(a.Collector()))
	require.Error(t, all.Register(b.Collector()))

	both := prometheus.NewPedanticRegistry()
	prometheus.WrapRegistererWith(prometheus.Labels{"registry": "a"}, both).MustRegister(a.Collector())
	prometheus.WrapRegistererWith(prometheus.Labels{"registry": "b"}, both).MustRegister(b.Collector())
	require.Contains(t, scrapeFrom(t, both), `breaker_in_flight{name="x",registry="b"}`)
}

func TestTheMetricsFollowPrometheusConventions(t *testing.T) {
	r := newRegistry(t, breaker.RegistryConfig{}, breaker.WithDurationHistogram())
	b := r.Breaker("x")
	_, _ = breaker.Protect(b, failsWith(errUpstream).ask).OrValue("no").Do(bg, "x")
	b.Trip("")
	all := prometheus.NewPedanticRegistry()
	all.MustRegister(r.Collector())
	families, err := all.Gather()
	require.NoError(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Len(t, families, 11, "all but the slow-call rate")
}

func TestTheDurationHistogram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(t, breaker.RegistryConfig{Default: steady(breaker.Config{FailureThreshold: 9, SuccessThreshold: 9, ProbeTimeout: 10 * time.Second})},
			breaker.WithDurationHistogram(2*time.Second, time.Second, 2*time.Second, 0, -1))
		b := r.Breaker("x")
		lasts := func(d time.Duration, err error) {
			_ = b.Do(bg, func(context.Context) error { time.Sleep(d); return err })
		}
		lasts(time.Second, nil) // at exactly a bound it is below it
		lasts(time.Second+1, errDown)
		lasts(3*time.Second, breaker.Ignore(errDown))
		cancelled := acquire(t, b)
		cancelled.Cancel()
		stream := acquire(t, b)
		time.Sleep(500 * time.Millisecond)
		stream.Progress()
		time.Sleep(time.Minute)
		stream.Done(nil)
		want := map[string]float64{
			`breaker_call_duration_seconds_bucket{name="x",le="1"}`: 2, `breaker_call_duration_seconds_bucket{name="x",le="2"}`: 3,
			`breaker_call_duration_seconds_bucket{name="x",le="+Inf"}`: 4,
			`breaker_call_duration_seconds_sum{name="x"}`:              5.500000001, `breaker_call_duration_seconds_count{name="x"}`: 4,
		}
		require.Subset(t, scrape(t, r.Collector()), want)

		toHalfOpen(t, b)
		lost, probe := acquire(t, b), acquire(t, b)
		joined, err := b.Acquire(probe.Context(bg))
		require.NoError(t, err)
		probe.Progress()
		time.Sleep(time.Second)
		joined.Done(nil)
		probe.Done(nil)
		time.Sleep(time.Minute)
		lost.Done(nil)
		want[`breaker_call_duration_seconds_bucket{name="x",le="1"}`] = 3
		want[`breaker_call_duration_seconds_bucket{name="x",le="2"}`] = 4
		want[`breaker_call_duration_seconds_bucket{name="x",le="+Inf"}`] = 5
		want[`breaker_call_duration_seconds_count{name="x"}`] = 5
		require.Subset(t, scrape(t, r.Collector()), want, "a probe counts like any call, one inside it or lost does not")
	})
}

func TestTheDurationHistogramAllocatesNothing(t *testing.T) {
	b := newBreaker(t, breaker.Config{}, breaker.WithDurationHistogram())
	call := func(context.Context) error { return nil }
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = b.Do(bg, call) }))
}

func TestScrapesWhileCallsAreMade(t *testing.T) {
	r := newRegistry(t, breaker.RegistryConfig{MaxBreakers: 20}, breaker.WithDurationHistogram())
	done := make(chan struct{})
	for i := range 4 {
		go func() {
			for n := range 2000 {
				b := r.Breaker(fmt.Sprint((n * (i + 1)) % 30))
				_ = end(b, map[bool]error{true: errDown}[n%3 == 0])
			}
			done <- struct{}{}
		}()
	}
	for range 4 {
		for waiting := true; waiting; {
			select {
			case <-done:
				waiting = false
			default:
				require.NotEmpty(t, scrape(t, r.Collector()))
			}
		}
	}
}

// BenchmarkExecuteUnderACollector shows that being scraped costs a call nothing.
func BenchmarkExecuteUnderACollector(b *testing.B) {
	for _, how := range []struct {
		name string
		opts []breaker.Option
		with bool
	}{{"without", nil, false}, {"with", nil, true}, {"with a histogram", []breaker.Option{breaker.WithDurationHistogram()}, true}} {
		b.Run(how.name, func(b *testing.B) {
			r := newRegistry(b, breaker.RegistryConfig{}, how.opts...)
			if how.with {
				all := prometheus.NewRegistry()
				all.MustRegister(r.Collector())
				_, err := all.Gather()
				require.NoError(b, err)
			}
			one := r.Breaker("x")
			call := func(context.Context) (int, error) { return 0, nil }
			b.ReportAllocs()
			for b.Loop() {
				_, _ = breaker.Execute(bg, one, call)
			}
		})
	}
}

func tenThousand(b *testing.B) *breaker.Registry {
	r := newRegistry(b, breaker.RegistryConfig{})
	for i := range 10_000 {
		ends(r.Breaker(fmt.Sprint("upstream ", i)), i%8, errDown)
	}
	return r
}

// BenchmarkCollectTenThousand is this library's part of a scrape.
func BenchmarkCollectTenThousand(b *testing.B) {
	c := tenThousand(b).Collector()
	for b.Loop() {
		n := 0
		for range collected(c) {
			n++
		}
		b.ReportMetric(float64(n), "series")
	}
}

// BenchmarkGatherTenThousand is a scrape up to its text: most of it is client_golang's.
func BenchmarkGatherTenThousand(b *testing.B) {
	all := prometheus.NewRegistry()
	all.MustRegister(tenThousand(b).Collector())
	for b.Loop() {
		_, err := all.Gather()
		require.NoError(b, err)
	}
}
