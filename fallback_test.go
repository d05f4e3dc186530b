package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

type (
	prompt string
	reply  string
)

var (
	errUpstream = errors.New("upstream said 503")
	errLocal    = errors.New("local model is out of memory")
	errNoRows   = errors.New("no rows")
)

// calls is an upstream that answers with whatever end says, and counts.
type calls struct {
	made atomic.Int64
	end  func(ctx context.Context, n int) (reply, error) // n from 1
}

func (c *calls) ask(ctx context.Context, _ prompt) (reply, error) {
	return c.end(ctx, int(c.made.Add(1)))
}

func answers(r reply) *calls {
	return &calls{end: func(context.Context, int) (reply, error) { return r, nil }}
}

func failsWith(err error) *calls {
	return &calls{end: func(context.Context, int) (reply, error) { return "", err }}
}

// hangs until its context is done.
func hangs() *calls {
	return &calls{end: func(ctx context.Context, _ int) (reply, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}}
}

func upstream(opts ...breaker.Option) *breaker.Breaker {
	return breaker.Must(breaker.New("llm", breaker.Config{OpenTimeoutJitter: breaker.Off}, opts...))
}

func itself(p prompt) string { return string(p) }

func greeting(p prompt) (reply, bool) { return "hello yourself", p == "hello" }

func names(attempts []breaker.Attempt) (names []string) {
	for _, a := range attempts {
		names = append(names, a.Name)
	}
	return names
}

func Example_fallback() {
	type Answer string
	llm := breaker.Must(breaker.New("llm", breaker.Config{FailureThreshold: 10}))
	local := breaker.Must(breaker.New("local-model", breaker.Config{}))
	ill := false
	askLLM := func(_ context.Context, prompt string) (Answer, error) {
		if ill {
			return "", errors.New("503 Service Unavailable")
		}
		return Answer("a model's answer to " + prompt), nil
	}
	askLocal := func(context.Context, string) (Answer, error) { return "", errors.New("out of memory") }
	weather := func(prompt string) (Answer, bool) { return "look out of the window", prompt == "weather?" }

	answer := breaker.Protect(llm, askLLM, breaker.Within(20*time.Second), breaker.Retry(1, time.Millisecond)).
		OrCache(nil, func(prompt string) string { return prompt }, 5*time.Minute).
		OrCall("local-model", askLocal, breaker.Through(local), breaker.Within(2*time.Second)).
		OrRules(weather).
		OrValue("sorry, try again later")

	ctx := context.Background()
	for _, prompt := range []string{"why?", "why?", "weather?", "when?"} {
		res, err := answer.Call(ctx, prompt)
		if err != nil { // only when the caller cancels: OrValue cannot fail
			fmt.Println(err)
			return
		}
		if res.Degraded { // the one place where a fallback is logged
			fmt.Printf("warn: degraded answer from %s: %v\n", res.Source, res.Cause)
		}
		fmt.Println(res.Value)
		ill = true
	}
	// Output:
	// a model's answer to why?
	// warn: degraded answer from cache: 503 Service Unavailable
	// a model's answer to why?
	// warn: degraded answer from rule: 503 Service Unavailable
	// look out of the window
	// warn: degraded answer from default: 503 Service Unavailable
	// sorry, try again later
}

func ExampleProtect() {
	llm := breaker.Must(breaker.New("llm", breaker.Config{}))
	ask := func(context.Context, string) (string, error) { return "", errors.New("503 Service Unavailable") }

	answer := breaker.Protect(llm, ask).OrValue("sorry, try again later")
	text, err := answer.Do(context.Background(), "why?")
	fmt.Println(text, err)
	// Output: sorry, try again later <nil>
}

func ExampleProtected_Call() {
	llm := breaker.Must(breaker.New("llm", breaker.Config{}))
	llm.ForceOpen(breaker.Hold{By: "ann", Reason: "migration"})
	ask := func(context.Context, string) (string, error) { return "never asked", nil }
	local := func(context.Context, string) (string, error) { return "", errors.New("out of memory") }

	res, err := breaker.Protect(llm, ask).OrCall("local-model", local).OrValue("sorry").Call(context.Background(), "why?")
	fmt.Println(res.Value, res.Source, res.Degraded, err)
	for _, a := range res.Attempts {
		fmt.Printf("%s: %v\n", a.Name, a.Err)
	}
	// Output:
	// sorry default true <nil>
	// primary: breaker: "llm" is forced open by ann: migration
	// local-model: out of memory
	// default: <nil>
}

