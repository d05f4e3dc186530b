package wire

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func request(t *testing.T, body string) *Request {
	t.Helper()
	r, err := ParseRequest([]byte(body), "messages")
	require.NoError(t, err)
	return r
}

const everything = `{
	"model": "chat", "stream": true, "stream_options": {"include_usage": true}, "max_completion_tokens": 50, "temperature": 0.5,
	"top_p": 0.9, "stop": "END", "user": "u1", "parallel_tool_calls": false, "tool_choice": "required", "n": 1, "logprobs": null,
	"tools": [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}],
	"messages": [
		{"role": "system", "content": "Be brief."},
		{"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]},
		{"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"at\":1}"}}]},
		{"role": "tool", "tool_call_id": "c1", "content": "rain"},
		{"role": "tool", "tool_call_id": "c2", "content": "sun"}
	]}`

func TestToAnthropic(t *testing.T) {
	path, body, err := anthropic{}.Chat(request(t, everything), "claude-x")
	require.NoError(t, err)
	require.Equal(t, "/v1/messages", path)
	require.JSONEq(t, `{
		"model": "claude-x", "max_tokens": 50, "stream": true, "temperature": 0.5, "top_p": 0.9, "stop_sequences": ["END"], "system": "Be brief.",
		"metadata": {"user_id": "u1"}, "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
		"tools": [{"name": "weather", "description": "d", "input_schema": {"type": "object"}}],
		"messages": [
			{"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}]},
			{"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"at": 1}}]},
			{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "rain"}, {"type": "tool_result", "tool_use_id": "c2", "content": "sun"}]}
		]}`, string(body))
	_, body, err = anthropic{}.Chat(request(t, `{"model":"m","messages":[{"role":"user","content":"x"}]}`), "c")
	require.NoError(t, err)
	require.Contains(t, string(body), `"max_tokens":4096`)
}

func TestToOllama(t *testing.T) {
	asked := strings.NewReplacer(`"user": "u1", "parallel_tool_calls": false, "tool_choice": "required",`, `"seed": 7, "response_format": {"type": "json_object"},`).Replace(everything)
	path, body, err := ollama{}.Chat(request(t, asked), "llama")
	require.NoError(t, err)
	require.Equal(t, "/api/chat", path)
	require.JSONEq(t, `{
		"model": "llama", "stream": true, "format": "json",
		"options": {"temperature": 0.5, "top_p": 0.9, "stop": ["END"], "num_predict": 50, "seed": 7},
		"tools": [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}],
		"messages": [
			{"role": "system", "content": "Be brief."},
			{"role": "user", "content": "What is this?", "images": ["aGk="]},
			{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"at": 1}}}]},
			{"role": "tool", "content": "rain", "tool_name": "weather"},
			{"role": "tool", "content": "sun"}
		]}`, string(body))
}

