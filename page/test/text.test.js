import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, duration, holdText, pace, percent, plural, ruleText, stateName, tripText, windowText } from "../text.js";
import { offered, path } from "../orders.js";

const plain = (s) => s.replaceAll("\u00a0", " ");

test("durations have the two largest units", () => {
  const want = { "-3": "0 s", 0.9: "0 s", 59.9: "59 s", 60: "1 min 0 s", 3599: "59 min 59 s", 3600: "1 h 0 min", 86399: "23 h 59 min", 90000: "1 d 1 h" };
  for (const [s, text] of Object.entries(want)) assert.equal(plain(duration(Number(s))), text);
});

test("numbers", () => {
  assert.equal(pace(0), "0");
  assert.equal(pace(0.01), "< 0.1");
  assert.equal(pace(9.44), "9.4");
  assert.equal(pace(1234.5), "1,235");
  assert.equal(plain(percent(0.034)), "3.4 %");
  assert.equal(plain(percent(0.62)), "62 %");
  assert.equal(plural(1, "call", "calls"), "1 call");
  assert.equal(plural(0, "call", "calls"), "0 calls");
});

test("each rule says why it opened, as the library's own texts do", () => {
  const trip = { observed: 0.62, threshold: 0.5, calls: 50 };
  assert.equal(tripText({ ...trip, rule: "failure_rate" }), "failure rate 0.62 ≥ 0.50 over 50 calls");
  assert.equal(tripText({ rule: "failure_rate", observed: 0.3333333, threshold: 0.333, calls: 3 }), "failure rate 0.333 ≥ 0.333 over 3 calls");
  assert.equal(tripText({ ...trip, rule: "slow_call_rate" }), "slow-call rate 0.62 ≥ 0.50 over 50 calls");
  assert.equal(tripText({ rule: "consecutive_failures", observed: 5, threshold: 5 }), "5 consecutive failures ≥ 5");
  assert.equal(tripText({ rule: "manual", reason: "drill" }), "tripped by hand: drill");
  assert.equal(tripText({ rule: "manual" }), "tripped by hand");
  assert.equal(tripText({ rule: "retry_after", observed: 12 }), "the upstream asked for a pause of 12 s");
  for (const rule of ["probe_failed", "probe_slow", "probe_lost", "probe_ignored"]) assert.match(tripText({ rule, observed: 3, threshold: 3 }), /probe/);
  assert.equal(tripText({ rule: "something_new" }), "something_new", "an unknown rule is shown as it is");
  assert.equal(ruleText("something_new"), "something_new");
  assert.equal(stateName("something_new"), "something_new");
});

test("holds", () => {
  assert.equal(holdText({ by: "ann", reason: "migration" }), "by ann: migration");
  assert.equal(holdText({ by: "ann" }), "by ann");
  assert.equal(holdText({}), "no reason given");
});

test("windows and clocks", () => {
  assert.equal(windowText({ window_calls: 100 }), "of the last 100 calls");
  assert.equal(plain(windowText({ window_seconds: 60 })), "of the last 1 min 0 s");
  const noon = new Date(2026, 2, 1, 12, 0, 0).getTime();
  assert.equal(clock(noon, noon + 1000), "12:00:00");
  assert.equal(clock(noon, noon + 100 * 3600 * 1000), "1 Mar, 12:00:00");
});

test("orders fit the state, and are none without leave", () => {
  const words = (s, may = true) => offered({ name: "a", ...s }, may).map(([w]) => w);
  assert.deepEqual(words({ state: "closed" }), ["force-open", "disable", "trip", "reset"]);
  assert.deepEqual(words({ state: "open" }), ["force-open", "disable", "reset"]);
  assert.deepEqual(words({ state: "forced_open", hold: {} }), ["release", "disable", "reset"]);
  assert.deepEqual(words({ state: "disabled", hold: {} }), ["release", "force-open", "reset"]);
  assert.deepEqual(words({ state: "closed" }, false), []);
  assert.deepEqual(words({ name: "..", state: "closed" }), [], "a browser cannot ask for it");
});

test("names are escaped in paths", () => {
  assert.equal(path("a/b c%?#<b>国", "trip"), "admin/circuit-breakers/a%2Fb%20c%25%3F%23%3Cb%3E%E5%9B%BD/trip");
});
