// Package corpus reads what the service answers from: this library's own documentation and the package comments of the Go
// standard library, both from where the Go toolchain already has them.
package corpus

import (
	"fmt"
	"strings"
)

// Passage is a piece of text short enough to put in a prompt and to cite.
type Passage struct {
	ID     string // unique in a corpus, the same at every start
	Source string // where a reader finds it: a file, or an import path
	Text   string
}

// maxRunes is how long a passage gets: about a paragraph. Longer ones blur what an embedding says, shorter ones lose the context.
const maxRunes = 900

// split cuts text at blank lines into passages of at most maxRunes, keeping whole paragraphs together while they fit.
func split(source, text string) []Passage {
	var passages []Passage
	var held []string
	size := 0
	flush := func() {
		if body := strings.TrimSpace(strings.Join(held, "\n\n")); body != "" {
			passages = append(passages, Passage{fmt.Sprintf("%s#%d", source, len(passages)), source, body})
		}
		held, size = nil, 0
	}
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		length := len([]rune(paragraph))
		if size+length > maxRunes {
			flush()
		}
		held, size = append(held, clip(paragraph)), size+length
	}
	flush()
	return passages
}

// clip shortens a paragraph that alone is longer than a passage; in documentation that is a table or a listing.
func clip(paragraph string) string {
	if runes := []rune(paragraph); len(runes) > maxRunes {
		return string(runes[:maxRunes]) + " ..."
	}
	return paragraph
}
