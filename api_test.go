package breaker

import (
	"bytes"
	"flag"
	"go/ast"
	"go/doc"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write api.txt and the generated tables of README.md again")

// TestAPI fails when the exported API is not the one in api.txt. A change there is a decision, and belongs in CHANGELOG.md.
func TestAPI(t *testing.T) {
	fset, pkg := parsePackage(t)
	api := exported(fset, pkg)
	if *update {
		require.NoError(t, os.WriteFile("api.txt", []byte(api), 0o644))
	}
	want, err := os.ReadFile("api.txt")
	require.NoError(t, err)
	before, now := strings.Split(string(want), "\n"), strings.Split(api, "\n")
	for _, line := range without(before, now) {
		t.Errorf("gone: %s", line)
	}
	for _, line := range without(now, before) {
		t.Errorf("new:  %s", line)
	}
	if t.Failed() {
		t.Log("if this is meant: go test -run TestAPI -update, and a line in CHANGELOG.md")
	}
}

func without(lines, others []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return slices.Contains(others, line) })
}

// TestEveryExportedNameIsDocumented wants a comment that starts with the name, as go doc shows them, on everything but the
// members of a group, which may share the group's comment or have one at the end of their line.
func TestEveryExportedNameIsDocumented(t *testing.T) {
	_, pkg := parsePackage(t)
	check := func(name, comment string) {
		if !strings.HasPrefix(comment, name+" ") {
			t.Errorf("%s: its comment is %q, want one that begins with its name", name, comment)
		}
	}
	group := func(values []*doc.Value) {
		for _, v := range values {
			for _, spec := range v.Decl.Specs {
				s := spec.(*ast.ValueSpec)
				for _, name := range s.Names {
					switch {
					case !name.IsExported() || v.Decl.Lparen.IsValid() && (v.Doc != "" || s.Doc.Text() != "" || s.Comment.Text() != ""):
					case v.Decl.Lparen.IsValid():
						t.Errorf("%s has no comment, nor has its group", name)
					default:
						check(name.Name, v.Doc)
					}
				}
			}
		}
	}
	functions := func(funcs []*doc.Func) {
		for _, f := range funcs {
			check(f.Name, f.Doc)
		}
	}
	require.NotEmpty(t, pkg.Doc)
	group(pkg.Consts)
	group(pkg.Vars)
	functions(pkg.Funcs)
	for _, typ := range pkg.Types {
		check(typ.Name, typ.Doc)
		group(typ.Consts)
		group(typ.Vars)
		functions(typ.Funcs)
		functions(typ.Methods)
	}
}

// parsePackage returns the exported part of this package's code, without tests.
func parsePackage(t *testing.T) (*token.FileSet, *doc.Package) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, f)
	}
	pkg, err := doc.NewFromFiles(fset, files, "github.com/failfast-go/breaker")
	require.NoError(t, err)
	return fset, pkg
}

// exported lists the API, one line for each constant, variable, function, type, method, field and interface method.
func exported(fset *token.FileSet, pkg *doc.Package) string {
	var lines []string
	add := func(prefix string, node any) {
		lines = append(lines, strings.TrimSpace(prefix+" "+oneLine(fset, node)))
	}
	values := func(kind string, all []*doc.Value) {
		for _, v := range all {
			for _, spec := range v.Decl.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if name.IsExported() {
						s := *spec.(*ast.ValueSpec)
						s.Doc, s.Comment = nil, nil
						add(kind, &s)
					}
				}
			}
		}
	}
	functions := func(funcs []*doc.Func) {
		for _, f := range funcs {
			decl := *f.Decl
			decl.Doc, decl.Body = nil, nil
			add("", &decl)
		}
	}
	values("const", pkg.Consts)
	values("var", pkg.Vars)
	functions(pkg.Funcs)
	for _, t := range pkg.Types {
		spec := t.Decl.Specs[0].(*ast.TypeSpec)
		lines = append(lines, typeLines(fset, spec)...)
		values("const", t.Consts)
		values("var", t.Vars)
		functions(t.Funcs)
		functions(t.Methods)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// typeLines is the type itself and, of a struct or an interface, a line for each exported member.
func typeLines(fset *token.FileSet, spec *ast.TypeSpec) []string {
	head := "type " + spec.Name.Name
	if spec.TypeParams != nil {
		var names []string
		for _, p := range spec.TypeParams.List {
			for _, n := range p.Names {
				names = append(names, n.Name+" "+oneLine(fset, p.Type))
			}
		}
		head += "[" + strings.Join(names, ", ") + "]"
	}
	if spec.Assign.IsValid() {
		head += " ="
	}
	var members *ast.FieldList
	var kind string
	switch t := spec.Type.(type) {
	case *ast.StructType:
		kind, members = " struct", t.Fields
	case *ast.InterfaceType:
		kind, members = " interface", t.Methods
	default:
		return []string{head + " " + oneLine(fset, spec.Type)}
	}
	lines := []string{head + kind}
	for _, m := range members.List {
		typ := oneLine(fset, m.Type)
		if m.Tag != nil {
			typ += " " + m.Tag.Value
		}
		if len(m.Names) == 0 {
			lines = append(lines, head+kind+", "+typ)
		}
		for _, n := range m.Names {
			if n.IsExported() {
				lines = append(lines, head+kind+", "+n.Name+" "+typ)
			}
		}
	}
	return lines
}

var space = regexp.MustCompile(`\s+`)

func oneLine(fset *token.FileSet, node any) string {
	var b bytes.Buffer
	if err := format.Node(&b, fset, node); err != nil {
		panic(err)
	}
	return space.ReplaceAllString(b.String(), " ")
}
