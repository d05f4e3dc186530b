package breaker

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// command is one line of a script: what happens to a breaker next. Permits go by the number of the line's ask, from 1.
//
//	ask                       Acquire
//	join 1                    Acquire with the context of permit 1
//	dead                      Acquire with a context that is done already
//	progress 1                Progress
//	done 1 failure            Done: success, failure or ignored; with "2s" after it the verdict has that OpenFor
//	cancel 1                  Cancel
//	do 1s failure             Execute a call that lasts 1s: success, failure, ignored, panic or goexit
//	nest 1s success           the same, and after the 1s it asks the same breaker again, with its own context
//	wait 1s                   time passes
//	trip, reset, release      Trip, Reset, Release
//	force 0s, disable 5s      ForceOpen, Disable; 0s: without an end
//	apply 1                   Apply of the script's configuration 1; New had number 0
type command struct {
	op      string
	n       int // a permit, or a configuration
	d       time.Duration
	ending  string
	openFor time.Duration
}

func (c command) String() string {
	switch c.op {
	case "join", "progress", "cancel", "apply":
		return fmt.Sprintf("%s %d", c.op, c.n)
	case "done":
		return strings.TrimSpace(fmt.Sprintf("done %d %s %s", c.n, c.ending, c.openForText()))
	case "do", "nest":
		return strings.TrimSpace(fmt.Sprintf("%s %v %s %s", c.op, c.d, c.ending, c.openForText()))
	case "wait", "force", "disable":
		return fmt.Sprintf("%s %v", c.op, c.d)
	default:
		return c.op
	}
}

func (c command) openForText() string {
	if c.openFor == 0 {
		return ""
	}
	return c.openFor.String()
}

// parseScript reads commands, one a line; "//" starts a comment.
func parseScript(text string) (script []command, err error) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "//")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		c := command{op: words[0]}
		args := []any{}
		switch c.op {
		case "join", "progress", "cancel", "apply":
			args = append(args, &c.n)
		case "done":
			args = append(args, &c.n, &c.ending, &c.openFor)
		case "do", "nest":
			args = append(args, &c.d, &c.ending, &c.openFor)
		case "wait", "force", "disable":
			args = append(args, &c.d)
		}
		for i, word := range words[1:] {
			if i == len(args) {
				return nil, fmt.Errorf("%q: too many words", line)
			}
			if err := scanWord(word, args[i]); err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
		}
		script = append(script, c)
	}
	return script, nil
}

func scanWord(word string, to any) (err error) {
	if d, ok := to.(*time.Duration); ok {
		*d, err = time.ParseDuration(word)
		return err
	}
	_, err = fmt.Sscan(word, to)
	return err
}

// observed is everything that a breaker lets a caller see after a command, in comparable form; times count from New.
type observed struct {
	state                        State
	failures, successes          int
	failureRate, slowRate        float64       // -1: absent
	run                          int           // consecutive failures
	opened, lastFailed, lastGood time.Duration // -1: absent
	retryAfter                   float64       // seconds
	trip                         modelTrip
	hold                         modelHold
	halfOpenSuccesses            int
	totals                       modelTotals
	inFlight                     int
	transitions                  [10]modelEvent // the last ones, oldest first
}

// reply is what a command returned.
type reply struct {
	admitted bool // of an ask; a refusal has the rest
	state    State
	until    time.Duration // 0: none
	trip     modelTrip
	hold     modelHold
	first    bool // of Done
	failed   bool // something that must not be
}

