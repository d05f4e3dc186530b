package alert

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zapcore"

	"github.com/failfast-go/breaker"
)

// one runs f beside an Alerter with one channel and no registry.
func one(t *testing.T, change func(*options, *namedSender), f func(t *testing.T, a *Alerter, c *channel, to *receiver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		to := &receiver{}
		o, s := testOptions(), named("fake", to)
		if change != nil {
			change(&o, &s)
		}
		a := start(o, []namedSender{s}, func() {})
		f(t, a, a.channels[0], to)
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_ = a.Close(ctx)
	})
}

func opened(name string) *delivery { return message(eventOpened, name) }

func message(event, name string) *delivery {
	return &delivery{alert: Alert{Event: event, Breaker: name, DedupKey: name}, queued: time.Now()}
}

func TestWhatAChannelDoesNotTakeIsSentAgainEverMoreSlowly(t *testing.T) {
	one(t, nil, func(t *testing.T, a *Alerter, c *channel, to *receiver) {
		to.switchTo(down)
		begin := time.Now()
		c.offer(opened("x"))
		settled(30 * time.Minute)
		var last time.Time
		for i, at := range to.attempts {
			if i > 0 {
				pause, least := at.Sub(last), min(time.Second<<(i-1), time.Minute)
				require.GreaterOrEqual(t, pause, least, "pause %d", i)
				require.Less(t, pause, least+least/5+1, "pause %d", i)
			}
			last = at
		}
		s := a.Stats().Channels[0]
		require.EqualValues(t, len(to.attempts), s.Retried)
		require.Equal(t, "connection refused", s.LastError)
		require.WithinDuration(t, begin, s.DownSince, 0)
		require.Equal(t, 1, s.Queued)

		to.switchTo(nil)
		settled(72 * time.Second)
		require.Equal(t, []string{"opened x"}, to.told())
		s = a.Stats().Channels[0]
		require.Equal(t, ChannelStats{Name: "fake", Sent: 1, Retried: s.Retried}, s)
	})
}

func TestPausesGrowToAMinuteAndSpread(t *testing.T) {
	for failures, least := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: time.Minute, 8: time.Minute, 1 << 30: time.Minute} {
		require.Equal(t, least, defaultTiming.pause(failures, 0))
		require.Equal(t, least+least/10, defaultTiming.pause(failures, 0.5))
	}
}

func TestAChannelThatIsDownLosesNothingThatItsQueueCanHold(t *testing.T) {
	one(t, func(o *options, _ *namedSender) { o.queue = 100 }, func(t *testing.T, a *Alerter, c *channel, to *receiver) {
		to.switchTo(down)
		names := numbered(130)
		for _, name := range names {
			require.Equal(t, name < "b100", c.offer(opened(name)))
		}
		for _, name := range names[:100] {
			require.True(t, c.offer(message(eventRecovered, name)), "what was told to have begun has a place to end in")
		}
		settled(time.Hour)
		require.Equal(t, 200, a.Stats().Channels[0].Queued)
		to.switchTo(nil)
		settled(2 * time.Minute)
		s := a.Stats().Channels[0]
		require.EqualValues(t, 30, s.Dropped)
		require.EqualValues(t, 200, s.Sent)
		require.Zero(t, s.Failed)
		told := to.told()
		require.Len(t, told, 200)
		seen := map[string]bool{}
		for _, text := range told {
			if name, over := strings.CutPrefix(text, "recovered "); over {
				require.True(t, seen["opened "+name], "%s before its opening", text)
			}
			seen[text] = true
		}
	})
}

func TestWhatWasDroppedIsLoggedNowAndThen(t *testing.T) {
	log, logs := testLog()
	one(t, func(o *options, _ *namedSender) { o.queue, o.log = 1, log }, func(t *testing.T, _ *Alerter, c *channel, to *receiver) {
		to.switchTo(down)
		for _, name := range numbered(101) {
			c.offer(opened(name))
		}
		require.Len(t, logs.FilterMessage("alerts dropped: the queue is full").All(), 7) // 1, 2, 4 ... 64
	})
}

func TestChannelsAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ill, hung, well := &receiver{answer: down}, &receiver{block: make(chan struct{})}, &receiver{}
		a := start(testOptions(), []namedSender{named("ill", ill), named("hung", hung), named("well", well)}, func() {})
		r := registryOf(t, numbered(100)...)
		a.Watch(r)
		for _, b := range r.All() {
			fail(b)
		}
		settled(0)
		require.Len(t, well.told(), 100)
		close(hung.block)
		settled(0)
		require.Len(t, hung.told(), 100)
		ill.switchTo(nil)
		settled(2 * time.Second)
		require.Len(t, ill.told(), 100)
		mustClose(t, a)
	})
}

