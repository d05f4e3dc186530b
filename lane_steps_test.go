//go:build lanesteps

package breaker

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// A world is a configuration, what has happened before, and what each of several goroutines does then: operations of linearOps,
// on the last permit that it has asked for, or the one asked for before; looks at all numbers ("status"); or it lets time pass.
type world struct {
	name   string
	cfg    Config
	before string
	each   []string
}

// Each world is played with a lane of one stripe, where they all meet, and with one of two, where each other goroutine has the
// same.
var widths = []int{1, 2}

var worlds = []world{
	{"a failure between successes", stepConfig(nil), "", []string{"ask success ask", "ask failure", "status"}},
	{"failures between successes", stepConfig(nil), "", []string{"ask success ask success", "ask failure ask failure status", "ask success"}},
	{"the last of the window, between successes", stepConfig(func(c *Config) { c.FailureThreshold = Off }), "ask success ask success ask failure", []string{"ask success", "ask failure ask failure status", "ask success"}},
	{"the last failure", stepConfig(nil), "ask failure", []string{"ask success ask success", "ask failure state"}},
	{"the last failure, and another", stepConfig(nil), "ask failure", []string{"ask failure ask", "ask failure status", "ask success"}},
	{"the last of the window", stepConfig(func(c *Config) { c.FailureThreshold = Off }), "ask success ask failure", []string{"ask success", "ask failure status", "ask success"}},
	{"a success completes MinimumCalls", stepConfig(func(c *Config) { c.FailureThreshold = Off }), "ask failure ask failure", []string{"ask success", "ask success status", "ask"}},
	{"a trip", stepConfig(nil), "", []string{"ask success ask", "trip", "status"}},
	{"a refusal and a reset", stepConfig(nil), "trip", []string{"ask ask", "reset", "status"}},
	{"holds", stepConfig(nil), "", []string{"ask success", "force release", "ask success status"}},
	{"disabled", stepConfig(nil), "disable", []string{"ask success", "ask failure status", "release"}},
	{"progress and the end of one call", stepConfig(nil), "", []string{"ask progress success", "status", "ask failure"}},
	{"progress and the end of one call, by two", stepConfig(nil), "ask ask", []string{"progress", "success", "wait status"}},
	{"counted twice", stepConfig(nil), "", []string{"ask cancel", "status status", "ask success"}},
	{"turning slow", stepConfig(nil), "", []string{"ask success status", "ask wait ask", "status"}},
	{"slow, and a failure", stepConfig(nil), "ask failure", []string{"ask success", "ask wait failure", "ask state"}},
	{"the end of the open time", stepConfig(nil), "trip", []string{"ask", "wait ask", "status"}},
	{"a bucket ends", stepConfig(func(c *Config) { c.WindowCalls, c.WindowDuration = 0, time.Second }), "", []string{"ask success", "ask wait failure", "status"}},
	{"no clock", stepConfig(func(c *Config) { c.SlowCallDuration, c.SlowCallRateThreshold = 0, 0 }), "", []string{"ask success ask success", "ask failure status", "ask success"}},
}

func stepConfig(change func(*Config)) Config {
	c := linearConfig
	c.RampUp = 0
	if change != nil {
		change(&c)
	}
	return c
}

// glimpse is what "status" compares of a Status.
type glimpse struct {
	state                              State
	failures, successes, run, inFlight int
	totals                             modelTotals
	trip                               string
	tripped                            int // calls in the trip
	slowRate                           float64
}

func glimpsed(o observed) glimpse {
	return glimpse{o.state, o.failures, o.successes, o.run, o.inFlight, o.totals, o.trip.rule, o.trip.calls, o.slowRate}
}

// stepOp is an operation that may see the time of its call or of its return: only one moment of waiting lies between.
type stepOp struct {
	linearOp
	until time.Duration
}

type stepReply struct {
	linearReply
	seen glimpse
}

// stepModel is linearModel with the times that an operation may see: the clock is read before a call takes effect, so others may
// have looked at a later time by then. Its start, or its length, is that of its own reading all the same. And a Progress may
// have no effect: one that meets a Done which has begun.
func stepModel(start linearState) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{start} },
		Step: func(state, input, output any) (states []any) {
			in, got, before := input.(stepOp), output.(stepReply), state.(linearState)
			for _, at := range []time.Duration{in.at, in.until} {
				for _, read := range []time.Duration{in.at, in.until} {
					states = append(states, before.stepAt(in.linearOp, got, max(at, before.m.clock), read)...)
				}
			}
			return states
		},
		Equal:             func(a, b any) bool { return reflect.DeepEqual(a, b) },
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
	return m.ToModel()
}

