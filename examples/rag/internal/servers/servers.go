// Package servers finds the real servers that integration tests need.
package servers

import (
	"os"
	"testing"
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
