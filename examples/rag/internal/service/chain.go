package service

import (
	"context"
	"strings"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
	"github.com/failfast-go/breaker/examples/rag/internal/history"
	"github.com/failfast-go/breaker/examples/rag/internal/model"
)

// passagesPerAnswer is how many passages a prompt holds: enough to find the answer among, few enough to read quickly.
const passagesPerAnswer = 4

// retrieval finds passages, or none while the store is ill: an answer without sources is better than no answer.
func (s *Service) retrieval() *breaker.Protected[string, []corpus.Passage] {
	return breaker.Protect(s.breakers.Breaker(VectorDB), s.search, breaker.Within(s.limits.Retrieve)).
		OrValue(nil)
}

func (s *Service) search(ctx context.Context, question string) ([]corpus.Passage, error) {
	matches, err := s.Vectors.Search(ctx, question, passagesPerAnswer)
	if err != nil {
		return nil, err
	}
	passages := make([]corpus.Passage, len(matches))
	for i, m := range matches {
		passages[i] = m.Passage
	}
	return passages, nil
}

// question is what the answer chain works on.
type question struct {
	text     string
	passages []corpus.Passage
	blind    bool // the vector store was not there to be asked
}

func (q question) request() model.Request {
	return model.Request{Question: q.text, Passages: q.passages}
}

// key is the same for questions that differ in case and spacing only.
func (q question) key() string { return strings.ToLower(strings.Join(strings.Fields(q.text), " ")) }

// answerWith makes an Answer of a model's text.
func (q question) answerWith(text string) Answer {
	return Answer{Text: text, Sources: q.sources(), Blind: q.blind}
}

// sources returns where the passages are from, each once, the nearest first.
func (q question) sources() []string {
	seen := make(map[string]bool)
	var sources []string
	for _, p := range q.passages {
		if !seen[p.Source] {
			seen[p.Source] = true
			sources = append(sources, p.Source)
		}
	}
	return sources
}

// chain answers with the model, and without it from the cache, the local model or a rule, in that order. There is no default:
// when all of them are gone, the file's fallback.default_response is. Nothing is retried: whoever waits for an answer is better
// served by the next step than by a second attempt at an ill model, which after a 429 would begin with the pause it asks for.
func (s *Service) chain(cache breaker.Cache[Answer]) *breaker.Protected[question, Answer] {
	local := s.breakers.Breaker(LocalModel)
	return breaker.Protect(s.breakers.Breaker(LLM), ask(s.primary), breaker.Within(s.limits.Model)).
		OrCache(unlessBlind{cache}, question.key, s.fallback.CacheMaxAge).
		OrCall(LocalModel, ask(s.local), breaker.Through(local), breaker.Within(s.limits.Local)).
		OrRules(greeting)
}

func ask(m model.Answerer) func(context.Context, question) (Answer, error) {
	return func(ctx context.Context, q question) (Answer, error) {
		text, err := m.Answer(ctx, q.request())
		return q.answerWith(text), err
	}
}

// unlessBlind keeps an answer that was made without the vector store out of the cache: it would outlive the outage.
type unlessBlind struct{ breaker.Cache[Answer] }

func (c unlessBlind) Store(ctx context.Context, key string, e breaker.Entry[Answer]) error {
	if e.Value.Blind {
		return nil
	}
	return c.Cache.Store(ctx, key, e)
}

// greeting is the rule of the chain: what needs neither model nor documents.
func greeting(q question) (Answer, bool) {
	switch strings.Trim(q.key(), "!.,? ") {
	case "hello", "hi", "hey", "good morning", "good evening", "你好":
		return Answer{Text: "Hello! Ask me about Go's standard library or about circuit breakers."}, true
	}
	return Answer{}, false
}

// save keeps a conversation, or not: it reports whether, and never fails the answer. The user may be gone by now; what was
// answered is kept all the same.
func (s *Service) save(ctx context.Context, turn history.Turn) (saved bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limits.Save)
	defer cancel()
	err := s.breakers.Breaker(Database).Do(ctx, func(ctx context.Context) error { return s.History.Save(ctx, turn) })
	if err != nil {
		s.logNotSaved(err)
	}
	return err == nil
}
