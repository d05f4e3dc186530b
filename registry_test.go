package breaker

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func newRegistry(t *testing.T, cfg RegistryConfig, opts ...Option) *Registry {
	t.Helper()
	r, err := NewRegistry(cfg, opts...)
	require.NoError(t, err)
	return r
}

func TestConfiguredServicesExistFromTheStart(t *testing.T) {
	r := newRegistry(t, RegistryConfig{
		Default:  Config{FailureThreshold: 7},
		Services: map[string]Config{"db": {FailureThreshold: 2}, "ads": {}},
	})
	all := maps.Collect(r.All())
	require.Len(t, all, 2)
	require.Equal(t, 2, all["db"].Config().FailureThreshold)
	require.Equal(t, 5, all["ads"].Config().FailureThreshold, "a service is a whole Config, not an overlay")
	require.Equal(t, 7, r.Breaker("other").Config().FailureThreshold)
	require.Same(t, all["db"], r.Breaker("db"))
}

func TestAllIsSortedByNameAndStopsWhenTold(t *testing.T) {
	r := newRegistry(t, RegistryConfig{})
	for _, name := range []string{"c", "a", "b"} {
		r.Breaker(name)
	}
	var names []string
	for name, b := range r.All() {
		require.Equal(t, name, b.Name())
		if names = append(names, name); len(names) == 2 {
			break
		}
	}
	require.Equal(t, []string{"a", "b"}, names)
}

func TestAThousandGoroutinesAskingForOneNewNameGetOneBreaker(t *testing.T) {
	r := newRegistry(t, RegistryConfig{})
	var seen sync.Map
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() { seen.Store(r.Breaker("tenant-1"), true) })
	}
	wg.Wait()
	require.Len(t, maps.Collect(func(yield func(any, any) bool) { seen.Range(yield) }), 1)
	require.Zero(t, r.Unregistered())
}

func TestWhoComesToTheLockSecondGetsTheBreakerOfTheFirst(t *testing.T) {
	r := newRegistry(t, RegistryConfig{})
	first := r.Breaker("tenant-1")
	second, full := r.create("tenant-1")
	require.Same(t, first, second)
	require.False(t, full)
}

func TestAHundredThousandNamesAreBoundedAndNothingThatMattersIsForgotten(t *testing.T) {
	r := newRegistry(t, RegistryConfig{Services: map[string]Config{"configured": {}}})
	registered, err := r.Register("registered", Config{})
	require.NoError(t, err)
	keep := map[string]*Breaker{"configured": r.Breaker("configured"), "registered": registered}
	for i := range 100 {
		open, held, busy := fmt.Sprint("open-", i), fmt.Sprint("held-", i), fmt.Sprint("busy-", i)
		keep[open], keep[held], keep[busy] = r.Breaker(open), r.Breaker(held), r.Breaker(busy)
		keep[open].Trip("")
		keep[held].Disable(Hold{})
		_, err := keep[busy].Acquire(context.Background())
		require.NoError(t, err)
	}
	for i := range 100_000 {
		r.Breaker(fmt.Sprint("tenant-", i))
	}
	all := maps.Collect(r.All())
	require.Len(t, all, 10_000, "the default")
	require.Zero(t, r.Unregistered())
	for name, b := range keep {
		require.Same(t, b, all[name], name)
	}
}

func TestABreakerInUseOutlivesIdleOnes(t *testing.T) {
	r := newRegistry(t, RegistryConfig{MaxBreakers: 10})
	busy := r.Breaker("busy")
	for i := range 1000 {
		r.Breaker(fmt.Sprint("tenant-", i))
		require.Same(t, busy, r.Breaker("busy"))
	}
}

