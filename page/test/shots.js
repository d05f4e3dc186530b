// Takes the pictures of docs/images: each of four states, light and dark, wide and narrow.
//
//	node shots.js [-dir docs/images] [-warm 40]

import { mkdirSync } from "node:fs";
import { parseArgs } from "node:util";
import { go, launch, top } from "./browser.js";

const { values } = parseArgs({ options: { dir: { type: "string", default: `${top}docs/images` }, warm: { type: "string", default: "40" } } });
mkdirSync(values.dir, { recursive: true });

const server = await go("./page/test/server");
const browser = await launch();
try {
  const pages = [];
  for (const state of ["closed", "open", "half-open", "held"]) {
    for (const scheme of ["light", "dark"]) {
      for (const [width, viewport] of [["wide", { width: 1280, height: 860 }], ["narrow", { width: 390, height: 844 }]]) {
        const context = await browser.newContext({ viewport, colorScheme: scheme, reducedMotion: "reduce", deviceScaleFactor: 1, timezoneId: "UTC", locale: "en-GB" });
        const page = await context.newPage();
        page.on("pageerror", (e) => { throw e; });
        page.on("console", (m) => { if (m.type() === "error") throw new Error(m.text()); });
        await page.goto(`${server.url}/${state}/`);
        pages.push({ page, path: `${values.dir}/${state}-${scheme}-${width}.png` });
      }
    }
  }
  await new Promise((later) => setTimeout(later, 1000 * Number(values.warm)));
  for (const { page, path } of pages) await page.screenshot({ path });
} finally {
  await browser.close();
  await server.stop();
}
