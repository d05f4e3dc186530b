package breaker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A program is what one goroutine does, a command of script_test.go a line; "my" is the permit of its own last ask. Two lines
// more split Done where it runs user code, so that others can come between:
//
//	claim my failure    Done begins, and waits in the error's own code
//	settle my           it goes on
type program string

var programs = []program{
	"ask/done my failure",
	"ask/done my success",
	"ask/claim my failure/settle my",
	"ask/progress my/done my ignored",
	"ask/cancel my",
	"ask/done my failure 3s",
	"trip",
	"reset",
	"force 0s/release",
	"disable 1s",
	"apply 1",
	"wait 1s",
	"wait 1.000000001s",
}

// openings are where the programs start from.
var openings = map[string]string{
	"closed":                        "",
	"closed, one failure from open": "do 0s failure",
	"open, at the end of its time":  "do 0s failure/do 0s failure/wait 2s",
	"half-open, two probes out":     "do 0s failure/do 0s failure/wait 2s/ask/ask",
	"half-open, one success short":  "do 0s failure/do 0s failure/wait 2s/do 0s success",
	"ramping up":                    "do 0s failure/do 0s failure/wait 2s/do 0s success/do 0s success/wait 500ms",
	"a call in flight, nearly slow": "ask/wait 1s",
}

var interleaved = []Config{
	{FailureThreshold: 2, SlowCallDuration: time.Second, MinimumCalls: 1, WindowCalls: 4, OpenTimeout: 2 * time.Second, OpenTimeoutJitter: Off,
		HalfOpenMaxCalls: 2, SuccessThreshold: 2, ProbeTimeout: 3 * time.Second, RampUp: 2 * time.Second},
	{FailureThreshold: 1, SlowCallDuration: 2 * time.Second, MinimumCalls: 2, WindowDuration: 10 * time.Second, OpenTimeout: time.Second, OpenTimeoutJitter: Off,
		HalfOpenMaxCalls: 1, SuccessThreshold: 1, ProbeTimeout: 4 * time.Second},
}

// TestEveryInterleavingAgreesWithTheModel plays every order in which the critical sections of two goroutines, and of three when
// proving, can follow each other, and compares all that can be seen after each.
func TestEveryInterleavingAgreesWithTheModel(t *testing.T) {
	orders, steps := 0, 0
	for name, opening := range openings {
		t.Run("from "+name, func(t *testing.T) {
			for i, a := range programs {
				for j, b := range programs[:i+1] {
					groups := [][]program{{a, b}}
					if proving() {
						for _, c := range programs[:j+1] {
							groups = append(groups, []program{a, b, c})
						}
					}
					for _, group := range groups {
						synctest.Test(t, func(t *testing.T) {
							eachOrder(group, func(order []turn) {
								orders++
								steps += len(order)
								play(t, opening, order)
							})
						})
					}
				}
			}
		})
	}
	t.Logf("%d orders of critical sections, %d steps", orders, steps)
}

// turn is a line of a program.
type turn struct {
	who  int
	line string
}

// eachOrder calls f with every way to merge the programs' lines.
func eachOrder(group []program, f func([]turn)) {
	rest := make([][]string, len(group))
	for i, p := range group {
		rest[i] = strings.Split(string(p), "/")
	}
	var order []turn
	var merge func()
	merge = func() {
		ended := true
		for who, lines := range rest {
			if len(lines) == 0 {
				continue
			}
			ended = false
			order, rest[who] = append(order, turn{who, lines[0]}), lines[1:]
			merge()
			order, rest[who] = order[:len(order)-1], lines
		}
		if ended {
			f(order)
		}
	}
	merge()
}

// gate is an error whose code, which Done runs between its critical sections, waits.
type gate struct {
	error
	open chan struct{}
}

func (g gate) Unwrap() error {
	<-g.open
	return g.error
}

// interleaving is a merged run in progress.
type interleaving struct {
	*history
	mine  map[int]int       // number of the last ask of each program
	gates map[int]gate      // of the permits whose Done has begun
	ended map[int]chan bool // what that Done will return
}

func play(t *testing.T, opening string, order []turn) {
	p := &interleaving{newHistory(interleaved), map[int]int{}, map[int]gate{}, map[int]chan bool{}}
	script, err := parseScript(strings.ReplaceAll(opening, "/", "\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range script {
		p.must(t, order, p.step(c))
	}
	for _, next := range order {
		p.must(t, order, p.take(next))
	}
}

func (p *interleaving) must(t *testing.T, order []turn, diff string) {
	if diff != "" {
		t.Fatalf("order %v: %s", order, p.report(diff))
	}
}

// take plays one line, and says what differs from the model.
func (p *interleaving) take(next turn) string {
	n := p.mine[next.who]
	line := strings.ReplaceAll(next.line, "my", fmt.Sprint(n))
	op, _, _ := strings.Cut(line, " ")
	switch op {
	case "claim":
		g := gate{errScripted, make(chan struct{})}
		p.gates[n], p.ended[n] = g, make(chan bool, 1)
		go func() { p.ended[n] <- p.real.permit(n).Done(g) }()
		synctest.Wait()
		return differ("status", p.real.view(), p.model.view(p.model.now))
	case "settle":
		return p.settle(n)
	}
	script, err := parseScript(line)
	if err != nil {
		return err.Error()
	}
	if diff := p.step(script[0]); diff != "" {
		return diff
	}
	if op == "ask" {
		p.mine[next.who] = len(p.real.permits)
	}
	return ""
}

// settle lets the Done of permit n go on.
func (p *interleaving) settle(n int) string {
	seen := len(p.model.events)
	want := p.model.play(command{op: "done", n: n, ending: "failure"}, p.configs).first
	close(p.gates[n].open)
	if got := <-p.ended[n]; got != want {
		return fmt.Sprintf("Done: got %t, want %t", got, want)
	}
	if want := p.model.events[seen:]; !slices.Equal(p.real.events, want) {
		return fmt.Sprintf("events: got %+v, want %+v", p.real.events, want)
	}
	p.real.events = nil
	return differ("status", p.real.view(), p.model.view(p.model.now))
}
