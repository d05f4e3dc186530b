// Package faultserver is an upstream that fails as networks and providers do. It speaks HTTP/1.1 on raw TCP connections, since no
// framework resets a connection before the headers or ends a chunked body without its last chunk; and it keeps an account of what
// it was asked, by whom the connection was ended, and when.
package faultserver

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server listens on a loopback port. Its methods may be called at any time, from anywhere.
type Server struct {
	URL string // http://127.0.0.1:PORT

	listener net.Listener
	closed   chan struct{}
	running  sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	choose   Chooser
	requests []*record
	open     map[net.Conn]struct{}
	accepted int
}

// Request is what the server saw of a request.
type Request struct {
	N      int // of the server's requests, from 0
	Conn   int // number of the connection, from 1
	At     time.Time
	Method string
	Path   string
	Header http.Header
	Body   []byte

	PeerGone time.Time // when the other side was seen to have ended the connection before the answer was complete; else zero
	Answered time.Time // when the last step of the answer was done; zero while it goes on
}

type record struct {
	Request
	done chan struct{} // closed when the answer has ended, however
}

// Chooser decides what a request is given. It may be called concurrently.
type Chooser func(Request) Answer

// Start listens, and gives each request the answer that choose returns.
func Start(choose Chooser) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{
		URL: "http://" + listener.Addr().String(), listener: listener, closed: make(chan struct{}),
		choose: choose, open: map[net.Conn]struct{}{},
	}
	s.running.Go(s.accept)
	return s, nil
}

// Answer sets what the requests from now on are given. The request numbers go on.
func (s *Server) Answer(choose Chooser) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.choose = choose
}

// Requests returns the account so far, in the order of arrival.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Request, len(s.requests))
	for i, r := range s.requests {
		all[i] = r.Request
	}
	return all
}

// Count is the number of requests so far.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// Connections returns how many connections were accepted so far, and how many of them are open.
func (s *Server) Connections() (accepted, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted, len(s.open)
}

// Drop ends all connections there are. The server goes on.
func (s *Server) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		conn.Close()
	}
}

// Close ends the server and all its connections, and waits for its goroutines.
func (s *Server) Close() {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	s.listener.Close()
	s.Drop()
	s.running.Wait()
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, for one
			time.Sleep(time.Millisecond)
			continue
		}
		s.mu.Lock()
		s.accepted++
		n := s.accepted
		s.open[conn] = struct{}{}
		s.mu.Unlock()
		s.running.Go(func() { s.serve(conn, n) })
	}
}

// serve answers the requests of one connection, one after the other.
func (s *Server) serve(conn net.Conn, n int) {
	defer func() {
		conn.Close()
		s.mu.Lock()
		delete(s.open, conn)
		s.mu.Unlock()
	}()
	br := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		r, answer := s.note(Request{Conn: n, At: time.Now(), Method: req.Method, Path: req.URL.Path, Header: req.Header, Body: body})
		if !s.answer(conn, br, r, answer) {
			return
		}
	}
}

func (s *Server) note(r Request) (*record, Answer) {
	s.mu.Lock()
	r.N = len(s.requests)
	kept := &record{Request: r, done: make(chan struct{})}
	s.requests = append(s.requests, kept)
	choose := s.choose
	s.mu.Unlock()
	return kept, choose(r)
}

// answer takes the steps of an answer and reports whether the connection can take another request. Meanwhile a goroutine watches
// whether the other side goes away: it looks at the first byte of the next request, and takes none.
func (s *Server) answer(conn net.Conn, br *bufio.Reader, r *record, answer Answer) bool {
	e := &Exchange{Request: r.Request, conn: conn, server: s, gone: make(chan struct{})}
	watched := make(chan error, 1)
	s.running.Go(func() {
		_, err := br.Peek(1)
		if err != nil {
			s.noteGone(r)
			close(e.gone)
		}
		watched <- err
	})
	err := e.take(answer)
	s.noteAnswered(r)
	if err != nil {
		conn.Close()
	}
	return <-watched == nil && err == nil
}

func (s *Server) noteGone(r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Answered.IsZero() {
		r.PeerGone = time.Now()
	}
}

func (s *Server) noteAnswered(r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Answered = time.Now()
	close(r.done)
}

// Wait returns once the n-th request, from 0, has come and its answer has ended, or reports false when d has passed before that.
func (s *Server) Wait(n int, d time.Duration) (Request, bool) {
	deadline := time.Now().Add(d)
	for s.Count() <= n {
		if time.Now().After(deadline) {
			return Request{}, false
		}
		time.Sleep(time.Millisecond)
	}
	s.mu.Lock()
	r := s.requests[n]
	s.mu.Unlock()
	select {
	case <-r.done:
	case <-time.After(time.Until(deadline)):
		return Request{}, false
	}
	return s.Requests()[n], true
}
