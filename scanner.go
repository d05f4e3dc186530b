package breaker

import (
	"bytes"
	"errors"
	"net/http"
)

// bodyFormat is how a body is made up, as far as that can be known.
type bodyFormat uint8

const (
	opaque   bodyFormat = iota // nothing can be said of what is in it
	document                   // one JSON value
	events                     // an event stream: lines, an empty one ends each event
	values                     // a JSON value on each line
)

// Why a body that ended without an error has failed all the same.
var (
	errNoMarker  = errors.New("the stream ended without saying that the answer is complete")
	errNoEvent   = errors.New("the stream ended without a single event")
	errTruncated = errors.New("the body ended in the middle of a JSON value")
)

const (
	maxFault  = 2 << 10 // bytes of an event, or of a document, that are kept in case it tells of an error
	maxModels = 16      // events among which a language model's stream shows itself
	flowing   = 1 << 10 // bytes of a line after which each piece of it is a sign of life
)

// scanner follows a body as it passes by in pieces of any size: whether it has come to its marker, the sign by which a
// language model says that its answer is complete, and whether it tells of an error. It keeps the beginning of a line that did
// not fit into its piece, and of an event of several lines, and allocates for an error only.
//
// A stream that shows no sign of being a language model's owes no marker. All lines end as the first does: by LF, CR LF or CR.
type scanner struct {
	format bodyFormat

	newline byte // 0 until the first line has ended
	halfEnd bool // it may have, by the CR that was the last byte so far
	first   bool // line is past

	begun int    // bytes of a line that began in an earlier piece
	head  []byte // its beginning, up to maxFault
	last  byte   // of the line, without CRs

	name    [32]byte // of the event
	nameLen int
	data    []byte // of the event, when that may take several lines or is an error
	failing bool   // the event is an error

	value   keyValue
	events  int            // with data
	model   bool           // it is a language model's: it owes a marker
	marker  bool           // seen
	over    bool           // it said [DONE], which alone is no marker: some say it after an answer that was cut
	content bool           // since last asked
	spoken  bool           // there has been content
	fault   *UpstreamError // the first
	total   int            // bytes
	json    jsonDepth
}

func newScanner(f bodyFormat) *scanner {
	s := &scanner{format: f}
	switch f {
	case events:
		s.value.key, s.value.pivot = []byte(`"finish_reason"`), len(`"finish`)
	case values:
		s.value.key, s.value.pivot = []byte(`"done"`), len(`"do`)
	}
	return s
}

// feed takes the next piece of the body.
func (s *scanner) feed(p []byte) {
	if len(p) == 0 {
		return
	}
	s.total += len(p)
	switch s.format {
	case events, values:
		s.stream(p)
	case document:
		s.keep(p)
		s.json.feed(p)
		fallthrough
	default:
		s.content = true
	}
}

// tookContent reports whether there was content since it was last asked: anything but comments, pings and what a model says
// before it has begun to answer.
func (s *scanner) tookContent() bool {
	took := s.content
	s.content = false
	s.spoken = s.spoken || took
	return took
}

// complete reports whether all that matters has passed by.
func (s *scanner) complete() bool {
	if s.format == document {
		return s.json.ended
	}
	return s.marker || s.over
}

// answered reports whether a language model has said that its answer is complete.
func (s *scanner) answered() bool { return s.marker }

// end takes the body's end. The error is what a stream that ended so has to be blamed for. wantsAnswer: an empty one, too.
func (s *scanner) end(wantsAnswer bool) error {
	switch s.format {
	case document:
		if s.json.open() {
			return errTruncated
		}
	case events, values:
		if s.begun > 0 && (s.last == '}' || s.last == ']') {
			s.endLine()
		}
		s.endEvent()
		switch {
		case s.fault != nil || s.marker:
		case s.model:
			return errNoMarker
		case s.events == 0 && wantsAnswer:
			return errNoEvent
		}
	}
	return s.err()
}

// err returns the error that the body has told of so far.
func (s *scanner) err() error {
	if s.format == document && s.fault == nil && s.total <= maxFault && s.json.ended && bytes.Contains(s.data, []byte("error")) {
		if f := readFault(s.data); f.within && f.named() != "" {
			s.fault = Diagnose(http.StatusOK, nil, s.data)
		}
	}
	switch {
	case s.fault != nil:
		return s.fault
	case s.over && s.model && !s.marker:
		return errNoMarker
	}
	return nil
}

func (s *scanner) stream(p []byte) {
	if s.newline == 0 && !s.learn(p) {
		s.partial(p)
		return
	}
	for len(p) > 0 {
		i := 0
		if p[0] != s.newline {
			if i = bytes.IndexByte(p, s.newline); i < 0 {
				s.partial(p)
				return
			}
		}
		if s.begun > 0 {
			s.partial(p[:i])
			s.endLine()
		} else if !s.another(p[:i]) {
			s.value.reset()
			s.line(p[:i], true)
		}
		p = p[i+1:]
	}
}

// another takes a line like most: one more token of a chat, alone in its event, or the empty line after it. It is a short cut,
// no rule: what it leaves to line ends the same.
func (s *scanner) another(line []byte) bool {
	if !s.model || !s.spoken && !s.content || s.format != events || s.nameLen > 0 || len(s.data) > 0 || s.failing {
		return false
	}
	last := len(line) - 1
	if last < 0 {
		return true
	}
	if line[last] != '}' || !bytes.HasPrefix(line, tokenBegins) || mayBeNamed(line[len(tokenBegins)-2:]) || !s.value.isNullIn(line) {
		return false
	}
	s.events++
	s.content = true
	return true
}

