package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// selector is the environment variable that chooses the mutant of a program that holds many: its number, from 1.
const selector = "MUTANT"

// chooser is the file that is added to a package for the variants of its functions.
func chooser(pkg string) []byte {
	return fmt.Appendf(nil, "package %s\n\nimport (\n\t\"os\"\n\t\"strconv\"\n)\n\nvar mutant__, _ = strconv.Atoi(os.Getenv(%q))\n", pkg, selector)
}

// variant is a mutant of a function that lies beside the function, in a program that holds many: so one compilation does for
// all mutants of a file. It lives between two lines of the text, by which the compiler's complaints find it.
type variant struct {
	*mutant
	number      int
	first, last int
}

// within returns the file with a variant of each function beside it for every mutant, and at the head of the function a switch
// between them; likewise of the literals that variables begin as. The mutants must lie in either.
func within(src []byte, mutants []*variant) ([]byte, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "", src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	w := weaver{src: src, mutants: mutants, at: func(p token.Pos) int { return fset.Position(p).Offset }}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			w.function(d)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				w.variable(s)
			}
		}
	}
	fmt.Fprintf(&w.file, "%s\n", src[w.written:])
	before := lines(&w.file)
	for _, v := range mutants {
		v.first += before + 1
		v.last += before
	}
	return append(w.file.Bytes(), w.variants.Bytes()...), nil
}

// weaver writes a file with variants.
type weaver struct {
	src      []byte
	mutants  []*variant
	at       func(token.Pos) int
	written  int          // so much of src
	file     bytes.Buffer // its lines are those of src
	variants bytes.Buffer // what comes behind it
}

func (w *weaver) text(n ast.Node) string { return string(w.src[w.at(n.Pos()):w.at(n.End())]) }

func (w *weaver) function(fn *ast.FuncDecl) {
	if fn.Body == nil {
		return
	}
	s := signatureOf(fn, w.text)
	cases := w.vary(fn.Body, s.call, func(number int, text string) string { return "func " + s.head(number) + " " + text })
	if cases != "" {
		fmt.Fprintf(&w.file, "%sfunc %s { if mutant__ != 0 { switch mutant__ { %s } }; ", w.src[w.written:w.at(fn.Pos())], s.head(0), cases)
		w.written = w.at(fn.Body.Lbrace) + 1
	}
}

func (w *weaver) variable(spec ast.Spec) {
	l := initial(spec)
	if l == nil {
		return
	}
	call := func(number int) string { return fmt.Sprintf("return initial__%d()", number) }
	cases := w.vary(l, call, func(number int, text string) string {
		return fmt.Sprintf("func initial__%d() %s { return %s }", number, w.text(l.Type), text)
	})
	if cases != "" {
		fmt.Fprintf(&w.file, "%sfunc() %s { switch mutant__ { %s }; return %s }()", w.src[w.written:w.at(l.Pos())], w.text(l.Type), cases, w.text(l))
		w.written = w.at(l.End())
	}
}

// vary declares a variant for each mutant in n, and returns the cases of a switch that calls them.
func (w *weaver) vary(n ast.Node, call func(number int) string, declare func(number int, text string) string) string {
	var cases strings.Builder
	from, to := w.at(n.Pos()), w.at(n.End())
	for _, v := range w.mutants {
		if from <= v.start && v.end < to {
			fmt.Fprintf(&cases, "case %d: %s;", v.number, call(v.number))
			v.first = lines(&w.variants)
			fmt.Fprintln(&w.variants, declare(v.number, string(v.apply(w.src)[from:to+len(v.with)-(v.end-v.start)])))
			v.last = lines(&w.variants)
		}
	}
	return cases.String()
}

func lines(b *bytes.Buffer) int { return bytes.Count(b.Bytes(), []byte("\n")) }

// signature is a function's head, with a name for everything that its variants must be given.
type signature struct {
	receiver, receiverName string
	name, types, arguments string
	parameters, results    string
	returns                bool
}

func signatureOf(fn *ast.FuncDecl, text func(ast.Node) string) signature {
	s := signature{name: fn.Name.Name}
	if fn.Recv != nil {
		names, list := named(fn.Recv, "r__", text)
		s.receiverName, s.receiver = names[0], "("+list+") "
	}
	if fn.Type.TypeParams != nil {
		names, list := named(fn.Type.TypeParams, "t__", text)
		s.name, s.types = fn.Name.Name, "["+list+"]"
		s.arguments = "[" + strings.Join(names, ", ") + "]"
	}
	names, list := named(fn.Type.Params, "p__", text)
	s.parameters = list
	if n := len(fn.Type.Params.List); n > 0 {
		if _, variadic := fn.Type.Params.List[n-1].Type.(*ast.Ellipsis); variadic {
			names[len(names)-1] += "..."
		}
	}
	s.arguments += "(" + strings.Join(names, ", ") + ")"
	if fn.Type.Results != nil {
		s.returns = true
		var all []string
		for _, field := range fn.Type.Results.List {
			all = append(all, text(field))
		}
		s.results = "(" + strings.Join(all, ", ") + ")"
	}
	return s
}

// named lists the fields so that each has a name to be passed on by.
func named(fields *ast.FieldList, prefix string, text func(ast.Node) string) (names []string, list string) {
	var all []string
	for _, field := range fields.List {
		idents := field.Names
		if len(idents) == 0 {
			idents = []*ast.Ident{{Name: "_"}}
		}
		for _, ident := range idents {
			name := ident.Name
			if name == "_" {
				name = fmt.Sprintf("%s%d", prefix, len(names))
			}
			names = append(names, name)
			all = append(all, name+" "+text(field.Type))
		}
	}
	return names, strings.Join(all, ", ")
}

func (s *signature) numbered(number int) string {
	if number == 0 {
		return s.name
	}
	return fmt.Sprintf("%s__%d", s.name, number)
}

func (s *signature) head(number int) string {
	return s.receiver + s.numbered(number) + s.types + "(" + s.parameters + ") " + s.results
}

func (s *signature) call(number int) string {
	call := s.numbered(number) + s.arguments
	if s.receiver != "" {
		call = s.receiverName + "." + call
	}
	if s.returns {
		return "return " + call
	}
	return call + "; return"
}
