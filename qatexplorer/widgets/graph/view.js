// One shown graph: what is open, where the reader looks, what is selected.

const MAX_MARKS = 300;
const READABLE = 0.85;
let viewSerial = 0;

class GraphView {
  /** `host` is told: onSelect(selection), onOpened(ids), onStatus(text), onMetrics(dict), onBusy. */
  constructor(stage, host) {
    this.host = host;
    this.prefix = `qxg${++viewSerial}-`;
    this.layouter = new Layouter();
    this.index = indexScene({});
    this.opened = new Set();
    this.target = this.opened;
    this.root = ROOT;
    this.lr = false;
    this.selection = "";
    this.cursor = null;
    this.token = 0;
    this.picture = null;
    this.drawn = { elements: new Map(), edgeElements: [] };
    this.view = { x: 0, y: 0, k: 1 };
    this.hasFit = false;
    this.stage = stage;
    this.world = svg("g", { class: "qxg-world" });
    const arrow = svg("marker", {
      id: `${this.prefix}arrow`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8,
      markerUnits: "userSpaceOnUse", orient: "auto-start-reverse",
    }, [svg("path", { d: "M0 0.8 L8 4 L0 7.2 Z", class: "qxg-arrow" })]);
    this.svg = svg("svg", {
      ...OWN_KEYS, class: "qxg-svg", tabindex: 0, role: "application", "aria-label": "Dataflow graph",
      "aria-roledescription": "graph; arrow keys follow tensors, Enter opens a group or selects",
    }, [svg("defs", {}, [arrow]), this.world]);
    stage.append(this.svg);
    this.family = getComputedStyle(this.svg).fontFamily || "sans-serif";
  }

  /** Shows a new scene and keeps the reader's place. `openIds` is empty for the first picture. */
  async setScene(scene, openIds) {
    const began = performance.now();
    this.layouter.cancel();
    this.layouter.forget();
    this.index = indexScene(scene);
    this.family = getComputedStyle(this.svg).fontFamily || "sans-serif";
    if (!this.index.items.has(this.root)) this.root = ROOT;
    this.world.replaceChildren();
    if (!this.index.nodes.length) {
      this.picture = null;
      this.drawn = { elements: new Map(), edgeElements: [] };
      this.host.onStatus(scene.reason || "Nothing to draw yet");
      return;
    }
    const first = !this.hasFit && !openIds.length;
    const opened = first ? firstOpened(this.index) : new Set(openIds);
    await this.apply(opened, this.root, { what: "scene", began, anchor: this.centreItem() });
  }

  /** Text was measured before the widget was in the page, in another font: measures again. */
  remeasure() {
    const family = getComputedStyle(this.svg).fontFamily || "sans-serif";
    if (family === this.family) return Promise.resolve(false);
    this.family = family;
    this.layouter.forget();
    if (!this.index.nodes.length) return Promise.resolve(false);
    return this.apply(this.target, this.root, { what: "scene" });
  }

  /** Lays out and draws the state wanted; the state before stays until that is done. */
  async apply(opened, root, { what, began = performance.now(), anchor = null, keep = null, say = "" }) {
    const fitted = this.withinBudget(opened, root, keep);
    const token = ++this.token;
    this.target = fitted.opened;
    const busy = setTimeout(() => token === this.token && this.host.onBusy(true), 120);
    const before = anchor && this.picture ? this.picture.boxes.get(anchor) : null;
    try {
      const laid = performance.now();
      const picture = await composePicture(
        this.index, this.layouter, fitted.root, fitted.opened, this.lr, this.family,
      );
      if (token !== this.token) return false;
      const drawing = performance.now();
      const sameRoot = fitted.root === this.root;
      this.opened = this.target = fitted.opened;
      this.root = fitted.root;
      this.picture = picture;
      this.draw();
      const after = anchor && picture.boxes.get(anchor);
      if (!this.hasFit || !sameRoot) this.fitReadable();
      else if (before && after) this.panBy((before.x - after.x) * this.view.k, (before.y - after.y) * this.view.k);
      this.hasFit = true;
      const marks = countMarks(this.index, this.opened, this.root);
      const done = performance.now();
      const metrics = {
        what, marks, layout_ms: drawing - laid, draw_ms: done - drawing, total_ms: done - began,
      };
      this.host.onOpened([...this.opened]);
      this.host.onMetrics(metrics);
      const text = `laid out ${marks} marks in ${Math.round(done - began)} ms`;
      this.host.onStatus([say, fitted.say, text].filter(Boolean).join("; "));
      return true;
    } catch (error) {
      if (token !== this.token) return false;
      this.target = this.opened;
      this.host.onStatus(error instanceof Cancelled ? "cancelled" : `cannot lay out: ${error.message}`);
      return false;
    } finally {
      clearTimeout(busy);
      if (token === this.token) this.host.onBusy(false);
    }
  }

