package service

import (
	"cmp"
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
	"github.com/failfast-go/breaker/examples/rag/internal/history"
	"github.com/failfast-go/breaker/examples/rag/internal/model"
	"github.com/failfast-go/breaker/examples/rag/internal/modelserver"
	"github.com/failfast-go/breaker/examples/rag/internal/rediscache"
	"github.com/failfast-go/breaker/examples/rag/internal/vectors"
)

// Service is the chat service. Make it with New.
type Service struct {
	log      *zap.Logger
	limits   Limits
	breakers *breaker.Registry
	fallback breaker.Fallback
	alerts   breaker.Alerts

	Vectors *vectors.Store
	History *history.Store
	Model   *modelserver.Server // the embedded one; nil when OPENAI_BASE_URL names another

	primary model.Answerer
	local   model.Answerer

	retrieve *breaker.Protected[string, []corpus.Passage]
	answer   *breaker.Protected[question, Answer]

	closers []func() error
}

// The names of the breakers, as the YAML file has them.
const (
	LLM        = "llm"
	VectorDB   = "vectordb"
	Database   = "database"
	LocalModel = "local-model"
)

// New prepares every upstream and reads the documents if there is no index of them yet, which takes a second or two. Upstreams
// on the network are not asked: the service starts while they are down, and answers with what it has.
func New(ctx context.Context, cfg Config) (*Service, error) {
	file, err := cfg.file()
	if err != nil {
		return nil, err
	}
	s := &Service{log: cfg.Log, limits: cfg.Limits.withDefaults(cfg.OllamaHost != ""), fallback: file.Fallback, alerts: file.Alerts}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if err := s.build(ctx, cfg, file); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Service) build(ctx context.Context, cfg Config, file *breaker.File) (err error) {
	if s.breakers, err = newBreakers(file, s.log, cfg.NoBreakers); err != nil {
		return err
	}
	if s.Vectors, err = openVectors(ctx, cfg); err != nil {
		return err
	}
	if s.History, err = history.Open(cfg.DatabaseURL, cfg.historyFile()); err != nil {
		return err
	}
	s.closers = append(s.closers, s.History.Close)
	if err := s.buildModels(cfg); err != nil {
		return err
	}
	s.observe(cfg.Reached)
	cache, err := s.buildCache(cfg)
	if err != nil {
		return err
	}
	s.retrieve = s.retrieval()
	s.answer = s.chain(cache)
	return nil
}

func (s *Service) buildModels(cfg Config) (err error) {
	s.local = model.Extractive{}
	if cfg.OllamaHost != "" {
		s.local = model.NewOllama(cfg.OllamaHost, cmp.Or(cfg.OllamaModel, "llama3.2"))
	}
	if cfg.OpenAIBaseURL != "" {
		s.primary = model.NewClient(cfg.OpenAIBaseURL, cfg.OpenAIKey, cmp.Or(cfg.OpenAIModel, "gpt-4o-mini"))
		return nil
	}
	if s.Model, err = modelserver.Start(); err != nil {
		return err
	}
	s.closers = append(s.closers, func() error { s.Model.Close(); return nil })
	s.primary = model.NewClient(s.Model.BaseURL(), "none", modelserver.Model)
	return nil
}

func (s *Service) buildCache(cfg Config) (breaker.Cache[Answer], error) {
	switch {
	case cfg.Cache != nil:
		return cfg.Cache, nil
	case cfg.RedisURL == "":
		return breaker.NewMemoryCache[Answer](maxCached), nil
	}
	cache, err := rediscache.Open[Answer](cfg.RedisURL, "rag:answer:", s.fallback.CacheMaxAge)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, cache.Close)
	return cache, nil
}

// maxCached bounds the cache in memory: some megabytes of answers.
const maxCached = 1000

func (s *Service) observe(reached func(string)) {
	if reached == nil {
		return
	}
	s.Vectors.OnSearch = func() { reached(VectorDB) }
	s.History.OnSave = func() { reached(Database) }
	if s.Model != nil {
		s.Model.OnRequest = func() { reached(LLM) }
	}
}

// Breakers returns the registry, to watch.
func (s *Service) Breakers() *breaker.Registry { return s.breakers }

// Alerts returns who is to be told of them, as the file says.
func (s *Service) Alerts() breaker.Alerts { return s.alerts }

// Close frees what New took.
func (s *Service) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}
