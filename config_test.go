package breaker_test

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

func TestTheDefaults(t *testing.T) {
	require.Equal(t, breaker.Config{
		FailureThreshold: 5, FailureRateThreshold: 0.5, SlowCallDuration: breaker.Off,
		MinimumCalls: 10, WindowCalls: 100, OpenTimeout: 30 * time.Second, MaxOpenTimeout: 5 * time.Minute, OpenTimeoutJitter: 0.1,
		HalfOpenMaxCalls: 3, SuccessThreshold: 3, ProbeTimeout: 5 * time.Minute, MaxRetryAfter: 10 * time.Minute,
	}, breaker.Must(breaker.New("x", breaker.Config{})).Config())
}

func TestDefaultsAdaptToTheOneFieldThatIsSet(t *testing.T) {
	for _, c := range []struct {
		name string
		set  breaker.Config
		got  func(c breaker.Config) any
		want any
	}{
		{"minimum_calls to a small window", breaker.Config{WindowCalls: 4}, func(c breaker.Config) any { return c.MinimumCalls }, 4},
		{"the window to a large minimum_calls", breaker.Config{MinimumCalls: 200}, func(c breaker.Config) any { return c.WindowCalls }, 200},
		{"ten calls in a window of time", breaker.Config{WindowDuration: time.Second}, func(c breaker.Config) any { return c.MinimumCalls }, 10},
		{"no window_calls beside window_seconds", breaker.Config{WindowDuration: time.Second}, func(c breaker.Config) any { return c.WindowCalls }, 0},
		{"the longest opening to a long one", breaker.Config{OpenTimeout: time.Hour}, func(c breaker.Config) any { return c.MaxOpenTimeout }, time.Hour},
		{"the first opening to a short longest", breaker.Config{MaxOpenTimeout: time.Second}, func(c breaker.Config) any { return c.OpenTimeout }, time.Second},
		{"the probe timeout to long calls", breaker.Config{SlowCallDuration: time.Hour}, func(c breaker.Config) any { return c.ProbeTimeout }, 2 * time.Hour},
		{"the slow rate to a slow duration", breaker.Config{SlowCallDuration: time.Second}, func(c breaker.Config) any { return c.SlowCallRateThreshold }, 0.8},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := breaker.New("x", c.set)
			require.NoError(t, err)
			require.Equal(t, c.want, c.got(b.Config()))
		})
	}
}

func TestEachFieldHasItsRange(t *testing.T) {
	nan := math.NaN()
	for key, configs := range map[string][]breaker.Config{
		"failure_threshold":            {{FailureThreshold: -2}},
		"failure_rate_threshold":       {{FailureRateThreshold: -0.5}, {FailureRateThreshold: 1.01}, {FailureRateThreshold: nan}, {FailureRateThreshold: math.Inf(1)}},
		"slow_call_duration_threshold": {{SlowCallDuration: -2}, {SlowCallDuration: -time.Second}, {SlowCallDuration: math.MaxInt64}},
		"slow_call_rate_threshold":     {{SlowCallDuration: 1, SlowCallRateThreshold: 2}, {SlowCallRateThreshold: 0.5}, {SlowCallDuration: breaker.Off, SlowCallRateThreshold: 0.5}},
		"minimum_calls":                {{MinimumCalls: -1}, {MinimumCalls: 11, WindowCalls: 10}, {MinimumCalls: 1_000_001}},
		"window_calls":                 {{WindowCalls: -1}, {WindowCalls: 1_000_001}},
		"window_seconds":               {{WindowDuration: time.Second - 1}, {WindowDuration: 24*time.Hour + 1}, {WindowDuration: -1}, {WindowDuration: time.Second, WindowCalls: 1}},
		"timeout_seconds":              {{OpenTimeout: -1}},
		"max_timeout_seconds":          {{MaxOpenTimeout: -1}, {OpenTimeout: 2, MaxOpenTimeout: 1}},
		"timeout_jitter":               {{OpenTimeoutJitter: 1}, {OpenTimeoutJitter: -0.1}, {OpenTimeoutJitter: nan}},
		"half_open_max_calls":          {{HalfOpenMaxCalls: -1}},
		"success_threshold":            {{SuccessThreshold: -1}},
		"probe_timeout_seconds":        {{ProbeTimeout: -1}, {ProbeTimeout: 5, SlowCallDuration: 5}},
		"max_retry_after_seconds":      {{MaxRetryAfter: -2}},
		"ramp_up_seconds":              {{RampUp: -1}},
	} {
		for _, cfg := range configs {
			_, err := breaker.New("x", cfg)
			require.Error(t, err, "%+v", cfg)
			require.Len(t, err.(*breaker.ConfigError).Problems, 1, "%v", err)
			require.Equal(t, key, err.(*breaker.ConfigError).Problems[0].Key)
		}
	}
	for _, cfg := range []breaker.Config{{MaxOpenTimeout: breaker.Off}, {ProbeTimeout: breaker.Off}} {
		_, err := breaker.New("x", cfg)
		require.ErrorContains(t, err, "-1ns is not allowed: want seconds > 0", "neither can be off")
	}
}

