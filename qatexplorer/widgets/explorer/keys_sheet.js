// The sheet of keys: what can be done without a mouse.

import { html, OWN_KEYS } from "../common/dom.js";

/**
 * What keys do, by part of the page. Keys are named as `KeyboardEvent.key` names them; `when` says
 * what has to hold with it.
 * @typedef {{ keys: string[], what: string, when?: string }} Entry
 */

/** @type {{ part: string, entries: Entry[] }[]} */
export const KEYS = [
  {
    part: "Everywhere",
    entries: [
      { keys: ["?"], what: "This sheet" },
      { keys: ["Tab"], what: "The next control; with Shift the one before" },
      { keys: ["Enter", " "], what: "Press the button that has the focus, such as a stage" },
      { keys: ["Escape"], what: "Close a text that lies over the page" },
    ],
  },
  {
    part: "Rows of the tree and of tables",
    entries: [
      { keys: ["ArrowDown", "ArrowUp"], what: "The next row, the one before" },
      { keys: ["PageDown", "PageUp"], what: "A page of rows on, back" },
      { keys: ["Home", "End"], what: "The first row, the last" },
      { keys: ["Enter", " "], what: "Select the row" },
    ],
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
      { keys: ["Escape"], when: "in the search", what: "Empty the search" },
    ],
  },
  {
    part: "Graph",
    entries: [
      { keys: ["ArrowDown", "ArrowUp"], what: "Along the tensors, against them" },
      { keys: ["ArrowLeft", "ArrowRight"], what: "To the side, in the same layer" },
      {
        keys: ["ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight"],
        when: "with Shift",
        what: "Move the picture",
      },
      { keys: ["PageDown", "PageUp", "Home", "End"], what: "Move a page, to the begin or end" },
      { keys: ["Enter"], what: "Open or close a group, select a node" },
      { keys: [" "], what: "Select" },
      { keys: ["m"], what: "The next fake quant of the node" },
      { keys: ["+", "=", "-"], what: "Zoom in, in, out; so does the wheel with Ctrl" },
      { keys: ["0"], what: "Fit all" },
      { keys: ["z"], what: "Zoom to the selection" },
      { keys: ["f", "/"], what: "Search" },
      { keys: ["Escape"], what: "Stop a layout; close the group around; select nothing" },
    ],
  },
  {
    part: "Bars between the parts",
    entries: [
      { keys: ["ArrowLeft", "ArrowRight"], what: "Move an upright bar, with Shift farther" },
      { keys: ["ArrowUp", "ArrowDown"], what: "Move a level bar, with Shift farther" },
      { keys: ["Home", "End"], what: "As small, as large as can be" },
      { keys: ["Enter"], what: "Close tree or inspector, open it again" },
    ],
  },
  {
    part: "Panels below",
    entries: [
      { keys: ["ArrowLeft", "ArrowRight"], what: "The tab before, the next" },
      { keys: ["Home", "End"], what: "The first tab, the last" },
      { keys: ["Enter", " "], what: "Open the panel; on the open one, close it" },
      { keys: ["Escape"], when: "not in a text field", what: "Close the panels" },
    ],
  },
];

/** @type {Record<string, string>} */
const SIGNS = {
  ArrowDown: "↓",
  ArrowUp: "↑",
  ArrowLeft: "←",
  ArrowRight: "→",
  PageDown: "Page Down",
  PageUp: "Page Up",
  Escape: "Esc",
  " ": "Space",
};

/** @param {Entry} entry */
function line({ keys, what, when }) {
  const signs = keys.map((key) => html("kbd", { text: SIGNS[key] ?? key }));
  return html("div", {}, [
    html("dt", {}, [...signs, when && html("span", { class: "qx-muted", text: when })]),
    html("dd", { text: what }),
  ]);
}

/** @returns {HTMLDialogElement} */
export function keysSheet() {
  const title = html("h2", { text: "Keys" });
  const close = html("button", { class: "qx-button", text: "✕", "aria-label": "Close" });
  const groups = KEYS.map(({ part, entries }) =>
    html("section", {}, [html("h3", { text: part }), html("dl", {}, entries.map(line))]),
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
