package breaker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// proving says whether make prove is running: the tests that search then take minutes instead of seconds.
func proving() bool { return os.Getenv("BREAKER_PROVE") != "" }

// raw is a command as it is drawn. What its numbers stand for depends on the history so far; see resolve.
type raw struct{ op, pick, shift, ending int }

var rawCommand = rapid.Custom(func(t *rapid.T) raw {
	return raw{
		op:     rapid.IntRange(0, 99).Draw(t, "op"),
		pick:   rapid.IntRange(0, 40).Draw(t, "pick"),
		shift:  rapid.IntRange(0, 5).Draw(t, "shift"),
		ending: rapid.IntRange(0, 30).Draw(t, "ending"),
	}
})

// moods are what histories are made of, 100 parts each; what comes first is what a failing one shrinks towards.
var moods = [][]string{
	mood("ask 25 wait 20 done 20 do 14 progress 3 cancel 3 join 2 nest 1 dead 1 trip 2 release 2 force 2 disable 2 reset 1 apply 2"),
	mood("ask 20 wait 30 progress 28 done 5 do 3 cancel 2 join 8 nest 2 trip 1 apply 1"),
	mood("ask 25 wait 14 done 15 do 10 progress 2 trip 8 release 8 force 8 disable 8 reset 2"),
	mood("ask 28 wait 20 done 18 do 10 progress 4 apply 20"),
}

func mood(weights string) (ops []string) {
	words := strings.Fields(weights)
	for i := 0; i < len(words); i += 2 {
		parts, _ := strconv.Atoi(words[i+1])
		ops = append(ops, slices.Repeat([]string{words[i]}, parts)...)
	}
	mixed := make([]string, 100) // small numbers are drawn more often
	for i := range mixed {
		mixed[i] = ops[i*37%100]
	}
	return mixed
}

var endings = []string{"failure", "success", "ignored"}

// resolve makes a command of r that is worth trying in this state: of a permit in flight, at an instant near a deadline.
func (p *modelPlayer) resolve(r raw, mood []string, configs []Config) command {
	c := command{op: mood[r.op]}
	switch c.op {
	case "progress", "cancel", "join", "done":
		c.n = p.somePermit(r.pick, r.shift)
	case "wait", "do", "nest":
		c.d = p.someWait(r.pick, r.shift)
	case "force", "disable":
		c.d = []time.Duration{0, time.Second, 5 * time.Second, p.someWait(r.pick, r.shift), -1}[r.pick%5]
	case "apply":
		c.n = r.pick % len(configs)
	}
	if c.op == "done" || c.op == "do" || c.op == "nest" {
		c.ending = endings[r.ending%3]
		if p.tracked == StateHalfOpen && r.ending%5 < 3 {
			c.ending = "success"
		}
		if r.ending >= 24 || p.tracked == StateOpen {
			c.openFor = []time.Duration{time.Second, 3 * time.Second, p.cfg.OpenTimeout, time.Hour}[r.pick%4]
		}
	}
	if c.op == "do" && r.ending >= 20 && r.ending < 24 {
		c.ending, c.openFor = []string{"panic", "goexit"}[r.ending%2], 0
	}
	return c
}

// somePermit is mostly one in flight, an undecided probe if there is one, and now and then any.
func (p *modelPlayer) somePermit(pick, shift int) int {
	probes, calls := p.probes(), p.calls
	var list []int
	for i, id := range p.ids {
		live := slices.ContainsFunc(calls, func(c modelCall) bool { return c.id == id })
		probe := slices.ContainsFunc(probes, func(c *modelCall) bool { return c.id == id })
		if shift == 5 || live && (probe || shift == 4 || len(probes) == 0) {
			list = append(list, i+1)
		}
	}
	if len(list) == 0 {
		return 1
	}
	return list[len(list)-1-pick%len(list)]
}

