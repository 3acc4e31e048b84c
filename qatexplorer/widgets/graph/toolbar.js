// Buttons and legend: plain HTML around the drawing.

import { html, svg } from "../common/dom.js";
import { drawDelta, drawMark, drawTwice } from "./marks.js";

/** @typedef {import("./scene.js").Kind} Kind */

const ICONS = {
  fit: "M3 6V3h3M10 3h3v3M13 10v3h-3M6 13H3v-3",
  out: "M4 8h8",
  in: "M4 8h8M8 4v8",
  target: "M8 2v3M8 11v3M2 8h3M11 8h3M8 8h.01",
  right: "M3 8h10M9.5 4.5 13 8l-3.5 3.5",
  collapse: "M4 6l4-3.5L12 6M4 10l4 3.5L12 10",
  save: "M8 2.5v7M5 7l3 3 3-3M3 13h10",
  legend: "M3 4.5h2M7 4.5h6M3 8h2M7 8h6M3 11.5h2M7 11.5h6",
};

/**
 * @param {keyof typeof ICONS} name
 * @param {string} title
 * @param {() => void} onClick
 */
export function iconButton(name, title, onClick) {
  const box = { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" };
  const icon = svg("svg", box, [svg("path", { d: ICONS[name], class: "qxg-icon" })]);
  const button = html("button", { class: "qxg-button", title, "aria-label": title }, [icon]);
  button.addEventListener("click", onClick);
  return button;
}

/**
 * A small picture.
 * @param {SVGElement} drawing
 */
const sample = (drawing) =>
  svg("svg", { width: 34, height: 24, viewBox: "-17 -12 34 24", "aria-hidden": "true" }, [drawing]);

/**
 * @param {Kind} kind
 * @param {string} letter
 * @param {{ off?: boolean, changed?: boolean }} [more]
 */
const mark = (kind, letter, more = {}) => sample(drawMark({ kind, letter, ...more }, 0, 0));

/**
 * @param {string} names classes
 * @param {"behind" | "inner"} look
 */
function frame(names, look) {
  const behind = { x: -11, y: -5, width: 26, height: 14, rx: 4, class: "qxg-behind" };
  const inner = { x: -11.5, y: -5.5, width: 23, height: 10, rx: 2, class: "qxg-inner" };
  const outer = { x: -14, y: -8, width: 28, height: 15, rx: 4, class: "qxg-frame" };
  const parts = [
    look === "behind" && svg("rect", behind),
    svg("rect", outer),
    look === "inner" && svg("rect", inner),
  ];
  return sample(svg("g", { class: `qxg-item ${names}` }, parts));
}

/** What the shapes and outlines mean. */
export function legendBox() {
  /** @type {[SVGElement, string][]} */
  const rows = [
    [mark("weight", "W"), "weight fake quant, on its module"],
    [mark("input", "I"), "input fake quant, on the tensor"],
    [mark("output", "A"), "activation (output) fake quant, on the tensor"],
    [mark("output", "A", { off: true }), "fake quant that never runs"],
    [mark("weight", "W", { changed: true }), "changed in this step"],
    [sample(drawDelta(0, 0)), "module changed, or something inside it"],
    [
      sample(
        drawTwice([
          [0, 0],
          [0, 0],
        ]),
      ),
      "fake-quantized twice (once the ledger is made)",
    ],
    [frame("qxg-node qxg-is-int8", "inner"), "computes in int8"],
    [frame("qxg-closed", "behind"), "group, Enter or ▸ opens it"],
  ];
  return html(
    "div",
    { class: "qxg-legend", role: "note", "aria-label": "Legend" },
    rows.map(([picture, text]) => html("div", {}, [picture, html("span", { text })])),
  );
}
