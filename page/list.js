// The rows: one for each breaker, in three groups, by trouble.

import { compare, falling, inOrder, matches, outage, rising, strain } from "./model.js";
import { setAttr, setHidden, setText, spark } from "./chart.js";
import { Body } from "./body.js";
import { clock, count, duration, holdText, pace, percent, ruleText, stateName, tripText } from "./text.js";

const template = document.getElementById("row");
const autoOpen = 6; // rows in trouble that are open from the start
const firstRows = 100; // rows of a group that are shown, until more are asked for: what is not there costs no frame
const slice = 8; // ms of work at a time: a click never waits for longer

let ids = 0;

class Row {
  constructor(item, page, visible) {
    this.item = item;
    this.page = page;
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.row = this;
    const $ = (selector) => this.element.querySelector(selector);
    this.toggle = $(".toggle");
    [this.state, this.since, this.brief, this.pace] = [".state", ".since", ".brief", ".pace"].map($);
    [this.calls, this.bad] = $(".spark").children;
    this.article = this.element.firstElementChild;
    this.id = `b${++ids}`;
    this.toggle.id = `${this.id}-name`;
    setText($(".name"), item.name);
    setAttr(this.article, "aria-labelledby", this.toggle.id);
    this.toggle.addEventListener("click", () => {
      this.wanted = !this.body;
      this.open(this.wanted);
    });
    visible.observe(this.element);
    this.update();
  }

  open(yes) {
    if (yes === !!this.body) return;
    setAttr(this.toggle, "aria-expanded", String(yes));
    if (yes) {
      this.body = new Body(this.item, `${this.id}-body`, this.page);
      this.article.append(this.body.element);
      setAttr(this.toggle, "aria-controls", this.body.element.id);
    } else {
      this.body.element.remove();
      this.body = null;
      setAttr(this.toggle, "aria-controls", null);
    }
    this.element.classList.toggle("opened", yes);
  }

  // update follows a new status. A row out of sight only notes that it must.
  update() {
    this.stale = !this.shown;
    const { item } = this, s = item.status;
    if (this.element.dataset.state !== s.state) {
      this.element.dataset.state = s.state;
      setText(this.state, stateName(s.state));
      setAttr(this.state, "data-state", s.state);
    }
    if (this.stale) return;
    setText(this.brief, brief(item));
    this.body?.update();
    this.tick();
  }

  tick() {
    if (!this.shown) return;
    if (this.stale) return this.update();
    const { item } = this;
    const began = item.group === "trouble" ? outage(item.status) : null;
    const now = this.page.now();
    setText(this.since, began === null ? "" : `${this.page.frozen() ? "" : `${duration((now - began) / 1000)}, `}since ${clock(began, now)}`);
    const refusing = item.refusing > 0;
    setText(this.pace, refusing ? `${pace(item.refusing)} / s refused` : `${pace(item.calls.mean(3) || 0)} / s`);
    this.pace.classList.toggle("refusing", refusing);
    const top = Math.max(item.calls.max(), item.refused.max());
    spark(this.calls, item.calls, top, 24);
    spark(this.bad, item.group === "trouble" ? item.refused : item.bad, top, 24, false);
    this.body?.tick();
  }
}

// brief is why, in one line: it is there without opening the row.
function brief(item) {
  const s = item.status;
  if (s.hold) return `held ${holdText(s.hold)}`;
  if (s.state !== "closed") return s.trip ? tripText(s.trip) : "";
  if (s.trip) return `recovering from ${tripText(s.trip)}`;
  const { rule, share } = strain(s);
  const trend = rising(item) ? ", rising" : falling(item) ? ", falling" : "";
  if (item.group === "worse") return `${ruleText(rule)} at ${percent(Math.min(share, 1))} of its threshold${trend}`;
  return s.failure_rate ? `${percent(s.failure_rate)} failed` : "";
}

export class List {
  #rows = new Map();
  #dirty = new Set();
  #running = false;
  #shown = new Set(); // rows that can be seen, or nearly
  #arranged = -1e9; // when
  #later;

  constructor(model, page) {
    this.model = model;
    this.page = page;
    this.words = [];
    this.filter = "all";
    this.empty = document.getElementById("empty");
    this.sections = new Map([...document.querySelectorAll("section[data-group]")].map((s) => [s.dataset.group, { element: s, head: s.querySelector("h2"), title: s.querySelector("h2").textContent, list: s.querySelector("ul"), more: s.querySelector(".more"), limit: firstRows }]));
    for (const section of this.sections.values()) {
      section.more.addEventListener("click", () => {
        section.limit *= 4;
        this.arrange();
      });
    }
    this.visible = new IntersectionObserver((entries) => this.#seen(entries), { rootMargin: "200px" });
  }

  #seen(entries) {
    for (const e of entries) {
      const { row } = e.target;
      row.shown = e.isIntersecting;
      this.#shown[row.shown ? "add" : "delete"](row);
      if (row.shown && row.stale) this.#dirty.add(row.item);
    }
    this.#run();
  }

