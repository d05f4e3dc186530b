package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mutant is one small change to one file.
type mutant struct {
	File       string // base name
	ID         string // file, function, change and line: stays the same while the code around moves
	line       int
	start, end int // the bytes replaced
	with       string
	together   bool // lies where many mutants fit in one program: in the body of a function, or in the literal that a variable begins as
}

// apply returns the file with the change made.
func (m *mutant) apply(src []byte) []byte {
	return slices.Concat(src[:m.start], []byte(m.with), src[m.end:])
}

// mutator collects the mutants of one file.
type mutator struct {
	fset    *token.FileSet
	file    string
	src     []byte
	lines   [][]byte
	inside  string   // name of the function
	place   ast.Node // whose mutants fit in one program; nil where there is none
	results []*ast.FieldList
	found   []*mutant
	seen    map[string]int
}

// mutantsOf returns every mutant of a file, in the order of the text.
func mutantsOf(path string) (src []byte, found []*mutant, err error) {
	src, err = os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, src, 0)
	if err != nil {
		return nil, nil, err
	}
	m := &mutator{fset: fset, file: filepath.Base(path), src: src, lines: bytes.Split(src, []byte("\n")), seen: map[string]int{}}
	for _, d := range f.Decls {
		m.inside, m.place = "package", nil
		switch d := d.(type) {
		case *ast.FuncDecl:
			m.inside = d.Name.Name
			m.results = []*ast.FieldList{d.Type.Results}
			if d.Body != nil {
				m.place = d.Body
			}
			m.walk(d)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				m.place = nil
				if l := initial(s); l != nil {
					m.place = l
				}
				m.walk(s)
			}
		}
	}
	slices.SortStableFunc(m.found, func(a, b *mutant) int { return a.start - b.start })
	return src, m.found, nil
}

// initial returns the literal that a variable of its own begins as, nil where there is none whose type can be written down.
func initial(s ast.Spec) *ast.CompositeLit {
	v, ok := s.(*ast.ValueSpec)
	if !ok || len(v.Values) != 1 {
		return nil
	}
	l, ok := v.Values[0].(*ast.CompositeLit)
	if !ok {
		return nil
	}
	if a, ok := l.Type.(*ast.ArrayType); ok {
		if _, counted := a.Len.(*ast.Ellipsis); counted {
			return nil
		}
	}
	return l
}

// walk mutates a node and what is below it. Function literals have results of their own.
func (m *mutator) walk(root ast.Node) {
	ast.Inspect(root, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec, *ast.Field: // types and tags
			return false
		case *ast.FuncLit:
			if n != root {
				m.results = append(m.results, n.Type.Results)
				m.walk(n)
				m.results = m.results[:len(m.results)-1]
				return false
			}
		}
		m.mutate(n)
		return true
	})
}

func (m *mutator) mutate(n ast.Node) {
	switch n := n.(type) {
	case *ast.IfStmt:
		m.negate(n.Cond)
	case *ast.ForStmt:
		m.negate(n.Cond)
	case *ast.SwitchStmt:
		m.cases(n)
	case *ast.BinaryExpr:
		m.operator(n.OpPos, n.Op)
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			m.add(n.OpPos, n.OpPos+1, "")
		}
	case *ast.IncDecStmt:
		m.operator(n.TokPos, n.Tok)
		m.add(n.Pos(), n.End(), "")
	case *ast.AssignStmt:
		m.operator(n.TokPos, n.Tok)
		m.dropAssignment(n)
	case *ast.ExprStmt, *ast.DeferStmt, *ast.GoStmt, *ast.SendStmt, *ast.BranchStmt:
		m.add(n.Pos(), n.End(), "")
	case *ast.ReturnStmt:
		m.zeroResults(n)
	case *ast.BasicLit:
		m.number(n)
	case *ast.Ident:
		if other := map[string]string{"true": "false", "false": "true", "min": "max", "max": "min"}[n.Name]; other != "" {
			m.add(n.Pos(), n.End(), other)
		}
	}
}

// negate leaves a plain comparison to operator, which turns it round.
func (m *mutator) negate(cond ast.Expr) {
	if b, ok := cond.(*ast.BinaryExpr); cond == nil || ok && b.Op != token.LAND && b.Op != token.LOR {
		return
	}
	m.add(cond.Pos(), cond.End(), "!("+m.text(cond)+")")
}

// cases negates those of a switch without a value.
func (m *mutator) cases(n *ast.SwitchStmt) {
	if n.Tag != nil {
		return
	}
	for _, c := range n.Body.List {
		for _, cond := range c.(*ast.CaseClause).List {
			m.negate(cond)
		}
	}
}

