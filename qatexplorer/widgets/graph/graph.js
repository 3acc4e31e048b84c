// The widget: one model (traits), one view. Contract: see graph.py.

import { html, listen, pageIsDark, save, unpacked, watchPageTheme } from "../common/dom.js";
import { download } from "../common/file.js";
import { exportSvg } from "./export.js";
import { Keyboard } from "./keys.js";
import { Minimap } from "./minimap.js";
import { OverlayPanel } from "./overlay_panel.js";
import { listenToPointer } from "./pointer.js";
import { ancestorsOf, searchItems } from "./scene.js";
import { SearchBox } from "./search.js";
import { iconButton, legendBox, paintLegend } from "./toolbar.js";
import { Tooltip, tipOf } from "./tooltip.js";
import { GraphView } from "./view.js";

/**
 * @typedef {object} Traits see graph.py
 * @property {import("./scene.js").Scene} scene
 * @property {string} selected
 * @property {string[]} opened
 * @property {boolean} identities
 * @property {number} height
 * @property {boolean} dark
 * @property {string} status
 * @property {Record<string, string | number>} metrics
 * @property {import("./scale.js").Overlay} overlay
 * @property {import("./overlay_panel.js").Compared} compared
 * @property {Record<string, import("./scene.js").Finding>} findings
 * @property {import("./overlay_panel.js").Picker[]} pickers
 * @property {Record<string, string>} picked
 */

const NARROW = 760;
const HINT_MS = 1800;
const IS_MAC = /Mac|iP(hone|ad)/.test(navigator.platform);
const MAP_KEY = "qatexplorer.graph.map";

/** Whether the user wants the map, as remembered in this browser. */
function mapWanted() {
  try {
    return localStorage.getItem(MAP_KEY) !== "off";
  } catch {
    return true; // a page that refuses storage
  }
}

/** @param {boolean} on */
function rememberMap(on) {
  try {
    localStorage.setItem(MAP_KEY, on ? "on" : "off");
  } catch {
    // A page that refuses storage: it holds for this view.
  }
}

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
    this.hint = html("div", {
      class: "qxg-hint",
      "aria-hidden": "true",
      hidden: true,
      text: `${IS_MAC ? "⌘" : "Ctrl"} + wheel zooms; after a click on the graph, the wheel alone`,
    });
    this.view = new GraphView(this.stage, this.host());
    this.map = new Minimap(this.stage, this.view.camera);
    this.view.camera.onMove = () => this.map.paint();
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
    this.identityButton = iconButton("identity", "Show Identities", () =>
      save(this.model, { identities: !this.view.identities }),
    );
    this.mapButton = iconButton("map", "Map of the whole graph", () => this.toggleMap());
    bar.append(this.search.box, ...this.buttons(), this.crumbs);
    this.stage.append(this.legend, this.cancel, this.hint);
    this.view.identities = Boolean(model.get("identities"));
    this.view.findings = model.get("findings") ?? {};
    this.map.on = mapWanted();
    this.mapButton.setAttribute("aria-pressed", String(this.map.on));
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.hiding = undefined;
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
      onPicture: (picture) => {
        this.map.draw(picture);
        this.paintIdentities();
      },
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
      this.identityButton,
      this.mapButton,
      this.legendButton,
      iconButton("save", "Download as SVG", () =>
        download(exportSvg(view), "graph.svg", "image/svg+xml"),
      ),
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
      if (!this.stage.clientWidth) return;
      if (seen) this.view.onResize();
      else this.onSeen();
      seen = true;
    });
    sized.observe(this.stage);
    return [
      listenToPointer(view, this.stage, this.tooltip, () => this.showHint()),
      watchPageTheme(() => this.paintTheme()),
      () => sized.disconnect(),
      listen(model, {
        "change:scene": () => this.onScene(),
        "change:selected": () => {
          const selected = model.get("selected");
          if (selected !== view.selection) view.select(selected, true);
        },
        "change:opened": () => view.setOpened(model.get("opened") || []),
        "change:identities": () => this.onIdentities(),
        "change:height": () => this.paintHeight(),
        "change:findings": () => this.onFindings(),
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
    paintLegend(this.legend, this.view.index);
    const selected = this.model.get("selected");
    if (selected) await this.view.select(selected, first);
  }

  async onIdentities() {
    await this.view.setIdentities(Boolean(this.model.get("identities")));
    paintLegend(this.legend, this.view.index);
  }

  onFindings() {
    this.view.setFindings(this.model.get("findings") ?? {});
    paintLegend(this.legend, this.view.index);
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

  toggleMap() {
    this.map.toggle(!this.map.on);
    rememberMap(this.map.on);
    this.mapButton.setAttribute("aria-pressed", String(this.map.on));
  }

  /** The wheel scrolls the page: says how to zoom. */
  showHint() {
    this.hint.hidden = false;
    clearTimeout(this.hiding);
    this.hiding = setTimeout(() => {
      this.hint.hidden = true;
    }, HINT_MS);
  }

  paintIdentities() {
    const { passes } = this.view.index;
    const on = this.view.identities;
    const modules = `${passes} Identity module${passes === 1 ? "" : "s"}`;
    const title = on ? `Hide the ${modules} again` : `Show the ${modules} that pass a tensor on`;
    this.identityButton.hidden = !passes;
    this.identityButton.title = title;
    this.identityButton.setAttribute("aria-label", title);
    this.identityButton.setAttribute("aria-pressed", String(on));
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
    this.root.style.setProperty("--qxg-height", `${this.model.get("height")}px`);
  }

  destroy() {
    for (const end of this.endings) end();
    clearTimeout(this.hiding);
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