// view is observed of the model.
func (m *model) view(now time.Duration) observed {
	m = m.after(now)
	o := observed{
		state: m.shown(), run: m.run, failureRate: -1, slowRate: -1, opened: -1,
		lastFailed: orAbsent(m.lastFailed), lastGood: orAbsent(m.lastGood), halfOpenSuccesses: m.successes, totals: m.totals,
	}
	bad, n := counted(m.verdicts)
	o.failures, o.successes = bad, n-bad
	if n > 0 {
		o.failureRate = float64(bad) / float64(n)
	}
	if slow, n := counted(m.durations); n > 0 {
		o.slowRate = float64(slow) / float64(n)
	}
	if m.trip != nil {
		o.opened, o.trip = m.opened, *m.trip
	}
	if m.held != nil {
		o.hold = *m.held
	}
	if until := m.refusal().until; until > 0 && m.shown() != StateDisabled {
		o.retryAfter = (until - now).Seconds()
	}
	for _, c := range m.calls {
		if c.joined == 0 {
			o.inFlight++
		}
	}
	for i, e := range m.events[max(0, len(m.events)-len(o.transitions)):] {
		o.transitions[i] = modelEvent{from: e.from, to: e.to, rule: e.rule, at: e.at}
	}
	return o
}

func orAbsent(d *time.Duration) time.Duration {
	if d == nil {
		return -1
	}
	return *d
}

// modelPlayer plays scripts on the model.
type modelPlayer struct {
	*model
	now    time.Duration
	ids    []int        // by number of the ask, 0 for a refused one
	spent  map[int]bool // ids after Done or Cancel: another does nothing, not even look
	within map[int]int  // the probe that a joiner joined: its own context carries that
}

func (p *modelPlayer) play(c command, configs []Config) reply {
	switch c.op {
	case "ask":
		return p.asked(p.ask(p.now))
	case "join":
		r := p.asked(p.join(p.now, p.context(c.n)))
		if joined := p.ids[len(p.ids)-1]; joined > 0 && p.calls[len(p.calls)-1].joined > 0 {
			p.within[joined] = p.context(c.n)
		}
		return r
	case "do", "nest":
		return p.do(c)
	case "wait":
		p.now += c.d
	case "progress":
		if id := p.id(c.n); id > 0 {
			p.progress(p.now, id)
		}
	case "done":
		if id := p.spend(c.n); id > 0 {
			return reply{first: p.done(p.now, id, outcomes[c.ending], c.openFor)}
		}
	case "cancel":
		if id := p.spend(c.n); id > 0 {
			p.cancel(p.now, id)
		}
	case "trip":
		p.manual(p.now, "by script")
	case "reset":
		p.reset(p.now, "by script")
	case "force":
		p.hold(p.now, StateForcedOpen, "ann", "by script", c.d)
	case "disable":
		p.hold(p.now, StateDisabled, "ann", "by script", c.d)
	case "release":
		p.release(p.now)
	case "apply":
		p.apply(p.now, configs[c.n])
	}
	return reply{}
}

var outcomes = map[string]Outcome{"success": Success, "failure": Failure, "ignored": Ignored, "panic": Failure, "goexit": Failure}

func newModelPlayer(cfg Config) *modelPlayer {
	return &modelPlayer{model: newModel(cfg), spent: map[int]bool{}, within: map[int]int{}}
}

// context is the id of the probe, if any, that the Context of permit n carries.
func (p *modelPlayer) context(n int) int {
	if probe, ok := p.within[p.id(n)]; ok {
		return probe
	}
	return p.id(n)
}

func (p *modelPlayer) id(n int) int {
	if n < 1 || n > len(p.ids) {
		return 0
	}
	return p.ids[n-1]
}

// spend is id for the first Done or Cancel, and 0 from then on.
func (p *modelPlayer) spend(n int) int {
	id := p.id(n)
	if p.spent[id] {
		return 0
	}
	p.spent[id] = true
	return id
}

func (p *modelPlayer) asked(id int, refused *modelRefusal) reply {
	p.ids = append(p.ids, id)
	if refused == nil {
		return reply{admitted: true}
	}
	r := reply{state: refused.state, until: refused.until}
	if refused.trip != nil {
		r.trip = *refused.trip
	}
	if refused.hold != nil {
		r.hold = *refused.hold
	}
	return r
}

