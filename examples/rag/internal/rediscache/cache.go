// Package rediscache keeps a fallback chain's answers in Redis, so that every instance of a service can use them.
package rediscache

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/failfast-go/breaker"
)

// Cache is a breaker.Cache whose values are stored as JSON.
type Cache[T any] struct {
	client *redis.Client
	prefix string
	keep   time.Duration
}

// patience is how long one command may take, unless the URL says otherwise. The cache is asked when something else has failed
// already; it must not be the second thing to wait for.
const patience = 250 * time.Millisecond

// Open prepares a cache at url, redis://user:password@host:port/db. Entries leave Redis after keep; zero keeps them until Redis
// makes room. Nothing is asked of Redis yet: a service starts while its cache is down. A command has a quarter of a second;
// dial_timeout, read_timeout and write_timeout in the URL's query change that.
func Open[T any](url, prefix string, keep time.Duration) (*Cache[T], error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, errors.New("rediscache: REDIS_URL cannot be read; want redis://user:password@host:port/db") // the text may hold a password
	}
	for _, limit := range []*time.Duration{&options.DialTimeout, &options.ReadTimeout, &options.WriteTimeout} {
		*limit = cmp.Or(*limit, patience)
	}
	options.MaxRetries = -1
	options.ContextTimeoutEnabled = true
	return &Cache[T]{redis.NewClient(options), prefix, keep}, nil
}

// Load returns the entry under key, or false. An entry that does not decode is none: a newer or older program wrote it.
func (c *Cache[T]) Load(ctx context.Context, key string) (breaker.Entry[T], bool, error) {
	text, err := c.client.Get(ctx, c.prefix+key).Bytes()
	if errors.Is(err, redis.Nil) {
		return breaker.Entry[T]{}, false, nil
	}
	if err != nil {
		return breaker.Entry[T]{}, false, fmt.Errorf("rediscache: load: %w", err)
	}
	var entry breaker.Entry[T]
	decoded := json.Unmarshal(text, &entry) == nil
	return entry, decoded, nil
}

// Store replaces the entry under key.
func (c *Cache[T]) Store(ctx context.Context, key string, entry breaker.Entry[T]) error {
	text, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("rediscache: store: %w", err)
	}
	if err := c.client.Set(ctx, c.prefix+key, text, c.keep).Err(); err != nil {
		return fmt.Errorf("rediscache: store: %w", err)
	}
	return nil
}

// Close closes every connection.
func (c *Cache[T]) Close() error { return c.client.Close() }
