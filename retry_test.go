package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// starts notes when each call began, since it was made.
func starts(end func(n int) error) (*calls, *[]time.Duration) {
	var at []time.Duration
	zero := time.Now()
	return &calls{end: func(_ context.Context, n int) (reply, error) {
		at = append(at, time.Since(zero))
		return "yes", end(n)
	}}, &at
}

func failTimes(times int, err error) func(int) error {
	return func(n int) error {
		if n <= times {
			return err
		}
		return nil
	}
}

func TestRetryMakesUpToNMoreAttempts(t *testing.T) {
	for _, c := range []struct {
		n, failures, calls int
		answered           bool
	}{
		{0, 1, 1, false},
		{-3, 1, 1, false},
		{1, 0, 1, true},
		{1, 1, 2, true},
		{1, 2, 2, false},
		{3, 3, 4, true},
		{3, 9, 4, false},
	} {
		t.Run(fmt.Sprintf("%d retries and %d failures are %d calls", c.n, c.failures, c.calls), func(t *testing.T) {
			b := upstream()
			llm, _ := starts(failTimes(c.failures, errUpstream))
			res, err := breaker.Protect(b, llm.ask, breaker.Retry(c.n, -time.Second)).Call(t.Context(), "x")
			require.Equal(t, c.answered, err == nil)
			require.EqualValues(t, c.calls, llm.made.Load())
			require.Len(t, res.Attempts, c.calls)
			require.Equal(t, c.calls, b.Status().Metrics.TotalCalls, "each attempt is a call to the breaker")
			require.Equal(t, min(c.failures, c.calls), b.Status().Metrics.FailedCalls)
			if c.answered {
				require.Equal(t, "primary", res.Source)
				require.False(t, res.Degraded)
				require.NoError(t, res.Cause)
			}
		})
	}
}

func TestRetryStopsWhenTheBreakerRefuses(t *testing.T) {
	b := breaker.Must(breaker.New("llm", breaker.Config{FailureThreshold: 2}))
	llm := failsWith(errUpstream)
	res, err := breaker.Protect(b, llm.ask, breaker.Retry(9, 0)).OrValue("sorry").Call(t.Context(), "x")
	require.NoError(t, err)
	require.EqualValues(t, 2, llm.made.Load())
	require.Equal(t, []string{"primary", "primary", "primary", "default"}, names(res.Attempts))
	require.ErrorIs(t, res.Attempts[2].Err, breaker.ErrOpen)
	require.ErrorIs(t, res.Cause, breaker.ErrOpen)
	require.Equal(t, 1, b.Status().Metrics.RejectedCalls)
}

func TestRetryPausesGrowAndAreSpread(t *testing.T) {
	const base = time.Second
	var least, most [3]time.Duration
	least = [3]time.Duration{math.MaxInt64, math.MaxInt64, math.MaxInt64}
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			llm, at := starts(failTimes(3, errUpstream))
			_, err := breaker.Protect(upstream(), llm.ask, breaker.Retry(3, base)).Do(t.Context(), "x")
			require.NoError(t, err)
			require.Len(t, *at, 4)
			for i := range 3 {
				pause := (*at)[i+1] - (*at)[i]
				least[i], most[i] = min(least[i], pause), max(most[i], pause)
			}
		})
	}
	for i, whole := range []time.Duration{base, 2 * base, 4 * base} {
		require.GreaterOrEqual(t, least[i], whole/2)
		require.LessOrEqual(t, most[i], whole)
		require.Less(t, least[i], whole*6/10, "spread over the whole range")
		require.Greater(t, most[i], whole*9/10, "spread over the whole range")
	}
}

func TestASmallRetryPauseIsExact(t *testing.T) {
	for base, want := range map[time.Duration][]time.Duration{-time.Second: {0}, 0: {0}, 1: {0, 1}, 2: {1, 2}, 3: {1, 2, 3}} {
		seen := map[time.Duration]bool{}
		for range 100 {
			synctest.Test(t, func(t *testing.T) {
				llm, at := starts(failTimes(1, errUpstream))
				_, err := breaker.Protect(upstream(), llm.ask, breaker.Retry(1, base)).Do(t.Context(), "x")
				require.NoError(t, err)
				seen[(*at)[1]] = true
			})
		}
		require.ElementsMatch(t, want, slices.Collect(maps.Keys(seen)), "base %d", base)
	}
}

func TestHugeRetrySettingsDoNotRunOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		llm := failsWith(errUpstream)
		_, err := breaker.Protect(upstream(), llm.ask, breaker.Retry(math.MaxInt, math.MaxInt64)).Do(ctx, "x")
		require.ErrorIs(t, err, errUpstream)
		require.EqualValues(t, 1, llm.made.Load())
	})
	synctest.Test(t, func(t *testing.T) {
		const year = 365 * 24 * time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(200*year, cancel)
		llm := failsWith(errUpstream)
		_, err := breaker.Protect(upstream(), llm.ask, breaker.Retry(9, 150*year)).Do(ctx, "x")
		require.ErrorIs(t, err, context.Canceled)
		require.EqualValues(t, 2, llm.made.Load(), "the second pause is longer still, not none")
	})
}

func TestAfterOpenForRetryWaitsUntilTheBreakerAdmits(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		cfg  breaker.Config
		wait time.Duration
	}{
		{"a failure", breaker.OpenFor(errUpstream, 7*time.Second), breaker.Config{}, 7 * time.Second},
		{"an ignored outcome", breaker.Ignore(breaker.OpenFor(errUpstream, 7*time.Second)), breaker.Config{}, 7 * time.Second},
		{"a pause shorter than base", breaker.OpenFor(errUpstream, time.Millisecond), breaker.Config{}, time.Millisecond},
		{"a pause of next to nothing", breaker.Ignore(breaker.OpenFor(errUpstream, 1)), breaker.Config{}, 1},
		{"MaxRetryAfter caps it", breaker.OpenFor(errUpstream, time.Hour), breaker.Config{MaxRetryAfter: time.Minute}, time.Minute},
		{"a rule that opens for longer", breaker.OpenFor(errUpstream, time.Second), breaker.Config{FailureThreshold: 1, OpenTimeout: 20 * time.Second}, 20 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.cfg.OpenTimeoutJitter = breaker.Off
				b := breaker.Must(breaker.New("llm", c.cfg))
				llm, at := starts(failTimes(1, c.err))
				res, err := breaker.Protect(b, llm.ask, breaker.Retry(1, 100*time.Millisecond)).Call(t.Context(), "x")
				require.NoError(t, err)
				require.Equal(t, reply("yes"), res.Value)
				require.Equal(t, []time.Duration{0, c.wait}, *at)
				require.Equal(t, breaker.StateHalfOpen, b.State())
				require.Zero(t, b.Status().Metrics.RejectedCalls)
			})
		})
	}
}

// thoughtful is an error that takes a second to say whether it is a refusal.
type thoughtful struct{ error }

func (thoughtful) Is(target error) bool {
	if target == breaker.ErrOpen {
		time.Sleep(time.Second)
	}
	return false
}

func TestAfterOpenForRetryWaitsForTheRestOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstream()
		time.Sleep(time.Minute)
		llm, at := starts(func(n int) error {
			if n > 1 {
				require.Equal(t, breaker.StateHalfOpen, b.State())
				return nil
			}
			time.Sleep(2 * time.Second)
			return breaker.OpenFor(thoughtful{errUpstream}, 7*time.Second)
		})
		_, err := breaker.Protect(b, llm.ask, breaker.Retry(1, 0)).Do(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, []time.Duration{0, 10 * time.Second}, *at, "two for the call, one to classify its error, seven as asked")
	})
}

func TestAfterOpenForTheBreakerIsAskedLikeByAnyCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, start := upstream(), time.Now()
		llm := failsWith(breaker.OpenFor(errUpstream, 5*time.Second))
		time.AfterFunc(2*time.Second, func() { b.Trip("somebody else has closed the door for longer") })
		res, err := breaker.Protect(b, llm.ask, breaker.Retry(3, 0)).OrValue("sorry").Call(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, 5*time.Second, time.Since(start))
		require.Equal(t, []string{"primary", "primary", "default"}, names(res.Attempts))
		require.ErrorIs(t, res.Cause, breaker.ErrOpen)
		require.EqualValues(t, 1, llm.made.Load())
	})
}

