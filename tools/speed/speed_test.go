package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample is what two rounds of three benchmarks print, the second on a machine that was busy.
const sample = `goversion: go1.26.8
commit: abc1234
command: make bench
load: 0.25
goos: linux
cpu: Some CPU @ 2.50GHz
BenchmarkMemory/of=window-2	1	659983343 ns/op	2.097 bits/call
BenchmarkCall/case=closed/lib=breaker/rule=slow/goroutines=16-2	100	50.00 ns/op	0 B/op	0 allocs/op
BenchmarkCall/case=closed/lib=gobreaker/rule=consecutive/goroutines=16-2	100	800.0 ns/op	0 B/op	0 allocs/op
BenchmarkFloor/of=two-clock-reads/goroutines=16-2	100	40.00 ns/op
BenchmarkOwn/of=Execute/goroutines=1-2	100	4.600 ns/op	1 allocs/op
PASS
goos: linux
BenchmarkCall/case=closed/lib=breaker/rule=slow/goroutines=16-2	100	70.00 ns/op	0 B/op	0 allocs/op
BenchmarkCall/case=closed/lib=gobreaker/rule=consecutive/goroutines=16-2	100	1000 ns/op	0 B/op	0 allocs/op
BenchmarkFloor/of=two-clock-reads/goroutines=16-2	100	60.00 ns/op
`

func parse(t *testing.T, text string) *results {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bench.txt")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := read([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMediansAreOverTheRounds(t *testing.T) {
	for values, want := range map[string]float64{"70": 70, "70 50": 60, "50 9000 70": 70, "1 2 3 900": 2.5} {
		var text strings.Builder
		for v := range strings.FieldsSeq(values) {
			fmt.Fprintf(&text, "BenchmarkX 1 %s ns/op\n", v)
		}
		if got, _ := parse(t, text.String()).median("X", perCall); math.Abs(got*1e9-want) > 1e-6 {
			t.Errorf("the median of %s is %g, want %g", values, got*1e9, want)
		}
	}
}