// Each row: fields that a format cannot express, and the name that the refusal must give.
func TestFieldsThatCannotBeExpressedAreNamed(t *testing.T) {
	user := `"messages":[{"role":"user","content":"x"}]`
	tests := []struct{ dialect, fields, want string }{
		{"anthropic", user + `,"logit_bias":{"1":2}`, "logit_bias"},
		{"anthropic", user + `,"seed":1`, "seed"},
		{"anthropic", user + `,"n":2`, "n"},
		{"anthropic", user + `,"temperature":1.5`, "temperature"},
		{"anthropic", user + `,"response_format":{"type":"json_object"}`, "response_format"},
		{"anthropic", user + `,"brand_new":1`, "brand_new"},
		{"anthropic", user + `,"stream_options":{"x":1}`, "stream_options.x"},
		{"anthropic", user + `,"tools":[{"type":"custom"}]`, "tools[].type"},
		{"anthropic", user + `,"tools":[{"type":"function","function":{"name":"f","strict":true}}]`, "tools[].function.strict"},
		{"anthropic", `"messages":[{"role":"user","content":"x","name":"ann"}]`, "messages[0].name"},
		{"anthropic", `"messages":[{"role":"function","content":"x"}]`, "messages[0].role"},
		{"anthropic", `"messages":[{"role":"user","content":[{"type":"input_audio"}]}]`, "messages[0].content"},
		{"anthropic", `"messages":[{"role":"user","content":[{"type":"text","text":"x","cache_control":{}}]}]`, "messages[0].content.cache_control"},
		{"anthropic", `"messages":[{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{"}}]}]`, "messages[0].tool_calls"},
		{"ollama", user + `,"user":"u"`, "user"},
		{"ollama", user + `,"tool_choice":"required"`, "tool_choice"},
		{"ollama", user + `,"n":2`, "n"},
		{"ollama", user + `,"response_format":{"type":"grammar"}`, "response_format"},
		{"ollama", `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]`, "messages[0].content.image_url"},
	}
	for _, tt := range tests {
		t.Run(tt.dialect+" "+tt.want, func(t *testing.T) {
			_, _, err := For(tt.dialect).Chat(request(t, `{"model":"m",`+tt.fields+`}`), "x")
			var wrong *InvalidError
			require.ErrorAs(t, err, &wrong)
			require.Equal(t, tt.want, wrong.Field)
			require.Contains(t, wrong.Reason, tt.want)
		})
	}
	_, body, err := openAI{}.Chat(request(t, `{"model":"m",`+user+`,"brand_new":1}`), "x")
	require.NoError(t, err)
	require.Contains(t, string(body), `"brand_new":1`)
}

func TestCapabilities(t *testing.T) {
	r := request(t, everything)
	require.NoError(t, r.Fits(nil), "nothing declared")
	require.NoError(t, r.Fits([]string{Tools, Images}))
	require.ErrorContains(t, r.Fits([]string{Images}), "tools")
	require.ErrorContains(t, r.Fits([]string{Tools}), "image_url")
	r = request(t, `{"model":"m","messages":[{"role":"user","content":"talk of \"image_url\" and tools"}],"tools":[],"response_format":{"type":"text"}}`)
	require.NoError(t, r.Fits([]string{}))
	r = request(t, `{"model":"m","messages":[],"response_format":{"type":"json_object"}}`)
	require.ErrorContains(t, r.Fits([]string{Tools}), "response_format")
}

// play runs the events of a stream through a dialect and returns what the caller reads.
func play(t *testing.T, dialect, ask, text string) (string, []Step, *Failure) {
	t.Helper()
	d := For(dialect)
	events := NewEvents(iotest.OneByteReader(strings.NewReader(text)), d.Lines())
	defer events.Close()
	s := d.Stream(request(t, ask))
	var out []byte
	var steps []Step
	for {
		data, err := events.Next()
		if errors.Is(err, io.EOF) {
			return string(s.End(out)), steps, nil
		}
		require.NoError(t, err)
		if len(data) == 0 {
			continue
		}
		var step Step
		var f *Failure
		if out, step, f = s.Event(out, data); f != nil {
			return string(out), steps, f
		}
		steps = append(steps, step)
	}
}

// said puts the chunks of a stream together.
func said(t *testing.T, stream string) (text, calls, finish, model string, u usage) {
	t.Helper()
	for event := range strings.SplitSeq(strings.TrimSpace(stream), "\n\n") {
		data := strings.TrimPrefix(event, "data: ")
		if data == "[DONE]" {
			continue
		}
		var c completion
		require.NoError(t, json.Unmarshal([]byte(data), &c), data)
		model = c.Model
		if c.Usage != nil {
			u = *c.Usage
		}
		for _, choice := range c.Choices {
			if choice.Delta.Content != nil {
				text += *choice.Delta.Content
			}
			for _, call := range choice.Delta.ToolCalls {
				calls += call.Function.Name + call.Function.Arguments
			}
			if choice.Finish != nil {
				finish = *choice.Finish
			}
		}
	}
	return text, calls, finish, model, u
}

const asksUsage = `{"model":"chat","stream":true,"stream_options":{"include_usage":true},"messages":[]}`

