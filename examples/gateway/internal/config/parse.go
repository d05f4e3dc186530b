package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/failfast-go/breaker"
)

// Parse reads a configuration. Keys come from the environment, which is asked through env. What is wrong is one *Error.
func Parse(data []byte, env func(string) (string, bool)) (*Config, error) {
	p := &parser{cfg: Defaults(), env: env, data: data, targets: map[string]int{}}
	if root := p.document(); root != nil {
		p.file(root)
	}
	if len(p.problems) > 0 {
		slices.SortStableFunc(p.problems, func(a, b breaker.Problem) int { return a.Line - b.Line })
		return nil, &Error{Problems: p.problems}
	}
	return &p.cfg, nil
}

type parser struct {
	reader
	cfg     Config
	env     func(string) (string, bool)
	data    []byte
	targets map[string]int // the line where each is first named
	refs    []reference
}

// reference is a target's mention of a provider, checked when all providers are known.
type reference struct {
	node     *yaml.Node
	at, name string
}

func (p *parser) document() *yaml.Node {
	var doc, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(p.data))
	switch err := decoder.Decode(&doc); {
	case len(p.data) > maxFile:
		p.report(1, "", "a larger file", fmt.Sprintf("at most %d bytes", maxFile))
	case errors.Is(err, io.EOF):
		p.report(1, "", "an empty file", "a mapping with callers, providers and models")
	case err != nil:
		p.report(lineOf(err), "", "", "YAML: "+strings.TrimPrefix(err.Error(), "yaml: "))
	case !errors.Is(decoder.Decode(&second), io.EOF):
		p.report(second.Line, "", "", "one YAML document only")
	default:
		return followed(doc.Content[0])
	}
	return nil
}

var errorLine = regexp.MustCompile(`line ([0-9]+)`)

func lineOf(err error) int {
	if m := errorLine.FindStringSubmatch(err.Error()); m != nil {
		if line, err := strconv.Atoi(m[1]); err == nil {
			return line
		}
	}
	return 1
}

func (p *parser) file(root *yaml.Node) {
	var breakers *yaml.Node
	p.fields(root, "", map[string]field{
		"listen":            func(n *yaml.Node, at string) { p.cfg.Listen = p.address(n, at) },
		"max_request_bytes": func(n *yaml.Node, at string) { p.cfg.MaxRequestBytes = int64(p.whole(n, at, 1024, 1<<30)) },
		"callers":           func(n *yaml.Node, at string) { p.cfg.Callers = p.keys(n, at, true) },
		"admins":            func(n *yaml.Node, at string) { p.cfg.Admins = p.keys(n, at, false) },
		"providers":         p.providers,
		"models":            p.models,
		"limits":            p.limits,
		"retry":             p.retry,
		"circuit_breaker":   func(n *yaml.Node, _ string) { breakers = n },
	}, "callers", "providers", "models")
	for _, ref := range p.refs {
		if _, ok := p.cfg.Providers[ref.name]; !ok && ref.name != "" {
			p.refuse(ref.node, ref.at, "the name of a provider")
		}
	}
	p.breakers(root, breakers)
}

