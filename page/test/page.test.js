// What the page must do whatever the breakers do: stay smooth, say when it is frozen, be of use without a mouse or eyes.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { findings, go, launch, missing, open, Row, until } from "./browser.js";

const options = { skip: missing, timeout: 600000 };
let server, browser;

before(async () => {
  if (missing) return;
  server = await go("./page/test/server");
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

const live = (page) => until(page, () => document.querySelector("#link-text").textContent === "Live");
const forget = async (page) => { assert.deepEqual(page.problems, []); await page.context().close(); };

test("a thousand breakers with ten changes a second stay smooth", options, async (t) => {
  const page = await open(browser, `${server.url}/crowd/`);
  await live(page);
  await until(page, () => document.querySelector('input[value="all"] + span b').textContent === "1,000");
  await until(page, () => document.querySelectorAll('.row[data-state="open"]').length > 5 && document.querySelectorAll('.row[data-state="closed"]').length === 100);
  await page.getByRole("button", { name: "Show more" }).last().click();
  await until(page, () => document.querySelectorAll('.row[data-state="closed"]').length > 300);
  const seen = await measured(page);
  assert.ok(seen.touched < 100 * seen.changes, `a change of state touches more than its row: ${JSON.stringify(seen)}`);
  t.diagnostic(`tasks over 50 ms, longest task's processor time in ms: ${JSON.stringify(seen)}`);
  if (process.env.MEASURE) assert.deepEqual(seen.long, [], "tasks over 50 ms");

  await page.getByRole("searchbox").fill("tenant-0123");
  await until(page, () => document.querySelectorAll(".row").length === 1);
  assert.equal(await page.locator(".name").textContent(), "tenant-0123 <b>4</b>", "markup is text");
  assert.equal(await page.locator(".name b").count(), 0);
  await forget(page);
});

// measured watches a page for four seconds, and until twenty rows have changed their state: the tasks that took over 50 ms, the
// most processor time that any took, how many rows changed, and how much of the list was touched for that. Only the last two do
// not depend on the machine.
async function measured(page) {
  await browser.startTracing(page, { categories: ["toplevel"] });
  const seen = await page.evaluate(() => new Promise((done) => {
    const long = [];
    const observer = new PerformanceObserver((list) => long.push(...list.getEntries().map((e) => Math.round(e.duration))));
    observer.observe({ entryTypes: ["longtask"] });
    let changes = 0, touched = 0;
    const states = new MutationObserver((all) => {
      touched += all.length;
      changes += all.filter((m) => m.attributeName === "data-state").length;
    });
    states.observe(document.getElementById("list"), { attributes: true, childList: true, characterData: true, subtree: true });
    const begun = performance.now();
    const look = setInterval(() => {
      if (changes <= 20 || performance.now() < begun + 4000) return; // a slow machine may take its time
      clearInterval(look);
      observer.disconnect();
      states.disconnect();
      done({ long, changes, touched });
    }, 100);
  }));
  const { traceEvents } = JSON.parse(String(await browser.stopTracing()));
  const main = new Set(traceEvents.filter((e) => e.name === "thread_name" && e.args.name === "CrRendererMain").map((e) => `${e.pid} ${e.tid}`));
  const tasks = traceEvents.filter((e) => e.tdur && e.name.endsWith("RunTask") && main.has(`${e.pid} ${e.tid}`));
  assert.ok(tasks.length > 100, "the trace has the page's tasks");
  return { ...seen, cpu: Math.round(Math.max(...tasks.map((e) => e.tdur)) / 1000) };
}

test("a page without news says that it is frozen, and goes on with a snapshot", options, async () => {
  const proxy = await cut(server.url);
  const page = await open(browser, `${proxy.url}/open/`);
  await live(page);
  proxy.stall();
  await until(page, () => document.querySelector("#frozen").textContent.startsWith("Frozen"));
  assert.match(await page.locator("#frozen").textContent(), /since \d\d:\d\d:\d\d/);
  assert.equal(await page.locator("#link-text").textContent(), "Frozen");
  assert.deepEqual(await findings(page), []);
  proxy.drop();
  proxy.flow();
  await live(page);
  assert.equal(await page.locator("#frozen").textContent(), "");
  assert.equal(await page.locator(".row").count(), 8);
  page.problems = page.problems.filter((p) => !/ERR_(INCOMPLETE|EMPTY|CONNECTION)/.test(p));
  await forget(page);
  proxy.close();
});

// cut is a proxy that can stop carrying bytes.
async function cut(target) {
  let stalled = false;
  const open = new Set();
  const server = createServer(async (req, res) => {
    if (stalled) return open.add(res);
    const answer = await fetch(target + req.url, { headers: { accept: req.headers.accept ?? "*/*" } });
    res.writeHead(answer.status, Object.fromEntries(answer.headers));
    open.add(res);
    try {
      for await (const part of answer.body) if (!stalled && !res.write(part)) await new Promise((ok) => res.once("drain", ok).once("close", ok));
    } catch { /* the other side has gone */ }
    res.end();
  });
  await new Promise((ok) => server.listen(0, "127.0.0.1", ok));
  const drop = () => { for (const res of open) res.destroy(); open.clear(); };
  return { url: `http://127.0.0.1:${server.address().port}`, stall: () => (stalled = true), flow: () => (stalled = false), drop, close: () => { drop(); server.close(); } };
}

test("who may give no orders is told so and offered none", options, async () => {
  const page = await open(browser, `${server.url}/read-only/`);
  await live(page);
  assert.equal(await page.locator("#operator").textContent(), "Read only");
  await page.getByRole("button", { name: "emails" }).click();
  assert.equal(await page.locator("button[data-order]").count(), 0);
  assert.match(await page.locator(".orders").first().textContent(), /did not authorise/);
  await forget(page);
});

test("it works by keyboard alone", options, async () => {
  const page = await open(browser, `${server.url}/closed/`);
  await live(page);
  await until(page, () => document.querySelectorAll(".row").length === 8);
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "find");
  await page.keyboard.type("search/Zürich");
  await until(page, () => document.querySelectorAll(".row").length === 1);
  const row = new Row(page, "search/Zürich");
  await page.keyboard.press("Tab"); // the filter
  await page.keyboard.press("Tab"); // the row
  await page.keyboard.press("Enter");
  assert.equal(await row.row.getByRole("button", { name: "search/Zürich" }).getAttribute("aria-expanded"), "true");
  await page.keyboard.press("Tab"); // the first order
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Force open…");
  await page.keyboard.press("Enter");
  await page.keyboard.type("by keyboard");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("dialog[open]").count(), 0);
  assert.equal(await row.text(".state"), "Closed", "Escape does nothing");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Force open…", "the focus is back");
  await page.keyboard.press("Enter");
  await page.keyboard.type("by keyboard");
  await page.keyboard.press("Enter");
  await row.is("Forced open");
  assert.match(await row.fact("Why it is forced open"), /by ann: by keyboard/);
  await row.order("Release…", "Release");
  await row.is("Closed");
  await forget(page);
});

