package breaker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"time"

	"gopkg.in/yaml.v3"
)

// File is a configuration file. Read one with [LoadFile] or [ParseFile]:
//
//	version: "1.0"
//	circuit_breaker:
//	  default:
//	    failure_threshold: 5
//	    slow_call_duration_threshold: 2s
//	  services:
//	    payments:
//	      timeout_seconds: 60
type File struct {
	Version  string         // 1.x; empty where the file has none
	Metadata map[string]any // the user's own, carried along

	// Breakers holds circuit_breaker.default, and each of circuit_breaker.services laid over it key by key. Only what the
	// file sets is set; the rest is zero and means its default. MaxBreakers is zero: it has no key.
	Breakers RegistryConfig

	Monitoring map[string]any // carried along; nothing in this package uses it
	Alerts     Alerts
	Fallback   Fallback
}

// LoadFile reads the YAML file at path. What is wrong with its content is one *[ConfigError], which lists everything with its
// line, key, value, and what is allowed; other errors are those of [os.Open].
func LoadFile(path string) (*File, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("breaker: reading the configuration: %w", err)
	}
	f, err := ParseFile(data)
	if invalid, ok := err.(*ConfigError); ok {
		invalid.Path = path
	}
	return f, err
}

// readFile reads a little more than a file may have, and no more.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFileSize+1))
}

