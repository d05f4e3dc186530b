package breaker

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// ConfigError lists everything that is wrong with a [Config] or a [File], not only the first thing.
type ConfigError struct {
	Path     string    // of the file that [LoadFile] read; empty without one
	Problems []Problem // in the order of the file, or of Config's fields
}

// Problem is one thing wrong with a configuration.
type Problem struct {
	Line  int    // in the file; 0 for a Config made in code
	Key   string // YAML key with its path, such as circuit_breaker.default.timeout_seconds
	Value string // as it was written; "[redacted]" where it may be a secret, empty where there is none
	Want  string // what is allowed
}

// String says where the problem is, what was found and what is allowed, in one line.
func (p Problem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", p.Line)
	}
	if p.Key != "" {
		fmt.Fprintf(&b, "%s: ", p.Key)
	}
	if p.Value != "" {
		fmt.Fprintf(&b, "%s is not allowed: ", p.Value)
	}
	fmt.Fprintf(&b, "want %s", p.Want)
	return b.String()
}

// Error lists every problem, one a line when there are several.
func (e *ConfigError) Error() string {
	var b strings.Builder
	b.WriteString("breaker: invalid configuration")
	if e.Path != "" {
		b.WriteString(" in " + e.Path)
	}
	if len(e.Problems) == 1 {
		return b.String() + ": " + e.Problems[0].String()
	}
	fmt.Fprintf(&b, ": %d problems:", len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n\t" + p.String())
	}
	return b.String()
}

func newConfigError(bad []violation) *ConfigError {
	e := &ConfigError{}
	for _, v := range bad {
		e.Problems = append(e.Problems, Problem{Key: v.keys[0], Value: v.value, Want: v.want})
	}
	return e
}

func (e *ConfigError) sort() {
	slices.SortStableFunc(e.Problems, func(a, b Problem) int { return a.Line - b.Line })
}

// complaint is one thing wrong in one place. Aliases lead there again and again; it is reported once.
type complaint struct {
	node *yaml.Node
	want string
}

// place is where in the file a value is, by its keys. It becomes text only in a problem.
type place struct {
	parent *place
	name   string
	secret bool // what is below is not shown in problems
}

func (p *place) key(name string) *place {
	if !plainKey.MatchString(name) {
		name = cutQuote(name)
	}
	return &place{p, name, p.secret}
}

func (p *place) item(i int) *place { return &place{p, "[" + strconv.Itoa(i) + "]", p.secret} }

func (p *place) public() *place { return &place{p.parent, p.name, false} }

func (p *place) String() string {
	if p.parent == nil {
		return p.name
	}
	above := p.parent.String()
	if above == "" || strings.HasPrefix(p.name, "[") {
		return above + p.name
	}
	return above + "." + p.name
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

const maxShown = 64

func cutQuote(s string) string {
	if len(s) > maxShown {
		return strconv.Quote(strings.ToValidUTF8(s[:maxShown], "")) + "..."
	}
	return strconv.Quote(s)
}

// err returns the problems found, as one error in the order of the file.
func (r *nodeReader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	e := &ConfigError{Problems: r.problems}
	e.sort()
	return e
}

// refuse reports that n is not what is wanted at.
func (r *nodeReader) refuse(n *yaml.Node, at *place, want string) {
	r.report(n, at, shown(n, at), want)
}

func (r *nodeReader) report(n *yaml.Node, at *place, value, want string) {
	if c := (complaint{n, want}); !r.reported[c] {
		if r.reported == nil {
			r.reported = map[complaint]bool{}
		}
		r.reported[c] = true
		r.problems = append(r.problems, Problem{n.Line, at.String(), value, want})
	}
}

// shown returns a value as it was written, as far as a problem may show it.
func shown(n *yaml.Node, at *place) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!null":
		return "null"
	case at.secret:
		return "[redacted]"
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0, !utf8.ValidString(n.Value), strings.ContainsAny(n.Value, "\n\r"):
		return cutQuote(n.Value)
	case len(n.Value) > maxShown:
		return strings.ToValidUTF8(n.Value[:maxShown], "") + "..."
	}
	return n.Value
}

// missing reports that the mapping n lacks a key, unless there is no telling.
func (r *nodeReader) missing(n *yaml.Node, at *place, key, want string) {
	if n.Kind == yaml.MappingNode && r.values <= maxFileValues {
		r.report(n, at.key(key), "nothing", want)
	}
}

// unknown reports the key of e and returns the one it was probably meant to be, or "".
func (r *nodeReader) unknown(e pair, at *place, known []string) (meant string) {
	at = at.key(e.name)
	value := shown(e.value, at)
	if isText(e.value) && !at.secret {
		value = "text" // there is no knowing what: it may be a secret in the wrong place
	}
	meant = nearest(e.name, known)
	want := "no unknown key; known are " + strings.Join(known, ", ")
	if meant != "" {
		want = "no unknown key; did you mean " + meant + "?"
	}
	r.report(e.key, at, value, want)
	return meant
}

// nearest returns the word that name is a misspelling of, or "".
func nearest(name string, words []string) string {
	best, found := 1+min(3, len(name)/3), ""
	for _, w := range words {
		if d := distance(name, w); d < best {
			best, found = d, w
		}
	}
	return found
}

// distance is how many bytes must be put in, left out or replaced to make a into b; too many where their lengths say so.
func distance(a, b string) int {
	if len(a) > 2*len(b)+4 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
