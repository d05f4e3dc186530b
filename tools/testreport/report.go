package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// event is a line of go test -json; see go doc test2json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output and build-fail
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// name identifies a test, or with an empty test a package.
type name struct{ pkg, test string }

type report struct {
	out    io.Writer
	output map[name]*strings.Builder // of what has not ended yet
	result map[name]string           // "pass", "fail" or "skip", over all runs
	broken map[string]bool           // packages that failed without a failing test: build errors, exits, timeouts
	failed map[string]bool           // packages with a failing test in the run being read
}

func newReport(out io.Writer) *report {
	return &report{
		out: out, output: map[name]*strings.Builder{}, result: map[name]string{}, broken: map[string]bool{}, failed: map[string]bool{},
	}
}

// read takes in one run. Lines that are no JSON, such as those of the go command itself, are shown.
func (r *report) read(in io.Reader) error {
	clear(r.output)
	clear(r.failed)
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) line(line []byte) {
	var e event
	if line[0] != '{' || json.Unmarshal(line, &e) != nil {
		fmt.Fprintf(r.out, "%s", line)
		return
	}
	at := name{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		if r.output[at] == nil {
			r.output[at] = new(strings.Builder)
		}
		r.output[at].WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.packageEnded(e)
		} else {
			r.testEnded(at, e.Action)
		}
		delete(r.output, at)
	}
}

func (r *report) testEnded(at name, action string) {
	switch old := r.result[at]; {
	case old == "fail", old == "pass" && action == "skip":
	default:
		r.result[at] = action
	}
	switch action {
	case "fail":
		r.failed[at.pkg] = true
		fmt.Fprintf(r.out, "FAIL %s %s\n%s", at.pkg, at.test, indent(r.text(at)))
	case "skip":
		fmt.Fprintf(r.out, "skip %s %s\n%s", at.pkg, at.test, indent(skipReason(r.text(at))))
	}
}

func (r *report) packageEnded(e event) {
	at := name{pkg: e.Package}
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.out, "ok   %s  %.1fs\n", e.Package, e.Elapsed)
	case "fail":
		fmt.Fprintf(r.out, "FAIL %s  %.1fs\n", e.Package, e.Elapsed)
		if !r.failed[e.Package] {
			fmt.Fprint(r.out, indent(r.text(at)))
			r.broken[e.Package] = !r.unfinished(e.Package)
		}
	}
}

// unfinished fails the tests that had begun when their package died, and reports whether there were any.
func (r *report) unfinished(pkg string) (found bool) {
	for at, text := range r.output {
		if at.pkg == pkg && at.test != "" {
			r.result[at], found = "fail", true
			fmt.Fprintf(r.out, "FAIL %s %s (did not end)\n%s", at.pkg, at.test, indent(text.String()))
		}
	}
	return found
}

func (r *report) text(at name) string {
	if b := r.output[at]; b != nil {
		return b.String()
	}
	return ""
}

func (r *report) counts() (passed, failed, skipped int) {
	for _, result := range r.result {
		switch result {
		case "pass":
			passed++
		case "fail":
			failed++
		case "skip":
			skipped++
		}
	}
	for _, broken := range r.broken {
		if broken {
			failed++
		}
	}
	return passed, failed, skipped
}

func (r *report) printCounts() {
	passed, failed, skipped := r.counts()
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
}

func (r *report) ok() bool {
	_, failed, _ := r.counts()
	return failed == 0
}

// skipReason drops the frame that go test puts around the words of a test.
func skipReason(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if s := strings.TrimSpace(line); !strings.HasPrefix(s, "=== ") && !strings.HasPrefix(s, "--- ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "     " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n     ") + "\n"
}
