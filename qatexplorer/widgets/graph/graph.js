// The widget: one model (traits), one view. Contract: see graph.py.

import { html, listen, pageIsDark, save, unpacked, watchPageTheme } from "../common/dom.js";
import { download, exportSvg } from "./export.js";
import { Keyboard } from "./keys.js";
import { OverlayPanel } from "./overlay_panel.js";
import { listenToPointer } from "./pointer.js";
import { ancestorsOf, searchItems } from "./scene.js";
import { SearchBox } from "./search.js";
import { iconButton, legendBox } from "./toolbar.js";
import { Tooltip, tipOf } from "./tooltip.js";
import { GraphView } from "./view.js";

/**
 * @typedef {object} Traits see graph.py
 * @property {import("./scene.js").Scene} scene
 * @property {string} selected
 * @property {string[]} opened
 * @property {number} height
 * @property {boolean} dark
 * @property {string} status
 * @property {Record<string, string | number>} metrics
 * @property {import("./scale.js").Overlay} overlay
 * @property {import("./overlay_panel.js").Compared} compared
 * @property {import("./overlay_panel.js").Picker[]} pickers
 * @property {Record<string, string>} picked
 */

const NARROW = 760;

class GraphPage {
  /**
   * @param {import("@anywidget/types").AnyModel<Traits>} model
   * @param {HTMLElement} el
   */
  constructor(model, el) {
    this.model = model;
    const bar = html("div", { class: "qxg-bar", role: "toolbar", "aria-label": "Graph tools" });
    this.stage = html("div", { class: "qxg-stage" });
    this.status = html("div", { class: "qxg-status", role: "status", "aria-live": "polite" });
    this.root = html("div", { class: "qxg" }, [bar, this.stage, this.status]);
    el.append(this.root);
    this.crumbs = html("nav", {
      class: "qxg-crumbs",
      "aria-label": "Shown part of the model",
      hidden: true,
    });
    this.cancel = html("button", {
      class: "qxg-cancel",
      text: "Cancel layout (Esc)",
      hidden: true,
    });
    this.view = new GraphView(this.stage, this.host());
    this.keyboard = new Keyboard(this.view);
    this.tooltip = new Tooltip(this.stage);
    this.search = new SearchBox(
      this.view.prefix,
      (text) => searchItems(this.view.index, text),
      (item) => this.onFound(item),
    );
    this.legend = legendBox();
    this.legendButton = iconButton("legend", "Legend", () => this.toggleLegend());
    this.legendButton.setAttribute("aria-pressed", "true");
    bar.append(this.search.box, ...this.buttons(), this.crumbs);
    this.stage.append(this.legend, this.cancel);
    this.overlays = new OverlayPanel(model, this.view, bar, this.stage);
    this.endings = this.hear();
    this.paintHeight();
    this.paintTheme();
    this.onScene();
  }

  /** @returns {import("./view.js").Host} */
  host() {
    return {
      onSelect: (selection) => {
        this.view.select(selection, false);
        save(this.model, { selected: selection });
      },
      onOpened: (ids) => {
        const same = JSON.stringify(ids) === JSON.stringify(this.model.get("opened"));
        if (!same) save(this.model, { opened: ids });
        this.paintCrumbs();
      },
      onStatus: (text) => {
        this.status.textContent = text;
        save(this.model, { status: text });
      },
      onMetrics: (metrics) => save(this.model, { metrics }),
      onBusy: (busy) => {
        this.cancel.hidden = !busy;
        this.stage.classList.toggle("qxg-busy", busy);
        this.stage.setAttribute("aria-busy", String(busy));
      },
      onSearch: () => this.search.input.focus(),
      onCursor: (element) => {
        const tip = element && tipOf(this.view.index, element);
        if (!tip) return;
        const [a, b] = [element.getBoundingClientRect(), this.stage.getBoundingClientRect()];
        this.tooltip.show(tip, a.right - b.left, a.top - b.top);
      },
    };
  }

