// The opened part of a row: everything about one breaker.

import { answers, segments, since, strain } from "./model.js";
import { el, meter, setAttr, setHidden, setText, spark, stack, strip } from "./chart.js";
import { clock, count, duration, holdText, pace, percent, plural, ruleText, stateName, states, tripText, windowText } from "./text.js";
import { addressable, offered } from "./orders.js";

const template = document.getElementById("body");

export class Body {
  #drawn = {}; // what parts were made of, to leave those alone that have not changed

  constructor(item, id, page) {
    this.item = item;
    this.page = page;
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.id = id;
    const $ = (selector) => this.element.querySelector(selector);
    [this.refused, this.why, this.probe] = [".refused", ".why", ".probe"].map((f) => {
      const [head, told] = $(f).children;
      return [head, ...told.children];
    });
    this.$ = $;
    setAttr($(".orders"), "aria-label", `Orders for ${item.name}`);
    this.update();
  }

  // update follows a new status.
  update() {
    const s = this.item.status;
    this.#why(s);
    this.#meters(s);
    const parts = answers(s);
    setHidden(this.$(".answers"), !parts.length);
    if (this.#changed("answers", parts)) stack(this.$(".stack"), this.$(".legend"), parts);
    this.#moves(s);
    this.#risk(this.item.risk);
    this.orders();
    this.tick();
  }

  #changed(what, value) {
    const text = JSON.stringify(value);
    if (this.#drawn[what] === text) return false;
    this.#drawn[what] = text;
    return true;
  }

  // tick follows the clock.
  tick() {
    const { item } = this;
    const m = item.status.metrics;
    setText(this.refused[1], `${pace(item.refusing)} / s`);
    setText(this.refused[2], `${count(m.rejected_calls)} in all, of ${plural(m.total_calls, "call", "calls")}`);
    const [calls, bad] = this.$(".calls-chart").children;
    const top = item.calls.max();
    spark(calls, item.calls, top, 40);
    spark(bad, item.bad, top, 40, false);
    spark(this.$(".refusals"), item.refused, item.refused.max(), 40);
    const callsNow = item.calls.mean(3) || 0, badNow = item.bad.mean(3) || 0;
    setText(this.$(".calls-now"), `${pace(callsNow)} · ${pace(badNow)} failed`);
    setText(this.$(".refused-now"), pace(item.refusing));
    setAttr(this.$(".calls-chart"), "aria-label", `Let through a second: now ${pace(callsNow)}, of which ${pace(badNow)} failed; at most ${pace(top)}`);
    setAttr(this.$(".refused-chart"), "aria-label", `Refused a second: now ${pace(item.refusing)}, at most ${pace(item.refused.max())}`);
    const now = this.page.now();
    strip(this.$(".strip"), segments(item.status, now), now);
    this.count();
  }

  // count is the countdown, which goes by the server's clock and stands still when the server is silent.
  count() {
    const s = this.item.status;
    const [head, value, note, bar] = this.probe;
    const left = this.item.due === null ? null : Math.max(0, this.item.due - this.page.now()) / 1000;
    setText(head, s.state === "forced_open" || s.state === "disabled" ? "Hold ends" : "Next probe");
    setText(value, probeText(s, left, this.page));
    setText(note, probeNote(s, this.item, this.page.now()));
    setHidden(bar, s.state !== "open" || left === null);
    if (bar.hidden) return;
    const began = since(s) ?? this.item.at;
    const whole = Math.max(1, (this.item.due - began) / 1000);
    bar.firstChild.style.width = `${Math.min(100, 100 - (100 * left) / whole).toFixed(1)}%`;
  }

  #why(s) {
    const [head, text, note, errors] = this.why;
    const under = s.hold && s.trip;
    setText(head, s.hold ? (s.state === "disabled" ? "Why it is disabled" : "Why it is forced open") : s.trip || s.state !== "closed" ? "Why it opened" : "Nearest rule");
    if (s.hold) setText(text, holdText(s.hold));
    else if (s.trip) setText(text, tripText(s.trip));
    else setText(text, nearest(s));
    setText(note, under ? `Below the hold: ${tripText(s.trip)}` : whyNote(s));
    const list = s.trip?.errors ?? [];
    if (this.#changed("errors", list)) {
      errors.replaceChildren(...list.map((e) => el("li", {}, el("b", {}, `${count(e.count)} ×`), el("span", {}, e.text))));
    }
    setHidden(errors, !list.length);
  }

