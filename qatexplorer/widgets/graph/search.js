// The search box with its list of matches.

import { html } from "../common/dom.js";
import { subText } from "./geometry.js";
import { titleOf } from "./scene.js";

/** @typedef {import("./scene.js").Item} Item */

export class SearchBox {
  /**
   * @param {string} prefix of element ids
   * @param {(text: string) => { hits: Item[], total: number }} find
   * @param {(item: Item | null) => void} choose takes a hit, null when the search is given up
   */
  constructor(prefix, find, choose) {
    this.find = find;
    this.choose = choose;
    this.listId = `${prefix}matches`;
    this.input = html("input", {
      type: "search",
      class: "qxg-search",
      placeholder: "Find path, type or op  (f)",
      role: "combobox",
      "aria-label": "Find in the graph by path, type or operation",
      "aria-expanded": "false",
      "aria-controls": this.listId,
      autocomplete: "off",
      spellcheck: "false",
    });
    const attributes = { id: this.listId, class: "qxg-matches", role: "listbox", hidden: true };
    this.list = html("ul", attributes);
    this.box = html("div", { class: "qxg-find" }, [this.input, this.list]);
    /** @type {Item[]} */
    this.hits = [];
    this.at = 0;
    this.input.addEventListener("input", () => this.refresh());
    this.input.addEventListener("focus", () => this.refresh());
    this.input.addEventListener("blur", () => this.close());
    this.input.addEventListener("keydown", (event) => this.onKey(event));
  }

  close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  paint() {
    for (const [i, row] of [...this.list.querySelectorAll("[role=option]")].entries()) {
      row.setAttribute("aria-selected", String(i === this.at));
      if (i === this.at) this.input.setAttribute("aria-activedescendant", row.id);
    }
  }

  /** @param {Item} item */
  take(item) {
    this.close();
    this.choose(item);
  }

  /**
   * @param {Item} item
   * @param {number} i
   */
  row(item, i) {
    const name = titleOf(item);
    const row = html("li", { role: "option", id: `${this.listId}${i}`, title: name }, [
      html("b", { text: name }),
      html("span", { text: subText(item) }),
    ]);
    row.addEventListener("mousedown", (event) => {
      event.preventDefault();
      this.take(item);
    });
    return row;
  }

  refresh() {
    const { hits, total } = this.find(this.input.value);
    this.hits = hits;
    this.at = 0;
    const rows = hits.map((item, i) => this.row(item, i));
    const more = total > hits.length ? `${total - hits.length} more` : "";
    const note = !total && this.input.value.trim() ? "no match" : more;
    if (note) rows.push(html("li", { class: "qxg-more", text: note }));
    this.list.replaceChildren(...rows);
    this.list.hidden = !rows.length;
    this.input.setAttribute("aria-expanded", rows.length ? "true" : "false");
    this.paint();
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    event.stopPropagation();
    const { hits, at } = this;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const by = event.key === "ArrowDown" ? 1 : hits.length - 1;
      if (hits.length) this.at = (at + by) % hits.length;
      this.paint();
    } else if (event.key === "Enter" && hits[at]) {
      this.take(hits[at]);
    } else if (event.key === "Escape") {
      this.close();
      this.choose(null);
    }
  }
}
