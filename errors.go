package breaker

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrOpen is what every refusal matches with [errors.Is]. The details are in [OpenError].
var ErrOpen = errors.New("breaker: circuit is open")

// OpenError is the refusal of a call: nothing ran. One value is shared by all refusals of a period, so it is read only; its
// text and RetryAfter are those of the moment they are read. It matches [ErrOpen] and never unwraps to what opened the breaker.
type OpenError struct {
	Name  string    // of the breaker
	State State     // StateOpen, StateHalfOpen, StateForcedOpen, or StateClosed while it ramps up
	Trip  *Trip     // why it opened; nil when only an operator's hold refuses
	Hold  *Hold     // the hold, in StateForcedOpen
	Until time.Time // when it admits again; zero where that depends on other calls or on an operator

	probes int // HalfOpenMaxCalls, in StateHalfOpen
}

// RetryAfter returns how long until Until, never less than zero; zero also where Until is not known.
func (e *OpenError) RetryAfter() time.Duration {
	if e.Until.IsZero() {
		return 0
	}
	return max(0, time.Until(e.Until))
}

// Is reports whether target is [ErrOpen].
func (e *OpenError) Is(target error) bool { return target == ErrOpen }

// Error says what refused, why, and when to come back, if that is known.
func (e *OpenError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "breaker: %q is ", e.Name)
	switch e.State {
	case StateForcedOpen:
		b.WriteString("forced open")
		if e.Hold != nil {
			b.WriteString(e.Hold.text())
		}
	case StateHalfOpen:
		fmt.Fprintf(&b, "half_open: %d of %[1]d probes in flight", e.probes)
	case StateClosed:
		b.WriteString("closed: ramping up, not every call is admitted yet")
	default:
		b.WriteString(e.State.String())
	}
	if e.Trip != nil {
		switch e.State {
		case StateOpen:
			b.WriteString(": " + e.Trip.String())
		case StateHalfOpen, StateClosed:
			b.WriteString("; opened by " + e.Trip.String())
		}
	}
	if !e.Until.IsZero() {
		b.WriteString("; retry after " + roundWait(e.RetryAfter()).String())
	}
	return b.String()
}

