// A list that draws only the rows in view, so that thousands cost no more than a page. The tree
// and the table are made of it.

import { closest, isShortcut } from "./dom.js";

const SPARE = 8;

/**
 * Which rows to draw: those in view and some around them.
 * @param {number} top how far the rows are scrolled, in px
 * @param {number} height of the view, in px
 * @param {number} rowHeight
 * @param {number} count of all rows
 * @returns {[number, number]} the first, and the one after the last
 */
export function rowsInView(top, height, rowHeight, count) {
  const first = Math.max(0, Math.floor(top / rowHeight) - SPARE);
  const last = Math.min(count, Math.ceil((top + height) / rowHeight) + SPARE);
  return [first, Math.max(first, last)];
}

/**
 * Where to scroll to show the row `index`, moving as little as needed.
 * @param {number} index
 * @param {number} scrolled
 * @param {number} height of the view without its head, in px
 * @param {number} rowHeight
 */
export function leastScroll(index, scrolled, height, rowHeight) {
  const top = index * rowHeight;
  if (top < scrolled) return top;
  return top + rowHeight > scrolled + height ? top + rowHeight - height : scrolled;
}

/**
 * @template {{ id: string }} Row
 * @typedef {object} Options
 * @property {HTMLElement} viewport what scrolls
 * @property {HTMLElement} canvas what holds the rows, as high as all of them
 * @property {number} rowHeight in px
 * @property {string} role of a row's element
 * @property {() => number} height of the view in px while it is not in the page
 * @property {HTMLElement} [head] stays at the top of the view
 * @property {(element: HTMLElement, row: Row) => void} fill writes a row into its element
 * @property {(element: HTMLElement, row: Row, index: number) => void} mark says what changes from
 *   draw to draw
 * @property {(row: Row) => void} [onFocus]
 */

/** @template {{ id: string }} Row */
export class RowList {
  /** @param {Options<Row>} options */
  constructor(options) {
    this.options = options;
    this.viewport = options.viewport;
    /** @type {Row[]} */
    this.rows = [];
    /** @type {Map<string, number>} */
    this.indexOf = new Map();
    /** @type {Map<string, HTMLElement>} */
    this.elements = new Map();
    /** @type {Set<string>} rows whose element says what they were */
    this.stale = new Set();
    /** The id of the row that has or gets the focus. @type {string | null} */
    this.active = null;
    this.viewport.addEventListener("scroll", () => this.draw(), { passive: true });
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.viewport);
  }

  destroy() {
    this.resize.disconnect();
  }

  /** @param {Row[]} rows in order; call {@link draw} after it */
  setRows(rows) {
    this.rows = rows;
    this.indexOf = new Map(rows.map((row, i) => [row.id, i]));
    this.options.canvas.style.height = `${rows.length * this.options.rowHeight}px`;
  }

  /** What rows say has changed: each is written anew when it is next drawn. */
  refill() {
    this.stale = new Set(this.elements.keys());
  }

  get headHeight() {
    return this.options.head?.offsetHeight ?? 0;
  }

  draw() {
    const { rowHeight, height } = this.options;
    const top = Math.max(0, this.viewport.scrollTop - this.headHeight);
    const room = this.viewport.clientHeight || height();
    const [first, last] = rowsInView(top, room, rowHeight, this.rows.length);
    const wanted = new Set(Array.from({ length: last - first }, (_, i) => first + i));
    // The row with the focus stays in the page, or a scroll would throw the focus away.
    const active = this.active === null ? undefined : this.indexOf.get(this.active);
    if (active !== undefined) wanted.add(active);
    const keep = new Set([...wanted].map((i) => this.rows[i].id));
    for (const [id, element] of this.elements) {
      if (keep.has(id)) continue;
      element.remove();
      this.elements.delete(id);
    }
    for (const i of [...wanted].sort((a, b) => a - b)) this.drawRow(this.rows[i], i);
  }

  /**
   * @param {Row} row
   * @param {number} i
   */
  drawRow(row, i) {
    const { canvas, role, rowHeight, fill, mark } = this.options;
    let element = this.elements.get(row.id);
    if (!element || this.stale.has(row.id)) {
      if (!element) {
        element = document.createElement("div");
        element.setAttribute("role", role);
        element.dataset.id = row.id;
        this.elements.set(row.id, element);
        canvas.append(element);
      }
      fill(element, row);
      this.stale.delete(row.id);
    }
    element.style.transform = `translateY(${i * rowHeight}px)`;
    element.tabIndex = row.id === this.active ? 0 : -1;
    mark(element, row, i);
  }

  /** Scrolls as little as needed to show a row. @param {number} index */
  reveal(index) {
    const { scrollTop, clientHeight } = this.viewport;
    const room = clientHeight - this.headHeight;
    const to = leastScroll(index, scrollTop, room, this.options.rowHeight);
    if (to !== scrollTop) this.viewport.scrollTop = to;
  }

  /** Shows a row in the middle, unless it is well in view already. @param {number} index */
  centre(index) {
    const { rowHeight } = this.options;
    const height = this.viewport.clientHeight || this.options.height();
    const [top, now] = [index * rowHeight, this.viewport.scrollTop];
    if (top < now + rowHeight || top + 2 * rowHeight > now + height) {
      this.viewport.scrollTop = Math.max(0, top - height / 2);
    }
  }

  /** Gives a row the focus; beyond the ends the first or last. @param {number} index */
  focus(index) {
    const at = Math.max(0, Math.min(this.rows.length - 1, index));
    const row = this.rows[at];
    if (!row) return;
    this.active = row.id;
    this.reveal(at);
    this.draw();
    this.elements.get(row.id)?.focus({ preventScroll: true });
    this.options.onFocus?.(row);
  }

  /** The row that an event happened in, undefined for none. @param {Event} event */
  rowOf(event) {
    const id = closest(event.target, `[role=${this.options.role}][data-id]`)?.dataset.id;
    const index = id === undefined ? undefined : this.indexOf.get(id);
    return index === undefined ? undefined : this.rows[index];
  }

  /**
   * Acts on a key that means something in a list, or in `more`. Returns whether it did.
   * @param {KeyboardEvent} event
   * @param {(row: Row) => void} choose for Enter and the space bar
   * @param {Record<string, (row: Row, at: number) => void>} [more] other keys
   */
  key(event, choose, more = {}) {
    const at = this.active === null ? undefined : this.indexOf.get(this.active);
    if (at === undefined || isShortcut(event)) return false;
    const room = this.viewport.clientHeight - this.headHeight;
    const page = Math.max(1, Math.floor(room / this.options.rowHeight) - 1);
    /** @type {Record<string, (row: Row, at: number) => void>} */
    const actions = {
      ArrowDown: () => this.focus(at + 1),
      ArrowUp: () => this.focus(at - 1),
      PageDown: () => this.focus(at + page),
      PageUp: () => this.focus(at - page),
      Home: () => this.focus(0),
      End: () => this.focus(this.rows.length - 1),
      Enter: choose,
      " ": choose,
      ...more,
    };
    if (!Object.hasOwn(actions, event.key)) return false;
    actions[event.key](this.rows[at], at);
    event.preventDefault();
    event.stopPropagation();
    return true;
  }
}
