package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"

	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
	"github.com/failfast-go/breaker/examples/rag/internal/vectors"
)

// openVectors opens the index of the passages given, or else of the documents this machine has: the library's source tree at or
// above the working directory, and the Go standard library.
func openVectors(ctx context.Context, cfg Config) (*vectors.Store, error) {
	if cfg.Passages != nil {
		read := func() ([]corpus.Passage, error) { return cfg.Passages, nil }
		return vectors.Open(ctx, cfg.vectorsDir(), fingerprint(cfg.Passages, nil), read)
	}
	documentation := corpus.Repository(repository())
	toolchain := corpus.FindGo()
	read := func() ([]corpus.Passage, error) {
		if toolchain == nil {
			return documentation, nil
		}
		passages, err := corpus.StandardLibrary(toolchain)
		return append(passages, documentation...), err
	}
	return vectors.Open(ctx, cfg.vectorsDir(), fingerprint(documentation, toolchain), read)
}

func repository() fs.FS {
	if top := corpus.FindRepository("."); top != "" {
		return os.DirFS(top)
	}
	return nil
}

// format changes when the same documents would give other vectors.
const format = "2"

// fingerprint is of the documentation's text, which is read at every start, and of the toolchain's version, which stands for the rest.
func fingerprint(documentation []corpus.Passage, toolchain fs.FS) string {
	hash := sha256.New()
	write := func(text string) { hash.Write([]byte(text)); hash.Write([]byte{0}) }
	write(format)
	for _, p := range documentation {
		write(p.ID)
		write(p.Text)
	}
	if toolchain != nil {
		version, _ := fs.ReadFile(toolchain, "VERSION") // a tree built from source may have none
		write(string(version))
	}
	return hex.EncodeToString(hash.Sum(nil))
}
