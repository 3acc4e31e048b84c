// How wide the columns of the module tree are: the name first, whole; then the marks of fake quants
// and the state; the type takes what is left and is cut first.

import { html } from "../common/dom.js";
import { quantBadges, stateBadges } from "./row.js";

/** @typedef {import("./rows.js").TreeRow} TreeRow */

/**
 * @typedef {object} Widths in px, each with the gap before it
 * @property {number} name with its indentation
 * @property {number} type
 * @property {number} quants
 * @property {number} state
 * @property {number} step indentation of one level
 * @property {number} row of the whole row: more than the view has only where the name needs it
 */

const STEP = 16;
const LEAST_STEP = 4;
/** The deepest row is indented by at most this share of the view. */
const INDENTED = 0.3;
/** Around a row: its coloured edge and its padding. */
const EDGES = 13;
const GAP = 8;
/** Room of the chevron. */
const CHEVRON = 18;
/** Between a mark of a fake quant and its name. */
const BETWEEN = 6;
/** Room of the sign that a row has changed. */
const DELTA = 16;
/** A cell that would show less than this is left out. */
const LEAST_CELL = 24;

/**
 * Indentation of one level, less where the rows are deep.
 * @param {number} depth of the deepest row
 * @param {number} view width in px
 */
export function stepFor(depth, view) {
  if (depth * STEP <= view * INDENTED) return STEP;
  return Math.max(LEAST_STEP, Math.floor((view * INDENTED) / depth));
}

/**
 * Shares `view` px out among the columns.
 * @param {number} view
 * @param {{ name: number, quants: number, state: number, step: number }} wanted
 * @returns {Widths}
 */
export function share(view, { name, quants, state, step }) {
  let left = Math.max(0, view - EDGES - name);
  /** @param {number} width */
  const take = (width) => {
    const got = width ? Math.min(width + GAP, left) : 0;
    if (got < Math.min(width, LEAST_CELL) + GAP) return 0;
    left -= got;
    return got;
  };
  const forQuants = take(quants);
  const forState = take(state);
  const forType = left < LEAST_CELL + GAP ? 0 : left;
  const row = Math.max(view, name + EDGES);
  return { name, type: forType, quants: forQuants, state: forState, step, row };
}

/** Measures rows in the fonts of the page, each text once. */
export class Ruler {
  /** @param {HTMLElement} host where cells are put to be measured */
  constructor(host) {
    this.host = host;
    /** @type {Map<string, number>} */
    this.known = new Map();
    /** Widths of the cells of rows met before. @type {WeakMap<TreeRow, [number, number]>} */
    this.cells = new WeakMap();
    this.context = document.createElement("canvas").getContext("2d");
  }

  /** Of a name, drawn bold as the selected row's is. @param {string} name */
  name(name) {
    const known = this.known.get(name);
    if (known !== undefined) return known;
    if (!this.font) {
      const probe = html("span", { class: "qx-tree-name qx-tree-measured" });
      this.host.append(probe);
      const style = getComputedStyle(probe);
      this.font = `700 ${style.fontSize} ${style.fontFamily}`;
      probe.remove();
    }
    if (!this.context) return name.length * 8;
    this.context.font = this.font;
    const width = Math.ceil(this.context.measureText(name).width) + 2;
    this.known.set(name, width);
    return width;
  }

  /**
   * Of a cell with labels, as the page draws it.
   * @param {import("./row.js").Badge[]} badges
   * @param {string} className
   */
  cell(badges, className) {
    if (!badges.length) return 0;
    const key = badges.map((badge) => `${badge.className}|${badge.text}`).join("\n");
    const known = this.known.get(key);
    if (known !== undefined) return known;
    const cell = html("span", { class: `${className} qx-tree-measured` });
    for (const { text, className: look } of badges) {
      cell.append(html("span", { class: `qx-badge ${look}`, text }));
    }
    this.host.append(cell);
    const width = Math.ceil(cell.getBoundingClientRect().width);
    cell.remove();
    this.known.set(key, width);
    return width;
  }

  /** Of the cells with fake quants and with the state. @param {TreeRow} row */
  cellsOf(row) {
    let found = this.cells.get(row);
    if (!found) {
      found = [
        this.cell(quantBadges(row), "qx-tree-quants"),
        this.cell(stateBadges(row), "qx-tree-state"),
      ];
      this.cells.set(row, found);
    }
    return found;
  }

  /**
   * What the columns of `rows` want, in a view of `view` px.
   * @param {TreeRow[]} rows
   * @param {number} view
   */
  wanted(rows, view) {
    let deepest = 0;
    for (const row of rows) deepest = Math.max(deepest, row.depth);
    const step = stepFor(deepest, view);
    const mark = this.cell([{ text: "■ W", className: "qx-weight", title: "" }], "qx-tree-quants");
    let [name, quants, state] = [0, 0, 0];
    for (const row of rows) {
      const before = row.depth * step + CHEVRON + (row.kind === "site" ? mark + BETWEEN : 0);
      const after = row.changed ? DELTA : 0;
      name = Math.max(name, before + this.name(row.name) + after);
      const [own, states] = this.cellsOf(row);
      quants = Math.max(quants, own);
      state = Math.max(state, states);
    }
    return { name, quants, state, step };
  }
}
