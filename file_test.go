package breaker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const rfcFile = "testdata/circuit_breaker_config.yaml"

func TestTheRFCsFileIsReadUnchanged(t *testing.T) {
	f, err := LoadFile(rfcFile)
	require.NoError(t, err)
	standard := Config{
		FailureThreshold: 5, SuccessThreshold: 3, OpenTimeout: 30 * time.Second, HalfOpenMaxCalls: 3,
		FailureRateThreshold: 0.5, SlowCallDuration: 2 * time.Second, SlowCallRateThreshold: 0.8,
	}
	service := func(failures, successes int, timeout time.Duration) Config {
		c := standard
		c.FailureThreshold, c.SuccessThreshold, c.OpenTimeout = failures, successes, timeout
		return c
	}
	require.Equal(t, &File{
		Version:  "1.0.0",
		Metadata: map[string]any{"name": "risk-modules-circuit-breaker", "environment": "production", "deployed_by": "rfc-136"},
		Breakers: RegistryConfig{Default: standard, Services: map[string]Config{
			"payment_service":      service(3, 5, 60*time.Second),
			"inventory_service":    service(10, 3, 20*time.Second),
			"notification_service": service(15, 2, 10*time.Second),
		}},
		Monitoring: map[string]any{"metrics_interval_seconds": 10, "health_check_interval_seconds": 30},
		Alerts: Alerts{Channels: []AlertChannel{
			{Type: "slack", SeverityFilter: []string{"critical", "high"}, WebhookURL: "${SLACK_WEBHOOK_URL}"},
			{Type: "pagerduty", SeverityFilter: []string{"critical"}, IntegrationKey: "${PAGERDUTY_KEY}"},
			{Type: "email", SeverityFilter: []string{"critical", "high", "medium"}, Recipients: []string{"oncall@company.com"}},
		}},
		Fallback: Fallback{
			DefaultResponse: DefaultResponse{StatusCode: 503, Body: map[string]any{"error": "Service temporarily unavailable", "retry_after": 30}},
			CacheMaxAge:     5 * time.Minute,
		},
	}, f)
	r, err := NewRegistry(f.Breakers)
	require.NoError(t, err)
	var names []string
	for name := range r.All() {
		names = append(names, name)
	}
	require.Equal(t, []string{"inventory_service", "notification_service", "payment_service"}, names)
}

func TestEverySettingIsRead(t *testing.T) {
	f, err := ParseFile([]byte(`
circuit_breaker:
  default: {failure_threshold: off, failure_rate_threshold: 1, slow_call_duration_threshold: 1.5, slow_call_rate_threshold: off, minimum_calls: 7,
    window_seconds: "1m30s", timeout_seconds: 0.25, max_timeout_seconds: 10m, timeout_jitter: 0, half_open_max_calls: 4, success_threshold: +6,
    probe_timeout_seconds: 1h, max_retry_after_seconds: 'off', ramp_up_seconds: 30}
  services:
    a: {window_calls: 1000000, slow_call_rate_threshold: .5, timeout_jitter: off, ramp_up_seconds: 0, failure_rate_threshold: 5e-1}
`))
	require.NoError(t, err)
	standard := Config{
		FailureThreshold: Off, FailureRateThreshold: 1, SlowCallDuration: 1500 * time.Microsecond, SlowCallRateThreshold: Off, MinimumCalls: 7,
		WindowDuration: 90 * time.Second, OpenTimeout: 250 * time.Millisecond, MaxOpenTimeout: 10 * time.Minute, OpenTimeoutJitter: Off,
		HalfOpenMaxCalls: 4, SuccessThreshold: 6, ProbeTimeout: time.Hour, MaxRetryAfter: Off, RampUp: 30 * time.Second,
	}
	require.Equal(t, standard, f.Breakers.Default)
	a := standard
	a.WindowDuration, a.WindowCalls, a.SlowCallRateThreshold, a.RampUp, a.FailureRateThreshold = 0, 1_000_000, 0.5, 0, 0.5
	require.Equal(t, a, f.Breakers.Services["a"])
}

func TestAServiceIsLaidOverTheDefault(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	for _, c := range []struct {
		name, standard, service string
		want, wantStandard      Config
	}{
		{"inherits what it does not set", "{failure_threshold: 7}", "{success_threshold: 2}",
			Config{FailureThreshold: 7, SuccessThreshold: 2}, Config{FailureThreshold: 7}},
		{"inherits everything when empty", "{failure_threshold: 7}", "{}", Config{FailureThreshold: 7}, Config{FailureThreshold: 7}},
		{"its window_calls displaces an inherited window_seconds", "{window_seconds: 60}", "{window_calls: 50}",
			Config{WindowCalls: 50}, Config{WindowDuration: 60 * s}},
		{"its window_seconds displaces an inherited window_calls", "{window_calls: 50}", "{window_seconds: 60}",
			Config{WindowDuration: 60 * s}, Config{WindowCalls: 50}},
		{"drops an inherited slow rate when its duration is off", "{slow_call_duration_threshold: 2000, slow_call_rate_threshold: 0.9}",
			"{slow_call_duration_threshold: off}", Config{SlowCallDuration: Off}, Config{SlowCallDuration: 2 * s, SlowCallRateThreshold: 0.9}},
		{"uses the default's slow rate that waits for a service's duration", "{slow_call_rate_threshold: 0.9}",
			"{slow_call_duration_threshold: 5}", Config{SlowCallDuration: 5 * ms, SlowCallRateThreshold: 0.9}, Config{}},
		{"may exceed the default's minimum_calls with a time window", "{window_calls: 5, minimum_calls: 5}", "{window_seconds: 9, minimum_calls: 50}",
			Config{WindowDuration: 9 * s, MinimumCalls: 50}, Config{WindowCalls: 5, MinimumCalls: 5}},
		{"keeps a slow rate beside the shortest duration", "{slow_call_duration_threshold: 1ns, slow_call_rate_threshold: 0.9}",
			"{failure_threshold: 3}", Config{SlowCallDuration: 1, SlowCallRateThreshold: 0.9, FailureThreshold: 3}, Config{SlowCallDuration: 1, SlowCallRateThreshold: 0.9}},
		{"may switch a rule off", "{failure_threshold: 3}", "{failure_threshold: off}", Config{FailureThreshold: Off}, Config{FailureThreshold: 3}},
		{"may take the ramp away", "{ramp_up_seconds: 3}", "{ramp_up_seconds: 0}", Config{}, Config{RampUp: 3 * s}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := ParseFile([]byte("circuit_breaker:\n  services:\n    x: " + c.service + "\n  default: " + c.standard))
			require.NoError(t, err)
			require.Equal(t, c.want, f.Breakers.Services["x"])
			require.Equal(t, c.wantStandard, f.Breakers.Default)
		})
	}
}

