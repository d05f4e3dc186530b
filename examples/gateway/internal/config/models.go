package config

import (
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

func (p *parser) models(n *yaml.Node, at string) {
	p.cfg.Models = map[string]Model{}
	p.each(n, at, func(key, value *yaml.Node) {
		if !plainName.MatchString(key.Value) {
			p.refuse(key, join(at, key.Value), nameWanted)
		}
		p.cfg.Models[key.Value] = p.model(key.Value, value, join(at, key.Value))
	})
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		p.refuse(n, at, "at least one model")
	}
}

func (p *parser) model(name string, n *yaml.Node, at string) Model {
	m := Model{Name: name}
	var primary Target
	p.fields(n, at, map[string]field{
		"primary":     func(n *yaml.Node, at string) { primary = p.target(n, at) },
		"last_resort": func(n *yaml.Node, at string) { m.Last = p.lastResort(n, at) },
		"fallbacks": func(n *yaml.Node, at string) {
			p.items(n, at, func(n *yaml.Node, at string) { m.Targets = append(m.Targets, p.target(n, at)) })
		},
	}, "primary")
	m.Targets = slices.Insert(m.Targets, 0, primary)
	for i, t := range m.Targets {
		if slices.ContainsFunc(m.Targets[:i], func(other Target) bool { return other.Name == t.Name }) && t.Name != "" {
			p.report(n.Line, at, t.Name, "each target only once in a model")
		}
	}
	return m
}

func (p *parser) target(n *yaml.Node, at string) (t Target) {
	p.fields(n, at, map[string]field{
		"provider": func(n *yaml.Node, at string) {
			t.Provider = p.text(n, at)
			p.refs = append(p.refs, reference{n, at, t.Provider})
		},
		"model":        func(n *yaml.Node, at string) { t.Model = p.name(n, at) },
		"context":      func(n *yaml.Node, at string) { t.Context = p.whole(n, at, 1, 1<<30) },
		"capabilities": func(n *yaml.Node, at string) { t.Capabilities = p.capabilities(n, at) },
	}, "provider", "model")
	if t.Provider == "" || t.Model == "" {
		return t
	}
	t.Name = t.Provider + "/" + t.Model
	if _, ok := p.targets[t.Name]; !ok {
		p.targets[t.Name] = n.Line
	}
	return t
}

func (p *parser) capabilities(n *yaml.Node, at string) []string {
	all := []string{} // none is a declaration too
	p.items(n, at, func(n *yaml.Node, at string) {
		if !slices.Contains([]string{Tools, Images, JSON}, n.Value) {
			p.refuse(n, at, "tools, images or json")
		}
		all = append(all, n.Value)
	})
	return all
}

func (p *parser) lastResort(n *yaml.Node, at string) (l LastResort) {
	p.fields(n, at, map[string]field{
		"text": func(n *yaml.Node, at string) { l.Text = p.text(n, at) },
		"rules": func(n *yaml.Node, at string) {
			p.items(n, at, func(n *yaml.Node, at string) { l.Rules = append(l.Rules, p.rule(n, at)) })
		},
	})
	return l
}

func (p *parser) rule(n *yaml.Node, at string) (rule Rule) {
	p.fields(n, at, map[string]field{
		"text": func(n *yaml.Node, at string) { rule.Text = p.text(n, at) },
		"contains": func(n *yaml.Node, at string) {
			p.items(n, at, func(n *yaml.Node, at string) { rule.Contains = append(rule.Contains, strings.ToLower(p.text(n, at))) })
		},
	}, "contains", "text")
	return rule
}

func (p *parser) limits(n *yaml.Node, at string) {
	l := &p.cfg.Limits
	known := map[string]field{}
	for key, limit := range map[string]*time.Duration{
		"connect": &l.Connect, "headers": &l.Headers, "first_content": &l.FirstContent, "between_contents": &l.BetweenContents,
		"answer": &l.Answer, "request": &l.Request, "caller": &l.Caller,
	} {
		known[key] = func(n *yaml.Node, at string) { *limit = p.duration(n, at, false) }
	}
	p.fields(n, at, known)
}

func (p *parser) retry(n *yaml.Node, at string) {
	r := &p.cfg.Retry
	p.fields(n, at, map[string]field{
		"max":      func(n *yaml.Node, at string) { r.Max = p.whole(n, at, 0, 10) },
		"backoff":  func(n *yaml.Node, at string) { r.Backoff = p.duration(n, at, true) },
		"max_wait": func(n *yaml.Node, at string) { r.MaxWait = p.duration(n, at, true) },
		"attempts": func(n *yaml.Node, at string) { r.Attempts = p.whole(n, at, 1, 100) },
	})
}
