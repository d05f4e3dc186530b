package demo

import (
	_ "embed"
	"strings"
)

//go:embed questions.txt
var questionsText string

// questions is an endless list: the file's, again and again. Questions that come back are what the cache is for.
type questions struct {
	list []string
	at   int
}

func newQuestions() *questions {
	return &questions{list: strings.Split(strings.TrimSpace(questionsText), "\n")}
}

func (q *questions) next() string {
	question := q.list[q.at%len(q.list)]
	q.at++
	return question
}
