package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func writeFiles(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEachKindOfChange(t *testing.T) {
	for _, c := range []struct {
		code string
		want []string // the line after each change
	}{
		{"if a { f() }", []string{"if !(a) { f() }", "if a {  }"}},
		{"if n < 3 {}", []string{"if n <= 3 {}", "if n >= 3 {}", "if n < 4 {}"}},
		{"ok = a && !ok", []string{"_ = a && !ok", "ok = a || !ok", "ok = a && ok"}},
		{"n += 1", []string{"_ = 1", "n -= 1", "n += 2", "n += 0"}},
		{"n++", []string{"n--", ""}},
		{"x, y := f(), n*2", []string{"x, y := f(), n/2", "x, y := f(), n*3"}},
		{"_, _ = g(), g()", nil},
		{"return int{}, nil", nil}, // the zero value as it is
		{"x, y = f(), 7", []string{"_, _ = f(), 7", "x, y = f(), 8"}},
		{"defer f()", []string{""}},
		{"for { break }", []string{"for {  }"}},
		{"switch { case a: f() }", []string{"switch { case !(a): f() }", "switch { case a:  }"}},
		{"return n, nil", []string{"return *new(int), nil"}},
		{"return g()", nil}, // one call for both results
		{"g := func() string { return s }", []string{"g := func() string { return *new(string) }"}},
		{"return max(n, 0), err", []string{"return *new(int), err", "return min(n, 0), err", "return max(n, 1), err", "return max(n, 0), *new(error)"}},
	} {
		writeFiles(t, map[string]string{"a.go": "package a\n\nfunc a() (int, error) {\n\t" + c.code + "\n}\n"})
		src, found, err := mutantsOf("a.go")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range found {
			got = append(got, strings.TrimSpace(strings.Split(string(m.apply(src)), "\n")[3]))
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s becomes\n%q, want\n%q", c.code, got, c.want)
		}
	}
}

func TestIDsAreUniqueAndSurviveAMove(t *testing.T) {
	ids := func(text string) (ids []string) {
		writeFiles(t, map[string]string{"a.go": text})
		_, found, err := mutantsOf("a.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range found {
			ids = append(ids, m.ID)
		}
		return ids
	}
	here := ids("package a\n\nfunc f(n int) int { return n + n + 1 + 1 }\n")
	there := ids("package a\n\n// Moved.\n\nvar x = 1\n\nfunc f(n int) int { return n + n + 1 + 1 }\n")[2:]
	if !slices.Equal(here, there) {
		t.Errorf("\n%q\n%q", here, there)
	}
	if sorted := slices.Sorted(slices.Values(here)); len(slices.Compact(sorted)) != len(here) {
		t.Errorf("%q", here)
	}
}

const sample = `package sample

func Sign(n int) int {
	if n > 0 {
		return 1
	}
	for n == 7 {
	}
	return -1
}

func Unused() int { return 3 }

const kind = 1
`

const sampleNames = `package sample

const none = iota

var names = [...]string{none: "none", kind: "kind"}
`

const sampleTest = `package sample

import "testing"

func TestSign(t *testing.T) {
	if Sign(5) != 1 || Sign(-5) != -1 {
		t.Error()
	}
}
`

func TestAWholeRun(t *testing.T) {
	writeFiles(t, map[string]string{
		"go.mod": "module sample\n\ngo 1.26\n", "a.go": sample, "a_test.go": sampleTest, "names.go": sampleNames,
		"equivalent.txt": "# why\na.go Sign: `0` -> `1` in `if n > 0 {`\n\tsays the test of a test\n",
	})
	t.Setenv("GOWORK", "off")
	o := options{kept: "kept/mutants.json", equivalent: "equivalent.txt", jobs: 2, timeout: 2 * time.Second}
	score, err := run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := loadPackage(nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := openResults(o.kept, p, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.file.Close()
	want := map[string]fate{
		"a.go Sign: `>` -> `>=` in `if n > 0 {`":                      survived, // no test asks for 0
		"a.go Sign: `>` -> `<=` in `if n > 0 {`":                      killed,
		"a.go Sign: `1` -> `2` in `return 1`":                         killed,
		"a.go Sign: `==` -> `!=` in `for n == 7 {`":                   hung,
		"a.go Sign: `-1` -> `*new(int)` in `return -1`":               killed,
		"a.go Unused: `3` -> `4` in `func Unused() int { return 3 }`": uncovered,
		"a.go package: `1` -> `0` in `const kind = 1`":                invalid, // two names at one place, in the other file
	}
	for id, f := range want {
		if got := r.last[id].Fate; got != f {
			t.Errorf("%s: %s, want %s", id, got, f)
		}
	}
	if score <= 50 || score >= 100 {
		t.Errorf("score %v", score)
	}
	if len(r.last) != len(p.mutants)-1 {
		t.Errorf("%d results for %d mutants, one of them equivalent", len(r.last), len(p.mutants))
	}

	// With another test the survivors are tried again, what was killed is not.
	if err := os.WriteFile("b_test.go", []byte("package sample\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err = loadPackage(nil); err != nil {
		t.Fatal(err)
	}
	again, err := openResults(o.kept, p, false)
	if err != nil {
		t.Fatal(err)
	}
	defer again.file.Close()
	for id, f := range want {
		if _, known := again.last[id]; known == f.unnoticed() {
			t.Errorf("%s, which was %s: known is %v", id, f, known)
		}
	}
}

func TestTestsThatFailAnywayAreAnError(t *testing.T) {
	writeFiles(t, map[string]string{
		"go.mod": "module sample\n\ngo 1.26\n", "a.go": sample,
		"a_test.go": "package sample\n\nimport \"testing\"\n\nfunc TestSign(t *testing.T) { t.Error(\"always\") }\n",
	})
	t.Setenv("GOWORK", "off")
	if _, err := run(t.Context(), options{kept: "mutants.json", jobs: 1}); err == nil || !strings.Contains(err.Error(), "always") {
		t.Errorf("%v", err)
	}
}

func TestEquivalentMutantsNeedAReason(t *testing.T) {
	path := filepath.Join(t.TempDir(), "equivalent.txt")
	read := func(text string) (map[string]string, error) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return readEquivalent(path)
	}
	got, err := read("# why\na.go f: x\na.go g: y\n\tbecause\n\tof this\n\na.go h: z\n\tsince\n")
	if want := map[string]string{"a.go f: x": "because of this ", "a.go g: y": "because of this ", "a.go h: z": "since "}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%q %v", got, err)
	}
	if _, err := read("a.go f: x\n\tbecause\na.go g: y\n"); err == nil || !strings.Contains(err.Error(), "a.go g") {
		t.Errorf("%v", err)
	}
}

// shapes are the forms that a function's head can have, and a variable that begins as a literal; each holds a mutant that its
// test notices.
const shapes = `package shapes

type pair[A, B any] struct {
	first  A
	second B
}

func (pair[_, _]) size() int { return 2 }

func (p *pair[A, _]) swap(a A) (old A) {
	old, p.first = p.first, a
	return
}

func sum[T ~int](start T, rest ...T) T {
next:
	for _, r := range rest {
		if r < 0 {
			continue next
		}
		start += r
	}
	return start
}

func second(_ int, n int) (int, error) { return n + 1, nil }

func third(int, string, bool) int { return 3 }

var log []string

func note(s string) { log = append(log, s) }

func bad(n int) int {
	m := n
	m = 4
	return m
}

var (
	sizes = map[string]int{"small": 7, "large": len(names)}
	names = [...]string{2: "huge"}
)
`

const shapesTest = `package shapes

import "testing"

func TestShapes(t *testing.T) {
	p := &pair[int, string]{first: 1}
	if p.size() != 2 || p.swap(5) != 1 || p.first != 5 {
		t.Error(p)
	}
	if n := sum(1, 2, -3, 4); n != 7 {
		t.Error(n)
	}
	if n, err := second(9, 1); n != 2 || err != nil {
		t.Error(n, err)
	}
	if third(0, "", false) != 3 || bad(1) != 4 {
		t.Error()
	}
	if note("x"); len(log) != 1 {
		t.Error(log)
	}
	if sizes["small"] != 7 || sizes["large"] != 3 {
		t.Error(sizes)
	}
}
`

func TestFunctionsOfEveryShapeHaveVariants(t *testing.T) {
	writeFiles(t, map[string]string{"go.mod": "module shapes\n\ngo 1.26\n", "a.go": shapes, "a_test.go": shapesTest})
	t.Setenv("GOWORK", "off")
	o := options{kept: "mutants.json", jobs: 2, timeout: 2 * time.Second}
	if _, err := run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	p, err := loadPackage(nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := openResults(o.kept, p, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.file.Close()
	want := map[string]fate{
		"a.go size: `2` -> `3` in `func (pair[_, _]) size() int { return 2 }`":                      killed,
		"a.go swap: `old, p.first =` -> `_, _ =` in `old, p.first = p.first, a`":                    killed,
		"a.go sum: `start +=` -> `_ =` in `start += r`":                                             killed,
		"a.go sum: without `continue next`":                                                         invalid, // the label has no use
		"a.go second: `+` -> `-` in `func second(_ int, n int) (int, error) { return n + 1, nil }`": killed,
		"a.go third: `3` -> `4` in `func third(int, string, bool) int { return 3 }`":                killed,
		"a.go note: `log =` -> `_ =` in `func note(s string) { log = append(log, s) }`":             killed,
		"a.go bad: `m =` -> `_ =` in `m = 4`":                                                       killed,
		"a.go package: `7` -> `8` in `sizes = map[string]int{\"small\": 7, \"large\": len(names)}`": killed,
		"a.go package: `2` -> `3` in `names = [...]string{2: \"huge\"}`":                            killed,
	}
	for id, f := range want {
		if got := r.last[id].Fate; got != f {
			t.Errorf("%s: %q, want %s", id, got, f)
		}
	}
	if len(r.last) != len(p.mutants) {
		t.Errorf("%d results for %d mutants", len(r.last), len(p.mutants))
	}
}
