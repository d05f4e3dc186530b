package breaker

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Off switches off a rule or a limit that a zero Config field would leave at its default. In YAML it is the word off.
const Off = -1

// Config says when a breaker opens, for how long, and how it closes again. It is plain data: comparable, without functions.
//
// A zero field means its default; fields that depend on each other have defaults that adapt, so that setting one field never
// makes another's default invalid. Each field names its key in a YAML file; see [LoadFile].
type Config struct {
	// FailureThreshold opens the breaker at that many failures in a row, however far apart they are.
	// At least 1, or Off; zero means 5. YAML: failure_threshold.
	FailureThreshold int

	// FailureRateThreshold opens the breaker when failures / calls in the window reach this fraction and the window
	// holds MinimumCalls. In (0, 1], or Off; zero means 0.5. YAML: failure_rate_threshold.
	FailureRateThreshold float64

	// SlowCallDuration is how long a call may last before it is slow; at exactly this duration it is not.
	// Above 0, or Off; zero means Off, and with it the whole slow-call rule: a healthy model that takes five seconds
	// must not be refused by default. YAML: slow_call_duration_threshold, a number of milliseconds or text such as "2s".
	SlowCallDuration time.Duration

	// SlowCallRateThreshold opens the breaker when slow calls / calls reach this fraction and MinimumCalls are known.
	// Calls still in flight count as soon as they are slow. In (0, 1], or Off, which leaves slow calls counted but
	// without a rule; zero means 0.8. Setting it without a SlowCallDuration is an error. YAML: slow_call_rate_threshold.
	SlowCallRateThreshold float64

	// MinimumCalls is how many calls the window must hold before a rate may open the breaker. At least 1, and at most
	// WindowCalls when the window counts calls; zero means 10, or WindowCalls if that is less. YAML: minimum_calls.
	MinimumCalls int

	// WindowCalls makes the rates those of the last so many calls. 1 to 1,000,000; excludes WindowDuration. Zero means
	// 100, or MinimumCalls if that is more, unless WindowDuration is set. YAML: window_calls.
	WindowCalls int

	// WindowDuration makes the rates those of the calls that ended within this last stretch of time, which moves on in
	// fiftieths of it. 1 s to 24 h; zero means that WindowCalls is used instead. YAML: window_seconds.
	WindowDuration time.Duration

	// OpenTimeout is how long the first opening refuses calls; at exactly its end a call is admitted. Each opening that
	// follows without a recovery between doubles it, up to MaxOpenTimeout.
	// Above 0; zero means 30 s, or MaxOpenTimeout if that is less. YAML: timeout_seconds.
	OpenTimeout time.Duration

	// MaxOpenTimeout bounds the doubling, before jitter. At least OpenTimeout, equal to it switches doubling off; zero
	// means 5 min, or OpenTimeout if that is more. YAML: max_timeout_seconds.
	MaxOpenTimeout time.Duration

	// OpenTimeoutJitter lengthens each opening by a random share of itself, from none up to this fraction, so that many
	// instances do not probe at once. In [0, 1); zero means 0.1, Off none. YAML: timeout_jitter, where 0 is none too.
	OpenTimeoutJitter float64

	// HalfOpenMaxCalls is how many probes may be in flight at once in half-open; a finished one frees its place.
	// That many probes in a row without a verdict re-open the breaker. At least 1; zero means 3. YAML: half_open_max_calls.
	HalfOpenMaxCalls int

	// SuccessThreshold is how many successful probes close the breaker; it may exceed HalfOpenMaxCalls.
	// At least 1; zero means 3. YAML: success_threshold.
	SuccessThreshold int

	// ProbeTimeout is how long a probe may give no sign of life before it counts as failed, since it began or last
	// called Progress. Above SlowCallDuration; zero means 5 min, or twice SlowCallDuration if that is more.
	// YAML: probe_timeout_seconds.
	ProbeTimeout time.Duration

	// MaxRetryAfter bounds what an upstream may ask for by [OpenFor] or a Retry-After header. Above 0, or Off, which
	// ignores such requests; zero means 10 min. YAML: max_retry_after_seconds.
	MaxRetryAfter time.Duration

	// RampUp is how long a recovered breaker takes to admit every call again, from a tenth of them at first.
	// At least 0; zero means none. YAML: ramp_up_seconds.
	RampUp time.Duration
}

// Option is what data cannot say: a logger, functions. It applies to [New], and through [NewRegistry] to each of its breakers.
type Option func(*options)

type options struct {
	logger      *zap.Logger
	classifiers []Classifier
	listeners   []func(Event)
	errorText   func(error) string
	durations   []time.Duration // bounds of a histogram; nil for none
	shared      *listeners      // of the registry, nil without one
}

