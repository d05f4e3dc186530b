package breaker

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// What a configuration may ask of the process that reads it. Aliases multiply values, so these are counted where they are used.
const (
	maxFileSize   = 4 << 20
	maxFileValues = 500_000
	maxFileDepth  = 100
)

// nodeReader reads YAML nodes strictly and collects all that is wrong with them. It works on nodes rather than on the values
// that the YAML library makes of them: those have lost their lines, their duplicates, and whether 010 was written or 8.
type nodeReader struct {
	problems []Problem
	reported map[complaint]bool
	open     []*yaml.Node // what is being read, each within the one before
	values   int          // read so far
}

// document returns the one document in data, or nil.
func (r *nodeReader) document(data []byte) *yaml.Node {
	if len(data) > maxFileSize {
		r.problem(1, "a larger file", fmt.Sprintf("at most %d bytes", maxFileSize))
		return nil
	}
	if line := unprintable(data); line > 0 {
		r.problem(line, "a control character or a byte that is not UTF-8", "printable UTF-8 text")
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	first, err := next(decoder)
	switch {
	case err == io.EOF, err == nil && first.Kind == yaml.ScalarNode && first.Value == "" && first.ShortTag() == "!!null":
		r.problem(1, "an empty file", "a mapping with keys such as version and circuit_breaker")
		return nil
	case err != nil:
		r.syntax(err, data)
		return nil
	}
	switch second, err := next(decoder); {
	case err == nil:
		r.problem(second.Line, "a second document", "one document only")
	case err != io.EOF:
		r.syntax(err, data)
	}
	return first
}

func (r *nodeReader) problem(line int, value, want string) {
	r.problems = append(r.problems, Problem{Line: line, Value: value, Want: want})
}

// next returns the content of the next document. The YAML library's own panics become errors: a file somebody is editing must
// not end the process that watches it.
func next(d *yaml.Decoder) (content *yaml.Node, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("yaml: %v", v)
		}
	}()
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	return doc.Content[0], nil
}

// unprintable returns the line of the first character that YAML does not allow, 0 without one.
func unprintable(data []byte) int {
	for i, c := range string(data) {
		switch {
		case c == utf8.RuneError && !bytes.HasPrefix(data[i:], []byte("\uFFFD")),
			c < ' ' && c != '\t' && c != '\n' && c != '\r', c >= 0x7F && c < 0xA0 && c != 0x85, c == 0xFFFE, c == 0xFFFF:
			return 1 + bytes.Count(data[:i], []byte("\n"))
		}
	}
	return 0
}

var (
	syntaxLine   = regexp.MustCompile(`^line (\d+): `)
	parserErrors = []string{"did not find expected key", "did not find expected '-' indicator", "did not find expected node content",
		"did not find expected ',' or", "did not find expected <"}
)

// syntax reports an error of the YAML library. It says no line for the first one, and counts from 0 in its parser's errors; it
// quotes from the file where an anchor is unknown, which may be a password that begins with an asterisk.
func (r *nodeReader) syntax(err error, data []byte) {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if m := syntaxLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
		if slices.ContainsFunc(parserErrors, func(s string) bool { return strings.HasPrefix(text, s) }) {
			line++
		}
	}
	if name, ok := strings.CutPrefix(text, "unknown anchor '"); ok {
		name = strings.TrimSuffix(name, "' referenced")
		alias := regexp.MustCompile(`(?m)(^|[\s:,\[{-])\*` + regexp.QuoteMeta(name) + `\b`).FindIndex(data)
		if alias != nil {
			line = 1 + bytes.Count(data[:alias[1]], []byte("\n"))
		}
		text = "unknown anchor after *; text that begins with * needs quotes"
	}
	r.problem(min(line, 1+bytes.Count(bytes.TrimRight(data, "\n"), []byte("\n"))), "a syntax error", "valid YAML: "+text)
}

// pair is one key of a mapping and its value.
type pair struct {
	name  string
	key   *yaml.Node
	value *yaml.Node // never an alias
	rank  int        // how far away it stands: 0 in the mapping itself, then the mappings merged into it, nearest first
}

// mapping returns the entries of n and of what << merges into it, each name once: a nearer one hides those further away.
func (r *nodeReader) mapping(n *yaml.Node, at *place) []pair {
	f := flattening{nodeReader: r, at: at, known: map[string]bool{}}
	f.add(n)
	return f.entries
}

type flattening struct {
	*nodeReader
	at      *place
	known   map[string]bool
	ranks   int
	entries []pair
}

func (f *flattening) add(n *yaml.Node) {
	n = followed(n)
	if n.Kind != yaml.MappingNode || n.ShortTag() != "!!map" {
		f.refuse(n, f.at, "a mapping of keys to values")
		return
	}
	if !f.enter(n, f.at) {
		return
	}
	defer f.leave()
	own, rank := map[string]int{}, f.ranks
	f.ranks++
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		e := pair{followed(n.Content[i]).Value, n.Content[i], followed(n.Content[i+1]), rank}
		if !f.fresh(e, own) {
			continue
		}
		if isMerge(e.key) {
			merged = append(merged, e.value)
		} else if !f.known[e.name] {
			f.known[e.name] = true
			f.entries = append(f.entries, e)
		}
	}
	f.merge(merged)
}

// fresh reports whether the key of e can be one and is new among the mapping's own.
func (f *flattening) fresh(e pair, own map[string]int) bool {
	key := followed(e.key)
	if tag := key.ShortTag(); key.Kind != yaml.ScalarNode || tag == "!!null" {
		f.refuse(key, f.at, "text as a key")
		return false
	}
	line, twice := own[e.name]
	if twice {
		at := f.at.key(e.name)
		f.report(e.key, at, shown(e.value, at), fmt.Sprintf("each key only once, this one is already in line %d", line))
		return false
	}
	own[e.name] = e.key.Line
	return true
}