func TestHeaderSaysWhereFiguresComeFrom(t *testing.T) {
	want := "Some CPU @ 2.50GHz, 2 cores, load average 0.25 when it began; go1.26.8; commit abc1234; `make bench`, medians of at least 1 measurements.\n\n"
	if got := parse(t, sample).header(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTargetTable(t *testing.T) {
	got := targetTable(parse(t, sample))
	for _, want := range []string{
		"| closed success, slow rule on, 16 goroutines | two clock reads | 1.5 | 1.20 | met |\n",
		"| the same, 16 goroutines | gobreaker | 0.1 | 0.07 | met |\n",
		"| the same, 2 goroutines | gobreaker | 0.3 | not measured |  |\n",
		"| bits per call, window of a million calls |  | 3 | 2.097 | met |\n",
		"| allocations of `Execute` |  | 0 | 1 | **missed** |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	slower := strings.ReplaceAll(sample, "50.00 ns/op", "100.00 ns/op")
	if got := targetTable(parse(t, slower)); !strings.Contains(got, "| two clock reads | 1.5 | 1.70 | **missed** |\n") {
		t.Errorf("a missed target is not written down:\n%s", got)
	}
}

func TestTables(t *testing.T) {
	r := parse(t, sample)
	short, full := shortTable(r), fullTables(r)
	for _, c := range []struct{ table, want string }{
		{short, "| slow and failure rate, last 100 calls | **breaker** | – | – | 60 ns | – | – | – | – | – |\n"},
		{short, "| failures in a row | gobreaker | – | – | 900 ns | – | – | – | – | – |\n"},
		{short, "| – | *two reads* | – | – | 50 ns | – | – | – | – | – |\n"},
		{full, "### Opening at: failures in a row\n\n| case | goroutines | gobreaker |\n|---|---|---|\n| closed | 1 | – |\n| closed | 16 | 900 ns |\n"},
		{full, "| Execute | 4.6 ns | – |\n"},
	} {
		if !strings.Contains(c.table, c.want) {
			t.Errorf("no %q in\n%s", c.want, c.table)
		}
	}
	for line := range strings.Lines(short) {
		if n := strings.Count(line, "|"); n != 11 {
			t.Errorf("%d cells in %q", n-1, line)
		}
	}
}

func TestRatiosAreToTheFirstLibraryOfATable(t *testing.T) {
	both := strings.ReplaceAll(sample, "consecutive", "slow")
	if got, want := fullTables(parse(t, both)), "| closed | 16 | 60 ns | 900 ns, × 15.00 |\n"; !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
}

func TestInputThatIsNoBenchmark(t *testing.T) {
	for _, text := range []string{"", "PASS\n", "BenchmarkX 1 many ns/op\n"} {
		file := filepath.Join(t.TempDir(), "bench.txt")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := read([]string{file}); err == nil {
			t.Errorf("no error for %q", text)
		}
	}
}

func TestSplice(t *testing.T) {
	const file = "before\n<!-- x:begin -->\nold\n<!-- x:end -->\nafter <!-- y:begin -->\n"
	got, err := splice(file, "x", "new\n")
	if want := strings.Replace(file, "old", "new", 1); err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	for _, marker := range []string{"y", "z"} {
		if _, err := splice(file, marker, ""); err == nil || !strings.Contains(err.Error(), marker) {
			t.Errorf("marker %s: %v", marker, err)
		}
	}
}

// TestRunWritesBothFiles with everything around the tables left as it was.
func TestRunWritesBothFiles(t *testing.T) {
	dir := t.TempDir()
	readme, doc, in := filepath.Join(dir, "R.md"), filepath.Join(dir, "D.md"), filepath.Join(dir, "b.txt")
	for file, text := range map[string]string{
		readme: "intro\n<!-- speed:begin -->\n<!-- speed:end -->\n",
		doc:    "<!-- targets:begin -->\n<!-- targets:end -->\nmore\n<!-- speed:begin -->\n<!-- speed:end -->\n",
		in:     sample,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(readme, doc, []string{in}); err != nil {
		t.Fatal(err)
	}
	for file, wants := range map[string][]string{readme: {"intro\n", "| library |", "60 ns"}, doc: {"| at most |", "\nmore\n", "### Opening at"}} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(text), want) {
				t.Errorf("no %q in %s", want, text)
			}
		}
	}
}

func TestScaleGoesIntoItsPlace(t *testing.T) {
	dir := t.TempDir()
	doc, in := filepath.Join(dir, "D.md"), filepath.Join(dir, "scale.md")
	for file, text := range map[string]string{doc: "a\n<!-- scale:begin -->\nold\n<!-- scale:end -->\nb\n", in: "new\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := runScale(doc, in); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(doc); string(text) != "a\n<!-- scale:begin -->\nnew\n<!-- scale:end -->\nb\n" {
		t.Errorf("got %s", text)
	}
}

func TestWhatWasDisturbedDoesNotCountAndIsLacking(t *testing.T) {
	r := parse(t, `goos: linux
BenchmarkFloor/of=clock-read/goroutines=2-2	100	20.00 ns/op
BenchmarkFloor/of=clock-read/goroutines=2-2	100	90.00 ns/op	1.000 disturbed
BenchmarkCall/case=closed-1%/lib=a.b-2	100	90.00 ns/op	1.000 disturbed
`)
	if got, _ := r.median("Floor/of=clock-read/goroutines=2", perCall); math.Abs(got*1e9-20) > 1e-6 {
		t.Errorf("the median is %g, want 20", got*1e9)
	}
	if r.least() != 0 {
		t.Errorf("measured at least %d times, want 0", r.least())
	}
	for n, want := range []string{
		"",
		`^BenchmarkCall$/^case=closed-1%$/^lib=a\.b$`,
		`^BenchmarkFloor$/^of=clock-read$/^goroutines=2$|^BenchmarkCall$/^case=closed-1%$/^lib=a\.b$`,
	} {
		if got := r.lacking(n); got != want {
			t.Errorf("fewer than %d: %q, want %q", n, got, want)
		}
	}
}
