package history

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open("", filepath.Join(t.TempDir(), "new", "history.db"))
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func turn(question string) Turn {
	return Turn{time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), question, "an answer", "primary", true}
}

func TestSavedTurnsComeBackNewestFirst(t *testing.T) {
	savesAndReads(t, open(t))
}

// savesAndReads is what both databases must do.
func savesAndReads(t *testing.T, s *Store) {
	require.NoError(t, s.Save(t.Context(), turn("first?")))
	require.NoError(t, s.Save(t.Context(), turn("second?")))
	turns, err := s.Recent(t.Context(), 2)
	require.NoError(t, err)
	require.Len(t, turns, 2)
	for i := range turns {
		turns[i].AskedAt = turns[i].AskedAt.UTC()
	}
	assert.Equal(t, []Turn{turn("second?"), turn("first?")}, turns)
}

func TestALockedDatabaseFailsSavesUntilItIsUnlocked(t *testing.T) {
	failsWhileLocked(t, open(t))
}

func failsWhileLocked(t *testing.T, s *Store) {
	unlock, err := s.Lock(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	begun := time.Now()
	require.Error(t, s.Save(ctx, turn("lost?")))
	assert.Less(t, time.Since(begun), 30*time.Second)
	require.NoError(t, unlock())
	require.NoError(t, s.Save(t.Context(), turn("kept?")))
	turns, err := s.Recent(t.Context(), 1)
	require.NoError(t, err)
	assert.Equal(t, "kept?", turns[0].Question)
}

func TestAnyFileNameWillDo(t *testing.T) {
	s, err := Open("", filepath.Join(t.TempDir(), "100% odd?#name.db"))
	require.NoError(t, err)
	defer s.Close()
	savesAndReads(t, s)
}

func TestWritersAtOnceAllSave(t *testing.T) {
	s := open(t)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() { assert.NoError(t, s.Save(t.Context(), turn("at once?"))) })
	}
	group.Wait()
	turns, err := s.Recent(t.Context(), 100)
	require.NoError(t, err)
	assert.Len(t, turns, 20)
}

func TestABadURLIsRefusedWithoutShowingIt(t *testing.T) {
	for _, url := range []string{"mysql://root:secret@host/db", "postgres://u:secret@host:notaport/db"} {
		s, err := Open(url, "")
		if err == nil { // pgx reads the URL at the first use
			err = s.Save(t.Context(), turn("?"))
		}
		require.Error(t, err)
		assert.False(t, strings.Contains(err.Error(), "secret"), err.Error())
	}
}

func TestADatabaseThatIsDownIsNoticedAtTheFirstSaveOnly(t *testing.T) {
	s, err := Open("postgres://nobody@127.0.0.1:1/none?connect_timeout=1", "")
	require.NoError(t, err)
	defer s.Close()
	saves := 0
	s.OnSave = func() { saves++ }
	require.Error(t, s.Save(t.Context(), turn("?")))
	assert.Equal(t, 1, saves)
}
