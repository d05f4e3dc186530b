// Alert-test sends a test message to the alert channels of a breakers' YAML file and says what became of it:
//
//	alert-test -file breakers.yaml                    to every channel
//	alert-test -file breakers.yaml -channel slack     to those of one type
//
// The message says that it is a test; at PagerDuty its incident is resolved at once. Variables come from the environment. Where the
// file names no mail server, SMTP_HOST, SMTP_PORT, SMTP_USERNAME, SMTP_PASSWORD and SMTP_FROM do.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/alert"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "alert-test:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("alert-test", flag.ContinueOnError)
	path := flags.String("file", "", "YAML file with alerts.channels")
	kind := flags.String("channel", "", "slack, pagerduty, email or webhook; empty for all")
	page := flags.String("page", "", "URL of the live page, to be linked")
	pagerDuty := flags.String("pagerduty-url", "", "where PagerDuty's events go, if not to its American address")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *path == "" || flags.NArg() > 0 {
		return errors.New("want -file FILE, and -channel TYPE for one type only (make alert-test FILE=breakers.yaml CHANNEL=slack)")
	}
	file, err := breaker.LoadFile(*path)
	if err != nil {
		return err
	}
	channels, err := chosen(file.Alerts.Channels, *kind)
	if err != nil {
		return fmt.Errorf("%s: %w", *path, err)
	}
	server, err := mailServer(file.Alerts.SMTP, os.Getenv)
	if err != nil {
		return err
	}
	opts := []alert.Option{alert.WithPage(*page), alert.WithSMTP(server)}
	if name, ok := file.Metadata["name"].(string); ok && name != "" {
		opts = append(opts, alert.WithService(name))
	}
	if *pagerDuty != "" {
		opts = append(opts, alert.WithPagerDutyURL(*pagerDuty))
	}
	return testAll(ctx, channels, out, opts)
}

// chosen are the channels of a type, or all.
func chosen(all []breaker.AlertChannel, kind string) (some []breaker.AlertChannel, err error) {
	var kinds []string
	for _, c := range all {
		if kind == "" || c.Type == kind {
			some = append(some, c)
		}
		kinds = append(kinds, c.Type)
	}
	switch {
	case len(all) == 0:
		return nil, errors.New("there is no channel under alerts.channels")
	case len(some) == 0:
		return nil, fmt.Errorf("there is no channel of type %q: it has %s", kind, strings.Join(kinds, ", "))
	}
	return some, nil
}

// mailServer is the file's, or the one that the environment names.
func mailServer(of breaker.AlertSMTP, getenv func(string) string) (breaker.AlertSMTP, error) {
	if of.Host != "" || getenv("SMTP_HOST") == "" {
		return of, nil
	}
	port, err := strconv.Atoi(cmp.Or(getenv("SMTP_PORT"), "587"))
	if err != nil || port < 1 || port > 65535 {
		return of, errors.New("SMTP_PORT: want a number from 1 to 65535")
	}
	// References, so that values which look like ones are taken as they are.
	server := breaker.AlertSMTP{Host: "${SMTP_HOST}", Port: port, From: "${SMTP_FROM}"}
	if getenv("SMTP_USERNAME") != "" {
		server.Username, server.Password = "${SMTP_USERNAME}", "${SMTP_PASSWORD}"
	}
	return server, nil
}

// testAll tests one channel after the other, so that a mistake in one says nothing about the next.
func testAll(ctx context.Context, channels []breaker.AlertChannel, out io.Writer, opts []alert.Option) error {
	failed := 0
	for i, c := range channels {
		result := "sent"
		if err := test(ctx, c, opts); err != nil {
			failed++
			result = "not sent: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		fmt.Fprintf(out, "%d %-9s %s\n", i+1, c.Type, result)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d channels did not take the test", failed, len(channels))
	}
	return nil
}

func test(ctx context.Context, c breaker.AlertChannel, opts []alert.Option) error {
	a, err := alert.New(breaker.Alerts{Channels: []breaker.AlertChannel{c}}, opts...)
	if err != nil {
		return err
	}
	return errors.Join(a.Test(ctx), a.Close(ctx))
}