func TestOneErrorListsRangesAndContradictions(t *testing.T) {
	_, err := breaker.New("x", breaker.Config{FailureThreshold: -5, WindowCalls: 10, WindowDuration: time.Second, SuccessThreshold: -1})
	require.EqualError(t, err, strings.Join([]string{
		"breaker: invalid configuration: 3 problems:",
		"failure_threshold: -5 is not allowed: want a whole number >= 1, or off",
		"success_threshold: -1 is not allowed: want a whole number >= 1",
		"window_seconds: 1s is not allowed: want only one of window_calls and window_seconds",
	}, "\n\t"))
	_, err = breaker.New("x", breaker.Config{SlowCallDuration: -5, SlowCallRateThreshold: 0.5, ProbeTimeout: 1})
	require.EqualError(t, err, `breaker: invalid configuration: slow_call_duration_threshold: -5ns is not allowed: want milliseconds > 0, a duration such as "2s", or off`,
		"what is out of range contradicts nothing")
}

func TestBoundsAreAllowed(t *testing.T) {
	for _, cfg := range []breaker.Config{
		{FailureRateThreshold: 1}, {FailureRateThreshold: math.SmallestNonzeroFloat64}, {WindowDuration: time.Second}, {WindowDuration: 24 * time.Hour},
		{WindowCalls: 1}, {WindowCalls: 1_000_000}, {MinimumCalls: 10, WindowCalls: 10}, {MinimumCalls: 1_000_000}, {OpenTimeout: 1, MaxOpenTimeout: 1}, {OpenTimeoutJitter: math.Nextafter(1, 0)},
		{ProbeTimeout: 6, SlowCallDuration: 5}, {SlowCallDuration: math.MaxInt64 - 1}, {MinimumCalls: math.MaxInt, WindowDuration: time.Second}, {SlowCallRateThreshold: breaker.Off},
		{FailureThreshold: breaker.Off, FailureRateThreshold: breaker.Off, SlowCallDuration: breaker.Off, OpenTimeoutJitter: breaker.Off, MaxRetryAfter: breaker.Off},
	} {
		b, err := breaker.New("x", cfg)
		require.NoError(t, err)
		require.NoError(t, b.Apply(b.Config()), "what is in force is valid")
	}
}

func TestConfigJSONShowsDurationsExactly(t *testing.T) {
	for ms := range 3000 {
		d := time.Duration(ms+1) * time.Millisecond
		text, err := json.Marshal(breaker.Config{SlowCallDuration: d, OpenTimeout: d})
		require.NoError(t, err)
		var back map[string]json.Number
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, json.Number(strconv.Itoa(ms+1)), back["slow_call_duration_threshold"])
	}
	text, err := json.Marshal(breaker.Config{FailureThreshold: breaker.Off, MaxRetryAfter: breaker.Off, OpenTimeout: 1500 * time.Millisecond})
	require.NoError(t, err)
	require.JSONEq(t, `{"failure_threshold":"off","timeout_seconds":1.5,"max_retry_after_seconds":"off"}`, string(text))
	_, err = json.Marshal(breaker.Config{FailureRateThreshold: math.NaN()})
	require.ErrorContains(t, err, "failure_rate_threshold is NaN")
	for _, sign := range []int{-1, 1} {
		_, err = json.Marshal(breaker.Config{FailureRateThreshold: math.Inf(sign)})
		require.ErrorContains(t, err, "Inf, want a fraction > 0 and <= 1, or off")
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"a", strings.Repeat("x", 256), "数据库", "a b\n\"c\""} {
		_, err := breaker.New(name, breaker.Config{})
		require.NoError(t, err)
	}
	for name, want := range map[string]string{
		"":                       "breaker: the name is empty: want 1 to 256 bytes of UTF-8",
		strings.Repeat("x", 257): `breaker: the name "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"... has 257 bytes: want at most 256`,
		"a\xff":                  `breaker: the name "a\xff" is not UTF-8`,
	} {
		_, err := breaker.New(name, breaker.Config{})
		require.EqualError(t, err, want)
	}
	require.Panics(t, func() { breaker.Must(breaker.New("", breaker.Config{})) })
}

