package breaker

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// stallClock cancels a call that does not get on. It runs only while somebody waits: for headers, or in Read. A nil one does
// nothing.
type stallClock struct {
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	name    string
	between time.Duration // zero for no limit

	limit  atomic.Int64  // in force, a time.Duration; zero for none. Atomic for pass, which a Stop may come too late for
	left   time.Duration // of it
	since  time.Time     // running
	passed atomic.Pointer[limitError]
}

func newStallClock(ctx context.Context, name string, first, between time.Duration) (context.Context, *stallClock) {
	s := &stallClock{name: name, between: max(0, between), left: max(0, first)}
	s.limit.Store(int64(s.left))
	ctx, s.cancel = context.WithCancelCause(ctx)
	return ctx, s
}

func (s *stallClock) start() {
	if s == nil || s.limit.Load() <= 0 {
		return
	}
	s.since = time.Now()
	if s.timer == nil {
		s.timer = time.AfterFunc(s.left, s.pass)
		return
	}
	s.timer.Reset(s.left)
}

func (s *stallClock) stop() {
	if s == nil || s.limit.Load() <= 0 {
		return
	}
	s.timer.Stop()
	s.left = max(0, s.left-time.Since(s.since))
}

// pass ends the call: its limit has passed. It runs on the timer's goroutine.
func (s *stallClock) pass() {
	e := &limitError{s.name, time.Duration(s.limit.Load())}
	s.passed.Store(e)
	s.cancel(e)
}

// renew gives the upstream another while, after content has come.
func (s *stallClock) renew() {
	if s != nil {
		s.left = s.between
		s.limit.Store(int64(s.between))
	}
}

// blame returns err, or the limit that brought it about.
func (s *stallClock) blame(err error) error {
	if s != nil && err != nil {
		if e := s.passed.Load(); e != nil {
			return e
		}
	}
	return err
}

// release frees what the clock holds, once the call is over.
func (s *stallClock) release() {
	if s != nil {
		s.cancel(nil)
	}
}

// limitError is a call that did not get on.
type limitError struct {
	name  string
	limit time.Duration
}

// Error says which limit passed.
func (e *limitError) Error() string {
	return fmt.Sprintf("breaker: %q sent no content for %v", e.name, e.limit)
}

// Timeout makes it a [net.Error] that is a timeout.
func (e *limitError) Timeout() bool { return true }

// Temporary completes [net.Error].
func (e *limitError) Temporary() bool { return true }

// Is reports whether target is [os.ErrDeadlineExceeded].
func (e *limitError) Is(target error) bool { return target == os.ErrDeadlineExceeded }
