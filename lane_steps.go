//go:build lanesteps

package breaker

// stepping lets a test decide which goroutine makes the next atomic step: see lane_steps_test.go. In every other build it is
// false, and nothing of this is there.
const stepping = true

// onStep is called before each atomic step, and with "" by a goroutine that cannot go on before another has made one.
var onStep = func(point string) {}

// onStripe chooses a stripe.
var onStripe = func() (n int) { return 0 }

func yieldAt(point string) { onStep(point) }
func blocked()             { onStep("") }
