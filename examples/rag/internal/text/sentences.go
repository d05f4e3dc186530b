package text

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
)

// Sentences cuts s after each full stop, question mark or exclamation mark that a space and a capital or digit follow, and
// at blank lines. White space inside a sentence becomes single spaces.
func Sentences(s string) []string {
	var sentences []string
	for paragraph := range strings.SplitSeq(s, "\n\n") {
		rest := []rune(strings.Join(strings.Fields(paragraph), " "))
		for len(rest) > 0 {
			end := sentenceEnd(rest)
			if sentence := strings.TrimSpace(string(rest[:end])); sentence != "" {
				sentences = append(sentences, sentence)
			}
			rest = rest[end:]
		}
	}
	return sentences
}

func sentenceEnd(s []rune) int {
	for i := 0; i+2 < len(s); i++ {
		if strings.ContainsRune(".?!", s[i]) && s[i+1] == ' ' && (unicode.IsUpper(s[i+2]) || unicode.IsDigit(s[i+2])) {
			return i + 1
		}
	}
	return len(s)
}

// Extract answers question with at most n sentences of passages: those that share most words with it, in reading order. If
// none shares any, it is the first sentence of the first passage, which someone thought the nearest; "" without passages.
func Extract(question string, passages []string, n int) string {
	asked := wordSet(question)
	var found []candidate
	for _, passage := range passages {
		for _, sentence := range Sentences(passage) {
			if score := overlap(asked, sentence); score > 0 {
				found = append(found, candidate{sentence, score, len(found)})
			}
		}
	}
	if len(found) == 0 {
		return first(passages)
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(b.score, a.score) })
	found = found[:min(n, len(found))]
	slices.SortFunc(found, func(a, b candidate) int { return a.position - b.position })

	var answer []string
	for _, c := range found {
		answer = append(answer, c.sentence)
	}
	return strings.Join(answer, " ")
}

func first(passages []string) string {
	for _, passage := range passages {
		if sentences := Sentences(passage); len(sentences) > 0 {
			return sentences[0]
		}
	}
	return ""
}

type candidate struct {
	sentence string
	score    float64
	position int
}

func wordSet(s string) map[string]bool {
	set := make(map[string]bool)
	for _, w := range Words(s) {
		set[w] = true
	}
	return set
}

// overlap is the share of the asked words that sentence has, less a little for each word it has beside them: of two
// sentences that say as much, the shorter one.
func overlap(asked map[string]bool, sentence string) float64 {
	words := wordSet(sentence)
	shared := 0
	for w := range words {
		if asked[w] {
			shared++
		}
	}
	if shared == 0 {
		return 0
	}
	return float64(shared)/float64(len(asked)) + 1/float64(10+len(words))
}
