package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// counting counts n for every case but those named.
func counting(n float64, other map[string]float64) counter {
	return func(_ context.Context, name string) (float64, error) {
		if v, ok := other[name]; ok {
			return v, nil
		}
		return n, nil
	}
}

// committed returns a file in which each case has n instructions.
func committed(t *testing.T, n float64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "instructions.txt")
	require.NoError(t, check(t.Context(), io.Discard, file, true, counting(n, nil)))
	return file
}

func TestAnythingWithinTenPerCentPasses(t *testing.T) {
	file, name := committed(t, 1000), cases[0].name
	for found, passes := range map[float64]bool{1000: true, 1100: true, 900: true, 1101: false, 899: false} {
		err := check(t.Context(), io.Discard, file, false, counting(1000, map[string]float64{name: found}))
		if passes {
			require.NoError(t, err, found)
		} else {
			require.ErrorContains(t, err, name+" takes ", found)
			require.ErrorContains(t, err, "make instructions-update")
		}
	}
}

func TestEveryCaseIsCommittedAndNoOther(t *testing.T) {
	file := committed(t, 1000)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }

	write(strings.Replace(string(text), cases[1].name+": 1000\n", "", 1))
	require.ErrorContains(t, check(t.Context(), io.Discard, file, false, counting(1000, nil)), "nothing is committed")
	write(string(text) + "gone: 5\n")
	require.ErrorContains(t, check(t.Context(), io.Discard, file, false, counting(1000, nil)), "gone is committed")
	write(string(text) + "odd: many\n")
	require.ErrorContains(t, check(t.Context(), io.Discard, file, false, counting(1000, nil)), `"odd: many\n" is no count`)
	write("something else")
	require.ErrorContains(t, check(t.Context(), io.Discard, file, false, counting(1000, nil)), "does not begin")
	write(strings.Replace(string(text), platform(), "go1.26 plan9/vax", 1))
	var out strings.Builder
	require.NoError(t, check(t.Context(), &out, file, false, counting(1, nil)))
	require.Contains(t, out.String(), "not compared: the counts are of go1.26 plan9/vax")
}

func TestACountThatFailsIsAnError(t *testing.T) {
	broken := errors.New("no valgrind")
	err := check(t.Context(), io.Discard, committed(t, 1), false, func(context.Context, string) (float64, error) { return 0, broken })
	require.ErrorIs(t, err, broken)
}

func TestParseTotal(t *testing.T) {
	n, err := parseTotal("==1== Events    : Ir\n==1== Collected : 10904740\n==1== \n")
	require.NoError(t, err)
	require.Equal(t, 10_904_740, n)
	for _, out := range []string{"", "==1== Collected : 0\n", "Killed"} { // 0: the function that collects was not found
		_, err = parseTotal(out)
		require.ErrorContains(t, err, "counted nothing")
	}
}

// TestCommittedCountsAreOfTheseCases needs no valgrind.
func TestCommittedCountsAreOfTheseCases(t *testing.T) {
	_, counts, err := load("instructions.txt")
	require.NoError(t, err)
	require.Len(t, counts, len(cases))
	for _, c := range cases {
		require.Positive(t, counts[c.name], c.name)
		c.prepare()(10)
	}
}