func roundWait(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

// Outcome is what a call's end means to the breaker. Zero, or any other number, is unset.
type Outcome uint8

const (
	unset   Outcome = 0 // not decided: the next classifier is asked, at last Classify
	Success Outcome = 1 // the upstream answered
	Failure Outcome = 2 // it did not, or not as it should
	Ignored Outcome = 3 // says nothing about the upstream: no rule counts it
)

// String returns "unset", "success", "failure" or "ignored".
func (o Outcome) String() string {
	switch o {
	case Success:
		return "success"
	case Failure:
		return "failure"
	case Ignored:
		return "ignored"
	}
	return "unset"
}

// Verdict is what a [Classifier] says of an error.
type Verdict struct {
	Outcome Outcome
	// OpenFor above zero opens the breaker at once for so long, at most Config.MaxRetryAfter: the upstream asked for it.
	OpenFor time.Duration
}

// Classifier decides what a call's error means. ctx is the one given to Execute, Do or Acquire; err is never nil, since a call
// without an error is a success. It must be safe for concurrent use.
type Classifier func(ctx context.Context, err error) Verdict

// Classify is the verdict of last resort, and what a breaker without classifiers uses: markers first ([Ignore], [OpenFor]),
// then: the caller cancelled ctx, or the error is a refusal by a breaker: ignored; an HTTP answer that a [Transport] has seen: as
// [UpstreamError] says, also through the error of an SDK; anything else, also a deadline: failure.
// A nil error is a success.
func Classify(ctx context.Context, err error) Verdict {
	if err == nil {
		return Verdict{Outcome: Success}
	}
	t := traitsOf(err)
	return marked(err, t).or(unmarked(ctx, err, t))
}

// or fills in what v leaves open.
func (v Verdict) or(other Verdict) Verdict {
	if v.Outcome == unset {
		v.Outcome = other.Outcome
		if v.OpenFor <= 0 {
			v.OpenFor = max(0, other.OpenFor)
		}
	}
	return v
}

func unmarked(ctx context.Context, err error, t traits) Verdict {
	if ctx.Err() == context.Canceled || refuses(err, t) {
		return Verdict{Outcome: Ignored}
	}
	if e := upstreamErrorIn(err, t); e != nil {
		return e.verdict()
	}
	return Verdict{Outcome: Failure}
}

// Expect returns a [Classifier] that counts the named errors as successes, such as sql.ErrNoRows or redis.Nil: the upstream
// answered. It matches with [errors.Is] and leaves every other error to the next classifier.
func Expect(errs ...error) Classifier {
	return func(_ context.Context, err error) Verdict {
		if traitsOf(err) == holdsNil {
			return Verdict{}
		}
		for _, e := range errs {
			if errors.Is(err, e) {
				return Verdict{Outcome: Success}
			}
		}
		return Verdict{}
	}
}

type ignoredError struct{ error }

func (e ignoredError) Unwrap() error { return e.error }

type openForError struct {
	error
	wait time.Duration
}

func (e openForError) Unwrap() error { return e.error }

// Ignore marks err as saying nothing about the upstream, such as a caller's own mistake. The mark holds through wrapping;
// text, errors.Is and errors.As are those of err. A nil err stays nil.
func Ignore(err error) error {
	if err == nil {
		return nil
	}
	return ignoredError{err}
}

// OpenFor marks err as the upstream's wish to be left alone for d, such as a Retry-After. The breaker opens at once for d, at
// most Config.MaxRetryAfter; whether the call was a failure is left to [Ignore] and the classifiers. The mark holds through
// wrapping. A nil err stays nil; a d of zero or less is no wish.
func OpenFor(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return openForError{err, d}
}

// marked returns what the markers in err say.
func marked(err error, t traits) (v Verdict) {
	if t&ours == 0 {
		return v
	}
	if _, ok := errors.AsType[ignoredError](err); ok {
		v.Outcome = Ignored
	}
	if e, ok := errors.AsType[openForError](err); ok {
		v.OpenFor = max(0, e.wait)
	}
	return v
}

// verdict asks the markers, the classifiers in order, and the default. err is not nil. User code runs here: never under a lock.
func (o *options) verdict(ctx context.Context, err error, t traits) Verdict {
	v := marked(err, t)
	for _, c := range o.classifiers {
		if v.Outcome != unset {
			return v
		}
		said := c(ctx, err)
		if said.Outcome <= Ignored { // another number says nothing
			v.Outcome = said.Outcome
		}
		if v.OpenFor <= 0 {
			v.OpenFor = max(0, said.OpenFor)
		}
	}
	return v.or(unmarked(ctx, err, t))
}

// errDidNotReturn stands for a call that ended by a panic or runtime.Goexit; which of the two, nobody can tell without recover.
var errDidNotReturn = errors.New("the call panicked or exited its goroutine")

const (
	maxErrorText = 160
	maxSearched  = 1024 // bytes of a text that are looked at: SDKs put whole responses into theirs
)

// text returns what a failure is listed under. User code runs here: never under a lock.
func (o *options) text(err error, t traits) string {
	say := said
	if o.errorText != nil {
		say = o.errorText
	}
	s := say(err)
	var urls []string
	if t&hasURL != 0 {
		urls = urlsIn(err, nil)
	}
	s = hideURLs(s, urls)
	if !utf8.ValidString(s) { // tells sooner than what makes it valid
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	if len(s) <= maxErrorText {
		return strings.Clone(s) // never keeps a larger text alive
	}
	end := maxErrorText - len("…")
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

// said returns what fmt prints of err, and takes the long way through fmt only where that is more than err.Error().
func said(err error) (s string) {
	if _, ok := err.(fmt.Formatter); ok {
		return fmt.Sprint(err)
	}
	defer func() {
		switch v := recover(); {
		case v == nil:
		case isNilPointer(err):
			s = "<nil>"
		default:
			s = fmt.Sprint(panicError{v})
		}
	}()
	return err.Error()
}

// panicError makes fmt tell of a panic: err itself might say something else when asked again.
type panicError struct{ value any }

func (e panicError) Error() string { panic(e.value) }

// urlsIn collects the URL of each *url.Error that err wraps.
func urlsIn(err error, found []string) []string {
	if e, ok := err.(*url.Error); ok {
		found = append(found, e.URL)
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return urlsIn(e.Unwrap(), found)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			found = urlsIn(inner, found)
		}
	}
	return found
}

// hideURLs reduces each URL in text to scheme and host: user, path and query may hold a key. First those of *url.Error as it
// quotes them, since they may contain anything, then whatever looks like one, also in the text of an error that was not wrapped.
func hideURLs(text string, urls []string) string {
	var pairs []string
	for _, raw := range urls {
		short := "a URL"
		if u, err := url.Parse(raw); err == nil && u.Host != "" {
			short = u.Scheme + "://" + u.Host
		}
		pairs = append(pairs, strconv.Quote(raw), strconv.Quote(short))
	}
	if len(pairs) > 0 {
		text = strings.NewReplacer(pairs...).Replace(text)
	}
	text = text[:min(len(text), maxSearched)]
	if !strings.Contains(text, "://") { // as most: spare them the search
		return text
	}
	return anyURL.ReplaceAllString(text, "$1$2")
}

// anyURL captures the scheme and the host, without user and password.
var anyURL = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s"/?#]*@)?([^\s"/?#]*)[^\s"]*`)

// traits are what one walk through an error's tree finds, so that a question is only asked of errors that may say yes to it.
type traits uint8

const (
	ours   traits = 1 << iota // a type of this package, or a method As, which may stand for one
	hasIs                     // a method Is, which may say that it is ErrOpen
	hasURL                    // a *url.Error

	// holdsNil is a nil pointer in an interface, whose methods would panic when asked for more than their text. It is an error
	// like others, but nothing more can be known of it: it comes alone.
	holdsNil
)

func traitsOf(err error) (t traits) {
	for err != nil {
		if isNilPointer(err) {
			return holdsNil
		}
		t |= ownTraits(err)
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				if t |= traitsOf(inner); t&holdsNil != 0 {
					return holdsNil
				}
			}
			return t
		default:
			return t
		}
	}
	return t
}

