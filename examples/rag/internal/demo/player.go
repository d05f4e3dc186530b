package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/service"
)

// pace is the time between two requests. They are sent whether or not earlier ones were answered, as users do.
const pace = 200 * time.Millisecond

// limits are what users of the demo wait for at most.
var limits = service.Limits{
	Model: 1500 * time.Millisecond, Local: 2 * time.Second, Retrieve: 2 * time.Second, Save: 500 * time.Millisecond,
}

// player is one run: a service of its own, reached over HTTP, and the record of what happens to it.
type player struct {
	service  *service.Service
	recorder *recorder
	server   *http.Server
	url      string
	client   *http.Client
	pace     time.Duration
	promises map[string]Promises
}

// newPlayer starts a service that is watched.
func newPlayer(ctx context.Context, pace time.Duration, cfg service.Config) (*player, error) {
	p := &player{recorder: &recorder{}, client: &http.Client{Timeout: 10 * time.Second}, pace: pace}
	cfg.Reached = p.recorder.reached
	cfg.Cache = watched{breaker.NewMemoryCache[service.Answer](1000), p.recorder}
	s, err := service.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s.Breakers().Subscribe(p.recorder.changed)
	p.service, p.promises = s, promised(s.Breakers(), pace)
	return p, p.listen()
}

// promised reads off each breaker's settings what it promises.
func promised(breakers *breaker.Registry, pace time.Duration) map[string]Promises {
	all := make(map[string]Promises)
	for name, b := range breakers.All() {
		c := b.Config()
		open := time.Duration(float64(c.MaxOpenTimeout) * (1 + max(0, c.OpenTimeoutJitter)))
		// A probe that began while the upstream was ill may end as a failure after that, and takes one more open period. Each
		// probe is a request, and they come at the pace; the last of them takes a moment.
		probes := max(0, c.SlowCallDuration) + time.Duration(c.SuccessThreshold+1)*pace + 500*time.Millisecond
		all[name] = Promises{ProbeRound: c.HalfOpenMaxCalls, Arrival: 100 * time.Millisecond, Recovery: open + probes}
	}
	return all
}

func (p *player) listen() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, p.service.Close())
	}
	p.url = "http://" + listener.Addr().String() + "/chat"
	p.server = &http.Server{Handler: p.service.Handler(context.Background()), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = p.server.Serve(listener) }() // ends with close
	return nil
}

func (p *player) close() error {
	return errors.Join(p.server.Close(), p.service.Close())
}

// play runs the script and returns when the last question is answered. curtain is called as each act begins.
func (p *player) play(ctx context.Context, acts []act, questions *questions, curtain func(act)) error {
	var flow sync.WaitGroup
	defer flow.Wait()
	for i, a := range acts {
		curtain(a)
		p.recorder.beginAct(a)
		refused := p.refused()
		end, err := p.begin(ctx, a)
		if err != nil {
			return err
		}
		err = p.ask(ctx, i, a.lasts, questions, &flow)
		p.recorder.endAct(p.refused() - refused)
		if err := errors.Join(err, end()); err != nil {
			return err
		}
	}
	return nil
}

func (p *player) begin(ctx context.Context, a act) (end func() error, err error) {
	if a.begin == nil {
		return func() error { return nil }, nil
	}
	return a.begin(ctx, p.service)
}

// ask sends questions at the pace until the act is over.
func (p *player) ask(ctx context.Context, act int, lasts time.Duration, questions *questions, flow *sync.WaitGroup) error {
	ticker := time.NewTicker(p.pace)
	defer ticker.Stop()
	for range int(lasts / p.pace) {
		question := questions.next()
		flow.Go(func() { p.recorder.asked(act, p.post(ctx, question)) })
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}

// post asks one question over HTTP.
func (p *player) post(ctx context.Context, question string) Request {
	r := Request{Question: question, At: time.Now()}
	body, _ := json.Marshal(map[string]string{"message": question}) // of strings: cannot fail
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		r.Err = err.Error()
		return r
	}
	reply, err := p.client.Do(request)
	r.Took = time.Since(r.At)
	if err != nil {
		r.Err = err.Error()
		return r
	}
	defer reply.Body.Close()
	r.Status = reply.StatusCode
	if err := json.NewDecoder(reply.Body).Decode(&r.Reply); err != nil {
		r.Err = err.Error()
	}
	return r
}

// refused counts the calls that the breakers have refused so far.
func (p *player) refused() int {
	n := 0
	for _, b := range p.service.Breakers().All() {
		n += b.Status().Metrics.RejectedCalls
	}
	return n
}
