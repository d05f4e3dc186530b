package main

import (
	"fmt"
	"strings"
)

// A target is a bound on a figure, or on its ratio to another of the same run.
type target struct {
	what, against string
	of, to        string // benchmarks; to is empty for a bound on the figure itself
	unit          string
	atMost        float64
}

func targets() []target {
	var all []target
	for _, n := range []int{1, 2, 16} {
		all = append(all, ratio("closed success, slow rule on, "+goroutinesText(n), "two clock reads", call("closed", "breaker", "slow", n), floor("two-clock-reads", n), 1.5))
	}
	all = append(all,
		ratio("refused", "one clock read", call("refused", "breaker", "slow", 1), floor("clock-read", 1), 1.4),
		ratio("closed success, slow rule on", "gobreaker", call("closed", "breaker", "slow", 1), call("closed", "gobreaker", "consecutive", 1), 0.55),
		ratio("the same, 2 goroutines", "gobreaker", call("closed", "breaker", "slow", 2), call("closed", "gobreaker", "consecutive", 2), 0.3),
		ratio("the same, 16 goroutines", "gobreaker", call("closed", "breaker", "slow", 16), call("closed", "gobreaker", "consecutive", 16), 0.1),
		ratio("refused", "gobreaker", call("refused", "breaker", "slow", 1), call("refused", "gobreaker", "consecutive", 1), 0.6),
		ratio("closed success, slow rule off, window of calls", "go-resiliency", call("closed", "breaker", "calls", 1), call("closed", "go-resiliency", "consecutive", 1), 2.5),
		ratio("1 % failures, slow rule on, 16 goroutines", "the same without", call("closed-1%", "breaker", "slow", 16), call("closed", "breaker", "slow", 16), 1.3),
		ratio("1 % failures, slow rule off, 16 goroutines", "the same without", call("closed-1%", "breaker", "calls", 16), call("closed", "breaker", "calls", 16), 1.3),
		ratio("`Protected.Do`, the primary answers", "`Execute`", "Own/of=Protected.Do/goroutines=1", "Own/of=Execute/goroutines=1", 1.3),
	)
	for _, n := range []int{2, 16} {
		name := fmt.Sprintf("/goroutines=%d", n)
		all = append(all, ratio("`Registry.Breaker`, one of 10,000, "+goroutinesText(n), "`sync.Map` load", "Lookup/of=Registry.Breaker"+name, "Lookup/of=sync.Map"+name, 1.5))
	}
	for _, a := range allocating {
		all = append(all, target{what: "allocations of " + a.text, of: a.of, unit: "allocs/op"})
	}
	return append(all,
		target{what: "bytes of a default breaker", of: "Memory/of=breaker", unit: "B/breaker", atMost: 8 << 10},
		target{what: "bits per call, window of a million calls", of: "Memory/of=window", unit: "bits/call", atMost: 3},
		target{what: "milliseconds of a scrape of 10,000 breakers spent in this library", of: "Scrape/of=collect", unit: "ms/scrape", atMost: 50},
		target{what: "the same with what Prometheus's registry does", of: "Scrape/of=gather", unit: "ms/scrape", atMost: 50},
	)
}

func ratio(what, against, of, to string, atMost float64) target {
	return target{what: what, against: against, of: of, to: to, unit: perCall, atMost: atMost}
}

var allocating = []struct{ text, of string }{
	{"`Execute`", "Own/of=Execute/goroutines=1"},
	{"`Do`", "Own/of=Do/goroutines=1"},
	{"a refusal", call("refused", "breaker", "slow", 1)},
	{"`Protected.Do`", "Own/of=Protected.Do/goroutines=1"},
	{"`Registry.Breaker` of a known name", "Lookup/of=Registry.Breaker/goroutines=1"},
}

// measure returns the figure, or the ratio.
func (t target) measure(r *results) (float64, bool) {
	v, ok := r.median(t.of, t.unit)
	if t.to == "" || !ok {
		return v, ok
	}
	to, ok := r.median(t.to, t.unit)
	return v / to, ok
}

func targetTable(r *results) string {
	var b strings.Builder
	b.WriteString("| case | against | at most | measured | |\n|---|---|---|---|---|\n")
	for _, t := range targets() {
		measured, verdict := "not measured", ""
		if v, ok := t.measure(r); ok {
			measured, verdict = fmt.Sprintf("%.4g", v), "met"
			if t.to != "" {
				measured = fmt.Sprintf("%.2f", v)
			}
			if v > t.atMost {
				verdict = "**missed**"
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %g | %s | %s |\n", t.what, t.against, t.atMost, measured, verdict)
	}
	return b.String()
}
