package alert

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf16"
)

// plain replaces what a name or an error's text must not do to a message: line breaks and other control characters, which could
// fake a line, and marks that turn the direction of reading. What is not UTF-8 becomes U+FFFD.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r) || r == '\u2028' || r == '\u2029':
			return ' '
		case unicode.Is(unicode.Bidi_Control, r):
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

// cut shortens text to at most limit UTF-16 units, which is how the strictest of the receivers counts.
func cut(text string, limit int) string {
	return cutTo(text, limit, func(r rune) string { return string(r) })
}

// cutTo writes each rune as shape does and ends before limit UTF-16 units are exceeded, never within a rune's shape.
func cutTo(text string, limit int, shape func(rune) string) string {
	var out strings.Builder
	used, fits := 0, 0 // fits: how much of out still leaves room for the ellipsis
	for _, r := range text {
		s := shape(r)
		if used += units(s); used > limit {
			return out.String()[:fits] + "…"
		}
		out.WriteString(s)
		if used < limit {
			fits = out.Len()
		}
	}
	return out.String()
}

func units(s string) (n int) {
	for _, r := range s {
		n += utf16.RuneLen(r)
	}
	return n
}

// dedupKey is the same for every instance of a service. PagerDuty takes 255 characters.
func dedupKey(service, name string) string {
	key := "breaker/" + url.PathEscape(service) + "/" + url.PathEscape(name)
	if len(key) <= 255 {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return fmt.Sprintf("%.180s#%x", key, sum[:16])
}

func isWebURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}
