// The event stream: reconnects by itself, and knows when it has stopped.

const frozenAfter = 3500; // ms without a tick, which comes each second
const retryAfter = 10000; // ms without a tick until the connection is given up and another tried

export class Stream {
  #source;
  #handlers;
  #attempts = 0;
  #last = performance.now(); // when the last tick came, by a clock that nobody can set
  #opened = performance.now();
  #offset = null; // server time minus performance.now()
  #retry;

  // on is called with "snapshot", "status", "risk", "removed", "transition", "tick" or "session" and its data; link with "live",
  // "connecting" or "frozen" whenever that changes.
  constructor(url, on, link) {
    this.#handlers = { url, on, link };
    this.#connect();
    setInterval(() => this.#check(), 500);
    for (const wake of ["online", "visibilitychange"]) document.addEventListener(wake, () => this.#check());
  }

  // now is the server's time in ms, by its own ticks: the clock of this machine may be wrong.
  now() { return this.#offset === null ? Date.now() : performance.now() + this.#offset; }

  quietFor() { return performance.now() - this.#last; }

  #connect() {
    this.#source?.close();
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#opened = performance.now();
    const source = (this.#source = new EventSource(this.#handlers.url));
    for (const kind of ["snapshot", "status", "risk", "removed", "transition", "session", "tick"]) {
      source.addEventListener(kind, (e) => this.#take(kind, JSON.parse(e.data)));
    }
    source.onerror = () => this.#again();
  }

  #take(kind, data) {
    if (kind === "tick") {
      this.#last = performance.now();
      this.#offset = Date.parse(data.at) - this.#last;
      this.#attempts = 0;
    }
    this.#handlers.on(kind, data);
    if (kind === "tick") this.#show("live");
  }

  // EventSource retries a broken connection, but not an answer that is no stream, such as a proxy's 502: do all of it here.
  #again() {
    this.#source.close();
    if (this.#retry) return;
    const wait = Math.min(10000, 500 * 2 ** this.#attempts++) * (0.75 + Math.random() / 2);
    this.#retry = setTimeout(() => this.#connect(), wait);
    this.#check();
  }

  #check() {
    if (this.quietFor() < frozenAfter) return;
    this.#show(this.#offset === null ? "connecting" : "frozen");
    if (!this.#retry && Math.min(this.quietFor(), performance.now() - this.#opened) > retryAfter) this.#again();
  }

  #show(state) {
    if (state !== this.state) this.#handlers.link((this.state = state));
  }
}
