package wire

import (
	"cmp"
	"encoding/json"
)

type anthropicUsage struct {
	Input         int `json:"input_tokens"`
	CacheCreation int `json:"cache_creation_input_tokens"`
	CacheRead     int `json:"cache_read_input_tokens"`
	Output        int `json:"output_tokens"`
}

func (u *anthropicUsage) prompt() int { return u.Input + u.CacheCreation + u.CacheRead }

var anthropicReasons = map[string]string{
	"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls", "refusal": "content_filter",
	"pause_turn": "stop", "model_context_window_exceeded": "length",
}

func (anthropic) Answer(body []byte) ([]byte, *Failure) {
	var answer struct {
		Type    string           `json:"type"`
		Model   string           `json:"model"`
		Content []anthropicBlock `json:"content"`
		Stop    string           `json:"stop_reason"`
		Usage   anthropicUsage   `json:"usage"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, garbled("the answer is not JSON of the anthropic format")
	}
	if answer.Type != "message" || answer.Stop == "" {
		return nil, Judge(200, nil, body)
	}
	var said reply
	for _, b := range answer.Content {
		switch b.Type {
		case "text":
			text := b.Text
			if said.Content != nil {
				text = *said.Content + text
			}
			said.Content = &text
		case "tool_use":
			said.ToolCalls = append(said.ToolCalls, toolCall{ID: b.ID, Type: "function", Function: functionCall{b.Name, string(b.Input)}})
		}
	}
	reason := cmp.Or(anthropicReasons[answer.Stop], "stop")
	out, err := json.Marshal(newCompletion(answer.Model, reason, said, newUsage(answer.Usage.prompt(), answer.Usage.Output)))
	if err != nil {
		return nil, garbled(err.Error())
	}
	return out, nil
}

func (anthropic) Stream(r *Request) Stream { return &anthropicStream{w: newWriter(r)} }

type anthropicStream struct {
	w      writer
	usage  anthropicUsage
	reason string
}

type anthropicEvent struct {
	Type    string `json:"type"`
	Message struct {
		Model string         `json:"model"`
		Usage anthropicUsage `json:"usage"`
	} `json:"message"`
	Block anthropicBlock `json:"content_block"`
	Delta struct {
		Type    string `json:"type"`
		Text    string `json:"text"`
		Partial string `json:"partial_json"`
		Stop    string `json:"stop_reason"`
	} `json:"delta"`
	Usage anthropicUsage `json:"usage"`
}

func (s *anthropicStream) Event(out, data []byte) ([]byte, Step, *Failure) {
	var e anthropicEvent
	if json.Unmarshal(data, &e) != nil {
		return out, Malformed, nil
	}
	switch e.Type {
	case "message_start":
		s.w.chunk.Model, s.usage = e.Message.Model, e.Message.Usage
	case "content_block_start":
		return s.block(out, &e)
	case "content_block_delta":
		return s.delta(out, &e)
	case "message_delta":
		s.reason, s.usage.Output = cmp.Or(e.Delta.Stop, s.reason), max(s.usage.Output, e.Usage.Output)
	case "message_stop":
		s.w.usage = newUsage(s.usage.prompt(), s.usage.Output)
		return s.w.finish(out, cmp.Or(anthropicReasons[s.reason], "stop")), Done, nil
	case "error":
		return out, Quiet, Judge(200, nil, data)
	}
	return out, Quiet, nil
}

func (s *anthropicStream) block(out []byte, e *anthropicEvent) ([]byte, Step, *Failure) {
	if e.Block.Type != "tool_use" {
		return out, Quiet, nil
	}
	index := s.w.calls
	s.w.calls++
	call := toolCall{Index: &index, ID: e.Block.ID, Type: "function", Function: functionCall{Name: e.Block.Name}}
	return s.w.delta(out, reply{ToolCalls: []toolCall{call}}), Content, nil
}

func (s *anthropicStream) delta(out []byte, e *anthropicEvent) ([]byte, Step, *Failure) {
	switch {
	case e.Delta.Type == "text_delta" && e.Delta.Text != "":
		return s.w.text(out, e.Delta.Text), Content, nil
	case e.Delta.Type == "input_json_delta" && e.Delta.Partial != "" && s.w.calls > 0:
		index := s.w.calls - 1
		call := toolCall{Index: &index, Function: functionCall{Arguments: e.Delta.Partial}}
		return s.w.delta(out, reply{ToolCalls: []toolCall{call}}), Content, nil
	}
	return out, Quiet, nil
}

func (s *anthropicStream) End(out []byte) []byte { return s.w.end(out) }