func TestAFullRegistryHandsOutWorkingUnregisteredBreakers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		r := newRegistry(t, RegistryConfig{MaxBreakers: 2, Default: Config{FailureThreshold: 1}}, WithLogger(zap.New(core)))
		r.Breaker("a").Trip("")
		r.Breaker("b").Trip("")
		logs.TakeAll()

		var events []string
		r.Subscribe(func(e Event) { events = append(events, e.Breaker.Name()) })
		extra := r.Breaker("c")
		fail(extra, 1)
		require.Equal(t, StateOpen, extra.State())
		require.Equal(t, []string{"c"}, events)
		require.NotSame(t, extra, r.Breaker("c"))
		_, registered := r.Lookup("c")
		require.False(t, registered)
		require.EqualValues(t, 2, r.Unregistered())

		warnings := logs.FilterMessageSnippet("registry is full")
		require.Equal(t, 1, warnings.Len(), "once a minute")
		require.Equal(t, map[string]any{"name": "c", "max_breakers": int64(2), "unregistered_so_far": uint64(1)}, warnings.All()[0].ContextMap())
		time.Sleep(time.Minute)
		r.Breaker("d").Trip("") // a and b are half-open by now: still not closed
		require.Equal(t, 2, logs.FilterMessageSnippet("registry is full").Len())

		_, err := r.Register("e", Config{})
		require.EqualError(t, err, `breaker: no room for "e": all 2 breakers must stay; raise MaxBreakers`)
		r.Breaker("a").Reset("")
		require.Same(t, r.Breaker("f"), r.Breaker("f"), "an idle one has made room")
		_, there := r.Lookup("a")
		require.False(t, there)
	})
}

func TestARampingBreakerIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(t, RegistryConfig{MaxBreakers: 1, Default: Config{RampUp: time.Minute, SuccessThreshold: 1, OpenTimeoutJitter: Off}})
		r.Breaker("a").Trip("")
		time.Sleep(30 * time.Second)
		require.NoError(t, succeed(r.Breaker("a"), 1))
		r.Breaker("b")
		_, there := r.Lookup("a")
		require.True(t, there)
		time.Sleep(time.Minute)
		r.Breaker("b")
		_, there = r.Lookup("a")
		require.False(t, there)
	})
}

func TestRegisterRejectsWhatNewRejectsAndExistingNames(t *testing.T) {
	r := newRegistry(t, RegistryConfig{Services: map[string]Config{"db": {}}})
	_, err := r.Register("db", Config{})
	require.EqualError(t, err, `breaker: "db" is registered already: use Lookup, or Remove it first`)
	_, err = r.Register("x", Config{FailureThreshold: -3})
	require.EqualError(t, err, `breaker: invalid configuration: failure_threshold: -3 is not allowed: want a whole number >= 1, or off`)
	for _, name := range []string{"", "\xff", strings.Repeat("n", 257)} {
		_, err = r.Register(name, Config{})
		require.ErrorContains(t, err, "breaker: the name")
		_, err = New(name, Config{})
		require.ErrorContains(t, err, "breaker: the name")
	}
	var heard int
	b, err := r.Register("x", Config{FailureThreshold: 1}, WithListener(func(Event) { heard++ }))
	require.NoError(t, err)
	fail(b, 1)
	require.Equal(t, 1, heard)
}

func TestBadNamesAreCutAndToldApart(t *testing.T) {
	r := newRegistry(t, RegistryConfig{})
	long := strings.Repeat("ä", 200)
	names := []string{"", "\xff", "\xfe", long, long + "x", strings.Repeat("n", 256), strings.Repeat("n", 257)}
	seen := map[*Breaker]string{}
	for _, name := range names {
		b := r.Breaker(name)
		require.NoError(t, checkName(b.Name()), "%q", name)
		require.NotContains(t, seen, b, "%q", name)
		seen[b] = name
		require.Same(t, b, r.Breaker(name))
		found, ok := r.Lookup(name)
		require.True(t, ok)
		require.Same(t, b, found)
	}
	require.Equal(t, strings.Repeat("n", 256), r.Breaker(strings.Repeat("n", 256)).Name(), "a good name stays as it is")
	require.Equal(t, "#e3b0c44298fc1c14", r.Breaker("").Name(), "half of the SHA-256 of nothing")
	require.True(t, r.Remove("\xff"))
	require.False(t, r.Remove("\xff"))
}

