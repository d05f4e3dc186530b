package service

import (
	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/history"
	"github.com/failfast-go/breaker/examples/rag/internal/model"
)

// newBreakers makes every breaker from one file. A classifier leaves errors that are not its upstream's to the next, so one
// list serves them all.
func newBreakers(file *breaker.File, log *zap.Logger, disabled bool) (*breaker.Registry, error) {
	breakers, err := breaker.NewRegistry(file.Breakers, breaker.WithLogger(log), breaker.WithDurationHistogram(),
		breaker.WithClassifier(model.Classify), breaker.WithClassifier(history.Classify))
	if err != nil {
		return nil, err
	}
	for _, name := range []string{LLM, VectorDB, Database, LocalModel} {
		b := breakers.Breaker(name) // also one that the file leaves to the default is there to be seen from the start
		if disabled {
			b.Disable(breaker.Hold{By: "-no-breakers", Reason: "to see the outage without them"})
		}
	}
	return breakers, nil
}