func (p *modelPlayer) do(c command) reply {
	r := p.asked(p.ask(p.now))
	id := p.ids[len(p.ids)-1]
	p.ids = p.ids[:len(p.ids)-1]
	if !r.admitted {
		return r
	}
	p.now += c.d
	if c.op == "nest" {
		if inner, refused := p.join(p.now, id); refused == nil {
			p.done(p.now, inner, Success, 0)
		}
	}
	p.done(p.now, id, outcomes[c.ending], c.openFor)
	return r
}

// A scenario is a script with what it must lead to, written down by hand: it is the model's own test. It is also played to a
// breaker, which must agree with the model after every line.
type scenario struct {
	name    string
	configs []Config
	script  string
	state   State
	rule    string        // why it is, or was, not closed
	wait    time.Duration // until calls are admitted again
}

// plain is a configuration whose rules are off, for scenarios to set what they are about.
func plain(change func(c *Config)) Config {
	c := Config{
		FailureThreshold: Off, FailureRateThreshold: Off, OpenTimeout: 10 * time.Second, MaxOpenTimeout: 40 * time.Second,
		OpenTimeoutJitter: Off, HalfOpenMaxCalls: 2, SuccessThreshold: 2, ProbeTimeout: time.Minute,
	}
	change(&c)
	return c
}

