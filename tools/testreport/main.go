// Testreport reads the JSON of one or more runs of go test, shows packages as they end, the output of what failed and the
// reason of what was skipped, and counts:
//
//	go test -json ./... | testreport -keep run.json    show one run and keep its JSON
//	testreport -total run.json other.json              one line over all runs: N passed, N failed, N skipped
//
// A test that ran more than once, such as with and without the race detector, counts once: as failed if it ever failed, as
// skipped only if it never ran. Subtests count beside the test they belong to. The exit status is 1 when something failed.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	keep := flag.String("keep", "", "also write the JSON to this `file`")
	total := flag.Bool("total", false, "read the files given as arguments and print the counts only")
	flag.Parse()
	ok, err := run(*keep, *total, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(keep string, total bool, files []string) (ok bool, err error) {
	if total {
		return totals(files)
	}
	in := io.Reader(os.Stdin)
	if keep != "" {
		f, err := os.Create(keep)
		if err != nil {
			return false, err
		}
		defer f.Close()
		in = io.TeeReader(in, f)
	}
	r := newReport(os.Stdout)
	if err := r.read(in); err != nil {
		return false, err
	}
	r.printCounts()
	return r.ok(), nil
}

func totals(files []string) (ok bool, err error) {
	r := newReport(io.Discard)
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return false, err
		}
		err = r.read(f)
		f.Close()
		if err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
	}
	r.out = os.Stdout
	r.printCounts()
	return r.ok(), nil
}
