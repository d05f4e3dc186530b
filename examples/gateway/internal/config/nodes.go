package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/failfast-go/breaker"
)

// reader reads YAML nodes strictly and collects what is wrong with them.
type reader struct {
	problems []breaker.Problem
	open     []*yaml.Node // mappings that are being read, each within the one before
}

// field says how to read the value of a key.
type field func(n *yaml.Node, at string)

func (r *reader) report(line int, key, value, want string) {
	r.problems = append(r.problems, breaker.Problem{Line: line, Key: key, Value: value, Want: want})
}

// refuse reports that n is not what is wanted at.
func (r *reader) refuse(n *yaml.Node, at, want string) { r.report(n.Line, at, shown(n), want) }

// hide is refuse for a value that may be a secret in the wrong place.
func (r *reader) hide(n *yaml.Node, at, want string) { r.report(n.Line, at, "[redacted]", want) }

func shown(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!null":
		return "null"
	case len(n.Value) > 64 || strings.ContainsAny(n.Value, "\r\n"):
		return strconv.Quote(strings.ToValidUTF8(n.Value[:min(len(n.Value), 64)], "")) + "..."
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		return strconv.Quote(n.Value)
	}
	return n.Value
}

func followed(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// each calls read for each pair of a mapping, and reports what is none or has a key twice.
func (r *reader) each(n *yaml.Node, at string, read func(key *yaml.Node, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.refuse(n, at, "a mapping of keys to values")
		return
	}
	if slices.Contains(r.open, n) {
		r.report(n.Line, at, "", "what does not contain itself")
		return
	}
	r.open = append(r.open, n)
	defer func() { r.open = r.open[:len(r.open)-1] }()
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], followed(n.Content[i+1])
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
			r.refuse(key, at, "text as a key")
			continue
		}
		if line, twice := lines[key.Value]; twice {
			r.report(key.Line, join(at, key.Value), "", fmt.Sprintf("each key only once, this one is already in line %d", line))
			continue
		}
		lines[key.Value] = key.Line
		read(key, value)
	}
}

// fields reads a mapping with known keys and returns those that are there. Missing required ones are reported.
func (r *reader) fields(n *yaml.Node, at string, known map[string]field, required ...string) map[string]bool {
	there := map[string]bool{}
	r.each(n, at, func(key, value *yaml.Node) {
		read, ok := known[key.Value]
		if !ok {
			r.report(key.Line, join(at, key.Value), "", "no unknown key; known are "+strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			return
		}
		there[key.Value] = true
		read(value, join(at, key.Value))
	})
	for _, key := range required {
		if n.Kind == yaml.MappingNode && !there[key] {
			r.report(n.Line, join(at, key), "nothing", "a value: this key is required")
		}
	}
	return there
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

// items calls read for each item of a list.
func (r *reader) items(n *yaml.Node, at string, read field) {
	if n.Kind != yaml.SequenceNode {
		r.refuse(n, at, "a list")
		return
	}
	for i, item := range n.Content {
		read(followed(item), fmt.Sprintf("%s[%d]", at, i))
	}
}

func isText(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" }

// text reads text that is not empty.
func (r *reader) text(n *yaml.Node, at string) string {
	if !isText(n) || n.Value == "" {
		r.refuse(n, at, "text, in quotes if it looks like something else")
		return ""
	}
	return n.Value
}

// whole reads a whole number in a range, written in decimal.
func (r *reader) whole(n *yaml.Node, at string, low, high int) int {
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || v < low || v > high || strconv.Itoa(v) != n.Value {
		r.refuse(n, at, fmt.Sprintf("a whole number from %d to %d", low, high))
	}
	return v
}

// rate reads a number above zero.
func (r *reader) rate(n *yaml.Node, at string) float64 {
	v, err := strconv.ParseFloat(n.Value, 64)
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode || tag != "!!int" && tag != "!!float" || err != nil || !(v > 0) || v > 1e9 {
		r.refuse(n, at, "requests a second, above 0")
	}
	return v
}

// duration reads a number of seconds, or text with a unit, above zero or, where that is allowed, zero.
func (r *reader) duration(n *yaml.Node, at string, zero bool) time.Duration {
	var d time.Duration
	err := fmt.Errorf("not a duration")
	switch n.ShortTag() {
	case "!!int", "!!float":
		var s float64
		s, err = strconv.ParseFloat(n.Value, 64)
		d = time.Duration(s * float64(time.Second))
		if !(s >= 0 && s <= 24*3600) {
			err = fmt.Errorf("out of range")
		}
	case "!!str":
		d, err = time.ParseDuration(n.Value)
	}
	if n.Kind != yaml.ScalarNode || err != nil || d < 0 || d > 24*time.Hour || d == 0 && !zero {
		r.refuse(n, at, `seconds or a duration such as "1.5s", above 0 and at most 24h`)
		return 0
	}
	return d
}