// someWait reaches a deadline, a bucket's edge, half a probe's lifetime or some other length, exactly or a nanosecond to either
// side.
func (p *modelPlayer) someWait(pick, shift int) time.Duration {
	var due, step []time.Duration
	for _, d := range p.deadlines() {
		due = append(due, d.due-p.now)
	}
	if w := p.cfg.WindowDuration; w != 0 {
		step = append(step, (fiftieth(p.now, p.cfg)+1)*(w/50)-p.now, (fiftieth(p.now, p.cfg)+50)*(w/50)-p.now)
	}
	if s := p.cfg.SlowCallDuration; s != Off {
		step = append(step, s, s/16, s/16)
		for _, call := range p.calls {
			step = append(step, call.start+s-p.now)
		}
	}
	if p.tracked == StateHalfOpen {
		step = append(step, p.cfg.ProbeTimeout/2, p.cfg.ProbeTimeout/2, p.cfg.ProbeTimeout/2)
	}
	other := []time.Duration{0, time.Second, 50 * time.Millisecond, 3 * time.Second, 10 * time.Second, 10 * time.Minute, 50 * time.Hour}
	list := [][]time.Duration{due, step, other}[pick%3]
	if len(list) == 0 {
		list = other
	}
	d := list[pick/3%len(list)]
	if len(due) > 0 && p.tracked == StateHalfOpen && pick%2 == 0 {
		d = min(d, slices.Min(due)) // keep probes alive
	}
	return max(0, d+[]time.Duration{0, 1, -1, 0, 0, 0}[shift])
}

var someConfig = rapid.Custom(func(t *rapid.T) Config {
	c := Config{
		FailureThreshold:     rapid.SampledFrom([]int{0, 1, 2, 3, Off}).Draw(t, "FailureThreshold"),
		FailureRateThreshold: rapid.SampledFrom([]float64{0, 0.3, 1. / 3, 1, Off}).Draw(t, "FailureRateThreshold"),
		MinimumCalls:         rapid.SampledFrom([]int{1, 2, 3, 5}).Draw(t, "MinimumCalls"),
		OpenTimeout:          rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, 7}).Draw(t, "OpenTimeout"),
		HalfOpenMaxCalls:     rapid.IntRange(1, 3).Draw(t, "HalfOpenMaxCalls"),
		SuccessThreshold:     rapid.SampledFrom([]int{1, 2, 4}).Draw(t, "SuccessThreshold"),
		MaxRetryAfter:        rapid.SampledFrom([]time.Duration{0, 4 * time.Second, Off}).Draw(t, "MaxRetryAfter"),
		RampUp:               rapid.SampledFrom([]time.Duration{0, time.Second, 10 * time.Second}).Draw(t, "RampUp"),
		OpenTimeoutJitter:    rapid.SampledFrom([]float64{Off, Off, Off, 0.5}).Draw(t, "OpenTimeoutJitter"),
	}
	if rapid.Bool().Draw(t, "by time") {
		c.WindowDuration = rapid.SampledFrom([]time.Duration{time.Second, time.Second + 7, 10 * time.Second, 24 * time.Hour}).Draw(t, "WindowDuration")
	} else {
		c.WindowCalls = rapid.IntRange(c.MinimumCalls, 8).Draw(t, "WindowCalls")
	}
	if rapid.Bool().Draw(t, "slow") {
		c.SlowCallDuration = rapid.SampledFrom([]time.Duration{time.Second, 3 * time.Second, 17, 1}).Draw(t, "SlowCallDuration")
		c.SlowCallRateThreshold = rapid.SampledFrom([]float64{0, 0.3, 1, Off}).Draw(t, "SlowCallRateThreshold")
	}
	c.ProbeTimeout = rapid.SampledFrom([]time.Duration{0, c.SlowCallDuration + 1, c.SlowCallDuration + 2*time.Second}).Draw(t, "ProbeTimeout")
	c.MaxOpenTimeout = rapid.SampledFrom([]time.Duration{0, c.OpenTimeout, c.OpenTimeout * 5 / 2}).Draw(t, "MaxOpenTimeout")
	return c
})

// coverage counts what random histories have met.
type coverage struct {
	histories, steps int
	moves            map[modelEvent]int // from, to and rule
	pairs            map[string]int     // a state and a command that met it
	landmarks        map[string]int     // what transitions do not show
}

