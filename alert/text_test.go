package alert

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestTextIsCutAtItsLimit(t *testing.T) {
	for _, c := range []struct {
		text  string
		limit int
		want  string
	}{
		{"", 5, ""}, {"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"abcdef", 3, "ab…"}, {"中中中中", 3, "中中…"}, {"😀😀", 4, "😀😀"}, {"😀😀", 3, "😀…"}, {"😀😀😀", 4, "😀…"},
	} {
		require.Equal(t, c.want, cut(c.text, c.limit), "%q to %d", c.text, c.limit)
	}
	require.Equal(t, "a…", slackEscape("a&b", 4))
	require.Equal(t, "a&amp;", slackEscape("a&", 6))
	require.Equal(t, "a…", slackEscape("a&b", 6))
}

func FuzzEscapedTextKeepsItsLimit(f *testing.F) {
	f.Add("a&b<c>😀", 5)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = 1 + abs(limit%5000)
		for _, got := range []string{slackEscape(plain(text), limit), cut(plain(text), limit)} {
			require.True(t, utf8.ValidString(got))
			require.LessOrEqual(t, units(got), limit)
			require.NotContains(t, got, "\n")
		}
		require.NotContains(t, slackEscape(text, limit), "<")
	})
}

func abs(n int) int { return max(n, -n) }

func TestDedupKeysAreStableDistinctAndShort(t *testing.T) {
	require.Equal(t, "breaker/shop/payments", dedupKey("shop", "payments"))
	require.NotEqual(t, dedupKey("a/b", "c"), dedupKey("a", "b/c"))
	long := strings.Repeat("中", 80)
	require.LessOrEqual(t, len(dedupKey("shop", long)), 255)
	require.NotEqual(t, dedupKey("shop", long+"1"), dedupKey("shop", long+"2"))
	require.Equal(t, dedupKey("shop", long), dedupKey("shop", long))
}
