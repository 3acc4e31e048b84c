// The sheet of keys: what can be done without a mouse.

import { html, OWN_KEYS } from "../common/dom.js";

/** Keys by part of the page. @type {[string, [string, string][]][]} */
export const KEYS = [
  [
    "Everywhere",
    [
      ["?", "This sheet"],
      ["Tab, Shift Tab", "The next part, the one before"],
      ["Enter, Space", "Press the button that has the focus"],
      ["Esc", "Close what is open: a text, the panels"],
    ],
  ],
  [
    "Tree and tables",
    [
      ["↓ ↑", "The next row, the one before"],
      ["Page Down, Page Up", "A page of rows on, back"],
      ["Home, End", "The first row, the last"],
      ["Enter, Space", "Select the row"],
    ],
  ],
  [
    "Tree",
    [
      ["→", "Open the module; then its first row"],
      ["←", "Close the module; then the one around it"],
      ["*", "Open all modules beside it"],
      ["a letter", "Search for it"],
      ["Esc in the search", "Empty the search"],
    ],
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
      ["Esc", "Stop a layout; close the group around; select nothing"],
    ],
  ],
  [
    "Bars between the parts",
    [
      ["← → or ↑ ↓", "Move the bar, with Shift farther"],
      ["Home, End", "As small, as large as can be"],
      ["Enter", "Close tree or inspector, open it again"],
    ],
  ],
  [
    "Panels below",
    [
      ["← →", "The tab before, the next"],
      ["Home, End", "The first tab, the last"],
      ["Enter, Space", "Open the panel; on the open one, close it"],
      ["Esc", "Close the panels"],
    ],
  ],
];

/** @returns {HTMLDialogElement} */
export function keysSheet() {
  const title = html("h2", { text: "Keys" });
  const close = html("button", { class: "qx-button", text: "✕", "aria-label": "Close" });
  const groups = KEYS.map(([part, keys]) =>
    html("section", {}, [
      html("h3", { text: part }),
      html(
        "dl",
        {},
        keys.map(([key, what]) =>
          html("div", {}, [
            html("dt", {}, [html("kbd", { text: key })]),
            html("dd", { text: what }),
          ]),
        ),
      ),
    ]),
  );
  const sheet = html("dialog", { class: "qx-keys", "aria-label": "Keys", ...OWN_KEYS }, [
    html("header", {}, [title, close]),
    html("div", { class: "qx-keys-groups", tabindex: "0" }, groups),
  ]);
  close.addEventListener("click", () => sheet.close());
  sheet.addEventListener("click", (event) => {
    if (event.target === sheet) sheet.close();
  });
  // JupyterLab must not hear the keys that are meant for the sheet.
  sheet.addEventListener("keydown", (event) => event.stopPropagation());
  return sheet;
}