func TestAnthropicStream(t *testing.T) {
	out, steps, f := play(t, "anthropic", asksUsage, `event: message_start
data: {"type":"message_start","message":{"model":"claude-x","usage":{"input_tokens":5,"cache_read_input_tokens":2,"output_tokens":1}}}

event: ping
data: {"type":"ping"}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"It is "}}

data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"raining"}}

data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t1","name":"weather","input":{}}}

data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"at\":1}"}}

data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":9}}

data: {"type":"message_stop"}

`)
	require.Nil(t, f)
	require.Equal(t, []Step{Quiet, Quiet, Quiet, Content, Content, Content, Content, Quiet, Done}, steps)
	text, calls, finish, model, u := said(t, out)
	require.Equal(t, []any{"It is raining", `weather{"at":1}`, "tool_calls", "claude-x", usage{7, 9, 16}}, []any{text, calls, finish, model, u})
	require.True(t, strings.HasSuffix(out, doneEvent))
	require.Contains(t, out, `"role":"assistant"`)
}

func TestAnthropicTrouble(t *testing.T) {
	_, _, f := play(t, "anthropic", asksUsage, "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n")
	require.Equal(t, Overloaded, f.Kind)
	require.Equal(t, "Overloaded", f.Message)
	_, f = anthropic{}.Answer([]byte(`{"type":"error","error":{"type":"rate_limit_error","message":"x"}}`))
	require.Equal(t, Limited, f.Kind)
	_, f = anthropic{}.Answer([]byte(`<html>`))
	require.Equal(t, Garbled, f.Kind)
}

func TestAnthropicAnswer(t *testing.T) {
	out, f := anthropic{}.Answer([]byte(`{"type":"message","model":"claude-x","content":[{"type":"text","text":"a"},{"type":"text","text":"b"},{"type":"tool_use","id":"t","name":"f","input":{"x":1}}],"stop_reason":"max_tokens","usage":{"input_tokens":1,"output_tokens":2}}`))
	require.Nil(t, f)
	var c completion
	require.NoError(t, json.Unmarshal(out, &c))
	require.Equal(t, "claude-x", c.Model)
	require.Equal(t, "ab", *c.Choices[0].Message.Content)
	require.Equal(t, `{"x":1}`, c.Choices[0].Message.ToolCalls[0].Function.Arguments)
	require.Equal(t, "length", *c.Choices[0].Finish)
	require.Equal(t, usage{1, 2, 3}, *c.Usage)
}

func TestOllamaStream(t *testing.T) {
	out, steps, f := play(t, "ollama", asksUsage, `{"model":"llama","message":{"role":"assistant","content":"It "},"done":false}
{"model":"llama","message":{"role":"assistant","content":"rains"},"done":false}
{"model":"llama","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"x":1}}}]},"done":false}
{"model":"llama","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":4,"eval_count":6}
`)
	require.Nil(t, f)
	require.Equal(t, []Step{Content, Content, Content, Done}, steps)
	text, calls, finish, model, u := said(t, out)
	require.Equal(t, []any{"It rains", `f{"x":1}`, "tool_calls", "llama", usage{4, 6, 10}}, []any{text, calls, finish, model, u})
	_, _, f = play(t, "ollama", asksUsage, `{"error":"an error was encountered while running the model"}`+"\n")
	require.Equal(t, Overloaded, f.Kind)
}

func TestOllamaAnswer(t *testing.T) {
	out, f := ollama{}.Answer([]byte(`{"model":"llama","message":{"role":"assistant","content":"hi"},"done":true,"done_reason":"length","prompt_eval_count":4,"eval_count":6}`))
	require.Nil(t, f)
	require.Contains(t, string(out), `"finish_reason":"length"`)
	require.Contains(t, string(out), `"total_tokens":10`)
	_, f = ollama{}.Answer([]byte(`{"model":"llama","message":{"content":"hi"},"done":false}`))
	require.NotNil(t, f, "not done is not whole")
	out, f = ollama{}.EmbeddingsAnswer([]byte(`{"model":"e","embeddings":[[0.1,2],[3,4]],"prompt_eval_count":4}`))
	require.Nil(t, f)
	require.JSONEq(t, `{"object":"list","model":"e","data":[{"object":"embedding","index":0,"embedding":[0.1,2]},{"object":"embedding","index":1,"embedding":[3,4]}],"usage":{"prompt_tokens":4,"total_tokens":4}}`, string(out))
	r, err := ParseRequest([]byte(`{"model":"m","input":["a"],"encoding_format":"base64"}`), "input")
	require.NoError(t, err)
	_, _, err = ollama{}.Embeddings(r, "x")
	require.ErrorContains(t, err, "encoding_format")
	_, _, err = anthropic{}.Embeddings(r, "x")
	require.ErrorContains(t, err, "no embeddings")
}

