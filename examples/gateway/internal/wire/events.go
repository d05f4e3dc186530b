package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync"
)

// maxEvent is the size of the largest event that is read.
const maxEvent = 8 << 20

var errEventTooLarge = errors.New("an event of more than 8 MiB")

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4<<10) }}

// Events reads the events of a streamed answer, one at a time and none ahead.
type Events struct {
	br    *bufio.Reader
	lines bool
	data  []byte
}

// NewEvents returns a reader of server-sent events, or of one JSON value a line. Close it when it is done with; r stays open.
func NewEvents(r io.Reader, lines bool) *Events {
	br, _ := readers.Get().(*bufio.Reader)
	br.Reset(r)
	return &Events{br: br, lines: lines}
}

// Close gives its memory back.
func (e *Events) Close() {
	if e.br != nil {
		e.br.Reset(nil)
		readers.Put(e.br)
		e.br = nil
	}
}

// Next returns the data of the next event, valid until the next call. Empty data is a comment, which keeps a connection alive.
// The error at a clean end is io.EOF; an event that was not ended by then has come before it.
func (e *Events) Next() ([]byte, error) {
	e.data = e.data[:0]
	pending := false
	for {
		line, err := e.line()
		if err != nil && len(line) == 0 {
			if errors.Is(err, io.EOF) && pending {
				return e.data, nil
			}
			return nil, err
		}
		if e.lines {
			if len(line) > 0 {
				e.data = append(e.data, line...)
				return e.data, nil
			}
			continue
		}
		switch {
		case len(line) == 0 && pending:
			return e.data, nil
		case len(line) > 0 && line[0] == ':' && !pending:
			return nil, nil
		case bytes.HasPrefix(line, []byte("data:")):
			if pending {
				e.data = append(e.data, '\n')
			}
			e.data = append(e.data, bytes.TrimPrefix(line[len("data:"):], []byte(" "))...)
			pending = true
		}
	}
}

// line returns the next line without its end. At the end of the stream it may be the last line with io.EOF.
func (e *Events) line() ([]byte, error) {
	line, err := e.br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			if line, err = e.br.ReadSlice('\n'); len(long)+len(e.data) > maxEvent {
				return nil, errEventTooLarge
			}
			long = append(long, line...)
		}
		line = long
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), err
}