  /** Closes what was used least recently, then steps inside, until few enough marks are drawn. */
  withinBudget(wanted, wantedRoot, keep) {
    const opened = new Set([...wanted]);
    let root = wantedRoot;
    const closed = [];
    const kept = new Set(keep ? [...ancestorsOf(this.index, keep), keep] : []);
    for (const id of wanted) {
      if (countMarks(this.index, opened, root) <= MAX_MARKS) break;
      if (kept.has(id) || !this.index.items.has(id)) continue;
      if (!this.isShown(id, opened, root)) continue;
      opened.delete(id);
      closed.push(this.index.items.get(id).label);
    }
    const way = keep ? [...ancestorsOf(this.index, keep), keep] : [];
    for (const id of way.slice(way.indexOf(root) + 1)) {
      if (countMarks(this.index, opened, root) <= MAX_MARKS) break;
      root = id;
    }
    const says = [];
    if (closed.length) {
      const names = closed.length > 2 ? `${closed.length} groups` : closed.join(", ");
      says.push(`collapsed ${names} to stay under ${MAX_MARKS} marks`);
    }
    if (root !== wantedRoot) {
      says.push(`showing inside ${this.index.items.get(root).label} to stay under ${MAX_MARKS} marks`);
    }
    return { opened, root, say: says.join(", ") };
  }

  isShown(id, opened, root) {
    const chain = ancestorsOf(this.index, id);
    const from = root === id ? -1 : chain.indexOf(root);
    return root === id || (from >= 0 && chain.slice(from + 1).every((a) => opened.has(a)));
  }

  /** Opens or closes a group. Insertion order of the set is the order of use. */
  toggle(id) {
    const item = this.index.items.get(id);
    if (!item || !item.children || id === ROOT) return Promise.resolve(false);
    const opened = new Set(this.target);
    if (id === this.root) return this.goTo(item.parent);
    if (opened.delete(id)) return this.apply(opened, this.root, { what: "close", anchor: id });
    return this.open([id]);
  }

  async open(ids, say = "") {
    const opened = new Set(this.target);
    ids.forEach((id) => {
      opened.delete(id);
      opened.add(id);
    });
    const last = ids[ids.length - 1];
    const done = await this.apply(opened, this.root, { what: "open", anchor: ids[0], keep: last, say });
    if (done) this.makeVisible(last);
    return done;
  }

  closeAll() {
    return this.apply(new Set(), ROOT, { what: "close" }).then((done) => done && this.fitReadable());
  }

  /** Makes `id` the outermost group shown. */
  goTo(id) {
    const opened = new Set(this.target);
    opened.delete(this.root);
    return this.apply(opened, id, { what: "root", keep: id });
  }

  /** `opened` was set from Python. */
  setOpened(ids) {
    const same = ids.length === this.target.size && ids.every((id) => this.target.has(id));
    if (same || !this.index.nodes.length) return Promise.resolve(false);
    return this.apply(new Set(ids), this.root, { what: "open", anchor: this.centreItem(), keep: ids.at(-1) });
  }

