package main

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
)

// results are the samples of each benchmark, by name without "Benchmark" and GOMAXPROCS, and by unit.
type results struct {
	samples map[string]map[string][]float64
	order   []string          // names as they first came
	config  map[string]string // of the run: cpu, cores, go, commit, command
}

func read(files []string) (*results, error) {
	r := &results{samples: map[string]map[string][]float64{}, config: map[string]string{}}
	in := benchfmt.Files{Paths: files}
	for in.Scan() {
		switch rec := in.Result().(type) {
		case *benchfmt.Result:
			r.add(rec)
		case *benchfmt.SyntaxError:
			return nil, rec
		}
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	if len(r.samples) == 0 {
		return nil, errors.New("no benchmark in the input")
	}
	return r, nil
}

var maxprocs = regexp.MustCompile(`-(\d+)$`)

func (r *results) add(rec *benchfmt.Result) {
	full := rec.Name.String()
	if m := maxprocs.FindStringSubmatch(full); m != nil {
		full, r.config["cores"] = strings.TrimSuffix(full, m[0]), m[1]
	} else {
		r.config["cores"] = "1"
	}
	for _, c := range rec.Config {
		r.config[c.Key] = string(c.Value)
	}
	if r.samples[full] == nil {
		r.samples[full] = map[string][]float64{}
		r.order = append(r.order, full)
	}
	if _, is := rec.Value("disturbed"); is {
		return
	}
	for _, v := range rec.Values {
		r.samples[full][v.Unit] = append(r.samples[full][v.Unit], v.Value)
	}
}

// median is that of all rounds, as benchstat computes it.
func (r *results) median(name, unit string) (float64, bool) {
	values := r.samples[name][unit]
	if len(values) == 0 {
		return 0, false
	}
	sample := benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds)
	return benchmath.AssumeNothing.Summary(sample, 0.95).Center, true
}

// samplesOf is how often a benchmark was measured undisturbed.
func (r *results) samplesOf(name string) int {
	n := 0
	for _, values := range r.samples[name] {
		n = max(n, len(values))
	}
	return n
}

// least is how often each benchmark was measured undisturbed at least.
func (r *results) least() int {
	least := r.samplesOf(r.order[0])
	for _, name := range r.order {
		least = min(least, r.samplesOf(name))
	}
	return least
}

// lacking is a pattern for -test.bench of the benchmarks that were measured undisturbed less than n times, empty if none was.
func (r *results) lacking(n int) string {
	var patterns []string
	for _, name := range r.order {
		if r.samplesOf(name) >= n {
			continue
		}
		parts := strings.Split("Benchmark"+name, "/")
		for i, part := range parts {
			parts[i] = "^" + regexp.QuoteMeta(part) + "$"
		}
		patterns = append(patterns, strings.Join(parts, "/"))
	}
	return strings.Join(patterns, "|")
}

// header says where the figures come from, and how busy the machine already was.
func (r *results) header() string {
	return fmt.Sprintf("%s, %s cores, load average %s when it began; %s; commit %s; `%s`, medians of at least %d measurements.\n\n",
		r.config["cpu"], r.config["cores"], r.config["load"], r.config["goversion"], r.config["commit"], r.config["command"], r.least())
}

// key returns the value of a key=value part of a benchmark's name.
func key(name, k string) string {
	for part := range strings.SplitSeq(name, "/") {
		if v, ok := strings.CutPrefix(part, k+"="); ok {
			return v
		}
	}
	return ""
}

// values returns the values of a key among the names that begin with prefix, in the order in which they came.
func (r *results) values(prefix, k string) (found []string) {
	for _, name := range r.order {
		if v := key(name, k); v != "" && strings.HasPrefix(name, prefix) && !slices.Contains(found, v) {
			found = append(found, v)
		}
	}
	return found
}

// goroutines returns the numbers of goroutines measured, ascending.
func (r *results) goroutines() []int {
	found := map[int]bool{}
	for _, v := range r.values("", "goroutines") {
		if n, err := strconv.Atoi(v); err == nil {
			found[n] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}
