package corpus

import (
	"go/ast"
	"go/doc"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strings"
)

// packageComment returns the comment above the package clause of dir, as passages under its import path.
func packageComment(tree fs.FS, dir string) []Passage {
	files := parse(tree, dir, parser.ParseComments|parser.PackageClauseOnly)
	var text []string
	for _, file := range files {
		if file.Doc != nil {
			text = append(text, plain(file.Doc.Text()))
		}
	}
	return split(dir, strings.Join(text, "\n\n"))
}

// exported returns the package comment of dir and the comment of every exported type, function and method.
func exported(tree fs.FS, dir, importPath string) []Passage {
	files := parse(tree, dir, parser.ParseComments)
	if len(files) == 0 {
		return nil
	}
	pkg, err := doc.NewFromFiles(fileSet, files, importPath)
	if err != nil {
		return nil // a tree that does not parse has no documentation to offer
	}
	passages := split(importPath, plain(pkg.Doc))
	add := func(name, text string) {
		if text != "" {
			passages = append(passages, split(importPath+"."+name, "breaker."+name+": "+plain(text))...)
		}
	}
	functions := func(of string, list []*doc.Func) {
		for _, f := range list {
			add(of+f.Name, f.Doc)
		}
	}
	functions("", pkg.Funcs)
	for _, t := range pkg.Types {
		add(t.Name, t.Doc)
		functions("", t.Funcs)
		functions(t.Name+".", t.Methods)
	}
	return passages
}

// fileSet holds no position anyone asks for; the parser wants one.
var fileSet = token.NewFileSet()

// parse reads the Go files of one directory, leaving out tests, programs and what does not parse.
func parse(tree fs.FS, dir string, mode parser.Mode) []*ast.File {
	names, _ := fs.Glob(tree, path.Join(dir, "*.go")) // fails for a bad pattern only
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := fs.ReadFile(tree, name)
		if err != nil {
			continue
		}
		if file, err := parser.ParseFile(fileSet, name, source, mode); err == nil && file.Name.Name != "main" {
			files = append(files, file)
		}
	}
	return files
}

// plain renders a doc comment without its markup. Whatever stands in brackets is taken for a link, and loses them.
func plain(text string) string {
	parser := comment.Parser{
		LookupPackage: func(name string) (string, bool) { return name, true },
		LookupSym:     func(string, string) bool { return true },
	}
	printer := comment.Printer{TextWidth: -1}
	return strings.TrimSpace(string(printer.Text(parser.Parse(text))))
}
