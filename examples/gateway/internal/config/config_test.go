package config

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/failfast-go/breaker"
)

func env(name string) (string, bool) {
	v, ok := map[string]string{"KEY_A": "aaaa", "KEY_B": "bbbb", "SPACED": "a key\n", "EMPTY": ""}[name]
	return v, ok
}

const whole = `
listen: 0.0.0.0:80
max_request_bytes: 4096
callers:
  - {name: team-a, key_env: KEY_A, rate: 0.5}
  - {name: team-b, key_sha256: 81cc5b17018674b401b42f35ba07bb79e211239c23bffe658da1577e3e646877, rate: 10, burst: 20}
admins:
  - {name: ann, key_env: KEY_B}
providers:
  openai: {base_url: "https://api.openai.com/v1/", key_env: KEY_A}
  claude: {base_url: "https://api.anthropic.com", key_env: KEY_B, format: anthropic}
  local: {base_url: "http://127.0.0.1:11434", format: ollama}
models:
  chat:
    primary: {provider: openai, model: gpt-x, context: 128000, capabilities: [tools, images, json]}
    fallbacks:
      - {provider: claude, model: claude-x}
      - {provider: local, model: "llama:8b", capabilities: []}
    last_resort:
      rules: [{contains: [Hello], text: Hi}]
      text: Later.
limits: {connect: 1, headers: 1.5, first_content: 3s, between_contents: 4s, answer: 5s, request: 1m, caller: 6s}
retry: {max: 2, backoff: 0, max_wait: 1s, attempts: 6}
circuit_breaker:
  default: {failure_threshold: 4, timeout_seconds: 120}
  services:
    claude/claude-x: {half_open_max_calls: 2}
`

func TestAWholeFile(t *testing.T) {
	c, err := Parse([]byte(whole), env)
	require.NoError(t, err)
	require.Equal(t, "0.0.0.0:80", c.Listen)
	require.EqualValues(t, 4096, c.MaxRequestBytes)
	require.Equal(t, []Key{
		{Name: "team-a", Hash: sha256.Sum256([]byte("aaaa")), Rate: 0.5, Burst: 1},
		{Name: "team-b", Hash: sha256.Sum256([]byte("bbbb")), Rate: 10, Burst: 20},
	}, c.Callers)
	require.Equal(t, Provider{Name: "openai", BaseURL: "https://api.openai.com/v1", Key: "aaaa", Format: OpenAI}, c.Providers["openai"])
	require.Equal(t, Provider{Name: "local", BaseURL: "http://127.0.0.1:11434", Format: Ollama}, c.Providers["local"])
	chat := c.Models["chat"]
	require.Equal(t, Target{"openai/gpt-x", "openai", "gpt-x", 128000, []string{Tools, Images, JSON}}, chat.Targets[0])
	require.Nil(t, chat.Targets[1].Capabilities)
	require.Equal(t, "local/llama:8b", chat.Targets[2].Name)
	require.NotNil(t, chat.Targets[2].Capabilities, "none is a declaration")
	require.Equal(t, LastResort{[]Rule{{[]string{"hello"}, "Hi"}}, "Later."}, chat.Last)
	require.Equal(t, Limits{time.Second, 1500 * time.Millisecond, 3 * time.Second, 4 * time.Second, 5 * time.Second, time.Minute, 6 * time.Second}, c.Limits)
	require.Equal(t, Retry{2, 0, time.Second, 6}, c.Retry)

	require.Len(t, c.Breakers.Services, 3)
	claude := c.Breakers.Services["claude/claude-x"]
	require.Equal(t, breaker.Config{FailureThreshold: 4, HalfOpenMaxCalls: 2, SuccessThreshold: 1, OpenTimeout: 2 * time.Minute, MaxOpenTimeout: 2 * time.Minute}, claude)
	require.Equal(t, 1, c.Breakers.Services["openai/gpt-x"].HalfOpenMaxCalls)
	_, err = breaker.NewRegistry(c.Breakers)
	require.NoError(t, err)
}