// WithLogger logs each transition as one line, at warn when the breaker stops admitting calls and at info otherwise, with the
// fields name, from, to, rule, and where they apply observed, threshold, calls, failures, slow_calls, errors and retry_after (of an
// opening), reason, by and for (of a hold), and dropped_events; docs/logs.md describes each. Nothing is logged per call, nor
// when an opening is lengthened: Status has the new end.
func WithLogger(l *zap.Logger) Option {
	return func(o *options) {
		if l != nil {
			o.logger = l
		}
	}
}

// WithClassifier decides which errors count. Several are asked in the order given until one sets an Outcome, then [Classify].
// It runs on the caller's goroutine, outside every lock; if it panics the call is a failure and the panic goes on.
func WithClassifier(c Classifier) Option {
	return func(o *options) {
		if c != nil {
			o.classifiers = append(o.classifiers, c)
		}
	}
}

// WithListener is [Breaker.Subscribe] from the first event on, without a way to stop. Such listeners are called first.
func WithListener(f func(Event)) Option {
	return func(o *options) {
		if f != nil {
			o.listeners = append(o.listeners, f)
		}
	}
}

// WithErrorText replaces the text under which a failure is listed in [Trip].Errors, to redact or to group. Without it the text
// is the error's own. Either way URLs are reduced to scheme and host, since path and query may hold a key, and the text is cut
// at 160 bytes. It runs on the caller's goroutine, outside every lock.
func WithErrorText(f func(error) string) Option {
	return func(o *options) {
		if f != nil {
			o.errorText = f
		}
	}
}

// WithDurationHistogram counts how long calls take, for breaker_call_duration_seconds of [Registry.Collector]: up to their first
// Progress or else their end, which is what makes a call slow or not; so it shows where SlowCallDuration belongs. It counts
// calls that end with an outcome, and costs each some nanoseconds. buckets are upper bounds, in any order; those not above zero
// and doubles are left out. None at all mean 5 ms to 60 s in 13 steps. Each bucket is one more series for each breaker.
func WithDurationHistogram(buckets ...time.Duration) Option {
	bounds := slices.Compact(slices.Sorted(slices.Values(buckets)))
	bounds = slices.DeleteFunc(bounds, func(d time.Duration) bool { return d <= 0 })
	if len(bounds) == 0 {
		bounds = defaultBuckets
	}
	return func(o *options) { o.durations = bounds }
}

var defaultBuckets = []time.Duration{
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
	30 * time.Second, time.Minute,
}

// setting is one row of the configuration table. Validation, the file parser and the JSON form are driven by it.
type setting struct {
	key   string
	field func(*Config) any  // *int, *float64 or *time.Duration
	unit  time.Duration      // of a duration: what a plain number counts
	off   bool               // may be Off
	zero  bool               // an explicit zero in a file is a value: none
	ok    func(float64) bool // whether a set value is in range; durations in seconds
	want  string             // the range, in words
}

func atLeastOne(v float64) bool { return v >= 1 }
func fraction(v float64) bool   { return v > 0 && v <= 1 }
func positive(v float64) bool   { return v > 0 }

const maxWindowCalls = 1_000_000

var settings = []setting{
	{"failure_threshold", func(c *Config) any { return &c.FailureThreshold }, 0, true, false, atLeastOne, "a whole number >= 1, or off"},
	{"failure_rate_threshold", func(c *Config) any { return &c.FailureRateThreshold }, 0, true, false, fraction, "a fraction > 0 and <= 1, or off"},
	{"slow_call_duration_threshold", func(c *Config) any { return &c.SlowCallDuration }, time.Millisecond, true, false, positive, "milliseconds > 0, a duration such as \"2s\", or off"},
	{"slow_call_rate_threshold", func(c *Config) any { return &c.SlowCallRateThreshold }, 0, true, false, fraction, "a fraction > 0 and <= 1, or off"},
	{"minimum_calls", func(c *Config) any { return &c.MinimumCalls }, 0, false, false, atLeastOne, "a whole number >= 1"},
	{"window_calls", func(c *Config) any { return &c.WindowCalls }, 0, false, false, func(v float64) bool { return v >= 1 && v <= maxWindowCalls }, "a whole number from 1 to 1000000"},
	{"window_seconds", func(c *Config) any { return &c.WindowDuration }, time.Second, false, false, func(v float64) bool { return v >= 1 && v <= 24*60*60 }, "seconds from 1 to 86400, or a duration such as \"60s\""},
	{"timeout_seconds", func(c *Config) any { return &c.OpenTimeout }, time.Second, false, false, positive, "seconds > 0, or a duration such as \"30s\""},
	{"max_timeout_seconds", func(c *Config) any { return &c.MaxOpenTimeout }, time.Second, false, false, positive, "seconds > 0, or a duration such as \"5m\""},
	{"timeout_jitter", func(c *Config) any { return &c.OpenTimeoutJitter }, 0, true, true, func(v float64) bool { return v >= 0 && v < 1 }, "a fraction >= 0 and < 1, or off"},
	{"half_open_max_calls", func(c *Config) any { return &c.HalfOpenMaxCalls }, 0, false, false, atLeastOne, "a whole number >= 1"},
	{"success_threshold", func(c *Config) any { return &c.SuccessThreshold }, 0, false, false, atLeastOne, "a whole number >= 1"},
	{"probe_timeout_seconds", func(c *Config) any { return &c.ProbeTimeout }, time.Second, false, false, positive, "seconds > 0, or a duration such as \"5m\""},
	{"max_retry_after_seconds", func(c *Config) any { return &c.MaxRetryAfter }, time.Second, true, false, positive, "seconds > 0, a duration such as \"10m\", or off"},
	{"ramp_up_seconds", func(c *Config) any { return &c.RampUp }, time.Second, false, true, func(v float64) bool { return v >= 0 }, "seconds >= 0, or a duration such as \"30s\""},
}

