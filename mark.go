package breaker

import (
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"
)

// stripe is a pair of marks on a cache line of its own. Goroutines spread over the stripes of a lane, so that cores do not
// wait for each other's cache lines.
type stripe struct {
	in, out mark
	_       [48]byte
}

// maxStripes are four for each processor, so that goroutines on two of them seldom have the same; 4 KiB at most. A lane begins
// with one and gets twice as many when calls meet at a mark: a seal costs as much as there are stripes, and most breakers never
// see two calls in the same ten nanoseconds.
var maxStripes = min(4<<bits.Len(uint(runtime.GOMAXPROCS(0)-1)), 64)

// mark is a count, below the latest instant that was counted, from the lane's base: a day and a half of them. A lane is replaced
// when half of that is over.
type mark struct{ atomic.Uint64 }

const (
	markFull   = 1 << 15 // or more: the machine must take the count first
	markSealed = 1 << 16
	markShut   = markSealed | markFull
	markBits   = 17 // of all that
	instants   = 1<<(64-markBits) - 1
	never      = 1<<63 - 1
)

// add counts one more, at an instant, unless the mark is sealed or full or another comes between.
func (w *mark) add(at time.Duration) bool {
	yieldAt("load mark")
	was := w.Load()
	next := was + 1
	if at > time.Duration(was>>markBits) {
		next = uint64(at)<<markBits | next&(1<<markBits-1)
	}
	yieldAt("swap mark")
	return was&markShut == 0 && w.CompareAndSwap(was, next)
}

// count is add for a call that did not succeed with it: unless w is sealed or full, it will have met another there, or a seal that
// is gone again.
func (l *lane) count(w *mark, at time.Duration) bool {
	for w.Load()&markShut == 0 {
		if len(l.stripes) < maxStripes {
			l.crowded.Store(true)
			l.look.Store(0)
		}
		if w.add(at) {
			return true
		}
	}
	return false
}

// patience is how often to look at a sealed mark, or for the lock, before waiting for that: it takes a microsecond or two. Whoever
// has the lock needs less in most cases, and to be put to sleep and woken takes longer.
const patience = 2000

// reopens reports whether w was opened again before that.
func (w *mark) reopens() bool {
	for range patience {
		if w.Load()&markShut == 0 {
			return true
		}
	}
	return false
}

// stripe chooses one by the caller's stack: goroutines have different ones, and a core uses those of the goroutines that ended
// on it again. Asking the runtime for the core costs as much as all else here.
func (l *lane) stripe() *stripe {
	if len(l.stripes) == 1 {
		return &l.stripes[0]
	}
	if stepping {
		return &l.stripes[onStripe()%len(l.stripes)]
	}
	var here byte
	hash := uint32(uintptr(unsafe.Pointer(&here))>>11) * 0x9E3779B1
	return &l.stripes[hash>>16&uint32(len(l.stripes)-1)]
}
