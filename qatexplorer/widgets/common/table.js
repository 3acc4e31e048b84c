// A sortable, searchable table that draws only the rows in view. Rows, columns, filters, query and
// selection belong to Python; the order and what has focus live here.

import { forceTheme, html, listen, OWN_KEYS, save } from "./dom.js";
import { RowList } from "./list.js";
import { filterRows, nextSort, sortRows } from "./table_rows.js";

/** @typedef {import("./table_rows.js").TableRow} TableRow */

/**
 * @typedef {object} Column
 * @property {string} label
 * @property {string} [width] of CSS grid
 * @property {boolean} [number]
 * @property {boolean} [mono]
 * @property {string} [tip] what the column is
 */

/**
 * @typedef {object} Traits see table.py
 * @property {Column[]} columns
 * @property {TableRow[]} rows
 * @property {{ flag: string, label: string }[]} filters
 * @property {string} flag
 * @property {string} query
 * @property {string} selected
 * @property {string} label
 * @property {string} nothing
 * @property {number} height
 * @property {boolean} details
 * @property {boolean | null} dark
 */

const ROW_HEIGHT = 30;

class TableView {
  /**
   * @param {import("@anywidget/types").AnyModel<Traits>} model
   * @param {HTMLElement} el
   */
  constructor(model, el) {
    this.model = model;
    /** @type {import("./table_rows.js").Sort} */
    this.sort = { column: -1, down: false };
    /** @type {HTMLButtonElement[]} */
    this.toggles = [];
    this.input = html("input", {
      class: "qx-field qx-table-search",
      type: "search",
      placeholder: "Search all columns",
      "aria-label": "Search all columns",
    });
    this.chips = html("span", { class: "qx-table-chips" });
    this.status = html("span", { class: "qx-table-status qx-muted", role: "status" });
    this.head = html("div", { class: "qx-table-head", role: "row", "aria-rowindex": 1 });
    this.canvas = html("div", { class: "qx-table-canvas", role: "rowgroup" });
    this.empty = html("p", { class: "qx-table-empty qx-muted" });
    this.viewport = html("div", { class: "qx-table-viewport", role: "grid" }, [
      this.head,
      this.canvas,
      this.empty,
    ]);
    // What a row has no room for, of the row that has the focus or is selected.
    const detail = "qx-terms qx-table-detail";
    this.detail = html("dl", { class: detail, "aria-label": "The row in full", hidden: true });
    const bar = html("div", { class: "qx-table-bar" }, [this.input, this.chips, this.status]);
    const parts = [bar, this.viewport, this.detail];
    this.root = html("div", { class: "qx qx-table", ...OWN_KEYS }, parts);
    /** @type {RowList<TableRow>} */
    this.list = new RowList({
      viewport: this.viewport,
      canvas: this.canvas,
      head: this.head,
      rowHeight: ROW_HEIGHT,
      role: "row",
      height: () => model.get("height"),
      fill: (element, row) => this.fillRow(element, row),
      mark: (element, row, i) => this.markRow(element, row, i),
      onFocus: (row) => this.showDetail(row),
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
      // Not for the buttons of the head.
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
      "change:dark": () => this.onLook(),
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
    // Every row is a grid of its own: they line up because all are as wide as the least widths add
    // up to, or as the widget.
    const least = columns.map((c) => Number(/(\d+)px/.exec(c.width ?? "")?.[1] ?? 80));
    this.root.style.setProperty("--qx-least", `${least.reduce((a, b) => a + b, 3)}px`);
    this.head.replaceChildren(...columns.map((column, i) => this.headCell(column, i)));
    this.toggles = this.model.get("filters").map(({ flag, label }) => {
      const button = html("button", { class: "qx-button", text: label, "data-flag": flag });
      button.addEventListener("click", () =>
        save(this.model, { flag: this.model.get("flag") === flag ? "" : flag }),
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
        html("dd", { text: value }),
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
    this.status.textContent =
      shown.length === rows.length
        ? `${total} ${rows.length === 1 ? "row" : "rows"}`
        : `${shown.length.toLocaleString("en")} of ${total} rows`;
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
        const title = tip ? `${text}\n${tip}` : text || null;
        const cell = html("div", { class: "qx-table-td", role: "gridcell", text, title });
        if (columns[i]?.number) cell.classList.add("qx-is-number");
        if (columns[i]?.mono) cell.classList.add("qx-is-mono");
        return cell;
      }),
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
    if (!row || at === undefined) return;
    this.list.focus(at);
    this.choose(row);
  }

  /** @param {TableRow} row */
  choose(row) {
    if (row.sel) save(this.model, { selected: row.sel });
  }
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const view = new TableView(model, el);
    return () => view.destroy();
  },
};