var tokenBegins = []byte(`data: {"`)

// learn finds out how lines end. It reports whether that is known now.
func (s *scanner) learn(p []byte) bool {
	if s.halfEnd {
		if s.newline = '\n'; p[0] != '\n' {
			s.newline = '\r'
			s.endLine()
		}
		return true
	}
	i := bytes.IndexAny(p, "\r\n")
	switch {
	case i < 0:
	case p[i] == '\n', i+1 < len(p) && p[i+1] == '\n':
		s.newline = '\n'
	case i+1 < len(p):
		s.newline = '\r'
	default:
		s.halfEnd = true
	}
	return s.newline != 0
}

// partial takes a piece of a line that began earlier, or that does not end here.
func (s *scanner) partial(p []byte) {
	if s.begun == 0 {
		s.value.reset()
	}
	if s.head == nil {
		s.head = make([]byte, 0, maxFault)
	}
	s.head = append(s.head, p[:min(len(p), maxFault-len(s.head))]...)
	s.begun += len(p)
	if rest := trimCR(p); len(rest) > 0 {
		s.last = rest[len(rest)-1]
	}
	s.value.feed(p)
	if s.begun > flowing && s.head[0] != ':' { // else a long line that trickles in would look like a stall
		s.content = true
	}
}

func (s *scanner) endLine() {
	s.line(s.head, false)
	s.begun, s.head = 0, s.head[:0]
}

var byteOrderMark = []byte("\xEF\xBB\xBF")

// line takes one line: all of it, or the beginning of one that partial has had.
func (s *scanner) line(p []byte, whole bool) {
	if whole {
		if p = trimCR(p); len(p) > 0 {
			s.last = p[len(p)-1]
		}
	} else if len(p) < maxFault {
		p = trimCR(p)
	}
	if !s.first {
		s.first = true
		p = bytes.TrimPrefix(p, byteOrderMark)
	}
	switch {
	case s.format == values:
		s.dataLine(p, whole)
		s.endEvent()
	case len(p) == 0:
		s.endEvent()
	case bytes.HasPrefix(p, []byte("data:")):
		p = p[len("data:"):]
		if len(p) > 0 && p[0] == ' ' {
			p = p[1:]
		}
		s.dataLine(p, whole)
	case bytes.HasPrefix(p, []byte("event:")):
		s.nameLen = copy(s.name[:], bytes.TrimPrefix(p[len("event:"):], []byte(" ")))
	}
}

// dataLine takes the data of one line, without its end if it is long.
func (s *scanner) dataLine(p []byte, whole bool) {
	if len(p) == 0 {
		return
	}
	if len(s.data) == 0 {
		s.events++
	}
	if len(s.data) > 0 || s.last != '}' {
		s.keep(p)
		s.keep([]byte{'\n'})
		if len(s.data) > 0 {
			s.judge(s.data, p, whole)
			return
		}
	}
	s.judge(p[:min(len(p), maxFault)], p, whole)
}

// keep adds to the data of the event, as far as that is kept.
func (s *scanner) keep(p []byte) {
	if s.data == nil {
		s.data = make([]byte, 0, maxFault)
	}
	s.data = append(s.data, p[:min(len(p), maxFault-len(s.data))]...)
}

// judge looks at what is known of an event's data, after each of its lines.
func (s *scanner) judge(data, line []byte, whole bool) {
	said := ordinary
	named := s.nameLen > 0 || mayBeNamed(data)
	if named {
		said = s.meaning(data)
	}
	if said == ordinary {
		if whole {
			s.value.whole(line)
		}
		if v := &s.value; !named && v.found && !v.terminal && !v.isError { // as most events are
			s.model = true
			s.content = s.content || s.spoken || !saysNothing(data)
			return
		}
		said = s.unnamed(data)
	}
	switch said {
	case failed:
		s.failing = true
		if len(s.data) == 0 {
			s.keep(data)
		}
	case finished:
		s.marker = true
		s.model = true
		s.content = true
	case beginning:
		s.model = true
	case speaking:
		s.model = true
		s.content = true
	case ordinary:
		s.content = true
	}
}

var (
	done    = []byte("[DONE]")
	choices = []byte(`"choices"`)
)

// unnamed says what an event means that does not say so by its name.
func (s *scanner) unnamed(data []byte) sense {
	v := &s.value
	switch {
	case data[0] == '[' && bytes.HasPrefix(data, done):
		s.over = true
		return idle
	case v.isError || errorIn(data):
		return failed
	case v.terminal:
		return finished
	case v.found || s.format == events && !s.model && s.events <= maxModels && bytes.Contains(data, choices):
		if !s.spoken && !s.content && saysNothing(data) {
			return beginning
		}
		return speaking
	}
	return ordinary
}

// endEvent takes the empty line after an event.
func (s *scanner) endEvent() {
	if s.failing && s.fault == nil {
		s.fault = Diagnose(http.StatusOK, nil, s.data)
	}
	s.failing = false
	s.nameLen = 0
	s.data = s.data[:0]
}

// meaning says what an event means by its name, or its type if it has no name.
func (s *scanner) meaning(data []byte) sense {
	if s.nameLen > 0 {
		return meaning(s.name[:s.nameLen])
	}
	return meaning(typeIn(data))
}

func trimCR(p []byte) []byte {
	for len(p) > 0 && p[len(p)-1] == '\r' {
		p = p[:len(p)-1]
	}
	return p
}
