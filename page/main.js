import { Model } from "./model.js";
import { List } from "./list.js";
import { OrderDialog } from "./orders.js";
import { Stream } from "./stream.js";
import { setText } from "./chart.js";
import { clock, count, duration, pace, plural, ruleText, stateName, tripText } from "./text.js";

const $ = (id) => document.getElementById(id);
const model = new Model();
let session = null;
let started = false;

const page = {
  now: () => stream.now(),
  frozen: () => stream.state === "frozen",
  mayAct: () => !!session?.may_act,
  started: () => started,
};
const list = new List(model, page);
const orders = new OrderDialog((name, what) => say(`${what}: ${name}. The server has accepted it.`));

const take = {
  snapshot(all) {
    started = true;
    const { changed, gone } = model.snapshot(all);
    list.removed(gone);
    list.changed(changed);
    list.arrange();
  },
  status: (some) => list.changed(model.status(some)),
  risk: (some) => list.changed(model.risk(some)),
  removed(names) {
    model.removed(names);
    list.removed(names);
  },
  transition: (t) => told.push(t),
  session(s) {
    session = s;
    const who = s.who ? `as ${s.who}` : "";
    setText($("operator"), s.may_act ? `You may give orders ${who}`.trim() : "Read only");
    list.orders();
  },
  tick() {
    model.tick(stream.now());
    list.tick();
    summarise();
    announce();
  },
};

function link(state) {
  document.documentElement.dataset.link = state;
  $("link").dataset.link = state;
  setText($("link-text"), { live: "Live", connecting: "Connecting", frozen: "Frozen" }[state]);
  const since = performance.now() - stream.quietFor();
  setText($("frozen"), state === "frozen" ? `Frozen. No news from the server since ${clock(stream.now() - stream.quietFor(), stream.now())}: what you see is from then. Trying to reconnect.` : "");
  list.count();
  return since;
}

const stream = new Stream("health/circuit-breakers", (kind, data) => take[kind](data), link);

function tile(id, number, note, level) {
  const box = $(id);
  box.dataset.level = level;
  setText(box.querySelector(".number"), number);
  setText(box.querySelector(".note"), note);
}

function summarise() {
  const sum = model.summary();
  const kinds = Object.entries(sum.states).filter(([s]) => s !== "closed").map(([s, n]) => `${count(n)} ${stateName(s).toLowerCase()}`);
  tile("tile-trouble", count(sum.trouble), sum.trouble ? `${kinds.join(", ")}; the longest for ${duration((stream.now() - sum.oldest) / 1000)}` : `all ${plural(sum.all, "breaker is", "breakers are")} closed`, sum.trouble ? "bad" : "fine");
  tile("tile-worse", count(sum.worse), sum.worse ? "closed, but near a threshold or still recovering" : "no closed breaker is near a threshold", sum.worse ? "warn" : "fine");
  tile("tile-refused", `${pace(sum.refusing)} / s`, sum.refused ? `${count(sum.refused)} since the start` : "none since the start", sum.refusing > 0 ? "bad" : "fine");
  setText(document.querySelector("title"), sum.trouble ? `${count(sum.trouble)} not closed – circuit breakers` : "Circuit breakers");
  const counts = { all: sum.all, trouble: sum.trouble, worse: sum.worse, held: sum.held };
  for (const input of $("filter").querySelectorAll("input")) setText(input.nextElementSibling.querySelector("b"), count(counts[input.value]));
}

// Screen readers hear of transitions, but not of each in a flood: what happened in five seconds is said in one go.
const told = [];
let quietUntil = 0;

function announce() {
  if (!told.length || performance.now() < quietUntil) return;
  const latest = new Map(told.map((t) => [t.name, t]));
  const some = [...latest.values()].slice(-3).map((t) => `${t.name} is ${stateName(t.to).toLowerCase()}: ${t.to === "open" && t.trip ? tripText(t.trip) : ruleText(t.rule)}.`);
  if (latest.size > 3) some.push(`${count(latest.size - 3)} more breakers changed.`);
  told.length = 0;
  say(some.join(" "));
}

function say(text) {
  quietUntil = performance.now() + 5000;
  setText($("news"), text);
}

$("list").addEventListener("click", (e) => {
  const button = e.target.closest("button[data-order]");
  if (!button) return;
  const { row } = button.closest(".row");
  row.wanted = true; // it stays open, wherever the order takes it
  orders.ask(row.item.name, button.dataset.order);
});
let typing;
$("find").addEventListener("input", (e) => {
  clearTimeout(typing);
  typing = setTimeout(() => list.search(e.target.value), 120);
});
$("filter").addEventListener("change", (e) => list.only(e.target.value));
document.addEventListener("keydown", (e) => {
  if (e.key === "/" && !e.ctrlKey && !e.metaKey && !e.altKey && !/^(input|select|textarea)$/i.test(document.activeElement?.tagName ?? "")) {
    e.preventDefault();
    $("find").focus();
  }
});
setInterval(() => list.count(), 500);
