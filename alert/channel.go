package alert

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
)

// levels is a set of severities, a bit each.
type levels uint8

const allLevels levels = 1<<breaker.RiskLow | 1<<breaker.RiskMedium | 1<<breaker.RiskHigh | 1<<breaker.RiskCritical

func (l levels) has(level breaker.RiskLevel) bool { return l&(1<<level) != 0 }

// sender delivers one message. A *refusal is final; after any other error, a *later included, the message is sent again.
type sender interface {
	send(ctx context.Context, d *delivery) error
}

// namedSender is a sender with what its channel needs to know.
type namedSender struct {
	sender
	name    string
	takes   levels
	repeats bool // it wants to hear again of incidents that go on
	limit   time.Duration
	scrub   func(string) string // takes secrets out of an error's text
}

// delivery is a message on its way.
type delivery struct {
	alert    Alert
	queued   time.Time
	attempts int
	repeated bool
	missing  []string // recipients who have not got it yet; nil before the first attempt
}

func (d *delivery) String() string { return fmt.Sprintf("%s %.60q", d.alert.Event, d.alert.Breaker) }

// timing is how a channel deals with failures.
type timing struct {
	first, most time.Duration // pause after one failure, after many
	mostAsked   time.Duration // of a receiver's Retry-After
	keep        time.Duration // how long a message is worth sending
	patience    int           // attempts at one message while others wait, before they go first
}

// A minute at most: a receiver that is back is noticed while it still matters, and one that is down is asked 60 times an hour.
var defaultTiming = timing{first: time.Second, most: time.Minute, mostAsked: 10 * time.Minute, keep: 24 * time.Hour, patience: 5}

// pause is how long to wait after that many failures in a row; u in [0,1) spreads the instances of a service.
func (t timing) pause(failures int, u float64) time.Duration {
	d := t.first
	for range failures - 1 {
		if d *= 2; d >= t.most {
			d = t.most
			break
		}
	}
	return d + time.Duration(u*0.2*float64(d))
}

// channel is a receiver with its queue. One goroutine takes from it.
type channel struct {
	namedSender
	timing
	log     *zap.Logger
	longest int
	news    chan struct{} // holds one token while there may be something new
	closing chan struct{}

	mu       sync.Mutex // guards the fields below
	queue    []*delivery
	isClosed bool
	lost     []string // given up since closing began
	stats    ChannelStats
	failures int // attempts in a row
}

func newChannel(s namedSender, o *options) *channel {
	return &channel{namedSender: s, timing: o.timing, log: o.log.With(zap.String("channel", s.name)), longest: o.queue,
		news: make(chan struct{}, 1), closing: make(chan struct{}), stats: ChannelStats{Name: s.name}}
}

// offer queues a message, or counts it as dropped. It never waits.
func (c *channel) offer(d *delivery) (taken bool) {
	c.mu.Lock()
	taken = c.takeLocked(d)
	dropped := c.stats.Dropped
	c.mu.Unlock()
	if !taken {
		if !d.repeated && dropped&(dropped-1) == 0 { // at 1, 2, 4, 8: a line for each would be a flood
			c.log.Warn("alerts dropped: the queue is full", zap.Uint64("dropped_so_far", dropped), zap.String("breaker", d.alert.Breaker))
		}
		return false
	}
	select {
	case c.news <- struct{}{}:
	default:
	}
	return true
}

// takeLocked makes room for a recovery in any case, since its opening was told: there is at most one for each breaker. What is
// repeated has no place in a queue that says it already.
func (c *channel) takeLocked(d *delivery) bool {
	switch {
	case d.repeated && len(c.queue) > 0:
		return false
	case d.alert.Event != eventRecovered && len(c.queue) >= c.longest:
		c.stats.Dropped++
		return false
	}
	c.queue = append(c.queue, d)
	return true
}

// close lets the worker end once the queue is empty.
func (c *channel) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isClosed = true
	close(c.closing)
}

// run sends what is queued until the channel is closed and its queue empty, or ctx is done.
func (c *channel) run(ctx context.Context) {
	for ctx.Err() == nil {
		d, ended := c.head()
		if ended {
			return
		}
		if d == nil {
			select {
			case <-c.news:
			case <-c.closing:
			case <-ctx.Done():
			}
			continue
		}
		err := c.attempt(ctx, d)
		if ctx.Err() != nil && err != nil {
			return // it stays in the queue, as what was not sent
		}
		if pause := c.settle(d, err); pause > 0 {
			c.rest(ctx, pause, asked(err))
		}
	}
}