func TestWithoutAnOpeningRetryKeepsToWhatTheUpstreamAsked(t *testing.T) {
	const asked = 7 * time.Second
	retry := breaker.Retry(1, 2*time.Millisecond)
	heldMeanwhile := func(hold func(*breaker.Breaker, breaker.Hold)) func(*calls) *breaker.Protected[prompt, reply] {
		return func(llm *calls) *breaker.Protected[prompt, reply] {
			b := upstream()
			return breaker.Protect(b, func(ctx context.Context, p prompt) (reply, error) {
				hold(b, breaker.Hold{})
				return llm.ask(ctx, p)
			}, retry)
		}
	}
	for name, c := range map[string]struct {
		p           func(*calls) *breaker.Protected[prompt, reply]
		calls       int64
		least, most time.Duration
	}{
		"disabled by an operator":                           {heldMeanwhile((*breaker.Breaker).Disable), 2, asked, asked},
		"held open by an operator, who refuses soon enough": {heldMeanwhile((*breaker.Breaker).ForceOpen), 1, time.Millisecond, 2 * time.Millisecond},
		"MaxRetryAfter is off": {func(llm *calls) *breaker.Protected[prompt, reply] {
			return breaker.Protect(breaker.Must(breaker.New("llm", breaker.Config{MaxRetryAfter: breaker.Off})), llm.ask, retry)
		}, 2, time.Millisecond, 2 * time.Millisecond},
		"a step without a breaker": {func(llm *calls) *breaker.Protected[prompt, reply] {
			return breaker.Protect(upstream(), failsWith(errUpstream).ask).OrCall("local", llm.ask, retry)
		}, 2, asked, asked},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				llm, start := &calls{end: func(_ context.Context, n int) (reply, error) {
					return "yes", failTimes(1, breaker.OpenFor(errUpstream, asked))(n)
				}}, time.Now()
				_, err := c.p(llm).OrValue("sorry").Do(t.Context(), "x")
				require.NoError(t, err)
				require.Equal(t, c.calls, llm.made.Load())
				require.GreaterOrEqual(t, time.Since(start), c.least)
				require.LessOrEqual(t, time.Since(start), c.most)
			})
		})
	}
	t.Run("a year is cut to ten minutes where no breaker does it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			llm, at := starts(failTimes(1, breaker.OpenFor(errUpstream, 365*24*time.Hour)))
			_, err := breaker.Protect(upstream(), failsWith(errUpstream).ask).OrCall("local", llm.ask, breaker.Retry(1, 0)).Do(t.Context(), "x")
			require.NoError(t, err)
			require.Equal(t, []time.Duration{0, 10 * time.Minute}, *at)
		})
	})
}

func TestAPauseBeyondTheDeadlineIsNotBegun(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		retry breaker.CallOption
		opts  []breaker.CallOption
		ctx   time.Duration
	}{
		"OpenFor longer than Within":    {breaker.OpenFor(errUpstream, 5*time.Second), breaker.Retry(1, 0), []breaker.CallOption{breaker.Within(5 * time.Second)}, time.Hour},
		"OpenFor longer than ctx":       {breaker.OpenFor(errUpstream, 5*time.Second), breaker.Retry(1, 0), nil, 5 * time.Second},
		"the usual pause beyond Within": {errUpstream, breaker.Retry(1, time.Minute), []breaker.CallOption{breaker.Within(30 * time.Second)}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.ctx)
				defer cancel()
				llm := failsWith(c.err)
				start := time.Now()
				res, err := breaker.Protect(upstream(), llm.ask, append(c.opts, c.retry)...).OrCall("local", answers("local").ask).Call(ctx, "x")
				require.NoError(t, err)
				require.Equal(t, "local", res.Source)
				require.Equal(t, reply("local"), res.Value)
				require.Equal(t, c.err, res.Cause)
				require.Zero(t, time.Since(start))
				require.EqualValues(t, 1, llm.made.Load())
			})
		})
	}
}

