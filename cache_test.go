package breaker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// funcCache is a cache made of functions; a missing one does what an empty cache does.
type funcCache struct {
	load  func(context.Context, string) (breaker.Entry[reply], bool, error)
	store func(context.Context, string, breaker.Entry[reply]) error
}

func (c funcCache) Load(ctx context.Context, key string) (breaker.Entry[reply], bool, error) {
	if c.load == nil {
		return breaker.Entry[reply]{}, false, nil
	}
	return c.load(ctx, key)
}

func (c funcCache) Store(ctx context.Context, key string, e breaker.Entry[reply]) error {
	if c.store == nil {
		return nil
	}
	return c.store(ctx, key, e)
}

// answersThenFails answers the first n calls.
func answersThenFails(n int) *calls {
	return &calls{end: func(_ context.Context, made int) (reply, error) {
		if made > n {
			return "", errUpstream
		}
		return reply(fmt.Sprintf("answer %d", made)), nil
	}}
}

func TestTheCacheAnswersWithWhatThePrimarySaidLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := breaker.Protect(upstream(), answersThenFails(2).ask).OrCache(nil, itself, time.Minute).OrValue("sorry")
		for range 2 { // it is asked each time: the cache stands in, it does not spare calls
			res, err := p.Call(t.Context(), "x")
			require.NoError(t, err)
			require.Equal(t, "primary", res.Source)
			time.Sleep(time.Second)
		}
		res, err := p.Call(t.Context(), "x")
		require.NoError(t, err)
		require.Equal(t, reply("answer 2"), res.Value)
		require.Equal(t, "cache", res.Source)
		require.True(t, res.Degraded)
		require.Equal(t, time.Second, res.Age)
		require.Equal(t, errUpstream, res.Cause)

		other, err := p.Call(t.Context(), "y")
		require.NoError(t, err)
		require.Equal(t, "default", other.Source)
		require.Zero(t, other.Age)
		require.Zero(t, p.CacheErrors(), "a miss is no error")
	})
}

func TestOnlyAnswersOfThePrimaryAreCached(t *testing.T) {
	var stored []reply
	note := funcCache{store: func(_ context.Context, _ string, e breaker.Entry[reply]) error {
		stored = append(stored, e.Value)
		return nil
	}}
	expected := breaker.WithClassifier(breaker.Expect(errNoRows))
	for _, llm := range []*calls{failsWith(errUpstream), failsWith(breaker.Ignore(errUpstream)), failsWith(errNoRows)} {
		p := breaker.Protect(upstream(expected), llm.ask).OrCache(note, itself, time.Minute)
		_, _ = p.OrCall("local", answers("local").ask).Do(t.Context(), "x")
		_, _ = p.OrRules(greeting).Do(t.Context(), "hello")
		_, _ = p.OrValue("sorry").Do(t.Context(), "x")
	}
	require.Empty(t, stored)
	_, _ = breaker.Protect(upstream(), answers("yes").ask).OrCache(note, itself, time.Minute).Do(t.Context(), "x")
	require.Equal(t, []reply{"yes"}, stored)
}

func TestAnEmptyKeyIsNotCached(t *testing.T) {
	touched := funcCache{
		load:  func(context.Context, string) (breaker.Entry[reply], bool, error) { panic("read") },
		store: func(context.Context, string, breaker.Entry[reply]) error { panic("written") },
	}
	p := breaker.Protect(upstream(), answersThenFails(1).ask).OrCache(touched, itself, time.Minute).OrValue("sorry")
	_, err := p.Do(t.Context(), "")
	require.NoError(t, err)
	res, err := p.Call(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, "default", res.Source)
	require.EqualError(t, res.Attempts[1].Err, "the request has no key")
	require.Zero(t, p.CacheErrors())
}

