import assert from "node:assert/strict";
import { test } from "node:test";
import { answers, compare, group, inOrder, Item, matches, Model, outage, segments, since, strain } from "../model.js";

const second = 1000;
const start = Date.parse("2026-03-01T12:00:00Z");
const time = (ms) => new Date(ms).toISOString();

function status(name, changes = {}) {
  const { metrics, config, ...rest } = changes;
  return {
    name, state: "closed", failure_count: 0, success_count: 0, consecutive_failures: 0, half_open_successes: 0, at: time(start),
    config: { failure_threshold: 5, failure_rate_threshold: 0.5, minimum_calls: 10, window_calls: 100, success_threshold: 3, ...config },
    metrics: { total_calls: 0, successful_calls: 0, failed_calls: 0, ignored_calls: 0, rejected_calls: 0, slow_calls: 0, in_flight: 0, state_transitions: [], ...metrics },
    ...rest,
  };
}

function filled(...statuses) {
  const model = new Model();
  model.snapshot(Object.fromEntries(statuses.map((s) => [s.name, s])));
  model.tick(start);
  return model;
}

const move = (from, to, ms, rule) => ({ from, to, time: time(ms), rule });

test("a second's pace is what the totals grew by", () => {
  const model = filled(status("a"));
  model.status({ a: status("a", { metrics: { successful_calls: 6, failed_calls: 2, ignored_calls: 2, rejected_calls: 30 } }) });
  model.tick(start + 2 * second);
  const a = model.items.get("a");
  assert.equal(a.calls.last, 5);
  assert.equal(a.bad.last, 1);
  assert.equal(a.refused.last, 15);
  assert.equal(a.refusing, 15);
  model.tick(start + 3 * second);
  assert.equal(a.refused.last, 0, "no status is no call");
});

test("what nobody counted is unknown, not zero and not a spike", () => {
  const model = filled(status("a"));
  const more = (n) => ({ a: status("a", { metrics: { rejected_calls: n, successful_calls: n } }) });
  model.snapshot(more(1000)); // reconnected
  model.tick(start + 30 * second);
  assert.ok(Number.isNaN(model.items.get("a").refused.last));
  model.status(more(2000));
  model.tick(start + 60 * second); // the laptop slept
  assert.ok(Number.isNaN(model.items.get("a").refused.last));
  model.status(more(3)); // another process, or another breaker of that name
  model.tick(start + 61 * second);
  assert.ok(Number.isNaN(model.items.get("a").refused.last));
  assert.equal(model.items.get("a").refusing, 0);
});

test("a snapshot removes what it does not have", () => {
  const model = filled(status("a"), status("b"));
  const { gone } = model.snapshot({ b: status("b") });
  assert.deepEqual(gone, ["a"]);
  assert.deepEqual([...model.items.keys()], ["b"]);
});

test("names are data, whatever they are", () => {
  const model = filled(status("__proto__x"), status("constructor"), status("<b>"));
  assert.equal(model.items.size, 3);
  model.status(JSON.parse(`{"__proto__": ${JSON.stringify(status("__proto__"))}}`));
  assert.ok(model.items.has("__proto__"));
  const { gone } = model.snapshot({});
  assert.equal(gone.length, 4);
});

test("strain is the nearest rule's share of its threshold", () => {
  assert.deepEqual(strain(status("a")), { rule: "none", share: 0 });
  assert.deepEqual(strain(status("a", { consecutive_failures: 4 })), { rule: "consecutive_failures", share: 0.8 });
  assert.deepEqual(strain(status("a", { failure_count: 20, success_count: 80, failure_rate: 0.2 })), { rule: "failure_rate", share: 0.4 });
  assert.equal(strain(status("a", { failure_count: 1, success_count: 0, failure_rate: 1 })).share, 0.2, "one call of ten weighs a tenth");
  assert.equal(strain(status("a", { consecutive_failures: 50, config: { failure_threshold: "off" } })).share, 0);
  assert.equal(strain(status("a", { success_count: 10, slow_call_rate: 0.4, config: { slow_call_rate_threshold: 0.8 } })).rule, "slow_call_rate");
});

test("groups: not closed, getting worse, well", () => {
  const of = (changes) => group(filled(status("a", changes)).items.get("a"));
  assert.equal(of({}), "calm");
  for (const state of ["open", "half_open", "forced_open", "disabled"]) assert.equal(of({ state }), "trouble");
  assert.equal(of({ consecutive_failures: 3 }), "worse");
  assert.equal(of({ consecutive_failures: 2 }), "calm");
  assert.equal(of({ trip: { rule: "manual" } }), "worse", "it ramps up");
});

test("a quarter of the way is worse only while it rises", () => {
  const model = filled(status("a"));
  for (let s = 1; s < 40; s++) model.tick(start + s * second);
  model.status({ a: status("a", { consecutive_failures: 2 }) });
  for (let s = 40; s < 46; s++) model.tick(start + s * second);
  assert.equal(group(model.items.get("a")), "worse");
  for (let s = 46; s < 120; s++) model.tick(start + s * second);
  assert.equal(group(model.items.get("a")), "calm");
});

