// Small multiples: a card for each watched fake quant, in place from one state of a training to the
// next. Only cards in sight are drawn; the others are when they are scrolled to.

import { closest, html, isShortcut, listen, OWN_KEYS, save, svg, unpacked } from "../common/dom.js";

/**
 * @typedef {object} Row see multiples.py of the views
 * @property {string} id
 * @property {string} path
 * @property {string} name
 * @property {string} kind
 * @property {string} mark
 * @property {string} value
 * @property {(number | null)[]} line
 * @property {number[]} bars
 * @property {string} note
 * @property {boolean} bad
 * @property {string} label
 *
 * @typedef {object} Traits see multiples.py
 * @property {Row[] | DataView} rows
 * @property {string} order
 * @property {string} title
 * @property {string} selected
 * @property {string} picked
 *
 * @typedef {{ element: HTMLElement, row: Row, stale: boolean, near: boolean }} Card
 */

const WIDTH = 200;
const HEIGHT = 30;
const MIDDLE = 104;

/**
 * The `d` of a line through points from 0 to 100; a gap where one is null.
 * @param {(number | null)[]} points
 * @param {number} width
 * @param {number} height
 */
export function linePath(points, width, height) {
  const step = width / Math.max(1, points.length - 1);
  let drawing = false;
  let d = "";
  points.forEach((value, index) => {
    if (value === null) {
      drawing = false;
      return;
    }
    const x = (index * step).toFixed(1);
    const y = (height - 2 - (value / 100) * (height - 4)).toFixed(1);
    d += `${drawing ? "L" : "M"}${x} ${y}`;
    drawing = true;
  });
  return d;
}

/**
 * The `d` of bars from 0 to 100, side by side from `left` on.
 * @param {number[]} bars
 * @param {number} left
 * @param {number} width of a bar
 * @param {number} height
 */
export function barsPath(bars, left, width, height) {
  let d = "";
  bars.forEach((value, index) => {
    if (!value) return;
    const x = (left + index * width).toFixed(1);
    const high = ((value / 100) * height).toFixed(1);
    d += `M${x} ${height}v-${high}h${(width * 0.9).toFixed(2)}v${high}z`;
  });
  return d;
}

/**
 * The order to show: that of `rows`, or while the user is among the cards the one they see, with
 * what is new at its end.
 * @param {string[]} wanted
 * @param {string[]} shown
 * @param {boolean} held
 */
export function orderOf(wanted, shown, held) {
  if (!held) return wanted;
  const there = new Set(wanted);
  const kept = shown.filter((id) => there.has(id));
  const known = new Set(kept);
  return [...kept, ...wanted.filter((id) => !known.has(id))];
}

/** @param {Row} row */
function picture(row) {
  const root = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  const room = WIDTH - MIDDLE;
  root.append(svg("path", { class: "qx-card-line", d: linePath(row.line, MIDDLE - 14, HEIGHT) }));
  const { bars } = row;
  if (!bars.length) return root;
  const width = room / bars.length;
  const last = bars.length - 1;
  const inner = barsPath(bars.slice(1, last), MIDDLE + width, width, HEIGHT);
  const outer =
    barsPath(bars.slice(0, 1), MIDDLE, width, HEIGHT) +
    barsPath(bars.slice(last), MIDDLE + last * width, width, HEIGHT);
  const base = { x1: MIDDLE, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 };
  root.append(
    svg("line", { class: "qx-card-base", ...base }),
    svg("path", { class: "qx-card-bars", d: inner }),
    svg("path", { class: "qx-card-clipped", d: outer }),
  );
  for (const x of [MIDDLE + width, MIDDLE + last * width]) {
    root.append(svg("line", { class: "qx-card-border", x1: x, x2: x, y1: 0, y2: HEIGHT }));
  }
  return root;
}

/** @param {Card} card */
function fill(card) {
  const { element, row } = card;
  card.stale = false;
  element.className = `qx-card qx-card-${row.kind}${row.bad ? " qx-card-bad" : ""}`;
  element.title = row.label;
  element.replaceChildren(
    html("div", { class: "qx-card-head" }, [
      html("span", { class: "qx-card-mark", text: row.mark }),
      html("span", { text: row.name }),
    ]),
    html("div", { class: "qx-card-value" }, [
      html("b", { text: row.value }),
      html("small", { text: row.note }),
    ]),
    picture(row),
  );
}

class Cards {
  /**
   * @param {HTMLElement} root
   * @param {(id: string) => void} pick
   */
  constructor(root, pick) {
    this.root = root;
    this.pick = pick;
    /** @type {Map<string, Card>} */
    this.cards = new Map();
    /** Ids in the order of the page. @type {string[]} */
    this.shown = [];
    /** Ids in the order of the rows. @type {string[]} */
    this.wanted = [];
    this.selected = "";
    /** Which card the keyboard comes to. */
    this.active = "";
    this.sight = new IntersectionObserver((entries) => this.seen(entries), {
      root,
      rootMargin: "160px",
    });
    root.addEventListener("click", (event) => this.click(event));
    root.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("mouseleave", () => this.arrange(this.wanted));
  }