var scenarios = []scenario{
	{
		name:    "as many failures in a row as the threshold open it, a success between starts the count again",
		configs: []Config{plain(func(c *Config) { c.FailureThreshold = 3 })},
		script:  "do 1s failure\n do 1s failure\n do 1s success\n do 1s failure\n wait 48h\n do 1s panic\n do 1s goexit",
		state:   StateOpen, rule: "consecutive_failures", wait: 10 * time.Second,
	},
	{
		name:    "a success may be the outcome that reaches MinimumCalls",
		configs: []Config{plain(func(c *Config) { c.FailureRateThreshold, c.MinimumCalls = 0.5, 4 })},
		script:  "do 0s failure\n do 0s success\n do 0s failure\n do 0s ignored\n do 0s success",
		state:   StateOpen, rule: "failure_rate", wait: 10 * time.Second,
	},
	{
		name:    "at exactly SlowCallDuration a call is not slow",
		configs: []Config{plain(func(c *Config) { c.SlowCallDuration, c.MinimumCalls = time.Second, 1 })},
		script:  "ask\n wait 1s\n done 1 success\n do 1s failure",
		state:   StateClosed,
	},
	{
		name:    "calls that hang open it as of the moment when they turned slow",
		configs: []Config{plain(func(c *Config) { c.SlowCallDuration, c.MinimumCalls = time.Second, 3 })},
		script:  "ask\n ask\n ask\n wait 4s",
		state:   StateOpen, rule: "slow_call_rate", wait: 7 * time.Second,
	},
	{
		name:    "a window of time forgets",
		configs: []Config{plain(func(c *Config) { c.FailureRateThreshold, c.MinimumCalls, c.WindowDuration = 0.5, 2, 10*time.Second })},
		script:  "do 0s failure\n wait 10s\n do 0s failure",
		state:   StateClosed,
	},
	{
		name:    "a call longer than the window counts when it ends",
		configs: []Config{plain(func(c *Config) { c.FailureRateThreshold, c.MinimumCalls, c.WindowDuration = 0.5, 2, time.Second })},
		script:  "ask\n ask\n wait 1h\n done 1 failure\n done 2 failure",
		state:   StateOpen, rule: "failure_rate", wait: 10 * time.Second,
	},
	{
		name:    "each re-opening doubles the wait, up to the most",
		configs: []Config{plain(func(c *Config) { c.FailureThreshold = 1 })},
		script:  "do 0s failure\n wait 10s\n do 0s failure\n wait 20s\n do 0s failure\n wait 40s\n do 0s failure\n wait 1s",
		state:   StateOpen, rule: "probe_failed", wait: 39 * time.Second,
	},
	{
		name:    "a recovery without a ramp forgets the doubling",
		configs: []Config{plain(func(c *Config) { c.FailureThreshold = 1 })},
		script:  "do 0s failure\n wait 10s\n do 0s failure\n wait 20s\n do 0s success\n do 0s success\n do 0s failure",
		state:   StateOpen, rule: "consecutive_failures", wait: 10 * time.Second,
	},
	{
		name:    "a trip during the ramp continues the doubling",
		configs: []Config{plain(func(c *Config) { c.FailureThreshold, c.RampUp = 1, time.Minute })},
		script:  "do 0s failure\n wait 10s\n do 0s success\n do 0s success\n do 0s failure",
		state:   StateOpen, rule: "consecutive_failures", wait: 20 * time.Second,
	},
	{
		name:    "five successes close it with three places",
		configs: []Config{plain(func(c *Config) { c.HalfOpenMaxCalls, c.SuccessThreshold = 3, 5 })},
		script:  "trip\n wait 10s\n ask\n ask\n ask\n ask\n done 1 success\n done 2 success\n done 3 success\n do 0s success\n do 0s success",
		state:   StateClosed,
	},
	{
		name:    "a probe that hangs is lost, and its late end adds nothing",
		configs: []Config{plain(func(*Config) {})},
		script:  "trip\n wait 10s\n ask\n wait 1m\n done 1 success",
		state:   StateOpen, rule: "probe_lost", wait: 20 * time.Second,
	},
	{
		name:    "probes without a verdict open it again without doubling",
		configs: []Config{plain(func(*Config) {})},
		script:  "trip\n wait 10s\n ask\n cancel 1\n do 0s ignored",
		state:   StateOpen, rule: "probe_ignored", wait: 10 * time.Second,
	},
	{
		name:    "an endless stream is a success after twice ProbeTimeout and leaves half-open to others",
		configs: []Config{plain(func(c *Config) { c.SuccessThreshold = 1 })},
		script:  "trip\n wait 10s\n ask\n wait 59s\n progress 1\n wait 59s\n progress 1\n wait 2s\n done 1 failure",
		state:   StateClosed,
	},
	{
		name:    "a call of an earlier period decides nothing",
		configs: []Config{plain(func(c *Config) { c.FailureThreshold = 1 })},
		script:  "ask\n ask\n done 1 failure\n wait 10s\n done 2 failure\n do 0s success\n do 0s success",
		state:   StateClosed,
	},
	{
		name:    "a late OpenFor of the period that an opening ended lengthens it, no other does",
		configs: []Config{plain(func(c *Config) { c.FailureThreshold = 1 })},
		script:  "ask\n reset\n ask\n ask\n done 2 failure\n done 1 failure 1m\n done 3 ignored 30s\n wait 1s",
		state:   StateOpen, rule: "consecutive_failures", wait: 29 * time.Second,
	},
	{
		name:    "OpenFor opens for exactly that long, and for less than OpenTimeout if the upstream says so",
		configs: []Config{plain(func(*Config) {})},
		script:  "do 0s ignored 2s",
		state:   StateOpen, rule: "retry_after", wait: 2 * time.Second,
	},
	{
		name:    "OpenFor in half-open wins over a success",
		configs: []Config{plain(func(c *Config) { c.SuccessThreshold = 1 })},
		script:  "trip\n wait 10s\n do 0s success 3s",
		state:   StateOpen, rule: "retry_after", wait: 3 * time.Second,
	},
	{
		name:    "a hold ends at exactly its end, and what it hid has gone on",
		configs: []Config{plain(func(*Config) {})},
		script:  "trip\n disable 10s\n do 0s failure\n wait 10s",
		state:   StateHalfOpen, rule: "manual",
	},
	{
		name:    "outcomes under Disable are counted, and tried by the next that is not",
		configs: []Config{plain(func(c *Config) { c.FailureThreshold = 2 })},
		script:  "disable 0s\n do 0s failure\n do 0s failure\n do 0s failure\n release\n do 0s failure",
		state:   StateOpen, rule: "consecutive_failures", wait: 10 * time.Second,
	},
	{
		name:    "Apply keeps the wait and trips nothing",
		configs: []Config{plain(func(c *Config) { c.FailureThreshold = 3 }), plain(func(c *Config) { c.FailureThreshold, c.OpenTimeout = 1, time.Second })},
		script:  "do 0s failure\n apply 1\n wait 1s\n trip\n apply 0",
		state:   StateOpen, rule: "manual", wait: time.Second,
	},
	{
		name:    "a call inside a probe joins it and takes no place",
		configs: []Config{plain(func(c *Config) { c.HalfOpenMaxCalls, c.SuccessThreshold = 1, 1 })},
		script:  "trip\n wait 10s\n ask\n join 1\n join 2\n ask\n done 2 failure\n done 3 failure\n done 1 success",
		state:   StateClosed,
	},
	{
		name:    "an opening under a hold ended no period, so nobody's OpenFor lengthens it",
		configs: []Config{plain(func(*Config) {})},
		script:  "disable 0s\n ask\n trip\n done 1 failure 1m\n release",
		state:   StateOpen, rule: "manual", wait: 10 * time.Second,
	},
	{
		name:    "a first Progress that comes too late trips nothing under Disable",
		configs: []Config{plain(func(c *Config) { c.SlowCallDuration, c.MinimumCalls = 16*time.Second, 1 })},
		script:  "disable 0s\n ask\n wait 500ms\n ask\n wait 15.6s\n progress 1\n release",
		state:   StateClosed,
	},
	{
		name:    "a first Progress that comes too late trips otherwise",
		configs: []Config{plain(func(c *Config) { c.SlowCallDuration, c.MinimumCalls = 16*time.Second, 1 })},
		script:  "ask\n wait 500ms\n ask\n wait 15.6s\n progress 1",
		state:   StateOpen, rule: "slow_call_rate", wait: 10 * time.Second,
	},
	{
		name:    "an ignored call that lasted too long may trip, and waits for the longer of that and its OpenFor",
		configs: []Config{plain(func(c *Config) { c.SlowCallDuration, c.MinimumCalls = 16*time.Second, 1 })},
		script:  "ask\n wait 500ms\n ask\n wait 15.6s\n done 1 ignored 2s",
		state:   StateOpen, rule: "slow_call_rate", wait: 10 * time.Second,
	},
	{
		name: "a shorter window of time takes over what is young enough, dated with the end of its old bucket",
		configs: []Config{
			plain(func(c *Config) { c.FailureRateThreshold, c.MinimumCalls, c.WindowDuration = 1, 2, 10*time.Second }),
			plain(func(c *Config) { c.FailureRateThreshold, c.MinimumCalls, c.WindowDuration = 1, 2, time.Second }),
		},
		script: "do 0s failure\n wait 1.18s\n apply 1\n do 0s failure",
		state:  StateClosed,
	},
	// Scripts that once told the breaker from the model.
	{
		name:    "a refusal under a hold follows what moves below it",
		configs: []Config{plain(func(*Config) {})},
		script:  "force 0s\n ask\n trip\n ask",
		state:   StateForcedOpen, rule: "manual",
	},
	{
		name: "a slow probe that passes by its progress is a slow call",
		configs: []Config{plain(func(c *Config) {
			c.SlowCallDuration, c.SlowCallRateThreshold, c.ProbeTimeout = time.Second, Off, 4*time.Second
		})},
		script: "trip\n wait 10s\n ask\n wait 3s\n progress 1\n wait 3s\n progress 1\n wait 2s",
		state:  StateHalfOpen, rule: "manual",
	},
}

func TestScripts(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				script, err := parseScript(s.script)
				require.NoError(t, err)
				h := newHistory(s.configs)
				for _, c := range script {
					if diff := h.step(c); diff != "" {
						t.Fatal(h.report(diff))
					}
				}
				end := h.model.view(h.model.now)
				require.Equal(t, s.state, end.state)
				require.Equal(t, s.rule, end.trip.rule)
				require.Equal(t, s.wait.Seconds(), end.retryAfter)
			})
		})
	}
}
