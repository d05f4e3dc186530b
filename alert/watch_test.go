package alert

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// watching runs f beside an Alerter that watches breakers "x" and "y" and tells one receiver.
func watching(t *testing.T, f func(t *testing.T, r *breaker.Registry, a *Alerter, to *receiver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		to := &receiver{}
		a := start(testOptions(), []namedSender{named("fake", to)}, func() {})
		r := registryOf(t, "x", "y")
		a.Watch(r)
		f(t, r, a, to)
		_ = a.Close(context.Background())
	})
}

func TestAnOpeningIsToldAtOnceAndARecoveryOnceItHasLasted(t *testing.T) {
	watching(t, func(t *testing.T, r *breaker.Registry, a *Alerter, to *receiver) {
		x := r.Breaker("x")
		opened := time.Now()
		fail(x)
		settled(0)
		require.Len(t, to.got, 1)
		first := to.got[0]
		require.Equal(t, []string{"opened x"}, to.told())
		require.Equal(t, breaker.RiskHigh, first.Severity)
		require.Equal(t, "1 consecutive failures >= 1", first.Why)
		require.WithinDuration(t, opened, first.Since, 0)
		require.WithinDuration(t, opened.Add(time.Second), first.NextProbe, 0)
		require.Equal(t, 1, a.Stats().Incidents)

		for range 3 {
			fail(x) // refused
		}
		settled(time.Second)
		succeed(x)
		closed := time.Now()
		settled(time.Minute - 1)
		require.Empty(t, to.told())
		settled(1)
		require.Len(t, to.got, 1)
		second := to.got[0]
		require.Equal(t, []string{"recovered x"}, to.told())
		require.Equal(t, breaker.RiskHigh, second.Severity)
		require.Equal(t, first.DedupKey, second.DedupKey)
		require.NotEqual(t, first.ID, second.ID)
		require.WithinDuration(t, closed, second.RecoveredAt, 0)
		require.Equal(t, 3, second.Refused)
		require.Zero(t, a.Stats().Incidents)
	})
}

func TestARegistryThatIsWatchedTwiceIsWatchedOnce(t *testing.T) {
	watching(t, func(t *testing.T, r *breaker.Registry, a *Alerter, to *receiver) {
		a.Watch(r)
		fail(r.Breaker("x"))
		settled(0)
		require.Len(t, to.got, 1)
		require.Equal(t, 1, to.got[0].Openings)
	})
}

func TestABreakerThatFlapsAThousandTimesInAMinuteSendsAHandful(t *testing.T) {
	watching(t, func(t *testing.T, r *breaker.Registry, a *Alerter, to *receiver) {
		x := r.Breaker("x")
		for range 1000 {
			x.Trip("")
			x.Reset("")
			settled(60 * time.Millisecond)
		}
		settled(2 * time.Minute)
		require.Equal(t, 1000, to.got[1].Openings)
		require.Equal(t, []string{"opened x", "recovered x"}, to.told())
		require.Zero(t, a.Stats().Channels[0].Dropped)
	})
}

func TestOpeningsThatNobodyHadTimeToSeeAreCounted(t *testing.T) {
	watching(t, func(t *testing.T, r *breaker.Registry, _ *Alerter, to *receiver) {
		for range 50 {
			r.Breaker("x").Trip("")
			r.Breaker("x").Reset("")
		}
		r.Breaker("y").Trip("")
		r.Breaker("y").Reset("")
		r.Breaker("y").Trip("and it stays so")
		settled(2 * time.Minute)
		require.ElementsMatch(t, []string{"opened x", "opened y", "recovered x"}, to.told())
	})
}

func TestAnIncidentThatTurnsCriticalIsToldToThoseWhoTakeOnlyThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, critical := &receiver{}, &receiver{}
		picky := named("picky", critical)
		picky.takes = 1 << breaker.RiskCritical
		a := start(testOptions(), []namedSender{named("all", all), picky}, func() {})
		defer mustClose(t, a)
		r := registryOf(t, "x")
		a.Watch(r)
		x := r.Breaker("x")
		fail(x)
		settled(0)
		require.Equal(t, []string{"opened x"}, all.told())
		require.Empty(t, critical.told())
		for range 6 { // each failed probe is an opening more
			settled(time.Second)
			fail(x)
			settled(0)
		}
		require.Empty(t, all.told())
		require.Len(t, critical.got, 1)
		require.Equal(t, breaker.RiskCritical, critical.got[0].Severity)
		require.Greater(t, critical.got[0].Openings, 1)
		require.Equal(t, []string{"opened x"}, critical.told())
		settled(time.Second)
		succeed(x)
		settled(time.Minute)
		require.Equal(t, breaker.RiskHigh, all.got[0].Severity, "the severity that it was told")
		require.Equal(t, breaker.RiskCritical, critical.got[0].Severity)
		require.Equal(t, []string{"recovered x"}, critical.told())
	})
}

