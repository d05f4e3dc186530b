// Mutate asks how much the tests notice: it makes one small change after the other to the code of a package, runs the tests
// on each, and lists the changes that no test noticed.
//
//	mutate [flags] [file.go ...]    in the folder of the package; without files all of them
//
// Changes: conditions negated, comparisons moved by one or turned round, other operators swapped, constants changed,
// statements removed, results replaced by zero values. A change that does not compile is no mutant. All mutants of a file's
// functions are compiled into one program, which is run for each of them; those of other declarations have one each. That is
// done with go test -overlay, so the files themselves are never touched. A mutant meets the tests that run its line, the quick
// ones first; one that hangs counts as noticed.
//
// Results are kept, so an interrupted run goes on where it was: a noticed mutant stays so while its file is unchanged, one
// that survived is tried again as soon as any file of the package has changed. Mutants that cannot be told from the code are
// listed with the reason why, and are left out of the score.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

type options struct {
	files      []string
	kept       string
	cache      string
	equivalent string
	skip       string
	jobs       int
	timeout    time.Duration
	minimum    float64
	fresh      bool
	list       bool
}

func main() {
	var o options
	flag.StringVar(&o.kept, "kept", "bin/mutants.json", "`file` for the results")
	flag.StringVar(&o.cache, "cache", "bin/mutate-cache", "`folder` for a build cache; empty: that of the go command")
	flag.StringVar(&o.equivalent, "equivalent", "tools/mutate/equivalent.txt", "`file` that lists equivalent mutants with the reason")
	flag.StringVar(&o.skip, "skip", "", "leave out the tests that match this `regexp`")
	flag.IntVar(&o.jobs, "jobs", runtime.NumCPU(), "mutants at a time")
	flag.DurationVar(&o.timeout, "timeout", 0, "for the tests of one mutant; 0 is twenty times what they take without one, at least 8s")
	flag.Float64Var(&o.minimum, "min", 0, "exit with status 1 when the score is below so many `percent`")
	flag.BoolVar(&o.fresh, "fresh", false, "forget earlier results")
	flag.BoolVar(&o.list, "list", false, "list the mutants and run nothing")
	flag.Parse()
	o.files = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	score, err := run(ctx, o)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(2)
	case score < o.minimum:
		fmt.Printf("the score is below %.1f%%\n", o.minimum)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (score float64, err error) {
	p, err := loadPackage(o.files)
	if err != nil {
		return 0, err
	}
	if o.list {
		for _, m := range p.mutants {
			fmt.Printf("%s:%d %s\n", m.File, m.line, m.ID)
		}
		return 100, nil
	}
	equivalent, err := readEquivalent(o.equivalent)
	if err != nil {
		return 0, err
	}
	r, err := openResults(o.kept, p, o.fresh)
	if err != nil {
		return 0, err
	}
	defer r.file.Close()
	if err := r.complete(ctx, p, o, equivalent); err != nil {
		return 0, err
	}
	return r.report(os.Stdout, p, equivalent), ctx.Err()
}

// sources are the package's files that can be mutated.
type sources struct {
	name    string            // of the package
	text    map[string][]byte // by base name
	hash    map[string]string
	all     string // hash of every Go file, tests included
	mutants []*mutant
}

func loadPackage(files []string) (*sources, error) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, errors.New("no Go files here")
	}
	p := &sources{text: map[string][]byte{}, hash: map[string]string{}}
	var everything []byte
	for _, name := range names {
		src, mutants, err := mutantsOf(name)
		if err != nil {
			return nil, err
		}
		everything = append(everything, src...)
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		p.text[name], p.hash[name] = src, hash(src)
		p.name = packageName(src)
		if len(files) == 0 || contains(files, name) {
			p.mutants = append(p.mutants, mutants...)
		}
	}
	for _, f := range files {
		if p.text[filepath.Base(f)] == nil {
			return nil, fmt.Errorf("%s is no file of this package", f)
		}
	}
	p.all = hash(everything)
	return p, nil
}

func contains(files []string, name string) bool {
	for _, f := range files {
		if filepath.Base(f) == name {
			return true
		}
	}
	return false
}

func packageName(src []byte) string {
	f, err := parser.ParseFile(token.NewFileSet(), "", src, parser.PackageClauseOnly)
	if err != nil {
		return ""
	}
	return f.Name.Name
}
