package breaker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"
)

// RegistryConfig says which breakers a [Registry] holds and how they behave. [File].Breakers is one.
type RegistryConfig struct {
	// Default is for every name that Services does not mention.
	Default Config

	// Services are breakers that exist from the start, each with its own whole Config: here a zero field means the
	// library's default, not that of Default. (In a YAML file services do inherit from the default, key by key.)
	Services map[string]Config

	// MaxBreakers bounds how many breakers are registered, since names often come from callers' data. At least the number
	// of Services; zero means 10,000, or the number of Services if that is more. New services have a place in any case: when
	// all others must stay, the registry is larger by them until some fall idle.
	MaxBreakers int
}

const defaultMaxBreakers = 10_000

// resolve returns c with all defaults filled in, or everything that is wrong with it.
func (c RegistryConfig) resolve() (RegistryConfig, error) {
	bad := &ConfigError{}
	resolved := RegistryConfig{Services: make(map[string]Config, len(c.Services)), MaxBreakers: c.MaxBreakers}
	resolved.Default = bad.collect("default", c.Default)
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		path := "services." + name
		if err := checkName(name); err != nil {
			bad.Problems = append(bad.Problems, Problem{Key: path, Value: fmt.Sprintf("%.40q", name), Want: "a name of 1 to 256 bytes of UTF-8"})
		}
		resolved.Services[name] = bad.collect(path, c.Services[name])
	}
	if c.MaxBreakers == 0 {
		resolved.MaxBreakers = max(defaultMaxBreakers, len(c.Services))
	}
	if resolved.MaxBreakers < max(1, len(c.Services)) {
		bad.Problems = append(bad.Problems, Problem{Key: "MaxBreakers", Value: fmt.Sprint(c.MaxBreakers),
			Want: fmt.Sprintf("at least 1 and the number of configured services, which is %d", len(c.Services))})
	}
	if len(bad.Problems) > 0 {
		return RegistryConfig{}, bad
	}
	return resolved, nil
}

// collect resolves c and takes what is wrong with it under path.
func (e *ConfigError) collect(path string, c Config) Config {
	resolved, err := c.resolve()
	if found, ok := errors.AsType[*ConfigError](err); ok {
		for _, p := range found.Problems {
			p.Key = path + "." + p.Key
			e.Problems = append(e.Problems, p)
		}
	}
	return resolved
}

// Registry holds breakers by name and makes them when they are first asked for. It is bounded: when it is full, idle closed
// breakers make room, never one that is not closed, is held, has calls in flight, or was configured or registered by name.
// So keep the *Breaker of such a name only; ask for others anew with each call.
type Registry struct {
	opts      []Option
	logger    *zap.Logger // never nil
	listeners listeners
	members   sync.Map      // name to *member: read without the lock, changed under it
	overflow  atomic.Uint64 // unregistered breakers made

	mu     sync.Mutex     // guards the fields below
	config RegistryConfig // resolved
	ring   []*member      // all that are registered; the hand passes them in turn
	hand   int
	packed bool      // the last search for an idle one went all the way round in vain
	warned time.Time // when overflow was last logged
}

type member struct {
	name    string
	breaker *Breaker
	own     *Config     // given to Register, resolved; nil for others
	used    atomic.Bool // since the hand last passed
	place   int         // in the ring

	scraped atomic.Pointer[usual] // its series; nil until the first scrape
}

func (e *member) series() *usual {
	u := e.scraped.Load()
	if u == nil {
		u = newUsual(e.name)
		e.scraped.Store(u)
	}
	return u
}

// NewRegistry returns a registry with a breaker for each of cfg.Services. The options go to every breaker. The error, a
// *[ConfigError], lists everything that is wrong with cfg.
func NewRegistry(cfg RegistryConfig, opts ...Option) (*Registry, error) {
	resolved, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	var o options
	for _, set := range opts {
		if set != nil {
			set(&o)
		}
	}
	r := &Registry{opts: slices.Clone(opts), logger: o.logger, config: resolved}
	if r.logger == nil {
		r.logger = zap.NewNop()
	}
	r.addServicesLocked()
	return r, nil
}

// Breaker returns the breaker of that name, and makes it if there is none: with its service's Config, else the default. A name
// that is empty, not UTF-8 or over 256 bytes is cut and told apart by a hash. It never fails: when the registry is full of
// breakers that must stay, the new one works but is not registered, which [Registry.Unregistered] counts.
func (r *Registry) Breaker(name string) *Breaker {
	if e := r.lookup(name); e != nil {
		return e.breaker
	}
	b, full := r.create(cleanName(name))
	if full {
		r.warnFull(b.Name())
	}
	return b
}

