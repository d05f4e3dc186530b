package model

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
)

var question = Request{
	Question: "What is\na mutex?",
	Passages: []corpus.Passage{{ID: "1", Source: "sync", Text: "A mutex is a lock. Cats sleep."}},
}

func TestOllamaSpeaksItsAPI(t *testing.T) {
	var asked struct {
		Model    string
		Stream   bool
		Messages []ollamaMessage
	}
	status, reply := 200, `{"message":{"role":"assistant","content":"A lock."},"done":true}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "POST /api/chat", r.Method+" "+r.URL.Path)
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&asked))
		w.WriteHeader(status)
		fmt.Fprint(w, reply)
	}))
	defer server.Close()
	o := NewOllama(server.URL+"/", "llama3.2")

	answer, err := o.Answer(t.Context(), question)
	require.NoError(t, err)
	assert.Equal(t, "A lock.", answer)
	assert.Equal(t, "llama3.2", asked.Model)
	assert.False(t, asked.Stream)
	assert.Equal(t, question.prompt(), asked.Messages[1].Content)

	for name, c := range map[string]struct {
		status int
		reply  string
		want   string
	}{
		"an error status":     {404, `{"error":"model not found"}`, "404 Not Found: model not found"},
		"an error in a reply": {200, `{"error":"out of memory"}`, "out of memory"},
		"a cut answer":        {200, `{"message":{"content":"A l"},"done":false}`, errCut.Error()},
		"an empty answer":     {200, `{"message":{"content":" "},"done":true}`, errEmpty.Error()},
		"no JSON":             {200, `<html>`, "invalid character"},
	} {
		status, reply = c.status, c.reply
		_, err := o.Answer(t.Context(), question)
		require.ErrorContains(t, err, c.want, name)
	}
}

func TestOllamaHostTakesTheFormsTheOllamaCommandTakes(t *testing.T) {
	for host, url := range map[string]string{
		"gpu":                   "http://gpu:11434/api/chat",
		"127.0.0.1:8000":        "http://127.0.0.1:8000/api/chat",
		"https://models.local/": "https://models.local/api/chat",
	} {
		assert.Equal(t, url, NewOllama(host, "m").url)
	}
}

func TestExtractiveAnswersFromThePassagesOrFails(t *testing.T) {
	answer, err := Extractive{}.Answer(t.Context(), question)
	require.NoError(t, err)
	assert.Equal(t, "A mutex is a lock.", answer)
	_, err = Extractive{}.Answer(t.Context(), Request{Question: "What is a mutex?"})
	require.ErrorIs(t, err, errNoPassage)
}

func TestThePromptKeepsTheQuestionOnOneLine(t *testing.T) {
	assert.Equal(t, "[1] (sync) A mutex is a lock. Cats sleep.\n\n\nQuestion: What is a mutex?", question.prompt())
}
