package main

import (
	"fmt"
	"slices"
	"strings"
)

// The rules by which a breaker opens, in the order of the tables. Only figures under one rule compare like with like.
var rules = []struct{ key, text string }{
	{"slow", "slow and failure rate, last 100 calls"},
	{"calls", "failure rate, last 100 calls"},
	{"time", "failure rate, last 10 s"},
	{"consecutive", "failures in a row"},
}

var floors = []struct{ key, text string }{
	{"empty-call", "the empty call"},
	{"clock-read", "one read of the monotonic clock"},
	{"two-clock-reads", "two reads"},
	{"mutex", "locking and unlocking a mutex"},
}

// perCall is the unit of times; benchfmt has seconds for nanoseconds.
const perCall = "sec/op"

func call(c, lib, rule string, goroutines int) string {
	return fmt.Sprintf("Call/case=%s/lib=%s/rule=%s/goroutines=%d", c, lib, rule, goroutines)
}

func floor(of string, goroutines int) string {
	return fmt.Sprintf("Floor/of=%s/goroutines=%d", of, goroutines)
}

// shortTable is that of the README.
func shortTable(r *results) string {
	var b strings.Builder
	b.WriteString("| opens at | library | a call | 2 goroutines | 16 goroutines | 1 % fail, 16 | half fail, 16 | refused | half-open | allocations |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, rule := range rules {
		for _, lib := range r.libraries(rule.key) {
			ns := func(c string, goroutines int) string { return r.ns(call(c, lib, rule.key, goroutines)) }
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", rule.text, libraryText(lib),
				ns("closed", 1), ns("closed", 2), ns("closed", 16), ns("closed-1%", 16), ns("closed-50%", 16),
				ns("refused", 1), ns("half-open", 1), r.allocations(call("closed", lib, rule.key, 1)))
		}
	}
	for _, f := range floors {
		fmt.Fprintf(&b, "| – | *%s* | %s | %s | %s | – | – | – | – | – |\n", f.text, r.ns(floor(f.key, 1)), r.ns(floor(f.key, 2)), r.ns(floor(f.key, 16)))
	}
	return b.String()
}

// fullTables are all figures: a table for each rule and each case, and one for what else was measured.
func fullTables(r *results) string {
	var b strings.Builder
	for _, rule := range rules {
		libs := r.libraries(rule.key)
		fmt.Fprintf(&b, "### Opening at: %s\n\n| case | goroutines | %s |\n|---|---|%s\n", rule.text, strings.Join(texts(libs), " | "), strings.Repeat("---|", len(libs)))
		for _, c := range r.values("Call", "case") {
			for _, n := range r.goroutines() {
				fmt.Fprintf(&b, "| %s | %d |", c, n)
				for _, lib := range libs {
					b.WriteString(" " + r.ratio(call(c, lib, rule.key, n), call(c, libs[0], rule.key, n)) + " |")
				}
				b.WriteString("\n")
			}
		}
		b.WriteString("\n")
	}
	return b.String() + r.others()
}

// others is what was measured without a peer.
func (r *results) others() string {
	var b strings.Builder
	b.WriteString("### The floor, and the other verbs\n\n| | ")
	for _, n := range r.goroutines() {
		fmt.Fprintf(&b, "%s | ", goroutinesText(n))
	}
	fmt.Fprintf(&b, "\n|---|%s\n", strings.Repeat("---|", len(r.goroutines())))
	for _, prefix := range []string{"Floor", "Own", "Lookup"} {
		for _, of := range r.values(prefix, "of") {
			fmt.Fprintf(&b, "| %s |", strings.ReplaceAll(of, "-", " "))
			for _, n := range r.goroutines() {
				b.WriteString(" " + r.ns(fmt.Sprintf("%s/of=%s/goroutines=%d", prefix, of, n)) + " |")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func (r *results) libraries(rule string) (found []string) {
	for _, name := range r.order {
		if lib := key(name, "lib"); lib != "" && key(name, "rule") == rule && !slices.Contains(found, lib) {
			found = append(found, lib)
		}
	}
	return found
}

func texts(libs []string) (found []string) {
	for _, lib := range libs {
		found = append(found, libraryText(lib))
	}
	return found
}

func libraryText(lib string) string {
	switch lib {
	case "breaker":
		return "**breaker**"
	case "failsafe-go-permits":
		return "failsafe-go, permits only"
	case "bytedance-gopkg":
		return "bytedance/gopkg"
	}
	return lib
}

func goroutinesText(n int) string {
	if n == 1 {
		return "1 goroutine"
	}
	return fmt.Sprintf("%d goroutines", n)
}

const none = "–"

// ns shows a time with no more digits than it deserves.
func (r *results) ns(name string) string {
	v, ok := r.median(name, perCall)
	if !ok {
		return none
	}
	return nanoseconds(v)
}

func nanoseconds(seconds float64) string {
	if seconds < 10e-9 {
		return fmt.Sprintf("%.1f ns", seconds*1e9)
	}
	return fmt.Sprintf("%.0f ns", seconds*1e9)
}

// ratio shows a time and, unless it is the base itself, how often it is that of the base.
func (r *results) ratio(name, base string) string {
	v, ok := r.median(name, perCall)
	of, known := r.median(base, perCall)
	if !ok || !known || name == base {
		return r.ns(name)
	}
	return fmt.Sprintf("%s, × %.2f", nanoseconds(v), v/of)
}

func (r *results) allocations(name string) string {
	v, ok := r.median(name, "allocs/op")
	if !ok {
		return none
	}
	return fmt.Sprintf("%.0f", v)
}
