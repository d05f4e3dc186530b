// Package alert tells people when a breaker opens, and when it has recovered: by Slack, PagerDuty, e-mail and webhook, as the
// alerts part of the breakers' YAML file says.
//
//	alerts, err := alert.New(file.Alerts, alert.WithLogger(log), alert.WithPage("https://ops.example.com/breakers"))
//	if err != nil {
//		return err // lists everything that is wrong, such as a variable that is not set
//	}
//	alerts.Watch(registry)
//	defer alerts.Close(ctx)
//
// # What is told
//
// A message goes out at once when a breaker opens, by a rule or by Trip, and when it is released from a hold into the open
// state. That begins an incident, which ends when the breaker has closed and stayed so for [DefaultQuiet]: then a second message
// says so. However often it opens in between, there is no other message, unless the incident turns more severe: then the
// channels that were not told, because their severity_filter does not take what it was before, are told now.
//
// The severity is that of [breaker.Assess] at each opening, at least high. The recovery goes to the channels that were told, with
// the severity that they were told.
//
// A hold is no incident, since whoever set it knows; nor does it end one. A breaker that is taken out of its registry ends it.
//
// # How it is told
//
// A call through a breaker never waits for any of this. Each channel has a queue and a goroutine of its own, so that one which is
// down holds up no other. What a channel does not take is sent again, after a second at first and after at most a minute, for a
// day; what it refuses (a 4xx but 408 and 429, a 5xx of a mail server) is given up. A receiver's Retry-After is honoured up to
// ten minutes. A full queue takes no news of further incidents; [Stats] counts them.
//
// Every instance of a service tells for itself: ten instances that lose an upstream send ten messages to Slack. At PagerDuty they
// share one incident, by a key made of service and breaker, and because the first one to recover resolves it for all, the others
// repeat theirs every five minutes while they are open. Where there are many instances, alert rules over their metrics, which
// add them up, may serve better.
//
// What is going on is in memory only. A process that ends while a breaker is open leaves its incident at PagerDuty as it is.
//
// # Secrets
//
// URLs, keys and passwords are in nothing that this package logs, returns or prints, also where a receiver's answer quotes them.
// Mail goes out over TLS only: STARTTLS, or TLS from the start on port 465. Redirects are not followed.
package alert

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
)

// DefaultQuiet is for how long a breaker must have been closed before its incident is over. A minute: with the default of 30 s
// between probes, a recovery that does not last has shown it by then; and who is awake learns of a real one soon enough.
const DefaultQuiet = time.Minute

// DefaultQueue is how many messages of a channel may wait.
const DefaultQueue = 1000

// Alerter watches registries and tells the channels. Make it with [New]; it is safe for concurrent use.
type Alerter struct {
	options
	channels []*channel
	mailbox  mailbox
	clean    func() // frees what the channels share

	stopWatcher chan struct{}
	watcher     sync.WaitGroup
	workers     sync.WaitGroup
	abort       context.CancelFunc // ends what the workers are doing

	ended    chan struct{} // closed when Close has done its work
	closeErr error         // its result, to be read after that

	mu          sync.Mutex // guards the fields below
	unsubscribe map[*breaker.Registry]func()
	closed      bool
	incidents   int
	untracked   uint64
}

// Option changes what [New] makes.
type Option func(*options)

type options struct {
	log          *zap.Logger
	service      string
	instance     string
	page         string
	smtp         breaker.AlertSMTP
	quiet        time.Duration
	queue        int
	thresholds   breaker.RiskThresholds
	tls          *tls.Config
	pagerDutyURL string
	timing       timing
}

// WithLogger logs what becomes of messages: when a channel begins to fail, when it works again, and what is given up. Nil logs
// nothing.
func WithLogger(l *zap.Logger) Option {
	return func(o *options) { o.log = cmp.Or(l, zap.NewNop()) }
}

// WithService names the service in every message and in PagerDuty's key, so all its instances must give the same name, and
// no other service may. The default is the name of the program's file.
func WithService(name string) Option { return func(o *options) { o.service = name } }

// WithPage puts a link to the live page into every message: where people reach the registry's Handler, http or https.
func WithPage(url string) Option { return func(o *options) { o.page = url } }

