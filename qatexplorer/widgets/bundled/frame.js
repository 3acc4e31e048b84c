// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   explorer/frame.js
//   explorer/keys_sheet.js
//   explorer/layout.js
// sha256 of these: 38126767f30a3c381cc96cfa3e71b5949865657f0f30108ce0d547424e7b8b73

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

// explorer/keys_sheet.js
var KEYS = [
  {
    part: "Everywhere",
    entries: [
      { keys: ["?"], what: "This sheet" },
      { keys: ["Tab"], what: "The next control; with Shift the one before" },
      { keys: ["Enter", " "], what: "Press the button that has the focus, such as a stage" },
      { keys: ["Escape"], what: "Close a text that lies over the page" }
    ]
  },
  {
    part: "Rows of the tree and of tables",
    entries: [
      { keys: ["ArrowDown", "ArrowUp"], what: "The next row, the one before" },
      { keys: ["PageDown", "PageUp"], what: "A page of rows on, back" },
      { keys: ["Home", "End"], what: "The first row, the last" },
      { keys: ["Enter", " "], what: "Select the row" }
    ]
  },
  {
    part: "Tree",
    entries: [
      { keys: ["ArrowRight"], what: "Open the module; in an open one, its first row" },
      { keys: ["ArrowLeft"], what: "Close the module; in a closed one, the one around it" },
      { keys: ["*"], what: "Open all modules beside it" },
      { keys: [" "], what: "Select the row with the others, or leave it out; a click with Ctrl" },
      { keys: ["ArrowDown", "ArrowUp"], when: "with Shift", what: "Select all rows on the way" },
      { keys: [], when: "any letter", what: "Search for it" },
      { keys: ["Escape"], when: "in the search", what: "Empty the search" }
    ]
  },
  {
    part: "Graph",
    entries: [
      { keys: ["ArrowDown", "ArrowUp"], what: "Along the tensors, against them" },
      { keys: ["ArrowLeft", "ArrowRight"], what: "To the side, in the same layer" },
      {
        keys: ["ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight"],
        when: "with Shift",
        what: "Move the picture"
      },
      { keys: ["PageDown", "PageUp", "Home", "End"], what: "Move a page, to the begin or end" },
      { keys: ["Enter"], what: "Open or close a group, select a node" },
      { keys: [" "], what: "Select" },
      { keys: ["m"], what: "The next fake quant of the node" },
      { keys: ["+", "=", "-"], what: "Zoom in, in, out; so does the wheel with Ctrl" },
      { keys: ["0"], what: "Fit all" },
      { keys: ["z"], what: "Zoom to the selection" },
      { keys: ["f", "/"], what: "Search" },
      { keys: ["Escape"], what: "Stop a layout; close the group around; select nothing" }
    ]
  },
  {
    part: "Bars between the parts",
    entries: [
      { keys: ["ArrowLeft", "ArrowRight"], what: "Move an upright bar, with Shift farther" },
      { keys: ["ArrowUp", "ArrowDown"], what: "Move a level bar, with Shift farther" },
      { keys: ["Home", "End"], what: "As small, as large as can be" },
      { keys: ["Enter"], what: "Close tree or inspector, open it again" }
    ]
  },
  {
    part: "Panels below",
    entries: [
      { keys: ["ArrowLeft", "ArrowRight"], what: "The tab before, the next" },
      { keys: ["Home", "End"], what: "The first tab, the last" },
      { keys: ["Enter", " "], what: "Open the panel; on the open one, close it" },
      { keys: ["Escape"], when: "not in a text field", what: "Close the panels" }
    ]
  }
];
var SIGNS = {
  ArrowDown: "↓",
  ArrowUp: "↑",
  ArrowLeft: "←",
  ArrowRight: "→",
  PageDown: "Page Down",
  PageUp: "Page Up",
  Escape: "Esc",
  " ": "Space"
};
function line({ keys, what, when }) {
  const signs = keys.map((key) => html("kbd", { text: SIGNS[key] ?? key }));
  return html("div", {}, [
    html("dt", {}, [...signs, when && html("span", { class: "qx-muted", text: when })]),
    html("dd", { text: what })
  ]);
}
function keysSheet() {
  const title = html("h2", { text: "Keys" });
  const close = html("button", { class: "qx-button", text: "✕", "aria-label": "Close" });
  const groups = KEYS.map(
    ({ part, entries }) => html("section", {}, [html("h3", { text: part }), html("dl", {}, entries.map(line))])
  );
  const sheet = html("dialog", { class: "qx-keys", "aria-label": "Keys", ...OWN_KEYS }, [
    html("header", {}, [title, close]),
    html("div", { class: "qx-keys-groups", tabindex: "0" }, groups)
  ]);
  close.addEventListener("click", () => sheet.close());
  sheet.addEventListener("click", (event) => {
    if (event.target === sheet) sheet.close();
  });
  sheet.addEventListener("keydown", (event) => event.stopPropagation());
  return sheet;
}

