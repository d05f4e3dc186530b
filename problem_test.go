package breaker

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheDistanceIsTheFewestChanges(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "a", 0}, {"", "abc", 3}, {"abc", "", 3}, {"a", "b", 1}, {"ab", "ba", 2}, {"abc", "abcd", 1}, {"abcd", "bcd", 1},
		{"kitten", "sitting", 3}, {"saturday", "sunday", 3}, {"aaaa", "bbbb", 4}, {"flaw", "lawn", 2}, {"xab", "ab", 1}, {"abx", "ab", 1},
		{"aab", "ab", 1}, {"abcdefgh", "ab", 6}, {"abcdefghi", "ab", 9}, // too long to be looked at
	} {
		require.Equal(t, c.want, distance(c.a, c.b), "%q %q", c.a, c.b)
		if len(c.a) <= 2*len(c.b)+4 && len(c.b) <= 2*len(c.a)+4 {
			require.Equal(t, c.want, distance(c.b, c.a), "%q %q", c.b, c.a)
		}
	}
}

func TestAMisspellingIsOfTheNearestWordWithinAThirdOfItsLetters(t *testing.T) {
	words := []string{"timeout_seconds", "services", "service", "url"}
	for name, want := range map[string]string{
		"servics": "services", "servicez": "services", "servic": "service", "sercive": "service", "timeout": "", "timeoutseconds": "timeout_seconds",
		"tmeot_seconds": "timeout_seconds", "tmeot_secon": "", "timeout_s3c0nd5": "timeout_seconds", "t1meout_s3c0nd5": "",
		"ur": "", "ulr": "", "uri": "url", "lur": "", "uurrll": "", "": "",
	} {
		require.Equal(t, want, nearest(name, words), name)
	}
}

func TestLongValuesAreCut(t *testing.T) {
	long := strings.Repeat("x", 64)
	require.Equal(t, `"`+long+`"`, cutQuote(long))
	require.Equal(t, `"`+long+`"...`, cutQuote(long+"y"))
	for value, want := range map[string]string{long: long, long + "y": long + "..."} {
		_, err := ParseFile([]byte("circuit_breaker: {default: {failure_threshold: " + value + "}}"))
		require.ErrorContains(t, err, "failure_threshold: "+want+" is not allowed")
	}
}
