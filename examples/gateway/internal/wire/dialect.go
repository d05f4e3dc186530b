package wire

import "encoding/json"

// Dialect is how one kind of provider is spoken to. What a caller reads is always OpenAI's format.
type Dialect interface {
	// Chat returns what to send for a request, and where. The error is an *InvalidError that names what the format cannot express.
	Chat(r *Request, model string) (path string, body []byte, err error)
	// Embeddings is Chat for a request for embeddings.
	Embeddings(r *Request, model string) (path string, body []byte, err error)
	// Answer reads a whole answer to Chat. The result may be body itself.
	Answer(body []byte) ([]byte, *Failure)
	// EmbeddingsAnswer is Answer for embeddings.
	EmbeddingsAnswer(body []byte) ([]byte, *Failure)
	// Stream reads the events of one streamed answer.
	Stream(r *Request) Stream
	// Lines reports whether a stream is one JSON value a line, and not server-sent events.
	Lines() bool
}

// Stream turns the events of a streamed answer into the caller's.
type Stream interface {
	// Event appends to out what the caller shall read of an event, and says what the event was.
	Event(out, data []byte) ([]byte, Step, *Failure)
	// End appends the last events of an answer that is complete.
	End(out []byte) []byte
}

// Step is what an event means for the answer.
type Step uint8

// The steps of an answer.
const (
	Quiet     Step = iota // a sign of life, and nothing for the reader
	Content               // something that was said
	Finish                // nothing more will be said; usage may follow
	Done                  // nothing follows
	Malformed             // not to be understood, and left out
)

// For returns the dialect of a provider's format: openai, anthropic or ollama.
func For(format string) Dialect {
	switch format {
	case "anthropic":
		return anthropic{}
	case "ollama":
		return ollama{}
	}
	return openAI{}
}

// garbled is an answer that is no answer.
func garbled(what string) *Failure {
	return &Failure{Kind: Garbled, Message: what, Code: "invalid_answer"}
}

const doneEvent = "data: [DONE]\n\n"

func appendEvent(out, data []byte) []byte {
	out = append(out, "data: "...)
	out = append(out, data...)
	return append(out, "\n\n"...)
}

// AppendEvent appends an event with v as JSON.
func AppendEvent(out []byte, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil { // of strings and numbers: cannot be
		return out
	}
	return appendEvent(out, data)
}