// head returns the next message, nil for none yet.
func (c *channel) head() (d *delivery, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		return nil, c.isClosed
	}
	return c.queue[0], false
}

// attempt sends d once. A panic in what lies behind, such as a library that meets a strange answer, is a failure and no more: an
// alert must not end the process that it is about.
func (c *channel) attempt(ctx context.Context, d *delivery) (err error) {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("a panic while sending: %v", r)
		}
	}()
	d.attempts++
	return c.send(ctx, d)
}

// settle takes d out of the queue unless it is to be sent again, and returns how long to wait before that.
func (c *channel) settle(d *delivery, err error) (pause time.Duration) {
	if err == nil {
		c.sent()
		return 0
	}
	text := c.scrub(err.Error())
	refused, final := errors.AsType[*refusal](err)
	if final && refused.partly {
		c.sent()
		c.log.Error("alert not sent to all", zap.String("event", d.alert.Event), zap.String("breaker", d.alert.Breaker), zap.String("error", text))
		return 0
	}
	if !final && time.Since(d.queued) > c.keep {
		final, text = true, fmt.Sprintf("given up after %v and %d attempts: %s", roughly(time.Since(d.queued)), d.attempts, text)
	}
	c.mu.Lock()
	c.stats.LastError = text
	if final {
		c.giveUpLocked(d, text)
	} else {
		pause = c.againLocked(d)
	}
	first := c.failures == 1 && !final
	c.mu.Unlock()
	switch {
	case final:
		c.log.Error("alert not sent", zap.String("event", d.alert.Event), zap.String("breaker", d.alert.Breaker), zap.String("error", text))
	case first: // the next line is that it works again, or what was given up
		c.log.Warn("alert channel fails: its messages wait", zap.String("error", text))
	}
	return max(pause, min(asked(err), c.mostAsked))
}

// sent takes the head out of the queue.
func (c *channel) sent() {
	c.mu.Lock()
	c.queue = c.queue[1:]
	c.stats.Sent++
	down := c.stats.DownSince
	waiting := len(c.queue)
	c.stats.DownSince, c.stats.LastError, c.failures = time.Time{}, "", 0
	c.mu.Unlock()
	if !down.IsZero() {
		c.log.Info("alert channel works again", zap.Duration("down", time.Since(down)), zap.Int("waiting", waiting))
	}
}

// giveUpLocked takes the head out of the queue. A refusal says nothing about the next message, so there is no pause.
func (c *channel) giveUpLocked(d *delivery, why string) {
	c.queue = c.queue[1:]
	c.stats.Failed++
	if c.isClosed {
		c.lost = append(c.lost, fmt.Sprintf("%v (%s)", d, why))
	}
}

// againLocked leaves d at the head, or lets the others go first when it has failed often: it may be this very message that the
// receiver cannot take. Messages about the same breaker stay in order.
func (c *channel) againLocked(d *delivery) time.Duration {
	c.stats.Retried++
	c.failures++
	if c.stats.DownSince.IsZero() {
		c.stats.DownSince = time.Now()
	}
	if d.attempts%c.patience == 0 {
		same := func(other *delivery) bool { return other.alert.DedupKey == d.alert.DedupKey }
		var first, last []*delivery
		for _, other := range c.queue {
			if same(other) {
				last = append(last, other)
			} else {
				first = append(first, other)
			}
		}
		c.queue = slices.Concat(first, last)
	}
	return c.pause(c.failures, rand.Float64())
}

// rest waits before the next attempt. Closing shortens a pause of our own to the first one, not one that the receiver asked for.
func (c *channel) rest(ctx context.Context, pause, asked time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return
	case <-ctx.Done():
		return
	case <-c.closing:
	}
	if asked == 0 {
		timer.Reset(min(pause, c.first))
	}
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// unsent says what is left after run has ended.
func (c *channel) unsent() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := slices.Clone(c.lost)
	for _, d := range c.queue {
		left = append(left, d.String())
	}
	c.stats.Failed += uint64(len(c.queue))
	c.queue = nil
	if len(left) == 0 {
		return nil
	}
	n := len(left)
	if n > 5 {
		left = append(left[:5], fmt.Sprintf("and %d more", n-5))
	}
	text := fmt.Sprintf("alert: closed with %d unsent to %s: %s", n, c.name, strings.Join(left, ", "))
	if c.stats.LastError != "" {
		text += "; last error: " + c.stats.LastError
	}
	return errors.New(text)
}

func (c *channel) snapshot() ChannelStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Queued = len(c.queue)
	return s
}