// lookup returns the member of a name, and notes that it was used.
func (r *Registry) lookup(name string) *member {
	v, ok := r.members.Load(name)
	if !ok {
		return nil
	}
	e := v.(*member)
	if !e.used.Load() { // a shared cache line is written once a sweep, not once a call
		e.used.Store(true)
	}
	return e
}

func (r *Registry) create(name string) (b *Breaker, full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.lookup(name); e != nil {
		return e.breaker, false
	}
	e := r.newMemberLocked(name, nil, nil)
	if !r.makeRoomLocked() {
		return e.breaker, true
	}
	r.insertLocked(e)
	return e.breaker, false
}

func (r *Registry) warnFull(name string) {
	count := r.overflow.Add(1)
	r.mu.Lock()
	now := time.Now()
	quiet := !r.warned.IsZero() && now.Sub(r.warned) < time.Minute
	if !quiet {
		r.warned = now
	}
	limit := r.config.MaxBreakers
	r.mu.Unlock()
	if !quiet {
		r.logger.Warn("circuit breaker registry is full: this breaker works but is not registered; raise MaxBreakers or use fewer names",
			zap.String("name", name), zap.Int("max_breakers", limit), zap.Uint64("unregistered_so_far", count))
	}
}

// Unregistered returns how many breakers were made without a place, because the registry was full of breakers that must stay.
func (r *Registry) Unregistered() uint64 { return r.overflow.Load() }

// Register makes a breaker with a Config and further options of its own. It is never evicted. An existing name, a bad name, a
// bad cfg (*[ConfigError]), the name of a service or a full registry is an error. [Registry.Apply] goes back to cfg, whatever
// [Breaker.Apply] has changed since, unless there is a service of that name by then.
func (r *Registry) Register(name string, cfg Config, opts ...Option) (*Breaker, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	resolved, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lookup(name) != nil {
		return nil, fmt.Errorf("breaker: %q is registered already: use Lookup, or Remove it first", name)
	}
	if _, configured := r.config.Services[name]; configured {
		return nil, fmt.Errorf("breaker: %q is configured as a service: change that, or use Breaker", name)
	}
	if !r.makeRoomLocked() {
		return nil, fmt.Errorf("breaker: no room for %q: all %d breakers must stay; raise MaxBreakers", name, len(r.ring))
	}
	e := r.newMemberLocked(name, &resolved, opts)
	r.insertLocked(e)
	return e.breaker, nil
}

// Lookup returns the breaker of that name, if it is registered. It makes none.
func (r *Registry) Lookup(name string) (*Breaker, bool) {
	e := r.lookup(cleanName(name))
	if e == nil {
		return nil, false
	}
	return e.breaker, true
}

// Remove takes a breaker out of the registry, whatever its state, and reports whether it was there. Who holds it can still use
// it; whoever asks for the name again gets a new one.
func (r *Registry) Remove(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.lookup(cleanName(name))
	if e == nil {
		return false
	}
	r.removeLocked(e)
	return true
}

// All returns the registered breakers, sorted by name, as they are when the loop begins.
func (r *Registry) All() iter.Seq2[string, *Breaker] {
	return func(yield func(string, *Breaker) bool) {
		for _, e := range r.sorted() {
			if !yield(e.name, e.breaker) {
				return
			}
		}
	}
}

func (r *Registry) sorted() []*member {
	r.mu.Lock()
	all := slices.Clone(r.ring)
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b *member) int { return strings.Compare(a.name, b.name) })
	return all
}

// Subscribe is [Breaker.Subscribe] for every breaker, present and future. Events of one breaker come one at a time; those of
// several may come at once, so f must be safe for concurrent use.
func (r *Registry) Subscribe(f func(Event)) (stop func()) { return r.listeners.add(f) }

// Apply changes the settings of every breaker as [Breaker.Apply] does; new services are made. All or nothing: an error, a
// *[ConfigError], changes nothing. A service that cfg no longer has keeps its state and falls to the Config it was registered
// with, else to the default.
func (r *Registry) Apply(cfg RegistryConfig) error {
	resolved, err := cfg.resolve()
	if err != nil {
		return err
	}
	for _, e := range r.applyResolved(resolved) {
		e.breaker.notify()
	}
	return nil
}

// applyResolved returns the breakers it changed: their listeners must be called, and not under the lock.
func (r *Registry) applyResolved(resolved RegistryConfig) []*member {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.config = resolved
	for _, e := range r.ring {
		e.breaker.applyResolved(r.configOfLocked(e.name, e.own))
	}
	r.addServicesLocked()
	return slices.Clone(r.ring)
}

func (r *Registry) configOfLocked(name string, own *Config) Config {
	if c, ok := r.config.Services[name]; ok {
		return c
	}
	if own != nil {
		return *own
	}
	return r.config.Default
}

