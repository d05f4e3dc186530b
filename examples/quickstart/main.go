// Quickstart shows a breaker's whole life in a second: it opens on a failing upstream, refuses calls and says why, lets a
// fallback answer, and closes once the upstream is well again.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/failfast-go/breaker"
)

func main() {
	ctx := context.Background()
	weather := breaker.Must(breaker.New("weather", breaker.Config{
		FailureThreshold:  3,
		SuccessThreshold:  1,
		OpenTimeout:       300 * time.Millisecond,
		OpenTimeoutJitter: breaker.Off, // one process has nobody to keep out of step with
	}))

	healthy := false
	forecast := func(_ context.Context, city string) (string, error) {
		if !healthy {
			return "", errors.New("the weather service answers 503")
		}
		return "sunny in " + city, nil
	}

	for range 4 {
		_, err := breaker.Execute(ctx, weather, func(ctx context.Context) (string, error) { return forecast(ctx, "Oslo") })
		if open, refused := errors.AsType[*breaker.OpenError](err); refused {
			fmt.Println("refused, nothing was called:", open.Trip)
			continue
		}
		fmt.Println("failed:", err)
	}

	answer := breaker.Protect(weather, forecast).OrValue("no forecast today")
	result, _ := answer.Call(ctx, "Oslo") // a chain that ends in OrValue fails only for a caller who has left
	fmt.Printf("%s (from %s)\n", result.Value, result.Source)

	healthy = true
	time.Sleep(350 * time.Millisecond) // until the breaker admits a probe
	result, _ = answer.Call(ctx, "Oslo")
	fmt.Printf("%s (from %s), and the breaker is %v\n", result.Value, result.Source, weather.State())
}
