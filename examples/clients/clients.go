// Package clients puts a breaker into the SDKs of language models: each takes an http.Client, so each takes a
// [breaker.Transport]. Give all of them the same one: it has a breaker for every upstream.
package clients

import (
	"net/http"
	"net/url"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/failfast-go/breaker"
	"github.com/ollama/ollama/api"
	"github.com/openai/openai-go/v3"
	openaioption "github.com/openai/openai-go/v3/option"
)

// Client returns an http.Client for the SDKs. It answers refusals instead of failing them, since the SDKs of OpenAI and
// Anthropic repeat what fails, and gives up on an upstream that is silent for longer than a person would wait. next is
// http.DefaultTransport if nil.
func Client(reg *breaker.Registry, next http.RoundTripper) *http.Client {
	return &http.Client{Transport: breaker.NewTransport(reg, next,
		breaker.RefuseWithResponse(),
		breaker.FirstContentLimit(time.Minute),
		breaker.StallLimit(30*time.Second),
	)}
}

// OpenAI returns OpenAI's client, or that of anybody who speaks its language.
func OpenAI(c *http.Client, baseURL, key string) openai.Client {
	return openai.NewClient(openaioption.WithHTTPClient(c), openaioption.WithBaseURL(baseURL), openaioption.WithAPIKey(key))
}

// Anthropic returns Anthropic's client.
func Anthropic(c *http.Client, baseURL, key string) anthropic.Client {
	return anthropic.NewClient(anthropicoption.WithHTTPClient(c), anthropicoption.WithBaseURL(baseURL), anthropicoption.WithAPIKey(key))
}

// Ollama returns Ollama's client.
func Ollama(c *http.Client, baseURL *url.URL) *api.Client { return api.NewClient(baseURL, c) }
