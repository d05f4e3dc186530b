// Rag is a chat service that answers questions about Go and this library from their documentation, and goes on answering
// while the things it stands on fail.
//
//	go run ./examples/rag demo                 plays an outage in less than a minute and shows what the breakers do
//	go run ./examples/rag demo -no-breakers    the same outage without them
//	go run ./examples/rag serve                serves until interrupted
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/failfast-go/breaker/examples/rag/internal/demo"
)

const usage = `usage: rag demo [-no-breakers]
       rag serve [-addr 127.0.0.1:8080] [-config FILE] [-data DIR] [-no-breakers]
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "rag:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage")

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	switch args[0] {
	case "demo":
		return runDemo(ctx, args[1:])
	case "serve":
		return runServe(ctx, args[1:])
	}
	return errUsage
}

func runDemo(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	noBreakers := flags.Bool("no-breakers", false, "play the outage without breakers; the check must fail")
	if err := parse(flags, args); err != nil {
		return err
	}
	return demo.Main(ctx, os.Stdout, *noBreakers)
}

// parse refuses words that are no flags: they are mostly flags without their dash.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage // what is wrong with the flags has been said
	}
	if flags.NArg() > 0 {
		return errUsage
	}
	return nil
}
