package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// bench compiles mutants and runs the tests on them.
type bench struct {
	dir     string // of the package
	name    string // of the package
	scratch string
	cache   string    // a build cache of its own, since each mutant leaves megabytes in it; empty for that of the go command
	begun   time.Time // what is newer in the cache is of mutants
	timeout time.Duration
	tests   []test  // the quickest first
	blocks  []block // of all files

	mu    sync.Mutex     // guards the field below
	sharp map[string]int // how many mutants a test has noticed
}

// test is a test of the package, by itself.
type test struct {
	name string
	took time.Duration
	runs map[block]bool // the code that it runs
}

// block is a stretch of code that runs as one, by line and column.
type block struct {
	file               string
	fromLine, fromCol  int
	untilLine, untilCo int
}

// newBench runs each test by itself, without any change: it must pass, and shows what it runs and how long it takes.
func newBench(ctx context.Context, o options, p *sources) (*bench, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir, name: p.name, scratch: scratch, begun: time.Now(), timeout: o.timeout, sharp: map[string]int{}}
	if o.cache != "" {
		if b.cache, err = filepath.Abs(o.cache); err != nil {
			return nil, err
		}
	}
	if err := b.survey(ctx, o); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) survey(ctx context.Context, o options) error {
	binary := filepath.Join(b.scratch, "cover.test")
	if out, err := b.command(ctx, "go", "test", "-c", "-vet=off", "-cover", "-o", binary, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	list, err := b.command(ctx, binary, "-test.list", "^(Test|Example|Fuzz)").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, list)
	}
	skip, err := regexp.Compile(o.skip)
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(list)) {
		if o.skip == "" || !skip.MatchString(name) {
			b.tests = append(b.tests, test{name: name})
		}
	}
	failed := make([]error, len(b.tests))
	inParallel(o.jobs, len(b.tests), func(i int) { failed[i] = b.observe(ctx, binary, i) })
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("the tests fail without any change: %w", err)
	}
	slices.SortStableFunc(b.tests, func(a, b test) int { return cmp.Compare(a.took, b.took) })
	last := b.tests[len(b.tests)-1]
	fmt.Printf("%d tests, the longest is %s: %v\n", len(b.tests), last.name, last.took.Round(time.Millisecond))
	b.begun = time.Now()
	return nil
}

// observe runs one test and notes what it covers. How long the program takes to start is of no interest.
func (b *bench) observe(ctx context.Context, binary string, i int) error {
	t := &b.tests[i]
	profile := filepath.Join(b.scratch, t.name+".cover")
	out, err := b.limited(ctx, binary, 10*time.Minute, "-test.v", "-test.run", "^"+t.name+"$", "-test.coverprofile", profile).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", t.name, err, out)
	}
	if m := passed.FindSubmatch(out); m != nil {
		if t.took, err = time.ParseDuration(string(m[1]) + "s"); err != nil {
			return err
		}
	}
	blocks, counts, err := readProfile(profile)
	if err != nil {
		return err
	}
	t.runs = map[block]bool{}
	for j, c := range blocks {
		if counts[j] > 0 {
			t.runs[c] = true
		}
	}
	if i == 0 {
		b.blocks = blocks
	}
	return os.Remove(profile)
}

var passed = regexp.MustCompile(`(?m)^--- PASS: \w+ \(([0-9.]+)s\)$`)

// inParallel calls f with 0 to n-1, so many at a time.
func inParallel(jobs, n int, f func(i int)) {
	queue := make(chan int)
	var workers sync.WaitGroup
	for range jobs {
		workers.Go(func() {
			for i := range queue {
				f(i)
			}
		})
	}
	for i := range n {
		queue <- i
	}
	close(queue)
	workers.Wait()
}

// close removes the mutants and what they left in the cache; the dependencies stay there for the next run.
func (b *bench) close() {
	os.RemoveAll(b.scratch)
	if b.cache == "" {
		return
	}
	_ = filepath.WalkDir(b.cache, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			if info, err := entry.Info(); err == nil && info.ModTime().After(b.begun) {
				os.Remove(path)
			}
		}
		return nil // what cannot be removed stays
	})
}

