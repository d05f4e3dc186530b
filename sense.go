package breaker

import "bytes"

// sense is what an event means.
type sense uint8

const (
	ordinary  sense = iota // content, of whomever
	idle                   // nothing
	beginning              // of a language model's answer
	speaking               // content of a language model
	finished               // the marker
	failed
)

// meaning says what an event's name means: those of Anthropic's messages and of OpenAI's responses.
func meaning(name []byte) sense {
	switch string(name) {
	case "":
		return ordinary
	case "ping":
		return idle
	case "error", "response.failed":
		return failed
	case "message_stop", "response.completed", "response.incomplete":
		return finished
	case "message_start", "response.created", "response.queued", "response.in_progress":
		return beginning
	case "content_block_start", "content_block_delta", "content_block_stop", "message_delta":
		return speaking
	}
	if bytes.HasPrefix(name, []byte("response.")) {
		return speaking
	}
	return ordinary
}

// typeIn returns the type that data begins with, {"type":"ping" and so on. It is nil without one.
func typeIn(data []byte) []byte {
	rest := firstMember(data, `"type"`)
	if len(rest) == 0 || rest[0] != '"' {
		return nil
	}
	rest = rest[1:min(len(rest), 1+len(scanner{}.name))]
	return rest[:max(0, bytes.IndexByte(rest, '"'))]
}

// errorIn reports whether data begins with an error, {"error": and anything but null.
func errorIn(data []byte) bool {
	rest := firstMember(data, `"error"`)
	return len(rest) > 0 && rest[0] != 'n'
}

// firstMember returns the value of an object's first member and what follows, if that is its name.
func firstMember(data []byte, name string) []byte {
	if len(data) < 3 || data[0] != '{' || data[1] == '"' && data[2] != name[1] {
		return nil
	}
	data = trimSpace(data[1:])
	if len(data) < len(name) || string(data[:len(name)]) != name {
		return nil
	}
	data = trimSpace(data[len(name):])
	if len(data) == 0 || data[0] != ':' {
		return nil
	}
	return trimSpace(data[1:])
}

// mayBeNamed reports whether data can begin with a type or an error.
func mayBeNamed(data []byte) bool {
	return len(data) < 3 || data[0] != '{' || data[1] != '"' || data[2] == 't' || data[2] == 'e'
}

var (
	delta = []byte(`"delta"`)
	empty = [][]byte{[]byte(`""`), []byte("null"), []byte("[]"), []byte("{}")}
	roles = []byte(`"role"`)
)

// saysNothing reports whether a chunk of a chat has a delta with nothing in it but a role, as the first often has long before
// the model has begun to answer. It looks at one delta; what it does not understand says something.
func saysNothing(data []byte) bool {
	_, rest, ok := bytes.Cut(data, delta)
	if !ok {
		return false
	}
	rest, ok = bytes.CutPrefix(trimSpace(rest), []byte(":"))
	if rest = trimSpace(rest); !ok || len(rest) == 0 || rest[0] != '{' {
		return false
	}
	for rest = trimSpace(rest[1:]); len(rest) > 0 && rest[0] != '}'; {
		var said bool
		if rest, said = nextMember(rest); said {
			return false
		}
	}
	return len(rest) > 0
}

// nextMember returns what follows an object's member, and whether the member is more than an empty value or a role.
func nextMember(p []byte) (rest []byte, said bool) {
	isRole := bytes.HasPrefix(p, roles)
	colon := bytes.IndexByte(p, ':')
	if colon < 0 {
		return nil, true
	}
	p = trimSpace(p[colon+1:])
	if isRole && len(p) > 0 && p[0] == '"' {
		p = p[1:]
		p = p[bytes.IndexByte(p, '"')+1:]
	} else if p = cutEmpty(p); p == nil {
		return nil, true
	}
	p = trimSpace(p)
	if len(p) > 0 && p[0] == ',' {
		p = trimSpace(p[1:])
	}
	return p, false
}

// cutEmpty returns what follows an empty value; nil if there is none.
func cutEmpty(p []byte) []byte {
	for _, e := range empty {
		if rest, ok := bytes.CutPrefix(p, e); ok {
			return rest
		}
	}
	return nil
}

func trimSpace(p []byte) []byte {
	for len(p) > 0 && isSpace(p[0]) {
		p = p[1:]
	}
	return p
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