func TestNoCallNeedsATypeArgument(t *testing.T) {
	type Ask func(context.Context, prompt) (reply, error)
	llm := answers("yes")
	p := breaker.Protect(upstream(), llm.ask).
		OrCache(nil, itself, time.Minute).
		OrCache(breaker.NewMemoryCache[reply](3), func(prompt) string { return "" }, time.Minute).
		OrCall("local", failsWith(errLocal).ask, breaker.Through(upstream()), breaker.Within(time.Second), breaker.Retry(1, 0)).
		OrRules(greeting).
		OrRules().
		OrValue("sorry")
	res, err := p.Do(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, reply("yes"), res)
	again := breaker.Protect(upstream(), Ask(p.Do)) // Do has the primary's own signature
	res, err = again.Do(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, reply("yes"), res)
}

func TestAPrimaryThatAnswersIsTheWholeStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		llm := &calls{end: func(context.Context, int) (reply, error) {
			time.Sleep(3 * time.Second)
			return "yes", nil
		}}
		local := answers("no")
		res, err := breaker.Protect(upstream(), llm.ask).OrCall("local", local.ask).OrValue("sorry").Call(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, breaker.Result[reply]{
			Value: "yes", Source: "primary",
			Attempts: []breaker.Attempt{{Name: "primary", Duration: 3 * time.Second}},
		}, res)
		require.Zero(t, local.made.Load())
	})
}

// The heart of it: which ends of the primary hand the request on.
func TestEachAnswerOfThePrimaryIsHandedOn(t *testing.T) {
	llm := breaker.Protect(upstream(), func(_ context.Context, p prompt) (reply, error) { return reply(p), nil })
	for _, want := range []reply{"the first one needs the lock", "the second", "the third"} {
		got, err := llm.Do(t.Context(), prompt(want))
		require.NoError(t, err)
		require.Equal(t, want, got)
		res, err := llm.Call(t.Context(), prompt(want))
		require.NoError(t, err)
		require.Equal(t, want, res.Value)
	}
}

func TestTheChainRunsWhenThePrimaryWasRefusedOrFailed(t *testing.T) {
	refusedElsewhere := fmt.Errorf("post: %w", &breaker.OpenError{Name: "other"})
	mistakes := breaker.WithClassifier(func(_ context.Context, err error) breaker.Verdict {
		if errors.Is(err, errNoRows) {
			return breaker.Verdict{Outcome: breaker.Ignored, OpenFor: time.Second}
		}
		return breaker.Verdict{}
	})
	for _, c := range []struct {
		name   string
		end    error
		opts   []breaker.Option
		source string
		err    error
	}{
		{"a failure", errUpstream, nil, "default", nil},
		{"a failure with OpenFor", breaker.OpenFor(errUpstream, time.Minute), nil, "default", nil},
		{"an ignored outcome with OpenFor", breaker.Ignore(breaker.OpenFor(errUpstream, time.Minute)), nil, "default", nil},
		{"an ignored outcome with the shortest OpenFor", breaker.Ignore(breaker.OpenFor(errUpstream, 1)), nil, "default", nil},
		{"an ignored outcome for which a classifier says OpenFor", errNoRows, []breaker.Option{mistakes}, "default", nil},
		{"another breaker's refusal, which is ignored", refusedElsewhere, nil, "default", nil},
		{"a deadline that the call made for itself", context.DeadlineExceeded, nil, "default", nil},
		{"a cancellation that is not the caller's", context.Canceled, nil, "default", nil},
		{"an ignored outcome does not", breaker.Ignore(errUpstream), nil, "primary", errUpstream},
		{"an expected error does not", errNoRows, []breaker.Option{breaker.WithClassifier(breaker.Expect(errNoRows))}, "primary", errNoRows},
		{"an expected error with OpenFor does not", breaker.OpenFor(errNoRows, 1), []breaker.Option{breaker.WithClassifier(breaker.Expect(errNoRows))}, "primary", errNoRows},
	} {
		t.Run(c.name, func(t *testing.T) {
			llm := &calls{end: func(context.Context, int) (reply, error) { return "half an answer", c.end }}
			res, err := breaker.Protect(upstream(c.opts...), llm.ask).OrValue("sorry").Call(t.Context(), "x")
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.source, res.Source)
			require.Equal(t, c.source == "default", res.Degraded)
			if res.Degraded {
				require.Equal(t, reply("sorry"), res.Value)
				require.Equal(t, []string{"primary", "default"}, names(res.Attempts))
			} else {
				require.Equal(t, reply("half an answer"), res.Value)
				require.Equal(t, []string{"primary"}, names(res.Attempts))
			}
			if c.opts == nil || res.Degraded {
				require.Equal(t, c.end, res.Cause)
			} else {
				require.NoError(t, res.Cause, "the primary did answer")
			}
		})
	}
	t.Run("a refusal", func(t *testing.T) {
		b, llm := upstream(), answers("yes")
		b.Trip("")
		res, err := breaker.Protect(b, llm.ask).OrValue("sorry").Call(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, "default", res.Source)
		require.ErrorIs(t, res.Cause, breaker.ErrOpen)
		require.ErrorIs(t, res.Attempts[0].Err, breaker.ErrOpen)
		require.Zero(t, llm.made.Load())
	})
}