func (b *bench) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = b.dir
	if b.cache != "" {
		cmd.Env = append(os.Environ(), "GOCACHE="+b.cache)
	}
	return cmd
}

// limited runs a test binary with bounded memory: a mutant may allocate for ever.
func (b *bench) limited(ctx context.Context, binary string, timeout time.Duration, args ...string) *exec.Cmd {
	args = append([]string{"-c", `ulimit -v 8000000; exec "$0" "$@"`, binary, "-test.short", "-test.failfast", "-test.timeout", timeout.String()}, args...)
	cmd := b.command(ctx, "sh", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// program is a compiled test binary that holds one mutant, or many to choose from.
type program struct {
	binary string
	flaky  map[string]bool // tests that fail in it without any change, such as those that count allocations
}

// compile builds the tests with one file of the package replaced. What the compiler says against the package is returned.
func (b *bench) compile(ctx context.Context, file string, text []byte) (binary, complaints string, err error) {
	dir, err := os.MkdirTemp(b.scratch, "m-")
	if err != nil {
		return "", "", err
	}
	changed, added, overlay := filepath.Join(dir, file), filepath.Join(dir, "chooser.go"), filepath.Join(dir, "overlay.json")
	binary = filepath.Join(dir, "m.test")
	replace, _ := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(b.dir, file): changed, filepath.Join(b.dir, "mutant__chooser.go"): added,
	}})
	for name, text := range map[string][]byte{changed: text, added: chooser(b.name), overlay: replace} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return "", "", err
		}
	}
	out, err := b.command(ctx, "go", "test", "-c", "-vet=off", "-gcflags=-e", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, ".").CombinedOutput()
	switch {
	case err == nil:
		return binary, "", nil
	case compilers.Match(out):
		return "", string(out), nil
	}
	return "", "", fmt.Errorf("%w\n%s", err, out)
}

// compilers is what the compiler complains of, which may be in another file than the changed one.
var compilers = regexp.MustCompile(`(?m)^\S+\.go:\d+:`)

// assemble compiles all mutants of the bodies of a file's functions into one program, and sorts out those that do not compile.
func (b *bench) assemble(ctx context.Context, file string, src []byte, mutants []*mutant) (p program, valid []*variant, bad []*mutant, err error) {
	for i, m := range mutants {
		valid = append(valid, &variant{mutant: m, number: i + 1})
	}
	place := regexp.MustCompile(regexp.QuoteMeta(file) + `:(\d+):`)
	for len(valid) > 0 {
		text, err := within(src, valid)
		if err != nil {
			return p, nil, nil, err
		}
		binary, complaints, err := b.compile(ctx, file, text)
		if err != nil {
			return p, nil, nil, err
		}
		if complaints == "" {
			p.binary = binary
			break
		}
		before := len(valid)
		for _, m := range place.FindAllStringSubmatch(complaints, -1) {
			line, _ := strconv.Atoi(m[1])
			valid = slices.DeleteFunc(valid, func(v *variant) bool {
				hit := v.first <= line && line <= v.last
				if hit {
					bad = append(bad, v.mutant)
				}
				return hit
			})
		}
		if len(valid) == before {
			return p, nil, nil, fmt.Errorf("%s does not compile with variants of its functions:\n%s", file, complaints)
		}
	}
	return p, valid, bad, nil
}

// settle finds the tests that fail in a program whatever the mutant.
func (b *bench) settle(ctx context.Context, p *program) error {
	p.flaky = map[string]bool{}
	for {
		out, err := b.limited(ctx, p.binary, 10*time.Minute, "-test.run", b.only(b.tests, p)).CombinedOutput()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		m := failing.FindSubmatch(out)
		if m == nil || p.flaky[string(m[1])] {
			return fmt.Errorf("the tests fail without any change: %w\n%s", err, out)
		}
		fmt.Printf("          left out for this file, since it fails with the variants beside: %s\n", m[1])
		p.flaky[string(m[1])] = true
	}
}

var failing = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)

