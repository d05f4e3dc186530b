package wire

import (
	"bytes"
	"encoding/json"

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
	s := &openAIStream{unfinished: 1}
	if raw, ok := r.field("n"); ok && json.Unmarshal(raw, &s.unfinished) != nil {
		s.unfinished = 1
	}
	return s
}

type openAIStream struct {
	unfinished int  // choices
	finished   bool // one of them has
	spoken     bool // content has come
}

// Event looks closely at events until content has come, and after that only at those that could finish the answer or be an error:
// what distinguishes them are words with their quotes, which within a JSON string would be escaped.
func (s *openAIStream) Event(out, data []byte) ([]byte, Step, *Failure) {
	if string(data) == "[DONE]" {
		if !s.finished { // no choice has: the polite end of an answer that was cut further up
			return out, Quiet, &Failure{Kind: Cut, Message: "the answer ended without a finish reason", Code: "answer_cut"}
		}
		return out, Done, nil
	}
	if !gjson.ValidBytes(data) {
		return out, Malformed, nil
	}
	if (s.spoken || speaks(data)) && !bytes.Contains(data, []byte(`"error"`)) && !mayFinish(data) {
		s.spoken = true
		return appendEvent(out, data), Content, nil
	}
	var c openAIChunk
	if json.Unmarshal(data, &c) != nil {
		return out, Malformed, nil
	}
	if isSet(c.Error) {
		return out, Quiet, Judge(200, nil, data)
	}
	step := s.step(&c)
	s.spoken = s.spoken || step != Quiet
	return appendEvent(out, data), step, nil
}

func (s *openAIStream) End(out []byte) []byte { return append(out, doneEvent...) }

type openAIChunk struct {
	Error   json.RawMessage `json:"error"`
	Choices []struct {
		Delta  map[string]json.RawMessage `json:"delta"`
		Finish *string                    `json:"finish_reason"`
	} `json:"choices"`
}

func (s *openAIStream) step(c *openAIChunk) Step {
	step := Quiet
	for _, choice := range c.Choices {
		if choice.Finish != nil {
			s.unfinished--
			s.finished = true
			if step = Content; s.unfinished <= 0 {
				return Finish
			}
		}
		for name, value := range choice.Delta {
			if v := string(value); name != "role" && v != `""` && v != "null" && v != "[]" {
				step = Content
			}
		}
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