func TestASlowRateWaitsForTheOneServiceThatTimesItsCalls(t *testing.T) {
	f, err := ParseFile([]byte(`
circuit_breaker:
  default: {slow_call_rate_threshold: 0.9}
  services:
    timed: {slow_call_duration_threshold: 2s}
    untimed: {}
`))
	require.NoError(t, err)
	require.Equal(t, RegistryConfig{Services: map[string]Config{
		"timed": {SlowCallDuration: 2 * time.Second, SlowCallRateThreshold: 0.9}, "untimed": {},
	}}, f.Breakers)
}

func TestAnchorsAndMerges(t *testing.T) {
	f, err := ParseFile([]byte(`
metadata:
  patient: &patient {timeout_seconds: 60, window_seconds: 60, failure_threshold: 9}
  strict: &strict {failure_threshold: &two 2, slow_call_duration_threshold: 1s, slow_call_rate_threshold: 0.9}
circuit_breaker:
  default: &standard
    success_threshold: *two
  services:
    aliased: *standard
    own: {failure_threshold: 4, <<: *patient, window_calls: 10}
    list: {<<: [*strict, *patient]}
    nested: {<<: {<<: *patient, timeout_seconds: 7}, timeout_seconds: 8}
    untimed: {<<: *strict, slow_call_duration_threshold: off}
`))
	require.NoError(t, err)
	minute, second := time.Minute, time.Second
	require.Equal(t, map[string]Config{
		"aliased": {SuccessThreshold: 2},
		"own":     {SuccessThreshold: 2, FailureThreshold: 4, OpenTimeout: minute, WindowCalls: 10},
		"list": {SuccessThreshold: 2, FailureThreshold: 2, OpenTimeout: minute, WindowDuration: minute,
			SlowCallDuration: second, SlowCallRateThreshold: 0.9},
		"nested":  {SuccessThreshold: 2, FailureThreshold: 9, OpenTimeout: 8 * second, WindowDuration: minute},
		"untimed": {SuccessThreshold: 2, FailureThreshold: 2, SlowCallDuration: Off},
	}, f.Breakers.Services)
}

// bad is one thing wrong with a file: where it is reported, as what, and what the text must say is allowed.
type bad struct {
	name, file string
	line       int
	key, value string
	want       string
}

// inDefault is a file with one line in its default.
func inDefault(line string) string { return "circuit_breaker:\n  default:\n    " + line + "\n" }

func wrong(name, line, key, value, want string) bad {
	return bad{name, inDefault(line), 3, "circuit_breaker.default." + key, value, want}
}

