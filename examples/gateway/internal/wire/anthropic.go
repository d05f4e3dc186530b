package wire

import (
	"encoding/json"
	"fmt"
	"strings"
)

// anthropic speaks the Messages API.
type anthropic struct{}

// anthropicMaxTokens is asked for when the caller asks for nothing: the format must have a number.
const anthropicMaxTokens = 4096

type anthropicRequest struct {
	Model       string             `json:"model"`
	MaxTokens   int                `json:"max_tokens"`
	System      string             `json:"system,omitempty"`
	Messages    []anthropicMessage `json:"messages"`
	Stream      bool               `json:"stream,omitempty"`
	Temperature *float64           `json:"temperature,omitempty"`
	TopP        *float64           `json:"top_p,omitempty"`
	Stop        []string           `json:"stop_sequences,omitempty"`
	Tools       []anthropicTool    `json:"tools,omitempty"`
	Choice      *anthropicChoice   `json:"tool_choice,omitempty"`
	Metadata    *anthropicMetadata `json:"metadata,omitempty"`
}

type anthropicMetadata struct {
	UserID string `json:"user_id"`
}

type anthropicMessage struct {
	Role    string           `json:"role"`
	Content []anthropicBlock `json:"content"`
}

type anthropicBlock struct {
	Type      string           `json:"type"`
	Text      string           `json:"text,omitempty"`
	ID        string           `json:"id,omitempty"`
	Name      string           `json:"name,omitempty"`
	Input     json.RawMessage  `json:"input,omitempty"`
	ToolUseID string           `json:"tool_use_id,omitempty"`
	Content   string           `json:"content,omitempty"`
	Source    *anthropicSource `json:"source,omitempty"`
}

type anthropicSource struct {
	Type      string `json:"type"`
	MediaType string `json:"media_type,omitempty"`
	Data      string `json:"data,omitempty"`
	URL       string `json:"url,omitempty"`
}

type anthropicTool struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Schema      json.RawMessage `json:"input_schema"`
}

type anthropicChoice struct {
	Type            string `json:"type"`
	Name            string `json:"name,omitempty"`
	DisableParallel bool   `json:"disable_parallel_tool_use,omitempty"`
}

func (anthropic) Lines() bool { return false }

func (anthropic) Embeddings(*Request, string) (string, []byte, error) {
	return "", nil, invalid("model", "model: the anthropic format has no embeddings")
}

func (anthropic) EmbeddingsAnswer([]byte) ([]byte, *Failure) { return nil, garbled("no embeddings") }

func (anthropic) Chat(r *Request, model string) (string, []byte, error) {
	out := &anthropicRequest{Model: model, MaxTokens: anthropicMaxTokens, Stream: r.Stream}
	var user string
	var parallel *bool
	err := r.translate("anthropic", map[string]func(json.RawMessage) error{
		"model": ignore, "stream": ignore, "stream_options": streamOptions,
		"messages":              func(json.RawMessage) error { return out.readMessages(r) },
		"max_tokens":            into("max_tokens", &out.MaxTokens),
		"max_completion_tokens": into("max_completion_tokens", &out.MaxTokens),
		"temperature":           out.temperature,
		"top_p":                 into("top_p", &out.TopP),
		"stop":                  stops(&out.Stop),
		"tools":                 out.readTools,
		"tool_choice":           out.readChoice,
		"parallel_tool_calls":   into("parallel_tool_calls", &parallel),
		"user":                  into("user", &user),
	})
	if err != nil {
		return "", nil, err
	}
	if user != "" {
		out.Metadata = &anthropicMetadata{user}
	}
	if parallel != nil && !*parallel && len(out.Tools) > 0 {
		if out.Choice == nil {
			out.Choice = &anthropicChoice{Type: "auto"}
		}
		out.Choice.DisableParallel = out.Choice.Type != "none"
	}
	body, err := json.Marshal(out)
	return "/v1/messages", body, err
}

// temperature goes to 2 with OpenAI and to 1 here; a value between cannot be expressed.
func (out *anthropicRequest) temperature(raw json.RawMessage) error {
	if err := into("temperature", &out.Temperature)(raw); err != nil {
		return err
	}
	if *out.Temperature > 1 {
		return invalid("temperature", "temperature: the anthropic format cannot express more than 1")
	}
	return nil
}

