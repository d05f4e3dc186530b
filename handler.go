package breaker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// HandlerOption changes what [Registry.Handler] makes.
type HandlerOption func(*handler)

// Authorize lets requests change breakers for which allow says yes, under the name it returns, which becomes Hold.By; without
// it nobody may. It is asked for each order, and once for each event client, whose page then offers what it may do; it runs on
// the request's goroutine and must be safe for concurrent use. Other web pages are kept out before it is asked.
func Authorize(allow func(r *http.Request) (who string, ok bool)) HandlerOption {
	return func(h *handler) { h.allow = allow }
}

// Handler returns a handler that shows the registry and takes orders:
//
//	GET  /                                        the live page, which needs the rest of these
//	GET  /health/circuit-breakers                 every breaker's Status, by name; always 200
//	GET  /health/circuit-breakers/{name}          one breaker's Status
//	POST /admin/circuit-breakers/{name}/{order}   reset, trip, force-open, disable or release, see Authorize
//
// An order may have a JSON body {"reason": "...", "for": "15m"}: for is how long a hold lasts, until it is released if left
// out. The answer is the Status after it. A name in a path is escaped, its slashes too; asking for an unknown one makes none.
//
// With "Accept: text/event-stream" the list becomes a stream: an event "snapshot" with every Status by name, then "transition"
// as they happen, "status" with those that changed and "removed" with names, at the latest a second after, "risk" with what
// [Assess] makes of each status sent, a "tick" each second and, once, "session": whom [Authorize] takes the client for, and
// whether it may give orders. A client that does not keep up is disconnected, and gets a snapshot when it is back. A stream ends
// with its request's context: have Server.RegisterOnShutdown cancel that, for Shutdown waits.
//
// Statuses are for everybody who can send a request, and hold error texts (see [WithErrorText]). Mount it below a prefix with
// [http.StripPrefix]; the page finds the rest by relative URLs.
func (r *Registry) Handler(opts ...HandlerOption) http.Handler {
	h := &handler{registry: r, feed: newFeed(r), patience: 10 * time.Second}
	for _, set := range opts {
		if set != nil {
			set(h)
		}
	}
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusForbidden, "this order comes from another web page: only this server's own page, or a client that is no browser, may give one")
	}))
	return secured(sameOrigin.Handler(http.HandlerFunc(h.route)))
}

type handler struct {
	registry *Registry
	allow    func(*http.Request) (string, bool)
	feed     *feed
	patience time.Duration // how long a piece of an event stream may take to be written
}

const (
	listPath  = "/health/circuit-breakers"
	orderPath = "/admin/circuit-breakers/"
)

// route goes by the path as it was sent: ServeMux would take a breaker named ".." for a step up, and "/" for the path's end.
func (h *handler) route(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	if path == "/" {
		path = "/page/index.html"
	}
	if file, ok := strings.CutPrefix(path, "/page/"); ok && pageFiles[file].name != "" {
		only(w, r, http.MethodGet, pageFiles[file].serve)
		return
	}
	if path == listPath {
		only(w, r, http.MethodGet, h.list)
		return
	}
	if name, ok := strings.CutPrefix(path, listPath+"/"); ok && isSegment(&name) {
		only(w, r, http.MethodGet, func(w http.ResponseWriter, _ *http.Request) { h.one(w, name) })
		return
	}
	rest, ok := strings.CutPrefix(path, orderPath)
	if name, word, found := strings.Cut(rest, "/"); ok && found && isSegment(&name) && isSegment(&word) {
		only(w, r, http.MethodPost, func(w http.ResponseWriter, r *http.Request) { h.order(w, r, name, word) })
		return
	}
	writeError(w, http.StatusNotFound, "nothing is here: see / and "+listPath)
}

// isSegment unescapes s, if it is one segment of a path.
func isSegment(s *string) bool {
	if *s == "" || strings.Contains(*s, "/") {
		return false
	}
	text, err := url.PathUnescape(*s)
	*s = text
	return err == nil
}

func (h *handler) allowed(r *http.Request) (who string, ok bool) {
	if h.allow == nil {
		return "", false
	}
	return h.allow(r)
}

func (h *handler) list(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	if r.Method == http.MethodGet && wantsEvents(r) {
		h.stream(w, r)
		return
	}
	all := make(map[string]Status)
	for name, b := range h.registry.All() {
		all[name] = b.Status()
	}
	writeJSON(w, http.StatusOK, all)
}

func wantsEvents(r *http.Request) bool {
	for accepted := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		if kind, params, err := mime.ParseMediaType(accepted); err == nil && kind == "text/event-stream" && params["q"] != "0" {
			return true
		}
	}
	return false
}

func (h *handler) one(w http.ResponseWriter, name string) {
	if b, ok := h.registry.Lookup(name); ok {
		writeJSON(w, http.StatusOK, b.Status())
		return
	}
	writeUnknown(w, name)
}

func writeUnknown(w http.ResponseWriter, name string) {
	writeError(w, http.StatusNotFound, fmt.Sprintf("there is no breaker %q: see /health/circuit-breakers for those there are", name))
}

// order is what an operator asks for.
type order struct {
	reason string
	lasts  time.Duration
}

