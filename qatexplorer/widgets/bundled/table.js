// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   common/list.js
//   common/table.js
//   common/table_rows.js
// sha256 of these: e7d84368474333663ee0dd08b2de16a1aee07a6c8911780839c556b28203a671

// common/dom.js
var OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };
function complete(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === void 0 || value === false) continue;
    if (name === "text") node.textContent = String(value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child) node.append(child);
  return node;
}
function html(tag, attributes = {}, children = []) {
  const node = document.createElement(tag);
  if (tag === "button") complete(node, { type: "button", ...OWN_KEYS }, []);
  if (tag === "input") complete(node, OWN_KEYS, []);
  return complete(node, attributes, children);
}
function closest(target, selector) {
  return target instanceof Element ? target.closest(selector) : null;
}
function listen(model, handlers) {
  const pairs = Object.entries(handlers);
  for (const [event, handler] of pairs) model.on(event, handler);
  return () => {
    for (const [event, handler] of pairs) model.off(event, handler);
  };
}
function save(model, changes) {
  for (const name of Object.keys(changes)) {
    model.set(
      name,
      /** @type {Traits[string]} */
      changes[name]
    );
  }
  model.save_changes();
}
function forceTheme(root, dark) {
  root.classList.toggle("qx-dark", dark === true);
  root.classList.toggle("qx-light", dark === false);
}
function isShortcut(event) {
  return event.ctrlKey || event.metaKey || event.altKey;
}

