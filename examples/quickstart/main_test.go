package main

import (
	"testing"
	"time"
)

func Example() {
	main()
	// Output:
	// failed: the weather service answers 503
	// failed: the weather service answers 503
	// failed: the weather service answers 503
	// refused, nothing was called: 3 consecutive failures >= 3
	// no forecast today (from default)
	// sunny in Oslo (from primary), and the breaker is closed
}

func TestItTakesLessThanTwoSeconds(t *testing.T) {
	begun := time.Now()
	main()
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}