  changed(items) {
    for (const item of items) this.#dirty.add(item);
    this.#run();
  }

  removed(names) {
    for (const name of names) {
      const row = this.#rows.get(name);
      if (!row) continue;
      this.visible.unobserve(row.element);
      row.element.remove();
      this.#rows.delete(name);
      this.#shown.delete(row);
    }
  }

  // #run works through what is dirty in slices, a frame at a time.
  #run() {
    if (this.#running || !this.#dirty.size) return;
    this.#running = true;
    requestAnimationFrame(() => {
      const until = performance.now() + slice;
      let made = false;
      for (const item of this.#dirty) {
        if (performance.now() > until) break;
        this.#dirty.delete(item);
        made = this.#draw(item) || made;
      }
      this.#running = false;
      if (made) this.#soon();
      this.#run();
    });
  }

  // #soon arranges the rows at once, but not many times a second.
  #soon() {
    if (this.#later) return;
    this.#later = setTimeout(() => this.arrange(), Math.max(0, this.#arranged + 500 - performance.now()));
  }

  #draw(item) {
    if (this.model.items.get(item.name) !== item) return false;
    const row = this.#rows.get(item.name);
    if (row && row.item === item) {
      const group = row.element.dataset.group;
      row.update();
      return group !== item.group;
    }
    this.removed([item.name]);
    this.#rows.set(item.name, new Row(item, this.page, this.visible));
    return true;
  }

  search(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.arrange();
  }

  only(filter) {
    this.filter = filter;
    this.arrange();
  }

  tick() {
    for (const row of this.#shown) row.tick();
    this.arrange();
  }

  count() {
    for (const row of this.#shown) row.body?.count();
  }

  orders() {
    for (const row of this.#rows.values()) row.body?.orders();
  }

  // arrange puts every row where it belongs, and touches only those that are elsewhere.
  arrange() {
    clearTimeout(this.#later);
    this.#later = undefined;
    this.#arranged = performance.now();
    const groups = { trouble: [], worse: [], calm: [] };
    for (const row of this.#rows.values()) {
      row.item.key ??= [5, 0];
      const { group } = row.item;
      setAttr(row.element, "data-group", group);
      if (matches(row.item, this.words, this.filter)) groups[group].push(row);
      else if (row.element.parentNode) row.element.remove();
    }
    let shown = 0;
    for (const [name, rows] of Object.entries(groups)) {
      const section = this.sections.get(name);
      rows.sort((a, b) => compare(a.item, b.item));
      setHidden(section.element, !rows.length);
      setText(section.head, `${section.title} (${count(rows.length)})`);
      this.#place(section, rows);
      this.#open(name, rows);
      shown += rows.length;
    }
    setHidden(this.empty, shown > 0);
    if (!shown) setText(this.empty, this.#rows.size ? "No breaker matches." : this.page.started() ? "No breaker is registered yet. One appears when it is first asked for." : "");
  }

  #place({ list, more, limit }, rows) {
    const rest = rows.slice(limit);
    for (const { element } of rest) if (element.parentNode) element.remove();
    place(list, rest.length ? rows.slice(0, limit) : rows);
    setHidden(more, !rest.length);
    setText(more, `Show more: ${count(rest.length)} are not listed`);
  }

  // #open opens the first rows in trouble by itself. What is open stays so until the trouble is over, or somebody closes it.
  #open(group, rows) {
    let room = group === "trouble" ? autoOpen - rows.filter((row) => row.auto).length : 0;
    for (const row of rows) {
      row.auto = group === "trouble" && (row.auto || room-- > 0);
      row.open(row.wanted ?? row.auto);
    }
  }
}

// place moves as few as it can, and keeps the focus where it is: the longest run of rows that are in order stays.
function place(list, rows) {
  const at = new Map([...list.children].map((element, i) => [element, i]));
  const stays = inOrder(rows.map(({ element }) => at.get(element) ?? -1));
  let next = null;
  for (let i = rows.length - 1; i >= 0; i--) {
    const { element } = rows[i];
    if (!stays.has(i)) move(list, element, next);
    next = element;
  }
}

function move(list, element, next) {
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  if (list.moveBefore && element.isConnected) list.moveBefore(element, next);
  else list.insertBefore(element, next);
  if (focused && document.activeElement !== focused) focused.focus({ preventScroll: true });
}
