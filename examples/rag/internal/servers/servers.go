// Package servers finds the real servers that integration tests need.
package servers

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"
)

// URL returns the environment variable of that name, which holds a server's URL. Without one the test is skipped, or fails
// where CI is set: there, a test that does not run hides that it would fail.
func URL(t testing.TB, variable string) string {
	t.Helper()
	url := os.Getenv(variable)
	if url != "" {
		return url
	}
	const how = "%s is not set: run this test through examples/rag/testdata/services.sh, which starts Redis and PostgreSQL"
	if os.Getenv("CI") == "true" {
		t.Fatalf(how, variable)
	}
	t.Skipf(how, variable)
	return ""
}

// Redis returns the URL of the server of REDIS_URL, with limits that a machine keeps which is busy with other tests.
func Redis(t testing.TB) string {
	t.Helper()
	u, err := url.Parse(URL(t, "REDIS_URL"))
	require.NoError(t, err)
	query := u.Query()
	for _, limit := range []string{"dial_timeout", "read_timeout", "write_timeout"} {
		query.Set(limit, "1m")
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// PostgreSQL returns the URL of a schema of the test's own on the server of DATABASE_URL: packages are tested side by side, and
// one locks its table. It goes with the test.
func PostgreSQL(t testing.TB) string {
	t.Helper()
	server := URL(t, "DATABASE_URL")
	schema := fmt.Sprintf("test_%d_%d", os.Getpid(), time.Now().UnixNano())
	run := func(statement string) {
		db, err := sql.Open("pgx", server)
		require.NoError(t, err)
		defer db.Close()
		_, err = db.Exec(statement)
		require.NoError(t, err)
	}
	run("CREATE SCHEMA " + schema)
	t.Cleanup(func() { run("DROP SCHEMA " + schema + " CASCADE") })
	u, err := url.Parse(server)
	require.NoError(t, err)
	query := u.Query()
	query.Set("search_path", schema)
	u.RawQuery = query.Encode()
	return u.String()
}
