// One shown graph: what is open, where the user looks, what is selected.

import { OWN_KEYS, svg } from "../common/dom.js";
import { countMarks, firstOpened, withinBudget, withNewFolds } from "./budget.js";
import { Camera } from "./camera.js";
import { drawPicture } from "./draw.js";
import { composePicture, gripOf } from "./geometry.js";
import { Cancelled, Layouter } from "./layout.js";
import {
  ancestorsOf,
  edgeOfSelection,
  indexScene,
  itemOf,
  itemsOfSelection,
  placeOfItem,
  ROOT,
} from "./scene.js";

/**
 * @typedef {import("./draw.js").Drawn} Drawn
 * @typedef {import("./geometry.js").Picture} Picture
 * @typedef {import("./scene.js").Scene} Scene
 */

/**
 * What a view reports to.
 * @typedef {object} Host
 * @property {(selection: string) => void} onSelect
 * @property {(ids: string[]) => void} onOpened
 * @property {(text: string) => void} onStatus
 * @property {(metrics: Record<string, string | number>) => void} onMetrics
 * @property {(busy: boolean) => void} onBusy
 * @property {() => void} onSearch
 * @property {(element: Element | undefined) => void} onCursor
 * @property {(picture: Picture | null) => void} onPicture
 */

/**
 * Why a picture is drawn anew, and what it keeps.
 * @typedef {object} Reason
 * @property {"scene" | "open" | "close" | "root" | "direction" | "identities"} what
 * @property {number} [began]
 * @property {string | null} [anchor] id of an item that stays in place
 * @property {string | null} [keep] id of an item that stays shown
 */

/** @returns {Drawn} */
const nothingDrawn = () => ({ elements: new Map(), edgeElements: [], passes: new Map() });

let viewSerial = 0;

export class GraphView {
  /**
   * @param {HTMLElement} stage
   * @param {Host} host
   */
  constructor(stage, host) {
    this.host = host;
    viewSerial += 1;
    this.prefix = `qxg${viewSerial}-`;
    this.layouter = new Layouter();
    /** @type {Scene} */
    this.scene = {};
    this.index = indexScene({});
    /** By selection string. @type {Record<string, import("./scene.js").Finding>} */
    this.findings = {};
    /** What {@link picture} was made of. @type {unknown} */
    this.drawnIndex = null;
    /** Whether Identities are drawn as boxes. */
    this.identities = false;
    /** Ids of the open groups, least recently used first. @type {Set<string>} */
    this.opened = new Set();
    /** What is being laid out, {@link opened} once it is drawn. @type {Set<string>} */
    this.target = this.opened;
    this.root = ROOT;
    this.lr = false;
    this.selection = "";
    /** Id of the item that the keyboard is on. @type {string | null} */
    this.cursor = null;
    this.token = 0;
    /** @type {Picture | null} */
    this.picture = null;
    this.drawn = nothingDrawn();
    this.hasFit = false;
    this.stage = stage;
    this.world = svg("g", { class: "qxg-world" });
    this.svg = this.makeSvg();
    this.camera = new Camera(this.svg, this.world);
    /** How the view was framed last. @type {"fit" | "readable"} */
    this.framed = "readable";
    stage.append(this.svg);
    this.family = this.fontFamily();
  }

  makeSvg() {
    const arrow = svg(
      "marker",
      {
        id: `${this.prefix}arrow`,
        viewBox: "0 0 8 8",
        refX: 7,
        refY: 4,
        markerWidth: 8,
        markerHeight: 8,
        markerUnits: "userSpaceOnUse",
        orient: "auto-start-reverse",
      },
      [svg("path", { d: "M0 0.8 L8 4 L0 7.2 Z", class: "qxg-arrow" })],
    );
    return svg(
      "svg",
      {
        ...OWN_KEYS,
        class: "qxg-svg",
        tabindex: 0,
        role: "application",
        "aria-label": "Dataflow graph",
        "aria-roledescription": "graph; arrow keys follow tensors, Enter opens a group or selects",
      },
      [svg("defs", {}, [arrow]), this.world],
    );
  }

  fontFamily() {
    return getComputedStyle(this.svg).fontFamily || "sans-serif";
  }

