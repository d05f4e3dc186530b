package breaker

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"
)

// stream serves one event client, on the goroutine of its request.
func (h *handler) stream(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no") // to a proxy that would collect events
	if err := control.Flush(); errors.Is(err, http.ErrNotSupported) {
		writeError(w, http.StatusInternalServerError, "the event stream needs a http.ResponseWriter that can Flush: a wrapper around it hides that; give it Unwrap")
		return
	}
	_ = control.SetReadDeadline(time.Time{}) // the server's ReadTimeout is for requests, and would cut this answer off
	who, may := h.allowed(r)

	c := h.feed.join()
	defer h.feed.leave()
	next := h.feed.next(c)
	next.frames = append(next.frames, frame("session", map[string]any{"who": who, "may_act": may}))
	timer := time.NewTimer(time.Until(next.due))
	defer timer.Stop()
	for !next.behind && h.write(w, control, next.frames) == nil {
		timer.Reset(time.Until(next.due))
		select {
		case <-r.Context().Done():
			return
		case <-h.feed.inbox.ready:
		case <-next.news:
		case <-timer.C:
		}
		next = h.feed.next(c)
	}
}

// write gives each piece its own deadline: a slow reader may take its time, one that stands still is let go.
func (h *handler) write(w http.ResponseWriter, control *http.ResponseController, frames [][]byte) error {
	for _, f := range frames {
		for piece := range slices.Chunk(f, 64<<10) {
			_ = control.SetWriteDeadline(time.Now().Add(h.patience))
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
	}
	return control.Flush()
}

// feed is what all event clients of a handler share: each status is marshalled once a second at most, whoever asks first. It has
// no goroutine: it moves when a client does, and is empty without one. Statuses have no queue, since a later one replaces an
// earlier: a client is told what changed since the version it has. Transitions have one, which is bounded.
type feed struct {
	registry *Registry
	inbox    inbox

	mu      sync.Mutex // guards the fields below
	clients int
	stop    func() // ends the subscription

	entries map[string]*known
	version uint64    // of the newest entry
	removed []removal // oldest first
	forgot  uint64    // version of the last removal that is no longer listed
	looked  time.Time // when all statuses were last asked for
	looks   uint64
	tick    []byte // the frame of the last look

	moves [][]byte      // frames of the last transitions, oldest first
	moved uint64        // how many transitions there were
	news  chan struct{} // closed at the next transition

	shared struct { // the last frames made, and for whom
		from, to uint64
		frames   [][]byte
	}
}

type known struct {
	status  Status
	text    []byte // `"name":{...}`
	risk    []byte // likewise
	version uint64
	look    uint64
}

type removal struct {
	name    string
	version uint64
}

const (
	lookEvery  = time.Second
	maxMoves   = 256  // transitions that a client may be behind
	maxRemoved = 1024 // removals that are remembered
)

func newFeed(r *Registry) *feed {
	return &feed{registry: r, inbox: inbox{ready: make(chan struct{}, 1)}}
}

// cursor is how far a client has been told.
type cursor struct {
	started        bool
	version, looks uint64
	moved          uint64
}

func (f *feed) join() *cursor {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clients++
	if f.clients == 1 {
		f.stop = f.registry.Subscribe(f.inbox.put)
		f.entries, f.news = map[string]*known{}, make(chan struct{})
	}
	f.takeLocked()
	f.lookLocked(time.Now())
	return &cursor{moved: f.moved} // a snapshot and a tick are due
}

// leave lets go of everything with the last client.
func (f *feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clients--
	if f.clients > 0 {
		return
	}
	f.stop()
	f.inbox.take()
	f.entries, f.removed, f.moves, f.tick, f.shared.frames = nil, nil, nil, nil, nil
	f.forgot, f.shared.to, f.looked = f.version, 0, time.Time{}
}

// telling is what to write to a client, and when to ask again.
type telling struct {
	frames [][]byte
	behind bool // it has missed transitions, and must begin anew
	due    time.Time
	news   <-chan struct{}
}

// next returns what the client has not been told yet.
func (f *feed) next(c *cursor) telling {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.takeLocked()
	f.lookLocked(time.Now())
	missed := f.moved - c.moved
	if !c.started {
		missed = 0 // its snapshot says where all that has led to
	}
	if missed > uint64(len(f.moves)) {
		return telling{behind: true}
	}
	out := slices.Clone(f.moves[len(f.moves)-int(missed):])
	switch {
	case !c.started || c.version < f.forgot:
		out = append(out, f.objectLocked("snapshot", 0), f.objectLocked("risk", 0))
	case c.version < f.version:
		out = append(out, f.changedLocked(c.version)...)
	}
	if c.looks < f.looks {
		out = append(out, f.tick)
	}
	*c = cursor{true, f.version, f.looks, f.moved}
	return telling{frames: out, due: f.looked.Add(lookEvery), news: f.news}
}

// takeLocked makes frames of the transitions that have come, refreshes the statuses they changed, and wakes the other clients.
func (f *feed) takeLocked() {
	events, lost := f.inbox.take()
	if len(events) == 0 && lost == 0 {
		return
	}
	if lost > 0 {
		f.moves = nil // nobody can be told of all that happened
	}
	f.moved += uint64(len(events)) + lost
	f.version++
	for _, e := range events {
		f.moves = append(f.moves, frame("transition", eventTextOf(e)))
		if old, ok := f.entries[e.Breaker.Name()]; ok {
			f.putLocked(e.Breaker.Status(), old.look)
		}
	}
	f.moves = slices.Clone(f.moves[max(0, len(f.moves)-maxMoves):])
	close(f.news)
	f.news = make(chan struct{})
}

// lookLocked asks every breaker for its status, if that is due.
func (f *feed) lookLocked(now time.Time) {
	if now.Sub(f.looked) < lookEvery {
		return
	}
	f.looked = now
	f.looks++
	f.version++
	for _, b := range f.registry.All() {
		f.putLocked(b.Status(), f.looks)
	}
	for name, e := range f.entries {
		if e.look != f.looks {
			delete(f.entries, name)
			f.removed = append(f.removed, removal{name, f.version})
		}
	}
	if gone := len(f.removed) - maxRemoved; gone > 0 {
		f.forgot = f.removed[gone-1].version
		f.removed = slices.Clone(f.removed[gone:])
	}
	f.tick = frame("tick", map[string]time.Time{"at": now})
}

func (f *feed) putLocked(s Status, look uint64) {
	old, ok := f.entries[s.Name]
	if ok && same(old.status, s) {
		old.look = look
		return
	}
	name, _ := json.Marshal(s.Name)
	text, _ := json.Marshal(s)
	risk, _ := json.Marshal(Assess(s, RiskThresholds{})) // none of them can fail
	f.entries[s.Name] = &known{s, slices.Concat(name, []byte(":"), text), slices.Concat(name, []byte(":"), risk), f.version, look}
}

// same reports whether nothing happened between two statuses: that time passed is no news.
func same(a, b Status) bool {
	if a.opens().Sub(b.opens()).Abs() > time.Millisecond {
		return false
	}
	a.At, b.At = time.Time{}, time.Time{}
	a.RetryAfterSeconds, b.RetryAfterSeconds = nil, nil
	return reflect.DeepEqual(a, b)
}

// opens returns when calls are admitted again, where that is known.
func (s *Status) opens() time.Time {
	if s.RetryAfterSeconds == nil {
		return time.Time{}
	}
	return s.At.Add(seconds(*s.RetryAfterSeconds))
}

// changedLocked returns what happened after version from. Clients mostly have the same, so it is made once for them.
func (f *feed) changedLocked(from uint64) [][]byte {
	if f.shared.from == from && f.shared.to == f.version {
		return f.shared.frames
	}
	var frames [][]byte
	var gone []string
	for _, r := range f.removed {
		if r.version > from {
			gone = append(gone, r.name)
		}
	}
	if len(gone) > 0 {
		frames = append(frames, frame("removed", gone))
	}
	if object := f.objectLocked("status", from); object != nil {
		frames = append(frames, object, f.objectLocked("risk", from))
	}
	f.shared.from, f.shared.to, f.shared.frames = from, f.version, frames
	return frames
}

// objectLocked returns an event with the statuses, or risks, newer than version from, by name; nil if a "status" would be empty.
func (f *feed) objectLocked(event string, from uint64) []byte {
	var texts [][]byte
	size := 64
	for _, name := range slices.Sorted(maps.Keys(f.entries)) {
		if e := f.entries[name]; e.version > from {
			text := e.text
			if event == "risk" {
				text = e.risk
			}
			texts = append(texts, text)
			size += len(text) + 1
		}
	}
	if len(texts) == 0 && event == "status" {
		return nil
	}
	out := append(make([]byte, 0, size), "event: "+event+"\ndata: {"...)
	for i, t := range texts {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, t...)
	}
	return append(out, "}\n\n"...)
}