func TestRetryNeverFollows(t *testing.T) {
	for name, end := range map[string]error{
		"an ignored outcome without OpenFor": breaker.Ignore(errUpstream),
		"another breaker's refusal":          fmt.Errorf("post: %w", breaker.ErrOpen),
		"a refusal marked OpenFor":           breaker.OpenFor(breaker.ErrOpen, time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				llm := failsWith(end)
				_, _ = breaker.Protect(upstream(), llm.ask, breaker.Retry(5, time.Second)).Do(t.Context(), "x")
				require.EqualValues(t, 1, llm.made.Load())
			})
		})
	}
	t.Run("an answer that happens to carry an expected error", func(t *testing.T) {
		llm := failsWith(breaker.OpenFor(errNoRows, time.Second))
		b := upstream(breaker.WithClassifier(breaker.Expect(errNoRows)))
		_, err := breaker.Protect(b, llm.ask, breaker.Retry(5, 0)).Do(t.Context(), "x")
		require.ErrorIs(t, err, errNoRows)
		require.EqualValues(t, 1, llm.made.Load())
	})
	t.Run("a cancellation, which also ends a pause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(3*time.Second, cancel)
			llm, start := failsWith(errUpstream), time.Now()
			p := breaker.Protect(upstream(), llm.ask, breaker.Retry(5, time.Hour), breaker.Within(24*time.Hour)).OrValue("sorry")
			_, err := p.Do(ctx, "x")
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, errUpstream)
			require.Equal(t, 3*time.Second, time.Since(start))
			require.EqualValues(t, 1, llm.made.Load())
		})
	})
}

func TestWithinBoundsAllAttemptsAndPausesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstream()
		var deadlines []time.Time
		slow := &calls{end: func(ctx context.Context, _ int) (reply, error) {
			at, _ := ctx.Deadline()
			deadlines = append(deadlines, at)
			select {
			case <-time.After(4 * time.Second):
				return "", errUpstream
			case <-ctx.Done():
				return "", errors.New("gave up: " + ctx.Err().Error())
			}
		}}
		start := time.Now()
		res, err := breaker.Protect(b, slow.ask, breaker.Retry(9, 0), breaker.Within(10*time.Second)).OrValue("sorry").Call(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, "default", res.Source)
		require.Equal(t, 10*time.Second, time.Since(start))
		require.EqualValues(t, 3, slow.made.Load())
		for _, at := range deadlines {
			require.Equal(t, start.Add(10*time.Second), at)
		}
		require.EqualError(t, res.Cause, "gave up: context deadline exceeded")
		require.Equal(t, 3, b.Status().FailureCount)
	})
}

func TestWithinOfZeroOrLessIsNoBound(t *testing.T) {
	for _, d := range []time.Duration{0, -time.Second} {
		p := breaker.Protect(upstream(), func(ctx context.Context, _ prompt) (reply, error) {
			_, bounded := ctx.Deadline()
			return reply(fmt.Sprint(bounded)), nil
		}, breaker.Within(d))
		res, err := p.Do(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, reply("false"), res)
	}
}

func TestWithinOfNextToNothingIsABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := breaker.Protect(upstream(), func(ctx context.Context, _ prompt) (reply, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}, breaker.Within(1)).Do(t.Context(), "x")
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestAStepRetriesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local, step := upstream(), &calls{}
		step.end = func(_ context.Context, n int) (reply, error) {
			switch n {
			case 1:
				return "", errLocal
			case 2:
				panic("cold start")
			}
			return "warm", nil
		}
		res, err := breaker.Protect(upstream(), failsWith(errUpstream).ask).
			OrCall("local", step.ask, breaker.Through(local), breaker.Retry(2, time.Second)).
			Call(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, []string{"primary", "local", "local", "local"}, names(res.Attempts))
		require.Equal(t, reply("warm"), res.Value)
		require.Equal(t, 2, local.Status().FailureCount)
	})
}
