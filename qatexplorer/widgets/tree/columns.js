// How wide the columns of the module tree are: the name first, whole; then the marks of fake quants
// and the state; the type takes what is left and is cut first.

import { html } from "../common/dom.js";
import { quantBadges, stateBadges } from "./row.js";

/** @typedef {import("./rows.js").TreeRow} TreeRow */

/**
 * @typedef {object} Wanted in px
 * @property {number} name of a module, with its indentation
 * @property {number} site the same of a fake quant, which has its whole row to itself
 * @property {number} quants
 * @property {number} state
 * @property {number} step indentation of one level
 * @property {number} head of the column with the state
 */

/**
 * @typedef {object} Widths in px, each with the gap before it
 * @property {number} name
 * @property {number} type
 * @property {number} quants
 * @property {number} state
 * @property {number} step
 * @property {number} row of the whole row: more than the view has only where a name needs it
 */

const STEP = 16;
const LEAST_STEP = 4;
/** The deepest row is indented by at most this share of the view. */
const INDENTED = 0.3;
/** Around a row: its coloured edge, the sign of a change, and its padding. */
const EDGES = 24;
const GAP = 8;
/** Room of the chevron, or of a fake quant's mark, before a name. */
const BEFORE = 20;
/** A cell that would show less than this is left out. */
const LEAST_CELL = 24;
/** What the type keeps before the others get more than that. */
const SPARE = 60;
/** What fake quants and state get before one of them gets more. */
const FAIR_CELL = 56;

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
 * Shares `view` px out among the columns: names whole, the type gets what is left.
 * @param {number} view
 * @param {Wanted} wanted
 * @returns {Widths}
 */
export function share(view, { name, site, quants, state, step, head }) {
  const full = [quants, state].map((width) => (width ? width + GAP : 0));
  let left = view - EDGES - name;
  if (Math.max(name, site) > view - EDGES) {
    // A name alone is wider than the view: it scrolls sideways, and nothing need be left out.
    const row = Math.max(name + SPARE + full[0] + full[1], site);
    const type = row - name - full[0] - full[1];
    return { name, type, quants: full[0], state: full[1], step, row: row + EDGES };
  }
  const got = [0, 0];
  const turns = /** @type {const} */ ([
    [FAIR_CELL, 0],
    [Number.POSITIVE_INFINITY, SPARE],
  ]);
  for (const [most, spared] of turns) {
    for (const [i, width] of full.entries()) {
      const more = Math.min(Math.min(width, most) - got[i], Math.max(0, left - spared));
      if (got[i] + more < Math.min(width, LEAST_CELL + GAP)) continue;
      got[i] += more;
      left -= more;
    }
  }
  if (got[1]) {
    // Its head is written out where the type can spare the room.
    const more = Math.max(0, Math.min(head + GAP - got[1], left - SPARE));
    got[1] += more;
    left -= more;
  }
  return { name, type: left, quants: got[0], state: got[1], step, row: view };
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

  /** Of a name. @param {string} name */
  name(name) {
    const known = this.known.get(name);
    if (known !== undefined) return known;
    if (!this.font) {
      const probe = html("span", { class: "qx-tree-name qx-tree-measured" });
      this.host.append(probe);
      const style = getComputedStyle(probe);
      this.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
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
   * @param {string} label of the column with the states
   * @returns {Wanted}
   */
  wanted(rows, view, label) {
    let deepest = 0;
    for (const row of rows) deepest = Math.max(deepest, row.depth);
    /** Without its indentation; the labels of a fake quant may be cut. @param {TreeRow} row */
    const bare = (row) => BEFORE + this.name(row.name) + (row.kind === "site" ? 2 * GAP : 0);
    // Deep names are indented less before the tree scrolls sideways for them.
    let step = stepFor(deepest, view);
    for (const row of rows) {
      const room = view - EDGES - bare(row);
      if (row.depth && row.depth * step > room)
        step = Math.max(LEAST_STEP, Math.floor(room / row.depth));
    }
    let [name, site, quants, state] = [0, 0, 0, 0];
    for (const row of rows) {
      const width = row.depth * step + bare(row);
      if (row.kind === "site") {
        site = Math.max(site, width);
        continue;
      }
      name = Math.max(name, width);
      const [own, states] = this.cellsOf(row);
      quants = Math.max(quants, own);
      state = Math.max(state, states);
    }
    return { name, site, quants, state, step, head: this.name(label) };
  }
}