var badFiles = []bad{
	{"an empty file", "", 1, "", "an empty file", "a mapping"},
	{"comments only", "# nothing\n# here\n", 1, "", "an empty file", "a mapping"},
	{"an empty document", "---\n", 1, "", "an empty file", "a mapping"},
	{"null", "# x\n~\n", 2, "", "null", "a mapping"},
	{"a list", "- a\n", 1, "", "a list", "a mapping"},
	{"a word", "# x\nhello", 2, "", "[redacted]", "a mapping"},
	{"a second document", "version: 1\n---\nversion: 1\n", 3, "", "a second document", "one document"},
	{"rubbish after the document", "version: 1\n...\nfoo\n", 3, "", "a syntax error", "valid YAML: did not find expected <document start>"},
	{"two colons in the first line", "a: b: c", 1, "", "a syntax error", "valid YAML: mapping values are not allowed"},
	{"two colons in the first line of two", "a: b: c\nd: e\n", 1, "", "a syntax error", "valid YAML: mapping values are not allowed"},
	{"indentation", "version: 1\nmetadata:\n  a: 1\n   b: 2\n", 4, "", "a syntax error", "valid YAML: mapping values are not allowed"},
	{"a tab", "version: 1\nmetadata:\n\ta: 1\n", 3, "", "a syntax error", "cannot start any token"},
	{"an unclosed list", "version: 1\nmetadata:\n  a: [1, 2\n  b: 3\n", 3, "", "a syntax error", "',' or ']'"},
	{"a stray brace", "version: 1\n}\n", 2, "", "a syntax error", "did not find expected"},
	{"an unclosed quote", "version: 1\nmetadata: {a: \"x}\n\n", 2, "", "a syntax error", "end of stream"},
	{"an unclosed brace at the end", "{", 1, "", "a syntax error", "valid YAML"},
	{"an unknown anchor", "version: 1\nmetadata:\n  a: *nowhere\n", 3, "", "a syntax error", "unknown anchor"},
	{"an unknown anchor that begins its line", "metadata: [a,\n*nowhere\n]\nversion: 1\n", 2, "", "a syntax error", "unknown anchor"},
	{"a control character", "version: 1\nmetadata: \x01\n", 2, "", "a control character or a byte that is not UTF-8", "UTF-8"},
	{"a control character in the first line", "# \x01\nversion: 1\n", 1, "", "a control character or a byte that is not UTF-8", "UTF-8"},
	{"not UTF-8", "version: 1\n\nmetadata: \xff\n", 3, "", "a control character or a byte that is not UTF-8", "UTF-8"},
	{"too large", strings.Repeat("#\n", 3<<20), 1, "", "a larger file", "at most 4194304 bytes"},

	{"another version", "version: \"2.0\"", 1, "version", `"2.0"`, "version 1"},
	{"a version of words", "version: 1.0-beta", 1, "version", "1.0-beta", "version 1"},
	{"a version that is a list", "version: [1]", 1, "version", "a list", "version 1"},
	{"an unknown section", "circuit_braker: {}\n", 1, "circuit_braker", "a mapping", "did you mean circuit_breaker?"},
	{"a secret in the wrong place", "password: hunter2\n", 1, "password", "[redacted]", "known are alerts"},
	{"a section twice", "version: 1\nmetadata: {}\nversion: 1\n", 3, "version", "[redacted]", "only once, this one is already in line 1"},
	{"metadata that is a list", "metadata: []", 1, "metadata", "a list", "a mapping"},
	{"null for a section", "circuit_breaker:\n", 1, "circuit_breaker", "null", "a mapping"},
	{"null for the default", "circuit_breaker:\n  default: ~\n", 2, "circuit_breaker.default", "null", "a mapping"},
	{"null for a service", "circuit_breaker:\n  services:\n    a:\n", 3, "circuit_breaker.services.a", "null", "a mapping"},
	{"services that are a list", "circuit_breaker:\n  services: [a]\n", 2, "circuit_breaker.services", "a list", "a mapping"},
	{"a service without a name", "circuit_breaker:\n  services:\n    \"\": {}\n", 3, `circuit_breaker.services.""`, `""`, "1 to 256 bytes"},
	{"a service with a long name", "circuit_breaker:\n  services:\n    ? " + strings.Repeat("x", 257) + "\n    : {}\n", 3,
		`circuit_breaker.services."` + strings.Repeat("x", 64) + `"...`, `"` + strings.Repeat("x", 64) + `"...`, "1 to 256 bytes"},
	{"a service twice", "circuit_breaker:\n  services:\n    a: {}\n    b: {}\n    a: {}\n", 5, "circuit_breaker.services.a", "a mapping", "already in line 3"},
	{"a null key", "circuit_breaker:\n  services:\n    ~: {}\n", 3, "circuit_breaker.services", "null", "text as a key"},
	{"a list as a key", "circuit_breaker:\n  services:\n    [a, b]: {}\n", 3, "circuit_breaker.services", "a list", "text as a key"},
	{"a merge of a word", "circuit_breaker:\n  default:\n    <<: base\n", 3, "circuit_breaker.default", "base", "a mapping"},
	{"two merges, the second of a word", "circuit_breaker:\n  default:\n    <<: {}\n    <<: base\n", 4, `circuit_breaker.default."<<"`, "base", "already in line 3"},
	{"an alias that merges itself", "circuit_breaker:\n  default: &a\n    <<: *a\n", 2, "circuit_breaker.default", "a mapping", "what does not contain itself"},

	wrong("a misspelt key", "failure_treshold: 5", "failure_treshold", "5", "did you mean failure_threshold?"),
	wrong("a key from nowhere", "colour: red", "colour", "text", "known are failure_threshold, failure_rate_threshold,"),
	{"a key twice", inDefault("timeout_seconds: 5\n    timeout_seconds: 6"), 4, "circuit_breaker.default.timeout_seconds", "6", "already in line 3"},
	wrong("a fraction for a whole number", "failure_threshold: 5.5", "failure_threshold", "5.5", "a whole number >= 1, or off"),
	wrong("5.0 for a whole number", "failure_threshold: 5.0", "failure_threshold", "5.0", "a whole number >= 1, or off"),
	wrong("an old octal number", "failure_threshold: 010", "failure_threshold", "010", "a whole number >= 1, or off"),
	wrong("an octal number", "failure_threshold: 0o10", "failure_threshold", "0o10", "a whole number >= 1, or off"),
	wrong("a hexadecimal number", "failure_threshold: 0x10", "failure_threshold", "0x10", "a whole number >= 1, or off"),
	wrong("a binary number", "failure_threshold: 0b11", "failure_threshold", "0b11", "a whole number >= 1, or off"),
	wrong("underscores", "failure_threshold: 1_000", "failure_threshold", "1_000", "a whole number >= 1, or off"),
	wrong("an exponent for a whole number", "failure_threshold: 1e3", "failure_threshold", "1e3", "a whole number >= 1, or off"),
	wrong("a quoted number", `minimum_calls: "30"`, "minimum_calls", `"30"`, "a whole number >= 1"),
	wrong("null", "half_open_max_calls:", "half_open_max_calls", "null", "a whole number >= 1"),
	wrong("a boolean", "half_open_max_calls: true", "half_open_max_calls", "true", "a whole number >= 1"),
	wrong("a long text", "half_open_max_calls: "+strings.Repeat("é", 50), "half_open_max_calls", strings.Repeat("é", 32)+"...", "a whole number >= 1"),
	wrong("a long text cut within a letter", "half_open_max_calls: a"+strings.Repeat("é", 50), "half_open_max_calls", "a"+strings.Repeat("é", 31)+"...", "a whole number >= 1"),
	wrong("text of two lines", `half_open_max_calls: "a\nb"`, "half_open_max_calls", `"a\nb"`, "a whole number >= 1"),
	wrong("a list for a number", "half_open_max_calls: [3]", "half_open_max_calls", "a list", "a whole number >= 1"),
	wrong("a mapping for a number", "half_open_max_calls: {a: 3}", "half_open_max_calls", "a mapping", "a whole number >= 1"),
	wrong("text for a number", "half_open_max_calls: three", "half_open_max_calls", "three", "a whole number >= 1"),
	wrong("a date for a number", "half_open_max_calls: 2026-01-02", "half_open_max_calls", "2026-01-02", "a whole number >= 1"),
	wrong("an overflow", "success_threshold: 99999999999999999999", "success_threshold", "99999999999999999999", "a whole number >= 1"),
	wrong("zero for a count", "half_open_max_calls: 0", "half_open_max_calls", "0", "leave it out for the default"),
	wrong("zero for a rule", "failure_threshold: 0", "failure_threshold", "0", "leave it out for the default, or write off"),
	wrong("zero for a rate", "failure_rate_threshold: 0.0", "failure_rate_threshold", "0.0", "leave it out for the default, or write off"),
	wrong("zero for a duration", "timeout_seconds: 0s", "timeout_seconds", "0s", "leave it out for the default"),
	wrong("too small to be anything", "timeout_seconds: 0.0000000001", "timeout_seconds", "0.0000000001", "leave it out for the default"),
	wrong("-1 where off may be meant", "failure_threshold: -1", "failure_threshold", "-1", "the word is off, not -1"),
	wrong("-1.0 likewise", "failure_rate_threshold: -1.0", "failure_rate_threshold", "-1.0", "the word is off, not -1"),
	wrong("zero in quotes", `ramp_up_seconds: "0"`, "ramp_up_seconds", `"0"`, "seconds >= 0"),
	wrong("off with a tag", "failure_threshold: !x off", "failure_threshold", "off", "or off"),
	wrong("-1 for a count", "success_threshold: -1", "success_threshold", "-1", "a whole number >= 1"),
	wrong("a duration that is the constant Off", "max_retry_after_seconds: -0.000000001", "max_retry_after_seconds", "-0.000000001", "seconds > 0"),
	wrong("off for what cannot be off", "timeout_seconds: off", "timeout_seconds", "off", `seconds > 0, or a duration such as "30s"`),
	wrong("false for off", "failure_threshold: false", "failure_threshold", "false", "or off"),
	wrong("a rate above one", "failure_rate_threshold: 50", "failure_rate_threshold", "50", "a fraction > 0 and <= 1, or off"),
	wrong("a rate in percent", "failure_rate_threshold: 50%", "failure_rate_threshold", "50%", "a fraction > 0 and <= 1, or off"),
	wrong("a negative rate", "failure_rate_threshold: -0.5", "failure_rate_threshold", "-0.5", "a fraction > 0 and <= 1, or off"),
	wrong("a quoted rate", `failure_rate_threshold: "0.5"`, "failure_rate_threshold", `"0.5"`, "a fraction > 0 and <= 1, or off"),
	wrong("not a number", "failure_rate_threshold: .nan", "failure_rate_threshold", ".nan", "a fraction > 0 and <= 1, or off"),
	wrong("infinite", "timeout_seconds: .inf", "timeout_seconds", ".inf", "seconds > 0"),
	wrong("minus infinite", "timeout_jitter: -.inf", "timeout_jitter", "-.inf", "a fraction >= 0 and < 1, or off"),
	wrong("an overflowing fraction", "timeout_jitter: 1e400", "timeout_jitter", "1e400", "a fraction >= 0 and < 1, or off"),
	wrong("a jitter of one", "timeout_jitter: 1", "timeout_jitter", "1", "a fraction >= 0 and < 1, or off"),
	wrong("a duration without unit", `timeout_seconds: "30"`, "timeout_seconds", `"30"`, `seconds > 0, or a duration such as "30s"`),
	wrong("a duration in days", `timeout_seconds: 1d`, "timeout_seconds", `1d`, `seconds > 0, or a duration such as "30s"`),
	wrong("a duration with a tag", `timeout_seconds: !x 5s`, "timeout_seconds", `5s`, `seconds > 0, or a duration such as "30s"`),
	wrong("a duration of octal seconds", `timeout_seconds: 030`, "timeout_seconds", `030`, "seconds > 0"),
	wrong("a negative duration", "timeout_seconds: -5", "timeout_seconds", "-5", "seconds > 0"),
	wrong("a duration beyond 292 years", "max_timeout_seconds: 9223372037", "max_timeout_seconds", "9223372037", "seconds > 0"),
	wrong("text beyond 292 years", "max_timeout_seconds: 9999999h", "max_timeout_seconds", "9999999h", "seconds > 0"),
	wrong("a negative ramp", "ramp_up_seconds: -1s", "ramp_up_seconds", "-1s", "seconds >= 0"),
	wrong("a window too short", "window_seconds: 0.5", "window_seconds", "0.5", "seconds from 1 to 86400"),
	wrong("a window too long", "window_seconds: 25h", "window_seconds", "25h", "seconds from 1 to 86400"),
	wrong("a window too large", "window_calls: 1000001", "window_calls", "1000001", "from 1 to 1000000"),
	wrong("a tag of one's own", "window_calls: !calls 5", "window_calls", "5", "from 1 to 1000000"),

	{"both windows", inDefault("window_calls: 5\n    window_seconds: 60"), 4, "circuit_breaker.default.window_seconds", "60",
		"only one of window_calls and window_seconds; window_seconds is in line 4; window_calls is in line 3"},
	{"a slow rate that nothing times", inDefault("slow_call_rate_threshold: 0.5"), 3, "circuit_breaker.default.slow_call_rate_threshold", "0.5",
		"slow_call_duration_threshold to be set with it; slow_call_rate_threshold is in line 3"},
	wrong("a slow rate beside a duration that is off", "{slow_call_duration_threshold: off, slow_call_rate_threshold: 0.9}", "slow_call_rate_threshold", "0.9", "slow_call_duration_threshold to be set with it"),
	{"a service's own slow rate without a duration", "circuit_breaker:\n  default: {slow_call_duration_threshold: off}\n  services:\n    a: {slow_call_rate_threshold: 1}\n",
		4, "circuit_breaker.services.a.slow_call_rate_threshold", "1", "slow_call_rate_threshold is in line 4; slow_call_duration_threshold is in line 2"},
	{"more calls than the window has", inDefault("window_calls: 5\n    minimum_calls: 6"), 4, "circuit_breaker.default.minimum_calls", "6",
		"at most window_calls, which is 5; minimum_calls is in line 4; window_calls is in line 3"},
	{"an inherited minimum above a nearer window", "circuit_breaker:\n  default:\n    minimum_calls: 20\n  services:\n    a:\n      window_calls: 5\n",
		6, "circuit_breaker.services.a.minimum_calls", "20", "at most window_calls, which is 5; minimum_calls is in line 3; window_calls is in line 6"},
	{"a minimum above an inherited window", "circuit_breaker:\n  services:\n    a:\n      minimum_calls: 20\n  default:\n    window_calls: 5\n",
		4, "circuit_breaker.services.a.minimum_calls", "20", "minimum_calls is in line 4; window_calls is in line 6"},
	{"a minimum beyond any window", inDefault("minimum_calls: 1000001"), 3, "circuit_breaker.default.minimum_calls", "1000001", "at most 1000000"},
	{"an inherited longest timeout below a nearer one", "circuit_breaker:\n  default:\n    max_timeout_seconds: 60\n  services:\n    a:\n      timeout_seconds: 90\n",
		6, "circuit_breaker.services.a.max_timeout_seconds", "60", "at least timeout_seconds, which is 1m30s; max_timeout_seconds is in line 3; timeout_seconds is in line 6"},
	{"probes given up before they are slow", inDefault("probe_timeout_seconds: 2\n    slow_call_duration_threshold: 2000"), 3,
		"circuit_breaker.default.probe_timeout_seconds", "2", "more than slow_call_duration_threshold, which is 2s; probe_timeout_seconds is in line 3; slow_call_duration_threshold is in line 4"},
	{"a contradiction in the default, which services inherit", "circuit_breaker:\n  services: {a: {}, b: {failure_threshold: 3}}\n  default: {window_calls: 5, minimum_calls: 6}\n",
		3, "circuit_breaker.default.minimum_calls", "6", "at most window_calls"},
	{"a mistake in what others merge", "metadata:\n  base: &base\n    timeout_seconds: none\ncircuit_breaker:\n  services:\n    a: {<<: *base}\n    b: {<<: *base}\n",
		3, "circuit_breaker.services.a.timeout_seconds", "none", "seconds > 0"},
	{"a misspelt duration, whose rate is not to blame", inDefault("slow_call_duration_treshold: 5\n    slow_call_rate_threshold: 0.5"), 3,
		"circuit_breaker.default.slow_call_duration_treshold", "5", "did you mean slow_call_duration_threshold?"},
	{"a service's bad duration, for which the default's rate waits", "circuit_breaker:\n  default: {slow_call_rate_threshold: 0.5}\n  services:\n    a: {slow_call_duration_threshold: x}\n",
		4, "circuit_breaker.services.a.slow_call_duration_threshold", "x", "milliseconds > 0"},
	{"a default's bad duration, which a service's rate relies on", "circuit_breaker:\n  default: {slow_call_duration_threshold: x}\n  services:\n    a: {slow_call_rate_threshold: 0.5}\n",
		2, "circuit_breaker.default.slow_call_duration_threshold", "x", "milliseconds > 0"},
	{"a bad duration, whose rate is not to blame", inDefault("slow_call_duration_threshold: x\n    slow_call_rate_threshold: 0.5"), 3,
		"circuit_breaker.default.slow_call_duration_threshold", "x", "milliseconds > 0"},

	{"an infinite number in metadata", "metadata: {a: [.inf]}", 1, "metadata.a[0]", ".inf", "a finite decimal number"},
	{"a hexadecimal number in metadata", "metadata: {a: 0x1F}", 1, "metadata.a", "0x1F", "text in quotes"},
	{"a number of thirty digits in metadata", "metadata: {a: 123456789012345678901234567890}", 1, "metadata.a", "123456789012345678901234567890", "text in quotes"},
	{"a boolean that is none in metadata", "metadata: {a: !!bool maybe}", 1, "metadata.a", "maybe", "true, false"},
	{"a tag in metadata", "metadata: {a: !secret b}", 1, "metadata.a", "b", "without a tag"},
	{"a tagged list in metadata", "metadata: {a: !secret [b]}", 1, "metadata.a", "a list", "without a tag"},
	{"a tagged mapping in metadata", "metadata: {a: !secret {}}", 1, "metadata.a", "a mapping", "a mapping"},
	{"a key twice in metadata", "metadata:\n  a: {1: x,\n    \"1\": y}", 3, "metadata.a.1", "y", "already in line 2"},
	{"metadata that contains itself", "metadata: {a: &a [1, {b: *a}]}", 1, "metadata.a[1].b", "a list", "what does not contain itself"},
	{"metadata too deep", "metadata: {a: " + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "}", 1,
		"metadata.a" + strings.Repeat("[0]", 99), "a list", "at most 100 levels"},
}