func TestHoldsAreNoIncidents(t *testing.T) {
	watching(t, func(t *testing.T, r *breaker.Registry, _ *Alerter, to *receiver) {
		x, y := r.Breaker("x"), r.Breaker("y")
		x.ForceOpen(breaker.Hold{By: "ann", Reason: "migration"})
		settled(time.Minute)
		x.Disable(breaker.Hold{By: "ann"})
		settled(time.Minute)
		x.Release()
		settled(time.Minute)
		require.Empty(t, to.told())

		x.ForceOpen(breaker.Hold{By: "ann"})
		x.Trip("below the hold")
		settled(0)
		require.Empty(t, to.told(), "nobody meets the state below a hold")
		x.Release()
		settled(0)
		require.Equal(t, "a trip by hand: below the hold", to.got[0].Why)
		require.Equal(t, []string{"opened x"}, to.told(), "now callers meet it")
		x.Reset("")
		settled(2 * time.Minute)
		require.Equal(t, []string{"recovered x"}, to.told())

		fail(y)
		settled(0)
		y.ForceOpen(breaker.Hold{By: "ann"})
		settled(time.Hour)
		require.Equal(t, []string{"opened y"}, to.told(), "a hold does not end an incident")
		y.Release()
		succeed(y)
		settled(time.Minute)
		require.Equal(t, []string{"recovered y"}, to.told())
	})
}

func TestABreakerThatIsOpenWhenWatchingBeginsIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &receiver{}
		a := start(testOptions(), []namedSender{named("fake", to)}, func() {})
		defer mustClose(t, a)
		r := registryOf(t, "closed", "half-open", "held", "open")
		fail(r.Breaker("half-open"))
		time.Sleep(time.Second)
		fail(r.Breaker("open"))
		r.Breaker("held").ForceOpen(breaker.Hold{})
		a.Watch(r)
		a.Watch(nil)
		settled(0)
		require.ElementsMatch(t, []string{"opened half-open", "opened open"}, to.told())
	})
}

func TestABreakerThatIsRemovedEndsItsIncident(t *testing.T) {
	watching(t, func(t *testing.T, r *breaker.Registry, _ *Alerter, to *receiver) {
		x := r.Breaker("x")
		fail(x)
		settled(0)
		require.Equal(t, []string{"opened x"}, to.told())
		r.Remove("x")
		settled(checkEvery)
		require.Equal(t, []string{"recovered x"}, to.told())

		x.Reset("")
		fail(x)
		settled(time.Hour)
		require.Empty(t, to.told(), "what no registry holds is on no page either")
	})
}

// A listener of the same breaker that lags behind makes it drop events, the closing among them.
func TestARecoveryWhoseEventWasDroppedIsFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &receiver{}
		a := start(testOptions(), []namedSender{named("fake", to)}, func() {})
		defer mustClose(t, a)
		r := registryOf(t, "x")
		x := r.Breaker("x")
		a.Watch(r)
		var nested atomic.Bool
		r.Subscribe(func(breaker.Event) {
			if nested.Swap(true) {
				return
			}
			for range 33 { // the first of 66 events is being delivered: 64 wait, and the last is lost
				x.Trip("")
				x.Reset("")
			}
			x.Trip("")
			x.Reset("")
		})
		x.Trip("")
		require.Equal(t, breaker.StateClosed, x.State())
		settled(checkEvery + time.Minute)
		require.Equal(t, []string{"opened x", "recovered x"}, to.told())
	})
}

func TestOnlyAChannelThatAsksForItIsToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		once, often := &receiver{}, &receiver{}
		repeats := named("often", often)
		repeats.repeats = true
		a := start(testOptions(), []namedSender{named("once", once), repeats}, func() {})
		defer mustClose(t, a)
		r := registryOf(t, "x")
		a.Watch(r)
		fail(r.Breaker("x"))
		settled(11 * time.Minute)
		require.Equal(t, []string{"opened x"}, once.told())
		require.Equal(t, []string{"opened x", "opened x", "opened x"}, often.told())
		r.Breaker("x").ForceOpen(breaker.Hold{By: "ann"})
		settled(time.Hour)
		require.Empty(t, often.told(), "whoever holds it knows")
	})
}

func TestAnOpeningThatFoundNoPlaceIsToldWithTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &receiver{block: make(chan struct{})}
		o := testOptions()
		o.queue = 1
		a := start(o, []namedSender{named("fake", to)}, func() {})
		defer mustClose(t, a)
		r := registryOf(t, "x", "y")
		a.Watch(r)
		fail(r.Breaker("x"))
		settled(0)
		fail(r.Breaker("y"))
		settled(1)
		require.EqualValues(t, 1, a.Stats().Channels[0].Dropped)
		close(to.block)
		settled(time.Second)
		require.Equal(t, []string{"opened x"}, to.told())
		fail(r.Breaker("y"))
		settled(0)
		require.Equal(t, 2, to.got[0].Openings)
		require.Equal(t, []string{"opened y"}, to.told())
	})
}

func TestTwoRegistriesMayHaveABreakerOfTheSameName(t *testing.T) {
	watching(t, func(t *testing.T, r *breaker.Registry, a *Alerter, to *receiver) {
		other := registryOf(t, "x")
		a.Watch(other)
		fail(r.Breaker("x"))
		fail(other.Breaker("x"))
		settled(time.Second)
		require.Equal(t, []string{"opened x", "opened x"}, to.told())
		succeed(r.Breaker("x"))
		settled(2 * time.Minute)
		require.Equal(t, []string{"recovered x"}, to.told())
	})
}

func TestEventsBeyondTheMailboxAreCounted(t *testing.T) {
	m := mailbox{ready: make(chan struct{}, 1)}
	r := registryOf(t)
	for _, name := range numbered(maxIncidents + 7) {
		m.put(subject{r, name}, breaker.Event{To: breaker.StateOpen})
		m.put(subject{r, name}, breaker.Event{To: breaker.StateHalfOpen})
	}
	require.EqualValues(t, 7, m.lostCount())
	require.Len(t, m.take(), maxIncidents)
	require.Empty(t, m.take())
}
