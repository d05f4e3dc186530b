package faultserver

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Answer is what the server does with a request, step by step. After the last one the connection waits for the next request; steps
// that end the connection must be the last.
type Answer []Step

// Step is a part of an answer. An error ends the answer and the connection.
type Step func(*Exchange) error

// Exchange is a request and the connection on which it came.
type Exchange struct {
	Request Request

	conn   net.Conn
	server *Server
	gone   chan struct{} // closed when the other side has ended the connection
}

func (e *Exchange) take(answer Answer) error {
	for _, step := range answer {
		if err := step(e); err != nil {
			return err
		}
	}
	return nil
}

func (e *Exchange) write(text string) error {
	_, err := e.conn.Write([]byte(text))
	return err
}

var errEnded = errors.New("the connection was ended")

// head is a status line and fields, names and values in turn, without the empty line at their end.
func head(status int, fields []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	for i := 0; i+1 < len(fields); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", fields[i], fields[i+1])
	}
	return b.String()
}

// Headers begins an answer whose body comes in chunks. Fields are names and values in turn.
func Headers(status int, fields ...string) Step {
	text := head(status, fields) + "Transfer-Encoding: chunked\r\n\r\n"
	return func(e *Exchange) error { return e.write(text) }
}

// Chunk sends a part of the body.
func Chunk(text string) Step {
	text = strconv.FormatInt(int64(len(text)), 16) + "\r\n" + text + "\r\n"
	return func(e *Exchange) error { return e.write(text) }
}

// LastChunk ends the body as it should end.
func LastChunk() Step {
	return func(e *Exchange) error { return e.write("0\r\n\r\n") }
}

// Whole is an answer in one piece. Fields are names and values in turn.
func Whole(status int, body string, fields ...string) Answer {
	text := head(status, fields) + "Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	return Answer{func(e *Exchange) error { return e.write(text) }}
}

// Short is an answer in one piece that ends after sent bytes of it.
func Short(body string, sent int) Answer {
	text := head(200, nil) + "Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body[:sent]
	return Answer{func(e *Exchange) error { return e.write(text) }, End()}
}

// End ends the connection as a process does that ends: with whatever has been sent, and no more.
func End() Step { return func(*Exchange) error { return errEnded } }

// Reset ends the connection as a process does that crashes, or a firewall: what is under way is lost, and the other side gets an
// error.
func Reset() Step {
	return func(e *Exchange) error {
		if tcp, ok := e.conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		return errEnded
	}
}

// Pause waits for d, or until the other side has gone or the server is closed.
func Pause(d time.Duration) Step {
	return func(e *Exchange) error { return e.await(time.After(d)) }
}

// Hang does nothing more until the other side has gone or the server is closed.
func Hang() Step { return func(e *Exchange) error { return e.await(nil) } }

func (e *Exchange) await(instant <-chan time.Time) error {
	select {
	case <-instant:
		return nil
	case <-e.gone:
	case <-e.server.closed:
	}
	return errEnded
}

// EventStream begins an answer of server-sent events.
func EventStream() Step { return Headers(200, "Content-Type", "text/event-stream") }

// Events sends each of data as an event.
func Events(data ...string) Step {
	var text strings.Builder
	for _, d := range data {
		text.WriteString("data: " + d + "\n\n")
	}
	return Chunk(text.String())
}