// common/list.js
var SPARE = 8;
function rowsInView(top, height, rowHeight, count) {
  const first = Math.max(0, Math.floor(top / rowHeight) - SPARE);
  const last = Math.min(count, Math.ceil((top + height) / rowHeight) + SPARE);
  return [first, Math.max(first, last)];
}
function leastScroll(index, scrolled, height, rowHeight) {
  const top = index * rowHeight;
  if (top < scrolled) return top;
  return top + rowHeight > scrolled + height ? top + rowHeight - height : scrolled;
}
var RowList = class {
  /** @param {Options<Row>} options */
  constructor(options) {
    this.options = options;
    this.viewport = options.viewport;
    this.rows = [];
    this.indexOf = /* @__PURE__ */ new Map();
    this.elements = /* @__PURE__ */ new Map();
    this.stale = /* @__PURE__ */ new Set();
    this.active = null;
    this.viewport.addEventListener("scroll", () => this.draw(), { passive: true });
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.viewport);
  }
  destroy() {
    this.resize.disconnect();
  }
  /** @param {Row[]} rows in order; call {@link draw} after it */
  setRows(rows) {
    this.rows = rows;
    this.indexOf = new Map(rows.map((row, i) => [row.id, i]));
    this.options.canvas.style.height = `${rows.length * this.options.rowHeight}px`;
  }
  /** What rows say has changed: each is written anew when it is next drawn. */
  refill() {
    this.stale = new Set(this.elements.keys());
  }
  get headHeight() {
    return this.options.head?.offsetHeight ?? 0;
  }
  draw() {
    const { rowHeight, height } = this.options;
    const top = Math.max(0, this.viewport.scrollTop - this.headHeight);
    const room = this.viewport.clientHeight || height();
    const [first, last] = rowsInView(top, room, rowHeight, this.rows.length);
    const wanted = new Set(Array.from({ length: last - first }, (_, i) => first + i));
    const active = this.active === null ? void 0 : this.indexOf.get(this.active);
    if (active !== void 0) wanted.add(active);
    const keep = new Set([...wanted].map((i) => this.rows[i].id));
    for (const [id, element] of this.elements) {
      if (keep.has(id)) continue;
      element.remove();
      this.elements.delete(id);
    }
    for (const i of [...wanted].sort((a, b) => a - b)) this.drawRow(this.rows[i], i);
  }
  /**
   * @param {Row} row
   * @param {number} i
   */
  drawRow(row, i) {
    const { canvas, role, rowHeight, fill, mark } = this.options;
    let element = this.elements.get(row.id);
    if (!element || this.stale.has(row.id)) {
      if (!element) {
        element = document.createElement("div");
        element.setAttribute("role", role);
        element.dataset.id = row.id;
        this.elements.set(row.id, element);
        canvas.append(element);
      }
      fill(element, row);
      this.stale.delete(row.id);
    }
    element.style.transform = `translateY(${i * rowHeight}px)`;
    element.tabIndex = row.id === this.active ? 0 : -1;
    mark(element, row, i);
  }
  /** Scrolls as little as needed to show a row. @param {number} index */
  reveal(index) {
    const { scrollTop, clientHeight } = this.viewport;
    const room = clientHeight - this.headHeight;
    const to = leastScroll(index, scrollTop, room, this.options.rowHeight);
    if (to !== scrollTop) this.viewport.scrollTop = to;
  }
  /** Shows a row in the middle, unless it is well in view already. @param {number} index */
  centre(index) {
    const { rowHeight } = this.options;
    const height = this.viewport.clientHeight || this.options.height();
    const [top, now] = [index * rowHeight, this.viewport.scrollTop];
    if (top < now + rowHeight || top + 2 * rowHeight > now + height) {
      this.viewport.scrollTop = Math.max(0, top - height / 2);
    }
  }
  /** Gives a row the focus; beyond the ends the first or last. @param {number} index */
  focus(index) {
    const at = Math.max(0, Math.min(this.rows.length - 1, index));
    const row = this.rows[at];
    if (!row) return;
    this.active = row.id;
    this.reveal(at);
    this.draw();
    this.elements.get(row.id)?.focus({ preventScroll: true });
    this.options.onFocus?.(row);
  }
  /** The row that an event happened in, undefined for none. @param {Event} event */
  rowOf(event) {
    const id = closest(event.target, `[role=${this.options.role}][data-id]`)?.dataset.id;
    const index = id === void 0 ? void 0 : this.indexOf.get(id);
    return index === void 0 ? void 0 : this.rows[index];
  }
  /**
   * Acts on a key that means something in a list, or in `more`. Returns whether it did.
   * @param {KeyboardEvent} event
   * @param {(row: Row) => void} choose for Enter and the space bar
   * @param {Record<string, (row: Row, at: number) => void>} [more] other keys
   */
  key(event, choose, more = {}) {
    const at = this.active === null ? void 0 : this.indexOf.get(this.active);
    if (at === void 0 || isShortcut(event)) return false;
    const room = this.viewport.clientHeight - this.headHeight;
    const page = Math.max(1, Math.floor(room / this.options.rowHeight) - 1);
    const actions = {
      ArrowDown: () => this.focus(at + 1),
      ArrowUp: () => this.focus(at - 1),
      PageDown: () => this.focus(at + page),
      PageUp: () => this.focus(at - page),
      Home: () => this.focus(0),
      End: () => this.focus(this.rows.length - 1),
      Enter: choose,
      " ": choose,
      ...more
    };
    if (!Object.hasOwn(actions, event.key)) return false;
    actions[event.key](this.rows[at], at);
    event.preventDefault();
    event.stopPropagation();
    return true;
  }
};

// common/table_rows.js
var isEmpty = (value) => value === null || value === void 0 || value === "";
function compare(a, b) {
  if (isEmpty(a) || isEmpty(b)) return Number(isEmpty(a)) - Number(isEmpty(b));
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}
function filterRows(rows, flag, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter((row) => {
    if (flag && !row.flags.includes(flag)) return false;
    const text = words.length ? row.cells.join("\n").toLowerCase() : "";
    return words.every((word) => text.includes(word));
  });
}
function sortRows(rows, { column, down }) {
  if (column < 0) return rows;
  return [...rows].sort((one, other) => {
    const [a, b] = [one.sort[column], other.sort[column]];
    const order = compare(a, b);
    return down && !isEmpty(a) && !isEmpty(b) ? -order : order;
  });
}
function nextSort(sort, column) {
  if (sort.column !== column) return { column, down: false };
  return sort.down ? { column: -1, down: false } : { column, down: true };
}

