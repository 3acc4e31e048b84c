// What stands around the graph for overlays and comparisons: the selects in the tool bar, the scale
// below it, and the title of one of two graphs side by side.

import {
  html,
  listen,
  OWN_KEYS,
  pageIsDark,
  save,
  unpacked,
  watchPageTheme,
} from "../common/dom.js";
import { paintOverlay, setPaint } from "./overlay.js";
import { attention, categoryColour, colourAt, textOn, ticksOf, tickText } from "./scale.js";

/**
 * @typedef {import("./scale.js").Overlay} Overlay
 * @typedef {import("./scale.js").Domain} Domain
 * @typedef {{ id: string, label: string, title: string, options: [value: string, text: string][] }}
 *   Picker
 * @typedef {{ only?: string[], sites?: string[], sign?: string, lacks?: string, caption?: string,
 *   said?: string }} Compared
 */

const STEPS = 12;

export class OverlayPanel {
  /**
   * @param {import("@anywidget/types").AnyModel<any>} model
   * @param {import("./view.js").GraphView} view
   * @param {HTMLElement} bar the tool bar
   * @param {HTMLElement} stage what the graph is drawn in
   */
  constructor(model, view, bar, stage) {
    this.model = model;
    this.view = view;
    this.pickers = html("span", { class: "qxg-pickers" });
    bar.append(this.pickers);
    this.scale = html("div", { class: "qxg-scale", role: "note", hidden: true });
    stage.before(this.scale);
    this.caption = html("div", { class: "qxg-caption", hidden: true });
    bar.before(this.caption);
    /** @type {Domain} */
    this.domain = { low: 0, high: 0 };
    /** @type {Overlay} */
    this.overlay = {};
    const ends = [
      listen(model, {
        "change:overlay": () => this.onOverlay(),
        "change:compared": () => this.onOverlay(),
        "change:pickers": () => this.paintPickers(),
        "change:picked": () => this.paintPicked(),
      }),
      watchPageTheme(() => this.onOverlay()),
    ];
    this.end = () => {
      for (const end of ends) end();
    };
    this.paintPickers();
    this.onOverlay();
  }

  /** An overlay, a comparison or the theme is another: paints what is drawn anew. */
  onOverlay() {
    const { model, view } = this;
    this.overlay = unpacked(model.get("overlay")) ?? {};
    /** @type {Compared} */
    const compared = unpacked(model.get("compared")) ?? {};
    setPaint(view.world, {
      overlay: this.overlay,
      dark: pageIsDark(),
      only: new Set(compared.only ?? []),
      onlySites: new Set(compared.sites ?? []),
      sign: compared.sign ?? "",
      lacks: compared.lacks ?? "",
      onPaint: (domain) => {
        this.domain = domain;
        this.paintScale();
      },
    });
    this.paintCaption(compared);
    this.paintScale();
    paintOverlay(view.world, view.drawn, view.index);
  }

  /** @param {Compared} compared */
  paintCaption({ caption = "", sign = "", lacks = "", said = "", only = [], sites = [] }) {
    const marked = only.length + sites.length;
    this.caption.hidden = !caption && !said;
    this.caption.replaceChildren(
      html("strong", { text: caption }),
      marked ? html("span", { text: `${sign} ${marked} ${lacks}` }) : "",
      html("span", { class: "qxg-said", role: "status", text: said }),
    );
  }

  paintPickers() {
    /** @type {Picker[]} */
    const pickers = this.model.get("pickers") ?? [];
    const focused = this.pickers.contains(document.activeElement)
      ? document.activeElement?.getAttribute("data-picker")
      : null;
    this.pickers.replaceChildren(...pickers.map((picker) => this.picker(picker)));
    this.paintPicked();
    if (focused) this.select(focused)?.focus();
  }

  /** @param {string} id */
  select(id) {
    return /** @type {HTMLSelectElement | null} */ (
      this.pickers.querySelector(`[data-picker="${CSS.escape(id)}"]`)
    );
  }