test("trouble comes first, the open one that refuses most before all", () => {
  const model = filled(
    status("well"), status("bad", { consecutive_failures: 4 }), status("held", { state: "forced_open" }), status("off", { state: "disabled" }),
    status("probing", { state: "half_open" }), status("quiet", { state: "open" }), status("loud", { state: "open" }));
  model.status({ loud: status("loud", { state: "open", metrics: { rejected_calls: 100 } }) });
  model.tick(start + second);
  assert.deepEqual([...model.items.values()].sort(compare).map((i) => i.name), ["loud", "quiet", "held", "probing", "off", "bad", "well"]);
});

test("rows do not change places for a call more or less", () => {
  const model = filled(status("a", { state: "open" }), status("b", { state: "open" }));
  for (let s = 1, a = 0, b = 0; s < 20; s++) {
    a += 9 + (s % 2);
    b += 10 - (s % 2);
    model.status({ a: status("a", { state: "open", metrics: { rejected_calls: a } }), b: status("b", { state: "open", metrics: { rejected_calls: b } }) });
    model.tick(start + s * second);
    assert.ok(compare(model.items.get("a"), model.items.get("b")) < 0);
  }
});

test("since when, and since when in trouble", () => {
  const moves = [move("closed", "open", start, "failure_rate"), move("open", "half_open", start + 30 * second, "open_timeout"), move("half_open", "open", start + 31 * second, "probe_failed")];
  const s = status("a", { state: "open", metrics: { state_transitions: moves } });
  assert.equal(since(s), start + 31 * second);
  assert.equal(outage(s), start);
  assert.equal(since(status("a")), null);
  assert.equal(since(status("a", { hold: { since: time(start + 5) } })), start + 5);
});

test("the strip is as wide as the states lasted", () => {
  const moves = [move("closed", "open", start, "failure_rate"), move("open", "half_open", start + 75 * second, "open_timeout"), move("half_open", "closed", start + 75 * second, "recovered")];
  const cut = segments(status("a", { metrics: { state_transitions: moves } }), start + 100 * second);
  assert.deepEqual(cut.map((c) => c.state), ["closed", "open", "closed"], "what lasted no time is not shown");
  assert.ok(Math.abs(cut[1].share / cut[2].share - 3) < 0.01);
  assert.deepEqual(segments(status("a"), start).map((c) => [c.state, c.share]), [["closed", 1]]);
});

test("who answered", () => {
  assert.deepEqual(answers(status("a", { metrics: { successful_calls: 10 } })), [], "without fallbacks there is no question");
  assert.deepEqual(answers(status("a", { metrics: { successful_calls: 50, fallbacks: { rule: 10, cache: 40, default: 0 } } })).map((p) => [p.source, p.share]), [["primary", 0.5], ["cache", 0.4], ["rule", 0.1]]);
});

test("the next probe is counted from the server's time", () => {
  const item = new Item("a");
  item.set(status("a", { state: "open", retry_after_seconds: 12.5 }));
  assert.equal(item.due, start + 12500);
  item.set(status("a"));
  assert.equal(item.due, null);
});

test("search finds names, errors, reasons and people", () => {
  const model = filled(status("payments", { state: "forced_open", hold: { by: "Ann", reason: "Migration", since: time(start) }, trip: { rule: "failure_rate", errors: [{ text: "Connection REFUSED", count: 3 }] } }), status("llm"));
  const find = (text, filter = "all") => [...model.items.values()].filter((i) => matches(i, text.toLowerCase().split(" ").filter(Boolean), filter)).map((i) => i.name);
  for (const text of ["pay", "ann", "migration", "refused connection", "failure_rate", "forced"]) assert.deepEqual(find(text), ["payments"], text);
  assert.deepEqual(find("", "held"), ["payments"]);
  assert.deepEqual(find("llm", "held"), []);
  assert.equal(find("").length, 2);
});

test("the summary", () => {
  const sum = filled(status("a", { state: "open", metrics: { rejected_calls: 7, state_transitions: [move("closed", "open", start - 60 * second, "failure_rate")] } }), status("b", { consecutive_failures: 4 }), status("c", { state: "disabled" })).summary();
  assert.deepEqual({ ...sum, states: undefined }, { all: 3, trouble: 2, worse: 1, held: 1, refusing: 0, refused: 7, oldest: start - 60 * second, states: undefined });
});

test("the longest run in order stays where it is", () => {
  const run = (places) => [...inOrder(places)].sort((a, b) => a - b);
  assert.deepEqual(run([]), []);
  assert.deepEqual(run([-1, -1]), [], "what is not there cannot stay");
  assert.deepEqual(run([0, 1, 2]), [0, 1, 2]);
  assert.deepEqual(run([1, 2, 3, 0]), [0, 1, 2], "one that went down moves alone");
  assert.deepEqual(run([3, 0, 1, 2]), [1, 2, 3], "as does one that went up");
  for (let seed = 1; seed < 300; seed++) {
    const places = Array.from({ length: seed % 9 }, (_, i) => ((seed * 7919 * (i + 3)) % 11) - 1);
    const kept = run(places).map((i) => places[i]);
    assert.ok(kept.every((p, i) => p >= 0 && (i === 0 || kept[i - 1] < p)));
    let longest = 0; // of all choices, by trying them
    for (let choice = 0; choice < 1 << places.length; choice++) {
      const chosen = places.filter((_, i) => choice & (1 << i));
      if (chosen.every((p, i) => p >= 0 && (i === 0 || chosen[i - 1] < p))) longest = Math.max(longest, chosen.length);
    }
    assert.equal(kept.length, longest, String(places));
  }
});
