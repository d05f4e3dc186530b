package breaker

import (
	"math/bits"
	"slices"
	"time"
)

// tally counts how many of the last calls are marked: failed in one tally, slow in another. The last calls are the last size
// entries, in a ring of bits, or those of the last stretch of time, in a ring of buckets. It has no lock and no clock.
type tally struct {
	entries int // how many there are, at most size when that counts
	marked  int // how many of them are marked

	size int      // of the ring of bits; 0 when time counts
	next int      // the slot written next
	ring []uint64 // one bit an entry

	width   time.Duration // of a bucket; 0 when entries count
	newest  int64         // number of the newest bucket, since the time base
	buckets []bucket      // bucket number n lies at n modulo len
}

type bucket struct{ entries, marked int }

// windowBuckets is into how many steps a window of time is cut: it forgets a fiftieth of itself at a time.
const windowBuckets = 50

func newTally(cfg *Config) tally {
	if cfg.WindowDuration > 0 {
		return tally{width: cfg.WindowDuration / windowBuckets, buckets: make([]bucket, windowBuckets)}
	}
	return tally{size: cfg.WindowCalls, ring: make([]uint64, (cfg.WindowCalls+63)/64)}
}

// add enters n calls at now. Time never goes back.
func (t *tally) add(now time.Duration, n int, marked bool) {
	if t.width > 0 {
		t.advance(now)
		b := &t.buckets[t.newest%windowBuckets]
		b.entries += n
		t.entries += n
		if marked {
			b.marked += n
			t.marked += n
		}
		return
	}
	if !marked {
		t.pushPlain(n)
		return
	}
	for range min(n, t.size) {
		t.push(true)
	}
}

// pushPlain enters n calls that are not marked, a word of them at a time.
func (t *tally) pushPlain(n int) {
	for n = min(n, t.size); n > 0; {
		first := t.next % 64
		some := min(n, 64-first, t.size-t.next)
		word, gone := &t.ring[t.next/64], (^uint64(0)>>(64-some))<<first
		t.marked -= bits.OnesCount64(*word & gone) // a slot not yet in use holds none
		*word &^= gone
		t.entries = min(t.entries+some, t.size)
		if t.next += some; t.next == t.size {
			t.next = 0
		}
		n -= some
	}
}

func (t *tally) push(marked bool) {
	word, bit := &t.ring[t.next/64], uint64(1)<<(t.next%64)
	switch {
	case t.entries < t.size:
		t.entries++
	case *word&bit != 0:
		t.marked--
	}
	*word &^= bit
	if marked {
		*word |= bit
		t.marked++
	}
	if t.next++; t.next == t.size {
		t.next = 0
	}
}

// advance forgets the buckets that have left the window by now.
func (t *tally) advance(now time.Duration) {
	for number := int64(now / t.width); t.newest < number; {
		if number-t.newest > windowBuckets { // everything has left: no need to pass each empty bucket
			t.newest = number - windowBuckets
		}
		t.newest++
		b := &t.buckets[t.newest%windowBuckets]
		t.entries -= b.entries
		t.marked -= b.marked
		*b = bucket{}
	}
}

// clone returns a tally that shares no memory with t.
func (t *tally) clone() tally {
	c := *t
	c.ring, c.buckets = slices.Clone(t.ring), slices.Clone(t.buckets)
	return c
}

// at returns the counts as of now, and changes nothing.
func (t *tally) at(now time.Duration) (entries, marked int) {
	entries, marked = t.entries, t.marked
	if t.width == 0 {
		return entries, marked
	}
	gone := min(int64(now/t.width)-t.newest, windowBuckets)
	for i := int64(1); i <= gone; i++ {
		b := t.buckets[(t.newest+i)%windowBuckets]
		entries -= b.entries
		marked -= b.marked
	}
	return entries, marked
}

// empty forgets everything and keeps the memory.
func (t *tally) empty() {
	t.entries, t.marked, t.next = 0, 0, 0
	clear(t.ring)
	clear(t.buckets)
}

// resized returns a tally of cfg's window that holds what fits of t, the newest first. Entries of a count have no time of
// their own and become those of now; entries of a bucket have no order and are taken as successes before failures.
func (t *tally) resized(cfg *Config, now time.Duration) tally {
	fresh := newTally(cfg)
	if fresh.width > 0 {
		fresh.newest = int64(now / fresh.width)
	}
	if t.width > 0 {
		t.advance(now)
		t.eachBucket(func(b bucket, end time.Duration) {
			fresh.insert(min(end, now), b)
		})
		return fresh
	}
	if fresh.width > 0 {
		fresh.insert(now, bucket{t.entries, t.marked})
		return fresh
	}
	for i := range t.entries {
		slot := (t.next - t.entries + i + t.size) % t.size
		fresh.push(t.ring[slot/64]&(1<<(slot%64)) != 0)
	}
	return fresh
}

// insert enters the calls of b at a time that may lie before the newest, within the window.
func (t *tally) insert(at time.Duration, b bucket) {
	if t.width == 0 {
		t.add(at, b.entries-b.marked, false)
		t.add(at, b.marked, true)
		return
	}
	number := int64(at / t.width)
	if number <= t.newest-windowBuckets {
		return
	}
	old := &t.buckets[number%windowBuckets]
	old.entries += b.entries
	old.marked += b.marked
	t.entries += b.entries
	t.marked += b.marked
}

// eachBucket calls f for each bucket, oldest first, with the last instant that belongs to it.
func (t *tally) eachBucket(f func(b bucket, end time.Duration)) {
	for number := max(0, t.newest-windowBuckets+1); number <= t.newest; number++ {
		f(t.buckets[number%windowBuckets], time.Duration(number+1)*t.width-1)
	}
}