// number returns the value of s in c, a duration in seconds.
func (s *setting) number(c *Config) float64 {
	switch p := s.field(c).(type) {
	case *int:
		return float64(*p)
	case *float64:
		return *p
	default:
		return p.(*time.Duration).Seconds()
	}
}

func (s *setting) isOff(c *Config) bool {
	if p, ok := s.field(c).(*time.Duration); ok {
		return *p == Off
	}
	return s.number(c) == Off
}

// text returns the value of s in c as an error text shows it.
func (s *setting) text(c *Config) string {
	switch p := s.field(c).(type) {
	case *int:
		return strconv.Itoa(*p)
	case *float64:
		return strconv.FormatFloat(*p, 'g', -1, 64)
	default:
		return p.(*time.Duration).String()
	}
}

func (s *setting) valid(c *Config) bool {
	v := s.number(c)
	return v == 0 || s.off && s.isOff(c) || s.ok(v)
}

// violation is a value out of range, or two that contradict each other: then the second key is the one it contradicts.
type violation struct {
	keys  []string
	value string
	want  string
}

// check returns everything wrong with c. What is out of range contradicts nothing: it has been reported already.
func (c Config) check() []violation {
	var bad []violation
	wrong := map[string]bool{}
	for i := range settings {
		if s := &settings[i]; !s.valid(&c) {
			bad = append(bad, violation{[]string{s.key}, s.text(&c), s.want})
			wrong[s.key] = true
		}
	}
	for _, v := range c.contradictions() {
		if !slices.ContainsFunc(v.keys, func(key string) bool { return wrong[key] }) {
			bad = append(bad, v)
		}
	}
	return bad
}

func (c Config) contradictions() []violation {
	var bad []violation
	clash := func(found bool, value any, want, key, other string) {
		if found {
			bad = append(bad, violation{[]string{key, other}, fmt.Sprint(value), want})
		}
	}
	clash(c.WindowCalls != 0 && c.WindowDuration != 0, c.WindowDuration,
		"only one of window_calls and window_seconds", "window_seconds", "window_calls")
	clash(c.SlowCallRateThreshold > 0 && c.SlowCallDuration <= 0, c.SlowCallRateThreshold,
		"slow_call_duration_threshold to be set with it", "slow_call_rate_threshold", "slow_call_duration_threshold")
	clash(c.WindowDuration == 0 && c.WindowCalls != 0 && c.MinimumCalls > c.WindowCalls, c.MinimumCalls,
		fmt.Sprintf("at most window_calls, which is %d", c.WindowCalls), "minimum_calls", "window_calls")
	clash(c.WindowDuration == 0 && c.WindowCalls == 0 && c.MinimumCalls > maxWindowCalls, c.MinimumCalls,
		"at most 1000000 where the window counts calls", "minimum_calls", "window_calls")
	clash(c.MaxOpenTimeout != 0 && c.MaxOpenTimeout < c.OpenTimeout, c.MaxOpenTimeout,
		fmt.Sprintf("at least timeout_seconds, which is %v", c.OpenTimeout), "max_timeout_seconds", "timeout_seconds")
	clash(c.ProbeTimeout != 0 && c.ProbeTimeout <= c.SlowCallDuration, c.ProbeTimeout,
		fmt.Sprintf("more than slow_call_duration_threshold, which is %v", c.SlowCallDuration), "probe_timeout_seconds", "slow_call_duration_threshold")
	clash(c.SlowCallDuration == math.MaxInt64, c.SlowCallDuration,
		"less than the longest duration, to leave room for probe_timeout_seconds", "slow_call_duration_threshold", "probe_timeout_seconds")
	return bad
}

