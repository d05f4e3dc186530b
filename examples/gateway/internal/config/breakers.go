package config

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/failfast-go/breaker"
)

const section = "circuit_breaker"

// breakers gives every target a configuration of its breaker: what the section says, in the library's own words, over the
// gateway's defaults.
func (p *parser) breakers(root, n *yaml.Node) {
	said := p.section(root, n)
	ours := p.cfg.Breakers.Default
	services := map[string]breaker.Config{}
	for name := range p.targets {
		c, ok := said.Services[name]
		if !ok {
			c = said.Default
		}
		services[name] = over(c, ours)
	}
	p.cfg.Breakers = breaker.RegistryConfig{Default: over(said.Default, ours), Services: services, MaxBreakers: max(10_000, 2*len(services))}
}

// over returns c with the gateway's defaults where c says nothing.
func over(c, ours breaker.Config) breaker.Config {
	c.FailureThreshold = cmp.Or(c.FailureThreshold, ours.FailureThreshold)
	c.HalfOpenMaxCalls = cmp.Or(c.HalfOpenMaxCalls, ours.HalfOpenMaxCalls)
	c.SuccessThreshold = cmp.Or(c.SuccessThreshold, ours.SuccessThreshold)
	if c.OpenTimeout == 0 {
		c.OpenTimeout = min(ours.OpenTimeout, cmp.Or(c.MaxOpenTimeout, ours.OpenTimeout))
	}
	c.MaxOpenTimeout = cmp.Or(c.MaxOpenTimeout, c.OpenTimeout) // no doubling
	return c
}

// section has the library read the section out of a copy of the file in which every other line is empty, so that the lines of its
// problems are those of the file.
func (p *parser) section(root, n *yaml.Node) (said breaker.RegistryConfig) {
	if n == nil || root.Kind != yaml.MappingNode {
		return said
	}
	p.knownTargets(n)
	if root.Style&yaml.FlowStyle != 0 {
		p.report(n.Line, section, "", "the file as a block of lines, not within braces")
		return said
	}
	file, err := breaker.ParseFile(p.alone(root))
	if invalid, ok := errors.AsType[*breaker.ConfigError](err); ok {
		p.problems = append(p.problems, invalid.Problems...)
		return said
	}
	return file.Breakers
}

// alone returns the file with nothing but the section in it.
func (p *parser) alone(root *yaml.Node) []byte {
	lines := bytes.SplitAfter(p.data, []byte("\n"))
	from, to := 0, len(lines)
	for i := 0; i < len(root.Content); i += 2 {
		if root.Content[i].Value != section {
			continue
		}
		from = root.Content[i].Line - 1
		if i+2 < len(root.Content) {
			to = root.Content[i+2].Line - 1
		}
	}
	for i := range lines {
		if i < from || i >= to {
			lines[i] = []byte("\n")
		}
	}
	return bytes.Join(lines, nil)
}

// knownTargets reports services that are no target: a setting that would have no effect.
func (p *parser) knownTargets(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		services := followed(n.Content[i+1])
		if n.Content[i].Value != "services" || services.Kind != yaml.MappingNode {
			continue
		}
		for j := 0; j < len(services.Content); j += 2 {
			if key := services.Content[j]; p.targets[key.Value] == 0 {
				p.report(key.Line, section+".services."+key.Value, "", "the name of a target, provider/model: "+strings.Join(slices.Sorted(maps.Keys(p.targets)), ", "))
			}
		}
	}
}