const least = `
callers: [{name: a, key_env: KEY_A}]
providers: {p: {base_url: "http://x"}}
models: {m: {primary: {provider: p, model: x}}}
`

func TestDefaults(t *testing.T) {
	c, err := Parse([]byte(least), env)
	require.NoError(t, err)
	d := Defaults()
	require.Equal(t, []any{d.Listen, d.MaxRequestBytes, d.Limits, d.Retry}, []any{c.Listen, c.MaxRequestBytes, c.Limits, c.Retry})
	require.Equal(t, breaker.Config{FailureThreshold: 3, HalfOpenMaxCalls: 1, SuccessThreshold: 1, OpenTimeout: 30 * time.Second, MaxOpenTimeout: 30 * time.Second}, c.Breakers.Services["p/x"])
}

// Each row: a line of a good file, what stands there instead, and the line and words of what is said of it.
func TestWhatIsWrongIsSaidWithItsLine(t *testing.T) {
	tests := []struct{ name, line, instead, want string }{
		{"an unknown key", "listen: 0.0.0.0:80", "lisen: x", "line 2: lisen: want no unknown key; known are "},
		{"a number for a text", "listen: 0.0.0.0:80", "listen: 80", "line 2: listen: 80 is not allowed"},
		{"out of range", "max_request_bytes: 4096", "max_request_bytes: 10", "line 3: max_request_bytes: 10 is not allowed: want a whole number from 1024"},
		{"octal", "max_request_bytes: 4096", "max_request_bytes: 010000", "line 3: max_request_bytes: 010000 is not allowed"},
		{"twice", "max_request_bytes: 4096", "listen: 0.0.0.0:81", "line 3: listen: want each key only once, this one is already in line 2"},
		{"null", "max_request_bytes: 4096", "max_request_bytes:", "line 3: max_request_bytes: null is not allowed"},
		{"an unset variable", "  - {name: ann, key_env: KEY_B}", "  - {name: ann, key_env: NOBODY}", "line 8: admins[0].key_env: NOBODY is not allowed: want an environment variable that is set"},
		{"an empty variable", "  - {name: ann, key_env: KEY_B}", "  - {name: ann, key_env: EMPTY}", "line 8: admins[0].key_env: EMPTY is not allowed"},
		{"a variable with a newline", "  - {name: ann, key_env: KEY_B}", "  - {name: ann, key_env: SPACED}", "has no space in it"},
		{"the key itself", "  - {name: ann, key_env: KEY_B}", "  - {name: ann, key_env: sk-very-secret}", "line 8: admins[0].key_env: [redacted] is not allowed"},
		{"no key", "  - {name: ann, key_env: KEY_B}", "  - {name: ann}", "line 8: admins[0]: want one of key_env"},
		{"a bad hash", "  - {name: ann, key_env: KEY_B}", "  - {name: ann, key_sha256: 81cc}", "line 8: admins[0].key_sha256: [redacted] is not allowed"},
		{"a rate for an operator", "  - {name: ann, key_env: KEY_B}", "  - {name: ann, key_env: KEY_B, rate: 1}", "line 8: admins[0].rate: want no unknown key"},
		{"a key twice", "  - {name: team-a, key_env: KEY_A, rate: 0.5}", "  - {name: team-a, key_env: KEY_B}", "line 6: callers[1]: want each name and each key only once"},
		{"a URL with a user", `  local: {base_url: "http://127.0.0.1:11434", format: ollama}`, `  local: {base_url: "http://me:secret@x", format: ollama}`, "line 12: providers.local.base_url: [redacted]"},
		{"no URL", `  local: {base_url: "http://127.0.0.1:11434", format: ollama}`, `  local: {base_url: "api.x.com", format: ollama}`, "line 12: providers.local.base_url"},
		{"a format", `  local: {base_url: "http://127.0.0.1:11434", format: ollama}`, `  local: {base_url: "http://x", format: grpc}`, "line 12: providers.local.format: grpc is not allowed: want openai, anthropic or ollama"},
		{"an unknown provider", "      - {provider: claude, model: claude-x}", "      - {provider: nobody, model: claude-x}", "line 17: models.chat.fallbacks[0].provider: nobody is not allowed: want the name of a provider"},
		{"a capability", `      - {provider: local, model: "llama:8b", capabilities: []}`, `      - {provider: local, model: "llama:8b", capabilities: [magic]}`, "line 18: models.chat.fallbacks[1].capabilities[0]: magic is not allowed"},
		{"no model", "      - {provider: claude, model: claude-x}", "      - {provider: claude}", "line 17: models.chat.fallbacks[0].model: nothing is not allowed"},
		{"a negative limit", "retry: {max: 2, backoff: 0, max_wait: 1s, attempts: 6}", "retry: {backoff: -1s}", "line 23: retry.backoff: -1s is not allowed"},
		{"a zero limit", "limits: {connect: 1, headers: 1.5, first_content: 3s, between_contents: 4s, answer: 5s, request: 1m, caller: 6s}", "limits: {connect: 0}", "line 22: limits.connect: 0 is not allowed"},
		{"the library's section", "  default: {failure_threshold: 4, timeout_seconds: 120}", "  default: {failure_threshold: 0}", "line 25: circuit_breaker.default.failure_threshold: 0 is not allowed"},
		{"a misspelt key of it", "  default: {failure_threshold: 4, timeout_seconds: 120}", "  default: {failure_treshold: 4}", "line 25: circuit_breaker.default.failure_treshold"},
		{"a breaker of nobody", "    claude/claude-x: {half_open_max_calls: 2}", "    claude/claude-y: {}", "line 27: circuit_breaker.services.claude/claude-y: want the name of a target"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.Contains(t, whole, tt.line+"\n")
			_, err := Parse([]byte(strings.Replace(whole, tt.line+"\n", tt.instead+"\n", 1)), env)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

func TestEverythingWrongIsSaidAtOnce(t *testing.T) {
	_, err := Parse([]byte("listen: 1\nprovider: x\nmodels: {m: {primary: {provider: q, model: x}}}\nlimits: []\ncircuit_breaker: {default: {x: 1}}\n"), env)
	require.ErrorContains(t, err, "problems:")
	var invalid *Error
	require.ErrorAs(t, err, &invalid)
	var lines []int
	for _, p := range invalid.Problems {
		lines = append(lines, p.Line)
	}
	require.Equal(t, []int{1, 1, 1, 2, 3, 4, 5}, lines, err)
}

func TestFilesThatAreNone(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "a: [", "- a\n", "a: 1\n---\nb: 2\n", "\tx: 1", "a: &x {<<: *x}"} {
		_, err := Parse([]byte(text), env)
		require.ErrorContains(t, err, "gateway: invalid configuration", "%q", text)
	}
	_, _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), env)
	require.ErrorIs(t, err, os.ErrNotExist)
	path := filepath.Join(t.TempDir(), "bad.yaml")
	require.NoError(t, os.WriteFile(path, []byte("listen: 1\n"), 0o600))
	_, _, err = Load(path, env)
	require.ErrorContains(t, err, "gateway: invalid configuration in "+path)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(least))
	f.Add([]byte("circuit_breaker: {}\ncallers: 1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data, env)
		if err != nil {
			return
		}
		if _, err := breaker.NewRegistry(c.Breakers); err != nil {
			t.Errorf("accepted, and then refused: %v\n%s", err, data)
		}
	})
}

// The example shows the defaults, so it must say what they are.
func TestTheExampleIsWholeAndShowsTheDefaults(t *testing.T) {
	shown, _, err := Load("../../gateway.yaml", func(name string) (string, bool) { return name, true })
	require.NoError(t, err)
	d := Defaults()
	require.Equal(t, []any{d.Listen, d.MaxRequestBytes, d.Limits, d.Retry}, []any{shown.Listen, shown.MaxRequestBytes, shown.Limits, shown.Retry})
	require.Equal(t, d.Breakers.Default, shown.Breakers.Services["openai/gpt-5"])
}