func TestEachAttemptIsClassifiedOnce(t *testing.T) {
	var asked int
	b := upstream(breaker.WithClassifier(func(context.Context, error) breaker.Verdict { asked++; return breaker.Verdict{} }))
	_, err := breaker.Protect(b, failsWith(errUpstream).ask).OrValue("sorry").Do(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, 1, asked)
	require.Equal(t, 1, b.Status().FailureCount)
}

func TestAttemptsTellEveryStepInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		llm := &calls{end: func(context.Context, int) (reply, error) {
			time.Sleep(time.Second)
			return "", errUpstream
		}}
		slow := &calls{end: func(context.Context, int) (reply, error) {
			time.Sleep(2 * time.Second)
			return "", errLocal
		}}
		closed := upstream()
		closed.Trip("")
		res, err := breaker.Protect(upstream(), llm.ask, breaker.Retry(1, 0)).
			OrCache(nil, itself, time.Minute).
			OrCall("behind", answers("no").ask, breaker.Through(closed)).
			OrCall("local", slow.ask).
			OrRules(greeting).
			OrValue("sorry").
			Call(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, []string{"primary", "primary", "cache", "behind", "local", "rule", "default"}, names(res.Attempts))
		var texts []string
		var took []time.Duration
		for _, a := range res.Attempts {
			texts = append(texts, fmt.Sprint(a.Err))
			took = append(took, a.Duration)
		}
		require.Equal(t, []string{errUpstream.Error(), errUpstream.Error(), "no answer stored",
			`breaker: "llm" is open: a trip by hand; retry after 26s`, errLocal.Error(), "no rule matched", "<nil>"}, texts)
		require.Equal(t, []time.Duration{time.Second, time.Second, 0, 0, 2 * time.Second, 0, 0}, took)
		require.Equal(t, "default", res.Source)
		require.Equal(t, errUpstream, res.Cause)
	})
}

func TestRulesAnswerInOrder(t *testing.T) {
	p := breaker.Protect(upstream(), failsWith(errUpstream).ask).
		OrRules(greeting, func(prompt) (reply, bool) { return "second", true }, func(prompt) (reply, bool) { panic("never asked") })
	for said, want := range map[prompt]reply{"hello": "hello yourself", "what?": "second"} {
		res, err := p.Call(t.Context(), said)
		require.NoError(t, err)
		require.Equal(t, want, res.Value)
		require.Equal(t, "rule", res.Source)
		require.Zero(t, res.Age)
	}
}

