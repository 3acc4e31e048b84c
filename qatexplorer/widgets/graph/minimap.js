// The whole picture in a corner, with what is in view; a drag in it moves the view.

import { html, svg } from "../common/dom.js";

/**
 * @typedef {import("./camera.js").Camera} Camera
 * @typedef {import("./geometry.js").Picture} Picture
 */

const WIDTH = 150;
const HEIGHT = 190;
// Of either side of the picture, the most that may lie out of view without a map.
const SEEN = 0.75;

/**
 * How the map shows a picture: the scale, and the size it then has.
 * @param {{ w: number, h: number }} picture
 */
export function mapScale({ w, h }) {
  const k = Math.min(WIDTH / w, HEIGHT / h);
  return { k, w: w * k, h: h * k };
}

/**
 * Whether so much lies out of view that a map helps.
 * @param {{ w: number, h: number }} picture
 * @param {{ w: number, h: number }} view in the picture's px
 */
export const needsMap = (picture, view) => view.w < SEEN * picture.w || view.h < SEEN * picture.h;

export class Minimap {
  /**
   * @param {HTMLElement} stage
   * @param {Camera} camera
   */
  constructor(stage, camera) {
    this.camera = camera;
    this.on = true;
    /** @type {Picture | null} */
    this.picture = null;
    this.frame = svg("rect", { class: "qxg-map-frame", rx: 1.5 });
    this.drawing = svg("svg", {});
    // The keys that pan say the same; for a screen reader there is nothing in it.
    const attributes = { class: "qxg-map", "aria-hidden": "true", hidden: true };
    this.box = html("div", attributes, [this.drawing]);
    stage.append(this.box);
    this.listen();
  }

  listen() {
    /** @param {PointerEvent} e */
    const look = (e) => {
      if (!this.picture) return;
      const box = this.drawing.getBoundingClientRect();
      const { k } = mapScale(this.picture);
      this.camera.lookAt((e.clientX - box.left) / k, (e.clientY - box.top) / k);
    };
    this.box.addEventListener("pointerdown", (e) => {
      if (e.button !== 0) return;
      // The page keeps its focus, and the picture below is not dragged.
      e.preventDefault();
      e.stopPropagation();
      this.box.setPointerCapture(e.pointerId);
      look(e);
    });
    this.box.addEventListener("pointermove", (e) => {
      if (this.box.hasPointerCapture(e.pointerId)) look(e);
    });
  }

  /** @param {Picture | null} picture */
  draw(picture) {
    this.picture = picture;
    if (picture) {
      const { k, w, h } = mapScale(picture);
      const frames = [...picture.boxes.values()];
      const open = frames.filter((box) => box.open);
      const closed = frames.filter((box) => !box.open);
      this.drawing.setAttribute("width", `${w}`);
      this.drawing.setAttribute("height", `${h}`);
      this.drawing.replaceChildren(
        svg("path", { class: "qxg-map-open", d: outlines(open, k) }),
        svg("path", { class: "qxg-map-closed", d: outlines(closed, k) }),
        this.frame,
      );
    }
    this.paint();
  }

  /** Shows where the camera looks. */
  paint() {
    const view = this.camera.view;
    const shown = this.on && this.picture !== null && needsMap(this.picture, view);
    this.box.hidden = !shown;
    if (!shown || !this.picture) return;
    const { k, w, h } = mapScale(this.picture);
    const [left, top] = [Math.max(0, view.x * k), Math.max(0, view.y * k)];
    const [right, bottom] = [
      Math.min(w, (view.x + view.w) * k),
      Math.min(h, (view.y + view.h) * k),
    ];
    const place = { x: left, y: top, width: right - left, height: bottom - top };
    for (const [name, value] of Object.entries(place)) {
      this.frame.setAttribute(name, `${Math.max(0, value)}`);
    }
  }

  /** @param {boolean} on */
  toggle(on) {
    this.on = on;
    this.paint();
  }
}

/**
 * Boxes as one path.
 * @param {import("./geometry.js").PlacedBox[]} boxes
 * @param {number} k
 */
function outlines(boxes, k) {
  const parts = [];
  for (const box of boxes) {
    const [x, y, w, h] = box.open
      ? [box.x, box.y, box.w, box.h]
      : [box.x + box.bx, box.y + box.by, box.bw, box.bh];
    const [left, top] = [(x * k).toFixed(1), (y * k).toFixed(1)];
    const [across, down] = [Math.max(1, w * k).toFixed(1), Math.max(1, h * k).toFixed(1)];
    parts.push(`M${left} ${top}h${across}v${down}h-${across}Z`);
  }
  return parts.join("");
}
