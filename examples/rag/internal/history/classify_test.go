package history

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

func TestOnlyARightlyRefusedStatementIsIgnored(t *testing.T) {
	for code, want := range map[string]breaker.Outcome{
		"22001": breaker.Ignored, // the value is too long
		"23505": breaker.Ignored, // it is there already
		"42P01": breaker.Ignored, // no such table
		"08006": 0,               // the connection broke
		"53300": 0,               // too many connections
		"57P01": 0,               // the server shuts down
		"55P03": 0,               // locked
	} {
		err := fmt.Errorf("history: save: %w", &pgconn.PgError{Code: code})
		assert.Equal(t, want, Classify(t.Context(), err).Outcome, code)
	}
	assert.Zero(t, Classify(t.Context(), errors.New("dial tcp: refused")))
}

func TestSQLiteErrorsAreToldApart(t *testing.T) {
	s := open(t)
	require.NoError(t, s.prepare(t.Context()))
	_, err := s.db.ExecContext(t.Context(), `INSERT INTO conversations (question) VALUES (NULL)`)
	require.Error(t, err)
	assert.Equal(t, breaker.Ignored, Classify(t.Context(), err).Outcome, err)

	unlock, err := s.Lock(t.Context())
	require.NoError(t, err)
	defer func() { assert.NoError(t, unlock()) }()
	err = s.Save(context.Background(), turn("?"))
	require.Error(t, err)
	assert.Zero(t, Classify(t.Context(), err), err)
}