test("an order that fails says so and changes nothing", options, async () => {
  const page = await open(browser, `${server.url}/closed/`);
  await live(page);
  await page.route("**/admin/**", (route) => route.fulfill({ status: 403, contentType: "application/json", body: '{"error": "breaker: not today"}' }));
  const row = new Row(page, "llm");
  await row.row.getByRole("button", { name: "llm" }).click();
  await row.row.getByRole("button", { name: "Trip…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Trip", exact: true }).click();
  await until(page, () => document.querySelector("#order-problem").textContent === "Not done: breaker: not today");
  assert.equal(await row.text(".state"), "Closed");
  assert.deepEqual(await findings(page), []);
  page.problems = page.problems.filter((p) => !p.includes("403"));
  await forget(page);
});

const looks = [
  { colorScheme: "light", viewport: { width: 1280, height: 900 } },
  { colorScheme: "dark", viewport: { width: 390, height: 844 } },
];
for (const look of looks) {
  for (const state of ["closed", "open", "half-open", "held"]) {
    test(`axe finds nothing: ${state}, ${look.colorScheme}, ${look.viewport.width} wide`, options, async () => {
      const page = await open(browser, `${server.url}/${state}/`, { ...look, reducedMotion: "reduce" });
      await live(page);
      if (state !== "closed") await until(page, () => document.querySelector('section[data-group="trouble"] .body'));
      assert.deepEqual(await findings(page), []);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "nothing sticks out at the side");
      assert.equal(await page.evaluate(() => document.getAnimations().length), 0, "nothing moves for those who do not want it");
      await forget(page);
    });
  }
}
