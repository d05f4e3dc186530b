package vectors

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// manifest says what an index was made from, and holds the weights that a question needs to be embedded like the passages were.
type manifest struct {
	Fingerprint string
	Passages    int
	Embedder    Embedder
}

const manifestName = "manifest.json"

var errStale = errors.New("vectors: the index was made from other documents")

func loadManifest(dir, fingerprint string) (manifest, error) {
	text, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return manifest{}, err
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return manifest{}, err
	}
	if m.Fingerprint != fingerprint || len(m.Embedder.IDF) != dimensions {
		return manifest{}, errStale
	}
	return m, nil
}

// save writes m whole or not at all, so that a crash leaves no half index that looks finished.
func (m manifest) save(dir string) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	temporary := filepath.Join(dir, manifestName+".tmp")
	if err := os.WriteFile(temporary, text, 0o644); err != nil {
		return fmt.Errorf("vectors: cannot finish the index: %w", err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, manifestName)); err != nil {
		return fmt.Errorf("vectors: cannot finish the index: %w", err)
	}
	return nil
}

// clear removes an old index. It removes nothing else: a directory that holds other things is refused.
func clear(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("vectors: cannot read %s: %w", dir, err)
	}
	for _, entry := range entries {
		if !entry.IsDir() && entry.Name() != manifestName && entry.Name() != manifestName+".tmp" {
			return fmt.Errorf("vectors: %s holds %s, which is not part of an index: give the index a directory of its own", dir, entry.Name())
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("vectors: cannot remove the old index: %w", err)
	}
	return nil
}
