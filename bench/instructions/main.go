// Instructions counts how many instructions a call takes, and compares that with instructions.txt: a guard against regressions
// that no noise can fake, since the count does not depend on what else the machine does.
//
//	instructions            fail if a count is more than 10 % off
//	instructions -update    write the counts
//
// It runs itself under valgrind --tool=callgrind, which counts only what one function does: it makes the calls, after others
// have warmed up. Valgrind has no vDSO, so a read of the clock is a system call there, whose work in the kernel is not counted:
// these are instructions of this library, and of what it calls, not a time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

const calls = 10_000

func main() {
	file := flag.String("file", "instructions/instructions.txt", "the counts to compare with")
	update := flag.Bool("update", false, "write them instead")
	name := flag.String("case", "", "make the calls of this `case` (it runs itself so)")
	flag.Parse()
	if *name != "" {
		makeCalls(*name)
		return
	}
	if err := check(context.Background(), os.Stdout, *file, *update, count); err != nil {
		fmt.Fprintln(os.Stderr, "instructions:", err)
		os.Exit(1)
	}
}

func makeCalls(name string) {
	i := slices.IndexFunc(cases, func(c hotPath) bool { return c.name == name })
	if i < 0 {
		fmt.Fprintf(os.Stderr, "instructions: no case %q\n", name)
		os.Exit(2)
	}
	do := cases[i].prepare()
	do(calls / 10)
	measured(do)
}

// measured is what callgrind knows by its name.
//
//go:noinline
func measured(do func(n int)) { do(calls) }

var total = regexp.MustCompile(`(?m)Collected : (\d+)$`)

// count returns the instructions that one call of a case takes. One processor, no preemption, no garbage collection: nothing
// that depends on time.
func count(ctx context.Context, name string) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=main.measured", self, "-case", name)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1", "GOGC=off")
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return 0, errors.New("valgrind is not installed: apt-get install valgrind")
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	all, err := parseTotal(string(out))
	return float64(all) / calls, err
}

func parseTotal(out string) (int, error) {
	m := total.FindStringSubmatch(out)
	if m == nil || m[1] == "0" {
		return 0, fmt.Errorf("callgrind counted nothing:\n%s", out)
	}
	return strconv.Atoi(m[1])
}

// platform is what the counts hold for.
func platform() string {
	version := strings.SplitN(runtime.Version(), ".", 3)
	return strings.Join(version[:min(2, len(version))], ".") + " " + runtime.GOOS + "/" + runtime.GOARCH
}