func (f *flattening) merge(merged []*yaml.Node) {
	for _, n := range merged {
		if n.Kind != yaml.SequenceNode {
			f.add(n)
		} else if f.enter(n, f.at) {
			f.merge(n.Content)
			f.leave()
		}
	}
}

func isMerge(key *yaml.Node) bool { return key.ShortTag() == "!!merge" }

func followed(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// enter begins to read what n contains, until leave, and reports whether it may be read: through aliases n can contain itself,
// or more than fits in memory.
func (r *nodeReader) enter(n *yaml.Node, at *place) bool {
	before := r.values
	r.values += len(n.Content)
	switch {
	case slices.Contains(r.open, n):
		r.refuse(n, at, "what does not contain itself")
		return false
	case len(r.open) == maxFileDepth:
		r.refuse(n, at, fmt.Sprintf("at most %d levels", maxFileDepth))
		return false
	case r.values > maxFileValues && before <= maxFileValues:
		r.report(n, at, "this many values", fmt.Sprintf("at most %d once every alias is followed", maxFileValues))
	}
	if r.values > maxFileValues {
		return false
	}
	r.open = append(r.open, n)
	return true
}

func (r *nodeReader) leave() { r.open = r.open[:len(r.open)-1] }

func (r *nodeReader) list(n *yaml.Node, at *place, want string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode || n.ShortTag() != "!!seq" {
		r.refuse(n, at, want)
		return nil
	}
	if !r.enter(n, at) {
		return nil
	}
	r.leave()
	items := make([]*yaml.Node, len(n.Content))
	for i, item := range n.Content {
		items[i] = followed(item)
	}
	return items
}

// keys says how to read the value of each key of a mapping.
type keys map[string]func(*yaml.Node, *place)

// keys reads each pair of a mapping by its key. It returns the keys that were there, or were meant and misspelt.
func (r *nodeReader) keys(n *yaml.Node, at *place, read keys) map[string]bool {
	there := map[string]bool{}
	for _, e := range r.mapping(n, at) {
		name := e.name
		if f, ok := read[name]; ok {
			f(e.value, at.key(name))
		} else {
			name = r.unknown(e, at, slices.Sorted(maps.Keys(read)))
		}
		there[name] = true
	}
	return there
}

func isText(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" }

// decimal is how a number is written: JSON's grammar, and YAML's +1, .5 and 1. besides. No octal, hexadecimal or underscore.
var decimal = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?$`)

func isNumber(n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode {
		return false
	}
	tag := n.ShortTag()
	return (tag == "!!int" || tag == "!!float") && decimal.MatchString(n.Value)
}

func wholeNumber(n *yaml.Node) (int, bool) {
	v, err := strconv.Atoi(n.Value)
	return v, isNumber(n) && err == nil
}

func number(n *yaml.Node) (float64, bool) {
	v, err := strconv.ParseFloat(n.Value, 64)
	return v, isNumber(n) && err == nil
}

// duration reads a number of units, or text with units of its own.
func duration(n *yaml.Node, unit time.Duration) (time.Duration, bool) {
	text := n.Value
	switch {
	case isNumber(n):
		text += strings.TrimLeft(unit.String(), "0123456789")
	case !isText(n) || !strings.HasSuffix(text, "s") && !strings.HasSuffix(text, "m") && !strings.HasSuffix(text, "h"):
		return 0, false
	}
	d, err := time.ParseDuration(text)
	return d, err == nil
}

func boolean(n *yaml.Node) (v, ok bool) {
	v = strings.EqualFold(n.Value, "true")
	return v, n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" && (v || strings.EqualFold(n.Value, "false"))
}

// free reads what is the user's own: any JSON value, as Go's encoding/json would represent it but whole numbers as int.
func (r *nodeReader) free(n *yaml.Node, at *place) any {
	if n.Kind == yaml.ScalarNode {
		return r.freeScalar(n, at)
	}
	if n.Kind == yaml.MappingNode {
		m, entries := map[string]any{}, r.mapping(n, at)
		r.open = append(r.open, n)
		defer r.leave()
		for _, e := range entries {
			m[e.name] = r.free(e.value, at.key(e.name))
		}
		return m
	}
	items := r.list(n, at, "a list without a tag")
	r.open = append(r.open, n)
	defer r.leave()
	list := make([]any, len(items))
	for i, item := range items {
		list[i] = r.free(item, at.item(i))
	}
	return list
}

func (r *nodeReader) freeScalar(n *yaml.Node, at *place) any {
	switch n.ShortTag() {
	case "!!str", "!!timestamp", "!!merge":
		return n.Value
	case "!!null":
		return nil
	case "!!bool":
		if v, ok := boolean(n); ok {
			return v
		}
		r.refuse(n, at, "true, false, or text in quotes")
	case "!!int", "!!float":
		if v, ok := wholeNumber(n); ok {
			return v
		}
		if v, ok := number(n); ok && (strings.ContainsAny(n.Value, ".eE") || math.Abs(v) < 1<<53) {
			return v
		}
		r.refuse(n, at, "a finite decimal number that fits, or text in quotes")
	default:
		r.refuse(n, at, "a plain value without a tag")
	}
	return nil
}

// freeMapping reads a mapping that is the user's own.
func (r *nodeReader) freeMapping(n *yaml.Node, at *place) map[string]any {
	if n.Kind != yaml.MappingNode {
		r.refuse(n, at, "a mapping of keys to values")
		return nil
	}
	m, _ := r.free(n, at).(map[string]any)
	return m
}
