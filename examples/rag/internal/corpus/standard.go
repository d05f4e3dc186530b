package corpus

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// StandardLibrary reads the package comment of every public package of a Go tree. A package without one is left out.
func StandardLibrary(goroot fs.FS) ([]Passage, error) {
	src, err := fs.Sub(goroot, "src")
	if err != nil {
		return nil, fmt.Errorf("corpus: cannot read the standard library: %w", err)
	}
	var passages []Passage
	err = fs.WalkDir(src, ".", func(dir string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() {
			return nil
		}
		if private(entry.Name()) {
			return fs.SkipDir
		}
		passages = append(passages, packageComment(src, dir)...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("corpus: cannot read the standard library: %w", err)
	}
	return passages, nil
}

// private names the directories of a Go tree that hold nothing to import.
func private(dir string) bool {
	return slices.Contains([]string{"internal", "vendor", "testdata", "cmd", "builtin"}, dir) ||
		strings.HasPrefix(dir, "_") || len(dir) > 1 && strings.HasPrefix(dir, ".")
}