  /**
   * Shows a new scene and keeps the user's place.
   * @param {Scene} scene
   * @param {string[]} openIds empty for the first picture
   */
  async setScene(scene, openIds) {
    const began = performance.now();
    this.layouter.cancel();
    this.layouter.forget();
    const known = this.index.items;
    this.scene = scene;
    this.index = indexScene(scene, this.identities);
    this.markFindings();
    this.family = this.fontFamily();
    if (!this.index.items.has(this.root)) this.root = ROOT;
    this.world.replaceChildren();
    if (!this.index.nodes.length) {
      this.picture = null;
      this.drawn = nothingDrawn();
      this.host.onPicture(null);
      this.host.onStatus(scene.reason || "Nothing to draw yet");
      return;
    }
    const first = !this.hasFit && !openIds.length;
    const opened = first ? firstOpened(this.index) : withNewFolds(this.index, openIds, known);
    await this.apply(opened, this.root, { what: "scene", began, anchor: this.centreItem() });
  }

  /** @param {boolean} on whether Identities are drawn as boxes */
  async setIdentities(on) {
    if (on === this.identities) return;
    this.identities = on;
    const anchor = this.centreItem();
    this.layouter.cancel();
    this.layouter.forget();
    this.index = indexScene(this.scene, on);
    this.markFindings();
    if (this.index.hidden.has(this.root)) this.root = ROOT;
    if (!this.index.nodes.length) return;
    await this.apply(this.target, this.root, { what: "identities", anchor });
    if (this.selection) await this.select(this.selection, true);
  }

  markFindings() {
    for (const item of this.index.items.values()) {
      item.finding = item.synthetic ? undefined : this.findings[item.sel];
    }
  }

  /** Marks the places of findings. @param {Record<string, import("./scene.js").Finding>} findings */
  setFindings(findings) {
    this.findings = findings;
    this.markFindings();
    // A picture of the scene before is replaced by one that has the marks.
    if (this.picture && this.drawnIndex === this.index) this.draw(this.picture);
  }

  /** Text was measured before the widget was in the page, in another font: measures again. */
  async remeasure() {
    const family = this.fontFamily();
    if (family === this.family) return;
    this.family = family;
    this.layouter.forget();
    if (this.index.nodes.length) await this.apply(this.target, this.root, { what: "scene" });
  }

  /**
   * Lays out and draws the state wanted; the state before stays until that is done.
   * @param {Set<string>} opened
   * @param {string} root
   * @param {Reason} reason
   * @returns {Promise<boolean>} false if it was cancelled, overtaken by another, or failed
   */
  async apply(opened, root, { what, began = performance.now(), anchor = null, keep = null }) {
    const fitted = withinBudget(this.index, opened, root, keep);
    this.token += 1;
    const { token } = this;
    this.target = fitted.opened;
    const busy = setTimeout(() => token === this.token && this.host.onBusy(true), 120);
    const before = anchor === null ? undefined : this.picture?.boxes.get(anchor);
    try {
      const laid = performance.now();
      const { index, layouter, lr, family } = this;
      const picture = await composePicture(index, layouter, fitted.root, fitted.opened, lr, family);
      if (token !== this.token) return false;
      const drawing = performance.now();
      const sameRoot = fitted.root === this.root;
      this.opened = fitted.opened;
      this.root = fitted.root;
      this.picture = picture;
      this.drawnIndex = index;
      this.draw(picture);
      const after = anchor === null ? undefined : picture.boxes.get(anchor);
      this.camera.extent = { w: picture.w, h: picture.h };
      if (!this.hasFit || !sameRoot) this.fitReadable();
      else if (before && after) {
        // What was clicked stays under the pointer: the sign that opens and closes it.
        const { k, moved } = this.camera;
        const [[x0, y0], [x1, y1]] = [gripOf(before), gripOf(after)];
        this.camera.panBy((x0 - x1) * k, (y0 - y1) * k);
        // A scene that came in the place of another is no move of the user's.
        if (what === "scene") this.camera.moved = moved;
      }
      this.hasFit = true;
      this.host.onPicture(picture);
      this.report(what, fitted.say, { began, laid, drawing });
      return true;
    } catch (error) {
      if (token !== this.token) return false;
      this.target = this.opened;
      const message = error instanceof Error ? error.message : String(error);
      const failed = error instanceof Cancelled ? "cancelled" : `cannot lay out: ${message}`;
      this.host.onStatus(failed);
      return false;
    } finally {
      clearTimeout(busy);
      if (token === this.token) this.host.onBusy(false);
    }
  }

  /**
   * @param {string} what
   * @param {string} say
   * @param {{ began: number, laid: number, drawing: number }} times
   */
  report(what, say, { began, laid, drawing }) {
    const marks = countMarks(this.index, this.opened, this.root);
    const done = performance.now();
    this.host.onOpened([...this.opened]);
    this.host.onMetrics({
      what,
      marks,
      layout_ms: drawing - laid,
      draw_ms: done - drawing,
      total_ms: done - began,
    });
    const text = `laid out ${marks} marks in ${Math.round(done - began)} ms`;
    this.host.onStatus([say, text].filter(Boolean).join("; "));
  }