func TestACallNeverWaitsForAnAlert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := &receiver{block: make(chan struct{})}
		o := testOptions()
		o.queue = 1
		a := start(o, []namedSender{named("hung", hung)}, func() {})
		r := registryOf(t, numbered(500)...)
		a.Watch(r)
		begin := time.Now()
		for _, b := range r.All() {
			fail(b)
			require.Equal(t, breaker.StateOpen, b.State())
		}
		require.Zero(t, time.Since(begin), "no time passes")
		settled(0)
		s := a.Stats().Channels[0]
		require.EqualValues(t, 499, s.Dropped)
		close(hung.block)
		mustClose(t, a)
	})
}

func TestAnAttemptThatHangsIsGivenUp(t *testing.T) {
	one(t, nil, func(t *testing.T, _ *Alerter, c *channel, to *receiver) {
		to.block = make(chan struct{})
		c.offer(opened("x"))
		settled(10*time.Second - 1)
		require.Equal(t, 1, to.count())
		settled(2 * time.Second)
		require.Equal(t, 2, to.count())
		close(to.block)
		settled(0)
		require.Equal(t, []string{"opened x"}, to.told())
	})
}

func TestAReceiverThatAsksForAPauseGetsIt(t *testing.T) {
	for asks, gets := range map[time.Duration]time.Duration{30 * time.Second: 30 * time.Second, 24 * time.Hour: 10 * time.Minute, time.Millisecond: time.Second} {
		one(t, nil, func(t *testing.T, _ *Alerter, c *channel, to *receiver) {
			to.answer = func(n int, _ *delivery) error {
				if n == 0 {
					return fmt.Errorf("wrapped: %w", &later{text: "429", wait: asks})
				}
				return nil
			}
			begin := time.Now()
			c.offer(opened("x"))
			settled(time.Hour)
			require.GreaterOrEqual(t, to.attempts[1].Sub(begin), gets, "asked for %v", asks)
			require.LessOrEqual(t, to.attempts[1].Sub(begin), gets+gets/5, "asked for %v", asks)
		})
	}
}

func TestARefusedMessageIsNotSentAgainAndHoldsUpNoOther(t *testing.T) {
	log, logs := testLog()
	one(t, func(o *options, _ *namedSender) { o.log = log }, func(t *testing.T, a *Alerter, c *channel, to *receiver) {
		to.answer = func(_ int, d *delivery) error {
			if d.alert.Breaker == "x" {
				return &refusal{text: "400 invalid_payload"}
			}
			return nil
		}
		c.offer(opened("x"))
		c.offer(opened("y"))
		settled(0)
		require.Equal(t, []string{"opened y"}, to.told())
		s := a.Stats().Channels[0]
		require.Equal(t, ChannelStats{Name: "fake", Sent: 1, Failed: 1}, s)
		line := logs.FilterMessage("alert not sent").All()
		require.Len(t, line, 1)
		require.Equal(t, map[string]any{"channel": "fake", "event": "opened", "breaker": "x", "error": "400 invalid_payload"}, line[0].ContextMap())
	})
}

func TestAMessageThatCannotBeTakenHoldsUpTheOthersForAWhileOnly(t *testing.T) {
	one(t, nil, func(t *testing.T, _ *Alerter, c *channel, to *receiver) {
		to.answer = func(_ int, d *delivery) error {
			if d.alert.Breaker == "poison" {
				return errors.New("500")
			}
			return nil
		}
		for _, d := range []*delivery{opened("poison"), opened("x"), message(eventRecovered, "poison"), message(eventRecovered, "x")} {
			c.offer(d)
		}
		settled(time.Minute)
		require.Equal(t, []string{"opened x", "recovered x"}, to.told())
		to.switchTo(nil)
		settled(2 * time.Minute)
		require.Equal(t, []string{"opened poison", "recovered poison"}, to.told(), "those of one breaker stay in order")
	})
}

func TestAMessageIsGivenUpAfterADay(t *testing.T) {
	one(t, nil, func(t *testing.T, a *Alerter, c *channel, to *receiver) {
		to.switchTo(down)
		c.offer(opened("x"))
		settled(24 * time.Hour)
		require.Equal(t, 1, a.Stats().Channels[0].Queued)
		settled(2 * time.Minute)
		s := a.Stats().Channels[0]
		require.Zero(t, s.Queued)
		require.EqualValues(t, 1, s.Failed)
		require.Contains(t, s.LastError, "given up after 24h")
		require.Contains(t, s.LastError, "connection refused")
	})
}

func TestAPanicBehindAChannelIsAFailure(t *testing.T) {
	one(t, nil, func(t *testing.T, a *Alerter, c *channel, to *receiver) {
		to.answer = func(n int, _ *delivery) error {
			if n == 0 {
				panic("index out of range")
			}
			return nil
		}
		c.offer(opened("x"))
		settled(0)
		require.Equal(t, "a panic while sending: index out of range", a.Stats().Channels[0].LastError)
		settled(2 * time.Second)
		require.Equal(t, []string{"opened x"}, to.told())
	})
}