func (r *Registry) newMemberLocked(name string, own *Config, opts []Option) *member {
	all := slices.Concat(r.opts, opts, []Option{func(o *options) { o.shared = &r.listeners }})
	return &member{name: name, breaker: newBreaker(name, r.configOfLocked(name, own), all), own: own}
}

func (r *Registry) insertLocked(e *member) {
	e.place = len(r.ring)
	r.ring = append(r.ring, e)
	r.members.Store(e.name, e)
}

// removeLocked gives the place of e to the last in the ring.
func (r *Registry) removeLocked(e *member) {
	r.members.Delete(e.name)
	last := len(r.ring) - 1
	r.ring[e.place] = r.ring[last]
	r.ring[e.place].place = e.place
	r.ring[last] = nil
	r.ring = r.ring[:last]
}

// addServicesLocked makes the breakers that are configured by name. They have a place in any case, over the limit if all that are
// there must stay: a reload must not fail for what callers did.
func (r *Registry) addServicesLocked() {
	for _, name := range slices.Sorted(maps.Keys(r.config.Services)) {
		if r.lookup(name) == nil {
			r.makeRoomLocked()
			r.insertLocked(r.newMemberLocked(name, nil, nil))
		}
	}
}

const packedSearch = 64

// makeRoomLocked sees to it that one more breaker fits, and reports whether it does. The hand goes round the ring: a breaker
// that was used since it last passed is spared in the first round, and the first idle one makes room. Two rounds without one
// mean full; after that each search goes on for a few steps only, so that a full registry does not search all the time.
func (r *Registry) makeRoomLocked() bool {
	twice := 2 * len(r.ring)
	if r.packed {
		twice = min(twice, packedSearch)
	}
	for passed := 0; len(r.ring) >= r.config.MaxBreakers; passed++ {
		if passed > twice {
			r.packed = true
			return false
		}
		r.hand %= len(r.ring)
		e := r.ring[r.hand]
		spared := e.used.Swap(false) && passed < twice/2
		if !spared && !r.mustStayLocked(e) {
			r.removeLocked(e)
		}
		r.hand++
	}
	r.packed = false
	return true
}

func (r *Registry) mustStayLocked(e *member) bool {
	_, configured := r.config.Services[e.name]
	return configured || e.own != nil || !e.breaker.idle()
}

// cleanName returns name if it can be one, else as much of it as fits and a hash of it all.
func cleanName(name string) string {
	if checkName(name) == nil {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	suffix := fmt.Sprintf("#%x", sum[:8])
	short := strings.ToValidUTF8(name[:min(len(name), maxName)], "\uFFFD")
	end := min(len(short), maxName-len(suffix))
	for end > 0 && end < len(short) && !utf8.RuneStart(short[end]) {
		end--
	}
	return short[:end] + suffix
}

// watchInterval is how often Watch reads its file. Reading beats waiting for notices of change: it works on every file system,
// through replaced links and mounted secrets, and costs a few microseconds.
const watchInterval = time.Second

// Watch keeps the registry at what the YAML file says (see [LoadFile]) until ctx is done, and returns ctx's error. It applies
// the file at once and whenever its content has changed and stood still for a second, so a half-written file is not taken for
// a whole one. A file that cannot be read or is wrong is logged, once for each content, and changes nothing. MaxBreakers stays.
// Listeners that Apply has to call run on Watch's goroutine.
func (r *Registry) Watch(ctx context.Context, path string) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	var seen, taken reading
	for ctx.Err() == nil {
		now := read(path)
		if settled := now == seen || seen == (reading{}); settled && now != taken {
			r.take(path, now)
			taken = now
		}
		seen = now
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return ctx.Err()
}

// reading is what was found at a path. The zero value is none yet.
type reading struct {
	content string
	problem string // why it could not be read
	done    bool
}

func read(path string) reading {
	content, err := readFile(path)
	if err != nil {
		return reading{problem: err.Error(), done: true}
	}
	return reading{content: string(content), done: true}
}

// take applies what was read, or says why not.
func (r *Registry) take(path string, found reading) {
	err := errors.New(found.problem)
	if found.problem == "" {
		err = r.applyFile(found.content)
	}
	if err != nil {
		r.logger.Error("circuit breaker configuration not reloaded: the settings in force stay", zap.String("path", path), zap.Error(err))
		return
	}
	r.logger.Info("circuit breaker configuration loaded", zap.String("path", path))
}

func (r *Registry) applyFile(content string) error {
	file, err := ParseFile([]byte(content))
	if err != nil {
		return err
	}
	r.mu.Lock()
	file.Breakers.MaxBreakers = r.config.MaxBreakers
	r.mu.Unlock()
	return r.Apply(file.Breakers)
}