// resolve returns c with every default filled in. It is its own fixed point.
func (c Config) resolve() (Config, error) {
	if bad := c.check(); len(bad) > 0 {
		return Config{}, newConfigError(bad)
	}
	c.FailureThreshold = cmp.Or(c.FailureThreshold, 5)
	c.FailureRateThreshold = cmp.Or(c.FailureRateThreshold, 0.5)
	c.SlowCallDuration = cmp.Or(c.SlowCallDuration, Off)
	if c.measuresSlow() { // without, it stays unset: its default shall come when a duration does
		c.SlowCallRateThreshold = cmp.Or(c.SlowCallRateThreshold, 0.8)
	}
	if c.WindowDuration == 0 {
		c.WindowCalls = cmp.Or(c.WindowCalls, max(100, c.MinimumCalls))
		c.MinimumCalls = cmp.Or(c.MinimumCalls, min(10, c.WindowCalls))
	}
	c.MinimumCalls = cmp.Or(c.MinimumCalls, 10)
	c.OpenTimeout = cmp.Or(c.OpenTimeout, min(30*time.Second, cmp.Or(c.MaxOpenTimeout, math.MaxInt64)))
	c.MaxOpenTimeout = cmp.Or(c.MaxOpenTimeout, max(5*time.Minute, c.OpenTimeout))
	c.OpenTimeoutJitter = cmp.Or(c.OpenTimeoutJitter, 0.1)
	c.HalfOpenMaxCalls = cmp.Or(c.HalfOpenMaxCalls, 3)
	c.SuccessThreshold = cmp.Or(c.SuccessThreshold, 3)
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, max(5*time.Minute, plus(c.SlowCallDuration, c.SlowCallDuration)))
	c.MaxRetryAfter = cmp.Or(c.MaxRetryAfter, 10*time.Minute)
	return c, nil
}

// plus adds without running over: far enough in the future is never.
func plus(a, b time.Duration) time.Duration {
	if b > 0 && a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// measuresSlow says whether calls are timed, slowRule whether being slow can open the breaker. Both of a resolved Config.
func (c *Config) measuresSlow() bool { return c.SlowCallDuration != Off }
func (c *Config) slowRule() bool     { return c.measuresSlow() && c.SlowCallRateThreshold != Off }

// flightGroups is how finely the starts of calls in flight are told apart.
const flightGroups = 16

// sixteenth returns how far apart calls may start that turn slow together, rounded up: less than that is less than a sixteenth
// of SlowCallDuration, however short.
func (c *Config) sixteenth() time.Duration { return (c.SlowCallDuration-1)/flightGroups + 1 }

// openFor returns how long opening number n in a row (from 0) lasts, with draw in [0, 1) as its share of the jitter.
func (c *Config) openFor(n int, draw float64) time.Duration {
	wait := c.OpenTimeout
	for ; n > 0 && wait < c.MaxOpenTimeout; n-- {
		wait = min(plus(wait, wait), c.MaxOpenTimeout)
	}
	if c.OpenTimeoutJitter > 0 {
		return plus(wait, time.Duration(draw*c.OpenTimeoutJitter*float64(wait)))
	}
	return wait
}

// MarshalJSON writes the fields that are set under their YAML keys, in their YAML units: durations as numbers, Off as "off".
func (c Config) MarshalJSON() ([]byte, error) {
	fields := []string{}
	for i := range settings {
		s := &settings[i]
		switch v := s.number(&c); {
		case v == 0:
		case s.off && s.isOff(&c):
			fields = append(fields, fmt.Sprintf("%q:%q", s.key, "off"))
		case math.IsNaN(v) || math.IsInf(v, 0):
			return nil, fmt.Errorf("breaker: %s is %v, want %s", s.key, v, s.want)
		default:
			fields = append(fields, fmt.Sprintf("%q:%s", s.key, s.decimal(&c)))
		}
	}
	return []byte("{" + strings.Join(fields, ",") + "}"), nil
}

// decimal returns the value of s in c exactly, a duration in its unit.
func (s *setting) decimal(c *Config) string {
	switch p := s.field(c).(type) {
	case *int:
		return strconv.Itoa(*p)
	case *float64:
		return strconv.FormatFloat(*p, 'f', -1, 64)
	default:
		return inUnits(*p.(*time.Duration), s.unit)
	}
}

func inUnits(d, unit time.Duration) string {
	text := fmt.Sprintf("%d.%0*d", (d / unit).Abs(), len(strconv.Itoa(int(unit)))-1, (d % unit).Abs())
	text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	if d < 0 {
		return "-" + text
	}
	return text
}