  /**
   * Opens or closes a group. Insertion order of the set is the order of use.
   * @param {string} id
   */
  async toggle(id) {
    const item = this.index.items.get(id);
    if (!item?.children || item.parent === null) return;
    const opened = new Set(this.target);
    if (id === this.root) await this.goTo(item.parent);
    else if (opened.delete(id)) await this.apply(opened, this.root, { what: "close", anchor: id });
    else await this.open([id]);
  }

  /** @param {string[]} ids outer ones first */
  async open(ids) {
    const opened = new Set(this.target);
    for (const id of ids) {
      opened.delete(id);
      opened.add(id);
    }
    const last = ids[ids.length - 1];
    await this.apply(opened, this.root, { what: "open", anchor: ids[0], keep: last });
  }

  async closeAll() {
    if (await this.apply(new Set(), ROOT, { what: "close" })) this.fitReadable();
  }

  /** Makes `id` the outermost group shown. @param {string} id */
  async goTo(id) {
    const opened = new Set(this.target);
    opened.delete(this.root);
    await this.apply(opened, id, { what: "root", keep: id });
  }

  /** `opened` was set from Python. @param {string[]} ids */
  async setOpened(ids) {
    const same = ids.length === this.target.size && ids.every((id) => this.target.has(id));
    if (same || !this.index.nodes.length) return;
    const anchor = this.centreItem();
    await this.apply(new Set(ids), this.root, { what: "open", anchor, keep: ids.at(-1) ?? null });
  }

  /** @param {boolean} lr whether to lay out from left to right */
  async setDirection(lr) {
    this.lr = lr;
    this.hasFit = false;
    if (this.index.nodes.length) await this.apply(this.target, this.root, { what: "direction" });
  }

  cancel() {
    return this.layouter.cancel();
  }

  fit() {
    this.framed = "fit";
    if (this.picture) this.camera.fit(this.picture);
  }

  fitReadable() {
    this.framed = "readable";
    if (this.picture) this.camera.fitReadable(this.picture);
  }

  /** @param {boolean} end whether to look where the tensors leave, else where they enter */
  lookAtEnd(end) {
    const { camera, picture } = this;
    if (!picture) return;
    const far = end ? Number.MAX_VALUE : -Number.MAX_VALUE;
    if (this.lr) camera.lookAt(far, picture.h / 2);
    else camera.lookAt(picture.w / 2, far);
  }

  /** The window has another size: a view that the user has not moved is framed again. */
  onResize() {
    if (this.camera.moved) this.camera.keepMiddle(this.lr);
    else if (this.framed === "fit") this.fit();
    else this.fitReadable();
  }

  zoomToSelection() {
    const found = itemsOfSelection(this.index, this.selection).find((id) => this.boxOf(id));
    const box = this.boxOf(found ?? this.cursor ?? "");
    if (!box) return;
    const around = { x: box.x - 60, y: box.y - 60, w: box.w + 120, h: box.h + 120 };
    this.camera.frame(around, 0.2, 1.6, this.lr);
  }

  /**
   * Where an item is drawn; for an Identity that an edge stands for, around its dot.
   * @param {string} id
   * @returns {import("./camera.js").Box | undefined}
   */
  boxOf(id) {
    const pass = this.drawn.passes.get(id);
    if (!pass) return this.picture?.boxes.get(id);
    const [x, y] = pass.at;
    return { x: x - 60, y: y - 40, w: 120, h: 80 };
  }

  /** Pans as little as needed to show an item. @param {string} id */
  makeVisible(id) {
    const box = this.boxOf(id);
    if (box) this.camera.reveal(box);
  }

  /** The item nearest to the middle of the window: it stays in place when the scene changes. */
  centreItem() {
    if (!this.picture) return null;
    const boxes = [...this.picture.boxes.values()];
    const here = boxes.filter((box) => !box.open && this.index.items.has(box.id));
    return this.camera.nearest(here)?.id ?? null;
  }

  /** @param {Picture} picture */
  draw(picture) {
    this.drawn = drawPicture(this.index, picture, this.world, this.root, this.prefix);
    if (this.cursor !== null && !this.drawn.elements.has(this.cursor)) {
      const around = ancestorsOf(this.index, this.cursor).reverse();
      this.cursor = around.find((id) => this.drawn.elements.has(id)) ?? null;
    }
    this.paintSelection();
    this.paintCursor();
  }

