// Speed turns what the benchmarks of bench/speed printed, in any number of rounds, into tables:
//
//	speed -readme README.md -doc docs/speed.md bench.txt
//
// It replaces what stands between the markers `<!-- speed:begin -->` and `<!-- speed:end -->` in both files, and between those
// of targets in the second. Figures are medians; a measurement with the unit disturbed does not count. It judges nothing: a target
// that is missed is written down as missed. With -lacking it only prints which benchmarks were measured less often than that. With
// -scale it puts what bench/scale printed between the second file's markers of that name instead.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	readme := flag.String("readme", "README.md", "write the short table into this `file`")
	doc := flag.String("doc", "docs/speed.md", "write the targets and all figures into this `file`")
	scale := flag.String("scale", "", "write only this `file` into -doc")
	lacking := flag.Int("lacking", 0, "print a pattern of the benchmarks that have less than so many results, and do nothing else")
	flag.Parse()
	var err error
	switch {
	case *scale != "":
		err = runScale(*doc, *scale)
	case *lacking > 0:
		err = runLacking(*lacking, flag.Args())
	default:
		err = run(*readme, *doc, flag.Args())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "speed:", err)
		os.Exit(1)
	}
}

func run(readme, doc string, files []string) error {
	r, err := read(files)
	if err != nil {
		return err
	}
	fmt.Print(targetTable(r))
	if err := replace(readme, "speed", r.header()+shortTable(r)); err != nil {
		return err
	}
	if err := replace(doc, "targets", r.header()+targetTable(r)); err != nil {
		return err
	}
	return replace(doc, "speed", r.header()+fullTables(r))
}

func runLacking(n int, files []string) error {
	r, err := read(files)
	if err == nil {
		fmt.Println(r.lacking(n))
	}
	return err
}

func runScale(doc, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return replace(doc, "scale", string(text))
}

// replace puts text between two markers of a file.
func replace(file, marker, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	changed, err := splice(string(old), marker, text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(changed), 0o644)
}

func splice(old, marker, text string) (string, error) {
	begin, end := "<!-- "+marker+":begin -->\n", "<!-- "+marker+":end -->"
	before, rest, found := strings.Cut(old, begin)
	if !found {
		return "", fmt.Errorf("no line %s", strings.TrimSpace(begin))
	}
	_, after, found := strings.Cut(rest, end)
	if !found {
		return "", fmt.Errorf("no %s after %s", end, strings.TrimSpace(begin))
	}
	return before + begin + text + end + after, nil
}
