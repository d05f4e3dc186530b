package service

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"io/fs"
	"os"

	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
	"github.com/failfast-go/breaker/examples/rag/internal/vectors"
)

// openVectors opens the index of the documents this machine has: the library's source tree at or above the working directory,
// and the Go standard library.
func openVectors(ctx context.Context, cfg Config) (*vectors.Store, error) {
	documentation := corpus.Repository(repository())
	library := corpus.FindStandardLibrary()
	read := func() ([]corpus.Passage, error) {
		if library == nil {
			return documentation, nil
		}
		passages, err := corpus.StandardLibrary(library)
		return append(passages, documentation...), err
	}
	return vectors.Open(ctx, cfg.vectorsDir(), fingerprint(documentation, library), read)
}

func repository() fs.FS {
	if top := corpus.FindRepository("."); top != "" {
		return os.DirFS(top)
	}
	return nil
}

// format changes when the same documents would give other vectors.
const format = "1"

// fingerprint is of the documentation's text, which is read at every start, and of the library's version, which is not.
func fingerprint(documentation []corpus.Passage, library fs.FS) string {
	hash := sha256.New()
	write := func(text string) { hash.Write([]byte(text)); hash.Write([]byte{0}) }
	write(format)
	for _, p := range documentation {
		write(p.ID)
		write(p.Text)
	}
	if library != nil {
		version, _ := fs.ReadFile(library, "../VERSION")
		write(string(version))
	}
	return hex.EncodeToString(hash.Sum(nil))
}