func (s linearState) stepAt(in linearOp, got stepReply, at, read time.Duration) []any {
	in.at = at
	switch in.op {
	case "wait":
		return []any{s}
	case "progress":
		_, next := s.step(in, got.linearReply)
		return []any{next, linearState{s.m.after(at), s.ids}}
	case "status":
		if glimpsed(s.m.view(at)) != got.seen {
			return nil
		}
		return []any{s}
	case "success", "failure":
		s.m = s.m.after(at)
		if i := s.m.index(s.ids[in.permit]); i >= 0 && s.m.calls[i].lasted == nil && read < at {
			s.m.calls[i].lasted = new(read - s.m.calls[i].start)
		}
	}
	if settles := in.op == "success" || in.op == "failure"; settles && !got.first && s.ids[in.permit] > 0 { // linearModel leaves that open
		return nil
	}
	allowed, next := s.step(in, got.linearReply)
	if !allowed {
		return nil
	}
	if in.op == "ask" && got.admitted && read < at {
		next.m.calls[len(next.m.calls)-1].start = read
	}
	return []any{next}
}

// stepper lets one goroutine at a time make one step.
type stepper struct {
	world
	stripes int
	start   time.Time
	b       *Breaker
	run     *linearRun
	current int
	resume  []chan struct{}
	parked  chan string // where the current one has come to, "end" when it has ended
	history []porcupine.Operation
	ticks   int64
	trace   []moment
}

// moment is a choice that was made.
type moment struct {
	chosen  int
	able    []int // who could have been chosen
	swapped bool  // though the one before could go on
	point   string
}

// play follows the schedule, and from its end on lets whoever is at it go on.
func (s *stepper) play(schedule []int) {
	s.start = time.Now()
	s.b = Must(New("stepped", s.cfg))
	s.b.machine.stripes = s.stripes
	s.run = &linearRun{b: s.b}
	before := linearState{newModel(s.cfg), map[string]int{}}
	for op := range strings.FieldsSeq(s.before) {
		in := linearOp{op: op, permit: "before"}
		_, before = before.step(in, s.run.perform(in))
	}
	s.parked = make(chan string)
	at, ended := make([]string, len(s.each)), 0
	for i, ops := range s.each {
		s.resume = append(s.resume, make(chan struct{}))
		go s.client(i, strings.Fields(ops))
	}
	onStep = func(point string) {
		me := s.current
		s.parked <- point
		<-s.resume[me]
	}
	onStripe = func() int { return s.current }
	stuck := map[int]bool{} // cannot go on before another has made a step
	for n := 0; ended < len(s.each); n++ {
		var able []int
		for i := range s.each {
			if at[i] != "end" && !stuck[i] {
				able = append(able, i)
			}
		}
		next := able[0]
		if slices.Contains(able, s.current) {
			next = s.current
		}
		goesOn := next
		if n < len(schedule) {
			next = schedule[n]
		}
		s.trace = append(s.trace, moment{next, able, next != goesOn && goesOn == s.current, at[next]})
		s.current = next
		s.resume[next] <- struct{}{}
		at[next] = <-s.parked
		switch at[next] {
		case "":
			stuck[next] = true
			continue
		case "end":
			ended++
		}
		clear(stuck)
	}
	onStep = func(string) {}
	s.history = append(s.history, s.look()) // all numbers at the end
	s.check(before)
}

func (s *stepper) client(me int, ops []string) {
	<-s.resume[me]
	permit := "before"
	for i, op := range ops {
		if op == "ask" {
			permit = fmt.Sprint(me, "/", i)
		}
		s.history = append(s.history, s.do(me, linearOp{op: op, permit: permit}))
	}
	s.parked <- "end"
}

func (s *stepper) do(me int, op linearOp) porcupine.Operation {
	s.ticks++
	called := s.ticks
	op.at = time.Since(s.start)
	var reply stepReply
	switch op.op {
	case "wait":
		time.Sleep(time.Second + 1)
	case "status":
		reply.seen = s.glimpse()
	default:
		reply.linearReply = s.run.perform(op)
	}
	s.ticks++
	return porcupine.Operation{ClientId: me, Input: stepOp{op, time.Since(s.start)}, Call: called, Output: reply, Return: s.ticks}
}