// common/table.js
var ROW_HEIGHT = 30;
var TableView = class {
  /**
   * @param {import("@anywidget/types").AnyModel<Traits>} model
   * @param {HTMLElement} el
   */
  constructor(model, el) {
    this.model = model;
    this.sort = { column: -1, down: false };
    this.toggles = [];
    this.input = html("input", {
      class: "qx-field qx-table-search",
      type: "search",
      placeholder: "Search all columns",
      "aria-label": "Search all columns"
    });
    this.chips = html("span", { class: "qx-table-chips" });
    this.status = html("span", { class: "qx-table-status qx-muted", role: "status" });
    this.head = html("div", { class: "qx-table-head", role: "row", "aria-rowindex": 1 });
    this.canvas = html("div", { class: "qx-table-canvas", role: "rowgroup" });
    this.empty = html("p", { class: "qx-table-empty qx-muted" });
    this.viewport = html("div", { class: "qx-table-viewport", role: "grid" }, [
      this.head,
      this.canvas,
      this.empty
    ]);
    const detail = "qx-terms qx-table-detail";
    this.detail = html("dl", { class: detail, "aria-label": "The row in full", hidden: true });
    const bar = html("div", { class: "qx-table-bar" }, [this.input, this.chips, this.status]);
    const parts = [bar, this.viewport, this.detail];
    this.root = html("div", { class: "qx qx-table", ...OWN_KEYS }, parts);
    this.list = new RowList({
      viewport: this.viewport,
      canvas: this.canvas,
      head: this.head,
      rowHeight: ROW_HEIGHT,
      role: "row",
      height: () => model.get("height"),
      fill: (element, row) => this.fillRow(element, row),
      mark: (element, row, i) => this.markRow(element, row, i),
      onFocus: (row) => this.showDetail(row)
    });
    el.append(this.root);
    this.hear();
    this.onLook();
    this.onColumns();
    this.onRows();
    this.onSelected();
  }
  hear() {
    this.input.addEventListener("input", () => save(this.model, { query: this.input.value }));
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") {
        this.list.focus(0);
        event.preventDefault();
      } else if (event.key === "Escape") save(this.model, { query: "" });
    });
    this.viewport.addEventListener("click", (event) => this.onClick(event));
    this.viewport.addEventListener("keydown", (event) => {
      if (this.list.rowOf(event)) this.list.key(event, (row) => this.choose(row));
    });
    this.unlisten = listen(this.model, {
      "change:rows": () => this.onRows(),
      "change:columns": () => this.onColumns(),
      "change:filters": () => this.onColumns(),
      "change:selected": () => this.onSelected(),
      "change:query": () => this.refresh(),
      "change:flag": () => this.refresh(),
      "change:height": () => this.onLook(),
      "change:dark": () => this.onLook()
    });
  }
  destroy() {
    this.unlisten?.();
    this.list.destroy();
    this.root.remove();
  }
  onLook() {
    forceTheme(this.root, this.model.get("dark"));
    this.viewport.style.maxHeight = `${this.model.get("height")}px`;
    this.list.draw();
  }
  onColumns() {
    const columns = this.model.get("columns");
    this.viewport.setAttribute("aria-label", this.model.get("label"));
    this.viewport.setAttribute("aria-colcount", String(columns.length));
    this.root.style.setProperty("--qx-columns", columns.map((c) => c.width || "1fr").join(" "));
    const least = columns.map((c) => Number(/(\d+)px/.exec(c.width ?? "")?.[1] ?? 80));
    this.root.style.setProperty("--qx-least", `${least.reduce((a, b) => a + b, 3)}px`);
    this.head.replaceChildren(...columns.map((column, i) => this.headCell(column, i)));
    this.toggles = this.model.get("filters").map(({ flag, label }) => {
      const button = html("button", { class: "qx-button", text: label, "data-flag": flag });
      button.addEventListener(
        "click",
        () => save(this.model, { flag: this.model.get("flag") === flag ? "" : flag })
      );
      return button;
    });
    this.chips.replaceChildren(...this.toggles);
    this.list.refill();
    this.refresh();
  }
  /**
   * @param {Column} column
   * @param {number} i
   */
  headCell(column, i) {
    const tip = column.tip ? `${column.tip}. ` : "";
    const title = `${tip}Sort by ${column.label}`;
    const button = html("button", { text: column.label, title });
    button.addEventListener("click", () => {
      this.sort = nextSort(this.sort, i);
      this.refresh();
    });
    const name = column.number ? "qx-table-th qx-is-number" : "qx-table-th";
    return html("div", { class: name, role: "columnheader" }, [button]);
  }
  onRows() {
    this.list.refill();
    this.detail.hidden = true;
    this.refresh();
  }
  onSelected() {
    const selected = this.model.get("selected");
    const at = selected ? this.list.rows.findIndex((row) => row.sel === selected) : -1;
    if (at >= 0) {
      const row = this.list.rows[at];
      this.list.active = row.id;
      this.list.reveal(at);
      this.showDetail(row);
    }
    this.list.draw();
  }
  /** @param {TableRow} row */
  showDetail(row) {
    if (this.model.get("details") === false) return;
    const columns = this.model.get("columns");
    const parts = row.cells.map((text, i) => {
      const tip = row.tips?.[i];
      if (!text && !tip) return null;
      const value = tip && tip !== text ? `${text}${text ? " · " : ""}${tip}` : text;
      return html("div", {}, [
        html("dt", { text: columns[i]?.label ?? "" }),
        html("dd", { text: value })
      ]);
    });
    this.detail.replaceChildren(...parts.filter((part) => part !== null));
    this.detail.hidden = false;
  }
  refresh() {
    const rows = this.model.get("rows");
    const query = this.model.get("query");
    const flag = this.model.get("flag");
    const { column, down } = this.sort;
    if (this.input.value !== query) this.input.value = query;
    for (const button of this.toggles) {
      button.setAttribute("aria-pressed", String(button.dataset.flag === flag));
    }
    const shown = sortRows(filterRows(rows, flag, query), this.sort);
    for (const [i, cell] of [...this.head.children].entries()) {
      cell.setAttribute("aria-sort", i !== column ? "none" : down ? "descending" : "ascending");
    }
    this.list.setRows(shown);
    const { active } = this.list;
    if (active === null || !this.list.indexOf.has(active)) this.list.active = shown[0]?.id ?? null;
    this.viewport.setAttribute("aria-rowcount", String(shown.length + 1));
    const total = rows.length.toLocaleString("en");
    this.status.textContent = shown.length === rows.length ? `${total} ${rows.length === 1 ? "row" : "rows"}` : `${shown.length.toLocaleString("en")} of ${total} rows`;
    this.empty.hidden = shown.length > 0;
    this.empty.textContent = rows.length ? "Nothing matches." : this.model.get("nothing");
    this.list.draw();
  }
  /**
   * @param {HTMLElement} element
   * @param {TableRow} row
   */
  fillRow(element, row) {
    const columns = this.model.get("columns");
    const kind = row.kind ? ` qx-kind-${row.kind}` : "";
    element.className = `qx-table-row${kind} ${row.flags.map((f) => `qx-flag-${f}`).join(" ")}`;
    element.replaceChildren(
      ...row.cells.map((text, i) => {
        const tip = row.tips?.[i];
        const title = tip ? `${text}
${tip}` : text || null;
        const cell = html("div", { class: "qx-table-td", role: "gridcell", text, title });
        if (columns[i]?.number) cell.classList.add("qx-is-number");
        if (columns[i]?.mono) cell.classList.add("qx-is-mono");
        return cell;
      })
    );
  }
  /**
   * @param {HTMLElement} element
   * @param {TableRow} row
   * @param {number} i
   */
  markRow(element, row, i) {
    element.setAttribute("aria-rowindex", String(i + 2));
    const selected = Boolean(row.sel) && row.sel === this.model.get("selected");
    element.setAttribute("aria-selected", String(selected));
  }
  /** @param {MouseEvent} event */
  onClick(event) {
    const row = this.list.rowOf(event);
    const at = row && this.list.indexOf.get(row.id);
    if (!row || at === void 0) return;
    this.list.focus(at);
    this.choose(row);
  }
  /** @param {TableRow} row */
  choose(row) {
    if (row.sel) save(this.model, { selected: row.sel });
  }
};
var table_default = {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const view = new TableView(model, el);
    return () => view.destroy();
  }
};
export {
  table_default as default
};
