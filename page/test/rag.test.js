// The rag example through an outage, as somebody sees it who has this page and nothing else.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { after, before, test } from "node:test";
import { tmpdir } from "node:os";
import { findings, go, launch, missing, open, Row, top, until } from "./browser.js";

let server, browser, data, calling = true, calls;

before(async () => {
  if (missing) return;
  data = mkdtempSync(`${tmpdir()}/page-test-`);
  server = await go("./examples/rag", "serve", "-addr", "127.0.0.1:0", "-config", `${top}page/test/rag.yaml`, "-data", data);
  browser = await launch();
  calls = ask();
});

after(async () => {
  calling = false;
  await calls;
  await browser?.close();
  await server?.stop();
  if (data) rmSync(data, { recursive: true });
});

const post = (path, body) => fetch(server.url + path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

// ask is the users: some questions a second.
async function ask() {
  for (let n = 0; calling; n++) {
    await Promise.all([1, 2].map((i) => post("/chat", { message: `What is in package sort? ${n % 7} ${i}` }).then((r) => r.text()).catch(() => {})));
    await new Promise((later) => setTimeout(later, 60));
  }
}

test("an outage, from the first failure to the recovery", { skip: missing, timeout: 600000 }, async () => {
  assert.ok(server.said.some((line) => line.includes("live page")), "serve prints the page's address");
  const page = await open(browser, server.url + "/");
  const llm = new Row(page, "llm");
  await llm.is("Closed");
  await until(page, () => document.querySelector("#link-text").textContent === "Live");
  assert.match(await page.locator("#operator").textContent(), /may give orders as 127\.0\.0\.1/);
  assert.equal(await page.locator("#tile-trouble .number").textContent(), "0");

  // What is not closed and since when? Why did it open? When is the next probe? How many callers are being refused now?
  assert.equal((await post("/admin/faults/llm", { fault: "500" })).status, 200);
  await llm.is("Open");
  await until(page, () => document.querySelector("#tile-trouble .number").textContent === "1");
  assert.equal(await llm.group(), "trouble");
  assert.match(await llm.text(".since"), /since \d\d:\d\d:\d\d/);
  assert.match(await llm.fact("Why it opened"), /5 consecutive failures ≥ 5|a probe failed/);
  assert.match(await llm.fact("Why it opened"), /500/, "with the commonest error");
  assert.match(await llm.fact("Next probe"), /in \d+\ss|due now|probing now/);
  await llm.refuses();

  // Can I force it?
  await llm.order("Force open…", "Force open", { reason: "browser test <b>", time: "15m" });
  await llm.is("Forced open");
  assert.match(await llm.fact("Why it is forced open"), /by 127\.0\.0\.1: browser test <b>/);
  assert.match(await llm.fact("Hold ends"), /in 1[0-4]\smin/);
  const held = (await (await fetch(server.url + "/health/circuit-breakers/llm")).json()).hold;
  assert.equal(held.reason, "browser test <b>");
  assert.equal(Date.parse(held.until) - Date.parse(held.since), 15 * 60000);

  // Well again, but held: still refused.
  assert.equal((await post("/admin/faults/llm", { fault: "none" })).status, 200);
  const before = await llm.refused();
  await llm.refuses();
  await until(page, (n) => Number(document.querySelector('[aria-labelledby] .refused .note')?.textContent.match(/[\d,]+/)[0].replace(",", "")) > n, before);
  assert.deepEqual(await findings(page), []);

  await llm.order("Release…", "Release");
  await llm.is("Closed");
  await until(page, () => document.querySelector("#tile-trouble .number").textContent === "0");
  assert.match(await page.locator("#news").textContent(), /llm|Release/, "it is said to those who cannot see it");
  assert.match(await llm.text(".legend"), /cache|local-model/, "who answered meanwhile");
  assert.deepEqual(page.problems, []);
});
