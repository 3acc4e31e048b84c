// Where the user looks: pan, zoom, fit.

/** @typedef {{ x: number, y: number, w: number, h: number }} Box in the picture's px */

const READABLE = 0.85;
/** Where names are still 7 px high: no need to go further out, unless more is to be seen. */
const LEGIBLE = 0.56;
const MOST = 4;
const MARGIN = 20;
/** Of the picture, at least this many px stay in the window when it is dragged away. */
const KEPT = 48;

/**
 * How far to shift what begins at `start`, so that it lies in a view of `room` px; 0 if it does.
 * @param {number} start
 * @param {number} length
 * @param {number} room
 */
export function shiftIntoView(start, length, room) {
  const margin = 24;
  if (length > room - 2 * margin) {
    const covers = start <= margin && start + length >= room - margin;
    return covers ? 0 : margin - start;
  }
  if (start < margin) return margin - start;
  return start + length > room - margin ? room - margin - start - length : 0;
}

/**
 * The scale at which a picture fits a window, whole.
 * @param {{ w: number, h: number }} picture
 * @param {{ w: number, h: number }} window
 */
export const wholeScale = (picture, window) =>
  Math.min((window.w - 2 * MARGIN) / picture.w, (window.h - 2 * MARGIN) / picture.h);

/**
 * Where a picture's beginning may lie so that some of it stays in the window.
 * @param {number} at
 * @param {number} length
 * @param {number} room
 */
export const keptInView = (at, length, room) => Math.min(room - KEPT, Math.max(KEPT - length, at));

/**
 * The middle nearest to `at` of a view of `room` px that shows a picture of `length` px and at most
 * `margin` px beside it.
 * @param {number} at
 * @param {number} length
 * @param {number} room
 * @param {number} margin
 */
export function middleWithin(at, length, room, margin) {
  if (length + 2 * margin <= room) return length / 2;
  return Math.min(length + margin - room / 2, Math.max(room / 2 - margin, at));
}

export class Camera {
  /**
   * @param {SVGSVGElement} window what is looked through
   * @param {SVGGElement} world what is looked at
   */
  constructor(window, world) {
    this.window = window;
    this.world = world;
    this.x = 0;
    this.y = 0;
    this.k = 1;
    /** Size of the picture. */
    this.extent = { w: 1, h: 1 };
    /** Whether the user looks elsewhere than where the picture was framed. */
    this.moved = false;
    /** Size of the window when the picture was put where it is. */
    this.seenIn = { w: 0, h: 0 };
    /** What hears of every move. */
    this.onMove = () => {};
  }

  /** What is seen, in the picture's px. @returns {Box} */
  get view() {
    const { w, h } = this.size;
    const { x, y, k } = this;
    return { x: -x / k, y: -y / k, w: w / k, h: h / k };
  }

  /** The least scale: the whole picture is seen, or its names get too small to read. */
  get least() {
    return Math.min(LEGIBLE, wholeScale(this.extent, this.size));
  }

  get size() {
    return { w: this.window.clientWidth || 800, h: this.window.clientHeight || 500 };
  }

  /** @param {{ x: number, y: number, k?: number }} to */
  set({ x, y, k = this.k }) {
    Object.assign(this, { x, y, k });
    this.seenIn = this.size;
    this.world.setAttribute("transform", `translate(${x} ${y}) scale(${k})`);
    this.onMove();
  }

  /**
   * @param {number} dx
   * @param {number} dy
   */
  panBy(dx, dy) {
    this.moved = true;
    this.set({ x: this.x + dx, y: this.y + dy });
  }

  /**
   * Pans as the user asks: some of the picture stays in the window.
   * @param {number} dx
   * @param {number} dy
   */
  dragBy(dx, dy) {
    const { extent, k, size } = this;
    const x = keptInView(this.x + dx, extent.w * k, size.w);
    const y = keptInView(this.y + dy, extent.h * k, size.h);
    this.panBy(x - this.x, y - this.y);
  }

  /**
   * After the window got another size: what was in the middle across the tensors' way stays there.
   * @param {boolean} lr
   */
  keepMiddle(lr) {
    const { size, seenIn } = this;
    this.dragBy(lr ? 0 : (size.w - seenIn.w) / 2, lr ? (size.h - seenIn.h) / 2 : 0);
  }

  /**
   * Brings a point of the picture to the middle of the window, or as near as shows no more than a
   * margin beside the picture.
   * @param {number} px
   * @param {number} py
   */
  lookAt(px, py) {
    const { k, extent, size } = this;
    const x = middleWithin(px, extent.w, size.w / k, MARGIN / k);
    const y = middleWithin(py, extent.h, size.h / k, MARGIN / k);
    this.panBy(size.w / 2 - x * k - this.x, size.h / 2 - y * k - this.y);
  }

  /**
   * Zooms around a point of the window, around its middle if none is given.
   * @param {number} factor
   * @param {[x: number, y: number]} [around]
   */
  zoomBy(factor, around) {
    const { w, h } = this.size;
    const [cx, cy] = around ?? [w / 2, h / 2];
    const k = Math.min(MOST, Math.max(Math.min(this.k, this.least), this.k * factor));
    this.moved = true;
    const real = k / this.k;
    this.set({ k, x: cx - (cx - this.x) * real, y: cy - (cy - this.y) * real });
  }

  /**
   * Shows `box` as large as fits between two scales.
   * @param {Box} box
   * @param {number} least
   * @param {number} most
   * @param {boolean} lr
   */
  frame(box, least, most, lr) {
    this.moved = true;
    const { w, h } = this.size;
    const margin = MARGIN;
    const k = Math.min(most, Math.max(least, wholeScale(box, this.size)));
    /** @param {number} room @param {number} size */
    const centre = (room, size) => (room - size * k) / 2;
    // What does not fit is shown from where the tensors enter.
    const x = box.w * k > w - margin && lr ? margin : centre(w, box.w);
    const y = box.h * k > h - margin ? margin : centre(h, box.h);
    this.set({ k, x: x - box.x * k, y: y - box.y * k });
  }

  /**
   * The whole picture, however small it gets.
   * @param {import("./geometry.js").Picture} picture
   */
  fit({ w, h, lr }) {
    this.frame({ x: 0, y: 0, w, h }, 0, 1.15, lr);
    this.moved = false;
  }

  /**
   * The whole picture if it stays readable, else its beginning.
   * @param {import("./geometry.js").Picture} picture
   */
  fitReadable({ w, h, lr }) {
    this.frame({ x: 0, y: 0, w, h }, READABLE, 1.15, lr);
    this.moved = false;
  }

  /** Pans as little as needed to show `box`; does nothing if it is in view. @param {Box} box */
  reveal(box) {
    const { w, h } = this.size;
    const dx = shiftIntoView(box.x * this.k + this.x, box.w * this.k, w);
    const dy = shiftIntoView(box.y * this.k + this.y, box.h * this.k, h);
    if (dx || dy) this.panBy(dx, dy);
  }

  /**
   * The one of `boxes` nearest to the middle of the window.
   * @template {Box} B
   * @param {B[]} boxes
   */
  nearest(boxes) {
    const { w, h } = this.size;
    const [cx, cy] = [(w / 2 - this.x) / this.k, (h / 2 - this.y) / this.k];
    /** @param {B} box */
    const far = (box) => Math.hypot(box.x + box.w / 2 - cx, box.y + box.h / 2 - cy);
    /** @type {[number, B | null]} */
    let best = [Number.POSITIVE_INFINITY, null];
    for (const box of boxes) if (far(box) < best[0]) best = [far(box), box];
    return best[1];
  }
}