func (s *stepper) look() porcupine.Operation { return s.do(len(s.each), linearOp{op: "status"}) }

func (s *stepper) glimpse() glimpse {
	return glimpsed((&breakerPlayer{b: s.b, start: s.start}).seen(s.b.Status()))
}

func (s *stepper) check(before linearState) {
	if porcupine.CheckOperations(stepModel(before), s.history) {
		return
	}
	var b strings.Builder
	for _, m := range s.trace {
		fmt.Fprintf(&b, "%d %s\n", m.chosen, m.point)
	}
	for _, op := range s.history {
		fmt.Fprintf(&b, "%d: %d..%d %+v -> %+v\n", op.ClientId, op.Call, op.Return, op.Input, op.Output)
	}
	panic("no order of these operations is one that the model allows:\n" + b.String())
}

// TestEveryOrderOfAtomicStepsIsLinearizable plays, in each world, every order of the goroutines' atomic steps in which at most two
// of them are interrupted, three when proving. (What goes wrong between goroutines goes wrong with few interruptions.)
func TestEveryOrderOfAtomicStepsIsLinearizable(t *testing.T) {
	bound := 2
	if proving() {
		bound = 3
	}
	total := 0
	for _, w := range worlds {
		t.Run(w.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				defer func() {
					if v := recover(); v != nil {
						onStep = func(string) {}
						t.Fatal(v)
					}
				}()
				for _, stripes := range widths {
					n := w.everyOrder(bound, stripes)
					t.Logf("%d orders, stripes: %d", n, stripes)
					total += n
				}
			})
		})
	}
	t.Logf("%d orders of atomic steps", total)
	require.Positive(t, total)
}

func (w world) everyOrder(bound, stripes int) (orders int) {
	for todo := [][]int{nil}; len(todo) > 0; orders++ {
		schedule := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		s := &stepper{world: w, stripes: stripes}
		s.play(schedule)
		swaps := 0
		for i, m := range s.trace {
			if i >= len(schedule) {
				for _, other := range m.able {
					cost := 0
					if i > 0 && slices.Contains(m.able, s.trace[i-1].chosen) {
						cost = 1
					}
					if other != m.chosen && swaps+cost <= bound {
						todo = append(todo, append(chosenIn(s.trace[:i]), other))
					}
				}
			}
			if m.swapped {
				swaps++
			}
		}
	}
	return orders
}

func chosenIn(trace []moment) (list []int) {
	for _, m := range trace {
		list = append(list, m.chosen)
	}
	return list
}

// A success that comes and goes between a failure's reading of the clock and of the marks is dated by its own clock.
func TestEveryOrderOfAtomicStepsDatesTheLastSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer func() { onStep = func(string) {} }()
		b := Must(New("b", Config{SlowCallDuration: time.Hour}))
		require.Zero(t, succeedQuietly(b, 1))
		var began time.Time
		onStep = func(point string) {
			if point == "read out" {
				onStep = func(string) {}
				time.Sleep(time.Millisecond)
				began = time.Now()
				require.Zero(t, succeedQuietly(b, 1))
			}
		}
		fail(b, 1)
		time.Sleep(time.Second)
		require.True(t, began.Equal(b.Status().LastSuccessTime))
	})
}

// meeting lets another call be counted at w just before the swap of the next.
func meeting(w *mark) {
	onStep = func(point string) {
		if point == "swap mark" {
			onStep = func(string) {}
			w.add(0)
		}
	}
}

func TestEveryOrderOfAtomicStepsOfCallsThatMeet(t *testing.T) {
	for stripes, crowded := range map[int]bool{1: true, maxStripes / 2: true, maxStripes: false} {
		l := &lane{stripes: make([]stripe, stripes)}
		l.look.Store(never)
		w := &l.stripes[0].in
		meeting(w)
		require.False(t, w.add(0))
		require.False(t, l.crowded.Load())
		meeting(w)
		require.True(t, l.count(w, 0))
		require.EqualValues(t, 3, w.Load()&(markFull-1))
		require.Equal(t, crowded, l.crowded.Load())
		require.Equal(t, crowded, l.look.Load() == 0)
	}
}
