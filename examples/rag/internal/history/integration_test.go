package history

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker/examples/rag/internal/servers"
)

func TestPostgreSQLDoesWhatSQLiteDoes(t *testing.T) {
	s, err := Open(servers.PostgreSQL(t), "")
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	savesAndReads(t, s)
	failsWhileLocked(t, s)
}