var operators = map[token.Token][]token.Token{
	token.LSS: {token.LEQ, token.GEQ}, token.LEQ: {token.LSS, token.GTR}, token.GTR: {token.GEQ, token.LEQ}, token.GEQ: {token.GTR, token.LSS},
	token.EQL: {token.NEQ}, token.NEQ: {token.EQL}, token.LAND: {token.LOR}, token.LOR: {token.LAND},
	token.ADD: {token.SUB}, token.SUB: {token.ADD}, token.MUL: {token.QUO}, token.QUO: {token.MUL}, token.REM: {token.MUL},
	token.AND: {token.OR}, token.OR: {token.AND}, token.XOR: {token.AND}, token.AND_NOT: {token.AND}, token.SHL: {token.SHR}, token.SHR: {token.SHL},
	token.ADD_ASSIGN: {token.SUB_ASSIGN}, token.SUB_ASSIGN: {token.ADD_ASSIGN}, token.MUL_ASSIGN: {token.QUO_ASSIGN}, token.QUO_ASSIGN: {token.MUL_ASSIGN},
	token.OR_ASSIGN: {token.AND_ASSIGN}, token.AND_ASSIGN: {token.OR_ASSIGN}, token.AND_NOT_ASSIGN: {token.OR_ASSIGN},
	token.INC: {token.DEC}, token.DEC: {token.INC},
}

func (m *mutator) operator(at token.Pos, op token.Token) {
	for _, other := range operators[op] {
		m.add(at, at+token.Pos(len(op.String())), other.String())
	}
}

// dropAssignment keeps the right side, which may be all that uses a variable or an import.
func (m *mutator) dropAssignment(n *ast.AssignStmt) {
	if n.Tok == token.DEFINE {
		return
	}
	blank := strings.TrimSuffix(strings.Repeat("_, ", len(n.Lhs)), ", ")
	if m.text(n.Lhs[0]) == "_" && !slices.ContainsFunc(n.Lhs, func(e ast.Expr) bool { return m.text(e) != "_" }) {
		return
	}
	m.add(n.Lhs[0].Pos(), n.TokPos+token.Pos(len(n.Tok.String())), blank+" =")
}

// zeroResults returns the zero value instead of each result in turn.
func (m *mutator) zeroResults(n *ast.ReturnStmt) {
	var types []ast.Expr
	if fields := m.results[len(m.results)-1]; fields != nil {
		for _, f := range fields.List {
			for range max(1, len(f.Names)) {
				types = append(types, f.Type)
			}
		}
	}
	if len(n.Results) != len(types) { // none, or a call with several results
		return
	}
	for i, r := range n.Results {
		switch m.text(r) {
		case "nil", "0", "false", `""`, m.text(types[i]) + "{}": // false becomes true elsewhere
		default:
			m.add(r.Pos(), r.End(), "*new("+m.text(types[i])+")")
		}
	}
}

func (m *mutator) number(n *ast.BasicLit) {
	switch n.Kind {
	case token.INT:
		v, err := strconv.ParseInt(n.Value, 0, 64)
		if err != nil {
			return
		}
		m.add(n.Pos(), n.End(), strconv.FormatInt(v+1, 10))
		if v == 1 {
			m.add(n.Pos(), n.End(), "0")
		}
	case token.FLOAT:
		m.add(n.Pos(), n.End(), "("+n.Value+" + 0.01)")
	}
}

func (m *mutator) text(n ast.Node) string {
	return string(m.src[m.offset(n.Pos()):m.offset(n.End())])
}

func (m *mutator) offset(p token.Pos) int { return m.fset.Position(p).Offset }

func (m *mutator) add(from, to token.Pos, with string) {
	at := m.fset.Position(from)
	start, end := at.Offset, m.offset(to)
	change := fmt.Sprintf("`%s` -> `%s`", oneLine(string(m.src[start:end])), oneLine(with))
	if with == "" {
		change = fmt.Sprintf("without `%s`", oneLine(string(m.src[start:end])))
	}
	id := fmt.Sprintf("%s %s: %s", m.file, m.inside, change)
	if line := string(bytes.TrimSpace(m.lines[at.Line-1])); line != oneLine(string(m.src[start:end])) {
		id += fmt.Sprintf(" in `%s`", line)
	}
	if m.seen[id]++; m.seen[id] > 1 {
		id += fmt.Sprintf(" (%d)", m.seen[id])
	}
	m.found = append(m.found, &mutant{File: m.file, ID: id, line: at.Line, start: start, end: end, with: with, together: m.place != nil && from > m.place.Pos()})
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
