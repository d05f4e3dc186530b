package breaker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// texts returns the failure texts a breaker lists after these errors.
func texts(t *testing.T, errs []error, opts ...breaker.Option) []breaker.ErrorCount {
	t.Helper()
	b := newBreaker(t, breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: breaker.Off}, opts...)
	for _, err := range errs {
		_ = end(b, err)
	}
	b.Trip("")
	return b.Status().Trip.Errors
}

func TestAKeyInAURLIsNeverShown(t *testing.T) {
	get := func(u string, err error) error { return &url.Error{Op: "Get", URL: u, Err: err} }
	for name, err := range map[string]error{
		"in the query":                  get("https://api.test/v1?key=SECRET", errDown),
		"in the path":                   get("https://api.test/SECRET/v1", errDown),
		"in the userinfo":               get("https://SECRET:SECRET@api.test/v1", errDown),
		"in the fragment":               get("https://api.test/v1#SECRET", errDown),
		"in a URL that no parser takes": get("https://api.test/%zz?key=SECRET", errDown),
		"with quotes in it":             get("https://api.test/\"SECRET\"\n", errDown),
		"wrapped":                       fmt.Errorf("asking: %w", get("https://api.test/v1?key=SECRET", errDown)),
		"joined":                        errors.Join(errDown, get("https://api.test/v1?key=SECRET", errDown)),
		"of a redirect":                 get("https://api.test/a", get("https://login.test/?token=SECRET", errDown)),
		"of a redirect from the root":   get("https://api.test/", get("https://api.test/login?token=SECRET", errDown)),
		"of two attempts, one URL a prefix of the other": errors.Join(get("https://api.test/v1", errDown), get("https://api.test/v1?key=SECRET", errDown)),
		"in text that was not wrapped":                   fmt.Errorf("asking: %v", get("https://api.test/v1?key=SECRET", errDown)),
		"joined, relative":                               errors.Join(errDown, get("/v1?key=SECRET", errDown)),
		"relative, around one that wraps nothing":        get("/v1?key=SECRET", causelessError{errDown}),
		"with %w twice":                                  fmt.Errorf("%w then %w", get("https://api.test/v1", errDown), get("https://api.test/v1/SECRET", errDown)),
	} {
		t.Run(name, func(t *testing.T) {
			shown := texts(t, []error{err})
			require.Len(t, shown, 1)
			require.NotContains(t, shown[0].Text, "SECRET")
			require.Contains(t, shown[0].Text, "upstream is down")
		})
	}
	require.Equal(t, `Get "https://api.test": upstream is down`, texts(t, []error{get("https://u:p@api.test/v1?key=k", errDown)})[0].Text)
}

// causelessError has an Unwrap that returns nil, as many have when there is no cause.
type causelessError struct{ error }

func (causelessError) Unwrap() error { return nil }

func TestTheCommonestErrorIsListedHoweverManyOthersCameFirst(t *testing.T) {
	var errs []error
	for i := range 16 {
		errs = append(errs, fmt.Errorf("request %d failed", i))
	}
	for range 50 {
		errs = append(errs, errDown)
	}
	require.Contains(t, texts(t, errs), breaker.ErrorCount{Text: "upstream is down", Count: 50})
}