  /**
   * Shows `selection` as selected.
   * @param {string} selection
   * @param {boolean} reveal whether to open what hides it and to bring it into view
   */
  async select(selection, reveal) {
    this.selection = selection;
    if (reveal && selection && this.index.nodes.length) {
      const found = itemsOfSelection(this.index, selection);
      const shown = found.find((id) => this.boxOf(id));
      const id = shown ?? found[0];
      if (id === undefined) {
        this.host.onStatus(`${selection} runs nothing in this graph`);
      } else {
        if (shown === undefined) await this.revealHidden(id);
        if (this.selection !== selection) return;
        this.cursor = this.drawn.elements.has(id) ? id : this.cursor;
        this.makeVisible(id);
      }
    }
    this.paintSelection();
    this.paintCursor();
  }

  /**
   * Selects an item and shows it: what a search does, also for a module that is called twice.
   * @param {string} id
   */
  async revealItem(id) {
    if (!this.boxOf(id)) await this.revealHidden(id);
    this.selection = itemOf(this.index, id).sel;
    this.cursor = this.drawn.elements.has(id) ? id : this.cursor;
    this.makeVisible(id);
    this.paintSelection();
    this.paintCursor();
  }

  /** @param {string} id */
  async revealHidden(id) {
    const around = ancestorsOf(this.index, id);
    const chain = around.filter((above) => !this.index.hidden.has(above));
    const from = chain.indexOf(this.root);
    if (from >= 0) {
      await this.open(chain.slice(from + 1));
      return;
    }
    const opened = new Set([...this.target, ...chain.slice(1)]);
    await this.apply(opened, ROOT, { what: "open", keep: chain.at(-1) ?? null });
  }

  paintSelection() {
    const { selection, index } = this;
    const { elements, edgeElements } = this.drawn;
    /** @type {Set<string | null>} */
    const chosen = new Set();
    for (const [id, element] of elements) {
      const item = index.items.get(id);
      const on = selection !== "" && item?.sel === selection && !item.synthetic;
      if (on) chosen.add(id);
      element.classList.toggle("qxg-selected", on);
      element.classList.remove("qxg-holds");
    }
    const meant = selection ? itemsOfSelection(index, selection) : [];
    if (!chosen.size && selection.startsWith("module:")) {
      for (const id of meant) elements.get(id)?.classList.add("qxg-selected");
    }
    this.paintPasses(new Set(meant));
    this.paintHolders(meant);
    for (const mark of this.world.querySelectorAll("[data-site]")) {
      mark.classList.toggle("qxg-selected", mark.getAttribute("data-sel") === selection);
    }
    const edge = selection.startsWith("edge:") ? edgeOfSelection(index, selection) : -1;
    for (const { element, edge: drawn } of edgeElements) {
      element.classList.toggle("qxg-selected", edge >= 0 && drawn.list.includes(edge));
      element.classList.toggle("qxg-near", chosen.has(drawn.from) || chosen.has(drawn.to));
    }
  }

  /**
   * The dots of Identities that are selected, with their names.
   * @param {Set<string>} meant
   */
  paintPasses(meant) {
    for (const { element } of this.drawn.passes.values()) element.classList.remove("qxg-selected");
    for (const [id, { element }] of this.drawn.passes) {
      if (!meant.has(id)) continue;
      element.classList.add("qxg-selected");
      const name = element.querySelector(".qxg-pass-name");
      if (name) name.textContent = `${itemOf(this.index, id).label} (Identity)`;
    }
  }

  /**
   * The closed groups that hide what is selected.
   * @param {string[]} meant
   */
  paintHolders(meant) {
    const { elements } = this.drawn;
    for (const id of meant) {
      if (this.boxOf(id)) continue;
      const place = placeOfItem(this.index, id);
      const around = [place, ...ancestorsOf(this.index, place).reverse()];
      const at = around.find((above) => elements.has(above));
      if (at !== undefined && !this.picture?.boxes.get(at)?.open) {
        elements.get(at)?.classList.add("qxg-holds");
      }
    }
  }

  paintCursor() {
    for (const [id, element] of this.drawn.elements) {
      element.classList.toggle("qxg-cursor", id === this.cursor);
    }
    if (this.cursor === null) this.svg.removeAttribute("aria-activedescendant");
    else this.svg.setAttribute("aria-activedescendant", `${this.prefix}${this.cursor}`);
  }

  dispose() {
    this.token += 1;
    this.layouter.dispose();
    this.svg.remove();
  }
}
