package breaker

import "bytes"

// keyValue looks for the last occurrence of a key in a line, and what its value begins with. The key has quotes at its ends and
// none within. It cannot be part of a text: there its quotes would be escaped.
type keyValue struct {
	key      []byte
	pivot    int     // of its bytes the one to look for first, seldom seen elsewhere
	back     int     // where it began in the last line in which it was null, from that line's end
	matched  int     // of its bytes, by the last ones seen
	at       part    // of what follows it
	text     [6]byte // of the value
	textLen  int
	found    bool
	terminal bool // the value is true, or a text that says something
	isError  bool // that is "error"
}

type part uint8

const (
	nowhere part = iota
	afterKey
	afterColon
	inText
)

func (v *keyValue) reset() {
	v.matched, v.at, v.found, v.terminal, v.isError = 0, nowhere, false, false, false
}

// whole looks at a line that is there as a whole, from its end: the key is near it. IndexByte in windows beats looking at each
// byte, and a byte that is rare beats the first of the key.
func (v *keyValue) whole(line []byte) {
	for end, size := len(line), nearEnd; end > 0; size *= 4 {
		start := max(0, end-size)
		if i := v.lastIn(line[start:min(len(line), end+len(v.key)-1)]); i >= 0 {
			v.begin()
			v.steps(line[start+i+len(v.key):])
			return
		}
		end = start
	}
}

// isNullIn reports whether the last occurrence is near the end of a line, and its value null. It looks first where it was in
// the line before: there it is the last if its pivot does not follow.
func (v *keyValue) isNullIn(line []byte) bool {
	if i := len(line) - v.back; v.back > 0 && i >= 0 && bytes.HasPrefix(line[i:], v.key) {
		if rest := line[i+len(v.key):]; bytes.HasPrefix(rest, isNull) && bytes.IndexByte(rest, v.key[v.pivot]) < 0 {
			return true
		}
	}
	window := line[max(0, len(line)-nearEnd):]
	i := v.lastIn(window)
	if i < 0 || !bytes.HasPrefix(window[i+len(v.key):], isNull) {
		return false
	}
	v.back = len(window) - i
	return true
}

func (v *keyValue) lastIn(window []byte) int {
	last := -1
	for offset := v.pivot; offset < len(window); offset++ {
		i := bytes.IndexByte(window[offset:], v.key[v.pivot])
		if i < 0 {
			break
		}
		offset += i
		if bytes.HasPrefix(window[offset-v.pivot:], v.key) {
			last = offset - v.pivot
		}
	}
	return last
}

const nearEnd = 128 // bytes

var isNull = []byte(":null")

func (v *keyValue) steps(p []byte) {
	if bytes.HasPrefix(p, isNull) { // as in all events but one
		v.at = nowhere
		return
	}
	for _, c := range p {
		if v.step(c); v.at == nowhere {
			return
		}
	}
}

// feed looks at the next piece of a line.
func (v *keyValue) feed(p []byte) {
	for i := 0; i < len(p); i++ {
		if v.matched == 0 && v.at == nowhere {
			j := bytes.IndexByte(p[i:], '"')
			if j < 0 {
				return
			}
			i += j
		}
		v.step(p[i])
		switch p[i] {
		case v.key[v.matched]:
			if v.matched++; v.matched == len(v.key) {
				v.begin()
				v.matched = 1 // its last quote may be the first of another
			}
		case '"':
			v.matched = 1
		default:
			v.matched = 0
		}
	}
}

func (v *keyValue) begin() {
	v.at, v.found, v.terminal, v.isError = afterKey, true, false, false
}

// step takes a byte of what follows the key.
func (v *keyValue) step(c byte) {
	switch {
	case v.at == nowhere, c == '\r', v.at != inText && isSpace(c): // a CR may be part of the line's end
	case v.at == afterKey && c == ':':
		v.at = afterColon
	case v.at == afterColon && c == '"':
		v.at, v.textLen = inText, 0
	case v.at == inText && c != '"' && v.textLen < len(v.text):
		v.text[v.textLen] = c
		v.textLen++
	case v.at == inText:
		v.at = nowhere
		v.said(v.text[:v.textLen])
	default:
		v.terminal = v.at == afterColon && c == 't'
		v.at = nowhere
	}
}

func (v *keyValue) said(text []byte) {
	switch string(text) {
	case "", "null": // some say so instead of leaving it out
	case "error":
		v.isError = true
	default:
		v.terminal = true
	}
}

// jsonDepth finds the end of one JSON object or array.
type jsonDepth struct {
	depth                int
	text, escaped, ended bool
}

// open reports whether one has begun and not ended.
func (d *jsonDepth) open() bool { return d.depth > 0 }

func (d *jsonDepth) feed(p []byte) {
	for _, c := range p {
		switch {
		case d.escaped:
			d.escaped = false
		case d.text:
			d.escaped = c == '\\'
			d.text = c != '"'
		case c == '"':
			d.text = d.depth > 0
		case c == '{', c == '[':
			d.depth++
		case c == '}', c == ']':
			d.depth--
			d.ended = d.depth == 0
		}
	}
}