func TestTheLogSaysThatAChannelFailsAndThatItWorksAgain(t *testing.T) {
	log, logs := testLog()
	one(t, func(o *options, _ *namedSender) { o.log = log }, func(t *testing.T, _ *Alerter, c *channel, to *receiver) {
		to.switchTo(down)
		for _, name := range numbered(10) {
			c.offer(opened(name))
		}
		settled(time.Hour)
		to.switchTo(nil)
		settled(2 * time.Minute)
		var lines []string
		for _, l := range logs.All() {
			lines = append(lines, fmt.Sprintf("%v %s", l.Level, l.Message))
		}
		require.Equal(t, []string{"warn alert channel fails: its messages wait", "info alert channel works again"}, lines)
		require.EqualValues(t, 9, logs.FilterLevelExact(zapcore.InfoLevel).All()[0].ContextMap()["waiting"])

		to.switchTo(down)
		c.offer(opened("x"))
		settled(1200 * time.Millisecond)
		require.Equal(t, 3, logs.FilterLevelExact(zapcore.WarnLevel).Len()+logs.FilterLevelExact(zapcore.InfoLevel).Len(), "a second outage is news again")
		to.switchTo(nil)
		settled(2400 * time.Millisecond)
		require.Contains(t, to.told(), "opened x", "and begins with short pauses")
	})
}

func TestCloseSendsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &receiver{answer: down}
		a := start(testOptions(), []namedSender{named("fake", to)}, func() {})
		r := registryOf(t, "x", "y", "z")
		a.Watch(r)
		fail(r.Breaker("x"))
		settled(10 * time.Minute) // in the middle of a long pause
		fail(r.Breaker("y"))
		r.Breaker("y").Reset("")
		to.switchTo(nil)
		begin := time.Now()
		mustClose(t, a)
		require.LessOrEqual(t, time.Since(begin), time.Second, "it does not sit out the pause")
		require.Equal(t, []string{"opened x", "opened y", "recovered y"}, to.told(), "a recovery counts though it has not lasted; an incident that goes on is left alone")

		fail(r.Breaker("z"))
		a.Watch(r)
		fail(r.Breaker("z"))
		settled(time.Hour)
		require.Empty(t, to.told())
		mustClose(t, a)
	})
}

func TestCloseSaysWhatItCouldNotSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ill, hung, refusing := &receiver{answer: down}, &receiver{block: make(chan struct{})}, &receiver{}
		refusing.answer = func(int, *delivery) error { time.Sleep(600 * time.Millisecond); return &refusal{text: "403"} }
		a := start(testOptions(), []namedSender{named("ill", ill), named("hung", hung), named("refusing", refusing), named("well", &receiver{})}, func() {})
		r := registryOf(t, numbered(7)...)
		a.Watch(r)
		for _, b := range r.All() {
			fail(b)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second+time.Millisecond)
		defer cancel()
		begin := time.Now()
		err := a.Close(ctx)
		require.Equal(t, 5*time.Second+time.Millisecond, time.Since(begin))
		require.ErrorContains(t, err, "alert: closed with 7 unsent to ill: opened \"b0")
		require.ErrorContains(t, err, ", and 2 more; last error: connection refused\n")
		require.ErrorContains(t, err, "alert: closed with 7 unsent to hung: ")
		require.ErrorContains(t, err, "alert: closed with 7 unsent to refusing: ")
		require.ErrorContains(t, err, " (403)")
		require.NotContains(t, err.Error(), "well")
		require.Equal(t, err, a.Close(context.Background()), "a second Close returns the same")
		for _, s := range a.Stats().Channels[:3] {
			require.EqualValues(t, 7, s.Failed, s.Name)
			require.Zero(t, s.Queued)
		}
	})
}

func TestCloseWithoutADeadlineHasOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(testOptions(), []namedSender{named("ill", &receiver{answer: down})}, func() {})
		r := registryOf(t, "x")
		a.Watch(r)
		fail(r.Breaker("x"))
		begin := time.Now()
		require.Error(t, a.Close(context.Background()))
		require.Equal(t, closeWithin, time.Since(begin))
	})
}

func TestClosesAtTheSameTimeAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(testOptions(), []namedSender{named("ill", &receiver{answer: down})}, func() {})
		r := registryOf(t, "x")
		a.Watch(r)
		fail(r.Breaker("x"))
		results := make(chan error, 5)
		for range 5 {
			go func() { results <- a.Close(context.Background()) }()
		}
		first := <-results
		require.Error(t, first)
		for range 4 {
			require.Equal(t, first, <-results)
		}
	})
}
