// The keyboard: arrows follow the tensors, Enter opens or selects.

import { isShortcut } from "../common/dom.js";
import { ancestorsOf } from "./scene.js";

/**
 * @typedef {import("./scene.js").Index} Index
 * @typedef {import("./scene.js").Item} Item
 * @typedef {import("./geometry.js").Picture} Picture
 * @typedef {import("./geometry.js").PlacedBox} PlacedBox
 */

/**
 * Neighbours by id, along and against the edges.
 * @typedef {{ next: Map<string, Set<string>>, previous: Map<string, Set<string>> }} Links
 */

/** @typedef {"next" | "previous" | "before" | "after"} Way */

/** @type {Record<string, Way>} */
const DOWN = { ArrowDown: "next", ArrowUp: "previous", ArrowLeft: "before", ArrowRight: "after" };
/** @type {Record<string, Way>} */
const ACROSS = { ArrowRight: "next", ArrowLeft: "previous", ArrowUp: "before", ArrowDown: "after" };

const PANS = new Set(["PageDown", "PageUp", "Home", "End"]);

/**
 * Neighbours of every closed box, whatever open groups lie between.
 * @param {Index} index
 * @param {Picture} picture
 * @returns {Links}
 */
export function neighbours(index, picture) {
  /** The closed box that shows a node. @param {string} node */
  const shown = (node) =>
    [node, ...ancestorsOf(index, node).reverse()].find(
      (id) => picture.boxes.get(id)?.open === false,
    );
  /** @type {Links} */
  const links = { next: new Map(), previous: new Map() };
  /**
   * @param {Map<string, Set<string>>} map
   * @param {string} from
   * @param {string} to
   */
  const add = (map, from, to) => map.set(from, (map.get(from) ?? new Set()).add(to));
  const at = index.nodes.map((node) => shown(node.id));
  for (const { from, to } of index.links) {
    const [a, b] = [at[from], at[to]];
    if (a === undefined || b === undefined || a === b) continue;
    add(links.next, a, b);
    add(links.previous, b, a);
  }
  return links;
}

export class Keyboard {
  /** @param {import("./view.js").GraphView} view */
  constructor(view) {
    this.view = view;
    this.markAt = -1;
    /** Of the picture that they were made for. @type {{ picture: Picture, links: Links } | null} */
    this.known = null;
  }

  /** @param {Picture} picture */
  links(picture) {
    if (this.known?.picture !== picture) {
      this.known = { picture, links: neighbours(this.view.index, picture) };
    }
    return this.known.links;
  }

  /**
   * Moves the cursor: "next" and "previous" along edges, "before" and "after" in the layer.
   * @param {Way} way
   */
  step(way) {
    const { picture, cursor } = this.view;
    if (!picture) return;
    const closed = [...picture.boxes.values()].filter((box) => !box.open);
    if (!closed.length) return;
    const here = picture.boxes.get(cursor ?? "");
    const to =
      here === undefined
        ? closed[0].id
        : way === "next" || way === "previous"
          ? this.along(picture, here, closed, way)
          : besides(picture, here, closed, way === "after" ? 1 : -1);
    if (to !== undefined) this.moveTo(to);
  }

  /**
   * The nearest item that an edge leads to; for an open group, what it begins or ends with.
   * @param {Picture} picture
   * @param {PlacedBox} here
   * @param {PlacedBox[]} closed
   * @param {"next" | "previous"} way
   */
  along(picture, here, closed, way) {
    const { index } = this.view;
    if (here.open) {
      const inside = closed.filter((box) => ancestorsOf(index, box.id).includes(here.id));
      if (inside.length) return (way === "next" ? inside[0] : inside[inside.length - 1]).id;
    }
    const [a0, c0] = middle(here, picture.lr);
    /** @param {string} id */
    const far = (id) => {
      const box = picture.boxes.get(id);
      if (!box) return Number.POSITIVE_INFINITY;
      const [a, c] = middle(box, picture.lr);
      return Math.abs(a - a0) + Math.abs(c - c0);
    };
    const found = [...(this.links(picture)[way].get(here.id) ?? [])];
    return found.sort((a, b) => far(a) - far(b))[0];
  }