  #meters(s) {
    const c = s.config, box = this.$(".meters");
    while (box.children.length < 3) box.append(el("div"));
    const [rate, run, slow] = box.children;
    const off = (v) => typeof v !== "number";
    meter(rate, {
      label: "Failure rate", value: s.failure_rate ?? 0, threshold: off(c.failure_rate_threshold) ? 0 : c.failure_rate_threshold,
      text: `${s.failure_rate === undefined ? "–" : percent(s.failure_rate)}${off(c.failure_rate_threshold) ? ", rule is off" : ` of ${percent(c.failure_rate_threshold)}`}`,
    });
    meter(run, {
      label: "Failures in a row", value: s.consecutive_failures, threshold: off(c.failure_threshold) ? 0 : c.failure_threshold,
      text: `${count(s.consecutive_failures)}${off(c.failure_threshold) ? ", rule is off" : ` of ${count(c.failure_threshold)}`}`,
    });
    const slowOff = off(c.slow_call_duration_threshold) || off(c.slow_call_rate_threshold);
    setHidden(slow, slowOff);
    if (!slowOff) {
      meter(slow, {
        label: `Slower than ${slowLimit(c.slow_call_duration_threshold)}`, value: s.slow_call_rate ?? 0, threshold: c.slow_call_rate_threshold,
        text: `${s.slow_call_rate === undefined ? "–" : percent(s.slow_call_rate)} of ${percent(c.slow_call_rate_threshold)}`,
      });
    }
    const known = s.failure_count + s.success_count;
    const frozen = s.trip && s.state !== "closed" ? ", as it was when it opened" : "";
    const few = known < c.minimum_calls ? `; rates count from ${count(c.minimum_calls)} calls on` : "";
    setText(this.$(".window"), `${count(s.failure_count)} of ${plural(known, "call", "calls")} failed, ${windowText(c)}${frozen}${few}`);
  }

  #moves(s) {
    const list = s.metrics.state_transitions.slice(-5).reverse();
    if (!this.#changed("moves", list)) return;
    const now = this.page.now();
    const box = this.$(".moves");
    box.replaceChildren(...list.map((m) => el("li", {}, el("time", { datetime: m.time }, clock(Date.parse(m.time), now)), el("span", { class: "to", "data-state": m.to }, stateName(m.to)), el("span", { class: "rule" }, ruleText(m.rule)))));
    if (!list.length) box.append(el("li", {}, el("span", { class: "rule" }, "Never left closed")));
  }

  // #risk is what alerts go by.
  #risk(risk) {
    const box = this.$(".risk");
    setHidden(box, !risk?.score);
    if (!risk?.score || !this.#changed("risk", risk)) return;
    box.replaceChildren(el("b", { "data-level": risk.level }, `Risk ${risk.score} of 100, ${risk.level}`), `: ${risk.reasons.join("; ")}`);
  }

  orders() {
    const box = this.$(".orders");
    const words = offered(this.item.status, this.page.mayAct());
    if (!this.#changed("orders", words)) return;
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.order : null;
    box.replaceChildren(...words.map(([word, label]) => el("button", { type: "button", "data-order": word, "aria-haspopup": "dialog" }, label)));
    if (focused) (box.querySelector(`[data-order="${focused}"]`) ?? box.firstElementChild)?.focus();
    if (!words.length) box.append(el("p", { class: "note" }, this.page.mayAct() ? addressable.why : "Orders are not for you here: the server did not authorise this page to give any."));
  }
}

const slowLimit = (ms) => (ms < 1000 ? `${count(ms)} ms` : `${pace(ms / 1000)} s`);

function probeText(s, left, page) {
  const time = left === null ? null : page.frozen() ? "?" : left < 1 ? "due now" : `in ${duration(Math.ceil(left))}`;
  switch (s.state) {
    case "open": return time ?? "when the wait is over";
    case "half_open": return "probing now";
    case "forced_open":
    case "disabled": return s.hold?.until ? `in ${page.frozen() ? "?" : duration((Date.parse(s.hold.until) - page.now()) / 1000)}` : "when released";
  }
  return s.trip ? "none: recovering" : "none needed";
}

function probeNote(s, item, now) {
  const c = s.config;
  switch (s.state) {
    case "open": return item.due === null ? "" : `at ${clock(item.due, now)}; a call that comes then is the probe`;
    case "half_open": return `${count(s.half_open_successes)} of ${plural(c.success_threshold, "success", "successes")} needed to close; ${plural(s.metrics.in_flight, "call", "calls")} in flight`;
    case "forced_open":
    case "disabled": return s.hold?.until ? `at ${clock(Date.parse(s.hold.until), now)}` : "it has no end of its own";
  }
  return s.trip ? `a growing share of calls goes through, all of them after ${duration(c.ramp_up_seconds ?? 0)}` : "";
}

function nearest(s) {
  const { rule, share } = strain(s);
  return share === 0 ? "none is near" : `${ruleText(rule)}: ${percent(Math.min(share, 1))} of the way to opening`;
}

function whyNote(s) {
  if (s.hold) return states[s.state].means;
  if (!s.trip) return "";
  return `at ${clock(Date.parse(s.trip.at), Date.parse(s.at))}`;
}
