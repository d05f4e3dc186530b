package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/corpus"
	"github.com/failfast-go/breaker/examples/rag/internal/service"
)

func runServe(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	address := flags.String("addr", "127.0.0.1:8080", "where to listen")
	config := flags.String("config", "", "YAML file of the breakers (default: the embedded one)")
	data := flags.String("data", defaultData(), "directory of the vector index and the SQLite database")
	noBreakers := flags.Bool("no-breakers", false, "serve with every breaker disabled")
	if err := parse(flags, args); err != nil {
		return err
	}
	log, err := zap.NewProduction()
	if err != nil {
		return err
	}
	cfg := service.Config{Data: *data, Log: log, NoBreakers: *noBreakers}.FromEnvironment(os.Getenv)
	if *config != "" {
		if cfg.File, err = breaker.LoadFile(*config); err != nil {
			return err
		}
	}
	s, err := service.New(ctx, cfg)
	if err != nil {
		return err
	}
	return errors.Join(serve(ctx, *address, s, log), s.Close())
}

// defaultData keeps the data inside a source tree out of the way of git, and elsewhere where programs keep theirs.
func defaultData() string {
	if top := corpus.FindRepository("."); top != "" {
		return filepath.Join(top, "examples", "rag", "data")
	}
	if cache, err := os.UserCacheDir(); err == nil {
		return filepath.Join(cache, "breaker-rag")
	}
	return "breaker-rag-data"
}

// serve answers until ctx is done, then lets the calls in progress end.
func serve(ctx context.Context, address string, s *service.Service, log *zap.Logger) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("cannot listen: %w; choose another address with -addr", err)
	}
	url := "http://" + listener.Addr().String()
	alerts, err := startAlerts(s.Alerts(), s.Breakers(), url, log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	streams, endStreams := context.WithCancel(context.Background())
	defer endStreams()
	server := &http.Server{Handler: s.Handler(streams), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	server.RegisterOnShutdown(endStreams)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	log.Info("serving", zap.String("url", url), zap.Int("passages", s.Vectors.Count()))
	fmt.Printf("the live page of the breakers: %s/\n", url)
	select {
	case err := <-ended:
		return errors.Join(err, alerts.Close(ctx))
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(grace), alerts.Close(grace))
}