// WithSMTP sets the mail server of email channels, in place of the file's alerts.smtp. Its texts may hold ${NAME}, as there.
func WithSMTP(s breaker.AlertSMTP) Option { return func(o *options) { o.smtp = s } }

// WithQuiet sets how long a breaker must have been closed before its incident is over, in place of [DefaultQuiet]. It must be
// positive. Shorter than the time between two probes means a message for each.
func WithQuiet(d time.Duration) Option { return func(o *options) { o.quiet = d } }

// WithQueue sets how many messages of a channel may wait, in place of [DefaultQueue]; at least 1. The recoveries of incidents
// that were told have a place in any case, so the queue may be longer by one for each breaker.
func WithQueue(n int) Option { return func(o *options) { o.queue = n } }

// WithRiskThresholds says what [breaker.Assess] goes by.
func WithRiskThresholds(t breaker.RiskThresholds) Option {
	return func(o *options) { o.thresholds = t }
}

// WithTLS sets the TLS settings for mail servers and HTTP receivers, such as the certificates of a company's own authority.
func WithTLS(c *tls.Config) Option { return func(o *options) { o.tls = c.Clone() } }

// WithPagerDutyURL sets where events for PagerDuty go: for a European account https://events.eu.pagerduty.com/v2/enqueue.
func WithPagerDutyURL(url string) Option { return func(o *options) { o.pagerDutyURL = url } }

// New returns an Alerter for the channels of cfg, with a goroutine for each and one more, until Close. Variables are replaced by
// their values from the environment now. The error lists everything that is wrong and holds no secret. No channels are fine:
// nothing is told then.
func New(cfg breaker.Alerts, opts ...Option) (*Alerter, error) {
	host, _ := os.Hostname()
	o := options{log: zap.NewNop(), service: filepath.Base(os.Args[0]), instance: cmp.Or(host, "unknown"), quiet: DefaultQuiet,
		queue: DefaultQueue, pagerDutyURL: pagerDutyURL, timing: defaultTiming}
	for _, set := range opts {
		if set != nil {
			set(&o)
		}
	}
	senders, clean, err := newSenders(cfg, &o)
	if err = errors.Join(o.check(), err); err != nil {
		return nil, err
	}
	return start(o, senders, clean), nil
}

func (o *options) check() error {
	var errs []error
	if o.quiet <= 0 {
		errs = append(errs, fmt.Errorf("alert: WithQuiet: %v is not allowed: want more than zero", o.quiet))
	}
	if o.queue < 1 {
		errs = append(errs, fmt.Errorf("alert: WithQueue: %d is not allowed: want at least 1", o.queue))
	}
	if o.service == "" {
		errs = append(errs, errors.New("alert: WithService: empty text is not allowed: want the service's name"))
	}
	if o.page != "" && !isWebURL(o.page) {
		errs = append(errs, errors.New("alert: WithPage: want a URL that begins with http:// or https://"))
	}
	if !isWebURL(o.pagerDutyURL) {
		errs = append(errs, errors.New("alert: WithPagerDutyURL: want a URL that begins with http:// or https://"))
	}
	return errors.Join(errs...)
}

// start sets the goroutines going.
func start(o options, senders []namedSender, clean func()) *Alerter {
	ctx, abort := context.WithCancel(context.Background())
	a := &Alerter{options: o, clean: clean, abort: abort, stopWatcher: make(chan struct{}), ended: make(chan struct{}),
		unsubscribe: map[*breaker.Registry]func(){}}
	a.mailbox.ready = make(chan struct{}, 1)
	for _, s := range senders {
		c := newChannel(s, &o)
		a.channels = append(a.channels, c)
		a.workers.Go(func() { c.run(ctx) })
	}
	a.watcher.Go(a.watch)
	return a
}

// Watch tells of every breaker of r from now on, also of those that are not closed already. It does not block. It may be called for
// several registries; for one that is watched already, and after Close, it does nothing.
func (a *Alerter) Watch(r *breaker.Registry) {
	if r == nil || !a.subscribe(r) {
		return
	}
	for name, b := range r.All() {
		s := b.Status()
		if s.Trip != nil && (s.State == breaker.StateOpen || s.State == breaker.StateHalfOpen) {
			a.mailbox.put(subject{r, name}, breaker.Event{Breaker: b, To: breaker.StateOpen, At: s.Trip.At, Trip: s.Trip})
		}
	}
}