// orders are what there is to ask for. Those that set a hold take a duration.
var orders = map[string]struct {
	holds bool
	carry func(b *Breaker, o order, who string)
}{
	"reset":      {false, func(b *Breaker, o order, who string) { b.Reset(o.why(who)) }},
	"trip":       {false, func(b *Breaker, o order, who string) { b.Trip(o.why(who)) }},
	"release":    {false, func(b *Breaker, _ order, _ string) { b.Release() }},
	"force-open": {true, func(b *Breaker, o order, who string) { b.ForceOpen(Hold{By: who, Reason: o.reason, For: o.lasts}) }},
	"disable":    {true, func(b *Breaker, o order, who string) { b.Disable(Hold{By: who, Reason: o.reason, For: o.lasts}) }},
}

// why is never empty where it is known who asked: Trip and Reset keep nothing else.
func (o order) why(who string) string {
	if o.reason == "" && who != "" {
		return "by " + who
	}
	return o.reason
}

func (h *handler) order(w http.ResponseWriter, r *http.Request, name, word string) {
	who, ok := h.allowed(r)
	if !ok {
		text := "this request may not change breakers: Authorize says no"
		if h.allow == nil {
			text = "nobody may change breakers here: the handler was made without the option Authorize"
		}
		writeError(w, http.StatusForbidden, text)
		return
	}
	what, ok := orders[word]
	if !ok {
		writeError(w, http.StatusNotFound, fmt.Sprintf("there is no order %q: want reset, trip, force-open, disable or release", word))
		return
	}
	b, ok := h.registry.Lookup(name)
	if !ok {
		writeUnknown(w, name)
		return
	}
	o, err := readOrder(w, r)
	if err == nil && o.lasts != 0 && !what.holds {
		err = orderError{http.StatusBadRequest, fmt.Sprintf(`"for" is how long a hold lasts: %s takes none, only force-open and disable do`, word)}
	}
	if bad, ok := errors.AsType[orderError](err); ok {
		writeError(w, bad.status, bad.text)
		return
	}
	h.registry.logger.Info("circuit breaker order", zap.String("name", b.Name()), zap.String("order", word), zap.String("by", who),
		zap.String("reason", o.reason), zap.Duration("for", o.lasts))
	what.carry(b, o, who)
	writeJSON(w, http.StatusOK, b.Status())
}

// maxOrder is how many bytes an order's body may have.
const maxOrder = 4 << 10

// orderError is why a body is not taken.
type orderError struct {
	status int
	text   string
}

func (e orderError) Error() string { return e.text }

// readOrder reads the body, which may be empty. Whatever it does not understand is an error: half an order is none.
func readOrder(w http.ResponseWriter, r *http.Request) (order, error) {
	if r.Body == nil { // a request that came from no server
		return order{}, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOrder))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return order{}, orderError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body has more than %d bytes: an order is short", maxOrder)}
	}
	if err != nil {
		return order{}, orderError{http.StatusBadRequest, "the body could not be read to its end"}
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return order{}, nil
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Header.Get("Content-Type") != "" && (err != nil || kind != "application/json") || r.Header.Get("Content-Encoding") != "" {
		return order{}, orderError{http.StatusUnsupportedMediaType, fmt.Sprintf("Content-Type %q is not taken: want application/json, not encoded", r.Header.Get("Content-Type"))}
	}
	o, err := parseOrder(body)
	if err != nil {
		return order{}, orderError{http.StatusBadRequest, `want a body such as {"reason": "migration", "for": "15m"}, or none: ` + err.Error()}
	}
	return o, nil
}

// parseOrder goes by tokens: an Unmarshal would take REASON for reason, and the last of two.
func parseOrder(body []byte) (o order, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return o, errors.New("this is no JSON object")
	}
	var seen []string
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return o, fmt.Errorf("this is no JSON object: %w", err)
		}
		if slices.Contains(seen, key.(string)) {
			return o, fmt.Errorf("%q is given twice", key)
		}
		seen = append(seen, key.(string))
		if err := o.set(key.(string), d); err != nil {
			return o, err
		}
	}
	if _, err := d.Token(); err != nil {
		return o, errors.New("the object does not end")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return o, errors.New("something follows the object")
	}
	return o, nil
}

func (o *order) set(key string, d *json.Decoder) error {
	if key != "reason" && key != "for" {
		return fmt.Errorf("%.40q is no field: want reason or for", key)
	}
	value, err := d.Token()
	text, ok := value.(string)
	if err != nil || !ok {
		return fmt.Errorf("%s must be a string", key)
	}
	if key == "reason" {
		o.reason = text
		return nil
	}
	if o.lasts, err = time.ParseDuration(text); err != nil || o.lasts <= 0 {
		return fmt.Errorf(`for is %.40q: want a duration above zero, such as "90s", "15m" or "1h30m"; leave it out for a hold without an end`, text)
	}
	return nil
}

// only answers 405 to other methods. GET includes HEAD.
func only(w http.ResponseWriter, r *http.Request, method string, serve http.HandlerFunc) {
	allow := method
	if method == http.MethodGet {
		allow = "GET, HEAD"
	}
	if !slices.Contains(strings.Split(allow, ", "), r.Method) {
		w.Header().Set("Allow", allow)
		writeError(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s is not for this path: want %s", r.Method, allow))
		return
	}
	serve(w, r)
}

// securityPolicy lets the page have its own files and nothing else: no inline code, no other host, no frame around it.
const securityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", securityPolicy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil { // none of the types that come here can fail
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(text, '\n'))
}

func writeError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, map[string]string{"error": "breaker: " + text})
}
