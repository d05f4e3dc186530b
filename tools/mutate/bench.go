package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench compiles mutants and runs the tests on them.
type bench struct {
	dir     string // of the package
	scratch string
	cache   string    // a build cache of its own, since each mutant leaves megabytes in it; empty for that of the go command
	begun   time.Time // what is newer in the cache is of mutants
	skip    string
	quick   []string      // arguments that leave out the slow tests
	slow    []string      // arguments for only these; nil when there are none
	timeout time.Duration // for the quick tests; the slow ones get slowTook more
	covered []block

	slowTook time.Duration
}

// block is a stretch of code that some test runs, or not, by line and column.
type block struct {
	file               string
	fromLine, fromCol  int
	untilLine, untilCo int
	run                bool
}

// newBench runs the tests without any change: they must pass, and show what they cover and how long they take.
func newBench(ctx context.Context, o options) (*bench, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir, scratch: scratch, begun: time.Now(), skip: o.skip, timeout: o.timeout}
	if o.cache != "" {
		if b.cache, err = filepath.Abs(o.cache); err != nil {
			return nil, err
		}
	}
	profile := filepath.Join(scratch, "cover.out")
	if out, err := b.command(ctx, "go", "test", "-short", "-vet=off", "-count=1", "-skip", b.skip, "-coverprofile", profile, ".").CombinedOutput(); err != nil {
		b.close()
		return nil, fmt.Errorf("the tests fail without any change: %w\n%s", err, out)
	}
	if b.covered, err = readProfile(profile); err != nil {
		b.close()
		return nil, err
	}
	return b, b.measure(ctx)
}

// slowTest is from when on a test is tried last, on mutants that all others have let pass.
const slowTest = 200 * time.Millisecond

var passed = regexp.MustCompile(`(?m)^--- PASS: (\w+) \(([0-9.]+)s\)$`)

// measure compiles the tests as they are and times them.
func (b *bench) measure(ctx context.Context) error {
	plain := filepath.Join(b.scratch, "plain.test")
	if out, err := b.command(ctx, "go", "test", "-c", "-vet=off", "-o", plain, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	start := time.Now()
	out, err := b.tests(ctx, plain, 10*time.Minute, "-test.v", "-test.skip", b.skip).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	took := time.Since(start)
	var slow []string
	for _, m := range passed.FindAllSubmatch(out, -1) {
		if s, err := strconv.ParseFloat(string(m[2]), 64); err == nil && s >= slowTest.Seconds() {
			slow = append(slow, string(m[1]))
			b.slowTook += time.Duration(5 * s * float64(time.Second))
		}
	}
	b.quick = []string{"-test.skip", b.skip}
	if len(slow) > 0 {
		only := "^(" + strings.Join(slow, "|") + ")$"
		b.slow = []string{"-test.run", only, "-test.skip", b.skip}
		b.quick = []string{"-test.skip", strings.TrimPrefix(b.skip+"|"+only, "|")}
	}
	if b.timeout == 0 {
		b.timeout = max(10*time.Second, 5*took-b.slowTook)
	}
	b.begun = time.Now()
	fmt.Printf("the tests take %v, a mutant gets %v and %v more for those tried last: %s\n",
		took.Round(10*time.Millisecond), b.timeout.Round(time.Second), b.slowTook.Round(time.Second), strings.Join(slow, " "))
	return nil
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

// tests runs a test binary with bounded memory: a mutant may allocate for ever.
func (b *bench) tests(ctx context.Context, binary string, timeout time.Duration, args ...string) *exec.Cmd {
	args = append([]string{"-c", `ulimit -v 8000000; exec "$0" "$@"`, binary, "-test.short", "-test.failfast", "-test.timeout", timeout.String()}, args...)
	cmd := b.command(ctx, "sh", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// try decides the fate of one mutant.
func (b *bench) try(ctx context.Context, m *mutant, src []byte) (fate, error) {
	if !b.isCovered(m, src) {
		return uncovered, nil
	}
	dir, err := os.MkdirTemp(b.scratch, "m-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	changed, binary, overlay := filepath.Join(dir, m.File), filepath.Join(dir, "m.test"), filepath.Join(dir, "overlay.json")
	replace, _ := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(b.dir, m.File): changed}})
	for name, text := range map[string][]byte{changed: m.apply(src), overlay: replace} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return "", err
		}
	}
	if out, err := b.command(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, ".").CombinedOutput(); err != nil {
		if !bytes.Contains(out, []byte(m.File+":")) {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
		return invalid, nil
	}
	f, err := b.judge(ctx, binary, b.timeout, b.quick)
	if f == survived && b.slow != nil {
		return b.judge(ctx, binary, b.timeout+b.slowTook, b.slow)
	}
	return f, err
}

// judge runs some of the tests on a mutant.
func (b *bench) judge(ctx context.Context, binary string, timeout time.Duration, which []string) (fate, error) {
	limited, cancel := context.WithTimeout(ctx, timeout+5*time.Second) // the binary's own limit does not hold while it never yields
	defer cancel()
	out, err := b.tests(limited, binary, timeout, which...).CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err == nil:
		return survived, nil
	case limited.Err() != nil || strings.Contains(string(out), "panic: test timed out"):
		return hung, nil
	}
	return killed, nil
}

// isCovered reports whether a test runs the change. Code outside functions is in no block and always runs.
func (b *bench) isCovered(m *mutant, src []byte) bool {
	col := m.start - strings.LastIndex(string(src[:m.start]), "\n")
	inBlock := false
	for _, c := range b.covered {
		before := m.line < c.fromLine || m.line == c.fromLine && col < c.fromCol
		after := m.line > c.untilLine || m.line == c.untilLine && col >= c.untilCo
		if c.file != m.File || before || after {
			continue
		}
		if c.run {
			return true
		}
		inBlock = true
	}
	return !inBlock
}

func readProfile(path string) (blocks []block, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, found := strings.Cut(lines.Text(), ".go:")
		if !found {
			continue
		}
		var c block
		var statements, count int
		if _, err := fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &c.fromLine, &c.fromCol, &c.untilLine, &c.untilCo, &statements, &count); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, lines.Text(), err)
		}
		c.file, c.run = filepath.Base(name)+".go", count > 0
		blocks = append(blocks, c)
	}
	return blocks, nil
}
