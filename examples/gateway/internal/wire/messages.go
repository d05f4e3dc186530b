package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Reading OpenAI's messages for a format that must be translated into. It is strict: what is not known could not be translated, and
// must not be dropped.

type message struct {
	Role       string          `json:"role"`
	Content    json.RawMessage `json:"content"`
	ToolCalls  []toolCall      `json:"tool_calls"`
	ToolCallID string          `json:"tool_call_id"`
	Refusal    json.RawMessage `json:"refusal"` // null in answers that are sent back
}

type part struct {
	Type  string `json:"type"`
	Text  string `json:"text"`
	Image *struct {
		URL    string `json:"url"`
		Detail string `json:"detail"` // a hint, without effect on what is said
	} `json:"image_url"`
}

type tool struct {
	Type     string `json:"type"`
	Function struct {
		Name        string          `json:"name"`
		Description string          `json:"description,omitempty"`
		Parameters  json.RawMessage `json:"parameters,omitempty"`
		Strict      *bool           `json:"strict,omitempty"`
	} `json:"function"`
}

var unknownField = regexp.MustCompile(`unknown field "([^"]+)"`)

// strict decodes raw into v. at names the place.
func strict(raw json.RawMessage, v any, at string) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		return nil
	}
	if m := unknownField.FindStringSubmatch(err.Error()); m != nil {
		return invalid(at+"."+m[1], "%s.%s: the target's format cannot express this field", at, m[1])
	}
	return invalid(at, "%s: %v", at, err)
}

func (r *Request) messages() ([]message, error) {
	raw, _ := r.field("messages")
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return nil, invalid("messages", "messages: want a list")
	}
	messages := make([]message, len(list))
	for i := range list {
		at := fmt.Sprintf("messages[%d]", i)
		if err := strict(list[i], &messages[i], at); err != nil {
			return nil, err
		}
		if isSet(messages[i].Refusal) {
			return nil, invalid(at+".refusal", "%s.refusal: the target's format cannot express this field", at)
		}
	}
	return messages, nil
}

// parts returns the content as a list, whichever way it was written.
func (m *message) parts(at string) ([]part, error) {
	if !isSet(m.Content) {
		return nil, nil
	}
	var text string
	if json.Unmarshal(m.Content, &text) == nil {
		return []part{{Type: "text", Text: text}}, nil
	}
	var parts []part
	if err := strict(m.Content, &parts, at+".content"); err != nil {
		return nil, err
	}
	for i, p := range parts {
		if p.Type != "text" && (p.Type != "image_url" || p.Image == nil) {
			return nil, invalid(at+".content", "%s.content[%d]: the target's format cannot express the type %q", at, i, p.Type)
		}
	}
	return parts, nil
}

// plain returns the content as text.
func (m *message) plain(at string) (string, error) {
	parts, err := m.parts(at)
	var b strings.Builder
	for _, p := range parts {
		if p.Type != "text" {
			return "", invalid(at+".content", "%s.content: only text can be here", at)
		}
		b.WriteString(p.Text)
	}
	return b.String(), err
}

// inline returns the type and the data of an image that is within the request.
func (p *part) inline() (mediaType, data string, ok bool) {
	rest, ok := strings.CutPrefix(p.Image.URL, "data:")
	if !ok {
		return "", "", false
	}
	mediaType, data, ok = strings.Cut(rest, ";base64,")
	if _, err := base64.StdEncoding.DecodeString(data); err != nil {
		return "", "", false
	}
	return mediaType, data, ok
}

// neutral are fields with the value that says what would happen without them.
var neutral = map[string][]string{
	"n": {"1"}, "logprobs": {"false"}, "presence_penalty": {"0", "0.0"}, "frequency_penalty": {"0", "0.0"}, "store": {"false"},
	"response_format": {`{"type":"text"}`}, "service_tier": {`"auto"`, `"default"`}, "logit_bias": {"{}"}, "top_logprobs": {"0"},
	"tools": {"[]"}, "tool_choice": {`"auto"`},
}

// translate calls read for the value of each field that is set, and refuses those that known does not have.
func (r *Request) translate(format string, known map[string]func(raw json.RawMessage) error) error {
	for _, f := range r.fields {
		raw := json.RawMessage(r.body[f.start:f.end])
		if string(raw) == "null" {
			continue
		}
		read, ok := known[f.name]
		if !ok {
			if slices.Contains(neutral[f.name], string(compacted(raw))) {
				continue
			}
			return invalid(f.name, "%s: the %s format cannot express this field", f.name, format)
		}
		if err := read(raw); err != nil {
			return err
		}
	}
	return nil
}

func compacted(raw json.RawMessage) []byte {
	var b bytes.Buffer
	_ = json.Compact(&b, raw) // it was valid
	return b.Bytes()
}

// into returns a function that decodes a field into v.
func into(name string, v any) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		if err := json.Unmarshal(raw, v); err != nil {
			return invalid(name, "%s: %v", name, err)
		}
		return nil
	}
}

func ignore(json.RawMessage) error { return nil } // read elsewhere

// stops reads one stop sequence or several.
func stops(v *[]string) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		var one string
		if json.Unmarshal(raw, &one) == nil {
			*v = []string{one}
			return nil
		}
		return into("stop", v)(raw)
	}
}

// streamOptions accepts what the gateway itself acts on.
func streamOptions(raw json.RawMessage) error {
	return strict(raw, new(struct {
		IncludeUsage       bool `json:"include_usage"`
		IncludeObfuscation bool `json:"include_obfuscation"`
	}), "stream_options")
}
