// Starts what the tests need: Chromium, and Go programs that say where they serve.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
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
  const child = spawn(build, args, { cwd: dir, stdio: ["ignore", "pipe", "pipe"] });
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
