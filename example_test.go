package breaker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
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
	// {"level":"warn","msg":"circuit breaker opened","name":"llm","from":"closed","to":"open","rule":"consecutive_failures","observed":5,"threshold":5,"calls":5,"failures":5,"slow_calls":0,"retry_after":"30s","errors":[{"text":"connection refused","count":5}]}
}

func Example_slog() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, withoutTime))

	toSlog := func(e breaker.Event) {
		level := slog.LevelInfo
		attrs := []slog.Attr{slog.String("name", e.Breaker.Name()), slog.Any("from", e.From), slog.Any("to", e.To), slog.Any("rule", e.Rule)}
		if e.Trip != nil {
			level = slog.LevelWarn
			attrs = append(attrs, slog.Any("why", e.Trip), slog.Any("errors", e.Trip.Errors))
		}
		if e.Hold != nil {
			attrs = append(attrs, slog.String("by", e.Hold.By), slog.String("reason", e.Hold.Reason))
		}
		logger.LogAttrs(context.Background(), level, "circuit breaker", attrs...)
	}
	llm := breaker.Must(breaker.New("llm", breaker.Config{}, breaker.WithListener(toSlog)))

	for range 5 {
		_ = llm.Do(context.Background(), func(context.Context) error { return errRefused })
	}
	llm.ForceOpen(breaker.Hold{By: "ann", Reason: "migration"})
	// Output:
	// level=WARN msg="circuit breaker" name=llm from=closed to=open rule=consecutive_failures why="5 consecutive failures >= 5" errors="[{Text:connection refused Count:5}]"
	// level=INFO msg="circuit breaker" name=llm from=open to=forced_open rule=hold by=ann reason=migration
}

// withoutTime keeps what is logged the same from day to day.
var withoutTime = &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}}

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

const settings = `
version: "1.0"
circuit_breaker:
  default:
    timeout_seconds: 30
    failure_rate_threshold: 0.5
    window_seconds: 60
    slow_call_duration_threshold: 2s
  services:
    llm:
      slow_call_duration_threshold: 20s
      ramp_up_seconds: 30
`

func ExampleLoadFile() {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("breakers-%d.yaml", os.Getpid()))
	defer os.Remove(path)
	_ = os.WriteFile(path, []byte(settings), 0o600)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	serve := func(r *breaker.Registry) {
		fmt.Println(r.Breaker("llm").Config().SlowCallDuration, r.Breaker("vectordb").Config().SlowCallDuration)
	}
	run := func() error {
		file, err := breaker.LoadFile(path)
		if err != nil {
			return err // lists everything that is wrong with it
		}
		registry, err := breaker.NewRegistry(file.Breakers)
		if err != nil {
			return err
		}
		go registry.Watch(ctx, path) // takes over changes until ctx is done
		serve(registry)
		return nil
	}
	fmt.Println(run())
	// Output:
	// 20s 2s
	// <nil>
}

func ExampleParseFile() {
	_, err := breaker.ParseFile([]byte(`
circuit_breaker:
  default:
    failure_treshold: 5
    timeout_seconds: 0
  services:
    payments:
      failure_rate_threshold: 50
`))
	fmt.Println(err)
	// Output:
	// breaker: invalid configuration: 3 problems:
	// 	line 4: circuit_breaker.default.failure_treshold: 5 is not allowed: want no unknown key; did you mean failure_threshold?
	// 	line 5: circuit_breaker.default.timeout_seconds: 0 is not allowed: want seconds > 0, or a duration such as "30s"; leave it out for the default
	// 	line 8: circuit_breaker.services.payments.failure_rate_threshold: 50 is not allowed: want a fraction > 0 and <= 1, or off
}

