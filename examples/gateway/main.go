// Gateway is an OpenAI-compatible gateway in front of language models, with a breaker for each of them, retries and fallbacks.
//
//	go run ./examples/gateway                        starts against an embedded upstream and prints a curl line
//	go run ./examples/gateway -config gateway.yaml   starts with a configuration, and follows its changes
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/failfast-go/breaker/examples/gateway/internal/config"
	"github.com/failfast-go/breaker/examples/gateway/internal/embedded"
	"github.com/failfast-go/breaker/examples/gateway/internal/server"
)

func main() {
	path := flag.String("config", "", "YAML file (default: an embedded upstream)")
	listen := flag.String("listen", "", "address to listen on, in place of the configuration's")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *path, *listen); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path, listen string) error {
	log, err := zap.NewProduction()
	if err != nil {
		return err
	}
	cfg, content, closeUpstream, err := configuration(path)
	if err != nil {
		return err
	}
	defer closeUpstream()
	g, err := server.New(cfg, log)
	if err != nil {
		return err
	}
	defer g.Close()
	if listen == "" {
		listen = cfg.Listen
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("gateway: cannot listen: %w; choose another address with -listen", err)
	}
	if path == "" {
		welcome(listener.Addr())
	} else {
		go follow(ctx, path, content, g, log) // ends with ctx
	}
	return serve(ctx, listener, g, log)
}

// configuration reads the file, or starts the embedded upstream.
func configuration(path string) (cfg *config.Config, content []byte, closeUpstream func(), err error) {
	if path != "" {
		cfg, content, err = config.Load(path, os.LookupEnv)
		return cfg, content, func() {}, err
	}
	upstream, err := embedded.Start()
	if err != nil {
		return nil, nil, nil, err
	}
	cfg, err = config.Parse(upstream.Config(), embedded.Env)
	return cfg, nil, upstream.Close, err
}

func welcome(addr net.Addr) {
	fmt.Printf(`Listening on http://%[1]s with an embedded upstream. Ask it, and then ask it to fail:

curl -i http://%[1]s/v1/chat/completions -H 'Authorization: Bearer %[2]s' -d '{"model": "demo", "messages": [{"role": "user", "content": "hello"}]}'
curl -i http://%[1]s/v1/chat/completions -H 'Authorization: Bearer %[2]s' -d '{"model": "demo", "messages": [{"role": "user", "content": "fail"}]}'

`, addr, embedded.Key)
}

// serve answers until ctx is done, then lets the answers in progress end.
func serve(ctx context.Context, listener net.Listener, g *server.Gateway, log *zap.Logger) error {
	s := &http.Server{Handler: g, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(listener) }()
	log.Info("serving", zap.String("url", "http://"+listener.Addr().String()))
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	g.Drain()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := s.Shutdown(grace); err != nil {
		return errors.Join(fmt.Errorf("gateway: answers in progress were broken off: %w", err), s.Close())
	}
	return nil
}

// follow applies what the file at path becomes after content. What stands still for a second is taken for whole; a file that is
// wrong changes nothing.
func follow(ctx context.Context, path string, content []byte, g *server.Gateway, log *zap.Logger) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for current, seen := string(content), string(content); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		data, err := config.Read(path)
		now := string(data)
		if err != nil {
			now = err.Error()
		}
		if now == seen && now != current {
			current = now
			reload(path, g, log)
		}
		seen = now
	}
}

func reload(path string, g *server.Gateway, log *zap.Logger) {
	cfg, _, err := config.Load(path, os.LookupEnv)
	if err == nil {
		err = g.Apply(cfg)
	}
	if err != nil {
		log.Error("configuration not reloaded: the one in force stays", zap.String("path", path), zap.Error(err))
		return
	}
	log.Info("configuration reloaded", zap.String("path", path))
}
