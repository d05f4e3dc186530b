// Package clients shows a breaker inside the SDKs of language models.
package clients

import (
	_ "github.com/anthropics/anthropic-sdk-go"
	_ "github.com/failfast-go/breaker"
	_ "github.com/ollama/ollama/api"
	_ "github.com/openai/openai-go/v3"
)
