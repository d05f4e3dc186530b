package breaker

import (
	"bufio"
	"bytes"
	"cmp"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// seen is what the scanner and its oracle say of a whole body.
type seen struct {
	Marker, Model, Failed bool
	Events                int
	Err                   error
}

func scan(f bodyFormat, pieces ...[]byte) seen {
	s := newScanner(f)
	for _, p := range pieces {
		s.feed(p)
	}
	err := s.end(true)
	if s.fault != nil {
		err = nil
	}
	return seen{s.marker, s.model, s.fault != nil, s.events, err}
}

var (
	finishReason = regexp.MustCompile(`^"finish_reason"[ \t\r\n]*:[ \t\r\n]*(t|"([^"]{0,6})"|"([^"]{6})[^"])`)
	firstType    = regexp.MustCompile(`^\{[ \t\r\n]*"type"[ \t\r\n]*:[ \t\r\n]*"([^"]{0,31})"`)
	firstError   = regexp.MustCompile(`^\{[ \t\r\n]*"error"[ \t\r\n]*:[ \t\r\n]*[^n \t\r\n]`)
)

// oracle reads a whole event stream the simple way.
func oracle(body string) (o seen) {
	newline := "\n"
	if i := strings.IndexAny(body, "\r\n"); i >= 0 && body[i] == '\r' && i+1 < len(body) && body[i+1] != '\n' {
		newline = "\r"
	}
	parts := strings.Split(body, newline)
	if rest := strings.TrimRight(parts[len(parts)-1], "\r"); !strings.HasSuffix(rest, "}") && !strings.HasSuffix(rest, "]") {
		parts = parts[:len(parts)-1]
	}
	var name, data string
	for i, line := range parts {
		line = strings.TrimRight(line, "\r")
		if i == 0 {
			line = strings.TrimPrefix(line, "\xEF\xBB\xBF")
		}
		switch {
		case line == "":
			name, data = "", ""
		case strings.HasPrefix(line, "event:"):
			name = strings.TrimPrefix(line[6:], " ")
			name = name[:min(32, len(name))]
		case strings.HasPrefix(line, "data:"):
			text := strings.TrimPrefix(line[5:], " ")
			if text == "" {
				continue
			}
			if data == "" {
				o.Events++
			}
			if data == "" && strings.HasSuffix(text, "}") {
				before := o.Failed
				o.Failed = false
				if o.judge(name, text, text); o.Failed {
					data = text // what follows may say more; anything else is not joined with it
				}
				o.Failed = o.Failed || before
				continue
			}
			data += text + "\n"
			o.judge(name, data, text)
		}
	}
	switch {
	case o.Failed, o.Marker:
	case o.Model:
		o.Err = errNoMarker
	case o.Events == 0:
		o.Err = errNoEvent
	}
	return o
}

func (o *seen) judge(name, data, line string) {
	if name == "" {
		if m := firstType.FindStringSubmatch(data); m != nil {
			name = m[1]
		}
	}
	switch said := meaning([]byte(name)); said {
	case failed:
		o.Failed = true
	case finished:
		o.Marker, o.Model = true, true
	case beginning, speaking:
		o.Model = true
	case ordinary:
		o.judgeUnnamed(data, line)
	}
}

func (o *seen) judgeUnnamed(data, line string) {
	var reason string
	i := strings.LastIndex(line, `"finish_reason"`)
	if i >= 0 {
		if m := finishReason.FindStringSubmatch(strings.ReplaceAll(line[i:], "\r", "")); m != nil {
			reason = cmp.Or(m[2], m[3], strings.Trim(m[1], `"`))
		}
	}
	switch {
	case strings.HasPrefix(data, "[DONE]"): // no marker by itself
	case firstError.MatchString(data) || reason == "error":
		o.Failed = true
	case reason != "" && reason != "null":
		o.Marker, o.Model = true, true
	case i >= 0 || !o.Model && o.Events <= maxModels && strings.Contains(data, `"choices"`):
		o.Model = true
	}
}

func FuzzSSEInAnyPieces(f *testing.F) {
	for _, s := range streams {
		f.Add([]byte(s), uint(7), uint(31))
		f.Add([]byte(strings.ReplaceAll(s, "\n", "\r\n")), uint(1), uint(2))
		f.Add([]byte("\xEF\xBB\xBF"+strings.ReplaceAll(s, "\n", "\r")), uint(3), uint(1))
	}
	f.Fuzz(func(t *testing.T, body []byte, a, b uint) {
		if len(body) > 1<<16 {
			return
		}
		for _, format := range []bodyFormat{events, values, document} {
			want := scan(format, body)
			var bytewise [][]byte
			for i := range body {
				bytewise = append(bytewise, body[i:i+1])
			}
			require.Equal(t, want, scan(format, bytewise...), "%v byte by byte: %q", format, body)
			var pieces [][]byte
			for rest, sizes := body, []uint{a, b}; len(rest) > 0; sizes[0], sizes[1] = sizes[1], sizes[0] {
				n := min(len(rest), int(sizes[0]%4096)+1)
				pieces, rest = append(pieces, rest[:n]), rest[n:]
			}
			require.Equal(t, want, scan(format, pieces...), "%v in pieces: %q", format, body)
		}
		if longest(body) < maxFault/2 {
			require.Equal(t, oracle(string(body)), scan(events, body), "%q", body)
		}
	})
}

// longest returns the size of the longest event, about: beyond what is kept of one the oracle knows more.
func longest(body []byte) int { return len(body) }

var streams = []string{
	"data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
	"data: {\"choices\": [{\"delta\": {}, \"finish_reason\": \"error\"}], \"error\": {\"code\": 502}}\n\n",
	"data: {\"error\":{\"type\":\"server_error\",\"message\":\"x\"}}\n\n",
	"event: message_start\ndata: {\"type\":\"message_start\"}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\"}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
	"event: error\ndata: {\ndata: \"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}\ndata: }\n\n",
	"event: response.created\ndata: {\"type\":\"response.created\"}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\"}\n\n",
	": keep-alive\n\ndata: {\"error\":null,\"choices\":[]}\n\n: {\"finish_reason\":\"stop\"}\n\n",
	"data: \"finish_reason\" \t: \"\"\ndata: \"finish_reasofinish_reason\":\"x\"\nid: 1\nretry: 5\nunknown\n\n",
	"{\"model\":\"m\",\"message\":{\"content\":\"a\"},\"done\":false}\n{\"done\": true}\n",
	"{\"error\":\"out of memory\"}\n",
	"{\"a\":[\"}\\\"\"]}",
}

// stream100M is an event stream of 100 MiB as OpenAI's API sends them.
func stream100M(tb testing.TB) []byte {
	tb.Helper()
	event := `data: {"id":"chatcmpl-BkzYvG6bWQmYf3kH1pFz7VtYH3p5K","object":"chat.completion.chunk","created":1750000000,"model":"gpt-4.1-2025-04-14","service_tier":"default","system_fingerprint":"fp_51e1070cf2","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"a1b2c3d4"}` + "\n\n"
	last := `data: {"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"
	body := make([]byte, 0, 100<<20)
	for len(body)+len(event)+len(last) < cap(body) {
		body = append(body, event...)
	}
	return append(body, last...)
}

func BenchmarkScanner(b *testing.B) {
	body := stream100M(b)
	const piece = 32 << 10
	run := func(name string, f func() int) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if f() == 0 {
					b.Fatal("nothing found")
				}
			}
		})
	}
	run("scanner", func() int {
		s := newScanner(events)
		for p := range chunks(body, piece) {
			s.feed(p)
		}
		if !s.complete() {
			return 0
		}
		return s.events
	})
	run("newlines by bufio.Scanner", func() (n int) {
		lines := bufio.NewScanner(bytes.NewReader(body))
		for lines.Scan() {
			n++
		}
		return n
	})
	run("newlines by IndexByte", func() (n int) {
		for p := range chunks(body, piece) {
			for {
				i := bytes.IndexByte(p, '\n')
				if i < 0 {
					break
				}
				n++
				p = p[i+1:]
			}
		}
		return n
	})
}

func chunks(body []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(body) > 0 {
			n := min(size, len(body))
			if !yield(body[:n]) {
				return
			}
			body = body[n:]
		}
	}
}

func TestFollowingAStreamAllocatesNothing(t *testing.T) {
	s := newScanner(events)
	piece := []byte(strings.Repeat(chatChunk, 5) + ": comment\n\nevent: ping\ndata: {\n" + chatChunk[:50])
	rest := []byte(chatChunk[50:] + "data: {\n\n")
	s.feed(piece)
	s.feed(rest)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		s.feed(piece)
		s.feed(rest)
	}))
	require.Less(t, cap(s.head)+cap(s.data)+int(reflect.TypeFor[scanner]().Size()), 5<<10, "bytes kept")
}

func TestALongLineThatFlowsIsNoStall(t *testing.T) {
	s := newScanner(events)
	s.feed([]byte("data: "))
	for range 20 {
		s.feed(bytes.Repeat([]byte("x"), 100))
	}
	require.True(t, s.tookContent())
	s.feed([]byte("x"))
	require.True(t, s.tookContent())
	s = newScanner(events)
	s.feed([]byte(": " + strings.Repeat("x", 5000)))
	require.False(t, s.tookContent(), "a comment")
}

func TestARoleAloneIsNoContent(t *testing.T) {
	for data, want := range map[string]bool{
		`{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}`:           true,
		`{"choices":[{"delta":{"content":"","role":"assistant"}}]}`:                                true,
		`{"choices":[{ "delta" : { "role" : "assistant" , "content" : null, "tool_calls": [] }}]}`: true,
		`{"choices":[{"delta":{}}]}`:                                                             true,
		`{"choices":[{"delta":{"role":"assistant","content":"a"}}]}`:                             false,
		`{"choices":[{"delta":{"role":"assistant","content":null,"reasoning_content":"hm"}}]}`:   false,
		`{"choices":[{"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0}]}}]}`: false,
		`{"choices":[{"delta":{"role":"assistant","content":""`:                                  false,
		`{"choices":[{"delta":"a"}]}`:                                                            false, `{"choices":[{"text":"a"}]}`: false, `{"choices":[{"delta":{"role":`: false,
	} {
		require.Equal(t, want, saysNothing([]byte(data)), data)
	}
}

func FuzzARoleAlone(f *testing.F) {
	f.Add([]byte(`{"choices":[{"delta":{"role":"assistant","content":""}}]}`))
	f.Fuzz(func(_ *testing.T, data []byte) { saysNothing(data) })
}