func TestEachMistakeIsOneProblem(t *testing.T) {
	for _, c := range slices.Concat(badFiles, badAlerts, badFallbacks) {
		t.Run(c.name, func(t *testing.T) {
			f, err := ParseFile([]byte(c.file))
			require.Nil(t, f)
			invalid, ok := errors.AsType[*ConfigError](err)
			require.True(t, ok, "%v", err)
			require.Len(t, invalid.Problems, 1, "%v", err)
			p := invalid.Problems[0]
			require.Equal(t, []any{c.line, c.key, c.value}, []any{p.Line, p.Key, p.Value}, "%v", err)
			require.Contains(t, p.Want, c.want)
			for _, part := range []string{"breaker: invalid configuration: ", fmt.Sprintf("line %d: ", c.line), c.key, c.value, c.want} {
				require.Contains(t, err.Error(), part)
			}
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestAllProblemsAreListedInTheOrderOfTheFile(t *testing.T) {
	_, err := ParseFile([]byte(`version: "3"
circuit_breaker:
  services:
    a:
      window_calls: 10
      bogus: 1
    b:
  default:
    failure_treshold: 5
    timeout_seconds: 0
    timeout_seconds: 1
    minimum_calls: 50
alerts:
  channels:
    - type: pigeon
fallback:
  default_response: {status_code: 200}
  cache_fallbak: {}
`))
	require.EqualError(t, err, `breaker: invalid configuration: 10 problems:
	line 1: version: "3" is not allowed: want version 1, such as "1.0"
	line 5: circuit_breaker.services.a.minimum_calls: 50 is not allowed: want at most window_calls, which is 10; minimum_calls is in line 12; window_calls is in line 5
	line 6: circuit_breaker.services.a.bogus: 1 is not allowed: want no unknown key; known are `+strings.Join(settingKeys(), ", ")+`
	line 7: circuit_breaker.services.b: null is not allowed: want a mapping of keys to values
	line 9: circuit_breaker.default.failure_treshold: 5 is not allowed: want no unknown key; did you mean failure_threshold?
	line 10: circuit_breaker.default.timeout_seconds: 0 is not allowed: want seconds > 0, or a duration such as "30s"; leave it out for the default
	line 11: circuit_breaker.default.timeout_seconds: 1 is not allowed: want each key only once, this one is already in line 10
	line 15: alerts.channels[0].type: pigeon is not allowed: want one of slack, pagerduty, email, webhook
	line 17: fallback.default_response.status_code: 200 is not allowed: want a whole number from 400 to 599
	line 18: fallback.cache_fallbak: a mapping is not allowed: want no unknown key; did you mean cache_fallback?`)
}

func TestAFileOfTheLargestSizeIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.yaml")
	for size, want := range map[int]bool{maxFileSize - 1: true, maxFileSize: true, maxFileSize + 1: false, 2 * maxFileSize: false} {
		require.NoError(t, os.WriteFile(path, []byte("version: 1\n"+strings.Repeat("#", size-len("version: 1\n"))), 0o600))
		_, err := LoadFile(path)
		require.Equal(t, want, err == nil, "%d bytes: %v", size, err)
	}
}

func TestLoadFileClosesTheFile(t *testing.T) {
	open := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("this system has no /proc/self/fd")
		}
		return len(files)
	}
	before := open()
	for range 100 { // more than other tests may open meanwhile
		_, err := LoadFile(rfcFile)
		require.NoError(t, err)
	}
	require.Less(t, open(), before+50)
}

func TestOneProblemDoesNotHideWhatElseIsSet(t *testing.T) {
	for _, bad := range []string{"failure_threshold: many", "failure_threshold: 0", "timeout_seconds: 0", "failure_threshold: -1", "half_open_max_calls: -5"} {
		_, err := ParseFile([]byte("circuit_breaker:\n  default: {slow_call_duration_threshold: 1s, " + bad + ", slow_call_rate_threshold: 0.9}\n"))
		invalid, ok := errors.AsType[*ConfigError](err)
		require.True(t, ok)
		require.Len(t, invalid.Problems, 1, "the slow rate has its duration: %v", err)
	}
}

func TestLoadFileNamesTheFile(t *testing.T) {
	_, err := LoadFile(filepath.Join(t.TempDir(), "none.yaml"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "breaker: reading the configuration: open ")
	path := filepath.Join(t.TempDir(), "bad.yaml")
	require.NoError(t, os.WriteFile(path, []byte("version: 2"), 0o600))
	_, err = LoadFile(path)
	require.EqualError(t, err, "breaker: invalid configuration in "+path+`: line 1: version: 2 is not allowed: want version 1, such as "1.0"`)
	_, err = LoadFile(t.TempDir())
	require.ErrorContains(t, err, "is a directory")
}

func TestWhatIsTheUsersOwnIsCarriedAsJSONWouldBe(t *testing.T) {
	f, err := ParseFile([]byte(`
metadata: {text: x, date: 2026-01-02, quoted: "010", yes: yes, none: ~, t: true, f: False, n: -7, r: 1.50, e: 1e3, huge: 1e300, dot: .5, 200: ok, true: key,
  list: [1, [], {}], alias: &a {b: 1}, again: *a, merged: {<<: *a, c: 2}}
`))
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"text": "x", "date": "2026-01-02", "quoted": "010", "yes": "yes", "none": nil, "t": true, "f": false, "n": -7, "r": 1.5, "e": 1000.0, "huge": 1e300,
		"dot": 0.5, "200": "ok", "true": "key", "list": []any{1, []any{}, map[string]any{}}, "alias": map[string]any{"b": 1},
		"again": map[string]any{"b": 1}, "merged": map[string]any{"b": 1, "c": 2},
	}, f.Metadata)
	_, err = json.Marshal(f.Metadata)
	require.NoError(t, err)
}