func (b *bench) only(tests []test, p *program) string {
	var names []string
	for _, t := range tests {
		if !p.flaky[t.name] {
			names = append(names, t.name)
		}
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

// stages divide the tests by how long they take: what slow ones could notice, quick ones have mostly noticed before.
var stages = []time.Duration{20 * time.Millisecond, 300 * time.Millisecond, time.Hour}

// judge runs the tests that reach a mutant on it: those that have noticed most others, then the rest, the quick ones first.
func (b *bench) judge(ctx context.Context, p *program, number int, tests []test) (fate, error) {
	first := b.sharpest(tests)
	if f, err := b.runOn(ctx, p, number, first); f != survived || err != nil {
		return f, err
	}
	tests = slices.DeleteFunc(slices.Clone(tests), func(t test) bool {
		return slices.ContainsFunc(first, func(other test) bool { return other.name == t.name })
	})
	for _, longest := range stages {
		n := 0
		for n < len(tests) && tests[n].took < longest {
			n++
		}
		if f, err := b.runOn(ctx, p, number, tests[:n]); f != survived || err != nil {
			return f, err
		}
		tests = tests[n:]
	}
	return survived, nil
}

// maxSharp is how many tests come before all others.
const maxSharp = 12

// sharpest returns the tests that have noticed most, without the slow ones.
func (b *bench) sharpest(tests []test) []test {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := slices.DeleteFunc(slices.Clone(tests), func(t test) bool { return b.sharp[t.name] == 0 || t.took > 500*time.Millisecond })
	slices.SortStableFunc(first, func(t, other test) int { return cmp.Compare(b.sharp[other.name], b.sharp[t.name]) })
	return first[:min(len(first), maxSharp)]
}

func (b *bench) runOn(ctx context.Context, p *program, number int, tests []test) (fate, error) {
	if len(tests) == 0 {
		return survived, nil
	}
	timeout := b.timeout
	if timeout == 0 {
		var sum time.Duration
		for _, t := range tests {
			sum += t.took
		}
		timeout = max(8*time.Second, 20*sum)
	}
	limited, cancel := context.WithTimeout(ctx, timeout+5*time.Second) // the binary's own limit does not hold while it never yields
	defer cancel()
	cmd := b.limited(limited, p.binary, timeout, "-test.run", b.only(tests, p))
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("%s=%d", selector, number))
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err == nil:
		return survived, nil
	case limited.Err() != nil || strings.Contains(string(out), "panic: test timed out"):
		return hung, nil
	}
	if m := failing.FindSubmatch(out); m != nil {
		b.mu.Lock()
		b.sharp[string(m[1])]++
		b.mu.Unlock()
	}
	return killed, nil
}

// reaching returns the tests that run a mutant. Code outside functions is in no block: everything may depend on it.
func (b *bench) reaching(m *mutant, src []byte) []test {
	col := m.start - strings.LastIndex(string(src[:m.start]), "\n")
	var around []block
	for _, c := range b.blocks {
		before := m.line < c.fromLine || m.line == c.fromLine && col < c.fromCol
		after := m.line > c.untilLine || m.line == c.untilLine && col >= c.untilCo
		if c.file == m.File && !before && !after {
			around = append(around, c)
		}
	}
	if len(around) == 0 {
		return b.tests
	}
	var reach []test
	for _, t := range b.tests {
		if slices.ContainsFunc(around, func(c block) bool { return t.runs[c] }) {
			reach = append(reach, t)
		}
	}
	return reach
}

func readProfile(path string) (blocks []block, counts []int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, found := strings.Cut(lines.Text(), ".go:")
		if !found {
			continue
		}
		c := block{file: filepath.Base(name) + ".go"}
		var statements, count int
		if _, err := fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &c.fromLine, &c.fromCol, &c.untilLine, &c.untilCo, &statements, &count); err != nil {
			return nil, nil, fmt.Errorf("%s: %q: %w", path, lines.Text(), err)
		}
		blocks, counts = append(blocks, c), append(counts, count)
	}
	return blocks, counts, nil
}