  /**
   * Pans by most of the window, or to the picture's beginning or end.
   * @param {string} key
   */
  pan(key) {
    const { camera } = this.view;
    const { w, h } = camera.size;
    /** @type {Record<string, [number, number]>} */
    const ways = {
      ArrowDown: [0, -0.25 * h],
      ArrowUp: [0, 0.25 * h],
      ArrowLeft: [0.25 * w, 0],
      ArrowRight: [-0.25 * w, 0],
      PageDown: this.view.lr ? [-0.8 * w, 0] : [0, -0.8 * h],
      PageUp: this.view.lr ? [0.8 * w, 0] : [0, 0.8 * h],
    };
    if (ways[key]) camera.dragBy(...ways[key]);
    else this.view.lookAtEnd(key === "End");
  }

  /** @param {string} id */
  moveTo(id) {
    this.view.cursor = id;
    this.markAt = -1;
    this.view.paintCursor();
    this.view.makeVisible(id);
    this.view.host.onCursor(this.view.drawn.elements.get(id));
  }

  /** Goes through the fake quants of the item under the cursor. */
  nextMark() {
    const element = this.view.drawn.elements.get(this.view.cursor ?? "");
    const marks = element ? [...element.querySelectorAll("[data-site]")] : [];
    if (!marks.length) return;
    this.markAt = (this.markAt + 1) % marks.length;
    const mark = marks[this.markAt];
    this.view.host.onSelect(mark.getAttribute("data-sel") ?? "");
    this.view.host.onCursor(mark);
  }

  /**
   * Handles a key; true if it meant something here.
   * @param {KeyboardEvent} event
   */
  handle(event) {
    if (isShortcut(event)) return false;
    const { view } = this;
    if (PANS.has(event.key) || (event.shiftKey && event.key.startsWith("Arrow"))) {
      this.pan(event.key);
      return true;
    }
    const way = (view.lr ? ACROSS : DOWN)[event.key];
    if (way) {
      this.step(way);
      return true;
    }
    const item = view.index.items.get(view.cursor ?? "");
    const select = () => item && !item.synthetic && view.host.onSelect(item.sel);
    /** @type {Record<string, () => unknown>} */
    const actions = {
      Enter: () => (item?.children ? view.toggle(item.id) : select()),
      " ": select,
      Escape: () => this.escape(item),
      m: () => this.nextMark(),
      "+": () => view.camera.zoomBy(1.25),
      "=": () => view.camera.zoomBy(1.25),
      "-": () => view.camera.zoomBy(0.8),
      0: () => view.fit(),
      z: () => view.zoomToSelection(),
      f: () => view.host.onSearch(),
      "/": () => view.host.onSearch(),
    };
    if (!Object.hasOwn(actions, event.key)) return false;
    actions[event.key]();
    return true;
  }

  /**
   * Cancels a layout; else closes the group around the cursor; else clears the selection.
   * @param {Item | undefined} item
   */
  escape(item) {
    const { view } = this;
    if (view.cancel()) return;
    const isOpen = item?.children !== undefined && view.opened.has(item.id);
    const around = view.index.items.get((isOpen ? item.id : item?.parent) ?? "");
    if (around && around.parent !== null) {
      view.cursor = around.id;
      view.toggle(around.id);
    } else {
      view.host.onSelect("");
    }
  }
}

/**
 * Middle of a box, along the tensors' way and across it.
 * @param {PlacedBox} box
 * @param {boolean} lr
 */
function middle({ x, y, w, h }, lr) {
  const [mx, my] = [x + w / 2, y + h / 2];
  return lr ? [mx, my] : [my, mx];
}

/**
 * The nearest closed box beside `here`, in about the same layer.
 * @param {Picture} picture
 * @param {PlacedBox} here
 * @param {PlacedBox[]} closed
 * @param {1 | -1} sign
 */
function besides({ lr }, here, closed, sign) {
  const [along, across] = middle(here, lr);
  /** @param {PlacedBox} box */
  const size = (box) => (lr ? box.w : box.h) / 2;
  /** @type {[number, string | undefined]} */
  let best = [Number.POSITIVE_INFINITY, undefined];
  for (const box of closed) {
    const [a, c] = middle(box, lr);
    const far = (c - across) * sign;
    if (far <= 1 || Math.abs(a - along) > Math.max(size(here), size(box))) continue;
    if (far < best[0]) best = [far, box.id];
  }
  return best[1];
}