func TestEntriesOlderThanMaxAgeAreNotServed(t *testing.T) {
	for _, c := range []struct {
		age    time.Duration
		source string
		shown  time.Duration
	}{
		{time.Minute, "cache", time.Minute},
		{time.Minute + 1, "default", 0},
		{-time.Hour, "cache", 0}, // the clock that stored it is ahead
	} {
		t.Run(fmt.Sprint(c.age, " old: ", c.source), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cache := breaker.NewMemoryCache[reply](1)
				require.NoError(t, cache.Store(t.Context(), "x", breaker.Entry[reply]{Value: "stored", StoredAt: time.Now().Add(-c.age)}))
				p := breaker.Protect(upstream(), failsWith(errUpstream).ask).OrCache(cache, itself, time.Minute).OrValue("sorry")
				res, err := p.Call(t.Context(), "x")
				require.NoError(t, err)
				require.Equal(t, c.source, res.Source)
				require.Equal(t, c.shown, res.Age)
				require.Zero(t, p.CacheErrors())
				if c.source == "default" {
					require.EqualError(t, res.Attempts[1].Err, "the answer stored 1m0s ago is older than 1m0s")
				}
			})
		})
	}
	t.Run("an entry that does not say when is too old", func(t *testing.T) {
		cache := breaker.NewMemoryCache[reply](1)
		require.NoError(t, cache.Store(t.Context(), "x", breaker.Entry[reply]{Value: "stored"}))
		_, err := breaker.Protect(upstream(), failsWith(errUpstream).ask).OrCache(cache, itself, 24*time.Hour).Do(t.Context(), "x")
		require.Error(t, err)
	})
	for _, off := range []time.Duration{0, -1} {
		t.Run(fmt.Sprint("a maximum of ", off, " leaves the cache out"), func(t *testing.T) {
			touched := funcCache{store: func(context.Context, string, breaker.Entry[reply]) error { panic("written") }}
			p := breaker.Protect(upstream(), answersThenFails(1).ask).OrCache(touched, itself, off)
			_, err := p.Do(t.Context(), "x")
			require.NoError(t, err)
			res, err := p.Call(t.Context(), "x")
			require.Equal(t, errUpstream, err)
			require.Equal(t, []string{"primary"}, names(res.Attempts))
			require.Zero(t, p.CacheErrors())
		})
	}
}

type ctxKey struct{}

func TestTheCacheIsWrittenAfterSettlingInTimeOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := upstream()
		parent, cancel := context.WithTimeout(context.WithValue(t.Context(), ctxKey{}, "trace"), time.Hour)
		defer cancel()
		written := false
		hung := funcCache{store: func(ctx context.Context, key string, e breaker.Entry[reply]) error {
			written = true
			m := b.Status().Metrics
			require.Zero(t, m.InFlight)
			require.Equal(t, 1, m.SuccessfulCalls)
			require.Equal(t, "x", key)
			require.Equal(t, breaker.Entry[reply]{Value: "yes", StoredAt: time.Now()}, e)
			require.Equal(t, "trace", ctx.Value(ctxKey{}))
			require.NoError(t, ctx.Err(), "the caller has cancelled, its values are kept")
			<-ctx.Done()
			return ctx.Err()
		}}
		llm := &calls{end: func(context.Context, int) (reply, error) { cancel(); return "yes", nil }}
		p := breaker.Protect(b, llm.ask, breaker.Within(time.Second)).OrCache(hung, itself, time.Minute)
		start := time.Now()
		res, err := p.Do(parent, "x")
		require.NoError(t, err)
		require.Equal(t, reply("yes"), res)
		require.Equal(t, 100*time.Millisecond, time.Since(start))
		require.True(t, written)
		require.EqualValues(t, 1, p.CacheErrors())
	})
}

func TestTheCacheIsReadInTheCallersTimeOr100ms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := funcCache{load: func(ctx context.Context, _ string) (breaker.Entry[reply], bool, error) {
			require.Equal(t, "trace", ctx.Value(ctxKey{}))
			<-ctx.Done()
			return breaker.Entry[reply]{}, false, ctx.Err()
		}}
		p := breaker.Protect(upstream(), failsWith(errUpstream).ask).OrCache(hung, itself, time.Minute).OrValue("sorry")
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), ctxKey{}, "trace"), 5*time.Second)
		defer cancel()
		for _, want := range []time.Duration{5 * time.Second, 100 * time.Millisecond} {
			start := time.Now()
			res, err := p.Call(ctx, "x")
			require.NoError(t, err)
			require.Equal(t, "default", res.Source)
			require.Equal(t, want, time.Since(start))
		}
		require.EqualValues(t, 2, p.CacheErrors())
	})
}

