package service

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/servers"
)

func TestTheServiceOnRedisAndPostgreSQL(t *testing.T) {
	redis, postgres := servers.Redis(t), servers.PostgreSQL(t)
	r := start(t, steady, func(c *Config) {
		c.RedisURL, c.DatabaseURL = redis, postgres
		c.Limits.Save = 3 * time.Second
	})
	// The servers may have seen this test before.
	question := "What does sync provide for mutual exclusion in run " + strconv.FormatInt(time.Now().UnixNano(), 10) + "?"

	whole := r.ask(t, question)
	assert.Equal(t, "primary", whole.Source)
	assert.True(t, whole.Saved)
	turns, err := r.History.Recent(t.Context(), 1)
	require.NoError(t, err)
	assert.Equal(t, question, turns[0].Question)

	// Another instance answers from what this one cached; a busy machine may not get the first answer there within the tenth of
	// a second that the cache has.
	other := start(t, steady, func(c *Config) { c.RedisURL, c.DatabaseURL = redis, postgres })
	other.play(t, LLM, `{"fault": "503"}`)
	cached := other.ask(t, question)
	for deadline := time.Now().Add(time.Minute); cached.Source != "cache" && time.Now().Before(deadline); {
		whole = r.ask(t, question)
		cached = other.ask(t, question)
	}
	require.Equal(t, "cache", cached.Source)
	assert.Equal(t, whole.Response, cached.Response)
	assert.Positive(t, cached.Age)

	unlock, err := r.History.Lock(t.Context())
	require.NoError(t, err)
	for range 4 {
		reply := r.ask(t, question)
		assert.Equal(t, "primary", reply.Source)
		assert.False(t, reply.Saved)
	}
	assert.Equal(t, breaker.StateOpen, r.state(Database))
	require.NoError(t, unlock())
	r.breakers.Breaker(Database).Reset("test")
	assert.True(t, r.ask(t, question).Saved)
}
