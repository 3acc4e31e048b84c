// The module tree: a WAI-ARIA tree that draws only the rows in view. State that belongs to Python
// (rows, selected, query, only) lives in the model; what is open and what has focus lives here.

const ROW = 26;
const OVERSCAN = 8;
const OPEN_ALL_BELOW = 80;
const KINDS = [
  ["weight", "■", "W"],
  ["input", "▲", "I"],
  ["output", "●", "A"],
];

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function badge(text, className, title) {
  const element = make("span", `qx-badge ${className}`, text);
  if (title) element.title = title;
  return element;
}

/** Rows, who is whose child, and which are open and found. */
class Tree {
  constructor() {
    this.open = new Map(); // path -> bool; by path, as a module's id may become a site's
    this.closedInSearch = new Set();
    this.setRows([]);
  }

  setRows(rows) {
    this.rows = rows;
    this.byId = new Map(rows.map((row) => [row.id, row]));
    this.children = new Map();
    for (const row of rows) {
      if (row.parent === null || !this.byId.has(row.parent)) continue;
      if (!this.children.has(row.parent)) this.children.set(row.parent, []);
      this.children.get(row.parent).push(row);
    }
    this.position = new Map();
    for (const siblings of [...this.children.values(), rows.filter((r) => r.parent === null)]) {
      siblings.forEach((row, i) => this.position.set(row.id, [i + 1, siblings.length]));
    }
  }

  find(selection) {
    const path = selection.slice(selection.indexOf(":") + 1);
    if (!/^(module|site):/.test(selection)) return undefined;
    return (
      this.byId.get(selection) || this.byId.get(`site:${path}`) || this.byId.get(`module:${path}`)
    );
  }

  hasChildren(row) {
    return this.children.has(row.id);
  }

  isOpen(row) {
    if (this.filtered) return !this.closedInSearch.has(row.path);
    if (this.open.has(row.path)) return this.open.get(row.path);
    return this.rows.length <= OPEN_ALL_BELOW || row.depth < 2;
  }

  setOpen(row, open) {
    if (!this.hasChildren(row)) return;
    if (!this.filtered) this.open.set(row.path, open);
    else if (open) this.closedInSearch.delete(row.path);
    else this.closedInSearch.add(row.path);
  }

  setAllOpen(open) {
    // The root stays open: one line alone would look like an empty tree.
    for (const row of this.rows) this.setOpen(row, open || row.parent === null);
  }

  reveal(row) {
    for (let up = this.byId.get(row.parent); up; up = this.byId.get(up.parent)) {
      this.setOpen(up, true);
    }
  }

  /** Hits of the search and filters, or null when all rows are shown. */
  search(query, only) {
    const terms = query.toLowerCase().split(/\s+/).filter(Boolean);
    this.filtered = terms.length > 0 || only !== "all";
    if (!this.filtered) return null;
    const hits = new Set();
    for (const row of this.rows) {
      if (only === "changed" && !row.changed) continue;
      if (only === "float" && !row.float) continue;
      const text = `${row.path} ${row.type} ${row.before}`.toLowerCase();
      if (terms.every((term) => text.includes(term))) hits.add(row.id);
    }
    return hits;
  }

  /** The rows to draw, in order: open ones, and under a search hits with their ancestors. */
  visible(hits, pinned) {
    let keep = null;
    if (hits) {
      keep = new Set();
      for (const id of pinned ? [...hits, pinned] : hits) {
        for (let row = this.byId.get(id); row && !keep.has(row.id); ) {
          keep.add(row.id);
          row = this.byId.get(row.parent);
        }
      }
    }
    const shown = [];
    let hiddenBelow = Infinity;
    for (const row of this.rows) {
      if (row.depth > hiddenBelow) continue;
      hiddenBelow = Infinity;
      if (keep && !keep.has(row.id)) continue;
      shown.push(row);
      if (this.hasChildren(row) && !this.isOpen(row)) hiddenBelow = row.depth;
    }
    return shown;
  }
}

function describe(row) {
  const parts = [row.name, row.before ? `was ${row.before}, now ${row.type}` : row.type];
  if (row.kind === "site") parts.push(`${row.site} fake quant`);
  if (row.changed) parts.push(`changed: ${row.what.join(", ")}`);
  if (row.qconfig) parts.push(`qconfig ${row.qconfig}`);
  KINDS.forEach(([kind], i) => {
    if (row.below[i]) parts.push(`${row.below[i]} ${kind} fake quant${row.below[i] > 1 ? "s" : ""}`);
  });
  if (row.int8) parts.push("int8");
  if (row.float) parts.push("stays float");
  if (row.not_run) parts.push("not run");
  if (row.shared !== null) parts.push(`same object as ${row.shared}`);
  return parts.join(", ");
}

function typeCell(row) {
  const cell = make("span", "qx-tree-type");
  if (row.before) {
    cell.append(make("span", "qx-tree-before", row.before), make("span", "qx-tree-arrow", " → "));
    cell.append(make("strong", "qx-tree-after", row.type));
  } else {
    cell.textContent = row.type;
  }
  cell.title = row.before ? `${row.before} → ${row.type}\n${row.title}` : row.title;
  return cell;
}

function badges(row) {
  const box = make("span", "qx-tree-badges");
  const own = row.marks.some(Boolean);
  KINDS.forEach(([kind, mark, letter], i) => {
    const n = own ? row.marks[i] : row.below[i];
    if (!n) return;
    const text = own ? `${mark} ${letter}${n > 1 ? ` ${n}` : ""}` : `${mark} ${n}`;
    const where = own ? "held by this module" : "inside";
    box.append(
      badge(text, own ? `qx-${kind}` : "qx-tree-inside", `${n} ${kind} fake quant(s) ${where}`),
    );
  });
  if (row.int8) box.append(badge("int8", "qx-int8", "An int8 module of torch"));
  if (row.float) box.append(badge("float", "qx-tree-float", "Computes in float at this stage"));
  if (row.not_run) box.append(badge("not run", "", "Did not run in the forward of the example input"));
  if (row.shared !== null) {
    box.append(badge("shared", "", `The same object as ${row.shared || "the model"}`));
  }
  if (row.qconfig) box.append(badge(row.qconfig, "qx-tree-qconfig", row.qconfig_title));
  return box;
}

function fillRow(element, row) {
  element.replaceChildren();
  const guides = make("span", "qx-tree-indent");
  guides.style.width = `${row.depth * 16}px`;
  const chevron = make("span", "qx-tree-chevron");
  chevron.setAttribute("aria-hidden", "true");
  const name = make("span", "qx-tree-name", row.name);
  name.title = row.path || "the model itself";
  element.append(guides, chevron);
  if (row.kind === "site") {
    const [kind, mark, letter] = KINDS.find(([k]) => k === row.site);
    element.append(badge(`${mark} ${letter}`, `qx-${kind}`, `${kind} fake quant`));
  }
  element.append(name, typeCell(row));
  const delta = make("span", "qx-tree-delta", row.changed ? "Δ" : "");
  if (row.changed) delta.title = `Changed in this stage: ${row.what.join(", ")}`;
  element.append(delta, badges(row));
  element.className = "qx-tree-row";
  element.classList.toggle("qx-is-changed", row.changed);
  element.classList.toggle("qx-is-gone", row.what.includes("gone"));
  element.classList.toggle("qx-is-site", row.kind === "site");
  element.setAttribute("aria-label", describe(row));
  element.setAttribute("aria-level", String(row.depth + 1));
}

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
