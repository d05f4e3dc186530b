package breaker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// seenTexts is the slow, obvious tally of errors: the texts of the last 128 failures, oldest first; forgotten ones are empty.
type seenTexts []string

func (s seenTexts) counts() map[string]int {
	counts := map[string]int{}
	for _, text := range s {
		counts[text]++
	}
	delete(counts, "")
	return counts
}

func (s seenTexts) add(text string) seenTexts {
	s = slices.Clone(s[max(0, len(s)-127):])
	if counts := s.counts(); counts[text] == 0 && len(counts) == 16 {
		rarest := ""
		for _, seen := range slices.Backward(s) { // of several the one not seen for longest
			if seen != "" && (rarest == "" || counts[seen] < counts[rarest] || counts[seen] == counts[rarest] && lastIndex(s, seen) < lastIndex(s, rarest)) {
				rarest = seen
			}
		}
		for i := range s {
			if s[i] == rarest {
				s[i] = ""
			}
		}
	}
	return append(s, text)
}

func lastIndex(s []string, text string) int {
	for i, other := range slices.Backward(s) {
		if other == text {
			return i
		}
	}
	return -1
}

func TestTheTallyOfErrorsAgreesWithAList(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var tally errorTally
		var list seenTexts
		texts := 10 + rng.IntN(40)
		for range 600 {
			text := fmt.Sprint("error ", min(rng.IntN(texts), rng.IntN(texts))) // some are commoner
			tally.add(text)
			list = list.add(text)
			counts := map[string]int{}
			for _, e := range tally.texts {
				counts[e.Text] += e.Count
			}
			maps.DeleteFunc(counts, func(_ string, n int) bool { return n == 0 })
			require.Equal(t, list.counts(), counts)
		}
	}
}