func TestTextsAreCutAt160BytesBetweenRunes(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"short":               {"abc", "abc"},
		"exactly 160":         {strings.Repeat("a", 160), strings.Repeat("a", 160)},
		"161":                 {strings.Repeat("a", 161), strings.Repeat("a", 157) + "…"},
		"two-byte runes":      {strings.Repeat("é", 81), strings.Repeat("é", 78) + "…"},
		"three-byte runes":    {strings.Repeat("界", 54), strings.Repeat("界", 52) + "…"},
		"four-byte runes":     {strings.Repeat("😀", 41), strings.Repeat("😀", 39) + "…"},
		"no UTF-8":            {"a\xff\xfeb", "a\uFFFDb"},
		"no UTF-8 at the cut": {strings.Repeat("a", 156) + strings.Repeat("\xff", 10), strings.Repeat("a", 156) + "\uFFFD"},
		"empty":               {"", ""},
		"a megabyte":          {strings.Repeat("x", 1<<20), strings.Repeat("x", 157) + "…"},
	} {
		t.Run(name, func(t *testing.T) {
			shown := texts(t, []error{errors.New(c.text)})[0].Text
			require.Equal(t, c.want, shown)
			require.LessOrEqual(t, len(shown), 160)
			require.True(t, utf8.ValidString(shown))
			require.Equal(t, shown, texts(t, []error{errDown}, breaker.WithErrorText(func(error) string { return c.text }))[0].Text, "WithErrorText is cut alike")
		})
	}
}

func TestWithErrorTextGroupsAndRedacts(t *testing.T) {
	var errs []error
	for i := range 40 {
		errs = append(errs, fmt.Errorf("request %d failed", i))
	}
	group := breaker.WithErrorText(func(err error) string { return strings.TrimRight(err.Error(), "0123456789 failed") })
	require.Equal(t, []breaker.ErrorCount{{Text: "request", Count: 40}}, texts(t, errs, group))
	withKey := &url.Error{Op: "Get", URL: "https://api.test/?key=SECRET", Err: errDown}
	loud := breaker.WithErrorText(func(err error) string { return "llm: " + err.Error() })
	require.NotContains(t, texts(t, []error{withKey}, loud)[0].Text, "SECRET", "it redacts further, not less")
}

func TestTheFiveCommonestErrorsAreListed(t *testing.T) {
	var errs []error
	for n := range 8 {
		for range n + 1 {
			errs = append(errs, fmt.Errorf("error %d", n))
		}
	}
	require.Equal(t, []breaker.ErrorCount{{Text: "error 7", Count: 8}, {Text: "error 6", Count: 7}, {Text: "error 5", Count: 6}, {Text: "error 4", Count: 5}, {Text: "error 3", Count: 4}}, texts(t, errs))
}

func TestOnlyTheLast128FailuresAreListed(t *testing.T) {
	var errs []error
	for range 100 {
		errs = append(errs, errors.New("old"))
	}
	for range 100 {
		errs = append(errs, errors.New("new"))
	}
	require.Equal(t, []breaker.ErrorCount{{Text: "new", Count: 100}, {Text: "old", Count: 28}}, texts(t, errs))
}

func TestListedErrorsAreOfThisOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{SuccessThreshold: 1})
		ends(b, 4, errors.New("old"))
		b.Reset("")
		ends(b, 5, errDown)
		require.Equal(t, []breaker.ErrorCount{{Text: "upstream is down", Count: 5}}, b.Status().Trip.Errors)
		time.Sleep(30 * time.Second)
		ends(b, 1, errors.New("of a probe"))
		require.Equal(t, []breaker.ErrorCount{{Text: "of a probe", Count: 1}}, b.Status().Trip.Errors)
		time.Sleep(time.Minute)
		ends(b, 1, nil)
		b.Trip("")
		require.Empty(t, b.Status().Trip.Errors)
	})
}

func TestSuccessesAndIgnoredErrorsAreNotListed(t *testing.T) {
	b := newBreaker(t, breaker.Config{}, breaker.WithClassifier(breaker.Expect(errDown)),
		breaker.WithErrorText(func(error) string { t.Error("asked for the text of what is no failure"); return "" }))
	ends(b, 1, errDown)
	ends(b, 1, breaker.Ignore(errors.New("mine")))
	ends(b, 1, nil)
}

func TestAnUnknownOutcomeIsAskedFurther(t *testing.T) {
	b := newBreaker(t, breaker.Config{}, breaker.WithClassifier(func(context.Context, error) breaker.Verdict { return breaker.Verdict{Outcome: 9} }))
	ends(b, 5, errDown)
	require.Equal(t, breaker.StateOpen, b.State())
	require.Equal(t, "unset", breaker.Outcome(9).String())
}