func TestWhatFailsInACacheIsCountedAndReachesNobody(t *testing.T) {
	errCache := errors.New("redis is loading the dataset in memory")
	for name, c := range map[string]struct {
		cache breaker.Cache[reply]
		keyOf func(prompt) string
	}{
		"errors": {funcCache{
			load: func(context.Context, string) (breaker.Entry[reply], bool, error) {
				return breaker.Entry[reply]{}, true, errCache
			},
			store: func(context.Context, string, breaker.Entry[reply]) error { return errCache },
		}, itself},
		"panics": {funcCache{
			load:  func(context.Context, string) (breaker.Entry[reply], bool, error) { panic(errCache) },
			store: func(context.Context, string, breaker.Entry[reply]) error { panic(errCache) },
		}, itself},
		"a panicking keyOf": {nil, func(prompt) string { panic(errCache) }},
	} {
		t.Run(name, func(t *testing.T) {
			base := breaker.Protect(upstream(), answersThenFails(1).ask)
			p := base.OrCache(c.cache, c.keyOf, time.Minute)
			derived := p.OrValue("sorry")
			res, err := derived.Do(t.Context(), "x")
			require.NoError(t, err)
			require.Equal(t, reply("answer 1"), res)
			require.EqualValues(t, 1, derived.CacheErrors())

			_, err = p.Do(t.Context(), "x")
			require.ErrorIs(t, err, errCache)
			require.ErrorIs(t, err, errUpstream)
			degraded, err := derived.Call(t.Context(), "x")
			require.NoError(t, err)
			require.Equal(t, "default", degraded.Source)
			require.EqualValues(t, 3, derived.CacheErrors())
			require.EqualValues(t, 3, p.CacheErrors(), "shared by those who share the cache")
			require.Zero(t, base.CacheErrors())
			require.Zero(t, base.OrCache(c.cache, c.keyOf, time.Minute).CacheErrors())
		})
	}
}

func TestSeveralCachesAreAllWrittenAndAskedInOrder(t *testing.T) {
	near, far := breaker.NewMemoryCache[reply](1), breaker.NewMemoryCache[reply](9)
	p := breaker.Protect(upstream(), answersThenFails(2).ask).OrCache(near, itself, time.Minute).OrCache(far, itself, time.Hour)
	for _, ask := range []prompt{"x", "y"} {
		_, err := p.Do(t.Context(), ask)
		require.NoError(t, err)
	}
	res, err := p.Call(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, []string{"primary", "cache", "cache"}, names(res.Attempts))
	require.Equal(t, reply("answer 1"), res.Value)
}

func TestAMemoryCacheForgetsWhatWasNotUsedForLongest(t *testing.T) {
	ctx := t.Context()
	c := breaker.NewMemoryCache[int](3)
	put := func(key string, v int) { require.NoError(t, c.Store(ctx, key, breaker.Entry[int]{Value: v})) }
	holds := func(want string) {
		t.Helper()
		var got strings.Builder
		for key := range strings.SplitSeq("abcde", "") {
			if e, ok, err := c.Load(ctx, key); ok {
				require.NoError(t, err)
				got.WriteString(fmt.Sprintf("%s%d", key, e.Value))
			}
		}
		require.Equal(t, want, got.String())
	}
	put("a", 1)
	put("b", 2)
	put("c", 3)
	holds("a1b2c3")
	_, _, _ = c.Load(ctx, "a") // least recent is now b
	put("d", 4)
	holds("a1c3d4") // read in this order: a is least recent
	put("a", 9)     // a write is a use, and replaces
	put("e", 5)
	holds("a9d4e5")
}

func TestAMemoryCacheIsBounded(t *testing.T) {
	ctx := t.Context()
	for name, c := range map[string]struct {
		cache *breaker.MemoryCache[int]
		bound int
	}{
		"as told":        {breaker.NewMemoryCache[int](7), 7},
		"by default":     {breaker.NewMemoryCache[int](0), 1000},
		"below zero":     {breaker.NewMemoryCache[int](-1), 1000},
		"the zero value": {new(breaker.MemoryCache[int]), 1000},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 3000 {
				require.NoError(t, c.cache.Store(ctx, fmt.Sprint(i), breaker.Entry[int]{Value: i}))
			}
			kept := 0
			for i := range 3000 {
				e, ok, _ := c.cache.Load(ctx, fmt.Sprint(i))
				if ok {
					require.Equal(t, i, e.Value)
					require.GreaterOrEqual(t, i, 3000-c.bound, "the newest are kept")
					kept++
				}
			}
			require.Equal(t, c.bound, kept)
		})
	}
}

func TestAMemoryCacheServesManyGoroutines(t *testing.T) {
	var cache breaker.MemoryCache[string]
	var wg sync.WaitGroup
	var wrong atomic.Int64
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				key := fmt.Sprint((g*7 + i) % 50)
				_ = cache.Store(t.Context(), key, breaker.Entry[string]{Value: key})
				if e, ok, err := cache.Load(t.Context(), key); !ok || err != nil || e.Value != key {
					wrong.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, wrong.Load())
}

func TestAnEntryTravelsAsJSON(t *testing.T) {
	e := breaker.Entry[reply]{Value: "yes", StoredAt: time.Date(2026, 11, 21, 12, 0, 0, 5, time.UTC)}
	text, err := json.Marshal(e)
	require.NoError(t, err)
	require.JSONEq(t, `{"value":"yes","stored_at":"2026-11-21T12:00:00.000000005Z"}`, string(text))
	var back breaker.Entry[reply]
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, e, back)
}
