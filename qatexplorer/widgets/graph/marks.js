// Fake quants and other small signs as SVG elements.

import { svg } from "../common/dom.js";
import { MAX_ITEM_MARKS } from "./budget.js";

/**
 * @typedef {import("./scene.js").Index} Index
 * @typedef {import("./scene.js").Item} Item
 * @typedef {import("./scene.js").Kind} Kind
 * @typedef {import("./layered.js").Point} Point
 * @typedef {import("../common/dom.js").Attributes} Attributes
 */

const LETTERS = { weight: "W", input: "I", output: "A" };

/**
 * @param {number} x
 * @param {number} y
 * @param {string} className
 * @param {string} text
 */
export const svgText = (x, y, className, text) => svg("text", { x, y, class: className, text });

/** @param {Kind} kind */
function shapeOf(kind) {
  if (kind === "weight") return svg("rect", { x: -8, y: -8, width: 16, height: 16, rx: 2 });
  if (kind === "input") return svg("path", { d: "M0 -10 L10.5 8.5 L-10.5 8.5 Z" });
  return svg("circle", { r: 8.5 });
}

/**
 * A fake quant: square, triangle or circle with its letter, 16 px around (x, y).
 * @param {{ kind: Kind, letter: string, changed?: boolean, off?: boolean }} site
 * @param {number} x
 * @param {number} y
 * @param {Attributes} [attributes]
 */
export function drawMark(site, x, y, attributes = {}) {
  const shape = shapeOf(site.kind);
  shape.setAttribute("class", "qxg-shape");
  const names = ["qxg-mark", `qxg-${site.kind}`];
  if (site.changed) names.push("qxg-changed");
  if (site.off) names.push("qxg-off");
  return svg("g", { class: names.join(" "), transform: `translate(${x} ${y})`, ...attributes }, [
    shape,
    svgText(0, site.kind === "input" ? 6 : 3.6, "qxg-letter", site.letter),
    site.off && svg("path", { d: "M-9 9 L9 -9", class: "qxg-slash" }),
  ]);
}

/**
 * The fake quant at `path`, which can be selected.
 * @param {Index} index
 * @param {string} path
 * @param {number} x
 * @param {number} y
 */
export function drawSite(index, path, x, y) {
  const site = index.sites[path];
  const label = site.tip.join(", ") + (site.changed ? ", changed in this step" : "");
  return drawMark(site, x, y, {
    "data-site": path,
    "data-sel": site.sel,
    role: "img",
    "aria-label": label,
  });
}

/**
 * Some fake quants in a row, and how many more there are.
 * @param {Index} index
 * @param {string[]} paths
 * @param {number} x
 * @param {number} y
 */
export function drawSites(index, paths, x, y) {
  const shown = paths.length > MAX_ITEM_MARKS ? paths.slice(0, MAX_ITEM_MARKS - 1) : paths;
  /** @type {SVGElement[]} */
  const parts = shown.map((path, i) => drawSite(index, path, x + i * 22, y));
  const more = paths.length - shown.length;
  if (more) parts.push(svgText(x + shown.length * 22 - 6, y + 4, "qxg-sub", `+${more}`));
  return parts;
}

/**
 * Counts by kind, for a closed group: fake quants, and edges that are quantized twice.
 * @param {ReturnType<typeof import("./geometry.js").countPlaces>} places
 * @param {number} x of the box's left border
 * @param {number} y
 */
export function drawCounts(places, x, y) {
  const parts = [];
  for (const { kind, count, at } of places) {
    if (kind === "twice") {
      parts.push(twiceMark(x + at, y, `${count} inside fake-quantized twice`, 0.72));
      parts.push(svgText(x + at + 13, y + 3.8, "qxg-count", count));
      continue;
    }
    const transform = `translate(${x + at} ${y}) scale(0.72)`;
    parts.push(drawMark({ kind, letter: LETTERS[kind] }, x + at, y, { transform }));
    parts.push(svgText(x + at + 10, y + 3.8, "qxg-count", count));
  }
  return parts;
}

/**
 * The sign of something that changed.
 * @param {number} x
 * @param {number} y
 */