  setDirection(lr) {
    this.lr = lr;
    this.hasFit = false;
    if (this.index.nodes.length) this.apply(this.target, this.root, { what: "direction" });
  }

  cancel() {
    return this.layouter.cancel();
  }

  draw() {
    this.drawn = drawPicture(
      this.index, this.picture, this.world, this.root, this.prefix, this.family,
    );
    this.links = null;
    if (this.cursor && !this.drawn.elements.has(this.cursor)) {
      const chain = ancestorsOf(this.index, this.cursor);
      this.cursor = chain.reverse().find((id) => this.drawn.elements.has(id)) || null;
    }
    this.paintSelection();
    this.paintCursor();
  }

  /** Shows `selection` as selected; `reveal` also opens what hides it and brings it into view. */
  async select(selection, reveal) {
    this.selection = selection;
    if (reveal && selection && this.index.nodes.length) {
      const found = itemsOfSelection(this.index, selection);
      const shown = found.filter((id) => this.drawn.elements.has(id));
      const id = shown.length ? shown[0] : found[0];
      if (!id) {
        this.host.onStatus(`${selection} runs nothing in this graph`);
      } else {
        if (!shown.length) await this.revealHidden(id);
        if (this.selection !== selection) return;
        this.cursor = id;
        this.makeVisible(id);
      }
    }
    this.paintSelection();
    this.paintCursor();
  }

  /** Selects an item and shows it: what a search does, also for a module that is called twice. */
  async revealItem(id) {
    if (!this.drawn.elements.has(id)) await this.revealHidden(id);
    this.selection = this.index.items.get(id).sel;
    this.cursor = id;
    this.makeVisible(id);
    this.paintSelection();
    this.paintCursor();
  }

  async revealHidden(id) {
    const chain = ancestorsOf(this.index, id);
    const from = chain.indexOf(this.root);
    if (from < 0) {
      const opened = new Set([...this.target, ...chain.slice(1)]);
      await this.apply(opened, ROOT, { what: "open", keep: chain.at(-1) });
    } else {
      await this.open(chain.slice(from + 1));
    }
  }

  paintSelection() {
    const selection = this.selection;
    const isNode = (id) => {
      const item = this.index.items.get(id);
      return Boolean(selection) && item.sel === selection && !item.synthetic;
    };
    let any = false;
    const chosen = new Set();
    for (const [id, element] of this.drawn.elements) {
      const on = isNode(id);
      any = any || on;
      if (on) chosen.add(id);
      element.classList.toggle("qxg-selected", on);
    }
    if (!any && selection.startsWith("module:")) {
      itemsOfSelection(this.index, selection).forEach((id) => {
        const element = this.drawn.elements.get(id);
        if (element) element.classList.add("qxg-selected");
      });
    }
    this.world.querySelectorAll("[data-site]").forEach((mark) => {
      mark.classList.toggle("qxg-selected", mark.dataset.sel === selection);
    });
    const edge = selection.startsWith("edge:") ? edgeOfSelection(this.index, selection) : -1;
    for (const { element, edge: drawn } of this.drawn.edgeElements) {
      element.classList.toggle("qxg-selected", edge >= 0 && drawn.list.includes(edge));
      const near = (drawn.from && chosen.has(drawn.from)) || (drawn.to && chosen.has(drawn.to));
      element.classList.toggle("qxg-near", Boolean(near));
    }
  }

  paintCursor() {
    for (const [id, element] of this.drawn.elements) {
      element.classList.toggle("qxg-cursor", id === this.cursor);
    }
    if (this.cursor) this.svg.setAttribute("aria-activedescendant", `${this.prefix}${this.cursor}`);
    else this.svg.removeAttribute("aria-activedescendant");
  }

  dispose() {
    this.token += 1;
    this.layouter.dispose();
    this.svg.remove();
  }
}
