// Package text cuts English prose into words and sentences, and picks the sentences that answer a question.
// It is what the service uses where a language model or an embedding model would be, so that it runs without either.
package text

import (
	"strings"
	"unicode"
)

// Words returns the words of s in lower case and cut to a crude stem, without the ones that carry no meaning of their own.
func Words(s string) []string {
	var words []string
	for _, w := range strings.FieldsFunc(strings.ToLower(s), notWord) {
		if w = strings.Trim(w, "'."); w == "" || stopWords[w] {
			continue
		}
		words = append(words, stem(w))
		words = append(words, parts(w)...)
	}
	return words
}

// parts returns the words inside a name: "unsafe.Pointer" is about unsafe, and about pointers.
func parts(name string) []string {
	var words []string
	if strings.ContainsAny(name, "./_") {
		for _, w := range strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune("./_", r) }) {
			if len(w) > 1 { // not those of "e.g."
				words = append(words, stem(w))
			}
		}
	}
	return words
}

// notWord keeps the dot and the slash inside names such as net/http and sync.Mutex.
func notWord(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("'._/", r)
}

// stem cuts the commonest endings, so that "breakers" finds "breaker" and "opening" finds "opens". Both the question and the
// passage go through it, which is all that matters: what comes out need not be a word.
func stem(w string) string {
	if strings.ContainsAny(w, "./_") {
		return w // a name
	}
	for _, ending := range []string{"ing", "ion", "ies", "ed", "es", "s"} {
		if root, found := strings.CutSuffix(w, ending); found && len(root) >= 3 && !strings.HasSuffix(root, "s") {
			return root
		}
	}
	return w
}

var stopWords = func() map[string]bool {
	set := make(map[string]bool)
	for w := range strings.FieldsSeq(`a about an and any are as at be been but by can could did do does each for from get gets
		give go had has have he how i if in into is it its itself like may me more most my no not of on one only or other our
		out she should so some such than that the their them then there these they this those to under up us use used user
		uses using via was we were what when where which while who whom why will with would you your`) {
		set[w] = true
	}
	return set
}()
