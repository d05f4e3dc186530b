package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// goTest runs go test -json on a package with one test file and returns what testreport makes of it.
func goTest(t *testing.T, body string) (shown string, r *report) {
	t.Helper()
	dir := t.TempDir()
	for file, text := range map[string]string{
		"go.mod":    "module sample\n\ngo 1.26\n",
		"a_test.go": "package sample\n\nimport \"testing\"\n" + body,
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-json", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	raw, _ := cmd.Output() // it fails where the test does
	var out bytes.Buffer
	r = newReport(&out)
	if err := r.read(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	return out.String(), r
}

func TestEveryWayATestCanEnd(t *testing.T) {
	for _, c := range []struct {
		name, body              string
		passed, failed, skipped int
		shown                   string
	}{
		{"passes, with a subtest", `func TestA(t *testing.T) { t.Run("sub", func(*testing.T) {}) }`, 2, 0, 0, "ok   sample"},
		{"fails", `func TestA(t *testing.T) { t.Error("two is not three") }`, 0, 1, 0, "two is not three"},
		{"skips", `func TestA(t *testing.T) { t.Skip("no server here") }`, 0, 0, 1, "no server here"},
		{"panics", `func TestA(t *testing.T) { panic("out of cheese") }`, 0, 1, 0, "out of cheese"},
		{"exits", "import \"os\"\nfunc TestA(t *testing.T) { os.Exit(3) }", 0, 1, 0, "FAIL sample"},
		{"does not compile", `func TestA(t *testing.T) { nothing() }`, 0, 1, 0, "undefined: nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			shown, r := goTest(t, c.body)
			passed, failed, skipped := r.counts()
			if passed != c.passed || failed != c.failed || skipped != c.skipped {
				t.Errorf("%d passed, %d failed, %d skipped; want %d, %d, %d", passed, failed, skipped, c.passed, c.failed, c.skipped)
			}
			if !strings.Contains(shown, c.shown) {
				t.Errorf("%q is not in what is shown:\n%s", c.shown, shown)
			}
			if r.ok() != (c.failed == 0) {
				t.Errorf("ok is %v", r.ok())
			}
		})
	}
}

func TestATestThatRanTwiceCountsOnce(t *testing.T) {
	for _, c := range []struct {
		first, second           string
		passed, failed, skipped int
	}{
		{"pass", "pass", 1, 0, 0}, {"skip", "pass", 1, 0, 0}, {"pass", "skip", 1, 0, 0},
		{"skip", "skip", 0, 0, 1}, {"fail", "pass", 0, 1, 0}, {"pass", "fail", 0, 1, 0},
	} {
		r := newReport(new(bytes.Buffer))
		for _, action := range []string{c.first, c.second} {
			if err := r.read(strings.NewReader(`{"Action":"` + action + `","Package":"p","Test":"TestA"}`)); err != nil {
				t.Fatal(err)
			}
		}
		if p, f, s := r.counts(); p != c.passed || f != c.failed || s != c.skipped {
			t.Errorf("%s then %s: %d passed, %d failed, %d skipped", c.first, c.second, p, f, s)
		}
	}
}
