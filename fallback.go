package breaker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Protected is a call behind a breaker, and who answers when it does not: a chain of steps, asked in the order they were
// added, until one has an answer. Make it with [Protect]. It never changes: each Or method returns a new one, so that one
// beginning can serve many chains. It is safe for concurrent use.
//
// The chain is asked when the primary was refused, failed (by its deadline too), or was ignored with a wish for a pause
// ([OpenFor]) or with another breaker's refusal as its error. Any other ignored outcome is the caller's own mistake or
// cancellation: its error is returned at once.
//
// Once the caller's deadline has passed no more calls are made, but cache, rules and value still answer. Once the caller has
// cancelled nothing runs any more: the error is then that of the context, with its cause and what had failed before.
type Protected[Req, Res any] struct {
	primary target[Req, Res]
	steps   []step[Req, Res]
	caches  []*cacheStep[Req, Res]
	invalid error
}

// Result is an answer and the account of how it came about. When nobody answered, Value and Source are empty.
type Result[Res any] struct {
	Value    Res
	Source   string        // who answered, or ended it by an error that is not for others: "primary", "cache", "rule", "default", or OrCall's name
	Degraded bool          // somebody else than the primary answered
	Age      time.Duration // of an answer from the cache, since the primary gave it; never below zero
	Cause    error         // why the primary did not answer, the last of its attempts; nil when it did
	Attempts []Attempt     // all that was tried, in order, the one that answered included
}

// Attempt is one try of one step.
type Attempt struct {
	Name     string        // as in Result.Source
	Err      error         // nil for the one that answered; a refusal, or why it was not called
	Duration time.Duration // without the pauses between attempts
}

const (
	sourcePrimary = "primary"
	sourceCache   = "cache"
	sourceRule    = "rule"
	sourceDefault = "default"
)

// Protect returns call behind b, with nobody yet to answer in its stead.
//
//	answer := breaker.Protect(llm, askLLM, breaker.Within(20*time.Second), breaker.Retry(1, 200*time.Millisecond)).
//		OrCache(nil, keyOf, 5*time.Minute).
//		OrCall("local-model", askLocal, breaker.Through(local), breaker.Within(2*time.Second)).
//		OrRules(greeting, weather).
//		OrValue("sorry, try again later")
//
// A panic or runtime.Goexit of call counts as a failure and goes on untouched; the chain is not asked. Where b, or a function
// here or in the Or methods, is nil, each use of the result is an error that says which, and runs nothing.
func Protect[Req, Res any](b *Breaker, call func(context.Context, Req) (Res, error), opts ...CallOption) *Protected[Req, Res] {
	t, err := newTarget(sourcePrimary, call, opts)
	if t.breaker != nil {
		err = errors.Join(err, errors.New("Through is for OrCall, since Protect names the breaker"))
	}
	t.breaker = b
	return &Protected[Req, Res]{primary: t, invalid: invalidStep(sourcePrimary, errors.Join(err, notNil(b == nil, "its breaker")))}
}

// OrCache answers with what the primary said last time to a request with the same key, when that is not older than maxAge. An
// empty key means that the request is not cached. A nil cache is a [MemoryCache] of its own; a maxAge of zero or less leaves
// the cache out.
//
// Only answers of the primary are stored, after its call has ended, on the caller's goroutine, which waits for at most 100 ms if
// the cache respects its context: that is not cancelled with the caller's. So is a read that begins after the deadline. Errors
// and panics of the cache and of keyOf take no answer away; [Protected.CacheErrors] counts them.
func (p *Protected[Req, Res]) OrCache(cache Cache[Res], keyOf func(Req) string, maxAge time.Duration) *Protected[Req, Res] {
	if maxAge <= 0 {
		return p
	}
	if cache == nil {
		cache = new(MemoryCache[Res])
	}
	c := &cacheStep[Req, Res]{cache: cache, keyOf: keyOf, maxAge: maxAge}
	next := p.or(step[Req, Res]{name: sourceCache, find: c.load}, notNil(keyOf == nil, "keyOf"))
	next.caches = append(slices.Clip(p.caches), c)
	return next
}

// OrCall answers by another call, such as to a second model. name is its Source: neither empty nor "primary". Any error of it,
// whatever its breaker thinks of that, sends the request on to the next step, and so does a panic, which its breaker counts as
// a failure. After runtime.Goexit nothing follows.
func (p *Protected[Req, Res]) OrCall(name string, call func(context.Context, Req) (Res, error), opts ...CallOption) *Protected[Req, Res] {
	t, err := newTarget(name, call, opts)
	if name == "" || name == sourcePrimary {
		err = errors.Join(err, errors.New("its name must be neither empty nor \"primary\""))
	}
	t.survives = true
	return p.or(step[Req, Res]{name: name, call: &t}, err)
}

