package speed

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// A work makes the calls of a hundred from one to another.
type work func(from, to int)

// make makes n calls, the first of which is number from: the number decides which fail.
func (w work) make(from, n int) {
	for at := from % 100; n > 0; at = 0 {
		to := min(100, at+n)
		w(at, to)
		n -= to - at
	}
}

// calls are a hundred calls in the shapes that the libraries want, so that no adapter needs a closure of its own. They are
// loaded from memory, which keeps the compiler from looking into any of them.
type calls struct {
	err    [100]func() error
	val    [100]func() (int, error)
	iface  [100]func() (any, error)
	ctxErr [100]func(context.Context) error
	ctxVal [100]func(context.Context) (int, error)
}

var errDown = errors.New("down")

// mix makes calls of which failing in a hundred fail, evenly spread: 0, 1 or 50.
func mix(failing int) *calls {
	c := new(calls)
	for i := range 100 {
		err := ending(i, failing)
		c.err[i] = func() error { return err }
		c.val[i] = func() (int, error) { return 1, err }
		c.iface[i] = func() (any, error) { return nil, err }
		c.ctxErr[i] = func(context.Context) error { return err }
		c.ctxVal[i] = func(context.Context) (int, error) { return 1, err }
	}
	return c
}

// counted is mix with a count of those that ran.
func counted(failing int, ran *atomic.Int64) *calls {
	c := new(calls)
	for i := range 100 {
		call := func() error { ran.Add(1); return ending(i, failing) }
		c.err[i] = call
		c.val[i] = func() (int, error) { return 1, call() }
		c.iface[i] = func() (any, error) { return nil, call() }
		c.ctxErr[i] = func(context.Context) error { return call() }
		c.ctxVal[i] = func(context.Context) (int, error) { return 1, call() }
	}
	return c
}

func ending(i, failing int) error {
	if failing > 0 && (i+1)%(100/failing) == 0 {
		return errDown
	}
	return nil
}

// makeFrom makes n calls from so many goroutines, which take them in small shares: none is left with a rest while others are done.
func (w work) makeFrom(goroutines, n int) {
	if goroutines == 1 {
		w.make(0, n)
		return
	}
	share := max(1, n/128)
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for {
				from := int(taken.Add(int64(share))) - share
				if from >= n {
					return
				}
				w.make(from, min(share, n-from))
			}
		})
	}
	wg.Wait()
}