func (c *coverage) step(before *model, meets State, cmd command, after *model) {
	c.steps++
	c.pairs[meets.String()+" "+cmd.op]++
	for _, e := range after.events[len(before.events):] {
		c.moves[modelEvent{from: e.from, to: e.to, rule: e.rule}]++
	}
	for name, passed := range landmarks {
		if passed(before, after) {
			c.landmarks[name]++
		}
	}
}

var landmarks = map[string]func(before, after *model) bool{
	"a probe is counted as a success while it goes on": func(b, a *model) bool { return a.having(isCounted) > b.having(isCounted) },
	"a call joins a probe":                             func(b, a *model) bool { return a.having(isJoiner) > b.having(isJoiner) },
	"two probes are lost at once": func(b, a *model) bool {
		return a.totals.failed >= b.totals.failed+2 && a.trip != nil && a.trip.rule == "probe_lost" && a.trip.failures > 1
	},
	"calls in flight turn slow and trip nothing": func(b, a *model) bool {
		return a.having(isSlow) > b.having(isSlow) && a.tracked == StateClosed
	},
	"a group of several calls turns slow": func(b, a *model) bool { return a.having(isSlow) > b.having(isSlow)+1 },
	"an opening is lengthened": func(b, a *model) bool {
		return b.tracked == StateOpen && a.tracked == StateOpen && a.until > b.until && len(a.events) == len(b.events)
	},
	"the tracked state opens under a hold": func(b, a *model) bool {
		return b.held != nil && a.held != nil && b.tracked == StateClosed && a.tracked == StateOpen
	},
	"the tracked state becomes half-open under a hold": func(b, a *model) bool {
		return b.held != nil && a.held != nil && b.tracked == StateOpen && a.tracked == StateHalfOpen
	},
	"a call is refused by the ramp": func(b, a *model) bool {
		return b.ramping && a.ramping && a.totals.rejected > b.totals.rejected
	},
	"a trip during the ramp doubles": func(b, a *model) bool { return b.ramping && a.tracked == StateOpen && a.n > b.n },
	"a failed probe doubles":         func(b, a *model) bool { return b.tracked == StateHalfOpen && a.n > b.n },
	"a ramp ends":                    func(b, a *model) bool { return b.ramping && a.tracked == StateClosed && !a.ramping },
	"a hold takes the place of one":  func(b, a *model) bool { return b.held != nil && a.held != nil && a.held != b.held },
}

func (m *model) having(what func(c modelCall) bool) (n int) {
	for _, c := range m.calls {
		if what(c) {
			n++
		}
	}
	return n
}

func isCounted(c modelCall) bool { return c.counted }
func isJoiner(c modelCall) bool  { return c.joined > 0 }
func isSlow(c modelCall) bool    { return c.slow }

// missing lists the transitions and pairs that can happen and have not, and those that happened and cannot.
func (c *coverage) missing() (list []string) {
	for _, e := range possible {
		if c.moves[e] == 0 {
			list = append(list, fmt.Sprintf("%v -> %v by %s", e.from, e.to, e.rule))
		}
	}
	for name := range landmarks {
		if c.landmarks[name] == 0 {
			list = append(list, name)
		}
	}
	for e := range c.moves {
		if !slices.Contains(possible, e) {
			list = append(list, fmt.Sprintf("impossible: %v -> %v by %s", e.from, e.to, e.rule))
		}
	}
	for _, op := range slices.Compact(slices.Sorted(slices.Values(moods[0]))) {
		for s := StateClosed; s <= StateDisabled; s++ {
			if c.pairs[s.String()+" "+op] == 0 {
				list = append(list, s.String()+" meets "+op)
			}
		}
	}
	return list
}

// possible are the transitions that there are.
var possible = slices.Concat(
	moves("closed", "open", "consecutive_failures failure_rate slow_call_rate retry_after manual"),
	moves("open", "half_open", "open_timeout"),
	moves("half_open", "open", "probe_failed probe_slow probe_lost probe_ignored retry_after manual"),
	moves("half_open", "closed", "recovered"),
	moves("open half_open forced_open disabled", "closed", "reset"),
	moves("closed open half_open forced_open disabled", "forced_open disabled", "hold"),
	moves("forced_open disabled", "closed open half_open", "release hold_expired"),
)

