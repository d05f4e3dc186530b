package wire

import (
	"crypto/rand"
	"encoding/json"
	"time"
)

// The answer's format, as far as the gateway writes one itself.

type completion struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	Usage   *usage   `json:"usage,omitempty"`
}

type choice struct {
	Index   int     `json:"index"`
	Message *reply  `json:"message,omitempty"`
	Delta   *reply  `json:"delta,omitempty"`
	Finish  *string `json:"finish_reason"`
}

type reply struct {
	Role      string     `json:"role,omitempty"`
	Content   *string    `json:"content,omitempty"`
	Refusal   *string    `json:"refusal,omitempty"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

type toolCall struct {
	Index    *int         `json:"index,omitempty"`
	ID       string       `json:"id,omitempty"`
	Type     string       `json:"type,omitempty"`
	Function functionCall `json:"function"`
}

type functionCall struct {
	Name      string `json:"name,omitempty"`
	Arguments string `json:"arguments"`
}

type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}

func newUsage(prompt, completion int) *usage { return &usage{prompt, completion, prompt + completion} }

func newID() string { return "chatcmpl-" + rand.Text() }

// writer makes the events of a streamed answer that came in another format.
type writer struct {
	chunk   completion
	begun   bool
	include bool // the usage, in an event of its own
	usage   *usage
	calls   int
}

func newWriter(r *Request) writer {
	return writer{chunk: completion{ID: newID(), Object: "chat.completion.chunk", Created: time.Now().Unix()}, include: r.IncludeUsage}
}

// delta appends an event with what was said, the first with the role.
func (w *writer) delta(out []byte, d reply) []byte {
	if !w.begun {
		d.Role, w.begun = "assistant", true
	}
	w.chunk.Choices = []choice{{Delta: &d}}
	return AppendEvent(out, &w.chunk)
}

func (w *writer) text(out []byte, text string) []byte { return w.delta(out, reply{Content: &text}) }

func (w *writer) finish(out []byte, reason string) []byte {
	w.begun = true
	w.chunk.Choices = []choice{{Delta: &reply{}, Finish: &reason}}
	return AppendEvent(out, &w.chunk)
}

func (w *writer) end(out []byte) []byte {
	if w.include && w.usage != nil {
		w.chunk.Choices, w.chunk.Usage = []choice{}, w.usage
		out = AppendEvent(out, &w.chunk)
	}
	return append(out, doneEvent...)
}

func newCompletion(model, finish string, message reply, u *usage) *completion {
	message.Role = "assistant"
	return &completion{
		ID: newID(), Object: "chat.completion", Created: time.Now().Unix(), Model: model, Usage: u,
		Choices: []choice{{Message: &message, Finish: &finish}},
	}
}

// Fixed returns a whole answer, or the events of one, that says text in the name of model.
func Fixed(r *Request, model, text string) []byte {
	if !r.Stream {
		out, _ := json.Marshal(newCompletion(model, "stop", reply{Content: &text}, newUsage(0, 0))) // of strings and numbers
		return append(out, '\n')
	}
	w := newWriter(r)
	w.chunk.Model, w.usage = model, newUsage(0, 0)
	return w.end(w.finish(w.text(nil, text), "stop"))
}