  destroy() {
    this.sight.disconnect();
  }

  /** @param {IntersectionObserverEntry[]} entries */
  seen(entries) {
    for (const entry of entries) {
      const card = this.cards.get(/** @type {HTMLElement} */ (entry.target).dataset.id ?? "");
      if (!card) continue;
      card.near = entry.isIntersecting;
      if (card.near && card.stale) fill(card);
    }
  }

  /**
   * @param {Row[]} rows the worst first
   * @param {boolean} anew whether they are sorted by something else than before
   */
  setRows(rows, anew) {
    this.wanted = rows.map((row) => row.id);
    const there = new Set(this.wanted);
    for (const [id, { element }] of this.cards) {
      if (there.has(id)) continue;
      this.sight.unobserve(element);
      element.remove();
      this.cards.delete(id);
    }
    for (const row of rows) this.update(row);
    // What the user is about to click, or walks through by keys, must not jump away.
    const busy = this.root.matches(":hover") || this.root.querySelector(":focus-visible") !== null;
    this.arrange(orderOf(this.wanted, this.shown, busy && !anew));
    this.mark();
  }

  /** @param {Row} row */
  update(row) {
    let card = this.cards.get(row.id);
    if (!card) {
      const own = { class: "qx-card", role: "option", "data-id": row.id };
      card = { element: html("div", { ...own, ...OWN_KEYS }), row, stale: true, near: false };
      this.cards.set(row.id, card);
      this.sight.observe(card.element);
    }
    card.row = row;
    card.stale = true;
    card.element.setAttribute("aria-label", row.label);
    if (card.near) fill(card);
  }

  /** @param {string[]} ids */
  arrange(ids) {
    if (ids.length === this.shown.length && ids.every((id, i) => id === this.shown[i])) return;
    const { root } = this;
    const focused = root.contains(document.activeElement) ? document.activeElement : null;
    const scrolled = root.scrollTop;
    this.shown = ids;
    root.replaceChildren(...ids.flatMap((id) => this.cards.get(id)?.element ?? []));
    root.scrollTop = scrolled;
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
  }

  mark() {
    if (!this.cards.has(this.active)) {
      this.active = this.cards.has(this.selected) ? this.selected : (this.shown[0] ?? "");
    }
    for (const [id, { element }] of this.cards) {
      element.setAttribute("aria-selected", String(id === this.selected));
      element.tabIndex = id === this.active ? 0 : -1;
    }
  }

  /** @param {Event} event */
  click(event) {
    const id = closest(event.target, ".qx-card")?.dataset.id;
    if (id === undefined) return;
    this.active = id;
    this.pick(id);
    this.mark();
  }

  /** How many cards stand beside each other. */
  get columns() {
    const top = (/** @type {string} */ id) => this.cards.get(id)?.element.offsetTop;
    const next = this.shown.findIndex((id) => top(id) !== top(this.shown[0]));
    return next === -1 ? this.shown.length : next;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const at = this.shown.indexOf(this.active);
    if (at === -1 || isShortcut(event)) return;
    /** @type {Record<string, number>} */
    const to = {
      ArrowRight: at + 1,
      ArrowLeft: at - 1,
      ArrowDown: at + this.columns,
      ArrowUp: at - this.columns,
      Home: 0,
      End: this.shown.length - 1,
    };
    if (event.key === "Enter" || event.key === " ") this.pick(this.active);
    else if (Object.hasOwn(to, event.key)) {
      const index = to[event.key];
      if (index >= 0 && index < this.shown.length) {
        this.active = this.shown[index];
        this.mark();
        this.cards.get(this.active)?.element.focus();
      }
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const root = html("div", { class: "qx qx-multiples", role: "listbox", ...OWN_KEYS });
    el.append(root);
    const cards = new Cards(root, (id) => save(model, { picked: id }));
    let order = "";
    const draw = () => {
      /** @type {Row[]} */
      const rows = unpacked(model.get("rows"));
      root.hidden = rows.length === 0;
      root.setAttribute("aria-label", model.get("title"));
      cards.setRows(rows, order !== model.get("order"));
      order = model.get("order");
    };
    const mark = () => {
      cards.selected = model.get("selected");
      cards.mark();
    };
    const unlisten = listen(model, { "change:rows": draw, "change:selected": mark });
    draw();
    mark();
    return () => {
      unlisten();
      cards.destroy();
      root.remove();
    };
  },
};