// ParseFile is [LoadFile] for content that is already in memory: UTF-8, at most 4 MiB.
//
// A service inherits each key that it does not set from the default. Two of these rules go beyond that: its own window_calls
// displaces an inherited window_seconds and the reverse, and an inherited slow_call_rate_threshold is dropped when calls are
// not timed. Anchors, aliases and << work everywhere; what << merges in is further away than what stands beside it.
func ParseFile(data []byte) (*File, error) {
	r, f := new(nodeReader), new(File)
	if root := r.document(data); root != nil {
		r.file(root, f)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return f, nil
}

func (r *nodeReader) file(n *yaml.Node, f *File) {
	r.keys(n, &place{secret: true}, keys{
		"version":         func(n *yaml.Node, at *place) { f.Version = r.version(n, at.public()) },
		"metadata":        func(n *yaml.Node, at *place) { f.Metadata = r.freeMapping(n, at.public()) },
		"circuit_breaker": func(n *yaml.Node, at *place) { f.Breakers = r.breakers(n, at.public()) },
		"monitoring":      func(n *yaml.Node, at *place) { f.Monitoring = r.freeMapping(n, at.public()) },
		"alerts":          func(n *yaml.Node, at *place) { f.Alerts = r.alerts(n, at) },
		"fallback":        func(n *yaml.Node, at *place) { f.Fallback = r.fallback(n, at.public()) },
	})
}

var version1 = regexp.MustCompile(`^1(\.[0-9]+){0,2}$`)

func (r *nodeReader) version(n *yaml.Node, at *place) string {
	if !isText(n) && !isNumber(n) || !version1.MatchString(n.Value) {
		r.refuse(n, at, `version 1, such as "1.0"`)
	}
	return n.Value
}

func (r *nodeReader) breakers(n *yaml.Node, at *place) RegistryConfig {
	var standard layer
	var services []pair
	r.keys(n, at, keys{
		"default":  func(n *yaml.Node, at *place) { standard = r.layer(n, at, layer{}) },
		"services": func(n *yaml.Node, at *place) { services = r.mapping(n, at) },
	})
	layers := r.services(services, at.key("services"), standard)
	if !standard.timed() && slices.ContainsFunc(layers, func(l layer) bool { return l.timed() }) {
		standard.drop(slowRate) // it is there for the services that time their calls
	}
	r.contradictions(standard, at.key("default"))
	c := RegistryConfig{Default: standard.cfg, Services: map[string]Config{}}
	for i, e := range services {
		r.contradictions(layers[i], at.key("services").key(e.name))
		c.Services[e.name] = layers[i].cfg
	}
	return c
}

func (r *nodeReader) services(services []pair, at *place, standard layer) []layer {
	layers := make([]layer, len(services))
	for i, e := range services {
		if checkName(e.name) != nil {
			r.report(e.key, at.key(e.name), cutQuote(e.name), fmt.Sprintf("a name of 1 to %d bytes", maxName))
		}
		layers[i] = r.layer(e.value, at.key(e.name), standard)
	}
	return layers
}

// The keys that are more than a value of their own.
const (
	windowCalls   = "window_calls"
	windowSeconds = "window_seconds"
	slowDuration  = "slow_call_duration_threshold"
	slowRate      = "slow_call_rate_threshold"
)

// layer is a Config as the file says it: what is set, and where. Service layers begin as the default's.
type layer struct {
	cfg     Config
	from    map[string]pair // where the value of each key in effect stands
	unclear map[string]bool // keys whose value is not known, since there is a problem with it
}

const inherited = math.MaxInt // the rank of what comes from the default

// layer reads the keys of a Config, laid over those of another.
func (r *nodeReader) layer(n *yaml.Node, at *place, below layer) layer {
	l := layer{below.cfg, map[string]pair{}, map[string]bool{}}
	maps.Copy(l.unclear, below.unclear)
	for key, e := range below.from {
		e.rank = inherited
		l.from[key] = e
	}
	for _, e := range r.mapping(n, at) {
		s := settingOf(e.name)
		if s == nil {
			l.unclear[r.unknown(e, at, settingKeys())] = true
			continue
		}
		l.from[s.key] = e
		cfg, want := s.read(l.cfg, e.value)
		if l.unclear[s.key] = want != ""; want != "" {
			r.refuse(e.value, at.key(s.key), want)
		}
		l.cfg = cfg
	}
	l.displace(windowCalls, windowSeconds)
	l.displace(windowSeconds, windowCalls)
	if !l.timed() && l.rank(slowRate) > l.rank(slowDuration) || !l.timed() && l.rank(slowRate) == inherited {
		l.drop(slowRate)
	}
	return l
}

// timed says whether calls are timed, as far as that is clear.
func (l *layer) timed() bool { return l.cfg.SlowCallDuration > 0 || l.unclear[slowDuration] }

// rank says how far away the value of key stands; as far as can be where it is not set.
func (l *layer) rank(key string) int {
	if e, ok := l.from[key]; ok {
		return e.rank
	}
	return inherited
}

// displace drops far if near is set nearer.
func (l *layer) displace(near, far string) {
	if l.rank(near) < l.rank(far) {
		l.drop(far)
	}
}

func (l *layer) drop(key string) {
	settingOf(key).clear(&l.cfg)
	delete(l.from, key)
	delete(l.unclear, key)
}

// contradictions reports the values of l that exclude each other, with both their lines: at the nearer one, since the other
// may be right for everybody else.
func (r *nodeReader) contradictions(l layer, at *place) {
	for _, v := range l.cfg.contradictions() {
		if slices.ContainsFunc(v.keys, func(key string) bool { return l.unclear[key] }) {
			continue
		}
		stands, want := v.keys[0], v.want
		for _, key := range v.keys {
			if e, ok := l.from[key]; ok {
				want += fmt.Sprintf("; %s is in line %d", key, e.key.Line)
			}
			if l.rank(key) < l.rank(stands) {
				stands = key
			}
		}
		r.report(l.from[stands].key, at.key(v.keys[0]), shown(l.from[v.keys[0]].value, at), want)
	}
}

func settingOf(key string) *setting {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
	if i < 0 {
		return nil
	}
	return &settings[i]
}

func settingKeys() []string {
	all := make([]string, len(settings))
	for i, s := range settings {
		all[i] = s.key
	}
	return all
}

// read returns c with s set to what n says, or else what is allowed. c is then unset in s.
func (s *setting) read(c Config, n *yaml.Node) (_ Config, want string) {
	s.clear(&c)
	if isText(n) && n.Value == "off" && s.off {
		return s.switchedOff(c), ""
	}
	set := c
	if !s.parse(&set, n) {
		return c, s.want
	}
	switch v := s.number(&set); {
	case v == 0 && s.zero && s.off:
		return s.switchedOff(c), ""
	case v == 0 && s.zero:
		return c, ""
	case v == 0 && s.off:
		return c, s.want + "; leave it out for the default, or write off"
	case v == 0:
		return c, s.want + "; leave it out for the default"
	case v == Off && s.off:
		return c, s.want + "; the word is off, not -1"
	case !s.ok(v):
		return c, s.want
	}
	return set, ""
}

// parse sets s in c to the value that n holds, in range or not, and reports whether it holds one.
func (s *setting) parse(c *Config, n *yaml.Node) (ok bool) {
	switch p := s.field(c).(type) {
	case *int:
		*p, ok = wholeNumber(n)
	case *float64:
		*p, ok = number(n)
	case *time.Duration:
		*p, ok = duration(n, s.unit)
	}
	return ok
}

func (s *setting) switchedOff(c Config) Config {
	switch p := s.field(&c).(type) {
	case *int:
		*p = Off
	case *float64:
		*p = Off
	case *time.Duration:
		*p = Off
	}
	return c
}

// UnmarshalJSON reads what [Config.MarshalJSON] writes, and whatever [ParseFile] accepts for a service, as strictly: unknown
// keys are errors, and what is wrong is one *[ConfigError], whose lines count from the object's own first. Fields that are not
// set become zero. On an error c is left as it was.
func (c *Config) UnmarshalJSON(data []byte) error {
	if data = bytes.TrimSpace(data); string(data) == "null" {
		return nil
	}
	if !json.Valid(data) {
		return fmt.Errorf("breaker: the configuration is not JSON")
	}
	r, l := new(nodeReader), layer{}
	if root := r.document(data); root != nil {
		l = r.layer(root, new(place), layer{})
		r.contradictions(l, new(place))
	}
	if err := r.err(); err != nil {
		return err
	}
	*c = l.cfg
	return nil
}

// clear makes the value of s in c the default again.
func (s *setting) clear(c *Config) {
	switch p := s.field(c).(type) {
	case *int:
		*p = 0
	case *float64:
		*p = 0
	case *time.Duration:
		*p = 0
	}
}