func TestOnceTheDeadlineHasPassedOnlyCallsAreSkipped(t *testing.T) {
	for name, before := range map[string]func(context.Context){
		"before the primary": func(ctx context.Context) { <-ctx.Done() },
		"during the primary": func(context.Context) {},
	} {
		for _, last := range []string{"cache", "rule", "default"} {
			t.Run(name+", "+last+" answers", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b, llm, local := upstream(), hangs(), answers("no")
					p := breaker.Protect(b, llm.ask, breaker.Retry(3, time.Millisecond)).OrCall("local", local.ask, breaker.Retry(3, 0))
					stored := breaker.NewMemoryCache[reply](1)
					require.NoError(t, stored.Store(t.Context(), "hello", breaker.Entry[reply]{Value: "stored", StoredAt: time.Now()}))
					switch last {
					case "cache":
						p = p.OrCache(stored, itself, time.Minute)
					case "rule":
						p = p.OrRules(greeting)
					default:
						p = p.OrValue("sorry")
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					before(ctx)
					res, err := p.Call(ctx, "hello")
					require.NoError(t, err)
					require.Equal(t, last, res.Source)
					require.ErrorIs(t, res.Cause, context.DeadlineExceeded)
					require.Zero(t, local.made.Load())
					require.Equal(t, []string{"primary", "local", last}, names(res.Attempts))
					require.EqualError(t, res.Attempts[1].Err, "not called: context deadline exceeded")
					require.EqualValues(t, llm.made.Load(), b.Status().FailureCount, "a deadline is a failure; what never ran counts nowhere")
				})
			})
		}
	}
}

func TestOnceTheCallerHasCancelledNothingRuns(t *testing.T) {
	errLeft := errors.New("the client went away")
	type setup struct {
		p     func(cancel func()) *breaker.Protected[prompt, reply]
		early bool
		tried []string
	}
	hangUp := func(cancel func(), err error) func(context.Context, prompt) (reply, error) {
		return func(context.Context, prompt) (reply, error) { cancel(); return "", err }
	}
	for name, s := range map[string]setup{
		"before the primary": {func(func()) *breaker.Protected[prompt, reply] { return breaker.Protect(upstream(), answers("no").ask) }, true, []string{"primary"}},
		"during the primary": {func(cancel func()) *breaker.Protected[prompt, reply] {
			return breaker.Protect(upstream(), hangUp(cancel, context.Canceled), breaker.Within(time.Hour), breaker.Retry(5, 0))
		}, false, []string{"primary"}},
		"during a primary that asks for a pause": {func(cancel func()) *breaker.Protected[prompt, reply] {
			return breaker.Protect(upstream(), hangUp(cancel, breaker.OpenFor(errUpstream, time.Hour)), breaker.Retry(5, 0))
		}, false, []string{"primary"}},
		"during a step": {func(cancel func()) *breaker.Protected[prompt, reply] {
			return breaker.Protect(upstream(), failsWith(errUpstream).ask).OrCall("local", hangUp(cancel, errLocal), breaker.Retry(5, 0))
		}, false, []string{"primary", "local"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if s.early {
				cancel(errLeft)
			}
			p := s.p(func() { cancel(errLeft) }).
				OrCall("never", func(context.Context, prompt) (reply, error) { panic("called") }).
				OrRules(func(prompt) (reply, bool) { panic("asked") }).
				OrValue("sorry")
			res, err := p.Call(ctx, "x")
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, errLeft)
			require.ErrorIs(t, err, res.Cause)
			require.Equal(t, s.tried, names(res.Attempts))
			require.Empty(t, res.Value)
			require.Empty(t, res.Source)
			require.False(t, res.Degraded)
		})
	}
	t.Run("without a cause the error is the context's own, as from Execute", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		b := upstream()
		_, err := breaker.Protect(b, answers("no").ask).OrValue("sorry").Do(ctx, "x")
		require.Equal(t, context.Canceled, err)
		require.Zero(t, b.Status().Metrics.TotalCalls)
	})
	t.Run("to the breaker it is ignored", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := upstream()
		p := breaker.Protect(b, hangUp(cancel, errUpstream), breaker.Within(time.Hour)).OrValue("sorry")
		_, err := p.Do(ctx, "x")
		require.ErrorIs(t, err, errUpstream)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 1, b.Status().Metrics.IgnoredCalls)
	})
	t.Run("an answer that came all the same is an answer", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := breaker.Protect(upstream(), func(context.Context, prompt) (reply, error) { cancel(); return "yes", nil })
		res, err := p.Do(ctx, "x")
		require.NoError(t, err)
		require.Equal(t, reply("yes"), res)
	})
}

