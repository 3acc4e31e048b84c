// Paints an overlay over the drawn graph: a colour for each box, a hatch where nothing is known, and
// the number in its label and tooltip. And the signs of a comparison: "+" and "−".

import { svg } from "../common/dom.js";
import { attention, categoryColour, colourAt, domainOf, textOn } from "./scale.js";

/**
 * @typedef {import("./scale.js").Overlay} Overlay
 * @typedef {import("./scale.js").Domain} Domain
 * @typedef {import("./scene.js").Index} Index
 */

/**
 * What one graph is painted with. `only` are the items that the other graph of a comparison lacks,
 * `sign` how they are marked, `lacks` what is said of them.
 * @typedef {object} Paint
 * @property {Overlay} overlay
 * @property {boolean} dark
 * @property {Set<string>} only
 * @property {Set<string>} onlySites
 * @property {string} sign
 * @property {string} lacks
 * @property {(domain: Domain) => void} onPaint
 */

/** @type {WeakMap<Element, Paint>} */
const paints = new WeakMap();
/** @type {WeakMap<Index, Paint>} */
const ofIndex = new WeakMap();

const NOT_KNOWN = "qxg-not-known";
const PATTERNS = ["lines", "", "dots", "back", "", "cross", "", "lines"];

/**
 * From now on `world` is painted so, whenever it is drawn.
 * @param {Element} world
 * @param {Paint} paint
 */
export function setPaint(world, paint) {
  paints.set(world, paint);
}

/**
 * @param {string} prefix of ids
 * @param {string} name
 */
function pattern(prefix, name) {
  const lines = { lines: "M0 8 L8 0", back: "M0 0 L8 8", cross: "M4 0 V8 M0 4 H8" };
  const d = lines[/** @type {keyof typeof lines} */ (name)] ?? lines.lines;
  const drawing =
    name === "dots"
      ? svg("circle", { cx: 4, cy: 4, r: 1.3, class: "qxg-pattern-dot" })
      : svg("path", { d, class: name === NOT_KNOWN ? "qxg-pattern-none" : "qxg-pattern-line" });
  const box = { width: 8, height: 8, patternUnits: "userSpaceOnUse" };
  return svg("pattern", { id: `${prefix}${name}`, ...box }, [drawing]);
}

/**
 * Url of a pattern, made in the picture's own definitions when it is first asked for.
 * @param {Element} world
 * @param {string} prefix
 * @param {string} name
 */
function patternUrl(world, prefix, name) {
  const defs = world.parentElement?.querySelector("defs");
  if (defs && !defs.querySelector(`#${CSS.escape(prefix + name)}`)) {
    defs.append(pattern(prefix, name));
  }
  return `url(#${prefix}${name})`;
}

/** @param {SVGGElement} element */
function clear(element) {
  element.classList.remove("qxg-painted", "qxg-unknown", "qxg-only");
  element.style.removeProperty("--qxg-paint");
  element.style.removeProperty("--qxg-on");
  for (const extra of element.querySelectorAll(":scope > .qxg-extra")) extra.remove();
  element.setAttribute("aria-label", labelOf(element));
}

/**
 * The label as it was drawn, kept beside what is added to it.
 * @param {SVGGElement} element
 */
function labelOf(element) {
  element.dataset.label ??= element.getAttribute("aria-label") ?? "";
  return element.dataset.label;
}

/**
 * A pattern over the frame of a box.
 * @param {SVGGElement} element
 * @param {string} fill
 */
function cover(element, fill) {
  const frame = element.querySelector(":scope > .qxg-frame");
  if (!frame) return;
  /** @type {Record<string, string | null>} */
  const box = {};
  for (const name of ["x", "y", "width", "height", "rx"]) box[name] = frame.getAttribute(name);
  frame.after(svg("rect", { ...box, fill, class: "qxg-extra qxg-cover" }));
}

/**
 * @param {SVGGElement} element
 * @param {string} sign
 */
function signAt(element, sign) {
  const frame = element.querySelector(":scope > .qxg-frame");
  const [x, y] = ["x", "y"].map((name) => Number(frame?.getAttribute(name) ?? 0));
  const at = frame ? `translate(${x + 1} ${y + 1})` : "translate(-8 -8) scale(0.72)";
  element.append(
    svg("g", { class: "qxg-extra qxg-sign", transform: at }, [
      svg("circle", { r: 8 }),
      svg("text", { x: 0, y: 4, text: sign }),
    ]),
  );
}

