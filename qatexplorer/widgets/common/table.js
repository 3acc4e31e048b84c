// A sortable, searchable table that draws only the rows in view. Rows, columns, filters, query and
// selection belong to Python; the order and what has focus live here.

const ROW_HEIGHT = 30;
const SPARE = 8;

function el(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/** Numbers by value, text by the reader's alphabet with numbers inside, nothing last. */
function compare(a, b) {
  const none = (v) => v === null || v === undefined || v === "";
  if (none(a) || none(b)) return none(a) - none(b);
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

class TableView {
  constructor(model, root) {
    this.model = model;
    this.elements = new Map();
    this.sort = { column: -1, down: false };
    this.active = null;
    this.build(root);
    this.listeners = [
      ["change:rows", () => this.onRows()],
      ["change:columns", () => this.onColumns()],
      ["change:filters", () => this.onColumns()],
      ["change:selected", () => this.onSelected()],
      ["change:query", () => this.refresh()],
      ["change:flag", () => this.refresh()],
      ["change:height", () => this.onLook()],
      ["change:dark", () => this.onLook()],
    ];
    for (const [name, handler] of this.listeners) model.on(name, handler);
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.viewport);
    this.onLook();
    this.onColumns();
    this.onRows();
    this.onSelected();
  }

  build(root) {
    this.root = el("div", "qx qx-table");
    this.root.dataset.lmSuppressShortcuts = "true";
    const bar = el("div", "qx-table-bar");
    this.input = el("input", "qx-field qx-table-search");
    this.input.type = "search";
    this.input.placeholder = "Search all columns";
    this.input.setAttribute("aria-label", "Search all columns");
    this.input.addEventListener("input", () => this.send("query", this.input.value));
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") {
        this.focusRow(0);
        event.preventDefault();
      } else if (event.key === "Escape") this.send("query", "");
    });
    this.chips = el("span", "qx-table-chips");
    this.status = el("span", "qx-table-status qx-muted");
    this.status.setAttribute("role", "status");
    bar.append(this.input, this.chips, this.status);
    this.viewport = el("div", "qx-table-viewport");
    this.viewport.setAttribute("role", "grid");
    this.viewport.addEventListener("scroll", () => this.draw(), { passive: true });
    this.viewport.addEventListener("click", (event) => this.onClick(event));
    this.viewport.addEventListener("keydown", (event) => this.onKey(event));
    this.head = el("div", "qx-table-head");
    this.head.setAttribute("role", "row");
    this.head.setAttribute("aria-rowindex", "1");
    this.canvas = el("div", "qx-table-canvas");
    this.canvas.setAttribute("role", "rowgroup");
    this.empty = el("p", "qx-table-empty qx-muted");
    this.viewport.append(this.head, this.canvas, this.empty);
    // What a row has no room for, of the row that has the focus or is selected.
    this.detail = el("dl", "qx-terms qx-table-detail");
    this.detail.setAttribute("aria-label", "The row in full");
    this.detail.hidden = true;
    this.root.append(bar, this.viewport, this.detail);
    root.append(this.root);
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
    this.viewport.style.maxHeight = `${this.model.get("height")}px`;
    this.draw();
  }

  onColumns() {
    const columns = this.model.get("columns");
    this.viewport.setAttribute("aria-label", this.model.get("label"));
    this.viewport.setAttribute("aria-colcount", String(columns.length));
    this.root.style.setProperty("--qx-columns", columns.map((c) => c.width || "1fr").join(" "));
    // Every row is a grid of its own: they line up because all are as wide as the least widths add
    // up to, or as the widget.
    const least = columns.map((c) => Number(/(\d+)px/.exec(c.width || "")?.[1] ?? 80));
    this.root.style.setProperty("--qx-least", `${least.reduce((a, b) => a + b, 3)}px`);
    this.head.replaceChildren(
      ...columns.map((column, i) => {
        const cell = el("div", column.number ? "qx-table-th qx-is-number" : "qx-table-th");
        cell.setAttribute("role", "columnheader");
        const button = el("button", "", column.label);
        button.type = "button";
        button.title = `Sort by ${column.label}`;
        button.addEventListener("click", () => this.sortBy(i));
        cell.append(button);
        return cell;
      }),
    );
    this.toggles = this.model.get("filters").map((filter) => {
      const button = el("button", "qx-button", filter.label);
      button.type = "button";
      button.dataset.flag = filter.flag;
      button.addEventListener("click", () =>
        this.send("flag", this.model.get("flag") === filter.flag ? "" : filter.flag),
      );
      return button;
    });
    this.chips.replaceChildren(...this.toggles);
    for (const element of this.elements.values()) element.dataset.stale = "1";
    this.refresh();
  }

  onRows() {
    this.rows = this.model.get("rows");
    this.text = new Map(this.rows.map((row) => [row.id, row.cells.join("\n").toLowerCase()]));
    for (const element of this.elements.values()) element.dataset.stale = "1";
    this.detail.hidden = true;
    this.refresh();
  }

  onSelected() {
    const selected = this.model.get("selected");
    const row = selected && this.shown ? this.shown.find((r) => r.sel === selected) : null;
    if (row) {
      this.active = row.id;
      this.reveal(this.shown.indexOf(row));
      this.tell(row);
    }
    this.draw();
  }

  tell(row) {
    const columns = this.model.get("columns");
    const parts = row.cells.map((text, i) => {
      const tip = row.tips?.[i];
      if (!text && !tip) return null;
      const pair = el("div");
      const value = tip && tip !== text ? `${text}${text ? " · " : ""}${tip}` : text;
      pair.append(el("dt", "", columns[i]?.label ?? ""), el("dd", "", value));
      return pair;
    });
    this.detail.replaceChildren(...parts.filter(Boolean));
    this.detail.hidden = false;
  }

  /** First click up, second down, third as Python gave them. */
  sortBy(column) {
    const { column: now, down } = this.sort;
    if (now !== column) this.sort = { column, down: false };
    else this.sort = down ? { column: -1, down: false } : { column, down: true };
    this.refresh();
  }

  refresh() {
    if (!this.rows) return;
    const query = this.model.get("query");
    const flag = this.model.get("flag");
    if (this.input.value !== query) this.input.value = query;
    for (const button of this.toggles) {
      button.setAttribute("aria-pressed", String(button.dataset.flag === flag));
    }
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    this.shown = this.rows.filter(
      (row) =>
        (!flag || row.flags.includes(flag)) && words.every((w) => this.text.get(row.id).includes(w)),
    );
    const { column, down } = this.sort;
    if (column >= 0) {
      const value = (row) => row.sort[column];
      const empty = (v) => v === null || v === undefined || v === "";
      this.shown.sort((a, b) => {
        const order = compare(value(a), value(b));
        return down && !empty(value(a)) && !empty(value(b)) ? -order : order;
      });
    }
    [...this.head.children].forEach((cell, i) => {
      cell.setAttribute("aria-sort", i !== column ? "none" : down ? "descending" : "ascending");
    });
    if (!this.shown.some((row) => row.id === this.active)) this.active = this.shown[0]?.id ?? null;
    this.viewport.setAttribute("aria-rowcount", String(this.shown.length + 1));
    this.canvas.style.height = `${this.shown.length * ROW_HEIGHT}px`;
    const total = this.rows.length.toLocaleString("en");
    const count = this.shown.length.toLocaleString("en");
    this.status.textContent = this.shown.length === this.rows.length
      ? `${total} ${this.rows.length === 1 ? "row" : "rows"}` : `${count} of ${total} rows`;
    this.empty.hidden = this.shown.length > 0;
    this.empty.textContent = this.rows.length ? "Nothing matches." : this.model.get("nothing");
    this.draw();
  }

  draw() {
    if (!this.shown) return;
    const top = Math.max(0, this.viewport.scrollTop - this.head.offsetHeight);
    const height = this.viewport.clientHeight || this.model.get("height");
    const first = Math.max(0, Math.floor(top / ROW_HEIGHT) - SPARE);
    const last = Math.min(this.shown.length, Math.ceil((top + height) / ROW_HEIGHT) + SPARE);
    const wanted = new Set();
    for (let i = first; i < last; i++) wanted.add(i);
    const active = this.shown.findIndex((row) => row.id === this.active);
    if (active >= 0) wanted.add(active); // the focus must not scroll away
    const keep = new Set([...wanted].map((i) => this.shown[i].id));
    for (const [id, element] of this.elements) {
      if (!keep.has(id)) {
        element.remove();
        this.elements.delete(id);
      }
    }
    for (const i of [...wanted].sort((a, b) => a - b)) this.drawRow(this.shown[i], i);
  }

  drawRow(row, i) {
    let element = this.elements.get(row.id);
    if (!element || element.dataset.stale) {
      if (!element) {
        element = el("div");
        element.setAttribute("role", "row");
        element.dataset.id = row.id;
        this.elements.set(row.id, element);
      }
      this.fill(element, row);
      delete element.dataset.stale;
    }
    // Moving an element that is in the page already would take the focus away from it.
    if (!element.isConnected) this.canvas.append(element);
    element.style.transform = `translateY(${i * ROW_HEIGHT}px)`;
    element.tabIndex = row.id === this.active ? 0 : -1;
    element.setAttribute("aria-rowindex", String(i + 2));
    const selected = Boolean(row.sel) && row.sel === this.model.get("selected");
    element.setAttribute("aria-selected", String(selected));
  }

  fill(element, row) {
    const columns = this.model.get("columns");
    const kind = row.kind ? ` qx-kind-${row.kind}` : "";
    element.className = `qx-table-row${kind} ${row.flags.map((f) => `qx-flag-${f}`).join(" ")}`;
    element.replaceChildren(
      ...row.cells.map((text, i) => {
        const cell = el("div", "qx-table-td", text);
        cell.setAttribute("role", "gridcell");
        if (columns[i]?.number) cell.classList.add("qx-is-number");
        if (columns[i]?.mono) cell.classList.add("qx-is-mono");
        const tip = row.tips?.[i];
        if (text || tip) cell.title = tip ? `${text}\n${tip}` : text;
        return cell;
      }),
    );
  }

  reveal(index) {
    const top = index * ROW_HEIGHT;
    const room = this.viewport.clientHeight - this.head.offsetHeight - ROW_HEIGHT;
    if (top < this.viewport.scrollTop) this.viewport.scrollTop = top;
    else if (top > this.viewport.scrollTop + room) this.viewport.scrollTop = top - room;
  }

  focusRow(index) {
    const at = Math.max(0, Math.min(this.shown.length - 1, index));
    const row = this.shown[at];
    if (!row) return;
    this.active = row.id;
    this.reveal(at);
    this.draw();
    this.elements.get(row.id)?.focus({ preventScroll: true });
    this.tell(row);
  }

  onClick(event) {
    const element = event.target.closest("[role=row][data-id]");
    if (!element) return;
    const at = this.shown.findIndex((row) => row.id === element.dataset.id);
    if (at < 0) return;
    this.focusRow(at);
    if (this.shown[at].sel) this.send("selected", this.shown[at].sel);
  }

  onKey(event) {
    const element = event.target.closest("[role=row][data-id]");
    if (!element || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.shown.findIndex((row) => row.id === this.active);
    const page = Math.max(1, Math.floor(this.viewport.clientHeight / ROW_HEIGHT) - 2);
    const select = () => this.shown[at]?.sel && this.send("selected", this.shown[at].sel);
    const actions = {
      ArrowDown: () => this.focusRow(at + 1),
      ArrowUp: () => this.focusRow(at - 1),
      PageDown: () => this.focusRow(at + page),
      PageUp: () => this.focusRow(at - page),
      Home: () => this.focusRow(0),
      End: () => this.focusRow(this.shown.length - 1),
      Enter: select,
      " ": select,
    };
    if (!actions[event.key]) return;
    actions[event.key]();
    event.preventDefault();
    event.stopPropagation();
  }
}

export default {
  render({ model, el: root }) {
    const view = new TableView(model, root);
    return () => view.destroy();
  },
};
