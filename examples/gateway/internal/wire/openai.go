package wire

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/tidwall/gjson"
)

// openAI passes everything on as it is: requests but for the model's name, answers and events byte for byte. It looks at them only
// to know whether they are complete.
type openAI struct{}

func (openAI) Chat(r *Request, model string) (string, []byte, error) {
	return "/chat/completions", r.withModel(model), nil
}

func (openAI) Embeddings(r *Request, model string) (string, []byte, error) {
	return "/embeddings", r.withModel(model), nil
}

func (openAI) Lines() bool { return false }

func (openAI) Answer(body []byte) ([]byte, *Failure) { return whole(body, "choices") }

func (openAI) EmbeddingsAnswer(body []byte) ([]byte, *Failure) { return whole(body, "data") }

// whole reports whether an answer in one piece is one: JSON that has what it must, and is no error. Names that are there with their
// quotes are no part of a text, in which these would be escaped.
func whole(body []byte, must string) ([]byte, *Failure) {
	switch {
	case !gjson.ValidBytes(body):
		return nil, garbled("the answer is not JSON")
	case !bytes.Contains(body, []byte(`"error"`)) && bytes.Contains(body, []byte(`"`+must+`"`)):
		return body, nil
	}
	var answer map[string]json.RawMessage
	switch err := json.Unmarshal(body, &answer); {
	case err != nil:
		return nil, garbled("the answer is no JSON object")
	case isSet(answer["error"]):
		return nil, Judge(200, nil, body)
	case !isSet(answer[must]):
		return nil, garbled("the answer has no " + must)
	}
	return body, nil
}

func isSet(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

func (openAI) Stream(r *Request) Stream {
	s := &openAIStream{choices: 1}
	if raw, ok := r.field("n"); ok && json.Unmarshal(raw, &s.choices) != nil {
		s.choices = 1
	}
	return s
}

type openAIStream struct {
	choices  int     // that were asked for
	finished []int64 // the indexes of those that have; some providers say so twice
	spoken   bool    // content has come

	before, after []byte // of the text in the last event that was looked at closely, with its quotes
}

// Event looks closely at events until content has come, and after that only at those that could finish the answer or be an error:
// what distinguishes them are words with their quotes, which within a JSON string would be escaped.
func (s *openAIStream) Event(out, data []byte) ([]byte, Step, *Failure) {
	if s.another(data) {
		return appendEvent(out, data), Content, nil
	}
	if string(data) == "[DONE]" {
		if len(s.finished) == 0 { // no choice has: the polite end of an answer that was cut further up
			return out, Quiet, &Failure{Kind: Cut, Message: "the answer ended without a finish reason", Code: "answer_cut"}
		}
		return out, Done, nil
	}
	if !gjson.ValidBytes(data) {
		return out, Malformed, nil
	}
	if (s.spoken || speaks(data)) && !bytes.Contains(data, []byte(`"error"`)) && !mayFinish(data) {
		s.spoken = true
		s.remember(data)
		return appendEvent(out, data), Content, nil
	}
	chunk := gjson.ParseBytes(data)
	if e := chunk.Get("error"); e.Exists() && e.Type != gjson.Null {
		return out, Quiet, Judge(200, nil, data)
	}
	choices := chunk.Get("choices")
	if choices.Get(`#(finish_reason=="error")`).Exists() {
		return out, Quiet, &Failure{Kind: Cut, Message: "the provider says that it failed in the middle of the answer", Code: "answer_cut"}
	}
	step := s.step(choices)
	s.spoken = s.spoken || step != Quiet
	return appendEvent(out, data), step, nil
}

// another reports whether data is the last event once more, with another text in it that is not empty and holds nothing but plain
// characters. Most events are, and need no closer look.
func (s *openAIStream) another(data []byte) bool {
	if len(s.before) == 0 || len(data) <= len(s.before)+len(s.after) || !bytes.HasPrefix(data, s.before) || !bytes.HasSuffix(data, s.after) {
		return false
	}
	for _, c := range data[len(s.before) : len(data)-len(s.after)] {
		if c < ' ' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// remember keeps what is around the text of an event that is valid, says something, and is neither an end nor an error.
func (s *openAIStream) remember(data []byte) {
	s.before, s.after = s.before[:0], s.after[:0]
	_, after, ok := bytes.Cut(data, contentName)
	if !ok {
		return
	}
	rest := bytes.TrimLeft(after, ": \t\r\n")
	if len(rest) == 0 || rest[0] != '"' {
		return
	}
	start := len(data) - len(rest)
	end := endOfString(data, start)
	s.before, s.after = append(s.before, data[:start+1]...), append(s.after, data[end:]...)
}

func (s *openAIStream) End(out []byte) []byte { return append(out, doneEvent...) }

func (s *openAIStream) step(choices gjson.Result) (step Step) {
	for _, choice := range choices.Array() {
		if reason := choice.Get("finish_reason").String(); reason != "" && reason != "null" { // some say so instead of leaving it out
			if i := choice.Get("index").Int(); len(s.finished) < max(1, s.choices) && !slices.Contains(s.finished, i) {
				s.finished = append(s.finished, i)
			}
			if step = Content; len(s.finished) >= s.choices {
				return Finish
			}
		}
		choice.Get("delta").ForEach(func(name, value gjson.Result) bool {
			if v := value.Raw; name.Str != "role" && v != `""` && v != "null" && v != "[]" {
				step = Content
			}
			return true
		})
	}
	return step
}

var contentName = []byte(`"content"`)

// speaks reports whether the first content in data is text that is not empty. There may be others, which it does not see.
func speaks(data []byte) bool {
	at := bytes.Index(data, contentName)
	if at < 0 {
		return false
	}
	data = bytes.TrimLeft(data[at+len(contentName):], ": \t\r\n")
	return len(data) > 1 && data[0] == '"' && data[1] != '"'
}

var finishReason = []byte(`"finish_reason"`)

// mayFinish reports whether a finish reason in data is anything but null.
func mayFinish(data []byte) bool {
	for {
		at := bytes.Index(data, finishReason)
		if at < 0 {
			return false
		}
		data = bytes.TrimLeft(data[at+len(finishReason):], ": \t\r\n")
		if !bytes.HasPrefix(data, []byte("null")) {
			return true
		}
	}
}
