package demo

import (
	"context"
	"time"

	"github.com/failfast-go/breaker/examples/rag/internal/modelserver"
	"github.com/failfast-go/breaker/examples/rag/internal/service"
)

// act is one part of the outage.
type act struct {
	name  string
	ill   string // the breaker whose upstream is ill; "" while all are well
	lasts time.Duration
	begin func(context.Context, *service.Service) (end func() error, err error) // nil: nothing happens
}

// script is the outage. Between two faults of the model it is well for long enough to be seen recovering, and the vector store
// fails only then: the two together would leave nothing to answer from.
func script() []act {
	return []act{
		{"all is well", "", 4 * time.Second, nil},
		{"the model returns 503", service.LLM, 7 * time.Second, breakModel(modelserver.Unavailable)},
		{"the model recovers", "", 4 * time.Second, nil},
		{"the model hangs", service.LLM, 7 * time.Second, breakModel(modelserver.Hang)},
		{"the model recovers again", "", 4 * time.Second, nil},
		{"the vector store fails", service.VectorDB, 6 * time.Second, breakVectors},
		{"the database is locked", service.Database, 6 * time.Second, lockDatabase},
		{"everything recovers", "", 4 * time.Second, nil},
	}
}

func breakModel(kind modelserver.Kind) func(context.Context, *service.Service) (func() error, error) {
	return func(_ context.Context, s *service.Service) (func() error, error) {
		mend := func() error { return s.Model.SetFault(modelserver.Fault{Kind: modelserver.None}) }
		return mend, s.Model.SetFault(modelserver.Fault{Kind: kind})
	}
}

func breakVectors(_ context.Context, s *service.Service) (func() error, error) {
	s.Vectors.Break(service.ErrPlayed)
	return func() error { s.Vectors.Break(nil); return nil }, nil
}

// lockDatabase takes SQLite's own exclusive lock on a connection of its own, as a backup would.
func lockDatabase(ctx context.Context, s *service.Service) (func() error, error) {
	return s.History.Lock(ctx)
}