export const drawDelta = (x, y) =>
  svg("g", { class: "qxg-delta", transform: `translate(${x} ${y})` }, [
    svg("circle", { r: 8 }),
    svgText(0, 3.8, "", "Δ"),
  ]);

/**
 * The sign of what a check found: filled at the place itself, hollow around it.
 * @param {{ severity: string, mark: string, inside?: string }} finding
 * @param {number} x
 * @param {number} y
 */
export const drawFinding = ({ severity, mark, inside }, x, y) =>
  svg(
    "g",
    {
      class: `qxg-finding qxg-finding-${severity}${inside ? " qxg-finding-inside" : ""}`,
      transform: `translate(${x} ${y})`,
    },
    [svg("circle", { r: 8 }), svgText(0, 3.4, "", mark)],
  );

/**
 * What opens and closes a group.
 * @param {number} x
 * @param {number} y
 * @param {boolean} open
 */
export function drawChevron(x, y, open) {
  const d = open ? "M-4 -2.5 L0 2.5 L4 -2.5" : "M-2.5 -4 L2.5 0 L-2.5 4";
  return svg("g", { class: "qxg-chevron", transform: `translate(${x} ${y})`, "data-toggle": "1" }, [
    svg("rect", { x: -10, y: -10, width: 20, height: 20, rx: 4, class: "qxg-hit" }),
    svg("path", { d }),
  ]);
}

/**
 * @param {number} x
 * @param {number} y
 */
export const drawInt8 = (x, y) =>
  svg("g", { class: "qxg-tag", transform: `translate(${x} ${y})` }, [
    svg("rect", { x: -15, y: -7.5, width: 30, height: 15, rx: 4 }),
    svgText(0, 3.6, "", "int8"),
  ]);

/**
 * The sign "2×".
 * @param {number} x
 * @param {number} y
 * @param {string} label in words
 * @param {number} [size]
 */
export function twiceMark(x, y, label, size = 1) {
  const transform = `translate(${x} ${y}) scale(${size})`;
  const attributes = { class: "qxg-twice-mark", transform, role: "img", "aria-label": label };
  const pill = svg("rect", { x: -12, y: -8, width: 24, height: 16, rx: 8 });
  return svg("g", attributes, [pill, svgText(0, 4, "", "2×")]);
}

/**
 * "2×" in the middle of an edge whose tensor is fake-quantized twice.
 * @param {Point[]} points
 */
export const drawTwice = (points) => twiceMark(...pointAlong(points, 0.5), "fake-quantized twice");

/**
 * The dot on an edge that stands for Identities; its name shows when one of them is selected.
 * @param {Item[]} items the Identities
 * @param {Point} place
 */
export function drawPass(items, [x, y]) {
  const names = ["qxg-pass"];
  if (items.some((item) => item.changed)) names.push("qxg-changed");
  return svg(
    "g",
    {
      class: names.join(" "),
      transform: `translate(${x} ${y})`,
      "data-pass": items.map((item) => item.id).join("\n"),
      role: "img",
      "aria-label": `passes through ${items.map((item) => item.path).join(", ")}`,
    },
    [
      svg("circle", { r: 9, class: "qxg-hit" }),
      svg("circle", { r: 3.2, class: "qxg-dot" }),
      svgText(9, 3.8, "qxg-left qxg-pass-name", ""),
    ],
  );
}

/**
 * The point that lies at `share` of the length of a line.
 * @param {Point[]} points
 * @param {number} share from 0 to 1
 * @returns {Point}
 */
export function pointAlong(points, share) {
  const lengths = points
    .slice(1)
    .map(([x, y], i) => Math.hypot(x - points[i][0], y - points[i][1]));
  let left = share * lengths.reduce((sum, length) => sum + length, 0);
  for (const [i, length] of lengths.entries()) {
    if (left <= length && length > 0) {
      const [[x0, y0], [x1, y1]] = [points[i], points[i + 1]];
      return [x0 + ((x1 - x0) * left) / length, y0 + ((y1 - y0) * left) / length];
    }
    left -= length;
  }
  return points[points.length - 1];
}
