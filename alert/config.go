package alert

import (
	"errors"
	"fmt"
	"net/http"
	"net/mail"
	"slices"
	"strings"

	"github.com/failfast-go/breaker"
)

// newSenders makes a sender for each channel, or says all that is wrong. clean frees what they share.
func newSenders(cfg breaker.Alerts, o *options) (all []namedSender, clean func(), err error) {
	client, clean := newHTTPClient(o)
	server := cfg.SMTP
	if o.smtp != (breaker.AlertSMTP{}) {
		server = o.smtp
	}
	o.smtp = breaker.AlertSMTP{} // from here on only the sender knows the password
	var errs []error
	var secrets []string
	for i, c := range cfg.Channels {
		kind := c.Type
		s := namedSender{name: channelName(cfg.Channels, i), limit: httpLimit}
		c, err := c.Resolve(nil)
		if err == nil {
			s.takes, err = takes(c.SeverityFilter)
		}
		if err == nil {
			err = s.build(c, server, client, o)
		}
		secrets = append(secrets, secretsOf(c)...)
		if err != nil {
			said := strings.NewReplacer("breaker: alerts: "+kind+" channel: ", "", "breaker: alerts: ", "").Replace(err.Error())
			errs = append(errs, fmt.Errorf("alert: channel %s: %s", s.name, said))
		}
		all = append(all, s)
	}
	if resolved, err := server.Resolve(nil); err == nil {
		secrets = append(secrets, mailSecrets(resolved)...)
	}
	for i, scrub := 0, scrubber(secrets...); i < len(all); i++ { // one for all: two channels may share a receiver
		all[i].scrub = scrub
	}
	return all, clean, errors.Join(errs...)
}

// secretsOf returns what of a channel nobody may see.
func secretsOf(c breaker.AlertChannel) []string {
	all := []string{string(c.IntegrationKey), string(c.Secret)}
	return append(append(all, urlSecrets(string(c.WebhookURL))...), urlSecrets(string(c.URL))...)
}

// channelName is the channel's type, with a number where there are several of it.
func channelName(all []breaker.AlertChannel, i int) string {
	number, several := 0, false
	for j, c := range all {
		if c.Type == all[i].Type {
			several = several || j != i
			if j <= i {
				number++
			}
		}
	}
	if several {
		return fmt.Sprintf("%s-%d", all[i].Type, number)
	}
	return all[i].Type
}

func takes(filter []string) (set levels, err error) {
	for _, word := range filter {
		var level breaker.RiskLevel
		if err := level.UnmarshalText([]byte(word)); err != nil {
			return 0, fmt.Errorf("severity_filter: %q is not allowed: want low, medium, high or critical", word)
		}
		set |= 1 << level
	}
	if len(filter) == 0 {
		set = allLevels
	}
	return set, nil
}

// build sets the sender of a channel whose variables are resolved.
func (s *namedSender) build(c breaker.AlertChannel, server breaker.AlertSMTP, client *http.Client, o *options) error {
	target := func(key string, secret breaker.Secret) (string, error) {
		if !isWebURL(string(secret)) {
			return "", fmt.Errorf("%s: want a URL that begins with https:// (or http://)", key)
		}
		return string(secret), nil
	}
	switch c.Type {
	case "slack":
		url, err := target("webhook_url", c.WebhookURL)
		s.sender = &slack{client, url}
		return err
	case "webhook":
		url, err := target("url", c.URL)
		s.sender = &webhook{client, url, []byte(c.Secret)}
		return err
	case "pagerduty":
		if c.IntegrationKey == "" {
			return errors.New("integration_key: want the key of an Events API v2 integration")
		}
		s.sender, s.repeats = &pagerDuty{client, o.pagerDutyURL, string(c.IntegrationKey)}, true
		return nil
	case "email":
		return s.buildEmail(c, server, o)
	}
	return fmt.Errorf("type: %q is not allowed: want slack, pagerduty, email or webhook", c.Type)
}

func (s *namedSender) buildEmail(c breaker.AlertChannel, server breaker.AlertSMTP, o *options) error {
	if server.Host == "" {
		return errors.New("no mail server: set alerts.smtp in the file, or pass WithSMTP")
	}
	server, err := server.Resolve(nil)
	if err != nil {
		return err
	}
	e, err := newEmail(c.Recipients, server, o.tls)
	s.sender, s.limit = e, mailLimit
	return err
}

// addresses reads e-mail addresses; a mistake is said without quoting what may be a secret in the wrong place.
func addresses(texts []string) (all []*mail.Address, err error) {
	for i, text := range texts {
		a, wrong := mail.ParseAddress(text)
		if wrong != nil {
			err = errors.Join(err, fmt.Errorf("recipients[%d]: want an address such as oncall@example.com", i))
			continue
		}
		if !slices.ContainsFunc(all, func(b *mail.Address) bool { return a.Address == b.Address }) {
			all = append(all, a)
		}
	}
	if len(all) == 0 && err == nil {
		err = errors.New("recipients: want at least one")
	}
	return all, err
}
