package text

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWordsAreStemmedAndWithoutFillers(t *testing.T) {
	assert.Equal(t, []string{"breaker", "open", "net/http", "net", "http"}, Words("Why are the breakers opening in net/http?"))
	assert.Empty(t, Words("What is it?"))
	assert.Equal(t, []string{"class", "pass"}, Words("class pass"), "a double s is no plural")
}

func TestSentencesEndWhereAReaderWouldEndThem(t *testing.T) {
	got := Sentences("Package os has\nfiles. See e.g. os.Open. Done?\n\nnew paragraph")
	assert.Equal(t, []string{"Package os has files.", "See e.g. os.Open.", "Done?", "new paragraph"}, got)
}

func TestExtractPicksTheSentencesThatShareWordsWithTheQuestion(t *testing.T) {
	passages := []string{
		"Bananas are yellow. A mutex is a mutual exclusion lock.",
		"The zero value for a mutex is an unlocked mutex. Cats sleep.",
	}
	assert.Equal(t, "A mutex is a mutual exclusion lock.", Extract("What is a mutex lock?", passages, 1))
	assert.Equal(t, "A mutex is a mutual exclusion lock. The zero value for a mutex is an unlocked mutex.",
		Extract("What is a mutex lock?", passages, 2))
	assert.Equal(t, "Bananas are yellow.", Extract("quantum chromodynamics", passages, 3), "the nearest there is")
	assert.Empty(t, Extract("What is a mutex?", nil, 3))
}
