package breaker

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
)

// network is one without a kernel, which a bubble's clock waits for: time passes only while nothing is on its way, however slow
// the machine is.
type network struct {
	conns  chan net.Conn
	closed chan struct{}
}

// serveInBubble runs a server on a network of its own, until the bubble's test ends, and returns what reaches it, whatever the
// host of a URL is.
func serveInBubble(t *testing.T, server *http.Server) *http.Transport {
	t.Helper()
	n := &network{make(chan net.Conn), make(chan struct{})}
	var serving, conns sync.WaitGroup
	server.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			conns.Done()
		}
	}
	serving.Go(func() { _ = server.Serve(n) })
	client := &http.Transport{DialContext: n.dial}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		server.Close()
		serving.Wait()
		conns.Wait()
	})
	return client
}

// Accept, Close and Addr make it a net.Listener.
func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error   { close(n.closed); return nil }
func (n *network) Addr() net.Addr { return &net.TCPAddr{} }

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case n.conns <- far:
		return near, nil
	case <-n.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
