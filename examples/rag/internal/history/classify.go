package history

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/failfast-go/breaker"
)

// Classify keeps statements that the database rightly refused from counting against it: data that does not fit (PostgreSQL's
// classes 22 and 23), a statement that is wrong (42). Locks, shutdowns, full disks and everything else are left to the
// default, which counts them.
func Classify(_ context.Context, err error) breaker.Verdict {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && len(e.Code) == 5 {
		switch e.Code[:2] {
		case "22", "23", "42":
			return breaker.Verdict{Outcome: breaker.Ignored}
		}
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff { // the rest of the code says which constraint
		case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH:
			return breaker.Verdict{Outcome: breaker.Ignored}
		}
	}
	return breaker.Verdict{}
}
