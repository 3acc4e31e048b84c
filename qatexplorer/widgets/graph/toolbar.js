// Buttons and legend: plain HTML around the drawing.

import { html, svg } from "../common/dom.js";
import { drawDelta, drawFinding, drawMark, twiceMark } from "./marks.js";

/** @typedef {import("./scene.js").Kind} Kind */

const ICONS = {
  fit: "M3 6V3h3M10 3h3v3M13 10v3h-3M6 13H3v-3",
  out: "M4 8h8",
  in: "M4 8h8M8 4v8",
  target: "M8 2v3M8 11v3M2 8h3M11 8h3M8 8h.01",
  right: "M3 8h10M9.5 4.5 13 8l-3.5 3.5",
  collapse: "M4 6l4-3.5L12 6M4 10l4 3.5L12 10",
  save: "M8 2.5v7M5 7l3 3 3-3M3 13h10",
  identity: "M8 1.5v4M8 10.5v4M5.5 8a2.5 2.5 0 1 0 5 0 2.5 2.5 0 1 0-5 0",
  map: "M2.5 3h11v10h-11zM8.5 8h5M8.5 8v5",
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
 * @param {"behind" | "inner" | "fold"} look
 */
function frame(names, look) {
  const behind = { x: -11, y: -5, width: 26, height: 14, rx: 4, class: "qxg-behind" };
  const inner = { x: -11.5, y: -5.5, width: 23, height: 10, rx: 2, class: "qxg-inner" };
  const outer = { x: -14, y: -8, width: 28, height: 15, rx: 4, class: "qxg-frame" };
  const parts = [
    look === "fold" && svg("rect", { ...behind, x: -7, y: -2 }),
    look !== "inner" && svg("rect", behind),
    svg("rect", outer),
    look === "inner" && svg("rect", inner),
  ];
  return sample(svg("g", { class: `qxg-item ${names}` }, parts));
}

/** An edge with the dot that stands for Identities. */
const passSample = () => [
  svg("path", { d: "M0 -11V11", class: "qxg-line" }),
  svg("circle", { r: 3.2, class: "qxg-dot" }),
];

/** @typedef {import("./scene.js").Index} Index */

/**
 * What is in a scene, so that the legend explains nothing else.
 * @param {Index} index
 */
function contentsOf({ sites, groups, nodes, hidden, redundant }) {
  const all = Object.values(sites);
  return {
    weight: all.some((site) => site.kind === "weight"),
    input: all.some((site) => site.kind === "input"),
    output: all.some((site) => site.kind === "output"),
    off: all.some((site) => site.off),
    site: all.some((site) => site.changed),
    changed: [...groups, ...nodes].some((item) => item.changed),
    twice: redundant.size > 0,
    int8: nodes.some((node) => node.precision === "int8"),
    group: groups.length > 1,
    fold: groups.some((group) => group.repeat),
    pass: hidden.size > 0,
    finding: [...groups, ...nodes].some((item) => item.finding),
  };
}

/** @returns {[keyof ReturnType<typeof contentsOf>, SVGElement, string][]} */
const legendRows = () => [
  ["weight", mark("weight", "W"), "weight fake quant, on its module"],
  ["input", mark("input", "I"), "input fake quant, on the tensor"],
  ["output", mark("output", "A"), "activation (output) fake quant, on the tensor"],
  ["off", mark("output", "A", { off: true }), "fake quant that never runs"],
  ["site", mark("weight", "W", { changed: true }), "changed in this step"],
  ["changed", sample(drawDelta(0, 0)), "module changed, or something inside it"],
  ["twice", sample(twiceMark(0, 0, "")), "fake-quantized twice, see the ledger"],
  [
    "finding",
    sample(drawFinding({ severity: "error", mark: "✖" }, 0, 0)),
    "a check found something",
  ],
  ["int8", frame("qxg-node qxg-is-int8", "inner"), "computes in int8"],
  ["group", frame("qxg-closed", "behind"), "group, Enter or ▸ opens it"],
  ["fold", frame("qxg-closed qxg-fold", "fold"), "×5: equal blocks in a row, a click opens them"],
  ["pass", sample(svg("g", { class: "qxg-pass" }, passSample())), "passes an Identity"],
];

/** Where {@link paintLegend} writes. */
export const legendBox = () =>
  html("div", { class: "qxg-legend", role: "note", "aria-label": "Legend" });

/**
 * Says what the shapes and outlines mean that a scene has.
 * @param {HTMLElement} box
 * @param {Index} index
 */
export function paintLegend(box, index) {
  const has = contentsOf(index);
  const rows = legendRows().filter(([what]) => has[what]);
  box.replaceChildren(
    ...rows.map(([, picture, text]) => html("div", {}, [picture, html("span", { text })])),
  );
  box.classList.toggle("qxg-bare", !rows.length);
}
