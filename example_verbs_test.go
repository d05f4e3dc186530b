package breaker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/failfast-go/breaker"
)

func ExampleExecute() {
	llm := breaker.Must(breaker.New("llm", breaker.Config{FailureThreshold: 2}))
	ask := func(context.Context) (string, error) { return "", errors.New("503 service unavailable") }
	for range 3 {
		answer, err := breaker.Execute(context.Background(), llm, ask)
		if refusal, ok := errors.AsType[*breaker.OpenError](err); ok {
			fmt.Println("refused:", refusal.Trip)
			continue
		}
		fmt.Printf("%q %v\n", answer, err)
	}
	// Output:
	// "" 503 service unavailable
	// "" 503 service unavailable
	// refused: 2 consecutive failures >= 2
}

func ExampleBreaker_Do() {
	db := breaker.Must(breaker.New("database", breaker.Config{}))
	err := db.Do(context.Background(), func(ctx context.Context) error {
		return nil // such as conn.PingContext(ctx)
	})
	fmt.Println(err, db.State(), db.Status().SuccessCount)
	// Output: <nil> closed 1
}

// A stream is judged by its end, and is alive while tokens come.
func ExampleBreaker_Acquire_stream() {
	llm := breaker.Must(breaker.New("llm", breaker.Config{SlowCallDuration: 20 * time.Second}))
	stream := func(ctx context.Context) error {
		p, err := llm.Acquire(ctx)
		if err != nil {
			return err
		}
		defer p.Cancel() // does nothing after Done
		for _, token := range []string{"to", "ken", "s"} {
			p.Progress()
			fmt.Print(token)
		}
		p.Done(nil)
		return nil
	}
	err := stream(context.Background())
	fmt.Println("", err, llm.Status().SuccessCount)
	// Output: tokens <nil> 1
}

// An upstream that says when to come back is left alone until then.
func ExampleOpenFor() {
	llm := breaker.Must(breaker.New("llm", breaker.Config{}))
	_ = llm.Do(context.Background(), func(context.Context) error {
		return breaker.OpenFor(errors.New("429 too many requests"), 2*time.Minute)
	})
	fmt.Println(llm.State(), "-", llm.Status().Trip)
	// Output: open - the upstream's wish for a pause of 2m0s
}

// A caller's own mistake says nothing about the upstream.
func ExampleIgnore() {
	llm := breaker.Must(breaker.New("llm", breaker.Config{FailureThreshold: 1}))
	err := llm.Do(context.Background(), func(context.Context) error {
		return breaker.Ignore(errors.New("400 the prompt is empty"))
	})
	fmt.Println(err)
	fmt.Println(llm.State(), llm.Status().Metrics.IgnoredCalls)
	// Output:
	// 400 the prompt is empty
	// closed 1
}

// No row is an answer.
func ExampleExpect() {
	db := breaker.Must(breaker.New("database", breaker.Config{FailureThreshold: 1},
		breaker.WithClassifier(breaker.Expect(sql.ErrNoRows))))
	err := db.Do(context.Background(), func(context.Context) error {
		return fmt.Errorf("user 7: %w", sql.ErrNoRows)
	})
	fmt.Println(err)
	fmt.Println(db.State(), db.Status().SuccessCount)
	// Output:
	// user 7: sql: no rows in result set
	// closed 1
}

func ExampleBreaker_Apply() {
	b := breaker.Must(breaker.New("payments", breaker.Config{}))
	cfg := b.Config()
	cfg.FailureRateThreshold = 1.5
	fmt.Println(b.Apply(cfg))
	cfg.FailureRateThreshold = 0.25
	fmt.Println(b.Apply(cfg), b.Config().FailureRateThreshold)
	// Output:
	// breaker: invalid configuration: failure_rate_threshold: 1.5 is not allowed: want a fraction > 0 and <= 1, or off
	// <nil> 0.25
}

func ExampleBreaker_ForceOpen_release() {
	b := breaker.Must(breaker.New("payments", breaker.Config{}))
	b.ForceOpen(breaker.Hold{By: "ann", Reason: "migration"})
	fmt.Println(b.Do(context.Background(), func(context.Context) error { return nil }))
	b.Release()
	fmt.Println(b.State())
	// Output:
	// breaker: "payments" is forced open by ann: migration
	// closed
}

func ExampleBreaker_Subscribe() {
	b := breaker.Must(breaker.New("payments", breaker.Config{}))
	stop := b.Subscribe(func(e breaker.Event) {
		fmt.Printf("%d: %s is %s, was %s, by %s %q\n", e.Seq, e.Breaker.Name(), e.To, e.From, e.Rule, e.Reason)
	})
	b.Trip("deploy")
	b.Reset("done")
	stop()
	b.Trip("unheard")
	// Output:
	// 1: payments is open, was closed, by manual "deploy"
	// 2: payments is closed, was open, by reset "done"
}

func ExampleDiagnose() {
	body := `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`
	e := breaker.Diagnose(529, http.Header{"Retry-After": {"2"}}, []byte(body))
	fmt.Println(e.Kind, e.RetryAfter, e)
	// Output: unavailable 2s 529: overloaded_error
}