func verdict(o breaker.Outcome, d time.Duration) breaker.Classifier {
	return func(context.Context, error) breaker.Verdict { return breaker.Verdict{Outcome: o, OpenFor: d} }
}

func TestClassifiersAreAskedInOrder(t *testing.T) {
	silent := verdict(0, 0)
	refusal := end(func() *breaker.Breaker { b := newBreaker(t, breaker.Config{}); b.Trip(""); return b }(), nil)
	for _, c := range []struct {
		name        string
		classifiers []breaker.Classifier
		err         error
		want        breaker.Outcome
		openFor     time.Duration
	}{
		{"none: an error is a failure", nil, errDown, breaker.Failure, 0},
		{"none: a deadline is a failure", nil, context.DeadlineExceeded, breaker.Failure, 0},
		{"none: an error that says cancelled, while the caller did not cancel, is a failure", nil, context.Canceled, breaker.Failure, 0},
		{"none: any refusal is ignored", nil, fmt.Errorf("inner: %w", refusal), breaker.Ignored, 0},
		{"the first decides", []breaker.Classifier{verdict(breaker.Success, 0), verdict(breaker.Failure, 0)}, errDown, breaker.Success, 0},
		{"one that leaves it unset leaves it to the next", []breaker.Classifier{silent, verdict(breaker.Ignored, 0)}, errDown, breaker.Ignored, 0},
		{"all silent: the default", []breaker.Classifier{silent, silent}, refusal, breaker.Ignored, 0},
		{"nil is success, unasked", []breaker.Classifier{verdict(breaker.Failure, 0)}, nil, breaker.Success, 0},
		{"Ignore comes before them", []breaker.Classifier{verdict(breaker.Failure, 0)}, breaker.Ignore(errDown), breaker.Ignored, 0},
		{"OpenFor leaves the outcome to them", []breaker.Classifier{verdict(breaker.Ignored, 0)}, breaker.OpenFor(errDown, time.Second), breaker.Ignored, time.Second},
		{"OpenFor leaves the outcome to the default", nil, breaker.OpenFor(errDown, time.Second), breaker.Failure, time.Second},
		{"a classifier's OpenFor with an unset outcome", []breaker.Classifier{verdict(0, time.Second)}, errDown, breaker.Failure, time.Second},
		{"a marker's OpenFor comes before a classifier's, however short", []breaker.Classifier{verdict(0, time.Minute)}, breaker.OpenFor(errDown, 1), breaker.Failure, 1},
		{"a marker's OpenFor comes before a classifier's", []breaker.Classifier{verdict(0, time.Minute)}, breaker.OpenFor(errDown, time.Second), breaker.Failure, time.Second},
		{"a classifier's negative OpenFor is none", []breaker.Classifier{verdict(breaker.Success, -time.Minute)}, errDown, breaker.Success, 0},
		{"Expect counts the named as successes", []breaker.Classifier{breaker.Expect(errDown, sql.ErrNoRows)}, fmt.Errorf("q: %w", sql.ErrNoRows), breaker.Success, 0},
		{"Expect leaves the others", []breaker.Classifier{breaker.Expect(sql.ErrNoRows), verdict(breaker.Ignored, 0)}, errDown, breaker.Ignored, 0},
		{"Ignore within OpenFor", nil, breaker.OpenFor(breaker.Ignore(errDown), time.Second), breaker.Ignored, time.Second},
		{"OpenFor within Ignore", nil, breaker.Ignore(breaker.OpenFor(errDown, time.Second)), breaker.Ignored, time.Second},
	} {
		bubble(t, c.name, func(t *testing.T) {
			opts := []breaker.Option{breaker.WithClassifier(nil)}
			for _, one := range c.classifiers {
				opts = append(opts, breaker.WithClassifier(one))
			}
			b := newBreaker(t, breaker.Config{}, opts...)
			require.Equal(t, c.err, end(b, c.err), "the error itself is handed on")
			m := b.Status().Metrics
			require.Equal(t, c.want == breaker.Success, m.SuccessfulCalls == 1)
			require.Equal(t, c.want == breaker.Failure, m.FailedCalls == 1)
			require.Equal(t, c.want == breaker.Ignored, m.IgnoredCalls == 1)
			require.Equal(t, c.openFor, left(b))
		})
	}
}