func (a *Alerter) subscribe(r *breaker.Registry) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.unsubscribe[r] != nil {
		return false
	}
	a.unsubscribe[r] = r.Subscribe(func(e breaker.Event) {
		a.mailbox.put(subject{r, e.Breaker.Name()}, e)
	})
	return true
}

// Close stops watching and sends what waits, until ctx is done; without a deadline it waits for 30 s. A breaker that has closed
// but not stayed so for long enough yet counts as recovered. The error says which messages were not sent. When Close returns,
// the goroutines have ended. A second Close returns the result of the first.
func (a *Alerter) Close(ctx context.Context) error {
	a.mu.Lock()
	first := !a.closed
	a.closed = true
	unsubscribe := a.unsubscribe
	a.unsubscribe = nil
	a.mu.Unlock()
	if first {
		for _, stop := range unsubscribe {
			stop()
		}
		a.closeErr = a.finish(ctx)
		close(a.ended)
	}
	<-a.ended
	return a.closeErr
}

const closeWithin = 30 * time.Second

func (a *Alerter) finish(ctx context.Context) error {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, closeWithin)
		defer cancel()
	}
	close(a.stopWatcher)
	a.watcher.Wait()
	stop := context.AfterFunc(ctx, a.abort)
	for _, c := range a.channels {
		c.close()
	}
	a.workers.Wait()
	stop()
	a.abort()
	a.clean()
	var errs []error
	for _, c := range a.channels {
		errs = append(errs, c.unsent())
	}
	return errors.Join(errs...)
}

// Test sends every channel a message that says it is a test, whatever its severity_filter, past its queue and once. At PagerDuty it
// triggers an incident and resolves it. The error says which channels did not take it.
func (a *Alerter) Test(ctx context.Context) error {
	var errs []error
	for _, c := range a.channels {
		test := a.blank(eventTest, "test")
		test.Since = time.Now()
		test.DedupKey += "/" + test.ID // apart from every other
		test.Why = "a test"
		if err := c.attempt(ctx, &delivery{alert: test, queued: test.Since}); err != nil {
			errs = append(errs, fmt.Errorf("alert: %s: %s", c.name, c.scrub(err.Error())))
		}
	}
	return errors.Join(errs...)
}

// Stats says what became of the messages.
type Stats struct {
	Incidents int            `json:"incidents"` // going on now
	Untracked uint64         `json:"untracked"` // openings that no message tells of, since 10,000 incidents were going on
	Channels  []ChannelStats `json:"channels"`  // in the order of the file
}

// ChannelStats counts a channel's messages since New.
type ChannelStats struct {
	Name      string    `json:"name"`    // its type; with a number where there are several: slack-1, slack-2
	Queued    int       `json:"queued"`  // waiting now
	Sent      uint64    `json:"sent"`    // taken by the receiver
	Retried   uint64    `json:"retried"` // attempts that failed and were followed, or will be, by another
	Failed    uint64    `json:"failed"`  // given up: refused, a day old, or left over at Close
	Dropped   uint64    `json:"dropped"` // not queued, since the queue was full
	LastError string    `json:"last_error,omitempty"`
	DownSince time.Time `json:"down_since,omitzero"` // since when attempts fail; zero while they do not
}

// Stats returns the counts so far, also after Close.
func (a *Alerter) Stats() Stats {
	a.mu.Lock()
	s := Stats{Incidents: a.incidents, Untracked: a.untracked}
	a.mu.Unlock()
	s.Untracked += a.mailbox.lostCount()
	for _, c := range a.channels {
		s.Channels = append(s.Channels, c.snapshot())
	}
	return s
}

// String names the channels.
func (a *Alerter) String() string {
	var text strings.Builder
	text.WriteString("alert.Alerter")
	for _, c := range a.channels {
		text.WriteString(" " + c.name)
	}
	return text.String()
}

// Format writes String, whatever the verb: fmt would otherwise show what the fields hold.
func (a *Alerter) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, a.String()) }
