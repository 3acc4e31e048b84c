// Colours and ticks of an overlay: which colour a number has, and what is written at the scale.

/**
 * What views/graph/overlays.py makes; `{}` for none. `busy` is what is being measured, in words.
 * @typedef {object} Overlay
 * @property {string} [title]
 * @property {string} [unit]
 * @property {"bad" | "good" | ""} [highIs]
 * @property {string} [meaning]
 * @property {string} [note]
 * @property {"sum" | "highest" | "lowest" | ""} [groups]
 * @property {string} [inside]
 * @property {string[]} [categories]
 * @property {Record<string, number>} [values] by item id
 * @property {Record<string, string>} [texts] by item id
 * @property {Record<string, string>} [sites] by path of a fake quant
 * @property {number} [low]
 * @property {number} [high]
 * @property {string} [busy]
 * @property {string} [error]
 */

/** @typedef {{ low: number, high: number }} Domain */

// From what may be overlooked to what is looked at first: pale yellow to blue on white, blue to
// yellow on black. Their lightness runs one way only, so they differ for every eye, and in grey.
const LIGHT = ["#fbf6dc", "#e6d9a0", "#c3b67f", "#96927a", "#66707c", "#3b4f78", "#00224e"];
const DARK = ["#0f2a4d", "#35456c", "#575d6d", "#7c7b78", "#a69d75", "#d3c164", "#fee838"];
const CATEGORIES = [
  "#e69f00",
  "#56b4e9",
  "#cc79a7",
  "#2fb38c",
  "#f0e442",
  "#8fa3ff",
  "#ff8f5a",
  "#b8bec5",
];

/** @param {string} hex */
const parts = (hex) => [1, 3, 5].map((i) => Number.parseInt(hex.slice(i, i + 2), 16));

/** @param {number[]} rgb */
const hexOf = (rgb) =>
  `#${rgb.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("")}`;

/**
 * Relative luminance as WCAG defines it, 0 to 1.
 * @param {string} hex
 */
export function luminance(hex) {
  const [r, g, b] = parts(hex)
    .map((part) => part / 255)
    .map((p) => (p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/**
 * Black or white, whichever can be read better on `hex`: always 4.5:1 or more.
 * @param {string} hex
 */
export function textOn(hex) {
  const light = luminance(hex) + 0.05;
  return light / 0.05 >= 1.05 / light ? "#000000" : "#ffffff";
}

/**
 * @param {number} at 0 (may be overlooked) to 1 (is looked at first)
 * @param {boolean} dark
 */
export function colourAt(at, dark) {
  const stops = dark ? DARK : LIGHT;
  const place = Math.min(1, Math.max(0, at)) * (stops.length - 1);
  const first = Math.min(Math.floor(place), stops.length - 2);
  const [one, two] = [parts(stops[first]), parts(stops[first + 1])];
  return hexOf(one.map((part, i) => part + (two[i] - part) * (place - first)));
}

/** @param {number} index of a category */
export const categoryColour = (index) => CATEGORIES[index % CATEGORIES.length];

/**
 * The ends of the scale. Of sums a group has more than all of its parts: those in sight count, so
 * that parts can be told apart once their group is open.
 * @param {Overlay} overlay
 * @param {Iterable<string>} shown ids of the closed boxes in sight
 * @returns {Domain}
 */
export function domainOf(overlay, shown) {
  const { low = 0, high = 0, groups, values = {} } = overlay;
  if (groups !== "sum") return { low, high };
  const known = [...shown].map((id) => values[id]).filter((value) => value !== undefined);
  if (!known.length) return { low, high };
  return { low: Math.min(0, ...known), high: Math.max(...known) };
}

/**
 * How much a number draws the eye, 0 to 1. Where all are equal: the middle.
 * @param {Overlay} overlay
 * @param {Domain} domain
 * @param {number} value
 */
export function attention({ highIs }, { low, high }, value) {
  if (high <= low) return 0.5;
  const at = Math.min(1, Math.max(0, (value - low) / (high - low)));
  return highIs === "good" ? 1 - at : at;
}

/**
 * Three to six round numbers from `low` to `high`.
 * @param {Domain} domain
 * @returns {number[]}
 */
export function ticksOf({ low, high }) {
  if (!(high > low)) return [low];
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step =
    [1, 2, 2.5, 4, 5, 8, 10].map((n) => n * power).find((n) => n >= 0.8 * rough) ?? rough;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9) + 0; i * step <= high * (1 + 1e-9) + 1e-12; i += 1) {
    ticks.push(i * step);
  }
  return ticks;
}

const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const PLAIN = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/**
 * A number at the scale.
 * @param {number} value
 * @param {string} unit
 */
export function tickText(value, unit) {
  if (unit === "share") return `${PLAIN.format(100 * value)} %`;
  return (Math.abs(value) >= 10_000 ? COMPACT : PLAIN).format(value);
}
