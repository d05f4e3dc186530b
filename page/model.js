// What the server has said, and what follows from it. No DOM here; server time is an argument.

export const samples = 120; // seconds of history that the page keeps, by itself: the server keeps totals only

// A series is the last values, one a second, oldest first; NaN where nothing was known.
class Series {
  #values = new Float32Array(samples).fill(NaN);
  #next = 0;

  push(v) {
    this.#values[this.#next] = v;
    this.#next = (this.#next + 1) % samples;
  }

  at(i) { return this.#values[(this.#next + i) % samples]; }

  get last() { return this.at(samples - 1); }

  // The mean of the values from seconds ago until then, NaN when none is known.
  mean(from, to = 0) {
    let sum = 0, n = 0;
    for (let i = samples - from; i < samples - to; i++) {
      const v = this.at(i);
      if (!Number.isNaN(v)) { sum += v; n++; }
    }
    return n ? sum / n : NaN;
  }

  max() {
    let top = 0;
    for (const v of this.#values) if (v > top) top = v;
    return top;
  }
}

const totals = (s) => {
  const m = s.metrics;
  return { calls: m.successful_calls + m.failed_calls + m.ignored_calls, bad: m.failed_calls, refused: m.rejected_calls };
};

export class Item {
  calls = new Series();
  bad = new Series();
  refused = new Series();
  strain = new Series();
  refusing = 0; // per second, over the last few
  #counted = null; // totals at the last tick, and when

  constructor(name) { this.name = name; }

  set(status) {
    this.status = status;
    this.at = Date.parse(status.at);
    const after = status.retry_after_seconds;
    this.due = after === undefined ? null : this.at + 1000 * after;
    this.text = haystack(this.name, status);
    this.group = group(this);
  }

  // tick closes a second: what the totals grew by is that second's pace. Totals that fell are those of a new breaker.
  tick(now) {
    const t = totals(this.status);
    const before = this.#counted;
    this.#counted = { ...t, now };
    const seconds = before ? (now - before.now) / 1000 : 0;
    const known = seconds > 0 && seconds < 10 && t.calls >= before.calls && t.refused >= before.refused;
    const grown = (key) => (known ? (t[key] - before[key]) / seconds : NaN);
    this.calls.push(grown("calls"));
    this.bad.push(grown("bad"));
    this.refused.push(grown("refused"));
    this.strain.push(strain(this.status).share);
    this.refusing = this.refused.mean(3) || 0;
    this.group = group(this);
  }

  // gap says that seconds have passed that nobody counted.
  gap() { this.#counted = null; }

  get held() { return this.status.state === "forced_open" || this.status.state === "disabled"; }
}

function haystack(name, s) {
  const errors = s.trip?.errors?.map((e) => e.text) ?? [];
  return [name, s.state, s.trip?.rule, s.trip?.reason, s.hold?.by, s.hold?.reason, ...errors].filter(Boolean).join("\n").toLowerCase();
}

const on = (v) => typeof v === "number";

// strain is how near the nearest rule is to opening a closed breaker: 1 is there.
export function strain(s) {
  const c = s.config;
  const known = s.failure_count + s.success_count;
  // Before minimum_calls a rate cannot open anything: it weighs as much as there are calls.
  const weight = Math.min(1, known / c.minimum_calls);
  const all = [{ rule: "none", share: 0 }];
  if (on(c.failure_threshold)) all.push({ rule: "consecutive_failures", share: s.consecutive_failures / c.failure_threshold });
  if (on(c.failure_rate_threshold) && on(s.failure_rate)) all.push({ rule: "failure_rate", share: (weight * s.failure_rate) / c.failure_rate_threshold });
  if (on(c.slow_call_rate_threshold) && on(s.slow_call_rate)) all.push({ rule: "slow_call_rate", share: (weight * s.slow_call_rate) / c.slow_call_rate_threshold });
  return all.reduce((a, b) => (b.share > a.share ? b : a));
}

// A closed breaker is getting worse when it is half way to opening, or a quarter and rising, or still ramping up.
export function group(item) {
  const s = item.status;
  if (s.state !== "closed") return "trouble";
  if (s.trip) return "worse";
  const now = strain(s).share;
  if (now >= 0.5 || (now >= 0.25 && rising(item))) return "worse";
  return "calm";
}

// rising compares the last seconds with the minute before them.
export function rising(item) {
  const before = item.strain.mean(60, 10);
  return !Number.isNaN(before) && item.strain.mean(5) - before > 0.1;
}

export const falling = (item) => item.strain.mean(60, 10) - item.strain.mean(5) > 0.1;

const severity = { open: 0, forced_open: 1, half_open: 2, disabled: 3, closed: 4 };
// Bucketed, so that rows do not change places with every call.
const bucket = (n) => (n < 0.5 ? 0 : Math.ceil(Math.log2(n + 1)));

// A key that sorts by trouble: the state, then how many callers it refuses, or how near it is to opening; then by name.
export function sortKey(item) {
  const s = item.status;
  if (s.state !== "closed") return [severity[s.state] ?? 4, -bucket(item.refusing)];
  return [4, item.group === "worse" ? -Math.round(strain(s).share * 5) : 0];
}

export function compare(a, b) {
  const [a1, a2] = a.key, [b1, b2] = b.key;
  return a1 - b1 || a2 - b2 || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
}

// since is when the breaker came to be as it is, in server time: the hold, the trip, or the last transition; null if it always was.
export function since(s) {
  if (s.hold) return Date.parse(s.hold.since);
  const moves = s.metrics.state_transitions;
  if (moves.length) return Date.parse(moves[moves.length - 1].time);
  return null;
}

// outage is when callers first met trouble: the last time it left closed. A half-open breaker may have been re-opened many times.
export function outage(s) {
  const moves = s.metrics.state_transitions;
  for (let i = moves.length - 1; i >= 0; i--) if (moves[i].from === "closed") return Date.parse(moves[i].time);
  return moves.length ? Date.parse(moves[0].time) : null;
}

// segments cuts the time since a while before the first known transition into stretches of one state each.
export function segments(s, now) {
  const moves = s.metrics.state_transitions.map((m) => ({ ...m, ms: Date.parse(m.time) }));
  if (!moves.length) return [{ state: s.state, from: null, to: now, share: 1 }];
  const first = moves[0].ms;
  const span = Math.max(now - first, 1000);
  const begin = first - span * 0.12;
  const out = [{ state: moves[0].from, from: null, to: first }];
  moves.forEach((m, i) => out.push({ state: m.to, from: m.ms, to: moves[i + 1]?.ms ?? now, rule: m.rule }));
  const whole = Math.max(now - begin, 1);
  for (const seg of out) seg.share = Math.max(0.008, (seg.to - (seg.from ?? begin)) / whole);
  return out.filter((seg, i) => i === out.length - 1 || seg.from === null || seg.to > seg.from);
}

// answers is who answered since the start: the upstream itself, and the fallbacks in the order of their size.
export function answers(s) {
  const fallbacks = Object.entries(s.metrics.fallbacks ?? {}).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
  if (!fallbacks.length) return [];
  const all = [["primary", s.metrics.successful_calls], ...fallbacks];
  const sum = all.reduce((n, [, k]) => n + k, 0);
  return all.map(([source, n]) => ({ source, count: n, share: sum ? n / sum : 0 }));
}

// Model is every breaker by name. Each method returns the items that it changed.
export class Model {
  items = new Map();

  snapshot(all) {
    const gone = [...this.items.keys()].filter((name) => !Object.hasOwn(all, name));
    this.removed(gone);
    for (const item of this.items.values()) item.gap();
    return { changed: this.status(all), gone };
  }

  status(some) {
    return Object.keys(some).map((name) => {
      let item = this.items.get(name);
      if (!item) this.items.set(name, (item = new Item(name)));
      item.set(some[name]);
      return item;
    });
  }

  risk(some) {
    const known = Object.keys(some).filter((name) => this.items.has(name));
    return known.map((name) => Object.assign(this.items.get(name), { risk: some[name] }));
  }

  removed(names) {
    for (const name of names) this.items.delete(name);
  }

  tick(now) {
    for (const item of this.items.values()) {
      item.tick(now);
      item.key = sortKey(item);
    }
  }

  summary() {
    const sum = { all: this.items.size, trouble: 0, worse: 0, held: 0, refusing: 0, refused: 0, oldest: null, states: {} };
    for (const item of this.items.values()) {
      const group = item.group;
      if (group !== "calm") sum[group]++;
      if (item.held) sum.held++;
      sum.refusing += item.refusing;
      sum.refused += item.status.metrics.rejected_calls;
      sum.states[item.status.state] = (sum.states[item.status.state] ?? 0) + 1;
      if (group === "trouble") {
        const began = outage(item.status) ?? item.at;
        if (sum.oldest === null || began < sum.oldest) sum.oldest = began;
      }
    }
    return sum;
  }
}

export function matches(item, words, filter) {
  if (filter === "held" && !item.held) return false;
  if ((filter === "trouble" || filter === "worse") && item.group !== filter) return false;
  return words.every((w) => item.text.includes(w));
}

// inOrder returns the indices of a longest rising run in places; -1 is no place.
export function inOrder(places) {
  const ends = []; // of the runs of each length, the index where the one that ends lowest ends
  const before = new Array(places.length);
  places.forEach((place, i) => {
    if (place < 0) return;
    let low = 0, high = ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (places[ends[middle]] < place) low = middle + 1;
      else high = middle;
    }
    before[i] = low ? ends[low - 1] : -1;
    ends[low] = i;
  });
  const run = new Set();
  for (let i = ends.at(-1) ?? -1; i >= 0; i = before[i]) run.add(i);
  return run;
}