// ownTraits are those of err without what it wraps.
func ownTraits(err error) (t traits) {
	switch err.(type) {
	case ignoredError, openForError, *OpenError, *UpstreamError:
		return ours
	case *url.Error:
		return hasURL
	case interface{ As(any) bool }:
		return ours
	case interface{ Is(error) bool }:
		return hasIs
	}
	if err == ErrOpen {
		return ours
	}
	return 0
}

func isNilPointer(err error) bool {
	v := reflect.ValueOf(err)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// isRefusal reports whether err is, wraps or carries a breaker's refusal.
func isRefusal(err error) bool { return refuses(err, traitsOf(err)) }

func refuses(err error, t traits) bool {
	if t == holdsNil {
		return false
	}
	return t&(ours|hasIs) != 0 && errors.Is(err, ErrOpen) || refusalIn(err, t) != nil || marksRefusal(err)
}

// refusalIn returns the refusal that err is, wraps or carries, if it has the details.
func refusalIn(err error, t traits) *OpenError {
	if t&ours != 0 {
		if e, ok := errors.AsType[*OpenError](err); ok {
			return e
		}
	}
	e, _ := carried(err).(*OpenError)
	return e
}

// upstreamErrorIn returns the error answer that err is, wraps or carries.
func upstreamErrorIn(err error, t traits) *UpstreamError {
	if t == holdsNil {
		return nil
	}
	if t&ours != 0 {
		if e, ok := errors.AsType[*UpstreamError](err); ok {
			return e
		}
	}
	e, _ := carried(err).(*UpstreamError)
	return e
}
