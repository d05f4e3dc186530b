package service

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics serves the breakers to Prometheus.
func (s *Service) metrics() http.Handler {
	all := prometheus.NewRegistry()
	all.MustRegister(s.breakers.Collector())
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{})
}
