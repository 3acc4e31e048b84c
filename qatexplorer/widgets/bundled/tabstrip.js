// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   explorer/layout.js
//   explorer/tabstrip.js
// sha256 of these: d30d6c5d12b1cd2e4fbd8e00f50d77def050f1569242ee41def5bb0b686c3048

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
function isShortcut(event) {
  return event.ctrlKey || event.metaKey || event.altKey;
}

// explorer/layout.js
var KEY = "qatexplorer.layout";
var OWN_TAB = ".jp-LinkedOutputView";
function placeOf(el) {
  if (document.body.dataset.voila === "voila") return alone(el) ? "window" : "cell";
  return el.closest(OWN_TAB) === null ? "cell" : "tab";
}
function alone(el) {
  const outputs = document.querySelectorAll(".jp-OutputArea-output, .jp-MarkdownOutput");
  for (const output of outputs) {
    if (!output.contains(el) && output.getBoundingClientRect().height > 0) return false;
  }
  return true;
}
function parsed(text) {
  try {
    const value = JSON.parse(text ?? "{}");
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}
function remembered(place) {
  try {
    return parsed(localStorage.getItem(`${KEY}.${place}`));
  } catch {
    return {};
  }
}
function remember(place, name, value) {
  const all = { ...remembered(place), [name]: value };
  try {
    localStorage.setItem(`${KEY}.${place}`, JSON.stringify(all));
  } catch {
  }
}

// explorer/tabstrip.js
var made = 0;
var TabStrip = class {
  /**
   * @param {import("@anywidget/types").AnyModel<Traits>} model
   * @param {HTMLElement} el
   */
  constructor(model, el) {
    this.model = model;
    this.el = el;
    made += 1;
    this.id = `qx-tab-${made}-${Math.random().toString(36).slice(2, 8)}`;
    this.list = html("div", { class: "qx-tabs", role: "tablist", "aria-label": "Panels" });
    this.toggle = html("button", { class: "qx-button qx-drawer-toggle" });
    this.root = html("div", { class: "qx qx-strip-row", ...OWN_KEYS }, [this.list, this.toggle]);
    el.append(this.root);
    this.toggle.addEventListener("click", () => this.set({ opened: !model.get("opened") }));
    this.list.addEventListener("keydown", (event) => this.onKey(event));
    const draw = () => this.draw();
    this.unlisten = listen(model, {
      "change:titles": () => this.build(),
      "change:selected": draw,
      "change:opened": draw
    });
    this.grown = new MutationObserver(() => this.mark());
    this.onEscape = (event) => {
      if (event.key !== "Escape" || !model.get("opened") || event.defaultPrevented) return;
      event.stopPropagation();
      this.set({ opened: false });
      this.list.querySelectorAll("button")[model.get("selected")]?.focus();
    };
    this.sized = new ResizeObserver(() => this.onPlaced());
    this.sized.observe(this.root);
    this.build();
  }
  /** @returns {HTMLElement | null} */
  get drawer() {
    return this.el.closest(".qx-drawer");
  }
  /** @returns {HTMLElement | null} */
  get pages() {
    return this.drawer?.querySelector(":scope > .qx-pages") ?? null;
  }
  onPlaced() {
    const { drawer, pages } = this;
    if (!drawer || !pages) return;
    this.sized.disconnect();
    this.grown.observe(pages, { childList: true });
    drawer.addEventListener("keydown", this.onEscape);
    if (!this.model.get("settled")) {
      const { open, tab } = remembered(placeOf(this.el));
      const at = this.model.get("titles").indexOf(tab);
      save(this.model, {
        settled: true,
        opened: open === true,
        selected: at < 0 ? this.model.get("selected") : at
      });
    }
    this.draw();
  }
  /** @param {Partial<Traits>} changes */
  set(changes) {
    save(this.model, { ...changes, settled: true });
    this.keep();
  }
  keep() {
    const place = placeOf(this.el);
    remember(place, "open", this.model.get("opened"));
    remember(place, "tab", this.model.get("titles")[this.model.get("selected")]);
  }
  build() {
    const tabs = this.model.get("titles").map((title, at) => {
      const tab = html("button", {
        class: "qx-tab",
        role: "tab",
        id: `${this.id}-${at}`,
        "aria-controls": `${this.id}-page-${at}`,
        text: title
      });
      tab.addEventListener("click", () => this.choose(at));
      return tab;
    });
    this.list.replaceChildren(...tabs);
    this.draw();
  }
  /** A click on the tab in view closes the drawer. @param {number} at */
  choose(at) {
    const open = this.model.get("opened");
    const same = at === this.model.get("selected");
    this.set({ selected: at, opened: !(same && open) });
  }
  draw() {
    const selected = this.model.get("selected");
    const open = this.model.get("opened");
    for (const [at, tab] of [...this.list.children].entries()) {
      tab.setAttribute("aria-selected", String(open && at === selected));
      tab.setAttribute("tabindex", at === selected ? "0" : "-1");
    }
    this.toggle.textContent = open ? "▾ Close" : "▴ Open";
    this.toggle.title = open ? "Close the panels (Esc)" : "Open the panels";
    this.toggle.setAttribute("aria-expanded", String(open));
    this.mark();
  }
  /** Shows the chosen page, and says what each page is. */
  mark() {
    const { drawer, pages } = this;
    if (!drawer || !pages) return;
    const open = this.model.get("opened");
    drawer.classList.toggle("qx-drawer-open", open);
    for (const [at, page] of [...pages.children].entries()) {
      page.classList.toggle("qx-page-shown", open && at === this.model.get("selected"));
      page.id = `${this.id}-page-${at}`;
      page.setAttribute("role", "tabpanel");
      page.setAttribute("aria-labelledby", `${this.id}-${at}`);
    }
  }
  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (isShortcut(event)) return;
    const count = this.list.children.length;
    const at = [...this.list.children].indexOf(
      /** @type {Element} */
      document.activeElement
    );
    const to = {
      ArrowRight: (at + 1) % count,
      ArrowLeft: (at + count - 1) % count,
      Home: 0,
      End: count - 1
    };
    if (at < 0 || !Object.hasOwn(to, event.key)) return;
    const next = to[event.key];
    this.set({ selected: next });
    const tab = this.list.children[next];
    if (tab instanceof HTMLElement) tab.focus();
    event.preventDefault();
    event.stopPropagation();
  }
  destroy() {
    this.unlisten();
    this.grown.disconnect();
    this.sized.disconnect();
    this.drawer?.removeEventListener("keydown", this.onEscape);
    this.root.remove();
  }
};
var tabstrip_default = {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const view = new TabStrip(model, el);
    return () => view.destroy();
  }
};
export {
  tabstrip_default as default
};
