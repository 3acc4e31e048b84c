// How one row of the module tree looks, and what a screen reader says of it.

import { html } from "../common/dom.js";

/** @typedef {import("./rows.js").TreeRow} TreeRow */

const KINDS = [
  ["weight", "■", "W"],
  ["input", "▲", "I"],
  ["output", "●", "A"],
];

/**
 * @param {string} className
 * @param {string} [text]
 * @param {string | null} [title]
 */
const span = (className, text, title) => html("span", { class: className, text, title });

/**
 * @param {string} text
 * @param {string} className
 * @param {string} title
 */
const badge = (text, className, title) => span(`qx-badge ${className}`, text, title || null);

/**
 * The row in words.
 * @param {TreeRow} row
 */
export function describe(row) {
  const parts = [row.name, row.before ? `was ${row.before}, now ${row.type}` : row.type];
  if (row.kind === "site") parts.push(`${row.site} fake quant`);
  if (row.changed) parts.push(`changed: ${row.what.join(", ")}`);
  if (row.qconfig) parts.push(`qconfig ${row.qconfig}`);
  KINDS.forEach(([kind], i) => {
    const n = row.below[i];
    if (n) parts.push(`${n} ${kind} fake quant${n > 1 ? "s" : ""}`);
  });
  if (row.int8) parts.push("int8");
  if (row.float) parts.push("stays float");
  if (row.not_run) parts.push("not run");
  if (row.shared !== null) parts.push(`same object as ${row.shared || "the model"}`);
  return parts.join(", ");
}

/** @param {TreeRow} row */
function typeCell(row) {
  if (!row.before) return span("qx-tree-type", row.type, row.title);
  const title = `${row.before} → ${row.type}\n${row.title}`;
  return html("span", { class: "qx-tree-type", title }, [
    span("qx-tree-before", row.before),
    span("qx-tree-arrow", " → "),
    html("strong", { class: "qx-tree-after", text: row.type }),
  ]);
}

/** @param {TreeRow} row */
function badges(row) {
  const own = row.marks.some(Boolean);
  const marks = KINDS.map(([kind, mark, letter], i) => {
    const n = own ? row.marks[i] : row.below[i];
    if (!n) return null;
    const text = own ? `${mark} ${letter}${n > 1 ? ` ${n}` : ""}` : `${mark} ${n}`;
    const title = `${n} ${kind} fake quant(s) ${own ? "held by this module" : "inside"}`;
    return badge(text, own ? `qx-${kind}` : "qx-tree-inside", title);
  });
  return html("span", { class: "qx-tree-badges" }, [
    ...marks,
    row.int8 && badge("int8", "qx-int8", "An int8 module of torch"),
    row.float && badge("float", "qx-tree-float", "Computes in float at this stage"),
    row.not_run && badge("not run", "", "Did not run in the forward of the example input"),
    row.shared !== null && badge("shared", "", `The same object as ${row.shared || "the model"}`),
    row.qconfig && badge(row.qconfig, "qx-tree-qconfig", row.qconfig_title),
  ]);
}

/**
 * Writes `row` into its element.
 * @param {HTMLElement} element
 * @param {TreeRow} row
 */
export function fillRow(element, row) {
  const indent = span("qx-tree-indent");
  indent.style.width = `${row.depth * 16}px`;
  const delta = row.changed ? `Changed in this stage: ${row.what.join(", ")}` : null;
  const [kind, mark, letter] = KINDS.find(([k]) => row.kind === "site" && k === row.site) ?? [];
  element.replaceChildren(
    indent,
    html("span", { class: "qx-tree-chevron", "aria-hidden": "true" }),
    ...(kind ? [badge(`${mark} ${letter}`, `qx-${kind}`, `${kind} fake quant`)] : []),
    span("qx-tree-name", row.name, row.path || "the model itself"),
    typeCell(row),
    span("qx-tree-delta", row.changed ? "Δ" : "", delta),
    badges(row),
  );
  element.className = "qx-tree-row";
  element.classList.toggle("qx-is-changed", row.changed);
  element.classList.toggle("qx-is-gone", row.what.includes("gone"));
  element.classList.toggle("qx-is-site", row.kind === "site");
  element.setAttribute("aria-label", describe(row));
  element.setAttribute("aria-level", String(row.depth + 1));
}