  buttons() {
    const { view } = this;
    const direction = iconButton("right", "Lay out from left to right", () => {
      view.setDirection(!view.lr);
      direction.setAttribute("aria-pressed", String(view.lr));
    });
    direction.setAttribute("aria-pressed", "false");
    return [
      iconButton("fit", "Fit all (0)", () => view.fit()),
      iconButton("out", "Zoom out (-)", () => view.camera.zoomBy(0.8)),
      iconButton("in", "Zoom in (+)", () => view.camera.zoomBy(1.25)),
      iconButton("target", "Zoom to selection (z)", () => view.zoomToSelection()),
      iconButton("collapse", "Close all groups", () => view.closeAll()),
      direction,
      this.legendButton,
      iconButton("save", "Download as SVG", () => download(exportSvg(view), "graph.svg")),
    ];
  }

  /** Listens to the page, the model and the system. Returns what ends that. */
  hear() {
    const { view, model } = this;
    this.cancel.addEventListener("click", () => view.cancel());
    view.svg.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.tooltip.hide();
      if (!this.keyboard.handle(event)) return;
      event.preventDefault();
      event.stopPropagation();
    });
    view.svg.addEventListener("blur", () => this.tooltip.hide());
    // The widget is often put into the page only after it was rendered, or in a hidden tab.
    let seen = false;
    const sized = new ResizeObserver(() => {
      if (seen || !this.stage.clientWidth) return;
      seen = true;
      this.onSeen();
    });
    sized.observe(this.stage);
    return [
      listenToPointer(view, this.stage, this.tooltip),
      watchPageTheme(() => this.paintTheme()),
      () => sized.disconnect(),
      listen(model, {
        "change:scene": () => this.onScene(),
        "change:selected": () => {
          const selected = model.get("selected");
          if (selected !== view.selection) view.select(selected, true);
        },
        "change:opened": () => view.setOpened(model.get("opened") || []),
        "change:height": () => this.paintHeight(),
      }),
    ];
  }

  async onScene() {
    const first = !this.view.picture;
    await this.view.setScene(
      unpacked(this.model.get("scene")) || {},
      this.model.get("opened") || [],
    );
    this.paintCrumbs();
    const selected = this.model.get("selected");
    if (selected) await this.view.select(selected, first);
  }

  /** The stage has a size for the first time. */
  async onSeen() {
    if (this.stage.clientWidth < NARROW) this.legendButton.click();
    await this.view.remeasure();
    this.view.fitReadable();
    if (this.view.selection) await this.view.select(this.view.selection, true);
  }

  /** @param {import("./scene.js").Item | null} item */
  onFound(item) {
    this.view.svg.focus({ preventScroll: true });
    if (!item) return;
    this.view.revealItem(item.id);
    save(this.model, { selected: item.sel });
  }

  toggleLegend() {
    this.legend.hidden = !this.legend.hidden;
    this.legendButton.setAttribute("aria-pressed", String(!this.legend.hidden));
  }

  paintCrumbs() {
    const { view } = this;
    const chain = [...ancestorsOf(view.index, view.root), view.root];
    this.crumbs.hidden = chain.length < 2;
    const buttons = chain.map((id) => {
      const text = view.index.items.get(id)?.label ?? "";
      const button = html("button", { text, disabled: id === view.root });
      button.addEventListener("click", () => view.goTo(id));
      return button;
    });
    this.crumbs.replaceChildren(...buttons);
  }

  paintTheme() {
    const dark = pageIsDark();
    this.root.classList.toggle("qxg-dark", dark);
    if (this.model.get("dark") !== dark) save(this.model, { dark });
  }

  paintHeight() {
    this.stage.style.setProperty("height", `${this.model.get("height")}px`);
  }

  destroy() {
    for (const end of this.endings) end();
    this.overlays.end();
    this.view.dispose();
    this.root.remove();
  }
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const page = new GraphPage(model, el);
    return () => page.destroy();
  },
};
