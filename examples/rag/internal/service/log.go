package service

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
)

// levels are the steps of the chain, counted as they are asked.
var levels = map[string]int{"cache": 1, LocalModel: 2, "rule": 3, "default": 4}

// logFallback tells of each answer that its primary did not give, once.
func (s *Service) logFallback(name, source string, degraded bool, cause error) {
	if degraded {
		s.log.Info("fallback used", zap.String("breaker", name), zap.Int("level", levels[source]), zap.String("source", source), zap.Error(cause))
	}
}

// logGone tells that no step was left. A caller who went away is not worth a line.
func (s *Service) logGone(ctx context.Context, err error) {
	if !errors.Is(ctx.Err(), context.Canceled) {
		s.log.Warn("fallback used", zap.String("breaker", LLM), zap.Int("level", levels["default"]), zap.String("source", "default"), zap.Error(err))
	}
}

// logNotSaved tells of a conversation that is lost. A refusal is no news: the breaker's opening was logged.
func (s *Service) logNotSaved(err error) {
	if errors.Is(err, breaker.ErrOpen) {
		s.log.Debug("conversation not saved", zap.Error(err))
		return
	}
	s.log.Warn("conversation not saved", zap.Error(err))
}
