// The module tree: a WAI-ARIA tree that draws only the rows in view. State that belongs to Python
// (rows, selected, query, only) lives in the model; what is open and what has focus lives here.

const OVERSCAN = 8;

class View {
  constructor(model, el) {
    this.model = model;
    this.tree = new Tree();
    this.elements = new Map();
    this.active = null;
    this.build(el);
    this.listeners = [
      ["change:rows", () => this.onRows()],
      ["change:selected", () => this.onSelected()],
      ["change:query", () => this.onFilter()],
      ["change:only", () => this.onFilter()],
      ["change:height", () => this.onLook()],
      ["change:dark", () => this.onLook()],
    ];
    for (const [name, handler] of this.listeners) model.on(name, handler);
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.viewport);
    this.onLook();
    this.onRows();
    this.onSelected();
  }

  build(el) {
    this.root = make("div", "qx qx-tree");
    // JupyterLab would take letters typed here for notebook shortcuts ("a" inserts a cell).
    this.root.dataset.lmSuppressShortcuts = "true";
    const bar = make("div", "qx-tree-bar");
    this.input = make("input", "qx-field qx-tree-search");
    this.input.type = "search";
    this.input.placeholder = "Search path or type";
    this.input.setAttribute("aria-label", "Search modules by path or type");
    this.input.addEventListener("input", () => this.send("query", this.input.value));
    this.input.addEventListener("keydown", (event) => this.onSearchKey(event));
    const filters = make("span", "qx-tree-filters");
    this.toggles = ["changed", "float"].map((only) => {
      const text = only === "changed" ? "Only what changed" : "Only what stays float";
      const button = make("button", "qx-button", text);
      button.type = "button";
      button.addEventListener("click", () =>
        this.send("only", this.model.get("only") === only ? "all" : only),
      );
      filters.append(button);
      return [only, button];
    });
    for (const [text, label, open] of [["⊞", "Expand all", true], ["⊟", "Collapse all", false]]) {
      const button = make("button", "qx-button qx-tree-icon", text);
      button.type = "button";
      button.title = label;
      button.setAttribute("aria-label", label);
      button.addEventListener("click", () => {
        this.tree.setAllOpen(open);
        this.refresh();
      });
      filters.append(button);
    }
    this.status = make("span", "qx-tree-status qx-muted");
    this.status.setAttribute("role", "status");
    bar.append(this.input, filters, this.status);
    this.viewport = make("div", "qx-tree-viewport");
    this.viewport.setAttribute("role", "tree");
    this.viewport.setAttribute("aria-label", "Modules of the model");
    this.viewport.addEventListener("scroll", () => this.draw(), { passive: true });
    this.viewport.addEventListener("click", (event) => this.onClick(event));
    this.viewport.addEventListener("dblclick", (event) => this.onClick(event, true));
    this.viewport.addEventListener("keydown", (event) => this.onKey(event));
    this.canvas = make("div", "qx-tree-canvas");
    this.canvas.setAttribute("role", "presentation");
    this.empty = make("p", "qx-tree-empty qx-muted");
    this.viewport.append(this.canvas, this.empty);
    this.root.append(bar, this.viewport);
    el.append(this.root);
  }

  destroy() {
    for (const [name, handler] of this.listeners) this.model.off(name, handler);
    this.resize.disconnect();
    this.root.remove();
  }

  send(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  onLook() {
    const dark = this.model.get("dark");
    this.root.classList.toggle("qx-dark", dark === true);
    this.root.classList.toggle("qx-light", dark === false);
    this.root.style.height = `${this.model.get("height")}px`;
  }

  onRows() {
    this.tree.setRows(this.model.get("rows"));
    if (!this.tree.byId.has(this.active)) this.active = this.tree.rows[0]?.id ?? null;
    for (const element of this.elements.values()) element.dataset.stale = "1";
    this.refresh();
  }

  onFilter() {
    this.tree.closedInSearch.clear();
    this.refresh();
  }

  onSelected() {
    const row = this.tree.find(this.model.get("selected"));
    this.selected = row ? row.id : null;
    if (row) {
      this.active = row.id;
      this.tree.reveal(row);
    }
    this.refresh();
    if (row) this.scrollTo(row.id);
  }

  refresh() {
    const query = this.model.get("query");
    const only = this.model.get("only");
    if (this.input.value !== query) this.input.value = query;
    for (const [name, button] of this.toggles) button.setAttribute("aria-pressed", String(only === name));
    this.hits = this.tree.search(query, only);
    const row = this.tree.find(this.model.get("selected"));
    this.selected = row ? row.id : null;
    this.shown = this.tree.visible(this.hits, this.selected);
    this.indexOf = new Map(this.shown.map((item, i) => [item.id, i]));
    if (!this.indexOf.has(this.active)) this.active = this.nearestShown(this.active);
    this.canvas.style.height = `${this.shown.length * ROW}px`;
    const n = this.hits ? this.hits.size : this.tree.rows.length;
    this.status.textContent = this.hits
      ? `${n.toLocaleString("en")} of ${this.tree.rows.length.toLocaleString("en")}`
      : `${n.toLocaleString("en")} modules and fake quants`;
    this.empty.hidden = this.shown.length > 0;
    this.empty.textContent = this.emptyText(query, only);
    this.draw();
  }

  emptyText(query, only) {
    if (query.trim()) return "Nothing matches the search.";
    if (only === "changed") return "Nothing changed in this stage.";
    if (only === "float") {
      return "Nothing stays float here. (Before fake quants are inserted this is not decided.)";
    }
    return "There is no model to show.";
  }

  nearestShown(id) {
    for (let row = this.tree.byId.get(id); row; row = this.tree.byId.get(row.parent)) {
      if (this.indexOf.has(row.id)) return row.id;
    }
    return this.shown[0]?.id ?? null;
  }

  draw() {
    if (!this.shown) return;
    const height = this.viewport.clientHeight || this.model.get("height");
    const first = Math.max(0, Math.floor(this.viewport.scrollTop / ROW) - OVERSCAN);
    const last = Math.min(this.shown.length, Math.ceil((this.viewport.scrollTop + height) / ROW) + OVERSCAN);
    const wanted = new Set();
    for (let i = first; i < last; i++) wanted.add(i);
    // The row with the focus stays in the page, or a scroll would throw the focus away.
    if (this.indexOf.has(this.active)) wanted.add(this.indexOf.get(this.active));
    const keep = new Set([...wanted].map((i) => this.shown[i].id));
    for (const [id, element] of this.elements) {
      if (!keep.has(id)) {
        element.remove();
        this.elements.delete(id);
      }
    }
    for (const i of wanted) this.drawRow(this.shown[i], i);
  }

  drawRow(row, i) {
    let element = this.elements.get(row.id);
    if (!element || element.dataset.stale) {
      if (!element) {
        element = make("div");
        element.setAttribute("role", "treeitem");
        element.dataset.id = row.id;
        this.elements.set(row.id, element);
        this.canvas.append(element);
      }
      fillRow(element, row);
      delete element.dataset.stale;
    }
    element.style.transform = `translateY(${i * ROW}px)`;
    element.tabIndex = row.id === this.active ? 0 : -1;
    element.setAttribute("aria-selected", String(row.id === this.selected));
    const [place, size] = this.tree.position.get(row.id) || [1, 1];
    element.setAttribute("aria-posinset", String(place));
    element.setAttribute("aria-setsize", String(size));
    if (this.tree.hasChildren(row)) {
      element.setAttribute("aria-expanded", String(this.tree.isOpen(row)));
    } else {
      element.removeAttribute("aria-expanded");
    }
    element.classList.toggle("qx-is-context", Boolean(this.hits) && !this.hits.has(row.id));
  }

  scrollTo(id) {
    const i = this.indexOf.get(id);
    if (i === undefined) return;
    const height = this.viewport.clientHeight || this.model.get("height");
    const top = i * ROW;
    if (top < this.viewport.scrollTop + ROW || top + 2 * ROW > this.viewport.scrollTop + height) {
      this.viewport.scrollTop = Math.max(0, top - height / 2);
    }
    this.draw();
  }

  focusRow(index) {
    const row = this.shown[Math.max(0, Math.min(this.shown.length - 1, index))];
    if (!row) return;
    this.active = row.id;
    const top = this.indexOf.get(row.id) * ROW;
    const height = this.viewport.clientHeight;
    if (top < this.viewport.scrollTop) this.viewport.scrollTop = top;
    else if (top + ROW > this.viewport.scrollTop + height) this.viewport.scrollTop = top + ROW - height;
    this.draw();
    this.elements.get(row.id)?.focus({ preventScroll: true });
  }

  toggle(row, open) {
    this.tree.setOpen(row, open);
    this.refresh();
  }

  onClick(event, double) {
    const element = event.target.closest("[role=treeitem]");
    const row = element && this.tree.byId.get(element.dataset.id);
    if (!row) return;
    const onChevron = Boolean(event.target.closest(".qx-tree-chevron"));
    if (double ? !onChevron : onChevron) this.toggle(row, !this.tree.isOpen(row));
    else if (!double) this.send("selected", row.id);
    this.focusRow(this.indexOf.get(row.id));
  }

  onSearchKey(event) {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      const hit = this.hits ? this.shown.findIndex((row) => this.hits.has(row.id)) : 0;
      this.focusRow(Math.max(0, hit));
      event.preventDefault();
    } else if (event.key === "Escape") {
      this.send("query", "");
      event.preventDefault();
    }
  }

  onKey(event) {
    const row = this.tree.byId.get(this.active);
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.indexOf.get(row.id);
    const page = Math.max(1, Math.floor(this.viewport.clientHeight / ROW) - 1);
    const open = this.tree.hasChildren(row) && this.tree.isOpen(row);
    const actions = {
      ArrowDown: () => this.focusRow(at + 1),
      ArrowUp: () => this.focusRow(at - 1),
      PageDown: () => this.focusRow(at + page),
      PageUp: () => this.focusRow(at - page),
      Home: () => this.focusRow(0),
      End: () => this.focusRow(this.shown.length - 1),
      Enter: () => this.send("selected", row.id),
      " ": () => this.send("selected", row.id),
      ArrowRight: () => {
        if (open) this.focusRow(at + 1);
        else this.toggle(row, true);
      },
      ArrowLeft: () => {
        if (open) this.toggle(row, false);
        else if (this.indexOf.has(row.parent)) this.focusRow(this.indexOf.get(row.parent));
      },
      "*": () => {
        const siblings = row.parent === null ? [row] : this.tree.children.get(row.parent);
        for (const sibling of siblings) this.tree.setOpen(sibling, true);
        this.refresh();
      },
    };
    if (actions[event.key]) actions[event.key]();
    else if (event.key.length === 1) {
      this.input.focus();
      this.input.value += event.key;
      this.send("query", this.input.value);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

export default {
  render({ model, el }) {
    const view = new View(model, el);
    return () => view.destroy();
  },
};
