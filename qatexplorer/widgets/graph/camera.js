// Where the user looks: pan, zoom, fit.

/** @typedef {{ x: number, y: number, w: number, h: number }} Box in the picture's px */

const READABLE = 0.85;
const LEAST = 0.04;
const MOST = 4;

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
  }

  get size() {
    return { w: this.window.clientWidth || 800, h: this.window.clientHeight || 500 };
  }

  /** @param {{ x: number, y: number, k?: number }} to */
  set({ x, y, k = this.k }) {
    Object.assign(this, { x, y, k });
    this.world.setAttribute("transform", `translate(${x} ${y}) scale(${k})`);
  }

  /**
   * @param {number} dx
   * @param {number} dy
   */
  panBy(dx, dy) {
    this.set({ x: this.x + dx, y: this.y + dy });
  }

  /**
   * Zooms around a point of the window, around its middle if none is given.
   * @param {number} factor
   * @param {[x: number, y: number]} [around]
   */
  zoomBy(factor, around) {
    const { w, h } = this.size;
    const [cx, cy] = around ?? [w / 2, h / 2];
    const k = Math.min(MOST, Math.max(LEAST, this.k * factor));
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
    const { w, h } = this.size;
    const margin = 20;
    const fit = Math.min((w - 2 * margin) / box.w, (h - 2 * margin) / box.h);
    const k = Math.min(most, Math.max(least, fit));
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
    this.frame({ x: 0, y: 0, w, h }, LEAST, 1.15, lr);
  }

  /**
   * The whole picture if it stays readable, else its beginning.
   * @param {import("./geometry.js").Picture} picture
   */
  fitReadable({ w, h, lr }) {
    this.frame({ x: 0, y: 0, w, h }, READABLE, 1.15, lr);
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