// What looks like a finish or an error inside a text is none.
func TestWordsInATextAreNoSigns(t *testing.T) {
	content := func(s string) string {
		data, _ := json.Marshal(s)
		return `data: {"choices":[{"index":0,"delta":{"content":` + string(data) + `},"finish_reason":null}]}` + "\n\n"
	}
	text := content("a") + content(`{"finish_reason":"stop","error":{"message":"no"}}`) + content("[DONE]") + content(`"finish_reason": "stop"`)
	out, steps, f := play(t, "openai", asksUsage, text)
	require.Nil(t, f)
	require.Equal(t, []Step{Content, Content, Content, Content}, steps)
	require.Equal(t, text+doneEvent, out)
}

// As in the library's own scanner.
func TestAFinishReasonThatSaysNothingIsNoFinish(t *testing.T) {
	says := func(reason string) string {
		return `data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":` + reason + `}]}` + "\n\n"
	}
	for _, reason := range []string{`""`, `"null"`, `null`} {
		_, steps, f := play(t, "openai", `{"model":"m","messages":[]}`, says(reason)+says(reason)+says(`"stop"`)+doneEvent)
		require.Nil(t, f, reason)
		require.Equal(t, []Step{Content, Content, Finish, Done}, steps, reason)
		_, _, f = play(t, "openai", `{"model":"m","messages":[]}`, says(reason)+doneEvent)
		require.NotNil(t, f, "cut after %s", reason)
		require.Equal(t, "answer_cut", f.Code)
	}
	_, _, f := play(t, "openai", `{"model":"m","messages":[]}`, says("null")+says(`"error"`)+doneEvent)
	require.NotNil(t, f)
	require.Equal(t, Cut, f.Kind)
}