func TestAPanicOfThePrimaryPropagates(t *testing.T) {
	b, cache := upstream(), breaker.NewMemoryCache[reply](1)
	p := breaker.Protect(b, func(context.Context, prompt) (reply, error) { panic("boom") }, breaker.Retry(3, 0)).
		OrCache(cache, itself, time.Minute).OrValue("sorry")
	require.PanicsWithValue(t, "boom", func() { _, _ = p.Call(t.Context(), "x") })
	require.Equal(t, 1, b.Status().FailureCount)
	_, found, _ := cache.Load(t.Context(), "x")
	require.False(t, found)
}

func TestGoexitGoesOnFromAnyStep(t *testing.T) {
	goexit := func(context.Context, prompt) (reply, error) { runtime.Goexit(); return "", nil }
	b, local := upstream(), upstream()
	answered := func(p *breaker.Protected[prompt, reply]) (yes bool) {
		exits(func() {
			_, _ = p.Do(t.Context(), "x")
			yes = true
		})
		return yes
	}
	require.False(t, answered(breaker.Protect(b, goexit).OrValue("sorry")))
	require.Equal(t, 1, b.Status().FailureCount)
	p := breaker.Protect(b, failsWith(errUpstream).ask).OrCall("local", goexit, breaker.Through(local)).OrValue("sorry")
	require.False(t, answered(p))
	require.Equal(t, 1, local.Status().FailureCount)
}

func TestAPanicOfAStepIsThatStepsFailure(t *testing.T) {
	local := upstream()
	var none map[string]int
	p := breaker.Protect(upstream(), failsWith(errUpstream).ask).
		OrCall("wrapped", func(context.Context, prompt) (reply, error) { panic(errLocal) }, breaker.Through(local)).
		OrCall("bare", func(context.Context, prompt) (reply, error) { panic("no model loaded") }).
		OrCall("runtime", func(context.Context, prompt) (reply, error) { none["x"] = 1; return "", nil }).
		OrCall("nil", func(_ context.Context, p prompt) (reply, error) { return *(*reply)(nil), nil }).
		OrRules(func(prompt) (reply, bool) { panic("a bad rule") })
	res, err := p.Call(t.Context(), "x")
	require.ErrorIs(t, err, errLocal)
	require.Equal(t, []string{"primary", "wrapped", "bare", "runtime", "nil", "rule"}, names(res.Attempts))
	for i, text := range []string{"local model is out of memory", "no model loaded", "assignment to entry in nil map", "nil pointer dereference", "a bad rule"} {
		require.Regexp(t, `^panicked at fallback_test\.go:\d+: .*`+text, res.Attempts[i+1].Err.Error())
	}
	require.Equal(t, 1, local.Status().FailureCount)

	got, err := p.OrValue("sorry").Do(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, reply("sorry"), got)
}

func TestWhenAllFailOneErrorNamesAndMatchesEach(t *testing.T) {
	b := upstream()
	b.ForceOpen(breaker.Hold{})
	p := breaker.Protect(b, answers("no").ask).
		OrCache(nil, itself, time.Minute).
		OrCall("local", failsWith(errors.Join(errLocal, errNoRows)).ask).
		OrRules(greeting)
	res, err := p.Call(t.Context(), "x")
	require.EqualError(t, err, `breaker: nobody answered: primary: breaker: "llm" is forced open; cache: no answer stored; `+
		`local: local model is out of memory | no rows; rule: no rule matched`)
	for _, want := range []error{breaker.ErrOpen, errLocal, errNoRows} {
		require.ErrorIs(t, err, want)
	}
	refusal, ok := errors.AsType[*breaker.OpenError](err)
	require.True(t, ok)
	require.Equal(t, "llm", refusal.Name)
	require.Equal(t, refusal, res.Cause)
	require.Empty(t, res.Source)
	require.False(t, res.Degraded)

	_, sameErr := p.Do(t.Context(), "x")
	require.EqualError(t, sameErr, err.Error())
}

func TestWithoutStepsTheErrorIsThePrimarysOwn(t *testing.T) {
	res, err := breaker.Protect(upstream(), failsWith(errUpstream).ask).Call(t.Context(), "x")
	require.Equal(t, errUpstream, err)
	require.Equal(t, errUpstream, res.Cause)
}