func TestRemoveForgetsABreakerWhateverItsState(t *testing.T) {
	r := newRegistry(t, RegistryConfig{})
	old := r.Breaker("a")
	old.Trip("")
	require.True(t, r.Remove("a"))
	require.False(t, r.Remove("a"))
	require.NotSame(t, old, r.Breaker("a"))
	require.Equal(t, StateOpen, old.State())
	for i := range 5 {
		r.Breaker(fmt.Sprint(i))
	}
	for i := range 5 {
		require.True(t, r.Remove(fmt.Sprint(i)))
	}
	require.Len(t, maps.Collect(r.All()), 1)
}

func TestRegistryConfigErrorsNameEveryProblem(t *testing.T) {
	_, err := NewRegistry(RegistryConfig{
		Default:     Config{FailureRateThreshold: 1.5},
		Services:    map[string]Config{"a": {SuccessThreshold: -1, RampUp: -time.Second}, "\xff": {}},
		MaxBreakers: 1,
	})
	require.EqualError(t, err, strings.Join([]string{
		`breaker: invalid configuration: 5 problems:`,
		`	default.failure_rate_threshold: 1.5 is not allowed: want a fraction > 0 and <= 1, or off`,
		`	services.a.success_threshold: -1 is not allowed: want a whole number >= 1`,
		`	services.a.ramp_up_seconds: -1s is not allowed: want seconds >= 0, or a duration such as "30s"`,
		"	services.\xff: \"\\xff\" is not allowed: want a name of 1 to 256 bytes of UTF-8",
		`	MaxBreakers: 1 is not allowed: want at least 1 and the number of configured services, which is 2`,
	}, "\n"))
	_, err = NewRegistry(RegistryConfig{MaxBreakers: -1})
	require.Error(t, err)
}

func TestApplyToARegistryIsAllOrNothingAndKeepsState(t *testing.T) {
	r := newRegistry(t, RegistryConfig{Services: map[string]Config{"db": {FailureThreshold: 2}, "llm": {}}})
	own, err := r.Register("own", Config{FailureThreshold: 9})
	require.NoError(t, err)
	db, other := r.Breaker("db"), r.Breaker("other")
	db.Trip("outage")

	err = r.Apply(RegistryConfig{Default: Config{FailureThreshold: 4}, Services: map[string]Config{"db": {SuccessThreshold: -1}}})
	require.Error(t, err)
	require.Equal(t, 2, db.Config().FailureThreshold)
	require.Equal(t, 5, other.Config().FailureThreshold)

	require.NoError(t, r.Apply(RegistryConfig{Default: Config{FailureThreshold: 4}, Services: map[string]Config{"new": {FailureThreshold: 3}, "own": {FailureThreshold: 8}}}))
	require.Equal(t, 4, db.Config().FailureThreshold, "a vanished service falls to the default")
	require.Equal(t, StateOpen, db.State(), "and keeps its state")
	require.Equal(t, 4, other.Config().FailureThreshold)
	require.Equal(t, 8, own.Config().FailureThreshold)
	made, ok := r.Lookup("new")
	require.True(t, ok)
	require.Equal(t, 3, made.Config().FailureThreshold)

	require.NoError(t, r.Apply(RegistryConfig{}))
	require.Equal(t, 9, own.Config().FailureThreshold, "what Register said shows again")
	require.Equal(t, 5, made.Config().FailureThreshold)
}

func TestApplyDeliversWhatFellDueAndMayBeCalledByAListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(t, RegistryConfig{Services: map[string]Config{"db": {OpenTimeoutJitter: Off}}})
		var to []State
		r.Subscribe(func(e Event) {
			to = append(to, e.To)
			require.NoError(t, r.Apply(RegistryConfig{}))
		})
		r.Breaker("db").Trip("")
		time.Sleep(30 * time.Second)
		require.NoError(t, r.Apply(RegistryConfig{}))
		require.Equal(t, []State{StateOpen, StateHalfOpen}, to)
	})
}

