package vectors

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	chromem "github.com/philippgille/chromem-go"

	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
)

// Store finds the passages nearest to a question.
type Store struct {
	OnSearch func() // called at the start of each Search, when set before the first one

	collection *chromem.Collection
	fault      atomic.Pointer[error]
}

// Match is a passage and how near it is: the cosine of the angle between it and the question, 1 being the same words.
type Match struct {
	corpus.Passage
	Similarity float32
}

// tooFar is the similarity under which a passage has little more than one common word with the question.
const tooFar = 0.05

var errNothingToIndex = errors.New("vectors: no passages to index: run from the library's source tree, or with a Go toolchain in PATH")

// Open loads the index in dir. If there is none, or it was made from something else than fingerprint says, it is made anew
// from what read returns; read is not called otherwise.
func Open(ctx context.Context, dir, fingerprint string, read func() ([]corpus.Passage, error)) (*Store, error) {
	m, err := loadManifest(dir, fingerprint)
	if err != nil {
		return build(ctx, dir, fingerprint, read)
	}
	db, err := chromem.NewPersistentDB(dir, false)
	if err != nil {
		return build(ctx, dir, fingerprint, read)
	}
	s := &Store{}
	s.collection = db.GetCollection(collectionName, s.embed(m.Embedder))
	if s.collection == nil || s.collection.Count() != m.Passages {
		return build(ctx, dir, fingerprint, read)
	}
	return s, nil
}

const collectionName = "documents"

func build(ctx context.Context, dir, fingerprint string, read func() ([]corpus.Passage, error)) (*Store, error) {
	passages, err := read()
	if err != nil {
		return nil, err
	}
	if len(passages) == 0 {
		return nil, errNothingToIndex
	}
	if err := clear(dir); err != nil {
		return nil, err
	}
	db, err := chromem.NewPersistentDB(dir, false)
	if err != nil {
		return nil, fmt.Errorf("vectors: cannot create an index in %s: %w", dir, err)
	}
	s, embedder := &Store{}, Fit(textsOf(passages))
	if s.collection, err = db.CreateCollection(collectionName, nil, s.embed(embedder)); err != nil {
		return nil, fmt.Errorf("vectors: cannot create an index in %s: %w", dir, err)
	}
	documents := documentsOf(passages, embedder)
	if err := s.collection.AddDocuments(ctx, documents, runtime.GOMAXPROCS(0)); err != nil {
		return nil, fmt.Errorf("vectors: cannot write the index in %s: %w", dir, err)
	}
	return s, manifest{fingerprint, len(documents), embedder}.save(dir) // last: an index without one is not finished
}

func textsOf(passages []corpus.Passage) []string {
	texts := make([]string, len(passages))
	for i, p := range passages {
		texts[i] = indexed(p)
	}
	return texts
}

// indexed is what of a passage is searched: its source too, so that a question that names a package finds it.
func indexed(p corpus.Passage) string { return p.Source + " " + p.Text }

func documentsOf(passages []corpus.Passage, embedder Embedder) []chromem.Document {
	var documents []chromem.Document
	for _, p := range passages {
		if vector, ok := embedder.Embed(indexed(p)); ok {
			documents = append(documents, chromem.Document{
				ID: p.ID, Content: p.Text, Embedding: vector, Metadata: map[string]string{"source": p.Source},
			})
		}
	}
	return documents
}

var errNoWords = errors.New("vectors: the question has no word to search for")

// embed is the store's one dependency outside itself, and so the place where [Store.Break] breaks it.
func (s *Store) embed(e Embedder) chromem.EmbeddingFunc {
	return func(_ context.Context, text string) ([]float32, error) {
		if fault := s.fault.Load(); fault != nil {
			return nil, *fault
		}
		vector, ok := e.Embed(text)
		if !ok {
			return nil, errNoWords
		}
		return vector, nil
	}
}

// Search returns up to n passages, the nearest first. None is no error.
func (s *Store) Search(ctx context.Context, question string, n int) ([]Match, error) {
	if s.OnSearch != nil {
		s.OnSearch()
	}
	results, err := s.collection.Query(ctx, question, min(n, s.collection.Count()), nil, nil)
	if errors.Is(err, errNoWords) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("vectors: search: %w", err)
	}
	var matches []Match
	for _, r := range results {
		if r.Similarity >= tooFar {
			matches = append(matches, Match{corpus.Passage{ID: r.ID, Source: r.Metadata["source"], Text: r.Content}, r.Similarity})
		}
	}
	return matches, nil
}

// Count returns how many passages the store holds.
func (s *Store) Count() int { return s.collection.Count() }

// Break makes every search fail with err until it is called with nil. It is how an outage is played.
func (s *Store) Break(err error) {
	if err == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&err)
}
