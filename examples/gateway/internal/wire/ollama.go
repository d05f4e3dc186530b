package wire

import (
	"encoding/json"
	"fmt"
)

// ollama speaks /api/chat and /api/embed.
type ollama struct{}

type ollamaRequest struct {
	Model    string          `json:"model"`
	Messages []ollamaMessage `json:"messages"`
	Stream   bool            `json:"stream"`
	Format   json.RawMessage `json:"format,omitempty"`
	Tools    json.RawMessage `json:"tools,omitempty"`
	Options  ollamaOptions   `json:"options"`
}

type ollamaOptions struct {
	Temperature      *float64 `json:"temperature,omitempty"`
	TopP             *float64 `json:"top_p,omitempty"`
	Seed             *int     `json:"seed,omitempty"`
	MaxTokens        *int     `json:"num_predict,omitempty"`
	Stop             []string `json:"stop,omitempty"`
	PresencePenalty  *float64 `json:"presence_penalty,omitempty"`
	FrequencyPenalty *float64 `json:"frequency_penalty,omitempty"`
}

type ollamaMessage struct {
	Role      string       `json:"role"`
	Content   string       `json:"content"`
	Images    []string     `json:"images,omitempty"`
	ToolCalls []ollamaCall `json:"tool_calls,omitempty"`
	ToolName  string       `json:"tool_name,omitempty"`
}

type ollamaCall struct {
	Function struct {
		Name      string          `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
	} `json:"function"`
}

func (ollama) Lines() bool { return true }

func (ollama) Chat(r *Request, model string) (string, []byte, error) {
	out := &ollamaRequest{Model: model, Stream: r.Stream}
	err := r.translate("ollama", map[string]func(json.RawMessage) error{
		"model": ignore, "stream": ignore, "stream_options": streamOptions,
		"messages":              func(json.RawMessage) error { return out.readMessages(r) },
		"max_tokens":            into("max_tokens", &out.Options.MaxTokens),
		"max_completion_tokens": into("max_completion_tokens", &out.Options.MaxTokens),
		"temperature":           into("temperature", &out.Options.Temperature),
		"top_p":                 into("top_p", &out.Options.TopP),
		"seed":                  into("seed", &out.Options.Seed),
		"presence_penalty":      into("presence_penalty", &out.Options.PresencePenalty),
		"frequency_penalty":     into("frequency_penalty", &out.Options.FrequencyPenalty),
		"stop":                  stops(&out.Options.Stop),
		"response_format":       out.readFormat,
		"tools":                 func(raw json.RawMessage) error { _, err := readTools(raw); out.Tools = raw; return err },
	})
	if err != nil {
		return "", nil, err
	}
	body, err := json.Marshal(out)
	return "/api/chat", body, err
}

func (out *ollamaRequest) readFormat(raw json.RawMessage) error {
	var format struct {
		Type   string `json:"type"`
		Schema struct {
			Name        string          `json:"name"`
			Description string          `json:"description"`
			Strict      *bool           `json:"strict"`
			Schema      json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	}
	if err := strict(raw, &format, "response_format"); err != nil {
		return err
	}
	switch format.Type {
	case "text":
	case "json_object":
		out.Format = json.RawMessage(`"json"`)
	case "json_schema":
		out.Format = format.Schema.Schema
	default:
		return invalid("response_format", "response_format: the ollama format cannot express %q", format.Type)
	}
	return nil
}

func (out *ollamaRequest) readMessages(r *Request) error {
	messages, err := r.messages()
	if err != nil {
		return err
	}
	names := map[string]string{} // of the tools, by the call's ID
	for i, m := range messages {
		at := fmt.Sprintf("messages[%d]", i)
		if m.Role == "developer" {
			m.Role = "system"
		}
		said := ollamaMessage{Role: m.Role}
		parts, err := m.parts(at)
		if err != nil {
			return err
		}
		for _, p := range parts {
			if p.Type != "image_url" {
				said.Content += p.Text
				continue
			}
			_, data, ok := p.inline()
			if !ok {
				return invalid(at+".content.image_url", "%s.content.image_url: the ollama format has images only as base64 data", at)
			}
			said.Images = append(said.Images, data)
		}
		if err := said.addCalls(m, at, names); err != nil {
			return err
		}
		out.Messages = append(out.Messages, said)
	}
	return nil
}

func (said *ollamaMessage) addCalls(m message, at string, names map[string]string) error {
	for _, c := range m.ToolCalls {
		var call ollamaCall
		call.Function.Name, call.Function.Arguments = c.Function.Name, json.RawMessage(c.Function.Arguments)
		if !json.Valid(call.Function.Arguments) {
			return invalid(at+".tool_calls", "%s.tool_calls: arguments that are not JSON cannot be expressed in the ollama format", at)
		}
		names[c.ID] = c.Function.Name
		said.ToolCalls = append(said.ToolCalls, call)
	}
	if m.Role == "tool" {
		said.ToolName = names[m.ToolCallID]
	}
	return nil
}