func TestASmallerRegistryShrinksAsBreakersBecomeIdle(t *testing.T) {
	r := newRegistry(t, RegistryConfig{MaxBreakers: 10})
	for i := range 10 {
		r.Breaker(fmt.Sprint(i))
	}
	require.NoError(t, r.Apply(RegistryConfig{MaxBreakers: 3}))
	r.Breaker("new")
	require.Len(t, maps.Collect(r.All()), 3)
}

func TestARegistrysListenerHearsPresentAndFutureBreakersUntilStopped(t *testing.T) {
	r := newRegistry(t, RegistryConfig{})
	early := r.Breaker("early")
	var heard []string
	stop := r.Subscribe(func(e Event) { heard = append(heard, e.Breaker.Name()) })
	early.Trip("")
	r.Breaker("late").Trip("")
	stop()
	r.Breaker("silent").Trip("")
	stop()
	require.Equal(t, []string{"early", "late"}, heard)
}

func TestAKnownNameCostsNoAllocation(t *testing.T) {
	r := newRegistry(t, RegistryConfig{})
	r.Breaker("tenant")
	name := strings.Clone("tenant")
	require.Zero(t, testing.AllocsPerRun(100, func() { r.Breaker(name) }))
}

func TestARegistryUnderFireStaysWhole(t *testing.T) {
	r := newRegistry(t, RegistryConfig{MaxBreakers: 8, Services: map[string]Config{"svc": {}}})
	var wg sync.WaitGroup
	var calls atomic.Int64
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				switch b := r.Breaker(fmt.Sprint("n", (g+i)%20)); i % 10 {
				case 0:
					_ = r.Apply(RegistryConfig{MaxBreakers: 8, Services: map[string]Config{fmt.Sprint("n", i%3): {}}})
				case 1:
					r.Remove(fmt.Sprint("n", i%20))
				case 2:
					for range r.All() {
						calls.Add(1)
					}
				default:
					_ = succeed(b, 1)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, r.Apply(RegistryConfig{MaxBreakers: 8}))
	r.Breaker("last")
	require.LessOrEqual(t, len(r.ring), 8)
	for name, b := range r.All() {
		found, ok := r.Lookup(name)
		require.True(t, ok)
		require.Same(t, b, found)
	}
}

func TestTheNameOfAServiceCannotBeRegistered(t *testing.T) {
	r := newRegistry(t, RegistryConfig{Services: map[string]Config{"x": {FailureThreshold: 7}}})
	require.True(t, r.Remove("x"))
	_, err := r.Register("x", Config{FailureThreshold: 1})
	require.EqualError(t, err, `breaker: "x" is configured as a service: change that, or use Breaker`)
	require.Equal(t, 7, r.Breaker("x").Config().FailureThreshold)
}

func TestNewServicesHaveAPlaceEvenWhenAllOthersMustStay(t *testing.T) {
	r := newRegistry(t, RegistryConfig{MaxBreakers: 2})
	r.Breaker("a").Trip("")
	r.Breaker("b").Trip("")
	require.NoError(t, r.Apply(RegistryConfig{MaxBreakers: 2, Services: map[string]Config{"c": {}, "d": {}}}))
	require.Len(t, maps.Collect(r.All()), 4)
	r.Breaker("a").Reset("")
	r.Breaker("b").Reset("")
	r.Breaker("e")
	require.Len(t, maps.Collect(r.All()), 2, "the services are all that fits")
}

func TestAFullRegistryFindsTheOneThatBecameIdle(t *testing.T) {
	const size = 500
	r := newRegistry(t, RegistryConfig{MaxBreakers: size})
	for i := range size {
		r.Breaker(fmt.Sprint("open-", i)).Trip("")
	}
	r.Breaker("one too many")
	r.Breaker(fmt.Sprint("open-", size/2)).Reset("")
	asked := 0
	for ; asked < 100; asked++ {
		if b := r.Breaker("new"); b == r.Breaker("new") {
			break
		}
	}
	require.Less(t, asked, 2*size/packedSearch, "each search goes on where the last one ended")
}

