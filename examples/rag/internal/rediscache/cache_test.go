package rediscache

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/servers"
)

type answer struct{ Text string }

func open(t *testing.T, url string) *Cache[answer] {
	t.Helper()
	c, err := Open[answer](url, t.Name()+":", time.Minute)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestABadURLIsRefusedWithoutShowingIt(t *testing.T) {
	_, err := Open[answer]("http://user:secret@host", "", 0)
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "secret")
}

func TestARedisThatHangsIsGivenUpSoon(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, and says nothing
	require.NoError(t, err)
	defer silent.Close()
	c := open(t, "redis://"+silent.Addr().String())
	_, found, err := c.Load(t.Context(), "key")
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.False(t, found)
	limits := c.client.Options()
	assert.Equal(t, []time.Duration{patience, patience, patience}, []time.Duration{limits.DialTimeout, limits.ReadTimeout, limits.WriteTimeout})
	assert.Zero(t, limits.MaxRetries, "a second attempt takes as long again")
}

func TestRedisKeepsEntries(t *testing.T) {
	c := open(t, servers.Redis(t))
	require.NoError(t, c.client.Del(t.Context(), t.Name()+":key").Err()) // and nothing else: other packages use the server meanwhile

	_, found, err := c.Load(t.Context(), "key")
	require.NoError(t, err, "nothing there is no error")
	assert.False(t, found)

	entry := breaker.Entry[answer]{Value: answer{"forty-two"}, StoredAt: time.Now().Add(-time.Second).Round(0).UTC()}
	require.NoError(t, c.Store(t.Context(), "key", entry))
	got, found, err := c.Load(t.Context(), "key")
	require.NoError(t, err)
	assert.True(t, found)
	assert.Equal(t, entry, got)

	left := c.client.TTL(t.Context(), t.Name()+":key").Val()
	assert.InDelta(t, time.Minute, left, float64(30*time.Second), "it leaves Redis by itself")

	require.NoError(t, c.client.Set(t.Context(), t.Name()+":key", "not JSON", 0).Err())
	_, found, err = c.Load(t.Context(), "key")
	require.NoError(t, err, "what another program wrote is no answer, and no error")
	assert.False(t, found)
}
