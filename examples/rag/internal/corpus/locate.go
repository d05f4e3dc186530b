package corpus

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// modulePath names the library's own module, in its go.mod.
const modulePath = "module github.com/failfast-go/breaker\n"

// FindRepository returns the top of the library's source tree at or above dir, or "" when dir is not inside one.
func FindRepository(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	for {
		if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && bytes.HasPrefix(mod, []byte(modulePath)) {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// FindGo returns the tree of a Go toolchain with the standard library's source, or nil when this machine has none: a program
// runs without the toolchain that built it.
func FindGo() fs.FS {
	root := goroot()
	if root == "" {
		return nil
	}
	tree := os.DirFS(root)
	if _, err := fs.Stat(tree, "src/fmt/print.go"); err != nil {
		return nil
	}
	return tree
}

// goroot asks the go command, which knows the toolchain it picked for this directory.
func goroot() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(out))
}
