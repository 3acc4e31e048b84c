// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   explorer/frame.js
//   explorer/keys_sheet.js
//   explorer/layout.js
// sha256 of these: 431c2dbf4cbac3a69e25d56c01ccef05cd846a8a6b53a1c7a52f63fda6bbcc0d

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
  [
    "Everywhere",
    [
      ["?", "This sheet"],
      ["Tab, Shift Tab", "The next part, the one before"],
      ["Enter, Space", "Press the button that has the focus"],
      ["Esc", "Close what is open: a text, the panels"]
    ]
  ],
  [
    "Tree and tables",
    [
      ["↓ ↑", "The next row, the one before"],
      ["Page Down, Page Up", "A page of rows on, back"],
      ["Home, End", "The first row, the last"],
      ["Enter, Space", "Select the row"]
    ]
  ],
  [
    "Tree",
    [
      ["→", "Open the module; then its first row"],
      ["←", "Close the module; then the one around it"],
      ["*", "Open all modules beside it"],
      ["a letter", "Search for it"],
      ["Esc in the search", "Empty the search"]
    ]
  ],
  [
    "Graph",
    [
      ["↓ ↑", "Along the tensors, against them"],
      ["← →", "Beside it in the same layer"],
      ["Enter", "Open or close a group, select a node"],
      ["Space", "Select"],
      ["m", "The next fake quant of the node"],
      ["+ = -", "Zoom in, out"],
      ["0", "Fit all"],
      ["z", "Zoom to the selection"],
      ["f /", "Search"],
      ["Esc", "Stop a layout; close the group around; select nothing"]
    ]
  ],
  [
    "Bars between the parts",
    [
      ["← → or ↑ ↓", "Move the bar, with Shift farther"],
      ["Home, End", "As small, as large as can be"],
      ["Enter", "Close tree or inspector, open it again"]
    ]
  ],
  [
    "Panels below",
    [
      ["← →", "The tab before, the next"],
      ["Home, End", "The first tab, the last"],
      ["Enter, Space", "Open the panel; on the open one, close it"],
      ["Esc", "Close the panels"]
    ]
  ]
];
function keysSheet() {
  const title = html("h2", { text: "Keys" });
  const close = html("button", { class: "qx-button", text: "✕", "aria-label": "Close" });
  const groups = KEYS.map(
    ([part, keys]) => html("section", {}, [
      html("h3", { text: part }),
      html(
        "dl",
        {},
        keys.map(
          ([key, what]) => html("div", {}, [
            html("dt", {}, [html("kbd", { text: key })]),
            html("dd", { text: what })
          ])
        )
      )
    ])
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