func TestARegistryThatWasFullSearchesWhollyAgain(t *testing.T) {
	const size = 3 * packedSearch
	r := newRegistry(t, RegistryConfig{MaxBreakers: size})
	for i := range size {
		r.Breaker(fmt.Sprint(i)).Trip("")
	}
	r.Breaker("one too many")
	for _, b := range r.All() {
		b.Reset("")
	}
	r.Breaker("new") // finds room at once
	idle := r.ring[(r.hand+size-1)%size].breaker
	for name, b := range r.All() {
		r.Breaker(name)
		if b != idle {
			b.Trip("")
		}
	}
	require.Same(t, r.Breaker("newer"), r.Breaker("newer"), "the last place that the hand comes to")
}

func TestANewServiceTakesThePlaceOfAnIdleBreaker(t *testing.T) {
	r := newRegistry(t, RegistryConfig{MaxBreakers: 3})
	for i := range 3 {
		r.Breaker(fmt.Sprint("tenant-", i))
	}
	require.NoError(t, r.Apply(RegistryConfig{MaxBreakers: 3, Services: map[string]Config{"db": {}}}))
	require.Len(t, maps.Collect(r.All()), 3)
}

func TestTheOneThatWasNotUsedMakesRoom(t *testing.T) {
	for unused := range 2 {
		r := newRegistry(t, RegistryConfig{MaxBreakers: 3})
		for _, name := range []string{"a", "b", "c", "a", "b", "c", "d"} { // d takes the mark of use from all, and the place of one
			r.Breaker(name)
		}
		var kept []string
		for _, m := range r.ring {
			if m.name != "d" {
				kept = append(kept, m.name)
			}
		}
		require.Len(t, kept, 2)
		r.Breaker("d")
		r.Breaker(kept[1-unused])
		r.Breaker("e")
		require.NotContains(t, maps.Collect(r.All()), kept[unused])
		require.Contains(t, maps.Collect(r.All()), kept[1-unused])
	}
}

func TestTheLastInTheRoundThatWasNotUsedMakesRoom(t *testing.T) {
	r := newRegistry(t, RegistryConfig{MaxBreakers: 6})
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "a", "b", "c", "d", "e", "g"} {
		r.Breaker(name)
	}
	require.NotContains(t, maps.Collect(r.All()), "f")
	require.Contains(t, maps.Collect(r.All()), "g")
}

func TestARegistryThatWasFullMakesRoomThoughAllAreUsed(t *testing.T) {
	const size = 3 * packedSearch
	r := newRegistry(t, RegistryConfig{MaxBreakers: size})
	for i := range size {
		r.Breaker(fmt.Sprint(i)).Trip("")
	}
	r.Breaker("one too many")
	for name := range r.All() {
		r.Breaker(name).Reset("")
	}
	r.Breaker("new")
	require.EqualValues(t, 1, r.Unregistered())
}

func BenchmarkNewNameInAFullRegistry(b *testing.B) {
	r, err := NewRegistry(RegistryConfig{})
	require.NoError(b, err)
	for i := range defaultMaxBreakers {
		r.Breaker(fmt.Sprint("open-", i)).Trip("")
	}
	for b.Loop() {
		r.Breaker("new")
	}
}

func TestAFullRegistrySearchesAFewStepsOnly(t *testing.T) {
	const size = 500
	r := newRegistry(t, RegistryConfig{MaxBreakers: size})
	for i := range size {
		r.Breaker(fmt.Sprint("open-", i)).Trip("")
	}
	r.Breaker("one too many")
	for name := range r.All() {
		r.Breaker(name) // the hand takes the mark of use from each that it passes
	}
	r.Breaker("two too many")
	passed := 0
	for _, m := range r.ring {
		if !m.used.Load() {
			passed++
		}
	}
	require.LessOrEqual(t, passed, packedSearch+1)
}

func TestTheWarningOfAFullRegistryCutsTheName(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	r := newRegistry(t, RegistryConfig{MaxBreakers: 1}, WithLogger(zap.New(core)))
	r.Breaker("a").Trip("")
	r.Breaker(strings.Repeat("n", 1<<20))
	warnings := logs.FilterMessageSnippet("registry is full").All()
	require.Len(t, warnings, 1)
	require.Len(t, warnings[0].ContextMap()["name"], maxName)
}
