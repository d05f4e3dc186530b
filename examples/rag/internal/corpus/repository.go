package corpus

import (
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Repository reads the documentation of this library from its source tree: the Markdown files at the top and under docs and
// examples, and the doc comments of the package itself. What is missing is left out; nil yields nothing.
func Repository(tree fs.FS) []Passage {
	if tree == nil {
		return nil
	}
	var passages []Passage
	for _, name := range markdown(tree) {
		if text, err := fs.ReadFile(tree, name); err == nil {
			passages = append(passages, split(name, fenced.ReplaceAllString(string(text), ""))...)
		}
	}
	return append(passages, exported(tree, ".", "github.com/failfast-go/breaker")...)
}

// fenced is a listing. A question in an example of how to ask would be the best match for itself.
var fenced = regexp.MustCompile("(?ms)^[ \t]*```.*?^[ \t]*```[ \t]*$\n?")

func markdown(tree fs.FS) []string {
	var names []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "examples/*.md", "examples/*/*.md"} {
		found, _ := fs.Glob(tree, pattern) // fails for a bad pattern only
		names = append(names, found...)
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(path.Base(name), ".") })
}