  /** @param {Picker} picker */
  picker({ id, label, title, options }) {
    const items = options.map(([value, text]) => html("option", { value, text }));
    const select = html("select", { ...OWN_KEYS, "data-picker": id, title }, items);
    select.addEventListener("change", () => {
      const picked = { ...this.model.get("picked"), [id]: select.value };
      save(this.model, { picked });
    });
    // The graph's keys are not the select's.
    select.addEventListener("keydown", (event) => event.stopPropagation());
    return html("label", { class: "qxg-picker", title }, [`${label} `, select]);
  }

  paintPicked() {
    const picked = this.model.get("picked") ?? {};
    for (const select of this.pickers.querySelectorAll("select")) {
      const value = picked[select.dataset.picker ?? ""] ?? "";
      if ([...select.options].some((option) => option.value === value)) select.value = value;
    }
  }

  paintScale() {
    const { overlay } = this;
    this.scale.hidden = !overlay.title;
    if (!overlay.title) {
      this.scale.replaceChildren();
      return;
    }
    const { title, unit = "", categories = [] } = overlay;
    const said = ["", "share", title.toLowerCase()].includes(unit.toLowerCase());
    const text = said || categories.length ? title : `${title} (${unit})`;
    const heading = html("strong", { text });
    this.scale.setAttribute("aria-label", `Colours: ${overlay.title}`);
    this.scale.replaceChildren(heading, ...this.scaleParts());
  }

  scaleParts() {
    const { overlay } = this;
    if (overlay.error) return [html("span", { class: "qxg-scale-error", text: overlay.error })];
    if (overlay.busy) {
      const stop = html("button", { class: "qxg-scale-stop", text: "Stop" });
      stop.addEventListener("click", () => {
        save(this.model, { picked: { ...this.model.get("picked"), overlay: "" } });
      });
      return [html("span", { role: "status", text: overlay.busy }), stop];
    }
    const known = Object.keys(overlay.values ?? {}).length > 0;
    const notes = [overlay.meaning, overlay.inside && `groups: ${overlay.inside}`];
    const words = notes.filter(Boolean).join(" · ");
    const note = html("span", { class: "qxg-scale-note", text: words, title: overlay.note });
    if (!known) return [html("span", { text: overlay.note || "nothing is known" })];
    const scale = overlay.categories?.length ? this.categories() : this.gradient();
    const none = html("span", { class: "qxg-scale-none" }, [
      html("i", { "aria-hidden": "true" }),
      "not known",
    ]);
    const about = html("span", { class: "qxg-scale-about", text: overlay.note ?? "" });
    return [scale, none, words ? note : "", about];
  }

  categories() {
    const names = this.overlay.categories ?? [];
    const used = new Set(Object.values(this.overlay.values ?? {}));
    const chips = names.map((text, i) => {
      if (!used.has(i)) return "";
      const chip = html("span", { class: `qxg-category qxg-category-${i % 8}`, text });
      const colour = categoryColour(i);
      chip.style.backgroundColor = colour;
      chip.style.color = textOn(colour);
      return chip;
    });
    return html("span", { class: "qxg-categories" }, chips);
  }

  gradient() {
    const { overlay, domain } = this;
    const dark = pageIsDark();
    const { low, high } = domain;
    const colours = Array.from({ length: STEPS + 1 }, (_, i) => {
      const value = low + ((high - low) * i) / STEPS;
      return colourAt(attention(overlay, domain, value), dark);
    });
    const bar = html("span", { class: "qxg-gradient", "aria-hidden": "true" });
    bar.style.backgroundImage = `linear-gradient(to right, ${colours.join(", ")})`;
    const ticks = ticksOf(domain).map((value) => {
      const tick = html("span", { text: tickText(value, overlay.unit ?? "") });
      const at = high > low ? (value - low) / (high - low) : 0.5;
      tick.style.left = `${100 * at}%`;
      return tick;
    });
    return html("span", { class: "qxg-ramp" }, [bar, html("span", { class: "qxg-ticks" }, ticks)]);
  }
}
