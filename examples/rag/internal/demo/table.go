package demo

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/failfast-go/breaker/examples/rag/internal/service"
)

// noAnswer counts among the sources what nobody answered.
const noAnswer = "none"

// bySource counts a's answers by who gave them.
func (a Act) bySource() map[string]int {
	count := make(map[string]int)
	for _, q := range a.Requests {
		source := q.Reply.Source
		if !q.answered() {
			source = noAnswer
		}
		count[source]++
	}
	return count
}

// unsourced counts the answers that were given without the vector store.
func (a Act) unsourced() int {
	n := 0
	for _, q := range a.Requests {
		if strings.HasPrefix(q.Reply.Response, service.WithoutSources) {
			n++
		}
	}
	return n
}

// latencies returns the median and the longest.
func (a Act) latencies() (median, worst time.Duration) {
	var all []time.Duration
	for _, q := range a.Requests {
		all = append(all, q.Took)
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)-1]
}

// Run is a report and how it was made.
type Run struct {
	Name   string // "with" or "without" breakers
	Report Report
}

const (
	topFormat  = "%-25s %-7s %5s %-29s %7s %7s %7s %8s %8s\n" // one column over those of the sources
	headFormat = "%-25s %-7s %5s %7s %5s %5s %4s %4s %7s %7s %7s %8s %8s\n"
	rowFormat  = "%-25s %-7s %5d %7d %5d %5d %4d %4d %7d %7d %7s %8s %8s\n"
)

// Table writes the runs side by side: for each act a line of each run.
func Table(w io.Writer, runs ...Run) {
	fmt.Fprintf(w, topFormat, "", "", "", " ---- answers by source ----", "no", "", "reached", "", "")
	fmt.Fprintf(w, headFormat, "phase", "breaker", "asked", "primary", "cache", "local", "rule", "none", "sources", "refused", "the ill", "median", "worst")
	for i := range runs[0].Report.Acts {
		for n, run := range runs {
			if i >= len(run.Report.Acts) {
				continue
			}
			name := run.Report.Acts[i].Name
			if n > 0 {
				name = ""
			}
			run.Report.Acts[i].row(w, name, run.Name)
		}
	}
}

func (a Act) row(w io.Writer, name, breakers string) {
	count := a.bySource()
	reached := ""
	if a.Ill != "" {
		reached = fmt.Sprint(len(a.Reached[a.Ill]))
	}
	median, worst := a.latencies()
	fmt.Fprintf(w, rowFormat, name, breakers, len(a.Requests),
		count["primary"], count["cache"], count["local-model"], count["rule"], count[noAnswer],
		a.unsourced(), a.Refused, reached, milliseconds(median), milliseconds(worst))
}

func milliseconds(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
}
