// Starts what the tests need: Chromium, and Go programs that say where they serve.

import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

export const top = fileURLToPath(new URL("../..", import.meta.url));

const paths = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = paths.find((p) => p && existsSync(p));

// Why the tests cannot run, false if they can. Where CI is set that is an error: they must not be skipped there.
export const missing = executablePath ? false : "no Chromium: install Debian's chromium, or name one in CHROMIUM";
if (missing && process.env.CI) throw new Error(missing);

export function launch() {
  return chromium.launch({
    executablePath,
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-color-profile=srgb"],
  });
}

// go runs a program of this repository until stop, and returns the first URL that it prints.
export async function go(pkg, ...args) {
  const { build, dir } = await compiled(pkg);
  const { REDIS_URL, DATABASE_URL, OPENAI_BASE_URL, OLLAMA_HOST, ...env } = process.env; // only what is in the process
  const child = spawn(build, args, { cwd: dir, env, stdio: ["ignore", "pipe", "pipe"] });
  const said = [];
  const url = await new Promise((found, failed) => {
    for (const out of [child.stdout, child.stderr]) {
      createInterface({ input: out }).on("line", (line) => {
        said.push(line);
        const match = line.match(/https?:\/\/[\w.:[\]-]+/);
        if (match) found(match[0]);
      });
    }
    child.on("exit", (code) => failed(new Error(`${pkg} ended with ${code}:\n${said.join("\n")}`)));
  });
  return { url, said, stop: () => new Promise((ended) => { child.on("exit", ended); child.kill("SIGTERM"); }) };
}

async function compiled(pkg) {
  const build = `${top}bin/page-test/${pkg.replaceAll(/\W+/g, "-")}`;
  const child = spawn("go", ["build", "-o", build, pkg], { cwd: top, stdio: "inherit" });
  const code = await new Promise((ended) => child.on("exit", ended));
  if (code) throw new Error(`go build ${pkg} failed`);
  return { build, dir: top };
}

// open opens a page in a context of its own. What the browser complains about is in page.problems.
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: "en-GB", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(120000);
  page.problems = [];
  page.on("pageerror", (e) => page.problems.push(String(e)));
  page.on("console", (m) => ["error", "warning"].includes(m.type()) && page.problems.push(m.text()));
  page.on("request", (r) => new URL(r.url()).host === new URL(url).host || page.problems.push(`it asks for ${r.url()}`));
  await page.goto(url, { timeout: 120000 });
  return page;
}

// until waits for a function to be true inside the page.
export const until = (page, test, argument) => page.waitForFunction(test, argument, { polling: 100 });

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// findings are axe's, one line each.
export async function findings(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return violations.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.target}: ${n.failureSummary.replaceAll("\n", " ")}`));
}

// Row is a breaker's row on the page.
export class Row {
  constructor(page, name) {
    this.page = page;
    this.name = name;
    this.row = page.locator(".row", { has: page.locator(".name", { hasText: new RegExp(`^${name.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")}$`) }) });
  }

  is = (state) => this.row.locator(`.state:text-is("${state}")`).waitFor();
  text = (selector) => this.row.locator(selector).textContent();
  group = () => this.row.getAttribute("data-group");
  fact = (title) => this.row.locator(".fact", { has: this.page.locator(`dt:text-is("${title}")`) }).textContent();

  // refused is how many calls were, in all.
  async refused() { return Number((await this.text(".refused .note")).match(/[\d,]+/)[0].replaceAll(",", "")); }

  // refuses waits until callers are being refused.
  refuses = () => this.row.locator(".pace.refusing").waitFor();

  async order(label, go, { reason, time } = {}) {
    await this.row.getByRole("button", { name: label }).click();
    const dialog = this.page.getByRole("dialog");
    await dialog.waitFor();
    if (reason) await dialog.getByLabel(/Reason/).fill(reason);
    if (time) await dialog.getByRole("combobox").selectOption(time);
    await dialog.getByRole("button", { name: go, exact: true }).click();
    await dialog.waitFor({ state: "hidden" });
  }
}
