// Small pictures from the DOM API: no markup is ever parsed, so a name cannot become any.

import { samples } from "./model.js";
import { clock, duration, stateName, ruleText, count, percent } from "./text.js";

export function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) {
    if (k === "class") e.className = v;
    else e.setAttribute(k, v);
  }
  e.append(...children);
  return e;
}

// Each is written only when it changes: most of a page does not, from one second to the next.
export function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

export function setAttr(e, name, value) {
  if (value === null) e.removeAttribute(name);
  else if (e.getAttribute(name) !== value) e.setAttribute(name, value);
}

export function setHidden(e, hidden) {
  if (e.hidden !== hidden) e.hidden = hidden;
}

// spark draws the last values; a line that would lie on the ground all along is left out.
export function spark(line, series, top, height, ground = true) {
  const points = [];
  if (!ground && series.max() === 0) return setAttr(line, "points", "");
  const scale = (height - 3) / Math.max(top, 1);
  for (let i = 0; i < samples; i++) {
    const v = series.at(i);
    if (!Number.isNaN(v)) points.push(`${i},${(height - 1.5 - v * scale).toFixed(1)}`);
  }
  setAttr(line, "points", points.join(" "));
}

// strip shows the states one after another, each as wide as it lasted.
export function strip(box, segments, now) {
  while (box.children.length > segments.length) box.lastChild.remove();
  while (box.children.length < segments.length) box.append(el("span"));
  segments.forEach((s, i) => {
    const part = box.children[i];
    if (part.dataset.state !== s.state) part.dataset.state = s.state;
    part.style.flexGrow = s.share.toFixed(4);
    const began = s.from === null ? "before" : `from ${clock(s.from, now)}, ${s.rule ? ruleText(s.rule) : ""}`;
    setAttr(part, "title", `${stateName(s.state)} ${began}`);
  });
  setAttr(box, "aria-label", "Last states: " + segments.map((s) => `${stateName(s.state)} for ${s.from === null ? "some time" : duration((s.to - s.from) / 1000)}`).join(", "));
}

// meter shows a value against a threshold, which is at three quarters of its width.
export function meter(box, { label, value, threshold, text, note }) {
  if (!box.firstChild) {
    box.className = "meter";
    box.append(el("span", { class: "meter-label" }), el("span", { class: "meter-value" }), el("div", { class: "track", role: "meter" }, el("div", { class: "fill" }), el("div", { class: "mark" })));
  }
  const [name, shown, track] = box.children;
  setText(name, label);
  setText(shown, text);
  const share = threshold ? Math.min(value / threshold, 4 / 3) : 0;
  track.firstChild.style.width = `${(share * 75).toFixed(1)}%`;
  setAttr(box, "data-level", !threshold ? "off" : share >= 1 ? "over" : share >= 0.5 ? "near" : "fine");
  setAttr(track, "aria-label", label);
  setAttr(track, "aria-valuemin", "0");
  setAttr(track, "aria-valuemax", threshold ? String((threshold * 4) / 3) : "1");
  setAttr(track, "aria-valuenow", String(threshold ? Math.min(value, (threshold * 4) / 3) : 0));
  setAttr(track, "aria-valuetext", text + (note ? `, ${note}` : ""));
}

// stack shows who answered, as shares of one bar with a legend.
export function stack(box, legend, parts) {
  box.replaceChildren(...parts.map((p, i) => {
    const part = el("span", { "data-series": p.source === "primary" ? "primary" : String(i % 5), title: `${p.source}: ${count(p.count)}` });
    part.style.flexGrow = Math.max(p.share, 0.005);
    return part;
  }));
  setAttr(box, "aria-label", "Who answered: " + parts.map((p) => `${p.source} ${percent(p.share)}`).join(", "));
  legend.replaceChildren(...parts.map((p, i) => el("li", {},
    el("i", { "data-series": p.source === "primary" ? "primary" : String(i % 5), "aria-hidden": "true" }), el("span", {}, p.source), el("b", {}, count(p.count)), el("span", { class: "share" }, percent(p.share)))));
}
