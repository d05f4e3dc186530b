package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
)

const tolerance = 0.10

// header is the file's, with the platform of its counts.
const header = "# Instructions of one call, counted by callgrind; make instructions compares, make instructions-update writes.\n# "

// A counter returns the instructions that one call of a case takes.
type counter func(ctx context.Context, name string) (float64, error)

// check counts all cases and compares, or writes.
func check(ctx context.Context, w io.Writer, file string, update bool, count counter) error {
	of, want, err := load(file)
	if err != nil && !update {
		return err
	}
	if !update && architecture(of) != architecture(platform()) {
		fmt.Fprintf(w, "not compared: the counts are of %s, this is %s\n", of, platform())
		return nil
	}
	var text strings.Builder
	text.WriteString(header + platform() + "\n")
	var wrong []error
	for _, c := range cases {
		found, err := count(ctx, c.name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%s: %.0f\n", c.name, found)
		fmt.Fprintf(w, "%-32s %6.0f instructions, committed %6.0f\n", c.name, found, want[c.name])
		wrong = append(wrong, compare(c.name, found, want[c.name]))
		delete(want, c.name)
	}
	if update {
		return os.WriteFile(file, []byte(text.String()), 0o644)
	}
	for name := range want {
		wrong = append(wrong, fmt.Errorf("%s is committed, but there is no such case", name))
	}
	if err := errors.Join(wrong...); err != nil {
		return fmt.Errorf("%w\nIf that is meant (%s counted with %s): make instructions-update", err, file, of)
	}
	return nil
}

// compare wants no count to be higher, nor much lower: a bound that is too loose guards nothing.
func compare(name string, found, want float64) error {
	switch {
	case want == 0:
		return fmt.Errorf("%s takes %.0f instructions; nothing is committed", name, found)
	case math.Abs(found-want) > tolerance*want:
		return fmt.Errorf("%s takes %.0f instructions, %+.0f %% of the committed %.0f; allowed is %.0f %% either way",
			name, found, 100*(found-want)/want, want, 100*tolerance)
	}
	return nil
}

// load reads what header and count wrote.
func load(file string) (of string, want map[string]float64, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", nil, err
	}
	rest, found := strings.CutPrefix(string(text), header)
	if !found {
		return "", nil, fmt.Errorf("%s does not begin as make instructions-update writes it", file)
	}
	of, rest, _ = strings.Cut(rest, "\n")
	want = map[string]float64{}
	for line := range strings.Lines(rest) {
		name, n, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if want[name], err = strconv.ParseFloat(n, 64); err != nil {
			return "", nil, fmt.Errorf("%s: %q is no count", file, line)
		}
	}
	return of, want, nil
}

// architecture is the second word of a platform.
func architecture(platform string) string {
	_, arch, _ := strings.Cut(platform, " ")
	return arch
}
