package model

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// Client asks an OpenAI-compatible server.
type Client struct {
	api   openai.Client
	model string
}

// NewClient returns a client of the server at baseURL. It asks once per Answer: the SDK's own two retries would happen inside
// the breaker, where it sees three failures as one and a refused call as a reason to try again. Retrying is the
// business of breaker.Retry, which asks the breaker before each attempt.
func NewClient(baseURL, apiKey, model string) *Client {
	return &Client{
		api:   openai.NewClient(option.WithBaseURL(baseURL), option.WithAPIKey(apiKey), option.WithMaxRetries(0)),
		model: model,
	}
}

var (
	errCut   = errors.New("model: the answer ended without a finish reason")
	errEmpty = errors.New("model: the answer is empty")
)

// Answer asks for a streamed answer and returns the whole of it. Streamed, because a connection that breaks in the middle then
// shows: an answer without a finish reason was cut, whatever the transport says.
func (c *Client) Answer(ctx context.Context, r Request) (string, error) {
	stream := c.api.Chat.Completions.NewStreaming(ctx, openai.ChatCompletionNewParams{
		Model:    c.model,
		Messages: []openai.ChatCompletionMessageParamUnion{openai.SystemMessage(instructions), openai.UserMessage(r.prompt())},
	})
	defer stream.Close()
	var answer strings.Builder
	finished := false
	for stream.Next() {
		for _, choice := range stream.Current().Choices {
			answer.WriteString(choice.Delta.Content)
			finished = finished || choice.FinishReason != ""
		}
	}
	switch err := stream.Err(); {
	case err != nil:
		return "", fmt.Errorf("model: %w", err)
	case !finished:
		return "", errCut
	case strings.TrimSpace(answer.String()) == "":
		return "", errEmpty
	}
	return answer.String(), nil
}