func ExampleProtected_OrCall() {
	ctx := context.Background()
	llm := breaker.Must(breaker.New("llm", breaker.Config{}))
	local := breaker.Must(breaker.New("local-model", breaker.Config{}))
	askLLM := ask
	askLocal := func(context.Context, string) (string, error) { return "scattering, I think", nil }
	keyOf := func(prompt string) string { return strings.ToLower(prompt) }
	greeting := func(prompt string) (string, bool) { return "hello", prompt == "hello" }

	chat := breaker.Protect(llm, askLLM, breaker.Within(20*time.Second), breaker.Retry(1, 200*time.Millisecond)).
		OrCache(nil, keyOf, 5*time.Minute).
		OrCall("local-model", askLocal, breaker.Through(local), breaker.Within(2*time.Second)).
		OrRules(greeting).
		OrValue("sorry, try again later")

	answer, err := chat.Call(ctx, "why is the sky blue?")
	fmt.Println(answer.Value, err)
	fmt.Println(answer.Source, answer.Degraded, answer.Cause)
	// Output:
	// scattering, I think <nil>
	// local-model true connection refused
}

func ExampleNewTransport() {
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "20")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer down.Close()
	get := func(c *http.Client) (*http.Response, error) { return c.Get(down.URL) }
	registry, err := breaker.NewRegistry(breaker.RegistryConfig{})
	if err != nil {
		return
	}

	client := &http.Client{Transport: breaker.NewTransport(registry, nil,
		breaker.FirstContentLimit(time.Minute), // the longest wait for the first token
		breaker.StallLimit(30*time.Second),     // and between two
	)}

	for range 2 {
		resp, err := get(client)
		if breaker.IsOpen(err) {
			fmt.Println("refused: the upstream wants to be left alone")
			continue
		}
		fmt.Println(resp.Status)
		_ = resp.Body.Close()
	}
	// Output:
	// 429 Too Many Requests
	// refused: the upstream wants to be left alone
}

func ExampleAssess() {
	payments := breaker.Must(breaker.New("payments", breaker.Config{FailureThreshold: 3}))
	for range 3 {
		_ = payments.Do(context.Background(), func(context.Context) error { return errors.New("connection refused") })
	}

	risk := breaker.Assess(payments.Status(), breaker.RiskThresholds{})
	fmt.Println(risk.Level, risk.Score)
	for _, reason := range risk.Reasons {
		fmt.Println(reason)
	}
	// Output:
	// high 75
	// open: every call is refused (+50)
	// 3 failures in a row against a threshold of 3 (+25)
}

func ExampleRegistry_Handler() {
	registry, err := breaker.NewRegistry(breaker.RegistryConfig{})
	if err != nil {
		panic(err)
	}
	llm := registry.Breaker("llm")
	onCall := func(r *http.Request) (who string, ok bool) {
		who, password, _ := r.BasicAuth()
		return who, who != "" && password == "the real check goes here"
	}

	http.Handle("/breakers/", http.StripPrefix("/breakers", registry.Handler(breaker.Authorize(onCall))))

	order := httptest.NewRequest("POST", "/breakers/admin/circuit-breakers/llm/force-open", strings.NewReader(`{"reason": "migration", "for": "15m"}`))
	order.SetBasicAuth("ann", "the real check goes here")
	http.DefaultServeMux.ServeHTTP(httptest.NewRecorder(), order)
	fmt.Println(llm.State(), "by", llm.Status().Hold.By)
	// Output:
	// forced_open by ann
}

func ExampleRegistry_Collector() {
	registry, err := breaker.NewRegistry(breaker.RegistryConfig{Services: map[string]breaker.Config{"llm": {}}})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()

	metrics := prometheus.NewRegistry()
	metrics.MustRegister(registry.Collector())
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))

	page := httptest.NewRecorder()
	mux.ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(page.Body.String()) {
		if strings.HasPrefix(line, "breaker_state") {
			fmt.Print(line)
		}
	}
	// Output:
	// breaker_state{name="llm",state="closed"} 1
	// breaker_state{name="llm",state="disabled"} 0
	// breaker_state{name="llm",state="forced_open"} 0
	// breaker_state{name="llm",state="half_open"} 0
	// breaker_state{name="llm",state="open"} 0
}