func (out *anthropicRequest) readMessages(r *Request) error {
	messages, err := r.messages()
	if err != nil {
		return err
	}
	var system []string
	for i, m := range messages {
		at := fmt.Sprintf("messages[%d]", i)
		if m.Role == "system" || m.Role == "developer" {
			text, err := m.plain(at)
			if err != nil {
				return err
			}
			system = append(system, text)
			continue
		}
		role, blocks, err := anthropicBlocks(m, at)
		if err != nil {
			return err
		}
		if last := len(out.Messages) - 1; last >= 0 && out.Messages[last].Role == role { // the answers of several tools are one message
			out.Messages[last].Content = append(out.Messages[last].Content, blocks...)
			continue
		}
		out.Messages = append(out.Messages, anthropicMessage{role, blocks})
	}
	out.System = strings.Join(system, "\n\n")
	return nil
}

func anthropicBlocks(m message, at string) (role string, blocks []anthropicBlock, err error) {
	switch m.Role {
	case "tool":
		text, err := m.plain(at)
		return "user", []anthropicBlock{{Type: "tool_result", ToolUseID: m.ToolCallID, Content: text}}, err
	case "user", "assistant":
	default:
		return "", nil, invalid(at+".role", "%s.role: the anthropic format cannot express %q", at, m.Role)
	}
	parts, err := m.parts(at)
	for _, p := range parts {
		switch {
		case p.Type == "image_url":
			blocks = append(blocks, anthropicImage(p))
		case p.Text != "": // an empty one is refused by the API, and says nothing
			blocks = append(blocks, anthropicBlock{Type: "text", Text: p.Text})
		}
	}
	for _, c := range m.ToolCalls {
		input := json.RawMessage(c.Function.Arguments)
		if len(strings.TrimSpace(c.Function.Arguments)) == 0 {
			input = json.RawMessage("{}")
		}
		if !json.Valid(input) {
			return "", nil, invalid(at+".tool_calls", "%s.tool_calls: arguments that are not JSON cannot be expressed in the anthropic format", at)
		}
		blocks = append(blocks, anthropicBlock{Type: "tool_use", ID: c.ID, Name: c.Function.Name, Input: input})
	}
	return m.Role, blocks, err
}

func anthropicImage(p part) anthropicBlock {
	if mediaType, data, ok := p.inline(); ok {
		return anthropicBlock{Type: "image", Source: &anthropicSource{Type: "base64", MediaType: mediaType, Data: data}}
	}
	return anthropicBlock{Type: "image", Source: &anthropicSource{Type: "url", URL: p.Image.URL}}
}

func (out *anthropicRequest) readTools(raw json.RawMessage) error {
	tools, err := readTools(raw)
	for _, t := range tools {
		if t.Function.Strict != nil && *t.Function.Strict {
			return invalid("tools[].function.strict", "tools[].function.strict: the anthropic format cannot express this field")
		}
		schema := t.Function.Parameters
		if !isSet(schema) {
			schema = json.RawMessage(`{"type":"object"}`)
		}
		out.Tools = append(out.Tools, anthropicTool{t.Function.Name, t.Function.Description, schema})
	}
	return err
}

func readTools(raw json.RawMessage) (tools []tool, err error) {
	if err := strict(raw, &tools, "tools"); err != nil {
		return nil, err
	}
	for _, t := range tools {
		if t.Type != "function" {
			return nil, invalid("tools[].type", "tools[].type: the target's format cannot express %q", t.Type)
		}
	}
	return tools, nil
}

func (out *anthropicRequest) readChoice(raw json.RawMessage) error {
	var word string
	if json.Unmarshal(raw, &word) == nil {
		name, ok := map[string]string{"auto": "auto", "none": "none", "required": "any"}[word]
		if !ok {
			return invalid("tool_choice", "tool_choice: the anthropic format cannot express %q", word)
		}
		out.Choice = &anthropicChoice{Type: name}
		return nil
	}
	var choice struct {
		Type     string `json:"type"`
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	if err := strict(raw, &choice, "tool_choice"); err != nil {
		return err
	}
	out.Choice = &anthropicChoice{Type: "tool", Name: choice.Function.Name}
	return nil
}