func TestEveryChoiceMustFinish(t *testing.T) {
	finish := func(index string) string {
		return `data: {"choices":[{"index":` + index + `,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	}
	_, steps, _ := play(t, "openai", `{"model":"m","n":2,"messages":[]}`, finish("0")+finish("1")+doneEvent)
	require.Equal(t, []Step{Content, Finish, Done}, steps)
	_, steps, _ = play(t, "openai", `{"model":"m","n":2,"messages":[]}`, finish("0")+finish("0")+finish("1")+doneEvent)
	require.Equal(t, []Step{Content, Content, Finish, Done}, steps, "some providers say so twice")
}

func TestEventsOfAllForms(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	tests := []struct {
		name, text string
		want       []string
	}{
		{"plain", "data: a\n\ndata: b\n\n", []string{"a", "b"}},
		{"without a space", "data:a\n\n", []string{"a"}},
		{"CR LF", "data: a\r\n\r\ndata: b\r\n\r\n", []string{"a", "b"}},
		{"comments", ": hi\n\ndata: a\n\n", []string{"", "a"}},
		{"other fields", "event: x\nid: 1\nretry: 5\ndata: a\n\n", []string{"a"}},
		{"several lines", "data: a\ndata: b\n\n", []string{"a\nb"}},
		{"no empty line at the end", "data: a\n\ndata: b", []string{"a", "b"}},
		{"long", "data: " + long + "\n\ndata: b\n\n", []string{long, "b"}},
		{"empty lines", "\n\n\ndata: a\n\n\n\n", []string{"a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			events := NewEvents(strings.NewReader(tt.text), false)
			defer events.Close()
			var got []string
			for {
				data, err := events.Next()
				if err != nil {
					require.Equal(t, io.EOF, err)
					break
				}
				got = append(got, string(data))
			}
			require.Equal(t, tt.want, got)
		})
	}
	events := NewEvents(strings.NewReader("data: "+strings.Repeat("x", maxEvent+10_000)), false)
	defer events.Close()
	_, err := events.Next()
	require.ErrorIs(t, err, errEventTooLarge)
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte(`{"model":"m","messages":[{"content":[{"type":"image_url"}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := ParseRequest(body, "messages")
		if err != nil {
			return
		}
		r.LastUserText()
		var plain map[string]json.RawMessage
		if json.Unmarshal(body, &plain) != nil || len(plain) != len(r.fields) {
			t.Errorf("%d fields of %s", len(r.fields), body)
		}
		for name, want := range plain {
			if got, _ := r.field(name); string(got) != string(want) {
				t.Errorf("%q is %s and not %s", name, got, want)
			}
		}
		for _, format := range []string{"openai", "anthropic", "ollama"} {
			if _, out, err := For(format).Chat(r, "other"); err == nil && !json.Valid(out) {
				t.Errorf("%s: not JSON: %s", format, out)
			}
		}
	})
}

func FuzzStream(f *testing.F) {
	f.Add([]byte(`{"choices":[{"delta":{"content":"x"},"finish_reason":null}]}`), []byte("[DONE]"))
	f.Add([]byte(`{"type":"message_start"}`), []byte(`{"type":"message_stop"}`))
	f.Add([]byte(`{"message":{"content":"x"}}`), []byte(`{"done":true}`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		for _, format := range []string{"openai", "anthropic", "ollama"} {
			s := For(format).Stream(&Request{})
			out, _, _ := s.Event(nil, first)
			out, _, _ = s.Event(out, second)
			s.End(out)
		}
	})
}

func TestFieldsAreFound(t *testing.T) {
	r := request(t, " {\n\"model\" : \"m\" ,\"a\\u0062\":-1.5e3,\"c\":{\"x\":[\"}\",\"\\\\\\\"]\"]} , \"messages\":[],\"d\":true,\"e\":\"\\\"\" }\n ")
	for name, want := range map[string]string{"model": `"m"`, "ab": "-1.5e3", "c": `{"x":["}","\\\"]"]}`, "messages": "[]", "d": "true", "e": `"\""`} {
		got, ok := r.field(name)
		require.True(t, ok, name)
		require.Equal(t, want, string(got))
	}
	require.Len(t, r.fields, 6)
	for _, body := range []string{"", " ", "1", "null", "[]", `"x"`, "{}", `{"a":1`} {
		_, err := ParseRequest([]byte(body), "messages")
		require.Error(t, err, body)
	}
}

// The short cut for events that are alike must see what a close look sees.
func FuzzAlike(f *testing.F) {
	f.Add([]byte(`{"choices":[{"delta":{"content":"`), []byte(`hello`), []byte(` world`), []byte(`"},"finish_reason":null}]}`))
	f.Add([]byte(`{"choices":[{"delta":{"content":"`), []byte(`a`), []byte(`b"},"finish_reason":"stop"}],"x":["`), []byte(`"},"finish_reason":null}]}`))
	f.Add([]byte(`{"choices":[{"delta":{"content":"`), []byte(`a`), []byte(`b\`), []byte(`"},"finish_reason":null}]}`))
	f.Fuzz(func(t *testing.T, before, first, second, after []byte) {
		event := func(text []byte) []byte { return slices.Concat(before, text, after) }
		quick, close := openAI{}.Stream(&Request{}), openAI{}.Stream(&Request{})
		_, step, failure := quick.Event(nil, event(first))
		if failure != nil || step != Content {
			return
		}
		close.(*openAIStream).spoken = true
		_, got, wrong := quick.Event(nil, event(second))
		_, want, right := close.Event(nil, event(second))
		if got != want || (wrong == nil) != (right == nil) {
			t.Errorf("%s after %s: %v and not %v", event(second), event(first), got, want)
		}
	})
}