func TestANilPointerAsErrorIsAFailureLikeOthers(t *testing.T) {
	llm := failsWith((*url.Error)(nil))
	res, err := breaker.Protect(upstream(), llm.ask, breaker.Retry(1, 0)).OrRules(greeting).Call(t.Context(), "x")
	require.NotErrorIs(t, err, breaker.ErrOpen)
	require.EqualError(t, res.Cause, "the call returned a nil *url.Error as its error")
	require.EqualValues(t, 2, llm.made.Load())
	_, err = breaker.Protect(upstream(breaker.WithClassifier(verdict(breaker.Ignored, 0))), llm.ask).Do(t.Context(), "x")
	require.EqualError(t, err, "the call returned a nil *url.Error as its error")
}

func TestAProtectedNeverChanges(t *testing.T) {
	base := breaker.Protect(upstream(), failsWith(errUpstream).ask).OrRules(greeting).OrRules(greeting).OrRules(greeting)
	a, b := base.OrValue("a"), base.OrValue("b")
	for want, p := range map[reply]*breaker.Protected[prompt, reply]{"a": a, "b": b} {
		res, err := p.Do(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, want, res)
	}
	_, err := base.Do(t.Context(), "x")
	require.ErrorIs(t, err, errUpstream)

	cached := breaker.Protect(upstream(), answers("yes").ask)
	for range 3 {
		cached = cached.OrCache(nil, itself, time.Minute)
	}
	left, right := breaker.NewMemoryCache[reply](1), breaker.NewMemoryCache[reply](1)
	c, _ := cached.OrCache(left, itself, time.Minute), cached.OrCache(right, itself, time.Minute)
	_, err = c.Do(t.Context(), "x")
	require.NoError(t, err)
	_, found, _ := left.Load(t.Context(), "x")
	require.True(t, found)
	_, found, _ = right.Load(t.Context(), "x")
	require.False(t, found)

	rules := []func(prompt) (reply, bool){greeting}
	p := base.OrRules(rules...)
	rules[0] = nil
	_, err = p.Do(t.Context(), "x")
	require.ErrorIs(t, err, errUpstream)
	require.NotContains(t, err.Error(), "panicked")
}

func TestThroughPutsAStepBehindItsOwnBreaker(t *testing.T) {
	b, local, step := upstream(), upstream(), failsWith(errLocal)
	p := breaker.Protect(b, failsWith(errUpstream).ask).OrCall("local", step.ask, breaker.Through(local)).OrValue("sorry")
	for range 9 {
		_, err := p.Do(t.Context(), "x")
		require.NoError(t, err)
	}
	require.Equal(t, breaker.StateOpen, local.State())
	require.EqualValues(t, 5, step.made.Load())
	require.Equal(t, 4, local.Status().Metrics.RejectedCalls)
	require.Equal(t, 5, local.Status().Metrics.FailedCalls)
	require.Equal(t, 5, b.Status().Metrics.FailedCalls)
}

func TestACallInsideAProbeJoinsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.Must(breaker.New("llm", breaker.Config{HalfOpenMaxCalls: 1, OpenTimeoutJitter: breaker.Off}))
		b.Trip("")
		time.Sleep(30 * time.Second)
		_, err := breaker.Protect(b, breaker.Protect(b, answers("yes").ask).Do).Do(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, 1, b.Status().HalfOpenSuccesses)
	})
}

func TestWithinBoundsOnlyItsOwnStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, local := upstream(), upstream()
		start := time.Now()
		res, err := breaker.Protect(b, hangs().ask, breaker.Within(2*time.Second)).
			OrCall("first", hangs().ask, breaker.Within(time.Second), breaker.Through(local)).
			OrCall("second", answers("yes").ask).
			Call(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, "second", res.Source)
		require.ErrorIs(t, res.Cause, context.DeadlineExceeded)
		require.Equal(t, 1, b.Status().FailureCount, "running out of time is a failure of the primary")
		require.Equal(t, 1, local.Status().FailureCount)
	})
}

func TestTimeoutsOfWithinOpenTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, llm := upstream(), hangs()
		p := breaker.Protect(b, llm.ask, breaker.Within(time.Second)).OrValue("sorry")
		for range 8 {
			_, err := p.Do(t.Context(), "x")
			require.NoError(t, err)
		}
		require.Equal(t, breaker.StateOpen, b.State())
		require.EqualValues(t, 5, llm.made.Load())
	})
}