// explorer/layout.js
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

// explorer/frame.js
var NARROW = 1100;
var SLIM = 860;
var HEIGHT = { usual: 800, least: 560 };
var SCROLLS = ".jp-WindowedPanel-outer";
var Frame = class {
  /** @param {HTMLElement} el */
  constructor(el) {
    this.el = el;
    this.sheet = keysSheet();
    this.button = html("button", {
      class: "qx-button qx-keys-button",
      text: "?",
      title: "Keys (?)",
      "aria-label": "Keys",
      "aria-haspopup": "dialog"
    });
    this.button.addEventListener("click", () => this.open());
    this.gone = html("div", { class: "qx-gone", role: "alert", hidden: true });
    const parts = [this.button, this.sheet, this.gone];
    this.root = html("div", { class: "qx qx-frame", ...OWN_KEYS }, parts);
    el.append(this.root);
    this.endings = [() => this.root.remove()];
    const sized = new ResizeObserver(() => {
      if (!this.explorer) return;
      sized.disconnect();
      this.settle(this.explorer);
    });
    sized.observe(this.root);
    this.endings.push(() => sized.disconnect());
  }
  /** @returns {HTMLElement | null} */
  get explorer() {
    return this.el.closest(".qx-explorer");
  }
  open() {
    if (!this.sheet.open) this.sheet.showModal();
  }
  /** The explorer is in the page. @param {HTMLElement} explorer */
  settle(explorer) {
    const place = placeOf(explorer);
    explorer.dataset.place = place;
    const around = explorer.closest(place === "tab" ? OWN_TAB : SCROLLS);
    const fit = () => {
      const width = explorer.clientWidth;
      if (width === 0) return;
      fitHeight(explorer, around);
      explorer.classList.toggle("qx-narrow", width < NARROW);
      explorer.classList.toggle("qx-slim", width < SLIM);
    };
    const live = new MutationObserver(() => this.tellGone(explorer));
    live.observe(explorer, { attributeFilter: ["class"] });
    const watcher = new ResizeObserver(fit);
    watcher.observe(explorer);
    if (around) watcher.observe(around);
    window.addEventListener("resize", fit);
    const onKey = (event) => this.onKey(event, explorer);
    document.addEventListener("keydown", onKey, true);
    this.endings.push(
      () => live.disconnect(),
      () => watcher.disconnect(),
      () => window.removeEventListener("resize", fit),
      () => document.removeEventListener("keydown", onKey, true)
    );
    fit();
    this.tellGone(explorer);
  }
  /** @param {HTMLElement} explorer */
  tellGone(explorer) {
    const gone = explorer.classList.contains("jupyter-widgets-disconnected");
    if (gone === !this.gone.hidden) return;
    const next = explorer.dataset.place === "window" ? "Reload the page" : "Run the cell again";
    this.gone.textContent = gone ? `The kernel of this page is gone. What you see is its last picture. ${next} to start anew.` : "";
    this.gone.hidden = !gone;
  }
  /**
   * @param {KeyboardEvent} event
   * @param {HTMLElement} explorer
   */
  onKey(event, explorer) {
    if (event.key !== "?" || this.sheet.open || isWriting(event.target)) return;
    const { target } = event;
    const here = target instanceof Node && explorer.contains(target);
    if (!here && !(target === document.body && explorer.dataset.place === "window")) return;
    event.preventDefault();
    event.stopPropagation();
    this.open();
  }
  destroy() {
    for (const end of this.endings) end();
  }
};
function isWriting(target) {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox])");
}
function fitHeight(explorer, around) {
  const { place } = explorer.dataset;
  if (place === "window") return;
  const voila = document.body.dataset.voila === "voila";
  const room = voila ? window.innerHeight : around?.clientHeight ?? HEIGHT.usual + 24;
  if (place === "tab" && around) {
    const top = explorer.getBoundingClientRect().top - around.getBoundingClientRect().top;
    const before = Math.max(0, Math.round(top + around.scrollTop));
    explorer.style.setProperty("--qx-fill", `${room - before - 4}px`);
  } else {
    const fits = Math.max(HEIGHT.least, Math.min(HEIGHT.usual, room - 24));
    explorer.style.setProperty("--qx-usual", `${fits}px`);
  }
}
var frame_default = {
  /** @param {import("@anywidget/types").RenderProps<{}>} props */
  render({ el }) {
    const frame = new Frame(el);
    return () => frame.destroy();
  }
};
export {
  frame_default as default
};