func TestNilOptionsAreNone(t *testing.T) {
	b, err := breaker.New("x", breaker.Config{}, nil, breaker.WithClassifier(nil), breaker.WithListener(nil), breaker.WithErrorText(nil), breaker.WithLogger(nil))
	require.NoError(t, err)
	ends(b, 5, errDown)
	require.Equal(t, breaker.StateOpen, b.State())
}

func TestTheSlowRuleIsOnOnceADurationIsSet(t *testing.T) {
	b := newBreaker(t, breaker.Config{})
	cfg := b.Config()
	cfg.SlowCallDuration = time.Second
	require.NoError(t, b.Apply(cfg))
	require.InDelta(t, 0.8, b.Config().SlowCallRateThreshold, 0)
}

func TestWhichKeysTakeOffAndZero(t *testing.T) {
	off := map[string]bool{"failure_threshold": true, "failure_rate_threshold": true, "slow_call_duration_threshold": true,
		"slow_call_rate_threshold": true, "timeout_jitter": true, "max_retry_after_seconds": true}
	zero := map[string]bool{"timeout_jitter": true, "ramp_up_seconds": true}
	for _, key := range []string{"failure_threshold", "failure_rate_threshold", "slow_call_duration_threshold", "slow_call_rate_threshold",
		"minimum_calls", "window_calls", "window_seconds", "timeout_seconds", "max_timeout_seconds", "timeout_jitter", "half_open_max_calls",
		"success_threshold", "probe_timeout_seconds", "max_retry_after_seconds", "ramp_up_seconds"} {
		for value, allowed := range map[string]bool{"off": off[key], "0": zero[key]} {
			_, err := breaker.ParseFile([]byte("circuit_breaker: {default: {" + key + ": " + value + "}}"))
			require.Equal(t, allowed, err == nil, "%s: %s", key, value)
			if !allowed {
				require.ErrorContains(t, err, key+": "+value)
			}
		}
	}
}

func TestPlainNumbersCountTheUnitOfTheKey(t *testing.T) {
	f, err := breaker.ParseFile([]byte(`circuit_breaker: {default: {slow_call_duration_threshold: 1, timeout_seconds: 1, max_timeout_seconds: 2, probe_timeout_seconds: 3,
		max_retry_after_seconds: 4, ramp_up_seconds: 5}, services: {a: {window_seconds: 1}, b: {window_seconds: 86400}, c: {window_calls: 1}}}`))
	require.NoError(t, err)
	require.Equal(t, breaker.Config{SlowCallDuration: time.Millisecond, OpenTimeout: time.Second, MaxOpenTimeout: 2 * time.Second,
		ProbeTimeout: 3 * time.Second, MaxRetryAfter: 4 * time.Second, RampUp: 5 * time.Second}, f.Breakers.Default)
	require.Equal(t, time.Second, f.Breakers.Services["a"].WindowDuration)
	require.Equal(t, 24*time.Hour, f.Breakers.Services["b"].WindowDuration)
	require.Equal(t, 1, f.Breakers.Services["c"].WindowCalls)
}

func TestTheBucketsOfAHistogram(t *testing.T) {
	usual := []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, math.Inf(1)}
	for name, c := range map[string]struct {
		bounds []time.Duration
		want   []float64
	}{
		"the usual ones":                         {nil, usual},
		"the usual ones where none is left":      {[]time.Duration{0, -time.Second}, usual},
		"sorted, each once, none without length": {[]time.Duration{2 * time.Second, 0, time.Second, 1, 2 * time.Second, -1}, []float64{1e-9, 1, 2, math.Inf(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRegistry(t, breaker.RegistryConfig{}, breaker.WithDurationHistogram(c.bounds...))
			r.Breaker("x")
			var got []float64
			for series := range scrape(t, r.Collector()) {
				if _, le, found := strings.Cut(series, `,le="`); found {
					bound, err := strconv.ParseFloat(strings.TrimSuffix(le, `"}`), 64)
					require.NoError(t, err)
					got = append(got, bound)
				}
			}
			require.Equal(t, c.want, slices.Sorted(slices.Values(got)))
		})
	}
}