func (p *parser) address(n *yaml.Node, at string) string {
	if _, _, err := net.SplitHostPort(n.Value); !isText(n) || err != nil {
		p.refuse(n, at, `an address such as "127.0.0.1:8080"`)
	}
	return n.Value
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}$`)

const nameWanted = "a name of letters, digits and . _ : / @ + -, at most 100"

func (p *parser) name(n *yaml.Node, at string) string {
	if !isText(n) || !plainName.MatchString(n.Value) {
		p.refuse(n, at, nameWanted)
	}
	return n.Value
}

// keys reads a list of people and their keys.
func (p *parser) keys(n *yaml.Node, at string, callers bool) (keys []Key) {
	p.items(n, at, func(n *yaml.Node, at string) { keys = append(keys, p.key(n, at, callers)) })
	if n.Kind == yaml.SequenceNode && len(keys) == 0 && callers {
		p.report(n.Line, at, "an empty list", "at least one caller")
	}
	for i, k := range keys {
		if slices.ContainsFunc(keys[:i], func(other Key) bool { return other.Name == k.Name || other.Hash == k.Hash }) {
			p.report(n.Content[i].Line, fmt.Sprintf("%s[%d]", at, i), "", "each name and each key only once")
		}
	}
	return keys
}

func (p *parser) key(n *yaml.Node, at string, caller bool) (k Key) {
	known := map[string]field{
		"name":    func(n *yaml.Node, at string) { k.Name = p.name(n, at) },
		"key_env": func(n *yaml.Node, at string) { k.Hash = sha256.Sum256([]byte(p.variable(n, at))) },
		"key_sha256": func(n *yaml.Node, at string) {
			sum, err := hex.DecodeString(n.Value)
			if err != nil || copy(k.Hash[:], sum) != len(k.Hash) || len(sum) != len(k.Hash) {
				p.hide(n, at, "the SHA-256 of the key, 64 hexadecimal digits")
			}
		},
	}
	if caller {
		known["rate"] = func(n *yaml.Node, at string) { k.Rate = p.rate(n, at) }
		known["burst"] = func(n *yaml.Node, at string) { k.Burst = p.whole(n, at, 1, 1_000_000) }
	}
	there := p.fields(n, at, known, "name")
	if n.Kind == yaml.MappingNode && there["key_env"] == there["key_sha256"] {
		p.report(n.Line, at, "", "one of key_env (the name of a variable) and key_sha256 (in hexadecimal)")
	}
	switch {
	case there["burst"] && !there["rate"]:
		p.report(n.Line, join(at, "burst"), "", "rate beside it")
	case there["rate"] && !there["burst"]:
		k.Burst = max(1, int(k.Rate))
	}
	return k
}

var variableName = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

// variable returns the value of the environment variable that n names. A name that looks like none may be the key itself, put
// in the wrong place, so it is not shown.
func (p *parser) variable(n *yaml.Node, at string) string {
	if !isText(n) || !variableName.MatchString(n.Value) {
		p.hide(n, at, "the name of an environment variable, in capitals; never the key itself")
		return ""
	}
	value, _ := p.env(n.Value)
	if strings.TrimSpace(value) == "" {
		p.refuse(n, at, "an environment variable that is set; this one is not, or is empty")
	} else if strings.ContainsAny(value, " \t\r\n") {
		p.refuse(n, at, "a variable whose value has no space in it; a newline at its end is a common mistake")
	}
	return value
}

func (p *parser) providers(n *yaml.Node, at string) {
	p.cfg.Providers = map[string]Provider{}
	p.each(n, at, func(key, value *yaml.Node) {
		at := join(at, key.Value)
		v := Provider{Name: key.Value, Format: OpenAI}
		if !plainName.MatchString(key.Value) || strings.Contains(key.Value, "/") {
			p.refuse(key, at, nameWanted+"; no slash")
		}
		p.fields(value, at, map[string]field{
			"base_url": func(n *yaml.Node, at string) { v.BaseURL = p.baseURL(n, at) },
			"key_env":  func(n *yaml.Node, at string) { v.Key = breaker.Secret(p.variable(n, at)) },
			"format": func(n *yaml.Node, at string) {
				if v.Format = n.Value; !slices.Contains([]string{OpenAI, Anthropic, Ollama}, n.Value) {
					p.refuse(n, at, "openai, anthropic or ollama")
				}
			},
		}, "base_url")
		p.cfg.Providers[key.Value] = v
	})
}

func (p *parser) baseURL(n *yaml.Node, at string) string {
	u, err := url.Parse(n.Value)
	switch {
	case err != nil || !isText(n) || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		p.hide(n, at, "an http or https URL, such as https://api.openai.com/v1")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		p.hide(n, at, "a URL without user, query and fragment; the key belongs in the variable that key_env names")
	}
	return strings.TrimRight(n.Value, "/")
}
