package wire

import (
	"cmp"
	"encoding/json"
	"fmt"
)

type ollamaEvent struct {
	Model   string          `json:"model"`
	Message ollamaMessage   `json:"message"`
	Done    bool            `json:"done"`
	Reason  string          `json:"done_reason"`
	Prompt  int             `json:"prompt_eval_count"`
	Eval    int             `json:"eval_count"`
	Error   json.RawMessage `json:"error"`
}

func (e *ollamaEvent) finish(calls int) string {
	switch {
	case calls > 0:
		return "tool_calls"
	case e.Reason == "length":
		return "length"
	}
	return "stop"
}

func (ollama) Answer(body []byte) ([]byte, *Failure) {
	var e ollamaEvent
	switch err := json.Unmarshal(body, &e); {
	case err != nil:
		return nil, garbled("the answer is not JSON of the ollama format")
	case isSet(e.Error) || !e.Done:
		return nil, Judge(200, nil, body)
	}
	calls := ollamaCalls(e.Message.ToolCalls, 0)
	for i := range calls {
		calls[i].Index = nil
	}
	said := reply{Content: &e.Message.Content, ToolCalls: calls}
	out, err := json.Marshal(newCompletion(e.Model, e.finish(len(calls)), said, newUsage(e.Prompt, e.Eval)))
	if err != nil {
		return nil, garbled(err.Error())
	}
	return out, nil
}

// ollamaCalls gives the calls IDs: the format has none, and a caller needs them to answer.
func ollamaCalls(calls []ollamaCall, first int) (out []toolCall) {
	for i, c := range calls {
		index := first + i
		out = append(out, toolCall{
			Index: &index, ID: fmt.Sprintf("call_%s_%d", newID()[9:21], index), Type: "function",
			Function: functionCall{c.Function.Name, string(c.Function.Arguments)},
		})
	}
	return out
}

func (ollama) Stream(r *Request) Stream { return &ollamaStream{w: newWriter(r)} }

type ollamaStream struct{ w writer }

func (s *ollamaStream) Event(out, data []byte) ([]byte, Step, *Failure) {
	var e ollamaEvent
	if json.Unmarshal(data, &e) != nil {
		return out, Malformed, nil
	}
	if isSet(e.Error) {
		return out, Quiet, Judge(200, nil, data)
	}
	s.w.chunk.Model = cmp.Or(e.Model, s.w.chunk.Model)
	step := Quiet
	if e.Message.Content != "" {
		out, step = s.w.text(out, e.Message.Content), Content
	}
	if calls := ollamaCalls(e.Message.ToolCalls, s.w.calls); len(calls) > 0 {
		s.w.calls += len(calls)
		out, step = s.w.delta(out, reply{ToolCalls: calls}), Content
	}
	if e.Done {
		s.w.usage = newUsage(e.Prompt, e.Eval)
		return s.w.finish(out, e.finish(s.w.calls)), Done, nil
	}
	return out, step, nil
}

func (s *ollamaStream) End(out []byte) []byte { return s.w.end(out) }

func (ollama) Embeddings(r *Request, model string) (string, []byte, error) {
	var out struct {
		Model      string          `json:"model"`
		Input      json.RawMessage `json:"input"`
		Dimensions *int            `json:"dimensions,omitempty"`
	}
	out.Model = model
	err := r.translate("ollama", map[string]func(json.RawMessage) error{
		"model":      ignore,
		"dimensions": into("dimensions", &out.Dimensions),
		"input": func(raw json.RawMessage) error {
			var one string
			var many []string
			if json.Unmarshal(raw, &one) != nil && json.Unmarshal(raw, &many) != nil {
				return invalid("input", "input: the ollama format can express text and lists of texts only")
			}
			out.Input = raw
			return nil
		},
		"encoding_format": func(raw json.RawMessage) error {
			if string(raw) != `"float"` {
				return invalid("encoding_format", "encoding_format: the ollama format can express float only")
			}
			return nil
		},
	})
	if err != nil {
		return "", nil, err
	}
	body, err := json.Marshal(out)
	return "/api/embed", body, err
}

func (ollama) EmbeddingsAnswer(body []byte) ([]byte, *Failure) {
	var answer struct {
		Model      string            `json:"model"`
		Embeddings []json.RawMessage `json:"embeddings"`
		Prompt     int               `json:"prompt_eval_count"`
		Error      json.RawMessage   `json:"error"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, garbled("the answer is not JSON of the ollama format")
	}
	if isSet(answer.Error) || len(answer.Embeddings) == 0 {
		return nil, Judge(200, nil, body)
	}
	type embedding struct {
		Object string          `json:"object"`
		Index  int             `json:"index"`
		Vector json.RawMessage `json:"embedding"`
	}
	data := make([]embedding, len(answer.Embeddings))
	for i, v := range answer.Embeddings {
		data[i] = embedding{"embedding", i, v}
	}
	out, err := json.Marshal(map[string]any{
		"object": "list", "model": answer.Model, "data": data,
		"usage": map[string]int{"prompt_tokens": answer.Prompt, "total_tokens": answer.Prompt},
	})
	if err != nil {
		return nil, garbled(err.Error())
	}
	return out, nil
}
