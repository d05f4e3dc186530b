package demo

import (
	"context"
	"sync"
	"time"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/service"
)

// recorder writes down what happens in one run, as it happens, from whichever goroutine sees it.
type recorder struct {
	mu     sync.Mutex // guards the field below
	report Report
}

func (r *recorder) beginAct(a act) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Acts = append(r.report.Acts, Act{Name: a.name, Ill: a.ill, Begin: time.Now(), Reached: make(map[string][]time.Time)})
}

func (r *recorder) endAct(refused int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.currentLocked()
	a.End, a.Refused = time.Now(), refused
}

// currentLocked is the act being played. There is none before the first.
func (r *recorder) currentLocked() *Act {
	if len(r.report.Acts) == 0 {
		return nil
	}
	return &r.report.Acts[len(r.report.Acts)-1]
}

// asked notes a request in the act it was asked in, which may have ended.
func (r *recorder) asked(act int, q Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := &r.report.Acts[act]
	a.Requests = append(a.Requests, q)
}

// reached notes a call that arrived at the upstream behind a breaker.
func (r *recorder) reached(name string) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.currentLocked(); a != nil {
		a.Reached[name] = append(a.Reached[name], now)
	}
}

// changed notes what matters of a breaker's event.
func (r *recorder) changed(e breaker.Event) {
	if e.To != breaker.StateOpen && e.Rule != breaker.RuleRecovered {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Changes = append(r.report.Changes, Change{e.Breaker.Name(), e.At, e.To == breaker.StateOpen})
}

// sources counts the answers of an act by who gave them.
func (r *recorder) sources(act int) map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if act >= len(r.report.Acts) {
		return nil
	}
	return r.report.Acts[act].bySource()
}

// result returns the report once nothing is recorded any more.
func (r *recorder) result(took time.Duration, promises map[string]Promises) Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Took, r.report.Promises = took, promises
	return r.report
}

// watched is a cache that notes what is written to it.
type watched struct {
	breaker.Cache[service.Answer]
	recorder *recorder
}

func (c watched) Store(ctx context.Context, key string, e breaker.Entry[service.Answer]) error {
	c.recorder.mu.Lock()
	c.recorder.report.Cached = append(c.recorder.report.Cached, e.Value)
	c.recorder.mu.Unlock()
	return c.Cache.Store(ctx, key, e)
}