func TestClassify(t *testing.T) {
	cancelled, cancel := context.WithCancel(bg)
	cancel()
	late, cancel := context.WithDeadline(bg, time.Unix(0, 0))
	defer cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want breaker.Verdict
	}{
		{"nil", bg, nil, breaker.Verdict{Outcome: breaker.Success}},
		{"nil though cancelled", cancelled, nil, breaker.Verdict{Outcome: breaker.Success}},
		{"any error", bg, errDown, breaker.Verdict{Outcome: breaker.Failure}},
		{"the caller cancelled", cancelled, errDown, breaker.Verdict{Outcome: breaker.Ignored}},
		{"the caller's deadline passed", late, errDown, breaker.Verdict{Outcome: breaker.Failure}},
		{"a refusal", bg, breaker.ErrOpen, breaker.Verdict{Outcome: breaker.Ignored}},
		{"marked", bg, breaker.OpenFor(breaker.Ignore(errDown), time.Second), breaker.Verdict{Outcome: breaker.Ignored, OpenFor: time.Second}},
		{"marked and cancelled", cancelled, breaker.OpenFor(errDown, time.Second), breaker.Verdict{Outcome: breaker.Ignored, OpenFor: time.Second}},
		{"a nil pointer", bg, (*url.Error)(nil), breaker.Verdict{Outcome: breaker.Failure}},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, breaker.Classify(c.ctx, c.err)) })
	}
}

func TestMarkersKeepTheError(t *testing.T) {
	for _, err := range []error{breaker.Ignore(errDown), breaker.OpenFor(errDown, time.Second)} {
		require.EqualError(t, err, "upstream is down")
		require.ErrorIs(t, err, errDown)
	}
	inner := &url.Error{Op: "Get", URL: "/", Err: errDown}
	found, ok := errors.AsType[*url.Error](breaker.Ignore(inner))
	require.True(t, ok)
	require.Same(t, inner, found)
}

func TestTheClassifierGetsTheContextOfTheCaller(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(bg, key{}, "caller")
	var got any
	b := newBreaker(t, breaker.Config{}, breaker.WithClassifier(func(ctx context.Context, err error) breaker.Verdict { got = ctx; return breaker.Verdict{} }))
	_ = b.Do(ctx, func(context.Context) error { return errDown })
	require.Equal(t, ctx, got)
	p, _ := b.Acquire(ctx)
	p.Done(errDown)
	require.Equal(t, ctx, got)
}

func TestAContextAlreadyDoneCountsNowhere(t *testing.T) {
	ctx, cancel := context.WithCancel(bg)
	cancel()
	b := newBreaker(t, breaker.Config{})
	b.Trip("")
	before := b.Status().Metrics
	require.Equal(t, context.Canceled, b.Do(ctx, func(context.Context) error { t.Error("ran"); return nil }), "before the circuit is asked")
	p, err := b.Acquire(ctx)
	require.Nil(t, p)
	require.Equal(t, context.Canceled, err)
	require.Equal(t, before, b.Status().Metrics)
}

func TestARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.Config{})
		ends(b, 5, errDown)
		err := end(b, nil)
		require.ErrorIs(t, err, breaker.ErrOpen)
		require.NotErrorIs(t, err, errDown, "it never unwraps to the cause")
		require.Nil(t, errors.Unwrap(err))
		refusal, ok := errors.AsType[*breaker.OpenError](err)
		require.True(t, ok)
		require.Equal(t, []any{"x", breaker.StateOpen, time.Now().Add(30 * time.Second), (*breaker.Hold)(nil)}, []any{refusal.Name, refusal.State, refusal.Until, refusal.Hold})
		require.Equal(t, breaker.RuleConsecutiveFailures, refusal.Trip.Rule)

		time.Sleep(17700 * time.Millisecond)
		require.Equal(t, 12300*time.Millisecond, refusal.RetryAfter(), "computed when read")
		require.EqualError(t, refusal, `breaker: "x" is open: 5 consecutive failures >= 5; retry after 12.3s`)
		again, _ := errors.AsType[*breaker.OpenError](end(b, nil))
		require.Same(t, refusal, again, "one value a period")
		time.Sleep(12*time.Second + 1)
		require.EqualError(t, refusal, `breaker: "x" is open: 5 consecutive failures >= 5; retry after 300ms`)
		time.Sleep(time.Hour)
		require.Zero(t, refusal.RetryAfter())
	})
}

func TestRefusalsCostNothing(t *testing.T) {
	half := newBreaker(t, breaker.Config{OpenTimeout: 1, MaxOpenTimeout: 1, HalfOpenMaxCalls: 1})
	half.Trip("")
	acquire(t, half)
	forced := newBreaker(t, breaker.Config{})
	forced.ForceOpen(breaker.Hold{By: "ann"})
	open := newBreaker(t, breaker.Config{})
	open.Trip("")
	call := func(context.Context) (int, error) { return 0, nil }
	for _, b := range []*breaker.Breaker{half, forced, open} {
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if _, err := breaker.Execute(bg, b, call); err == nil {
				t.Error("admitted")
			}
		}), b.State())
	}
}

func TestStatesAsText(t *testing.T) {
	for number, name := range []string{"closed", "open", "half_open", "forced_open", "disabled"} {
		s := breaker.State(number)
		require.Equal(t, name, s.String())
		text, err := s.MarshalText()
		require.NoError(t, err)
		var back breaker.State
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, s, back)
	}
	require.Equal(t, "State(5)", breaker.State(5).String())
	_, err := breaker.State(5).MarshalText()
	require.EqualError(t, err, "breaker: no state has the number 5")
	var s breaker.State
	require.EqualError(t, s.UnmarshalText([]byte("Open")), `breaker: "Open" is no state, want one of ["closed" "open" "half_open" "forced_open" "disabled"]`)
	require.Equal(t, []string{"success", "failure", "ignored", "unset"}, []string{breaker.Success.String(), breaker.Failure.String(), breaker.Ignored.String(), breaker.Outcome(0).String()})
}

func TestErrorsThatHoldANilPointerAreFailures(t *testing.T) {
	var none *url.Error
	for name, err := range map[string]error{
		"bare": none, "wrapped": fmt.Errorf("asking: %w", none), "joined": errors.Join(errDown, none),
		"ignored, but who knows what": breaker.Ignore(none), "with a pause": breaker.OpenFor(none, time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBreaker(t, breaker.Config{FailureThreshold: 1}, breaker.WithClassifier(breaker.Expect(errDown)))
			require.Error(t, end(b, err))
			require.Equal(t, breaker.StateOpen, b.State())
			require.Equal(t, 1, b.Status().Metrics.FailedCalls)
			breaker.Fallback{}.Write(httptest.NewRecorder(), err)
		})
	}
}

func TestTheEndOfALongTextIsNotSearched(t *testing.T) {
	for length, want := range map[int]string{1022: `https://api.test":`, 1023: `https://api.test"`, 1024: "https://api.test", 2000: "https://api.test"} {
		long := "https://api.test/" + strings.Repeat("x", length-len("https://api.test/")) + `": the end`
		require.Equal(t, want, texts(t, []error{errors.New(long)})[0].Text, "it would cost more than it tells")
	}
}

// formattedError prints more than its Error says, as errors with a stack do.
type formattedError struct{ error }

