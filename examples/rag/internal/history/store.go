// Package history keeps what was asked and answered, in SQLite or PostgreSQL, through database/sql.
package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Turn is one question and its answer.
type Turn struct {
	AskedAt  time.Time
	Question string
	Answer   string
	Source   string // who answered
	Degraded bool
}

// Store saves turns. Its methods may be called from several goroutines.
type Store struct {
	OnSave func() // called at the start of each Save, when set before the first

	db      *sql.DB
	dialect dialect
	url     string // as the driver takes it

	mu     sync.Mutex // guards the field below
	tables bool       // the table is known to be there
}

// Open prepares a store at databaseURL, which begins with postgres:// or postgresql://, or in the SQLite database file when
// it is empty. Nothing is asked of the database yet: a service starts while its database is down.
func Open(databaseURL, file string) (*Store, error) {
	if databaseURL == "" {
		return openSQLite(file)
	}
	if !strings.HasPrefix(databaseURL, "postgres://") && !strings.HasPrefix(databaseURL, "postgresql://") {
		return nil, fmt.Errorf("history: DATABASE_URL must begin with postgres:// (leave it out for SQLite)") // and is not shown: it holds a password
	}
	db, err := sql.Open(postgresDialect.driver, databaseURL)
	if err != nil {
		return nil, fmt.Errorf("history: DATABASE_URL cannot be read; want postgres://user:password@host:port/name")
	}
	return &Store{db: db, dialect: postgresDialect, url: databaseURL}, nil
}

func openSQLite(file string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, fmt.Errorf("history: cannot make the data directory: %w", err)
	}
	url := "file:" + escape.Replace(file) + "?_pragma=busy_timeout(250)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)"
	db, err := sql.Open(sqliteDialect.driver, url)
	if err != nil {
		return nil, fmt.Errorf("history: cannot open %s: %w", file, err)
	}
	db.SetMaxOpenConns(1) // SQLite has one writer at a time; the others wait their turn here rather than be told that it is busy
	return &Store{db: db, dialect: sqliteDialect, url: url}, nil
}

// escape keeps what a file name may hold from being read as part of the URI.
var escape = strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23")

// Save writes one turn. With SQLite it waits for a lock for at most a quarter of a second; ctx bounds everything else.
func (s *Store) Save(ctx context.Context, t Turn) error {
	if s.OnSave != nil {
		s.OnSave()
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, s.dialect.insert, t.AskedAt.UTC(), t.Question, t.Answer, t.Source, t.Degraded); err != nil {
		return fmt.Errorf("history: save: %w", err)
	}
	return nil
}

// prepare creates the table once. It is not under a lock while it does: a database that hangs must not make every later call
// wait for the first, and creating it twice is no harm.
func (s *Store) prepare(ctx context.Context) error {
	s.mu.Lock()
	ready := s.tables
	s.mu.Unlock()
	if ready {
		return nil
	}
	if _, err := s.db.ExecContext(ctx, s.dialect.create); err != nil {
		return fmt.Errorf("history: create table: %w", err)
	}
	s.mu.Lock()
	s.tables = true
	s.mu.Unlock()
	return nil
}

// Recent returns the last n turns, the newest first.
func (s *Store) Recent(ctx context.Context, n int) ([]Turn, error) {
	rows, err := s.db.QueryContext(ctx, s.dialect.recent, n)
	if err != nil {
		return nil, fmt.Errorf("history: recent: %w", err)
	}
	defer rows.Close()
	var turns []Turn
	for rows.Next() {
		var t Turn
		if err := rows.Scan(&t.AskedAt, &t.Question, &t.Answer, &t.Source, &t.Degraded); err != nil {
			return nil, fmt.Errorf("history: recent: %w", err)
		}
		turns = append(turns, t)
	}
	return turns, rows.Err()
}

// Lock keeps everyone else from writing until unlock is called, with the database's own lock on a connection of its own.
// It is how an outage is played: a migration or a backup that does not end.
func (s *Store) Lock(ctx context.Context) (unlock func() error, err error) {
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	other, err := sql.Open(s.dialect.driver, s.url)
	if err != nil {
		return nil, fmt.Errorf("history: lock: %w", err)
	}
	conn, err := other.Conn(ctx) // a transaction begun by hand lasts only while its connection is held
	if err != nil {
		return nil, errors.Join(fmt.Errorf("history: lock: %w", err), other.Close())
	}
	for _, statement := range s.dialect.lock {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return nil, errors.Join(fmt.Errorf("history: lock: %w", err), conn.Close(), other.Close())
		}
	}
	return func() error {
		_, err := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return errors.Join(err, conn.Close(), other.Close())
	}, nil
}

// Close closes every connection.
func (s *Store) Close() error { return s.db.Close() }
