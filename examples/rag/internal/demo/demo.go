// Package demo plays an outage against the chat service, with breakers and beside it without, and checks what was promised.
package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/failfast-go/breaker"
	"github.com/failfast-go/breaker/examples/rag/internal/service"
)

//go:embed demo.yaml
var demoYAML []byte

// ErrBroken is returned when not everything held that the demo promises. What did not is on the output by then.
var ErrBroken = errors.New("demo: not everything promised held")

// Main plays the demo and writes it to out, in less than a minute. It uses the embedded upstreams only, since it breaks them.
// With noBreakers it plays the outage without them alone, and must return [ErrBroken].
func Main(ctx context.Context, out *os.File, noBreakers bool) error {
	begun := time.Now()
	data, err := os.MkdirTemp("", "breaker-rag-demo-")
	if err != nil {
		return fmt.Errorf("demo: no directory for its data: %w", err)
	}
	defer os.RemoveAll(data)

	names := []string{"with", "without"}
	if noBreakers {
		names = names[1:]
	}
	fmt.Fprintln(out, "Reading the documents and starting the service; the outage takes three quarters of a minute.")
	players, err := newPlayers(ctx, data, names)
	if err != nil {
		return err
	}
	runs, err := playAll(ctx, out, players, names, begun)
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	Table(out, runs...)
	return verdict(out, runs[0].Report)
}

func newPlayers(ctx context.Context, data string, names []string) ([]*player, error) {
	file, err := breaker.ParseFile(demoYAML)
	if err != nil {
		return nil, err
	}
	var players []*player
	for _, name := range names { // one after the other: the first writes the index, the next finds it
		p, err := newPlayer(ctx, pace, service.Config{
			File: file, Limits: limits, NoBreakers: name == "without",
			Data: filepath.Join(data, name), Index: filepath.Join(data, "vectors"),
		})
		if err != nil {
			return nil, errors.Join(err, closeAll(players))
		}
		players = append(players, p)
	}
	return players, nil
}

// playAll plays the same script to every player at once and shows the first.
func playAll(ctx context.Context, out *os.File, players []*player, names []string, begun time.Time) ([]Run, error) {
	errs := make([]error, len(players))
	var group sync.WaitGroup
	for i, p := range players[1:] {
		group.Go(func() { errs[i+1] = p.play(ctx, script(), newQuestions(), func(act) {}) })
	}
	errs[0] = players[0].show(ctx, newView(out, players[0]))
	group.Wait()

	var runs []Run
	for i, p := range players {
		runs = append(runs, Run{names[i], p.recorder.result(time.Since(begun), p.promises)})
	}
	return runs, errors.Join(errors.Join(errs...), closeAll(players))
}

func closeAll(players []*player) error {
	var errs []error
	for _, p := range players {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// show plays the script and keeps v up to date.
func (p *player) show(ctx context.Context, v view) error {
	defer p.service.Breakers().Subscribe(v.event)()
	acts := make(chan act)
	done := make(chan error, 1)
	go func() { done <- p.play(ctx, script(), newQuestions(), func(a act) { acts <- a }) }()

	redraw := time.NewTicker(100 * time.Millisecond)
	defer redraw.Stop()
	for {
		select {
		case a := <-acts:
			v.act(a)
		case <-redraw.C:
			v.tick()
		case err := <-done:
			v.close()
			return err
		}
	}
}

// verdict says what did not hold, or that everything did.
func verdict(out *os.File, r Report) error {
	broken := r.Check()
	fmt.Fprintln(out)
	if len(broken) == 0 {
		fmt.Fprintln(out, "Everything promised held: every request answered, one probe round per open period at an ill upstream,")
		fmt.Fprintf(out, "recovery within one open period and its probes, nothing degraded cached; in %.0f s.\n", r.Took.Seconds())
		return nil
	}
	fmt.Fprintln(out, "This was promised and did not hold:")
	for _, line := range broken {
		fmt.Fprintln(out, "  "+line)
	}
	return ErrBroken
}