func (e formattedError) Format(s fmt.State, verb rune) {
	_, _ = fmt.Fprintf(s, "%c with a stack: %s", verb, e.Error())
}

type panickingError struct{ value any }

func (e panickingError) Error() string { panic(e.value) }

func (panickingError) String() string { return "not asked" }

// calmError has a text also when it is nil.
type calmError struct{}

func (*calmError) Error() string { return "calm" }

func TestTextsAreWhatFmtPrints(t *testing.T) {
	for _, err := range []error{
		errDown, fmt.Errorf("asking: %w", errDown), formattedError{errDown}, fmt.Errorf("asking: %w", formattedError{errDown}),
		(*calmError)(nil), (*url.Error)(nil), fmt.Errorf("asking: %w", (*url.Error)(nil)), breaker.Ignore((*url.Error)(nil)),
		panickingError{"loud"}, panickingError{7}, panickingError{errDown}, panickingError{nil}, formattedError{panickingError{"loud"}},
	} {
		require.Equal(t, []breaker.ErrorCount{{Text: fmt.Sprint(err), Count: 1}}, texts(t, []error{err}), "%T", err)
	}
}

func TestAnErrorWhoseTextExitsTheGoroutineIsAFailure(t *testing.T) {
	b := newBreaker(t, breaker.Config{FailureThreshold: 1})
	exits(func() { _ = end(b, guestError{&guest{place: "Error of an error", do: runtime.Goexit}}) })
	require.Equal(t, breaker.StateOpen, b.State())
}

func TestAListedTextKeepsNoLargerOneAlive(t *testing.T) {
	answer := strings.Repeat("x", 1<<20)
	shown := texts(t, []error{errors.New(answer[:100])})[0].Text
	require.Equal(t, answer[:100], shown)
	require.NotSame(t, unsafe.StringData(answer), unsafe.StringData(shown))
}

// actingError answers errors.Is and errors.As for another error that it does not wrap.
type actingError struct{ as error }

func (actingError) Error() string          { return "acting" }
func (e actingError) Is(target error) bool { return errors.Is(e.as, target) }
func (e actingError) As(target any) bool   { return errors.As(e.as, target) }

type isError struct{ as error }

func (isError) Error() string          { return "acting" }
func (e isError) Is(target error) bool { return errors.Is(e.as, target) }

func TestErrorsAreAskedForWhatTheyStandFor(t *testing.T) {
	failure, ignored := breaker.Verdict{Outcome: breaker.Failure}, breaker.Verdict{Outcome: breaker.Ignored}
	for _, c := range []struct {
		name string
		err  error
		want breaker.Verdict
	}{
		{"is a refusal", isError{breaker.ErrOpen}, ignored},
		{"is none", isError{errDown}, failure},
		{"as a refusal", actingError{&breaker.OpenError{}}, ignored},
		{"as one that is marked", actingError{breaker.OpenFor(breaker.Ignore(errDown), time.Second)}, breaker.Verdict{Outcome: breaker.Ignored, OpenFor: time.Second}},
		{"as an answer", actingError{&breaker.UpstreamError{Kind: breaker.KindInvalidRequest}}, ignored},
		{"as any other", actingError{errDown}, failure},
		{"an answer itself", &breaker.UpstreamError{Kind: breaker.KindInvalidRequest}, ignored},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, err := range []error{
				c.err, fmt.Errorf("asking: %w", c.err), errors.Join(nil, errDown, c.err), &url.Error{Err: c.err},
				errors.Join(errors.Join(c.err), fmt.Errorf("%w and %w", errDown, context.Canceled)),
			} {
				require.Equal(t, c.want, breaker.Classify(bg, err), "%T", err)
				require.Equal(t, failure, breaker.Classify(bg, errors.Join(err, (*url.Error)(nil))), "beside a nil pointer nothing can be known")
				require.Equal(t, failure, breaker.Classify(bg, errors.Join(errors.Join((*url.Error)(nil), errDown), err)))
			}
		})
	}
}
