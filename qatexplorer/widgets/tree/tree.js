// The module tree: a WAI-ARIA tree that draws only the rows in view. State that belongs to Python
// (rows, selected, query, only) lives in the model; what is open and what has focus lives here.

import {
  closest,
  forceTheme,
  html,
  isShortcut,
  listen,
  OWN_KEYS,
  save,
  unpacked,
} from "../common/dom.js";
import { RowList } from "../common/list.js";
import { chosenOf, only, through, toggled } from "./choosing.js";
import { Ruler, share } from "./columns.js";
import { fillRow } from "./row.js";
import { Tree } from "./rows.js";

/**
 * @typedef {import("./rows.js").TreeRow} TreeRow
 * @typedef {import("./rows.js").Only} Only
 */

/**
 * @typedef {object} Traits see tree.py
 * @property {TreeRow[]} rows
 * @property {string} selected
 * @property {string[]} [chosen]
 * @property {string} query
 * @property {Only} only
 * @property {string} state_label
 * @property {Record<string, import("../graph/scene.js").Finding>} findings
 * @property {number} height
 * @property {boolean | null} dark
 */

const ROW_HEIGHT = 26;

class TreeView {
  /**
   * @param {import("@anywidget/types").AnyModel<Traits>} model
   * @param {HTMLElement} el
   */
  constructor(model, el) {
    this.model = model;
    this.tree = new Tree();
    /** What the search and filter find, null without them. @type {Set<string> | null} */
    this.hits = null;
    /** Id of the selected row. @type {string | null} */
    this.selected = null;
    /** Ids of all rows selected with it, it among them. @type {Set<string>} */
    this.chosen = new Set();
    /** Id of the row that a selection of several began with. @type {string | null} */
    this.anchor = null;
    this.input = html("input", {
      class: "qx-field qx-tree-search",
      type: "search",
      placeholder: "Name, path or type",
      "aria-label": "Search modules by name, path or type",
    });
    /** @type {Map<Only, HTMLButtonElement>} */
    this.toggles = new Map();
    this.status = html("span", { class: "qx-tree-status qx-muted", role: "status" });
    this.canvas = html("div", { class: "qx-tree-canvas", role: "presentation" });
    this.empty = html("p", { class: "qx-tree-empty qx-muted" });
    this.viewport = html(
      "div",
      {
        class: "qx-tree-viewport",
        role: "tree",
        "aria-label": "Modules of the model",
        "aria-multiselectable": "true",
      },
      [this.canvas, this.empty],
    );
    // What the columns are called: for the eye, a row says all of it to a screen reader.
    this.stateHead = html("span", { class: "qx-tree-state" });
    this.head = html("div", { class: "qx-tree-head", "aria-hidden": "true" }, [
      html("span", { class: "qx-tree-first", text: "Name" }),
      html("span", { class: "qx-tree-type", text: "Type" }),
      html("span", { class: "qx-tree-quants", text: "Fake quants" }),
      this.stateHead,
    ]);
    // JupyterLab would take letters typed here for notebook shortcuts ("a" inserts a cell).
    this.root = html("div", { class: "qx qx-tree", ...OWN_KEYS }, [
      this.bar(),
      this.head,
      this.viewport,
    ]);
    this.ruler = new Ruler(this.canvas);
    this.resize = new ResizeObserver(() => this.layOut());
    /** @type {RowList<TreeRow>} */
    this.list = new RowList({
      viewport: this.viewport,
      canvas: this.canvas,
      rowHeight: ROW_HEIGHT,
      role: "treeitem",
      height: () => model.get("height"),
      fill: (element, row) => fillRow(element, row, model.get("findings")?.[row.id]),
      mark: (element, row) => this.markRow(element, row),
    });
    el.append(this.root);
    this.resize.observe(this.viewport);
    this.hear();
    this.onLook();
    this.onRows();
    this.onSelected();
  }

  bar() {
    this.toggles.set("changed", this.toggleButton("changed", "changed", "Only what changed"));
    this.toggles.set("float", this.toggleButton("float", "float", "Only what stays float"));
    const all = /** @type {const} */ ([
      ["⊞", "Expand all", true],
      ["⊟", "Collapse all", false],
    ]).map(([text, label, open]) => {
      const name = "qx-button qx-tree-icon";
      const button = html("button", { class: name, text, title: label, "aria-label": label });
      button.addEventListener("click", () => {
        this.tree.setAllOpen(open);
        this.refresh();
      });
      return button;
    });
    const filters = html("span", { class: "qx-tree-filters" }, [...this.toggles.values(), ...all]);
    return html("div", { class: "qx-tree-bar" }, [this.input, filters, this.status]);
  }

  /**
   * @param {Only} only
   * @param {string} text
   * @param {string} label
   */
  toggleButton(only, text, label) {
    const names = { title: label, "aria-label": label };
    const button = html("button", { class: "qx-button", text, ...names });
    button.addEventListener("click", () =>
      save(this.model, { only: this.model.get("only") === only ? "all" : only }),
    );
    return button;
  }