func TestFilesThatAskForTooMuchEndSoon(t *testing.T) {
	var bomb, merges strings.Builder
	bomb.WriteString("metadata:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 12 {
		fmt.Fprintf(&bomb, "  a%d: &a%[1]d [%s]\n", i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	bomb.WriteString("fallback: {cache_fallback: {max_age_seconds: 5}}\n") // is not read any more, so nothing is missing from it
	merges.WriteString("metadata:\n  m0: &m0 {a: 1}\n")
	for i := range 30 {
		fmt.Fprintf(&merges, "  m%d: &m%[1]d {<<: [*m%d, *m%[2]d]}\n", i+1, i)
	}
	for name, file := range map[string]string{
		"billions of values":     bomb.String(),
		"billions of merges":     merges.String(),
		"brackets":               "metadata: " + strings.Repeat("[", 2<<20),
		"braces":                 "metadata: " + strings.Repeat("{a: ", 1<<20),
		"dashes":                 strings.Repeat("- ", 2<<20),
		"an alias in itself":     "metadata: {a: &a [*a, *a]}",
		"a mapping in itself":    "metadata: &a {a: *a, b: *a}",
		"a merge list in itself": "metadata: {a: &a [*a], b: {<<: *a}}",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseFile([]byte(file))
			require.ErrorContains(t, err, "breaker: invalid configuration")
			require.NotContains(t, err.Error(), "cache_fallback")
			require.Less(t, len(err.Error()), 2000)
		})
	}
}

