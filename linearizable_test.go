package breaker

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// linearOp is what one goroutine asks of a shared breaker. Permits have names, since nobody knows their order.
type linearOp struct {
	at     time.Duration // since New: time stands still while goroutines run in a bubble
	op     string
	permit string
}

// linearReply is what it got.
type linearReply struct {
	admitted bool
	state    State // of a refusal, or as State says
	first    bool  // of Done
}

// linearState is a model and the ids that named permits have in it. It is never changed, only replaced.
type linearState struct {
	m   *model
	ids map[string]int
}

// linearModel is the sequential specification: a history is linearizable if the operations, each at some instant between its
// call and its return, make one that the model allows.
//
// One thing is weaker than the model by design. Done decides outside the lock what its error means, which may take as long as
// the user's code likes, so another Done or Cancel of the same permit meanwhile returns at once, without effect, though the
// first has had none yet. Here such a Done may come at any time, and a Cancel may have no effect.
func linearModel(cfg Config) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{linearState{newModel(cfg), map[string]int{}}} },
		Step: func(state, input, output any) (states []any) {
			in, before := input.(linearOp), state.(linearState)
			if in.op == "cancel" {
				states = append(states, before)
			}
			if allowed, after := before.step(in, output.(linearReply)); allowed {
				states = append(states, after)
			}
			return states
		},
		Equal:             func(a, b any) bool { return reflect.DeepEqual(a, b) },
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
	return m.ToModel()
}

func (s linearState) step(in linearOp, got linearReply) (bool, linearState) {
	m := s.m.after(in.at) // a copy; but for State, every operation looks first
	id, next, want := s.ids[in.permit], linearState{m, s.ids}, linearReply{}
	switch in.op {
	case "state":
		return got.state == m.shown(), s
	case "ask":
		id, refused := m.ask(in.at)
		if want.admitted = refused == nil; refused != nil {
			want.state = refused.state
		}
		next.ids = maps.Clone(s.ids)
		next.ids[in.permit] = id
	case "success", "failure", "ignored":
		if !got.first {
			return true, s
		}
		want.first = id > 0 && m.done(in.at, id, outcomes[in.op], 0)
	case "cancel":
		m.cancel(in.at, id)
	case "progress":
		m.progress(in.at, id)
	case "trip":
		m.manual(in.at, "")
	case "reset":
		m.reset(in.at, "")
	case "force":
		m.hold(in.at, StateForcedOpen, "", "", 0)
	case "disable":
		m.hold(in.at, StateDisabled, "", "", time.Second)
	case "release":
		m.release(in.at)
	}
	return got == want, next
}

// linearRun lets goroutines loose on one breaker and records what each saw.
type linearRun struct {
	b       *Breaker
	clock   atomic.Int64 // orders calls and returns: real time stands still
	permits sync.Map     // by name
	events  []Event

	mu      sync.Mutex // guards the field below
	history []porcupine.Operation
}

func (r *linearRun) do(client int, op linearOp) {
	called := r.clock.Add(1)
	reply := r.perform(op)
	returned := r.clock.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history = append(r.history, porcupine.Operation{ClientId: client, Input: op, Call: called, Output: reply, Return: returned})
}

func (r *linearRun) perform(op linearOp) (reply linearReply) {
	held, _ := r.permits.Load(op.permit)
	permit, _ := held.(*Permit)
	switch op.op {
	case "ask":
		permit, err := r.b.Acquire(context.Background())
		if err != nil {
			return linearReply{state: err.(*OpenError).State}
		}
		r.permits.Store(op.permit, permit)
		return linearReply{admitted: true}
	case "success":
		return linearReply{first: permit.Done(nil)}
	case "failure":
		return linearReply{first: permit.Done(errScripted)}
	case "ignored":
		return linearReply{first: permit.Done(Ignore(errScripted))}
	case "cancel":
		permit.Cancel()
	case "progress":
		permit.Progress()
	case "state":
		return linearReply{state: r.b.State()}
	case "trip":
		r.b.Trip("")
	case "reset":
		r.b.Reset("")
	case "force":
		r.b.ForceOpen(Hold{})
	case "disable":
		r.b.Disable(Hold{For: time.Second})
	case "release":
		r.b.Release()
	}
	return reply
}