func moves(from, to, rules string) (list []modelEvent) {
	for f := range strings.FieldsSeq(from) {
		for t := range strings.FieldsSeq(to) {
			for r := range strings.FieldsSeq(rules) {
				list = append(list, modelEvent{from: stateNamed(f), to: stateNamed(t), rule: r})
			}
		}
	}
	return list
}

func stateNamed(name string) State {
	for s := StateClosed; s <= StateDisabled; s++ {
		if s.String() == name {
			return s
		}
	}
	panic("no state " + name)
}

// TestRandomHistoriesAgreeWithTheModel plays random scripts to a breaker and to the model and compares all that can be seen
// after each command.
func TestRandomHistoriesAgreeWithTheModel(t *testing.T) {
	steps, histories := 40_000, "100"
	if proving() {
		steps, histories = 1_000_000, "1000"
	}
	setFlag(t, "rapid.checks", histories)
	setFlag(t, "rapid.steps", "150")
	setFlag(t, "rapid.nofailfile", "true") // the report is a script
	cover := &coverage{moves: map[modelEvent]int{}, pairs: map[string]int{}, landmarks: map[string]int{}}
	for cover.steps < 5*steps { // until it is covered
		rapid.Check(t, func(rt *rapid.T) { randomHistory(rt, cover) })
		if cover.steps >= steps && len(cover.missing()) == 0 {
			break
		}
	}
	t.Logf("%d histories, %d steps, %d of %d transitions, %d pairs of a state and a command, %v",
		cover.histories, cover.steps, len(cover.moves), len(possible), len(cover.pairs), cover.landmarks)
	if missing := cover.missing(); len(missing) > 0 {
		t.Errorf("not covered:\n%s", strings.Join(missing, "\n"))
	}
}

func setFlag(t *testing.T, name, value string) {
	was := flag.Lookup(name).Value.String()
	require.NoError(t, flag.Set(name, value))
	t.Cleanup(func() { require.NoError(t, flag.Set(name, was)) })
}

func randomHistory(rt *rapid.T, cover *coverage) {
	configs := rapid.SliceOfN(rapid.OneOf(someConfig, rapid.SampledFrom(smallConfigs())), 1, 4).Draw(rt, "configs")
	mood := rapid.SampledFrom(moods).Draw(rt, "mood")
	cover.histories++
	rapid.SyncTest(rt, func(rt *rapid.T) {
		h := newHistory(configs)
		rt.Repeat(map[string]func(*rapid.T){"command": func(rt *rapid.T) {
			c := h.model.resolve(rawCommand.Draw(rt, "command"), mood, configs)
			before, meets := h.model.copy(), h.model.after(h.model.now).shown()
			if diff := h.step(c); diff != "" {
				rt.Fatalf("%s", h.report(diff))
			}
			cover.step(before, meets, c, h.model.model)
		}})
	})
}

// history is a script in progress, on the model and on a breaker.
type history struct {
	configs []Config
	script  []command
	model   *modelPlayer
	real    *breakerPlayer
}

// newHistory is called in a synctest bubble.
func newHistory(configs []Config) *history {
	return &history{
		configs: configs,
		model:   newModelPlayer(configs[0]),
		real:    newBreakerPlayer(configs[0]),
	}
}

// step plays c and says what differs, "" if nothing.
func (h *history) step(c command) (diff string) {
	h.script = append(h.script, c)
	seen := len(h.model.events)
	h.model.draw = float64(len(h.script)%10) / 10
	h.real.b.machine.draw = h.model.draw
	h.real.b.machine.random = func() float64 { return h.model.draw } // a period may begin within the step
	want := h.model.play(c, h.configs)
	got := h.real.play(c, h.configs)
	if d := differ("reply", got, want); d != "" {
		return d
	}
	if want := h.model.events[seen:]; !slices.Equal(h.real.events, want) {
		return fmt.Sprintf("events: got %+v, want %+v", h.real.events, want)
	}
	h.real.events = nil
	return differ("status", h.real.view(), h.model.view(h.model.now))
}