func TestAFileOfAsManyValuesAsAllowedIsRead(t *testing.T) {
	const most = 500_000
	lists := strings.TrimSuffix(strings.Repeat("*a, ", 498), ", ")
	others := most - (2 + 4 + 1000 + 498 + 498*1000) // the keys and values of the file and of metadata, the first list, the lists
	for more, want := range map[int]bool{-1: true, 0: true, 1: false} {
		f, err := ParseFile([]byte("metadata:\n  a: &a [" + strings.Repeat("x, ", 1000) + "]\n  b: [" + strings.Repeat("x, ", others+more) + lists + "]\n"))
		require.Equal(t, want, err == nil, "%d values: %v", most+more, err)
		if want {
			read := f.Metadata["b"].([]any)
			require.Len(t, read[len(read)-1], 1000, "the last list is read too")
		}
	}
}

func TestWhatIsMissingIsToldAsLongAsTheFileIsReadWhole(t *testing.T) {
	const most = 500_000
	list := strings.TrimSuffix(strings.Repeat("*a, ", 498), ", ")
	others := most - (4 + 4 + 1000 + 498 + 498*1000 + 2) // as above, and the keys and values of the fallback
	for more, want := range map[int]bool{0: true, 1: false} {
		_, err := ParseFile([]byte("metadata:\n  a: &a [" + strings.Repeat("x, ", 1000) + "]\n  b: [" + strings.Repeat("x, ", others+more) + list + "]\nfallback: {cache_fallback: {}}\n"))
		require.Error(t, err)
		require.Equal(t, want, strings.Contains(err.Error(), "fallback.cache_fallback.enabled: nothing"), "%d values: %v", most+more, err)
	}
}

