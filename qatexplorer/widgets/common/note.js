// One line that says what is going on, and a text behind it that opens over the page.

import { html, listen, OWN_KEYS } from "./dom.js";

/**
 * @typedef {object} Traits see controls.py
 * @property {string} html
 * @property {string} line
 * @property {string} kind
 * @property {string} role
 * @property {string} label
 * @property {boolean} opens
 */

let made = 0;

class NoteView {
  /**
   * @param {import("@anywidget/types").AnyModel<Traits>} model
   * @param {HTMLElement} el
   */
  constructor(model, el) {
    this.model = model;
    made += 1;
    const id = `qx-note-${made}-${Math.random().toString(36).slice(2, 8)}`;
    this.line = html("div", { class: "qx-note-line" });
    this.more = html("button", { class: "qx-button qx-note-more", "aria-controls": id });
    this.body = html("div", { class: "qx-note-body" });
    this.close = html("button", {
      class: "qx-button qx-note-close",
      text: "✕",
      title: "Close (Esc)",
      "aria-label": "Close",
    });
    this.popover = html("div", { class: "qx-popover", id, hidden: true, tabindex: "-1" }, [
      this.close,
      this.body,
    ]);
    this.root = html("div", OWN_KEYS, [this.line, this.more, this.popover]);
    el.append(this.root);
    this.more.addEventListener("click", () => this.show(!this.open));
    this.close.addEventListener("click", () => this.shut());
    const draw = () => this.draw();
    const unlisten = listen(model, {
      "change:html": () => this.draw(model.get("opens")),
      "change:line": draw,
      "change:kind": draw,
      "change:role": draw,
      "change:label": draw,
    });
    /** A click elsewhere closes what was opened to be read. @param {Event} event */
    const outside = (event) => {
      const inside = event.target instanceof Node && this.root.contains(event.target);
      if (!inside && !model.get("opens")) this.show(false);
    };
    /** @param {KeyboardEvent} event */
    const onEscape = (event) => {
      if (event.key !== "Escape" || !this.open) return;
      event.preventDefault();
      this.shut();
    };
    this.root.addEventListener("keydown", onEscape);
    document.addEventListener("keydown", onEscape);
    document.addEventListener("pointerdown", outside);
    this.end = () => {
      unlisten();
      document.removeEventListener("keydown", onEscape);
      document.removeEventListener("pointerdown", outside);
      this.root.remove();
    };
    this.draw(model.get("opens"));
  }

  get open() {
    return !this.popover.hidden;
  }

  /** @param {boolean} [open] */
  draw(open = false) {
    const { model } = this;
    const text = model.get("html");
    this.root.className = `qx qx-note ${model.get("kind")}`;
    const role = model.get("role");
    if (role) this.root.setAttribute("role", role);
    else this.root.removeAttribute("role");
    this.root.hidden = text === "" && model.get("line") === "";
    this.more.hidden = text === "";
    this.body.innerHTML = text;
    if (model.get("line")) this.line.innerHTML = model.get("line");
    else
      this.line.textContent =
        this.body.querySelector("p, .qx-message-body > div")?.textContent ?? "";
    this.line.title = this.line.textContent ?? "";
    if (text === "") this.show(false);
    else if (open) this.show(true);
    else this.show(this.open);
  }

  /** @param {boolean} open */
  show(open) {
    this.popover.hidden = !open;
    this.more.setAttribute("aria-expanded", String(open));
    this.more.textContent = open ? "less" : this.model.get("label");
  }

  shut() {
    const inside = this.popover.contains(document.activeElement);
    this.show(false);
    if (inside) this.more.focus();
  }
}

export default {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const view = new NoteView(model, el);
    return () => view.end();
  },
};
