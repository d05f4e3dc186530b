package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
)

// fate is what became of a mutant.
type fate string

const (
	killed    fate = "killed"    // a test failed
	hung      fate = "hung"      // the tests did not end in time: noticed too
	survived  fate = "survived"  // all tests passed
	uncovered fate = "uncovered" // no test runs the line: survived, without trying
	invalid   fate = "invalid"   // does not compile
)

func (f fate) unnoticed() bool { return f == survived || f == uncovered }

// result is a line of the file of results.
type result struct {
	ID   string
	File string // hash of the file it is in
	All  string // hash of the package and its tests
	Fate fate
}

type results struct {
	file *os.File
	mu   sync.Mutex // guards the file and the map
	last map[string]result
}

func openResults(path string, p *sources, fresh bool) (*results, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	flags := os.O_RDWR | os.O_CREATE | os.O_APPEND
	if fresh {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return nil, err
	}
	r := &results{file: f, last: map[string]result{}}
	known := map[string]string{} // ID to hash of its file now
	for _, m := range p.mutants {
		known[m.ID] = p.hash[m.File]
	}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var one result
		if json.Unmarshal(lines.Bytes(), &one) != nil || known[one.ID] != one.File {
			continue
		}
		if one.Fate.unnoticed() && one.All != p.all {
			delete(r.last, one.ID)
			continue
		}
		r.last[one.ID] = one
	}
	return r, nil
}

func (r *results) add(one result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last[one.ID] = one
	line, _ := json.Marshal(one)
	if _, err := r.file.Write(append(line, '\n')); err != nil {
		fmt.Fprintln(os.Stderr, "mutate: the result is not kept:", err)
	}
}

// complete runs what has no result yet, file by file.
func (r *results) complete(ctx context.Context, p *sources, o options, equivalent map[string]string) error {
	todo := map[string][]*mutant{}
	count := 0
	for _, m := range p.mutants {
		if _, done := r.last[m.ID]; !done && equivalent[m.ID] == "" {
			todo[m.File] = append(todo[m.File], m)
			count++
		}
	}
	fmt.Printf("%d mutants, %d known, %d to run\n", len(p.mutants), len(p.mutants)-count, count)
	if count == 0 {
		return nil
	}
	b, err := newBench(ctx, o, p)
	if err != nil {
		return err
	}
	defer b.close()
	for _, file := range slices.Sorted(maps.Keys(todo)) {
		fmt.Printf("... %s: %d\n", file, len(todo[file]))
		if err := r.completeFile(ctx, b, p, file, todo[file], o.jobs); err != nil {
			return err
		}
	}
	return nil
}

// completeFile runs the mutants of one file: most from one program, those of other declarations each from its own.
func (r *results) completeFile(ctx context.Context, b *bench, p *sources, file string, todo []*mutant, jobs int) error {
	src := p.text[file]
	note := func(m *mutant, f fate) {
		if f.unnoticed() {
			fmt.Printf("%-9s %s:%d %s\n", f, m.File, m.line, m.ID)
		}
		r.add(result{m.ID, p.hash[m.File], p.all, f})
	}
	var together, alone []*mutant
	for _, m := range todo {
		switch {
		case len(b.reaching(m, src)) == 0:
			note(m, uncovered)
		case m.together:
			together = append(together, m)
		default:
			alone = append(alone, m)
		}
	}
	if err := r.tryTogether(ctx, b, file, src, together, jobs, note); err != nil {
		return err
	}
	inParallel(jobs, len(alone), func(i int) { r.tryAlone(ctx, b, alone[i], src, note) })
	return ctx.Err()
}

// tryTogether runs mutants from one program.
func (r *results) tryTogether(ctx context.Context, b *bench, file string, src []byte, mutants []*mutant, jobs int, note func(*mutant, fate)) error {
	prog, variants, bad, err := b.assemble(ctx, file, src, mutants)
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(prog.binary))
	for _, m := range bad {
		note(m, invalid)
	}
	if len(variants) > 0 {
		if err := b.settle(ctx, &prog); err != nil {
			return err
		}
	}
	inParallel(jobs, len(variants), func(i int) {
		tryOne(ctx, b, &prog, variants[i].mutant, variants[i].number, src, note)
	})
	return nil
}

// tryAlone compiles one mutant and runs it.
func (r *results) tryAlone(ctx context.Context, b *bench, m *mutant, src []byte, note func(*mutant, fate)) {
	binary, complaints, err := b.compile(ctx, m.File, m.apply(src))
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutate:", m.ID, err)
	case complaints != "":
		note(m, invalid)
	default:
		defer os.RemoveAll(filepath.Dir(binary))
		tryOne(ctx, b, &program{binary: binary}, m, 0, src, note)
	}
}

// tryOne notes the fate of a mutant. One that could not be tried stays without a result.
func tryOne(ctx context.Context, b *bench, p *program, m *mutant, number int, src []byte, note func(*mutant, fate)) {
	f, err := b.judge(ctx, p, number, b.reaching(m, src))
	switch {
	case ctx.Err() != nil:
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutate:", m.ID, err)
	default:
		note(m, f)
	}
}

// tally counts the mutants of a file, or of all.
type tally struct{ noticed, unnoticed, equivalent int }

func (t *tally) score() float64 {
	if n := t.noticed + t.unnoticed; n > 0 {
		return 100 * float64(t.noticed) / float64(n)
	}
	return 100
}

// report prints every survivor and a line for each file, and returns the score.
func (r *results) report(out io.Writer, p *sources, equivalent map[string]string) float64 {
	byFile := map[string]*tally{}
	var total tally
	fmt.Fprintln(out, "\nsurvivors:")
	for _, m := range p.mutants {
		if byFile[m.File] == nil {
			byFile[m.File] = new(tally)
		}
		one, ran := r.last[m.ID]
		for _, t := range []*tally{byFile[m.File], &total} {
			switch {
			case equivalent[m.ID] != "":
				t.equivalent++
			case !ran || one.Fate == invalid:
			case one.Fate.unnoticed():
				t.unnoticed++
			default:
				t.noticed++
			}
		}
		if ran && one.Fate.unnoticed() && equivalent[m.ID] == "" {
			fmt.Fprintf(out, "  %s:%d %s (%s)\n", m.File, m.line, m.ID, one.Fate)
		}
	}
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "file\tmutants\tnoticed\tsurvived\tequivalent\tscore\t")
	row := func(name string, t *tally) {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%.1f%%\t\n", name, t.noticed+t.unnoticed, t.noticed, t.unnoticed, t.equivalent, t.score())
	}
	for _, name := range slices.Sorted(maps.Keys(byFile)) {
		row(name, byFile[name])
	}
	row("all", &total)
	table.Flush()
	return total.score()
}

// readEquivalent reads the mutants that behave like the code: lines with their IDs, then indented lines that say why.
func readEquivalent(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	reasons := map[string]string{}
	var ids []string // that share the reason being read
	reason := false  // the line before was one
	for line := range strings.Lines(string(text)) {
		switch trimmed := strings.TrimSpace(line); {
		case trimmed == "" || line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			for _, id := range ids {
				reasons[id] += trimmed + " "
			}
			reason = true
		default:
			if reason {
				ids, reason = nil, false
			}
			ids = append(ids, trimmed)
		}
	}
	if len(ids) > 0 && !reason {
		return nil, fmt.Errorf("%s: no reason for %s", path, strings.Join(ids, ", "))
	}
	return reasons, nil
}

func hash(text []byte) string {
	sum := sha256.Sum256(bytes.TrimSpace(text))
	return hex.EncodeToString(sum[:8])
}