func differ[T comparable](what string, got, want T) string {
	if got == want {
		return ""
	}
	var b strings.Builder
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if x, y := fmt.Sprintf("%+v", g.Field(i)), fmt.Sprintf("%+v", w.Field(i)); x != y {
			fmt.Fprintf(&b, "%s.%s: got %s, want %s\n", what, g.Type().Field(i).Name, x, y)
		}
	}
	return b.String()
}

// report is the script, in the form that parseScript reads, and the difference that it leads to.
func (h *history) report(diff string) string {
	var b strings.Builder
	for i, c := range h.configs {
		fmt.Fprintf(&b, "config %d: %+v\n", i, c)
	}
	for _, c := range h.script {
		fmt.Fprintf(&b, "\t%v\n", c)
	}
	return fmt.Sprintf("after %d commands at %v\n%s\n%s", len(h.script), h.model.now, b.String(), diff)
}

// breakerPlayer plays scripts on a breaker.
type breakerPlayer struct {
	b       *Breaker
	start   time.Time
	permits []*Permit // by number of the ask, nil for a refused one
	events  []modelEvent
}

func newBreakerPlayer(cfg Config) *breakerPlayer {
	p := &breakerPlayer{start: time.Now()}
	p.b = Must(New("scripted", cfg, WithClassifier(classifyScripted), WithListener(p.hear)))
	return p
}

// scripted is an error with a verdict of its own.
type scripted struct{ Verdict }

func (scripted) Error() string { return "scripted" }

func classifyScripted(_ context.Context, err error) Verdict {
	v, _ := errors.AsType[scripted](err)
	return v.Verdict
}

var errScripted = errors.New("failed by script")

// err is what makes a call end as c says.
func (c command) err() error {
	switch {
	case c.ending == "success" && c.openFor > 0:
		return fmt.Errorf("wrapped: %w", scripted{Verdict{Success, c.openFor}})
	case c.ending == "success":
		return nil
	case c.ending == "ignored":
		return fmt.Errorf("wrapped: %w", Ignore(OpenFor(errScripted, c.openFor)))
	default:
		return OpenFor(errScripted, c.openFor)
	}
}

func (p *breakerPlayer) play(c command, configs []Config) reply {
	switch c.op {
	case "ask":
		return p.asked(p.b.Acquire(context.Background()))
	case "join":
		return p.asked(p.b.Acquire(p.permit(c.n).Context(context.Background())))
	case "dead":
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		permit, err := p.b.Acquire(ctx)
		return reply{admitted: permit != nil, failed: err != context.Canceled}
	case "do", "nest":
		return p.do(c)
	case "wait":
		time.Sleep(c.d)
	case "progress":
		p.permit(c.n).Progress()
	case "done":
		return reply{first: p.permit(c.n).Done(c.err())}
	case "cancel":
		p.permit(c.n).Cancel()
	case "trip":
		p.b.Trip("by script")
	case "reset":
		p.b.Reset("by script")
	case "force":
		p.b.ForceOpen(Hold{By: "ann", Reason: "by script", For: c.d})
	case "disable":
		p.b.Disable(Hold{By: "ann", Reason: "by script", For: c.d})
	case "release":
		p.b.Release()
	case "apply":
		return reply{failed: p.b.Apply(configs[c.n]) != nil}
	}
	return reply{}
}

func (p *breakerPlayer) permit(n int) *Permit {
	if n < 1 || n > len(p.permits) {
		return nil
	}
	return p.permits[n-1]
}

func (p *breakerPlayer) asked(permit *Permit, err error) reply {
	p.permits = append(p.permits, permit)
	return p.refused(err)
}

// do runs the call on a goroutine of its own, since it may not return.
func (p *breakerPlayer) do(c command) reply {
	err := errDidNotReturn
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		err = p.b.Do(context.Background(), func(ctx context.Context) error {
			err = nil
			time.Sleep(c.d)
			switch {
			case c.op == "nest":
				_ = p.b.Do(ctx, func(context.Context) error { return nil })
			case c.ending == "panic":
				panic("by script")
			case c.ending == "goexit":
				runtime.Goexit()
			}
			return c.err()
		})
	}()
	<-done
	return p.refused(err)
}

