package breaker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
)

var errRefused = errors.New("connection refused")

// ask stands for a call to a language model that is down.
func ask(context.Context, string) (string, error) { return "", errRefused }

func Example() {
	ctx := context.Background()

	llm := breaker.Must(breaker.New("llm", breaker.Config{FailureThreshold: 3}))

	for range 5 {
		answer, err := breaker.Execute(ctx, llm, func(ctx context.Context) (string, error) {
			return ask(ctx, "why is the sky blue?")
		})
		if errors.Is(err, breaker.ErrOpen) {
			fmt.Println("refused at once, the model was not called")
			continue
		}
		fmt.Println(answer, err)
	}
	// Output:
	// connection refused
	//  connection refused
	//  connection refused
	// refused at once, the model was not called
	// refused at once, the model was not called
}

func ExampleOpenError() {
	payments := breaker.Must(breaker.New("payments", breaker.Config{FailureThreshold: 3, OpenTimeoutJitter: breaker.Off}))
	ctx := context.Background()
	for range 3 {
		_ = payments.Do(ctx, func(context.Context) error { return errRefused })
	}

	err := payments.Do(ctx, func(context.Context) error { return nil })
	if refusal, ok := errors.AsType[*breaker.OpenError](err); ok {
		fmt.Println(err)
		fmt.Println(refusal.State, refusal.Trip.Rule, refusal.Trip.Errors[0].Text)
	}
	// Output:
	// breaker: "payments" is open: 3 consecutive failures >= 3; retry after 30s
	// open consecutive_failures connection refused
}

func ExampleBreaker_Acquire() {
	llm := breaker.Must(breaker.New("llm", breaker.Config{}))
	ctx := context.Background()

	stream := func() error {
		permit, err := llm.Acquire(ctx)
		if err != nil {
			return err
		}
		defer permit.Cancel() // does nothing after Done
		for token := range strings.FieldsSeq("a stream of tokens") {
			permit.Progress() // alive: the first one stops the slow clock
			fmt.Print(token, " ")
		}
		permit.Done(nil)
		return nil
	}
	fmt.Println(stream())
	// Output: a stream of tokens <nil>
}

func ExampleWithClassifier() {
	db := breaker.Must(breaker.New("database", breaker.Config{}, breaker.WithClassifier(breaker.Expect(sql.ErrNoRows))))

	err := db.Do(context.Background(), func(context.Context) error { return sql.ErrNoRows })
	fmt.Println(err, db.Status().SuccessCount)
	// Output: sql: no rows in result set 1
}

func ExampleWithLogger() {
	logger := zap.NewExample()
	llm := breaker.Must(breaker.New("llm", breaker.Config{OpenTimeoutJitter: breaker.Off}, breaker.WithLogger(logger)))
	for range 5 {
		_ = llm.Do(context.Background(), func(context.Context) error { return errRefused })
	}
	// Output:
	// {"level":"warn","msg":"circuit breaker opened","name":"llm","from":"closed","to":"open","rule":"consecutive_failures","observed":5,"threshold":5,"calls":5,"retry_after":"30s"}
}

func ExampleBreaker_ForceOpen() {
	payments := breaker.Must(breaker.New("payments", breaker.Config{}))

	payments.ForceOpen(breaker.Hold{By: "ann", Reason: "migration"})
	fmt.Println(payments.Do(context.Background(), func(context.Context) error { return nil }))
	payments.Release()
	fmt.Println(payments.State())
	// Output:
	// breaker: "payments" is forced open by ann: migration
	// closed
}
