// What holds the page together: it knows where the explorer stands and how high it may be, opens
// the sheet of keys, and says when the kernel is gone. In the page it is the button "?".

import { html, OWN_KEYS } from "../common/dom.js";
import { keysSheet } from "./keys_sheet.js";
import { OWN_TAB, placeOf } from "./layout.js";

/** Below these widths, in px, the page is laid out for less room. */
const NARROW = 1100;
const SLIM = 860;
/** Of an explorer among other outputs, in px. */
const HEIGHT = { usual: 800, least: 560 };
/** What scrolls the outputs of a notebook in JupyterLab. */
const SCROLLS = ".jp-WindowedPanel-outer";

class Frame {
  /** @param {HTMLElement} el */
  constructor(el) {
    this.el = el;
    this.sheet = keysSheet();
    this.button = html("button", {
      class: "qx-button qx-keys-button",
      text: "?",
      title: "Keys (?)",
      "aria-label": "Keys",
      "aria-haspopup": "dialog",
    });
    this.button.addEventListener("click", () => this.open());
    /** Says that there is no kernel any more; ipywidgets marks its views then. */
    this.gone = html("div", { class: "qx-gone", role: "alert", hidden: true });
    const parts = [this.button, this.sheet, this.gone];
    this.root = html("div", { class: "qx qx-frame", ...OWN_KEYS }, parts);
    el.append(this.root);
    /** @type {(() => void)[]} */
    this.endings = [() => this.root.remove()];
    const sized = new ResizeObserver(() => {
      if (!this.explorer) return;
      sized.disconnect();
      this.settle(this.explorer);
    });
    sized.observe(this.root);
    this.endings.push(() => sized.disconnect());
  }

  /** @returns {HTMLElement | null} */
  get explorer() {
    return this.el.closest(".qx-explorer");
  }

  open() {
    if (!this.sheet.open) this.sheet.showModal();
  }

  /** The explorer is in the page. @param {HTMLElement} explorer */
  settle(explorer) {
    const place = placeOf(explorer);
    explorer.dataset.place = place;
    const around = explorer.closest(place === "tab" ? OWN_TAB : SCROLLS);
    const fit = () => {
      const width = explorer.clientWidth;
      if (width === 0) return; // in a tab that is not in view
      fitHeight(explorer, around);
      explorer.classList.toggle("qx-narrow", width < NARROW);
      explorer.classList.toggle("qx-slim", width < SLIM);
    };
    const live = new MutationObserver(() => this.tellGone(explorer));
    live.observe(explorer, { attributeFilter: ["class"] });
    const watcher = new ResizeObserver(fit);
    watcher.observe(explorer);
    if (around) watcher.observe(around);
    window.addEventListener("resize", fit);
    /** @param {KeyboardEvent} event */
    const onKey = (event) => this.onKey(event, explorer);
    // Before tree and graph, which take every letter for their own.
    document.addEventListener("keydown", onKey, true);
    this.endings.push(
      () => live.disconnect(),
      () => watcher.disconnect(),
      () => window.removeEventListener("resize", fit),
      () => document.removeEventListener("keydown", onKey, true),
    );
    fit();
    this.tellGone(explorer);
  }

  /** @param {HTMLElement} explorer */
  tellGone(explorer) {
    const gone = explorer.classList.contains("jupyter-widgets-disconnected");
    if (gone === !this.gone.hidden) return;
    const next = explorer.dataset.place === "window" ? "Reload the page" : "Run the cell again";
    this.gone.textContent = gone
      ? `The kernel of this page is gone. What you see is its last picture. ${next} to start anew.`
      : "";
    this.gone.hidden = !gone;
  }

  /**
   * @param {KeyboardEvent} event
   * @param {HTMLElement} explorer
   */
  onKey(event, explorer) {
    if (event.key !== "?" || this.sheet.open || isWriting(event.target)) return;
    const { target } = event;
    const here = target instanceof Node && explorer.contains(target);
    if (!here && !(target === document.body && explorer.dataset.place === "window")) return;
    event.preventDefault();
    event.stopPropagation();
    this.open();
  }

  destroy() {
    for (const end of this.endings) end();
  }
}

/** Whether keys write text there. @param {EventTarget | null} target */
function isWriting(target) {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox])");
}

/**
 * As high as its tab; among other outputs, no higher than what can be seen at once.
 * @param {HTMLElement} explorer
 * @param {Element | null} around
 */
function fitHeight(explorer, around) {
  const { place } = explorer.dataset;
  if (place === "window") return;
  const voila = document.body.dataset.voila === "voila";
  const room = voila ? window.innerHeight : (around?.clientHeight ?? HEIGHT.usual + 24);
  if (place === "tab" && around) {
    const top = explorer.getBoundingClientRect().top - around.getBoundingClientRect().top;
    const before = Math.max(0, Math.round(top + around.scrollTop));
    explorer.style.setProperty("--qx-fill", `${room - before - 4}px`);
  } else {
    const fits = Math.max(HEIGHT.least, Math.min(HEIGHT.usual, room - 24));
    explorer.style.setProperty("--qx-usual", `${fits}px`);
  }
}

export default {
  /** @param {import("@anywidget/types").RenderProps<{}>} props */
  render({ el }) {
    const frame = new Frame(el);
    return () => frame.destroy();
  },
};
