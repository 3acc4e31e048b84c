// The tabs of the drawer. Which is chosen and whether the drawer is open belong to the model; the
// pages themselves are widgets of their own, in the `.qx-pages` beside this strip.

import { html, isShortcut, listen, OWN_KEYS, save } from "../common/dom.js";
import { placeOf, remember, remembered } from "./layout.js";

/**
 * @typedef {object} Traits see drawer.py
 * @property {string[]} titles
 * @property {number} selected
 * @property {boolean} opened
 * @property {boolean} settled
 */

let made = 0;

class TabStrip {
  /**
   * @param {import("@anywidget/types").AnyModel<Traits>} model
   * @param {HTMLElement} el
   */
  constructor(model, el) {
    this.model = model;
    this.el = el;
    made += 1;
    this.id = `qx-tab-${made}-${Math.random().toString(36).slice(2, 8)}`;
    this.list = html("div", { class: "qx-tabs", role: "tablist", "aria-label": "Panels" });
    this.toggle = html("button", { class: "qx-button qx-drawer-toggle" });
    this.root = html("div", { class: "qx qx-strip-row", ...OWN_KEYS }, [this.list, this.toggle]);
    el.append(this.root);
    this.toggle.addEventListener("click", () => this.set({ opened: !model.get("opened") }));
    this.list.addEventListener("keydown", (event) => this.onKey(event));
    const draw = () => this.draw();
    this.unlisten = listen(model, {
      "change:titles": () => this.build(),
      "change:selected": draw,
      "change:opened": draw,
    });
    /** Pages are put into the page after the strip, and one by one. */
    this.grown = new MutationObserver(() => this.mark());
    /** @param {KeyboardEvent} event */
    this.onEscape = (event) => {
      if (event.key !== "Escape" || !model.get("opened") || event.defaultPrevented) return;
      event.stopPropagation();
      this.set({ opened: false });
      this.list.querySelectorAll("button")[model.get("selected")]?.focus();
    };
    this.sized = new ResizeObserver(() => this.onPlaced());
    this.sized.observe(this.root);
    this.build();
  }

  /** @returns {HTMLElement | null} */
  get drawer() {
    return this.el.closest(".qx-drawer");
  }

  /** @returns {HTMLElement | null} */
  get pages() {
    return this.drawer?.querySelector(":scope > .qx-pages") ?? null;
  }

  onPlaced() {
    const { drawer, pages } = this;
    if (!drawer || !pages) return;
    this.sized.disconnect();
    this.grown.observe(pages, { childList: true });
    drawer.addEventListener("keydown", this.onEscape);
    if (!this.model.get("settled")) {
      const { open, tab } = remembered(placeOf(this.el));
      const at = this.model.get("titles").indexOf(tab);
      save(this.model, {
        settled: true,
        opened: open === true,
        selected: at < 0 ? this.model.get("selected") : at,
      });
    }
    this.draw();
  }

  /** @param {Partial<Traits>} changes */
  set(changes) {
    save(this.model, { ...changes, settled: true });
    this.keep();
  }

  keep() {
    const place = placeOf(this.el);
    remember(place, "open", this.model.get("opened"));
    remember(place, "tab", this.model.get("titles")[this.model.get("selected")]);
  }

  build() {
    const tabs = this.model.get("titles").map((title, at) => {
      const tab = html("button", {
        class: "qx-tab",
        role: "tab",
        id: `${this.id}-${at}`,
        "aria-controls": `${this.id}-page-${at}`,
        text: title,
      });
      tab.addEventListener("click", () => this.choose(at));
      return tab;
    });
    this.list.replaceChildren(...tabs);
    this.draw();
  }

  /** A click on the tab in view closes the drawer. @param {number} at */
  choose(at) {
    const open = this.model.get("opened");
    const same = at === this.model.get("selected");
    this.set({ selected: at, opened: !(same && open) });
  }

  draw() {
    const selected = this.model.get("selected");
    const open = this.model.get("opened");
    for (const [at, tab] of [...this.list.children].entries()) {
      tab.setAttribute("aria-selected", String(open && at === selected));
      tab.setAttribute("tabindex", at === selected ? "0" : "-1");
    }
    this.toggle.textContent = open ? "▾ Close" : "▴ Open";
    this.toggle.title = open ? "Close the panels (Esc)" : "Open the panels";
    this.toggle.setAttribute("aria-expanded", String(open));
    this.mark();
  }

  /** Shows the chosen page, and says what each page is. */
  mark() {
    const { drawer, pages } = this;
    if (!drawer || !pages) return;
    const open = this.model.get("opened");
    drawer.classList.toggle("qx-drawer-open", open);
    for (const [at, page] of [...pages.children].entries()) {
      page.classList.toggle("qx-page-shown", open && at === this.model.get("selected"));
      page.id = `${this.id}-page-${at}`;
      page.setAttribute("role", "tabpanel");
      page.setAttribute("aria-labelledby", `${this.id}-${at}`);
    }
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (isShortcut(event)) return;
    const count = this.list.children.length;
    const at = [...this.list.children].indexOf(/** @type {Element} */ (document.activeElement));
    /** @type {Record<string, number>} */
    const to = {
      ArrowRight: (at + 1) % count,
      ArrowLeft: (at + count - 1) % count,
      Home: 0,
      End: count - 1,
    };
    if (at < 0 || !Object.hasOwn(to, event.key)) return;
    const next = to[event.key];
    // As the pattern of ARIA has it: the page follows the focus, if pages are shown at all.
    this.set({ selected: next });
    const tab = this.list.children[next];
    if (tab instanceof HTMLElement) tab.focus();
    event.preventDefault();
    event.stopPropagation();
  }

  destroy() {
    this.unlisten();
    this.grown.disconnect();
    this.sized.disconnect();
    this.drawer?.removeEventListener("keydown", this.onEscape);
    this.root.remove();
  }
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const view = new TabStrip(model, el);
    return () => view.destroy();
  },
};