// OrRules answers by the first rule that says true. A rule that panics makes the step fail. It must not block: it runs even
// after the deadline.
func (p *Protected[Req, Res]) OrRules(rules ...func(Req) (Res, bool)) *Protected[Req, Res] {
	rules = slices.Clone(rules)
	missing := slices.ContainsFunc(rules, func(r func(Req) (Res, bool)) bool { return r == nil })
	find := func(_ context.Context, req Req) (Res, time.Duration, error) {
		for _, rule := range rules {
			if res, ok := rule(req); ok {
				return res, 0, nil
			}
		}
		var zero Res
		return zero, 0, errNoRule
	}
	return p.or(step[Req, Res]{name: sourceRule, find: find}, notNil(missing, "a rule"))
}

var errNoRule = errors.New("no rule matched")

// OrValue answers with v, always. What follows it is never asked.
func (p *Protected[Req, Res]) OrValue(v Res) *Protected[Req, Res] {
	find := func(context.Context, Req) (Res, time.Duration, error) { return v, 0, nil }
	return p.or(step[Req, Res]{name: sourceDefault, find: find}, nil)
}

// CacheErrors returns how many reads and writes of this chain's caches have failed. It counts those of chains made from this
// one, or of which this one was made, as far as they share the same OrCache.
func (p *Protected[Req, Res]) CacheErrors() (n uint64) {
	for _, c := range p.caches {
		n += c.errors.Load()
	}
	return n
}

// Call returns the first answer along the chain, and how it came about.
//
// The error is nil whenever somebody answered, unless the answer of the primary is itself an error (see [Expect]). Otherwise it
// is that of the primary, if that ends the matter (see [Protected]) or nothing else was tried; that of the context, once the
// caller has cancelled; else one error that names every attempt and matches each of their errors with [errors.Is]. Cause and
// Attempts are filled in either way.
func (p *Protected[Req, Res]) Call(ctx context.Context, req Req) (Result[Res], error) {
	return p.answer(ctx, req, journal{timed: true})
}

// Do is [Protected.Call] for those who want the answer only: it has the signature of the primary, so it can take its place.
// When the primary answers and there is no Within, Retry or OrCache, it allocates nothing and costs little more than [Execute].
func (p *Protected[Req, Res]) Do(ctx context.Context, req Req) (Res, error) {
	var log journal
	if !p.direct() {
		r, err := p.answer(ctx, req, log)
		return r.Value, err
	}
	res, v, err := p.primary.attempt(ctx, req)
	if err == nil {
		return res, nil
	}
	err = p.primary.note(&log, time.Time{}, err)
	r, err := p.conclude(ctx, req, res, v, err, log)
	return r.Value, err
}

// direct reports whether there is nothing to do about a primary that answers but to hand its answer on.
func (p *Protected[Req, Res]) direct() bool {
	return p.invalid == nil && p.primary.within <= 0 && p.primary.retries <= 0 && len(p.caches) == 0
}

func (p *Protected[Req, Res]) answer(ctx context.Context, req Req, log journal) (Result[Res], error) {
	if p.invalid != nil {
		return Result[Res]{}, p.invalid
	}
	res, v, err := p.primary.ask(ctx, req, &log)
	return p.conclude(ctx, req, res, v, err, log)
}

// conclude makes a result of what the primary has given.
func (p *Protected[Req, Res]) conclude(ctx context.Context, req Req, res Res, v Verdict, err error, log journal) (Result[Res], error) {
	switch {
	case v.Outcome == Success: // with an error too: some are answers, see Expect
		if err == nil {
			for _, c := range p.caches {
				c.store(ctx, req, res)
			}
		}
		return Result[Res]{Value: res, Source: sourcePrimary, Attempts: log.attempts}, err
	case cancelled(ctx):
		return Result[Res]{Cause: err, Attempts: log.attempts}, withCancellation(ctx, err)
	case !asksChain(v, err):
		return Result[Res]{Value: res, Source: sourcePrimary, Cause: err, Attempts: log.attempts}, err
	}
	return p.fallBack(ctx, req, err, log)
}

// asksChain reports whether a primary that ended so is one to stand in for. An unset outcome is that of a call never made.
func asksChain(v Verdict, err error) bool {
	return v.Outcome == unset || v.Outcome == Failure || v.OpenFor > 0 || isRefusal(err)
}

