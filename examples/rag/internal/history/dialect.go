package history

import (
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite", without cgo
)

// dialect is what differs between the two databases.
type dialect struct {
	driver                 string
	create, insert, recent string
	lock                   []string
}

var sqliteDialect = dialect{
	driver: "sqlite",
	create: `CREATE TABLE IF NOT EXISTS conversations (
		id INTEGER PRIMARY KEY, asked_at TIMESTAMP NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL,
		source TEXT NOT NULL, degraded BOOLEAN NOT NULL)`,
	insert: `INSERT INTO conversations (asked_at, question, answer, source, degraded) VALUES (?, ?, ?, ?, ?)`,
	recent: `SELECT asked_at, question, answer, source, degraded FROM conversations ORDER BY id DESC LIMIT ?`,
	lock:   []string{`BEGIN EXCLUSIVE`},
}

var postgresDialect = dialect{
	driver: "pgx",
	create: `CREATE TABLE IF NOT EXISTS conversations (
		id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, asked_at TIMESTAMPTZ NOT NULL, question TEXT NOT NULL,
		answer TEXT NOT NULL, source TEXT NOT NULL, degraded BOOLEAN NOT NULL)`,
	insert: `INSERT INTO conversations (asked_at, question, answer, source, degraded) VALUES ($1, $2, $3, $4, $5)`,
	recent: `SELECT asked_at, question, answer, source, degraded FROM conversations ORDER BY id DESC LIMIT $1`,
	lock:   []string{`BEGIN`, `LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE`},
}