func TestWhichCharactersAFileMayHold(t *testing.T) {
	for _, c := range []rune{'\t', ' ', '~', 0x85, 0xA0, 0xD7FF, 0xE000, 0xFFFD, 0x10000, 0x10FFFF} {
		_, err := ParseFile([]byte("metadata: {a: \"x" + string(c) + "x\"}"))
		require.NoError(t, err, "%#x", c)
	}
	for _, c := range []rune{0, 0x08, 0x0B, 0x0C, 0x0E, 0x1F, 0x7F, 0x80, 0x84, 0x86, 0x9F, 0xFFFE, 0xFFFF} {
		_, err := ParseFile([]byte("metadata: {a: \"x" + string(c) + "x\"}"))
		require.ErrorContains(t, err, "a control character", "%#x", c)
	}
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("please report") }

func TestAPanicOfTheYAMLLibraryIsAnError(t *testing.T) {
	_, err := next(yaml.NewDecoder(panicking{}))
	require.EqualError(t, err, "yaml: please report")
}

func TestConfigRoundTripsThroughJSON(t *testing.T) {
	full := Config{
		FailureThreshold: Off, FailureRateThreshold: 1.0 / 3, SlowCallDuration: 1234567, SlowCallRateThreshold: 5e-324, MinimumCalls: 4, WindowCalls: 9,
		OpenTimeout: 1, MaxOpenTimeout: math.MaxInt64, OpenTimeoutJitter: Off, HalfOpenMaxCalls: math.MaxInt, SuccessThreshold: 1,
		ProbeTimeout: math.MaxInt64 - 1, MaxRetryAfter: Off, RampUp: 1<<62 + 1,
	}
	resolved, err := Config{}.resolve()
	require.NoError(t, err)
	for _, c := range []Config{{}, full, resolved, {WindowDuration: 90 * time.Minute, SlowCallDuration: Off}} {
		data, err := json.Marshal(c)
		require.NoError(t, err)
		back := Config{RampUp: 5}
		require.NoError(t, json.Unmarshal(data, &back), "%s", data)
		require.Equal(t, c, back, "%s", data)
		indented, err := json.MarshalIndent(map[string]Config{"x": c}, "", "\t")
		require.NoError(t, err)
		var m map[string]Config
		require.NoError(t, json.Unmarshal(indented, &m), "%s", indented)
		require.Equal(t, c, m["x"])
	}
	var s, back Status
	b := Must(New("x", Config{SlowCallDuration: time.Second}))
	fail(b, 5)
	s = b.Status()
	data, err := json.Marshal(s)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, s.Config, back.Config)
}

