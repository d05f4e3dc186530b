package breaker

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Cache keeps answers for the time when the primary gives none; see [Protected.OrCache]. The shape fits Redis and its like: an
// [Entry] marshals to JSON. It must be safe for concurrent use.
type Cache[Res any] interface {
	// Load returns what was stored under key. Nothing there is false without an error. It need not look at the entry's age.
	Load(ctx context.Context, key string) (Entry[Res], bool, error)
	// Store keeps entry under key, over what was there. It may forget it at any time.
	Store(ctx context.Context, key string, entry Entry[Res]) error
}

// Entry is an answer and when the primary gave it.
type Entry[Res any] struct {
	Value    Res       `json:"value"`
	StoredAt time.Time `json:"stored_at"`
}

// MemoryCache is a [Cache] in this process, which forgets the entry that was not used for longest when it is full. Values are
// not copied: an answer that holds a pointer, slice or map is shared by everybody who gets it. The zero MemoryCache is ready
// for use and holds 1000 entries. It is safe for concurrent use and must not be copied.
type MemoryCache[Res any] struct {
	size int

	mu     sync.Mutex // guards the fields below
	byKey  map[string]*list.Element
	recent list.List // of keyed[Res], the one used last in front
}

type keyed[Res any] struct {
	key   string
	entry Entry[Res]
}

const defaultMemoryCache = 1000

// NewMemoryCache returns an empty cache of at most size entries; zero or less means 1000.
func NewMemoryCache[Res any](size int) *MemoryCache[Res] { return &MemoryCache[Res]{size: size} }

// Load implements [Cache]. Its error is nil.
func (c *MemoryCache[Res]) Load(_ context.Context, key string) (Entry[Res], bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.byKey[key]
	if !ok {
		return Entry[Res]{}, false, nil
	}
	c.recent.MoveToFront(at)
	return at.Value.(keyed[Res]).entry, true, nil
}

// Store implements [Cache]. Its error is nil.
func (c *MemoryCache[Res]) Store(_ context.Context, key string, entry Entry[Res]) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, ok := c.byKey[key]; ok {
		at.Value = keyed[Res]{at.Value.(keyed[Res]).key, entry}
		c.recent.MoveToFront(at)
		return nil
	}
	if c.byKey == nil {
		c.byKey = map[string]*list.Element{}
	}
	key = strings.Clone(key) // never keeps a whole request alive of which it is a part
	c.byKey[key] = c.recent.PushFront(keyed[Res]{key, entry})
	if c.recent.Len() > c.limit() {
		delete(c.byKey, c.recent.Remove(c.recent.Back()).(keyed[Res]).key)
	}
	return nil
}

func (c *MemoryCache[Res]) limit() int {
	if c.size <= 0 {
		return defaultMemoryCache
	}
	return c.size
}

// cacheGrace is what a write may take, and a read that begins after the caller's deadline.
const cacheGrace = 100 * time.Millisecond

// cacheStep is the cache as a step of a chain. It counts what fails there, since no caller hears of it.
type cacheStep[Req, Res any] struct {
	cache  Cache[Res]
	keyOf  func(Req) string
	maxAge time.Duration
	errors atomic.Uint64
}

// load returns the entry for req, if there is one that is not too old, and its age.
func (c *cacheStep[Req, Res]) load(ctx context.Context, req Req) (res Res, age time.Duration, err error) {
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), cacheGrace)
		defer cancel()
	}
	entry, err := c.lookUp(ctx, req)
	if err != nil {
		return res, 0, err
	}
	age = max(0, time.Since(entry.StoredAt)) // another machine's clock may be ahead
	if age > c.maxAge {
		return res, 0, fmt.Errorf("the answer stored %v ago is older than %v", age.Round(time.Millisecond), c.maxAge)
	}
	return entry.Value, age, nil
}

var (
	errNoKey   = errors.New("the request has no key")
	errNoEntry = errors.New("no answer stored")
)

func (c *cacheStep[Req, Res]) lookUp(ctx context.Context, req Req) (entry Entry[Res], err error) {
	var key string
	var found bool
	err = c.counted(func() (err error) {
		if key = c.keyOf(req); key != "" {
			entry, found, err = c.cache.Load(ctx, key)
		}
		return err
	})
	switch {
	case err != nil:
		return entry, err
	case key == "":
		return entry, errNoKey
	case !found:
		return entry, errNoEntry
	}
	return entry, nil
}

// store keeps an answer of the primary. The caller has it already, so neither its cancellation nor an error matters here.
func (c *cacheStep[Req, Res]) store(ctx context.Context, req Req, res Res) {
	_ = c.counted(func() error {
		key := c.keyOf(req)
		if key == "" {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cacheGrace)
		defer cancel()
		return c.cache.Store(ctx, key, Entry[Res]{res, time.Now()})
	})
}

func (c *cacheStep[Req, Res]) counted(f func() error) error {
	err := survive(f)
	if err != nil {
		c.errors.Add(1)
	}
	return err
}