// refused is the reply that err of an ask stands for; what a call itself returned is no refusal.
func (p *breakerPlayer) refused(err error) reply {
	e, ok := errors.AsType[*OpenError](err)
	if !ok {
		return reply{admitted: true}
	}
	r := reply{state: e.State, until: p.since(e.Until, 0), trip: p.trip(e.Trip)}
	r.failed = e.Name != "scripted" || !errors.Is(err, ErrOpen) || e.RetryAfter() != max(0, r.until-p.since(time.Now(), 0)) ||
		e.State == StateHalfOpen && !strings.Contains(e.Error(), fmt.Sprintf(": %d of %[1]d probes", p.b.Config().HalfOpenMaxCalls))
	if e.Hold != nil {
		r.hold = modelHold{state: e.State, by: e.Hold.By, reason: e.Hold.Reason, expires: e.Hold.For != 0, until: r.until}
	}
	return r
}

// since is t as time since New, or absent for the zero Time.
func (p *breakerPlayer) since(t time.Time, absent time.Duration) time.Duration {
	if t.IsZero() {
		return absent
	}
	return t.Sub(p.start)
}

func (p *breakerPlayer) trip(t *Trip) modelTrip {
	if t == nil {
		return modelTrip{}
	}
	return modelTrip{t.At.Sub(p.start), string(t.Rule), t.Observed, t.Threshold, t.Calls, t.Failures, t.SlowCalls, t.Reason}
}

func (p *breakerPlayer) hear(e Event) {
	if e.Breaker != p.b || e.Dropped != 0 || (e.Hold != nil) != (e.Rule == RuleHold) || (e.Trip != nil) != (e.To == StateOpen) {
		e.Reason = fmt.Sprintf("inconsistent event: %+v", e)
	}
	p.events = append(p.events, modelEvent{int(e.Seq), e.From, e.To, string(e.Rule), e.At.Sub(p.start), e.Reason})
}

func (p *breakerPlayer) view() observed {
	s := p.b.Status()
	o := p.seen(s)
	if p.b.State() != s.State || s.At != time.Now().Round(0) && s.At.Sub(p.start) != time.Since(p.start) {
		o.run = -1 // State and Status disagree, or it is a Status of another time
	}
	return o
}

func (p *breakerPlayer) seen(s Status) observed {
	m := s.Metrics
	o := observed{
		state: s.State, failures: s.FailureCount, successes: s.SuccessCount, run: s.ConsecutiveFailures,
		failureRate: orMinusOne(s.FailureRate), slowRate: orMinusOne(s.SlowCallRate), retryAfter: max(0, orMinusOne(s.RetryAfterSeconds)),
		opened: p.since(s.OpenedAt, -1), lastFailed: p.since(s.LastFailureTime, -1), lastGood: p.since(s.LastSuccessTime, -1),
		trip: p.trip(s.Trip), halfOpenSuccesses: s.HalfOpenSuccesses, inFlight: m.InFlight,
		totals: modelTotals{m.SuccessfulCalls, m.FailedCalls, m.IgnoredCalls, m.RejectedCalls, m.SlowCalls},
	}
	if s.Hold != nil {
		o.hold = modelHold{s.State, s.Hold.By, s.Hold.Reason, !s.Hold.Until.IsZero(), p.since(s.Hold.Until, 0)}
	}
	for i, t := range m.StateTransitions {
		o.transitions[i] = modelEvent{from: t.From, to: t.To, rule: string(t.Rule), at: t.Time.Sub(p.start)}
	}
	if m.TotalCalls != m.SuccessfulCalls+m.FailedCalls+m.IgnoredCalls+m.RejectedCalls {
		o.totals = modelTotals{}
	}
	return o
}

func orMinusOne(rate *float64) float64 {
	if rate == nil {
		return -1
	}
	return *rate
}
