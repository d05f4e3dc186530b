package main

import (
	"errors"

	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/alert"
)

// startAlerts tells the channels of the file whose variables are set, and logs once which they are. The service runs without them as
// well as with them: it is an example, and most who start it have no pager.
func startAlerts(cfg breaker.Alerts, breakers *breaker.Registry, page string, log *zap.Logger) (*alert.Alerter, error) {
	ready := breaker.Alerts{SMTP: cfg.SMTP}
	var on []string
	var off []error
	for _, c := range cfg.Channels {
		if err := unset(c, cfg.SMTP); err != nil {
			off = append(off, err)
			continue
		}
		ready.Channels = append(ready.Channels, c)
		on = append(on, c.Type)
	}
	alerts, err := alert.New(ready, alert.WithService("rag"), alert.WithPage(page), alert.WithLogger(log))
	if err != nil {
		return nil, err
	}
	alerts.Watch(breakers)
	if len(on) == 0 {
		log.Info("alerts are off", zap.Error(errors.Join(off...)))
	} else {
		log.Info("alerts are on", zap.Strings("channels", on), zap.NamedError("off", errors.Join(off...)))
	}
	return alerts, nil
}

// unset says which variables a channel lacks.
func unset(c breaker.AlertChannel, server breaker.AlertSMTP) error {
	_, err := c.Resolve(nil)
	if c.Type == "email" {
		_, errServer := server.Resolve(nil)
		err = errors.Join(err, errServer)
	}
	return err
}
