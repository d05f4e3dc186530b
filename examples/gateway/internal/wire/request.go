// Package wire speaks the languages of language models: it reads requests in OpenAI's format, writes them in the format of each
// provider, reads the provider's answers and events, and judges its failures.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// Request is a caller's request. What the gateway does not know in it is passed on untouched.
type Request struct {
	Model        string
	Stream       bool
	IncludeUsage bool // stream_options.include_usage

	body   []byte
	fields []field
	needs  []need // what not every model can do
}

// field is a top-level field of the request, in its order.
type field struct {
	name       string
	start, end int // of its value in the body
}

// need is something that a request asks for and a model may lack.
type need struct{ capability, field string }

// InvalidError is a request that no target can be asked. Field is the one that is wrong, with its path.
type InvalidError struct{ Field, Reason string }

func (e *InvalidError) Error() string { return e.Reason }

func invalid(field, format string, args ...any) *InvalidError {
	return &InvalidError{field, fmt.Sprintf(format, args...)}
}

// ParseRequest reads a request's body. A request for chat must have messages, one for embeddings an input.
func ParseRequest(body []byte, must string) (*Request, error) {
	r := &Request{body: body}
	if err := r.split(); err != nil {
		return nil, err
	}
	if raw, ok := r.field("model"); !ok || json.Unmarshal(raw, &r.Model) != nil || r.Model == "" {
		return nil, invalid("model", "model: want the name of a model; GET /v1/models lists them")
	}
	if raw, ok := r.field(must); !ok || string(raw) == "null" {
		return nil, invalid(must, "%s: this field is required", must)
	}
	if raw, ok := r.field("stream"); ok && json.Unmarshal(raw, &r.Stream) != nil {
		return nil, invalid("stream", "stream: want true or false")
	}
	if raw, ok := r.field("stream_options"); ok {
		var options struct {
			IncludeUsage bool `json:"include_usage"`
		}
		if json.Unmarshal(raw, &options) != nil {
			return nil, invalid("stream_options", "stream_options: want an object with include_usage")
		}
		r.IncludeUsage = options.IncludeUsage
	}
	r.findNeeds()
	return r, nil
}

// split finds the top-level fields. A name that comes twice is refused: the gateway and a provider could take different ones.
func (r *Request) split() error {
	if !gjson.ValidBytes(r.body) {
		return r.notJSON()
	}
	at := skipSpace(r.body, 0)
	if r.body[at] != '{' {
		return invalid("", "want a JSON object")
	}
	for at = skipSpace(r.body, at+1); r.body[at] != '}'; {
		end := skipValue(r.body, at)
		var name string
		if err := json.Unmarshal(r.body[at:end], &name); err != nil {
			return r.notJSON()
		}
		if _, twice := r.field(name); twice {
			return invalid(name, "%s: want each field only once", name)
		}
		start := skipSpace(r.body, skipSpace(r.body, end)+1) // behind the colon
		end = skipValue(r.body, start)
		r.fields = append(r.fields, field{name, start, end})
		if at = skipSpace(r.body, end); r.body[at] == ',' {
			at = skipSpace(r.body, at+1)
		}
	}
	return nil
}

// skipSpace returns where the next thing begins in JSON that is valid.
func skipSpace(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t') {
		at++
	}
	return at
}

// skipValue returns where the value at at ends in JSON that is valid.
func skipValue(text []byte, at int) int {
	for depth := 0; at < len(text); at++ {
		switch text[at] {
		case '"':
			at = endOfString(text, at)
			if depth == 0 {
				return at + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return at + 1
			}
			if depth < 0 { // of what the value is in: it was a number or a word
				return at
			}
		case ',', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return at
			}
		}
	}
	return at
}

// endOfString returns where the string that begins at at has its closing quote.
func endOfString(text []byte, at int) int {
	for at++; text[at] != '"'; at++ {
		if text[at] == '\\' {
			at++
		}
	}
	return at
}

func (r *Request) notJSON() error {
	var v any
	err := json.Unmarshal(r.body, &v)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return invalid("", "the body is not JSON: %v at byte %d", err, syntax.Offset)
	}
	return invalid("", "the body is not JSON")
}

func (r *Request) field(name string) (json.RawMessage, bool) {
	for _, f := range r.fields {
		if f.name == name {
			return r.body[f.start:f.end], true
		}
	}
	return nil, false
}

// withModel returns the body with another model's name in it and nothing else changed.
func (r *Request) withModel(model string) []byte {
	if model == r.Model {
		return r.body
	}
	for _, f := range r.fields {
		if f.name == "model" {
			out := make([]byte, 0, len(r.body)+len(model)+2)
			out = append(out, r.body[:f.start]...)
			out = strconv.AppendQuote(out, model) // of letters, digits and plain signs
			return append(out, r.body[f.end:]...)
		}
	}
	return r.body
}

// The capabilities that a request may need.
const (
	Tools  = "tools"
	Images = "images"
	JSON   = "json"
)

func (r *Request) findNeeds() {
	if raw, ok := r.field("tools"); ok && string(raw) != "null" && string(raw) != "[]" {
		r.needs = append(r.needs, need{Tools, "tools"})
	}
	if raw, ok := r.field("response_format"); ok && string(raw) != "null" && !bytes.Contains(raw, []byte(`"text"`)) {
		r.needs = append(r.needs, need{JSON, "response_format"})
	}
	if raw, ok := r.field("messages"); ok && bytes.Contains(raw, []byte(`"image_url"`)) && hasImage(raw) {
		r.needs = append(r.needs, need{Images, "messages[].content.image_url"})
	}
}

func hasImage(raw []byte) bool {
	var messages []struct {
		Content json.RawMessage `json:"content"`
	}
	if json.Unmarshal(raw, &messages) != nil {
		return false
	}
	for _, m := range messages {
		var parts []struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(m.Content, &parts) != nil {
			continue
		}
		for _, p := range parts {
			if p.Type == "image_url" {
				return true
			}
		}
	}
	return false
}

// Fits says whether a model with these capabilities can take the request; nil is a model of which nothing is declared.
func (r *Request) Fits(capabilities []string) error {
	if capabilities == nil {
		return nil
	}
	for _, n := range r.needs {
		if !strings.Contains(" "+strings.Join(capabilities, " ")+" ", " "+n.capability+" ") {
			return invalid(n.field, "%s: the model is not declared to support %s", n.field, n.capability)
		}
	}
	return nil
}

// LastUserText returns the text of the last message of the user, for rules.
func (r *Request) LastUserText() string {
	raw, _ := r.field("messages")
	var messages []message
	if json.Unmarshal(raw, &messages) != nil {
		return ""
	}
	for i := len(messages) - 1; i >= 0; i-- {
		if messages[i].Role == "user" {
			parts, _ := messages[i].parts("")
			var text strings.Builder
			for _, p := range parts {
				text.WriteString(p.Text)
			}
			return text.String()
		}
	}
	return ""
}