func TestConfigIsJSONInTheUnitsOfItsKeys(t *testing.T) {
	data, err := json.Marshal(Config{SlowCallDuration: 2 * time.Second, OpenTimeout: 1500 * time.Millisecond, MaxOpenTimeout: 100 * time.Second, RampUp: -5 * time.Second})
	require.NoError(t, err)
	require.Equal(t, `{"slow_call_duration_threshold":2000,"timeout_seconds":1.5,"max_timeout_seconds":100,"ramp_up_seconds":-5}`, string(data))
}

func TestConfigFromJSONIsStrict(t *testing.T) {
	for data, want := range map[string]string{
		`{"failure_treshold":1}`:                      "failure_treshold: 1 is not allowed: want no unknown key; did you mean failure_threshold?",
		`{"failure_threshold":-1}`:                    "the word is off, not -1",
		`{"failure_threshold":"5"}`:                   `failure_threshold: "5" is not allowed`,
		`{"timeout_seconds":null}`:                    "timeout_seconds: null is not allowed",
		`{"timeout_seconds":1,"timeout_seconds":2}`:   "only once",
		`{"<<":{"timeout_seconds":1}}`:                "want no unknown key",
		`{"window_calls":1,"window_seconds":1}`:       "only one of",
		`[]`:                                          "a list is not allowed: want a mapping",
		`{"timeout_seconds":0,"success_threshold":0}`: "2 problems",
	} {
		c := Config{FailureThreshold: 7}
		require.ErrorContains(t, json.Unmarshal([]byte(data), &c), want)
		require.Equal(t, Config{FailureThreshold: 7}, c, "left as it was")
	}
	c := Config{FailureThreshold: 7}
	require.NoError(t, c.UnmarshalJSON([]byte(" null ")))
	require.Equal(t, 7, c.FailureThreshold)
	require.ErrorContains(t, c.UnmarshalJSON([]byte("failure_threshold: 3")), "not JSON")
}

func FuzzParseFile(f *testing.F) {
	rfc, err := os.ReadFile(rfcFile)
	require.NoError(f, err)
	f.Add(rfc)
	for _, c := range slices.Concat(badFiles, badAlerts, badFallbacks) {
		if len(c.file) < 1000 {
			f.Add([]byte(c.file))
		}
	}
	f.Add([]byte("circuit_breaker: {default: &d {window_calls: 5, <<: {window_seconds: 1m}}, services: {a: *d, b: {<<: [*d, *d], timeout_jitter: off}}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := ParseFile(data)
		if err != nil {
			requireProblems(t, err)
			return
		}
		requireUsable(t, file.Breakers.Default)
		for name, c := range file.Breakers.Services {
			require.NoError(t, checkName(name))
			requireUsable(t, c)
		}
		_, err = json.Marshal(file)
		require.NoError(t, err)
	})
}

// requireProblems fails unless err says of each problem where it is and what is allowed, in order.
func requireProblems(t *testing.T, err error) {
	t.Helper()
	invalid, ok := errors.AsType[*ConfigError](err)
	require.True(t, ok)
	require.NotEmpty(t, invalid.Problems)
	line := 1
	for _, p := range invalid.Problems {
		require.GreaterOrEqual(t, p.Line, line)
		require.NotEmpty(t, p.Want)
		line = p.Line
	}
}

// requireUsable fails unless New takes c, and JSON gives it back.
func requireUsable(t *testing.T, c Config) {
	t.Helper()
	b, err := New("x", c)
	require.NoError(t, err)
	for _, c := range []Config{c, b.Config()} {
		data, err := json.Marshal(c)
		require.NoError(t, err)
		var back Config
		require.NoError(t, json.Unmarshal(data, &back), "%s", data)
		require.Equal(t, c, back, "%s", data)
	}
}
