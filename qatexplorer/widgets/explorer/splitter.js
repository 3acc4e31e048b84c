// The bar between two parts of the page: drag it, or move it by keys. It sets a CSS property of
// the explorer around it (see explorer.css), and the browser remembers the size.

import { html, OWN_KEYS } from "../common/dom.js";
import { placeOf, rangeOf, remember, remembered, within } from "./layout.js";

/**
 * @typedef {object} Traits see splitter.py
 * @property {import("./layout.js").Part} part
 * @property {string} label
 */

const STEP = 16;

class Splitter {
  /**
   * @param {import("@anywidget/types").AnyModel<Traits>} model
   * @param {HTMLElement} el
   */
  constructor(model, el) {
    this.part = model.get("part");
    this.el = el;
    this.upright = this.part === "tree" || this.part === "inspector";
    this.closes = this.upright;
    /** The size before the part was closed, 0 for what the style sheet says. */
    this.before = 0;
    /** Which way the part grows: towards the right or the lower edge. */
    this.sign = this.part === "tree" || this.part === "height" ? 1 : -1;
    const label = model.get("label");
    this.root = html("div", {
      class: `qx qx-splitter qx-splitter-${this.part}`,
      role: "separator",
      tabindex: "0",
      title: `${label}: drag; double click resets`,
      "aria-label": label,
      "aria-orientation": this.upright ? "vertical" : "horizontal",
      ...OWN_KEYS,
    });
    el.append(this.root);
    this.root.addEventListener("pointerdown", (event) => this.onDown(event));
    this.root.addEventListener("dblclick", () => this.reset());
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    this.root.addEventListener("focus", () => this.tell());
    let placed = false;
    this.sized = new ResizeObserver(() => {
      if (!placed && this.explorer) {
        placed = true;
        this.restore();
      }
      this.tell();
    });
    this.sized.observe(this.root);
  }

  /** @returns {HTMLElement | null} */
  get explorer() {
    return this.el.closest(".qx-explorer");
  }

  get range() {
    const box = this.explorer?.getBoundingClientRect() ?? { width: 1280, height: 800 };
    return rangeOf(this.part, box);
  }

  /** How large the part is now, in px. */
  get size() {
    const { explorer } = this;
    if (!explorer) return 0;
    const box = (
      this.part === "height" ? explorer : explorer.querySelector(`.qx-part-${this.part}`)
    )?.getBoundingClientRect();
    return Math.round((this.upright ? box?.width : box?.height) ?? 0);
  }

  restore() {
    const size = remembered(placeOf(this.el))[this.part];
    if (typeof size === "number") this.apply(within(size, this.range, this.closes));
  }

  /** @param {number | undefined} size undefined for what the style sheet says */
  apply(size) {
    const { explorer, part } = this;
    if (!explorer) return;
    if (size === undefined) explorer.style.removeProperty(`--qx-${part}`);
    else explorer.style.setProperty(`--qx-${part}`, `${size}px`);
    if (this.closes) explorer.classList.toggle(`qx-no-${part}`, size === 0);
    this.tell();
  }

  /** @param {number} size */
  resize(size) {
    this.apply(within(size, this.range, this.closes));
  }

  /** Remembers the size as it is now. */
  keep() {
    remember(placeOf(this.el), this.part, this.size);
  }

  reset() {
    this.apply(undefined);
    remember(placeOf(this.el), this.part, undefined);
  }

  /** Says its value to a screen reader. */
  tell() {
    const { least, most } = this.range;
    this.root.setAttribute("aria-valuemin", String(this.closes ? 0 : least));
    this.root.setAttribute("aria-valuemax", String(Math.max(least, most)));
    this.root.setAttribute("aria-valuenow", String(this.size));
    this.root.setAttribute("aria-valuetext", this.size ? `${this.size} pixels` : "closed");
  }

  /** @param {PointerEvent} event */
  onDown(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.root.focus({ preventScroll: true });
    this.root.setPointerCapture(event.pointerId);
    const from = this.upright ? event.clientX : event.clientY;
    const before = this.size;
    let moved = false;
    /** @param {PointerEvent} move */
    const onMove = (move) => {
      const by = (this.upright ? move.clientX : move.clientY) - from;
      moved ||= Math.abs(by) > 2;
      if (moved) this.resize(before + by * this.sign);
    };
    const onUp = () => {
      this.root.removeEventListener("pointermove", onMove);
      this.root.removeEventListener("pointerup", onUp);
      this.root.removeEventListener("pointercancel", onUp);
      if (moved) {
        if (this.size === 0) this.before = before;
        this.keep();
      } else if (this.closes && before === 0) this.toggle();
    };
    this.root.addEventListener("pointermove", onMove);
    this.root.addEventListener("pointerup", onUp);
    this.root.addEventListener("pointercancel", onUp);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const { least, most } = this.range;
    const [less, more] = this.upright ? ["ArrowLeft", "ArrowRight"] : ["ArrowUp", "ArrowDown"];
    const step = STEP * (event.shiftKey ? 4 : 1) * this.sign;
    /** @type {Record<string, () => void>} */
    const actions = {
      [less]: () => this.resize(this.size - step),
      [more]: () => this.resize(this.size === 0 ? least : this.size + step),
      Home: () => this.apply(least),
      End: () => this.apply(within(most, this.range, false)),
      Enter: () => this.toggle(),
    };
    if (!Object.hasOwn(actions, event.key)) return;
    actions[event.key]();
    if (event.key !== "Enter") this.keep();
    event.preventDefault();
    event.stopPropagation();
  }

  /** Closes the part, or opens it again. */
  toggle() {
    if (!this.closes) return;
    const { size, before } = this;
    if (size > 0) {
      this.before = size;
      this.apply(0);
    } else this.apply(before > 0 ? within(before, this.range, true) : undefined);
    this.keep();
  }

  destroy() {
    this.sized.disconnect();
    this.root.remove();
  }
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const view = new Splitter(model, el);
    return () => view.destroy();
  },
};
