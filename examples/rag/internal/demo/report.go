package demo

import (
	"time"

	"github.com/failfast-go/breaker/examples/rag/internal/service"
)

// Report is everything that was seen of one run. It is data: [Report.Check] and the table are made from it alone.
type Report struct {
	Acts     []Act
	Changes  []Change            // of every breaker, in order
	Cached   []service.Answer    // what was written to the cache
	Promises map[string]Promises // by breaker
	Took     time.Duration
}

// Act is a part of the outage as it was played.
type Act struct {
	Name       string
	Ill        string // the breaker whose upstream was ill; "" when none was
	Begin, End time.Time
	Requests   []Request              // those asked in it, whenever they were answered
	Reached    map[string][]time.Time // by breaker: when calls arrived at its upstream
	Refused    int                    // calls that the breakers refused
}

// Request is one question asked over HTTP and what came back.
type Request struct {
	Question string
	At       time.Time
	Took     time.Duration
	Status   int    // 0 when there was no answer at all
	Err      string // then
	Reply    service.Reply
}

// answered says whether a user would call it an answer.
func (r Request) answered() bool { return r.Status == 200 && r.Reply.Response != "" }

// Change is a breaker opening or recovering.
type Change struct {
	Breaker string
	At      time.Time
	Opened  bool // else it closed
}

// Promises are what a breaker's settings promise.
type Promises struct {
	ProbeRound int           // how many calls may reach an ill upstream per open period
	Arrival    time.Duration // how long after its admission a call may get there: one admitted before the breaker opened is seen just after
	Recovery   time.Duration // from the upstream's recovery to the breaker's
}
