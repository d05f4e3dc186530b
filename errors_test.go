package breaker_test

import (
	"errors"
	"fmt"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

// texts returns the failure texts a breaker lists after these errors.
func texts(t *testing.T, errs []error, opts ...breaker.Option) []breaker.ErrorCount {
	t.Helper()
	b := newBreaker(t, breaker.Config{FailureThreshold: breaker.Off, FailureRateThreshold: breaker.Off}, opts...)
	for _, err := range errs {
		_ = end(b, err)
	}
	b.Trip("")
	return b.Status().Trip.Errors
}

func TestAKeyInAURLIsNeverShown(t *testing.T) {
	get := func(u string, err error) error { return &url.Error{Op: "Get", URL: u, Err: err} }
	for name, err := range map[string]error{
		"in the query":                  get("https://api.test/v1?key=SECRET", errDown),
		"in the path":                   get("https://api.test/SECRET/v1", errDown),
		"in the userinfo":               get("https://SECRET:SECRET@api.test/v1", errDown),
		"in the fragment":               get("https://api.test/v1#SECRET", errDown),
		"in a URL that no parser takes": get("https://api.test/%zz?key=SECRET", errDown),
		"with quotes in it":             get("https://api.test/\"SECRET\"\n", errDown),
		"wrapped":                       fmt.Errorf("asking: %w", get("https://api.test/v1?key=SECRET", errDown)),
		"joined":                        errors.Join(errDown, get("https://api.test/v1?key=SECRET", errDown)),
		"of a redirect":                 get("https://api.test/a", get("https://login.test/?token=SECRET", errDown)),
		"of a redirect from the root":   get("https://api.test/", get("https://api.test/login?token=SECRET", errDown)),
		"of two attempts, one URL a prefix of the other": errors.Join(get("https://api.test/v1", errDown), get("https://api.test/v1?key=SECRET", errDown)),
		"with %w twice": fmt.Errorf("%w then %w", get("https://api.test/v1", errDown), get("https://api.test/v1/SECRET", errDown)),
	} {
		t.Run(name, func(t *testing.T) {
			shown := texts(t, []error{err})
			require.Len(t, shown, 1)
			require.NotContains(t, shown[0].Text, "SECRET")
			require.Contains(t, shown[0].Text, "upstream is down")
		})
	}
	require.Equal(t, `Get "https://api.test": upstream is down`, texts(t, []error{get("https://u:p@api.test/v1?key=k", errDown)})[0].Text)
}

func TestTheCommonestErrorIsListedHoweverManyOthersCameFirst(t *testing.T) {
	var errs []error
	for i := range 16 {
		errs = append(errs, fmt.Errorf("request %d failed", i))
	}
	for range 50 {
		errs = append(errs, errDown)
	}
	require.Contains(t, texts(t, errs), breaker.ErrorCount{Text: "upstream is down", Count: 50})
}