/**
 * Paints what is drawn.
 * @param {SVGGElement} world
 * @param {import("./draw.js").Drawn} drawn
 * @param {Index} index
 */
export function paintOverlay(world, drawn, index) {
  const paint = paints.get(world);
  if (!paint) return;
  ofIndex.set(index, paint);
  const { overlay } = paint;
  const wanted = overlay.values || paint.only.size || paint.onlySites.size;
  if (!wanted && !world.dataset.painted) return; // nothing to paint, and nothing to take off
  world.dataset.painted = wanted ? "1" : "";
  const closed = [...drawn.elements].filter(([, g]) => !g.classList.contains("qxg-open"));
  const domain = domainOf(
    overlay,
    closed.map(([id]) => id),
  );
  for (const [id, element] of drawn.elements) {
    clear(element);
    const more = overlayLines(index, id);
    if (overlay.values) paintItem(world, element, id, paint, domain);
    if (paint.only.has(id)) {
      element.classList.add("qxg-only");
      signAt(element, paint.sign);
    }
    if (more.length) element.setAttribute("aria-label", [labelOf(element), ...more].join(", "));
  }
  paintSites(world, paint);
  paint.onPaint(domain);
}

/**
 * Numbers of fake quants, and those that the other graph lacks.
 * @param {SVGGElement} world
 * @param {Paint} paint
 */
function paintSites(world, { overlay, onlySites, sign, lacks }) {
  /** @type {NodeListOf<SVGGElement>} */
  const marks = world.querySelectorAll("[data-site]");
  for (const mark of marks) {
    clear(mark);
    const path = mark.dataset.site ?? "";
    const text = overlay.sites?.[path];
    const more = text === undefined ? [] : [`${overlay.title}: ${text}`];
    if (onlySites.has(path)) {
      mark.classList.add("qxg-only");
      signAt(mark, sign);
      more.push(lacks);
    }
    if (more.length) mark.setAttribute("aria-label", [labelOf(mark), ...more].join(", "));
  }
}

/**
 * @param {SVGGElement} world
 * @param {SVGGElement} element
 * @param {string} id
 * @param {Paint} paint
 * @param {Domain} domain
 */
function paintItem(world, element, id, { overlay, dark }, domain) {
  const prefix = element.id.slice(0, element.id.length - id.length);
  const value = overlay.values?.[id];
  if (value === undefined) {
    // What flows in and out of the model is no part of it: there is nothing to know.
    if (element.classList.contains("qxg-io")) return;
    element.classList.add("qxg-unknown");
    if (element.classList.contains("qxg-open")) return;
    cover(element, patternUrl(world, prefix, NOT_KNOWN));
    return;
  }
  const named = Boolean(overlay.categories?.length);
  const colour = named ? categoryColour(value) : colourAt(attention(overlay, domain, value), dark);
  element.classList.add("qxg-painted");
  element.style.setProperty("--qxg-paint", colour);
  element.style.setProperty("--qxg-on", textOn(colour));
  const name = named ? PATTERNS[value % PATTERNS.length] : "";
  if (name && !element.classList.contains("qxg-open")) {
    cover(element, patternUrl(world, prefix, name));
  }
}

/**
 * Lines for the tooltip of an item: its number, and whether the other graph lacks it.
 * @param {Index} index
 * @param {string} id
 * @returns {string[]}
 */
export function overlayLines(index, id) {
  const paint = ofIndex.get(index);
  if (!paint) return [];
  const { overlay, only, lacks } = paint;
  const lines = [];
  if (overlay.values) lines.push(`${overlay.title}: ${overlay.texts?.[id] ?? "not known"}`);
  if (only.has(id)) lines.push(lacks);
  return lines;
}

/**
 * The same for a fake quant; nothing where the overlay has no number of it.
 * @param {Index} index
 * @param {string} path
 * @returns {string[]}
 */
export function siteLines(index, path) {
  const paint = ofIndex.get(index);
  if (!paint) return [];
  const text = paint.overlay.sites?.[path];
  const lines = text === undefined ? [] : [`${paint.overlay.title}: ${text}`];
  return paint.onlySites.has(path) ? [...lines, paint.lacks] : lines;
}

/** The picture of "not known" in the legend. */
export const NOT_KNOWN_NAME = NOT_KNOWN;