func TestWhatIsMissingIsAnErrorAtEachUse(t *testing.T) {
	b, llm := upstream(), answers("yes")
	good := breaker.Protect(b, llm.ask)
	for want, p := range map[string]*breaker.Protected[prompt, reply]{
		`the step "primary" of a Protected cannot work: its breaker is nil`:                           breaker.Protect(nil, llm.ask),
		`the step "primary" of a Protected cannot work: its call is nil`:                              breaker.Protect[prompt, reply](b, nil),
		`Through is for OrCall, since Protect names the breaker`:                                      breaker.Protect(b, llm.ask, breaker.Through(b)),
		`the step "local" of a Protected cannot work: its call is nil`:                                good.OrCall("local", nil),
		`the breaker given to Through is nil`:                                                         good.OrCall("local", llm.ask, breaker.Through(nil)),
		`the step "" of a Protected cannot work: its name must be neither empty nor "primary"`:        good.OrCall("", llm.ask),
		`the step "primary" of a Protected cannot work: its name must be neither empty nor "primary"`: good.OrCall("primary", llm.ask),
		`the step "cache" of a Protected cannot work: keyOf is nil`:                                   good.OrCache(nil, nil, time.Minute),
		`the step "rule" of a Protected cannot work: a rule is nil`:                                   good.OrRules(greeting, nil),
	} {
		_, err := p.OrValue("sorry").Do(t.Context(), "x")
		require.ErrorContains(t, err, want)
	}
	_, err := good.OrRules(nil).OrCall("", nil).Call(t.Context(), "x")
	require.ErrorContains(t, err, "a rule is nil")
	require.ErrorContains(t, err, "its name must")
	require.ErrorContains(t, err, "its call is nil")
	require.Zero(t, llm.made.Load())
	_, err = breaker.Protect(b, llm.ask, nil).Do(t.Context(), "x")
	require.NoError(t, err, "a nil option is no option")
	asked := 0
	_, err = good.OrCache(nil, func(prompt) string { asked++; return "" }, 1).OrCache(nil, func(prompt) string { panic("left out") }, 0).Do(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, 1, asked, "the shortest age is one, zero is none")
}

func TestDoAllocatesNothingWhenThePrimaryAnswers(t *testing.T) {
	ctx := context.Background()
	p := breaker.Protect(upstream(), answers("yes").ask).
		OrCall("local", answers("no").ask).OrRules(greeting).OrValue("sorry")
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = p.Do(ctx, "x") }))
	retried := breaker.Protect(upstream(), answers("yes").ask, breaker.Retry(3, time.Second)).OrValue("sorry")
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = retried.Do(ctx, "x") }), "with a Retry that is not needed")
}

func TestOneProtectedServesManyGoroutines(t *testing.T) {
	b := upstream()
	llm := &calls{end: func(_ context.Context, n int) (reply, error) {
		if n%3 == 0 {
			return "", errUpstream
		}
		return "yes", nil
	}}
	base := breaker.Protect(b, llm.ask, breaker.Retry(1, 0)).OrCache(breaker.NewMemoryCache[reply](8), itself, time.Minute)
	var wg sync.WaitGroup
	var primary, degraded atomic.Int64
	for g := range 8 {
		wg.Go(func() {
			p := base.OrRules(greeting).OrValue("sorry") // deriving is safe too
			for i := range 200 {
				res, err := p.Call(t.Context(), prompt(fmt.Sprint((g+i)%16)))
				if err != nil {
					t.Error(err)
				}
				if res.Degraded {
					degraded.Add(1)
				} else {
					primary.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 8*200, primary.Load()+degraded.Load())
	require.EqualValues(t, primary.Load(), b.Status().Metrics.SuccessfulCalls)
	require.Zero(t, b.Status().Metrics.InFlight)
}

func BenchmarkProtectedDo(b *testing.B) {
	ctx := context.Background()
	p := breaker.Protect(upstream(), answers("yes").ask).OrValue("sorry")
	b.ReportAllocs()
	for b.Loop() {
		_, _ = p.Do(ctx, "x")
	}
}