func frame(event string, data any) []byte {
	text, _ := json.Marshal(data) // of types that cannot fail
	return slices.Concat([]byte("event: "+event+"\ndata: "), text, []byte("\n\n"))
}

// eventText is an Event as clients see it.
type eventText struct {
	Name    string    `json:"name"`
	Seq     uint64    `json:"seq"`
	From    State     `json:"from"`
	To      State     `json:"to"`
	At      time.Time `json:"at"`
	Rule    Rule      `json:"rule"`
	Trip    *Trip     `json:"trip,omitempty"`
	Hold    *holdText `json:"hold,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Dropped int       `json:"dropped,omitempty"`
}

type holdText struct {
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	For    string `json:"for,omitempty"`
}

func eventTextOf(e Event) eventText {
	t := eventText{Name: e.Breaker.Name(), Seq: e.Seq, From: e.From, To: e.To, At: e.At, Rule: e.Rule, Trip: e.Trip, Reason: e.Reason, Dropped: e.Dropped}
	if e.Hold != nil {
		t.Hold = &holdText{By: e.Hold.By, Reason: e.Hold.Reason}
		if e.Hold.For != 0 {
			t.Hold.For = e.Hold.For.String()
		}
	}
	return t
}

// inbox takes transitions on the goroutines of callers, who must wait neither for the feed nor for its clients: the lock is held
// for an append, and one client is woken, which tells the others.
type inbox struct {
	ready chan struct{}

	mu     sync.Mutex // guards the fields below
	events []Event
	lost   uint64
}

func (i *inbox) put(e Event) {
	i.mu.Lock()
	if len(i.events) < maxMoves {
		i.events = append(i.events, e)
	} else {
		i.lost++
	}
	i.mu.Unlock()
	select {
	case i.ready <- struct{}{}:
	default:
	}
}

func (i *inbox) take() (events []Event, lost uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	events, lost = i.events, i.lost
	i.events, i.lost = nil, 0
	return events, lost
}
