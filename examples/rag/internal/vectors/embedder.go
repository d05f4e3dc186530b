// Package vectors is the service's vector store: chromem-go on disk, and an embedding that runs in the process.
package vectors

import (
	"hash/fnv"
	"math"

	"github.com/failfast-go/breaker/examples/rag/internal/text"
)

// dimensions is how many slots the words of a text are hashed into. With some hundreds of passages of a paragraph each,
// collisions are rare enough at 2048 not to show in the results.
const dimensions = 2048

// Embedder turns text into a vector without a model: each word and each pair of neighbouring words is hashed to a slot
// (feature hashing of word n-grams), a slot weighs 1 + log of how often it occurs, times how rare it is in the corpus (TF-IDF),
// and the vector is scaled to length 1. It finds passages that use the question's words; it knows no synonyms.
type Embedder struct {
	IDF []float32 // by slot; persisted with the vectors made by it
}

// Fit learns from a corpus how rare each slot is.
func Fit(texts []string) Embedder {
	seen := make([]int, dimensions)
	for _, t := range texts {
		for slot := range counts(t) {
			seen[slot]++
		}
	}
	idf := make([]float32, dimensions)
	for slot, n := range seen {
		idf[slot] = float32(math.Log(float64(1+len(texts))/float64(1+n)) + 1)
	}
	return Embedder{idf}
}

// Embed returns the vector of t, and false when t has no word that means anything.
func (e Embedder) Embed(t string) (vector []float32, ok bool) {
	vector = make([]float32, dimensions)
	var length float64
	for slot, n := range counts(t) {
		weight := (1 + float32(math.Log(float64(n)))) * e.IDF[slot]
		vector[slot] = weight
		length += float64(weight) * float64(weight)
	}
	if length == 0 {
		return nil, false
	}
	scale := float32(1 / math.Sqrt(length))
	for slot := range vector {
		vector[slot] *= scale
	}
	return vector, true
}

// counts says how often each slot occurs among the words and word pairs of t.
func counts(t string) map[int]int {
	slots := make(map[int]int)
	words := text.Words(t)
	for i, w := range words {
		slots[slot(w)]++
		if i > 0 {
			slots[slot(words[i-1]+" "+w)]++
		}
	}
	return slots
}

func slot(gram string) int {
	h := fnv.New32a()
	h.Write([]byte(gram))
	return int(h.Sum32() % dimensions)
}
