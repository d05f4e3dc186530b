//go:build !lanesteps

package breaker

const stepping = false

func yieldAt(string) {}
func blocked()       {}
func onStripe() int  { return 0 }