// linearOps are the operations drawn from, as often as they should come.
var linearOps = strings.Fields("ask ask ask ask ask ask ask ask success success success failure failure failure failure failure " +
	"ignored cancel progress state state state trip reset force disable release release")

var linearConfig = Config{
	FailureThreshold: 2, FailureRateThreshold: 0.5, MinimumCalls: 3, WindowCalls: 4, SlowCallDuration: time.Second, SlowCallRateThreshold: 0.5,
	OpenTimeout: time.Second, OpenTimeoutJitter: Off, HalfOpenMaxCalls: 2, SuccessThreshold: 2, ProbeTimeout: 2 * time.Second, RampUp: time.Second,
}

const (
	linearClients = 4
	linearRounds  = 4
	linearEach    = 3 // operations of a client in a round
)

// run makes a history of rounds: in each, clients run in parallel; between them time passes. Each client finishes the permits
// of its neighbour too, so that permits are settled twice and from two sides.
func (r *linearRun) run() {
	start := time.Now()
	for round := range linearRounds {
		var wg sync.WaitGroup
		for client := range linearClients {
			wg.Go(func() {
				for range linearEach {
					op := linearOp{at: time.Since(start), op: linearOps[rand.N(len(linearOps))]}
					op.permit = fmt.Sprint(rand.N(round+1), "/", (client+rand.N(2))%linearClients)
					if op.op == "ask" {
						op.permit = fmt.Sprint(round, "/", client)
					}
					if _, there := r.permits.Load(op.permit); there == (op.op == "ask") {
						op.op = "state" // a permit is asked for once, and nothing is done with one that is not there yet
					}
					r.do(client, op)
				}
			})
		}
		wg.Wait()
		time.Sleep([]time.Duration{0, time.Second / 2, time.Second, time.Second + 1, 2 * time.Second}[rand.N(5)])
	}
}

// TestParallelHistoriesAreLinearizable runs goroutines in real parallel on one breaker and looks for an order of their
// operations that the reference model allows.
func TestParallelHistoriesAreLinearizable(t *testing.T) {
	histories := 150
	if proving() {
		histories = 5000
	}
	operations := 0
	for range histories {
		synctest.Test(t, func(t *testing.T) {
			r := &linearRun{}
			r.b = Must(New("parallel", linearConfig, WithListener(func(e Event) { r.events = append(r.events, e) })))
			r.run()
			if !porcupine.CheckOperations(linearModel(linearConfig), r.history) {
				for _, op := range r.history {
					t.Logf("%d: %d..%d %+v -> %+v", op.ClientId, op.Call, op.Return, op.Input, op.Output)
				}
				t.Fatal("no order of these operations is one that the model allows")
			}
			r.checkAccounts(t)
			operations += len(r.history)
		})
	}
	t.Logf("%d parallel histories, %d operations", histories, operations)
}

// checkAccounts looks at what must hold whatever the order was.
func (r *linearRun) checkAccounts(t *testing.T) {
	asked, refused, settled := 0, 0, map[string]int{}
	for _, op := range r.history {
		if op.Output.(linearReply).first {
			settled[op.Input.(linearOp).permit]++
		}
		if op.Input.(linearOp).op == "ask" {
			asked++
			if !op.Output.(linearReply).admitted {
				refused++
			}
		}
	}
	for permit, times := range settled {
		require.Equal(t, 1, times, "Done of permit %s settled it so often", permit)
	}
	_ = r.b.Do(context.Background(), func(context.Context) error { return nil }) // delivers what has fallen due
	m := r.b.Status().Metrics
	require.LessOrEqual(t, refused, m.RejectedCalls)
	require.Equal(t, m.TotalCalls, m.SuccessfulCalls+m.FailedCalls+m.IgnoredCalls+m.RejectedCalls)
	require.LessOrEqual(t, m.TotalCalls, asked+1, "nothing counts twice")
	state := StateClosed
	for i, e := range r.events {
		require.EqualValues(t, i+1, e.Seq, "no gap")
		require.Equal(t, state, e.From, "the chain of events replays to the state")
		state = e.To
	}
	require.Equal(t, state, r.b.State())
}
