package wire

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/failfast-go/breaker"
)

// Kind is what a failure means for the request, and what it says of the target.
type Kind uint8

// The kinds of failure.
const (
	Mistake     Kind = iota // the caller's: another target would say the same
	Conflict                // worth one more try
	TooLong                 // for the model's context: only a larger one helps
	Filtered                // by the provider's policy
	Account                 // the gateway's key, credit or model name: a person must mend it
	Limited                 // too many requests
	Overloaded              // the provider is ill, or the connection to it
	TooSlow                 // a limit of the gateway passed, or the provider's own
	Cut                     // the answer ended before its end
	Garbled                 // the answer is none
	Refused                 // by the target's breaker: it was not asked
	Unreachable             // the caller is gone, or no time is left: nothing is known of the target
)

// Failure is an attempt without an answer.
type Failure struct { //nolint:errname // it is more than an error, and named for what it is
	Kind       Kind
	Status     int    // the provider's; 0 without one
	Message    string // the provider's reason, or the gateway's
	Type, Code string // the provider's, where there are
	RetryAfter time.Duration
	Cause      error // nil when the provider answered
}

// Error is what the breaker lists the failure under: short, and the same for the same trouble.
func (f *Failure) Error() string {
	switch {
	case f.Kind == Refused:
		return f.Message
	case f.Cause != nil:
		return f.Message + ": " + f.Cause.Error()
	case f.Status >= 300:
		return strings.TrimSpace(fmt.Sprintf("%d %s", f.Status, cmp.Or(f.Code, f.Type, http.StatusText(f.Status))))
	}
	return "in the answer: " + cmp.Or(f.Code, f.Type, f.Message)
}

func (f *Failure) Unwrap() error { return f.Cause }

// plans says what a kind leads to.
var plans = [...]struct {
	retry bool // on the same target
	next  bool // on to the next target
}{
	Mistake:     {false, false},
	Conflict:    {true, false},
	TooLong:     {false, true},
	Filtered:    {false, false},
	Account:     {false, true},
	Limited:     {true, true},
	Overloaded:  {true, true},
	TooSlow:     {false, true}, // asking the same again multiplies the wait
	Cut:         {true, true},
	Garbled:     {false, true}, // the provider works, and would say the same
	Refused:     {false, true},
	Unreachable: {false, false},
}

// Retry reports whether the same target may be asked once more.
func (f *Failure) Retry() bool { return plans[f.Kind].retry }

// Next reports whether another target may be asked.
func (f *Failure) Next() bool { return plans[f.Kind].next }

// OfCaller reports whether it is the request that is wrong, and not the target.
func (f *Failure) OfCaller() bool {
	return f.Kind == Mistake || f.Kind == Conflict || f.Kind == TooLong || f.Kind == Filtered
}

// Judge reads a provider's error; the status of an error within a stream is 200. What it means to the breaker is what the breaker's
// transport made of it: by the same diagnosis.
func Judge(status int, header http.Header, body []byte) *Failure {
	d := breaker.Diagnose(status, header, body)
	f := &Failure{Kind: kinds[d.Kind], Status: status, Message: d.Message, Type: d.Type, Code: d.Code, RetryAfter: d.RetryAfter}
	f.Message = cmp.Or(f.Message, http.StatusText(status), "the provider gave no reason")
	if status == http.StatusConflict && f.Kind == Mistake {
		f.Kind = Conflict
	}
	return f
}

var kinds = map[breaker.ErrorKind]Kind{
	breaker.KindInvalidRequest: Mistake,
	breaker.KindContextLength:  TooLong,
	breaker.KindContentFilter:  Filtered,
	breaker.KindAccount:        Account,
	breaker.KindModelNotFound:  Account,
	breaker.KindRateLimited:    Limited,
	breaker.KindTimeout:        TooSlow,
	breaker.KindUnavailable:    Overloaded,
}