// fallBack asks the steps in order. Whatever happens to a request that the primary did not answer, it happens here.
func (p *Protected[Req, Res]) fallBack(ctx context.Context, req Req, cause error, log journal) (Result[Res], error) {
	for i := range p.steps {
		if cancelled(ctx) {
			break
		}
		s := &p.steps[i]
		res, age, err := s.answer(ctx, req, &log)
		if err == nil {
			p.primary.breaker.fallbacks.add(s.name)
			return Result[Res]{Value: res, Source: s.name, Degraded: true, Age: age, Cause: cause, Attempts: log.attempts}, nil
		}
	}
	err := log.err()
	if cancelled(ctx) {
		err = withCancellation(ctx, err)
	}
	return Result[Res]{Cause: cause, Attempts: log.attempts}, err
}

// step is one that answers when those before it have not: by a call, which needs time, or by looking something up, which is
// done even when there is none left.
type step[Req, Res any] struct {
	name string
	call *target[Req, Res]
	find func(context.Context, Req) (Res, time.Duration, error)
}

func (s *step[Req, Res]) answer(ctx context.Context, req Req, log *journal) (res Res, age time.Duration, err error) {
	if s.call != nil {
		res, _, err = s.call.ask(ctx, req, log)
		return res, 0, err
	}
	began := log.now()
	err = survive(func() (err error) {
		res, age, err = s.find(ctx, req)
		return err
	})
	log.add(s.name, began, err)
	return res, age, err
}

// or returns p with one step more. With something wrong about any of its steps a chain refuses to work.
func (p *Protected[Req, Res]) or(s step[Req, Res], wrong error) *Protected[Req, Res] {
	next := *p
	next.steps = append(slices.Clip(p.steps), s)
	next.invalid = errors.Join(p.invalid, invalidStep(s.name, wrong))
	return &next
}

func invalidStep(name string, wrong error) error {
	if wrong == nil {
		return nil
	}
	return fmt.Errorf("breaker: the step %q of a Protected cannot work: %w", name, wrong)
}

func notNil(missing bool, what string) error {
	if missing {
		return errors.New(what + " is nil")
	}
	return nil
}

// cancelled reports whether the caller has given up, other than by its deadline.
func cancelled(ctx context.Context) bool {
	err := ctx.Err()
	return err != nil && !errors.Is(err, context.DeadlineExceeded)
}

// withCancellation adds to err that the caller has cancelled, and why, unless it says so already.
func withCancellation(ctx context.Context, err error) error {
	for _, why := range []error{context.Cause(ctx), ctx.Err()} {
		if !errors.Is(err, why) {
			err = fmt.Errorf("%w: %w", why, err)
		}
	}
	return err
}

// journal notes the attempts made for one request. Untimed it leaves out the durations, and a success: clocks and memory cost
// more than all else that Do adds to a call.
type journal struct {
	attempts []Attempt
	timed    bool
}

func (j *journal) now() (t time.Time) {
	if j.timed {
		t = time.Now()
	}
	return t
}

func (j *journal) add(name string, began time.Time, err error) {
	switch {
	case j.timed:
		j.attempts = append(j.attempts, Attempt{name, err, time.Since(began)})
	case err != nil:
		j.attempts = append(j.attempts, Attempt{Name: name, Err: err})
	}
}

// err returns what to tell a caller whom nobody answered.
func (j *journal) err() error {
	if len(j.attempts) == 1 {
		return j.attempts[0].Err
	}
	return &chainError{j.attempts}
}

// chainError is the end of a chain: every attempt has failed.
type chainError struct{ attempts []Attempt }

// Error is one line, whatever the texts in it.
func (e *chainError) Error() string {
	texts := make([]string, len(e.attempts))
	for i, a := range e.attempts {
		texts[i] = a.Name + ": " + strings.ReplaceAll(fmt.Sprint(a.Err), "\n", " | ")
	}
	return "breaker: nobody answered: " + strings.Join(texts, "; ")
}

func (e *chainError) Unwrap() []error {
	errs := make([]error, len(e.attempts))
	for i, a := range e.attempts {
		errs[i] = a.Err
	}
	return errs
}

// survive runs f and makes a panic its error.
func survive(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicked(v)
		}
	}()
	return f()
}

// panicked makes an error of a panic's value, and says where it was: nobody will see the stack.
func panicked(v any) error {
	verb := "%v"
	if _, ok := v.(error); ok {
		verb = "%w"
	}
	return fmt.Errorf("panicked at %s: "+verb, panicSite(), v)
}

// panicSite returns file and line of the latest panic. It must be called while that is being recovered.
func panicSite() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs)])
	for panicking := false; ; {
		frame, more := frames.Next()
		if panicking && !strings.HasPrefix(frame.Function, "runtime.") || !more {
			return fmt.Sprintf("%s:%d", filepath.Base(frame.File), frame.Line)
		}
		panicking = panicking || frame.Function == "runtime.gopanic"
	}
}
