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
// between them. The mutants must lie in the bodies of functions.
func within(src []byte, mutants []*variant) ([]byte, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "", src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	at := func(p token.Pos) int { return fset.Position(p).Offset }
	var file, variants bytes.Buffer
	written := 0
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		s := signatureOf(fn, func(n ast.Node) string { return string(src[at(n.Pos()):at(n.End())]) })
		from, to := at(fn.Body.Lbrace), at(fn.Body.Rbrace)+1
		var choices strings.Builder
		for _, v := range mutants {
			if from <= v.start && v.end < to {
				fmt.Fprintf(&choices, "case %d: %s;", v.number, s.call(v.number))
				v.first = lines(&variants)
				fmt.Fprintf(&variants, "func %s %s\n", s.head(v.number), v.apply(src)[from:to+len(v.with)-(v.end-v.start)])
				v.last = lines(&variants)
			}
		}
		if choices.Len() > 0 {
			fmt.Fprintf(&file, "%sfunc %s { if mutant__ != 0 { switch mutant__ { %s } }; ", src[written:at(fn.Pos())], s.head(0), choices.String())
			written = from + 1
		}
	}
	fmt.Fprintf(&file, "%s\n", src[written:])
	before := lines(&file)
	for _, v := range mutants {
		v.first += before + 1
		v.last += before
	}
	return append(file.Bytes(), variants.Bytes()...), nil
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
