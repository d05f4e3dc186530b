package server

import (
	"context"
	"net/http"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"
)

// What the official client makes of the gateway's answers, with its own retries on.

func (g *gateway) client() openai.Client {
	return openai.NewClient(option.WithBaseURL(g.server.URL+"/v1/"), option.WithAPIKey(callerKey))
}

var params = openai.ChatCompletionNewParams{Model: "chat", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hi")}}

func TestTheClientReadsAnswers(t *testing.T) {
	a := newProvider(t, says("large-2026", "hello"))
	b := newProvider(t, says("small", "no"))
	g := start(t, two, a, b)
	client := g.client()
	answer, err := client.Chat.Completions.New(t.Context(), params)
	require.NoError(t, err)
	require.Equal(t, "hello", answer.Choices[0].Message.Content)
	require.Equal(t, "large-2026", answer.Model)
	require.EqualValues(t, 7, answer.Usage.TotalTokens)
	models, err := client.Models.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, "chat", models.Data[0].ID)
}

// read returns what a client makes of a stream.
func read(ctx context.Context, client openai.Client) (text string, err error) {
	stream := client.Chat.Completions.NewStreaming(ctx, params)
	defer stream.Close()
	for stream.Next() {
		for _, choice := range stream.Current().Choices {
			text += choice.Delta.Content
		}
	}
	return text, stream.Err()
}

func TestTheClientReadsStreams(t *testing.T) {
	a := newProvider(t, streams(roleEvent, delta("one "), delta("two"), finishEvent, doneEvent))
	b := newProvider(t, streams(delta("fallback"), finishEvent, doneEvent))
	g := start(t, two, a, b)
	text, err := read(t.Context(), g.client())
	require.NoError(t, err)
	require.Equal(t, "one two", text)

	a.set(streams(roleEvent, "cut"))
	text, err = read(t.Context(), g.client())
	require.NoError(t, err)
	require.Equal(t, "fallback", text)
}

func TestTheClientTakesNoBrokenStreamForASuccess(t *testing.T) {
	a := newProvider(t, streams(delta("half an "), "cut"))
	g := start(t, two, a, newProvider(t, says("small", "no")))
	text, err := read(t.Context(), g.client())
	require.Error(t, err)
	require.Equal(t, "half an ", text)
}

func TestTheClientIsToldOnce(t *testing.T) {
	a, b := newProvider(t, says("large", "no")), newProvider(t, says("small", "no"))
	g := start(t, two, a, b)
	asked := 0
	counting := option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
		asked++
		return next(r)
	})
	for name := range g.Registry().All() {
		p, _ := g.Registry().Lookup(name)
		p.Trip("test")
	}
	client := g.client()
	_, err := client.Chat.Completions.New(t.Context(), params, counting)
	var answer *openai.Error
	require.ErrorAs(t, err, &answer)
	require.Equal(t, 503, answer.StatusCode)
	require.Equal(t, "circuit_open", answer.Code)
	require.NotEmpty(t, answer.Response.Header.Get("Retry-After"))
	require.Equal(t, 1, asked, "the client does not repeat what the gateway has tried everywhere")
}
