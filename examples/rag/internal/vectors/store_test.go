package vectors

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
)

var animals = []corpus.Passage{
	{ID: "a", Source: "cats", Text: "Cats sleep most of the day and hunt at night."},
	{ID: "b", Source: "dogs", Text: "Dogs guard the house and bark at strangers."},
	{ID: "c", Source: "fish", Text: "Fish breathe water through their gills."},
}

func open(t *testing.T, dir, fingerprint string, passages []corpus.Passage) (store *Store, built bool) {
	t.Helper()
	store, err := Open(t.Context(), dir, fingerprint, func() ([]corpus.Passage, error) {
		built = true
		return passages, nil
	})
	require.NoError(t, err)
	return store, built
}

func nearest(t *testing.T, s *Store, question string) string {
	t.Helper()
	matches, err := s.Search(t.Context(), question, 2)
	require.NoError(t, err)
	if len(matches) == 0 {
		return ""
	}
	return matches[0].Source
}

func TestSearchFindsThePassageThatSharesRareWords(t *testing.T) {
	s, _ := open(t, t.TempDir(), "v1", animals)
	assert.Equal(t, "dogs", nearest(t, s, "Why do dogs bark?"))
	assert.Equal(t, "fish", nearest(t, s, "Who is breathing water?"))
	assert.Equal(t, "cats", nearest(t, s, "cats"), "a question of one word that only names the source")
	assert.Empty(t, nearest(t, s, "what is it"), "no meaning, no match, no error")
	assert.Empty(t, nearest(t, s, "quantum chromodynamics"), "far from everything")
}

func TestTheIndexSurvivesARestartAndIsNotReadAgain(t *testing.T) {
	dir := t.TempDir()
	_, built := open(t, dir, "v1", animals)
	assert.True(t, built)
	s, built := open(t, dir, "v1", nil)
	assert.False(t, built)
	assert.Equal(t, 3, s.Count())
	assert.Equal(t, "dogs", nearest(t, s, "Why do dogs bark?"), "the question is weighed as the passages were")
}

func TestAStaleOrUnfinishedIndexIsBuiltAnew(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, "v1", animals)
	s, built := open(t, dir, "v2", animals[:1])
	assert.True(t, built, "another fingerprint")
	assert.Equal(t, 1, s.Count())

	require.NoError(t, os.Remove(filepath.Join(dir, manifestName)))
	_, built = open(t, dir, "v2", animals)
	assert.True(t, built, "no manifest: the writing did not end")
}

func TestOpenNeverRemovesWhatIsNotAnIndex(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "thesis.txt")
	require.NoError(t, os.WriteFile(precious, []byte("x"), 0o644))
	_, err := Open(t.Context(), dir, "v1", func() ([]corpus.Passage, error) { return animals, nil })
	require.ErrorContains(t, err, "thesis.txt")
	assert.FileExists(t, precious)
}

func TestOpenSaysWhatToDoWithoutPassages(t *testing.T) {
	_, err := Open(t.Context(), t.TempDir(), "v1", func() ([]corpus.Passage, error) { return nil, nil })
	require.ErrorIs(t, err, errNothingToIndex)
	_, err = Open(t.Context(), t.TempDir(), "v1", func() ([]corpus.Passage, error) { return nil, os.ErrPermission })
	require.ErrorIs(t, err, os.ErrPermission)
}

func TestBreakFailsEverySearchUntilMended(t *testing.T) {
	s, _ := open(t, t.TempDir(), "v1", animals)
	searches := 0
	s.OnSearch = func() { searches++ }
	outage := errors.New("disk gone")
	s.Break(outage)
	_, err := s.Search(t.Context(), "dogs", 1)
	require.ErrorIs(t, err, outage)
	s.Break(nil)
	assert.Equal(t, "dogs", nearest(t, s, "dogs"))
	assert.Equal(t, 2, searches, "a search that fails reached the store all the same")
}

func TestEmbeddingsHaveLengthOneAndWeighRareWordsMore(t *testing.T) {
	e := Fit([]string{"cat sleeps", "dog sleeps", "bird sleeps"})
	v, ok := e.Embed("cat sleeps")
	require.True(t, ok)
	var length float64
	for _, x := range v {
		length += float64(x * x)
	}
	assert.InDelta(t, 1, math.Sqrt(length), 1e-5)
	cat, _ := hash("cat")
	sleep, _ := hash("sleep")
	assert.Greater(t, math.Abs(float64(v[cat])), math.Abs(float64(v[sleep])))

	_, ok = e.Embed("what is it")
	assert.False(t, ok)
}
