// Takes the pictures of docs/images: each of four states, light and dark, wide and narrow.
//
//	node shots.js [-dir docs/images] [-warm 60]

import { mkdirSync } from "node:fs";
import { parseArgs } from "node:util";
import { go, launch, open, top } from "./browser.js";

const { values } = parseArgs({ options: { dir: { type: "string", default: `${top}docs/images` }, warm: { type: "string", default: "60" } } });
mkdirSync(values.dir, { recursive: true });

const server = await go("./page/test/server");
const browser = await launch();
try {
  const pages = new Map();
  for (const state of ["closed", "open", "half-open", "held"]) {
    pages.set(state, await open(browser, `${server.url}/${state}/`, { reducedMotion: "reduce", timezoneId: "UTC" }));
  }
  await new Promise((later) => setTimeout(later, 1000 * Number(values.warm)));
  for (const [state, page] of pages) {
    for (const [width, viewport] of [["wide", { width: 1280, height: 860 }], ["narrow", { width: 390, height: 844 }]]) {
      await page.setViewportSize(viewport);
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        await page.screenshot({ path: `${values.dir}/${state}-${colorScheme}-${width}.png`, timeout: 120000 });
      }
    }
    if (page.problems.length) throw new Error(page.problems.join("\n"));
  }
} finally {
  await browser.close();
  await server.stop();
}
