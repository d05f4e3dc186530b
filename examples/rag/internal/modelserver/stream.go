package modelserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// stream writes answer as server-sent events, some words in each, ended by a finish reason and [DONE].
func stream(w http.ResponseWriter, answer string, cut bool) {
	w.Header().Set("Content-Type", "text/event-stream")
	words := strings.SplitAfter(answer, " ")
	for i := 0; i < len(words); i += wordsPerChunk {
		if cut && i >= len(words)/2 {
			hangUp(w)
		}
		sendChunk(w, map[string]any{"role": "assistant", "content": strings.Join(words[i:min(i+wordsPerChunk, len(words))], "")}, nil)
	}
	if cut {
		hangUp(w)
	}
	sendChunk(w, map[string]any{}, "stop")
	fmt.Fprint(w, "data: [DONE]\n\n")
}

const wordsPerChunk = 5

func sendChunk(w http.ResponseWriter, delta map[string]any, finish any) {
	text, _ := json.Marshal(map[string]any{ // of strings and numbers: cannot fail
		"id": "chatcmpl-local", "object": "chat.completion.chunk", "created": time.Now().Unix(), "model": Model,
		"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}},
	})
	fmt.Fprintf(w, "data: %s\n\n", text)
	http.NewResponseController(w).Flush() // the client is gone if this fails; the next write then stops nothing that matters
}