  hear() {
    this.input.addEventListener("input", () => save(this.model, { query: this.input.value }));
    this.input.addEventListener("keydown", (event) => this.onSearchKey(event));
    this.viewport.addEventListener("click", (event) => this.onClick(event, false));
    this.viewport.addEventListener("dblclick", (event) => this.onClick(event, true));
    this.viewport.addEventListener("keydown", (event) => this.onKey(event));
    this.viewport.addEventListener("scroll", () => this.scrollHead(), { passive: true });
    this.unlisten = listen(this.model, {
      "change:rows": () => this.onRows(),
      "change:selected": () => this.onSelected(),
      "change:chosen": () => this.markChosen(),
      "change:query": () => this.onFilter(),
      "change:only": () => this.onFilter(),
      "change:findings": () => {
        this.list.refill();
        this.list.draw();
      },
      "change:state_label": () => this.refresh(),
      "change:height": () => this.onLook(),
      "change:dark": () => this.onLook(),
    });
  }

  destroy() {
    this.unlisten?.();
    this.resize.disconnect();
    this.list.destroy();
    this.root.remove();
  }

  onLook() {
    forceTheme(this.root, this.model.get("dark"));
    this.root.style.height = `${this.model.get("height")}px`;
  }

  onRows() {
    this.tree.setRows(unpacked(this.model.get("rows")));
    const { active } = this.list;
    if (active === null || !this.tree.byId.has(active)) {
      this.list.active = this.tree.rows[0]?.id ?? null;
    }
    this.list.refill();
    this.refresh();
  }

  onFilter() {
    this.tree.closedInSearch.clear();
    this.refresh();
  }

  onSelected() {
    const row = this.tree.find(this.model.get("selected"));
    if (row) {
      this.list.active = row.id;
      this.tree.reveal(row);
    }
    this.refresh();
    const at = row && this.list.indexOf.get(row.id);
    if (at === undefined) return;
    this.list.centre(at);
    this.list.draw();
  }

  refresh() {
    const query = this.model.get("query");
    const only = this.model.get("only");
    if (this.input.value !== query) this.input.value = query;
    for (const [name, button] of this.toggles) {
      button.setAttribute("aria-pressed", String(only === name));
    }
    this.hits = this.tree.search(query, only);
    this.readSelection();
    const shown = this.tree.visible(this.hits, this.selected);
    this.list.setRows(shown);
    this.list.active = this.nearestShown(this.list.active);
    this.layOut();
    this.sayStatus();
    this.empty.hidden = shown.length > 0;
    this.empty.textContent = emptyText(query, only);
    this.list.draw();
  }

  readSelection() {
    const selected = this.model.get("selected");
    this.selected = this.tree.find(selected)?.id ?? null;
    const found = chosenOf(selected, this.model.get("chosen")).map(
      (one) => this.tree.find(one)?.id,
    );
    this.chosen = new Set(found.filter((id) => id !== undefined));
  }

  markChosen() {
    this.readSelection();
    this.list.draw();
    this.sayStatus();
  }

  sayStatus() {
    const all = this.tree.rows.filter((row) => row.kind !== "fold").length.toLocaleString("en");
    const found = this.hits
      ? `${this.hits.size.toLocaleString("en")} of ${all}`
      : `${all} modules and fake quants`;
    const many = this.chosen.size.toLocaleString("en");
    this.status.textContent = this.chosen.size > 1 ? `${many} selected, ${found}` : found;
  }

  /** Gives the columns their widths: one for all rows that are shown, in view or not. */
  layOut() {
    const view = this.viewport.clientWidth;
    if (!view) return; // not in the page yet; the resize observer calls when it is
    const label = this.model.get("state_label") ?? "";
    this.stateHead.textContent = label;
    const widths = share(view, this.ruler.wanted(this.list.rows, view, label));
    for (const [name, width] of Object.entries(widths)) {
      this.root.style.setProperty(`--qx-tree-${name}`, `${width}px`);
    }
    this.scrollHead();
  }

  scrollHead() {
    this.head.style.transform = `translateX(${-this.viewport.scrollLeft}px)`;
  }

  /**
   * The row `id`, or what is shown of what it lies in, or the first row.
   * @param {string | null} id
   */
  nearestShown(id) {
    let row = id === null ? undefined : this.tree.byId.get(id);
    while (row && !this.list.indexOf.has(row.id)) row = this.tree.parentOf(row);
    return row?.id ?? this.list.rows[0]?.id ?? null;
  }

  /**
   * @param {HTMLElement} element
   * @param {TreeRow} row
   */
  markRow(element, row) {
    element.setAttribute("aria-selected", String(this.chosen.has(row.id)));
    element.classList.toggle("qx-is-also", this.chosen.has(row.id) && row.id !== this.selected);
    const [place, size] = this.tree.position.get(row.id) ?? [1, 1];
    element.setAttribute("aria-posinset", String(place));
    element.setAttribute("aria-setsize", String(size));
    if (this.tree.hasChildren(row)) {
      element.setAttribute("aria-expanded", String(this.tree.isOpen(row)));
    } else {
      element.removeAttribute("aria-expanded");
    }
    element.classList.toggle("qx-is-context", this.hits !== null && !this.hits.has(row.id));
  }

