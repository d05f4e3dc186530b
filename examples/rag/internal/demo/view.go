package demo

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/failfast-go/breaker"
)

// view shows a run while it is played.
type view interface {
	act(a act)           // a new act begins
	event(breaker.Event) // a breaker changed; from any goroutine
	tick()               // some time has passed
	close()              // nothing follows
}

// newView is live on a terminal and plain elsewhere.
func newView(out *os.File, p *player) view {
	fd := int(out.Fd())
	if !term.IsTerminal(fd) {
		return &plain{out: out, player: p, begun: time.Now()}
	}
	width := func() int {
		if w, _, err := term.GetSize(fd); err == nil && w > 0 {
			return w
		}
		return 80
	}
	return &live{out: out, player: p, width: width}
}

// describe says of a breaker in a few words what an operator asks first: since when, why, and what comes next.
func describe(s breaker.Status) string {
	var parts []string
	if s.Trip != nil && s.State != breaker.StateClosed {
		parts = append(parts, s.Trip.String())
	}
	if s.RetryAfterSeconds != nil {
		parts = append(parts, fmt.Sprintf("next probe in %.1f s", *s.RetryAfterSeconds))
	}
	if s.State == breaker.StateHalfOpen {
		parts = append(parts, fmt.Sprintf("%d of %d probes succeeded", s.HalfOpenSuccesses, s.Config.SuccessThreshold))
	}
	if s.Hold != nil {
		parts = append(parts, "by "+s.Hold.By+": "+s.Hold.Reason)
	}
	return strings.Join(parts, "; ")
}

// tally is "21 asked: 2 primary, 19 cache".
func tally(sources map[string]int) string {
	total := 0
	var parts []string
	for _, source := range slices.Sorted(maps.Keys(sources)) {
		total += sources[source]
		parts = append(parts, fmt.Sprintf("%d %s", sources[source], source))
	}
	return fmt.Sprintf("%d answered: %s", total, strings.Join(parts, ", "))
}

// plain writes a line for each thing that happens.
type plain struct {
	player *player
	begun  time.Time
	acts   int // begun

	mu  sync.Mutex // guards the field below: events come from any goroutine
	out io.Writer
}

func (v *plain) line(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fmt.Fprintf(v.out, "%5.1fs  %s\n", time.Since(v.begun).Seconds(), fmt.Sprintf(format, args...))
}

func (v *plain) act(a act) {
	v.close()
	v.acts++
	v.line("--- %s", a.name)
}

func (v *plain) event(e breaker.Event) {
	v.line("    %s: %v -> %v  %s", e.Breaker.Name(), e.From, e.To, describe(e.Breaker.Status()))
}

func (v *plain) tick() {}

func (v *plain) close() {
	if v.acts > 0 {
		v.line("    %s", tally(v.player.recorder.sources(v.acts-1)))
	}
}

// live redraws a few lines in place.
type live struct {
	out    io.Writer
	player *player
	width  func() int

	acts  int // begun
	name  string
	ends  time.Time
	drawn int // lines on the screen
}

func (v *live) act(a act) {
	v.close()
	v.acts++
	v.name, v.ends = a.name, time.Now().Add(a.lasts)
	v.tick()
}

func (v *live) event(breaker.Event) {} // the next tick shows it

func (v *live) tick() {
	if v.acts == 0 {
		return
	}
	lines := []string{fmt.Sprintf("%s, for another %.0f s", v.name, max(0, time.Until(v.ends).Seconds()))}
	for name, b := range v.player.service.Breakers().All() {
		s := b.Status()
		lines = append(lines, fmt.Sprintf("  %s %-12s %-11v %s", mark(s.State), name, s.State, describe(s)))
	}
	v.draw("", append(lines, "  "+tally(v.player.recorder.sources(v.acts-1))))
}

func (v *live) close() {
	if v.acts > 0 {
		v.draw(v.name+": "+tally(v.player.recorder.sources(v.acts-1)), nil)
	}
}

// draw replaces what was drawn before by lines, under a head that stays when it is not empty.
func (v *live) draw(head string, lines []string) {
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", v.drawn)
	}
	if head != "" {
		b.WriteString(cut(head, v.width()) + "\n")
	}
	for _, line := range lines {
		b.WriteString(cut(line, v.width()) + "\n")
	}
	v.drawn = len(lines)
	fmt.Fprint(v.out, b.String())
}

// cut keeps a line from wrapping, which would put the next redraw in the wrong place.
func cut(line string, width int) string {
	if runes := []rune(line); len(runes) >= width {
		return string(runes[:max(0, width-2)]) + "…"
	}
	return line
}

// mark tells the states apart without colour.
func mark(s breaker.State) string {
	switch s {
	case breaker.StateClosed:
		return "●"
	case breaker.StateHalfOpen:
		return "◐"
	case breaker.StateDisabled:
		return "-"
	}
	return "○"
}
