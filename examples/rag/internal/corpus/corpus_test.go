package corpus

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestRepositoryReadsMarkdownAndDocComments(t *testing.T) {
	passages := Repository(fstest.MapFS{
		"README.md":          file("# breaker\n\n```sh\ncurl -d 'Why is it open?'\n```\nOpens when the upstream is ill."),
		"docs/operations.md": file("Reset closes it."),
		"breaker.go": file("// Package breaker is a circuit breaker.\npackage breaker\n\n" +
			"// Reset closes b.\nfunc (b *Breaker) Reset() {}\n\n// Breaker guards one upstream.\ntype Breaker struct{}\n\nfunc hidden() {}\n"),
		"breaker_test.go": file("// Not documentation.\npackage breaker\n"),
	})
	texts := map[string]string{}
	for _, p := range passages {
		texts[p.Source] = p.Text
	}
	assert.Equal(t, map[string]string{
		"README.md":                                    "# breaker\n\nOpens when the upstream is ill.",
		"docs/operations.md":                           "Reset closes it.",
		"github.com/failfast-go/breaker":               "Package breaker is a circuit breaker.",
		"github.com/failfast-go/breaker.Breaker":       "breaker.Breaker: Breaker guards one upstream.",
		"github.com/failfast-go/breaker.Breaker.Reset": "breaker.Breaker.Reset: Reset closes b.",
	}, texts)
}

func TestAMissingRepositoryIsNoError(t *testing.T) {
	assert.Empty(t, Repository(nil))
	assert.Empty(t, Repository(fstest.MapFS{}))
	assert.Empty(t, Repository(fstest.MapFS{"breaker.go": file("this is not Go")}))
}

func TestStandardLibraryReadsPublicPackageCommentsOnly(t *testing.T) {
	passages, err := StandardLibrary(fstest.MapFS{
		"src/net/http/doc.go":          file("/*\nPackage http has clients and servers.\n*/\npackage http\n"),
		"src/net/http/gen.go":          file("//go:build ignore\n\n// A generator.\npackage main\n"),
		"src/net/http/internal/x/x.go": file("// Package x is private.\npackage x\n"),
		"src/net/http/_gen/g.go":       file("// Package g makes files.\npackage g\n"),
		"src/cmd/go/main.go":           file("// Go is a tool.\npackage main\n"),
		"src/empty/empty.go":           file("package empty\n"),
	})
	require.NoError(t, err)
	assert.Equal(t, []Passage{{"net/http#0", "net/http", "Package http has clients and servers."}}, passages)
}

func TestLongTextBecomesSeveralPassages(t *testing.T) {
	paragraph := strings.Repeat("word ", 100)
	passages := split("long", strings.Join([]string{paragraph, paragraph, strings.Repeat("x", 5000)}, "\n\n"))
	require.Len(t, passages, 3)
	for i, p := range passages {
		assert.LessOrEqual(t, len(p.Text), maxRunes+4)
		assert.Equal(t, "long", p.Source)
		assert.NotEqual(t, passages[(i+1)%3].ID, p.ID)
	}
}

func TestTheRealLibraryYieldsSomeHundredsOfPassages(t *testing.T) {
	tree := FindGo()
	if tree == nil {
		t.Skip("there is no go command in PATH, or no source beside it")
	}
	passages, err := StandardLibrary(tree)
	require.NoError(t, err)
	assert.Greater(t, len(passages), 300)
	ids := map[string]bool{}
	for _, p := range passages {
		ids[p.ID] = true
	}
	assert.Len(t, ids, len(passages), "passage IDs are unique")
}

func TestFindRepositoryLooksUpwards(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	below := filepath.Join(top, "examples", "rag")
	require.NoError(t, os.MkdirAll(below, 0o755))
	assert.Empty(t, FindRepository(below))
	require.NoError(t, os.WriteFile(filepath.Join(top, "go.mod"), []byte(modulePath), 0o644))
	assert.Equal(t, top, FindRepository(below))
}
