package alert_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/alert"
)

const breakersYAML = `
circuit_breaker:
  services:
    llm: {failure_threshold: 3}
alerts:
  channels:
    - type: webhook
      url: "${ALERT_WEBHOOK_URL}"
      severity_filter: [high, critical]
`

func Example() {
	told := make(chan bool, 2)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var a alert.Alert
		err := json.NewDecoder(r.Body).Decode(&a)
		fmt.Println(a.Event, a.Breaker, a.Severity, a.Why, err)
		told <- true
	}))
	defer receiver.Close()
	_ = os.Setenv("ALERT_WEBHOOK_URL", receiver.URL)
	log := zap.NewNop()

	watch := func(ctx context.Context) error {
		file, err := breaker.ParseFile([]byte(breakersYAML))
		if err != nil {
			return err
		}
		registry, err := breaker.NewRegistry(file.Breakers)
		if err != nil {
			return err
		}
		alerts, err := alert.New(file.Alerts, alert.WithService("shop"), alert.WithPage("https://ops.example.com/"), alert.WithLogger(log))
		if err != nil {
			return err // lists everything that is wrong, such as a variable that is not set
		}
		alerts.Watch(registry)

		llm := registry.Breaker("llm")
		for range 3 {
			_ = llm.Do(ctx, func(context.Context) error { return errors.New("connection refused") })
		}
		<-told
		llm.Reset("the model is back")
		return alerts.Close(ctx) // sends what waits, or says what it could not send
	}
	fmt.Println(watch(context.Background()))
	// Output:
	// opened llm high 3 consecutive failures >= 3 <nil>
	// recovered llm high 3 consecutive failures >= 3 <nil>
	// <nil>
}

func ExampleVerify() {
	secret := breaker.Secret("shared with the sender")
	receive := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			return
		}
		if err := alert.Verify(secret, r.Header, body, time.Now()); err != nil {
			fmt.Println(err)
			http.Error(w, "not from us", http.StatusForbidden)
			return
		}
		// json.Unmarshal(body, &a) into an alert.Alert
	}
	forged := httptest.NewRequest(http.MethodPost, "/alerts", bytes.NewBufferString(`{"event": "recovered"}`))
	receive(httptest.NewRecorder(), forged)
	// Output: alert: the request has no signature: want the header Breaker-Signature: t=SECONDS,v1=HEX
}
