// Package vectors is the service's vector store: chromem-go on disk, and an embedding that runs in the process.
package vectors

import (
	"hash/fnv"
	"maps"
	"math"

	"github.com/failfast-go/breaker/examples/rag/internal/text"
)

// dimensions is how many slots the words of a text are hashed into. Some hundreds of passages hold some ten thousand different
// words and pairs, so that several share each slot; much fewer slots, and rare words would no longer look rare.
const dimensions = 4096

// Embedder turns text into a vector without a model: each word and each pair of neighbouring words is hashed to a slot
// (feature hashing of word n-grams), with a sign from the hash, so that words which share a slot cancel out rather than add up;
// a slot weighs 1 + log of how often it occurs, times how rare it is in the corpus (TF-IDF); the vector is scaled to length 1.
// It finds passages that use the question's words; it knows no synonyms.
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
		weight := float32(math.Copysign(1+math.Log(math.Abs(n)), n)) * e.IDF[slot]
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

// counts says how often each slot occurs among the words and word pairs of t, with its sign. What cancels out is left out.
func counts(t string) map[int]float64 {
	slots := make(map[int]float64)
	add := func(gram string) {
		slot, sign := hash(gram)
		slots[slot] += sign
	}
	words := text.Words(t)
	for i, w := range words {
		add(w)
		if i > 0 {
			add(words[i-1] + " " + w)
		}
	}
	maps.DeleteFunc(slots, func(_ int, n float64) bool { return n == 0 })
	return slots
}

func hash(gram string) (slot int, sign float64) {
	h := fnv.New64a()
	h.Write([]byte(gram))
	sum := h.Sum64()
	if sum>>63 == 1 {
		return int(sum % dimensions), -1
	}
	return int(sum % dimensions), 1
}
