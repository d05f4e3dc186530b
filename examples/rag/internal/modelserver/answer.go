package modelserver

import (
	"regexp"
	"strings"

	"github.com/failfast-go/breaker/examples/rag/internal/text"
)

// WithoutSources begins the answer to a prompt that has no passage on its question.
const WithoutSources = "I have no sources on that, so anything I said would be a guess."

// Answer replies to a prompt of numbered passages ("[1] ...") and a last line "Question: ...", with the best sentences of the
// passages. It reads the prompt as text, like any model: nothing reaches it beside the prompt.
func Answer(prompt string) string {
	before, question, found := strings.Cut(prompt, "\nQuestion: ")
	if !found {
		before, question = "", strings.TrimPrefix(prompt, "Question: ")
	}
	if answer := text.Extract(question, passages(before), 3); answer != "" {
		return answer
	}
	return WithoutSources
}

var passageStart = regexp.MustCompile(`(?m)^\[\d+\] \([^)]*\) `)

func passages(prompt string) []string {
	starts := passageStart.FindAllStringIndex(prompt, -1)
	var out []string
	for i, start := range starts {
		end := len(prompt)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		out = append(out, strings.TrimSpace(prompt[start[1]:end]))
	}
	return out
}