  /**
   * @param {TreeRow} row
   * @param {boolean} open
   */
  toggle(row, open) {
    this.tree.setOpen(row, open);
    this.refresh();
  }

  /**
   * @param {MouseEvent} event
   * @param {boolean} double
   */
  onClick(event, double) {
    const row = this.list.rowOf(event);
    if (!row) return;
    const onChevron = closest(event.target, ".qx-tree-chevron") !== null;
    if (double ? !onChevron : onChevron) this.toggle(row, !this.tree.isOpen(row));
    else if (!double) this.pick(row, event);
    const at = this.list.indexOf.get(row.id);
    if (at !== undefined) this.list.focus(at);
  }

  /**
   * A click: with Ctrl (or ⌘) this row too, with Shift all from the last one to it.
   * @param {TreeRow} row
   * @param {MouseEvent} event
   */
  pick(row, event) {
    const also = event.ctrlKey || event.metaKey;
    const at = this.list.indexOf.get(row.id);
    if (event.shiftKey && at !== undefined) this.chooseThrough(at, also);
    else if (also) this.chooseToo(row);
    else this.choose(row);
  }

  /** Selects a row; one that folds others has nothing to select, and opens. @param {TreeRow} row */
  choose(row) {
    this.anchor = row.id;
    if (row.kind === "fold") this.toggle(row, !this.tree.isOpen(row));
    else save(this.model, only(row.id));
  }

  /** Selects a row besides the others, or leaves it out again. @param {TreeRow} row */
  chooseToo(row) {
    this.anchor = row.id;
    if (row.kind === "fold") this.toggle(row, !this.tree.isOpen(row));
    else save(this.model, toggled(this.chosenNow(), row.id));
  }

  /**
   * Selects all rows from the anchor to the row `to`.
   * @param {number} to index of a row that is shown
   * @param {boolean} also whether what is selected elsewhere stays so
   */
  chooseThrough(to, also) {
    const begin = this.anchor ?? this.selected;
    const from = begin === null ? undefined : this.list.indexOf.get(begin);
    this.anchor = begin;
    if (from === undefined) this.choose(this.list.rows[to]);
    else save(this.model, through(this.list.rows, from, to, also ? this.chosenNow() : []));
  }

  /** Selection strings of all that is selected. */
  chosenNow() {
    return chosenOf(this.model.get("selected"), this.model.get("chosen"));
  }

  /**
   * Moves the focus to the row `to`; with Shift it is selected with all from the anchor on.
   * @param {number} from
   * @param {number} to
   * @param {KeyboardEvent} event
   */
  walk(from, to, event) {
    if (event.shiftKey) {
      const at = Math.max(0, Math.min(this.list.rows.length - 1, to));
      if (this.anchor === null || !this.list.indexOf.has(this.anchor)) {
        this.anchor = this.list.rows[from].id;
      }
      this.chooseThrough(at, false);
    }
    this.list.focus(to);
  }

  /** @param {KeyboardEvent} event */
  onSearchKey(event) {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      const { hits } = this;
      this.list.focus(hits ? this.list.rows.findIndex((row) => hits.has(row.id)) : 0);
    } else if (event.key === "Escape") {
      save(this.model, { query: "" });
    } else return;
    event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const { tree, list } = this;
    /** @param {TreeRow} row */
    const isOpen = (row) => tree.hasChildren(row) && tree.isOpen(row);
    /** @type {Record<string, (row: TreeRow, at: number) => void>} */
    const more = {
      ArrowDown: (_, at) => this.walk(at, at + 1, event),
      ArrowUp: (_, at) => this.walk(at, at - 1, event),
      " ": (row) => this.chooseToo(row),
      ArrowRight: (row, at) => (isOpen(row) ? list.focus(at + 1) : this.toggle(row, true)),
      ArrowLeft: (row) => {
        const up = row.parent === null ? undefined : list.indexOf.get(row.parent);
        if (isOpen(row)) this.toggle(row, false);
        else if (up !== undefined) list.focus(up);
      },
      "*": (row) => {
        const siblings = row.parent === null ? [row] : (tree.children.get(row.parent) ?? [row]);
        for (const sibling of siblings) tree.setOpen(sibling, true);
        this.refresh();
      },
    };
    if (list.key(event, (row) => this.choose(row), more)) return;
    if (isShortcut(event) || event.key.length !== 1 || list.active === null) return;
    this.input.focus();
    this.input.value += event.key;
    save(this.model, { query: this.input.value });
    event.preventDefault();
    event.stopPropagation();
  }
}

/**
 * What an empty tree says.
 * @param {string} query
 * @param {Only} only
 */
function emptyText(query, only) {
  if (query.trim()) return "Nothing matches the search.";
  if (only === "changed") return "Nothing changed in this stage.";
  if (only === "float") {
    return "Nothing stays float here. (Before fake quants are inserted this is not decided.)";
  }
  return "There is no model to show.";
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const view = new TreeView(model, el);
    return () => view.destroy();
  },
};
