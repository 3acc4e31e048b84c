// How one row of the module tree looks, and what a screen reader says of it.

import { html } from "../common/dom.js";

/**
 * @typedef {import("./rows.js").TreeRow} TreeRow
 * @typedef {import("../graph/scene.js").Finding} Finding
 */

const KINDS = [
  ["weight", "■"],
  ["input", "▲"],
  ["output", "●"],
];

/**
 * @param {string} className
 * @param {string} [text]
 * @param {string | null} [title]
 */
const span = (className, text, title) => html("span", { class: className, text, title });

/**
 * @typedef {object} Badge a small label
 * @property {string} text
 * @property {string} className
 * @property {string} title
 */

/** @param {Badge} badge */
const badgeElement = ({ text, className, title }) =>
  span(`qx-badge ${className}`, text, title || null);

/** @param {TreeRow} row */
function qconfigWords(row) {
  const rule = row.rule ? [`by a rule: ${row.rule}`] : [];
  return row.qconfig ? [`qconfig ${row.qconfig}`, ...rule] : rule;
}

/**
 * The row in words.
 * @param {TreeRow} row
 * @param {Finding} [finding] what a check found there or inside
 */
export function describe(row, finding) {
  const parts = [row.name, row.before ? `was ${row.before}, now ${row.type}` : row.type];
  if (row.kind === "site") {
    parts.push(`${row.site} fake quant`);
    if (row.torch_name) parts.push(`${row.torch_name} in torch`);
    if (row.source) parts.push(row.source);
    if (row.shares?.length) parts.push(`one for ${row.shares.length} tensors`);
  }
  if (finding) parts.push(finding.words);
  if (row.changed) parts.push(`changed: ${row.what.join(", ")}`);
  parts.push(...qconfigWords(row));
  KINDS.forEach(([kind], i) => {
    const n = row.below[i];
    if (n) parts.push(`${n} ${kind} fake quant${n > 1 ? "s" : ""}`);
  });
  if (row.state_title) parts.push(row.state_title);
  else if (row.int8) parts.push("int8");
  if (row.float) parts.push("stays float");
  if (row.not_run) parts.push("not run");
  if (row.shared !== null && row.kind !== "site") {
    parts.push(`same object as ${row.shared || "the model"}`);
  }
  return parts.join(", ");
}

/**
 * What stands in the column with the fake quants.
 * @param {TreeRow} row
 * @returns {Badge[]}
 */
export function quantBadges(row) {
  if (row.kind === "site") {
    if (!row.shares?.length) return [];
    const title = `One fake quant for ${row.shares.length} tensors:\n${row.shares.join("\n")}`;
    return [{ text: `1 for ${row.shares.length}`, className: "", title }];
  }
  const own = row.marks.some(Boolean);
  return KINDS.flatMap(([kind, mark], i) => {
    const n = own ? row.marks[i] : row.below[i];
    if (!n) return [];
    const text = own && n === 1 ? mark : `${mark} ${n}`;
    const title = `${n} ${kind} fake quant(s) ${own ? "of this module" : "inside"}`;
    return [{ text, className: own ? `qx-${kind}` : "qx-tree-inside", title }];
  });
}

/**
 * What stands in the column with the state.
 * @param {TreeRow} row
 * @returns {Badge[]}
 */
export function stateBadges(row) {
  /** @type {Badge[]} */
  const found = [];
  if (row.rule) {
    const title = row.rule_title ?? "";
    found.push({ text: `✎ ${row.rule}`, className: "qx-tree-rule", title });
  }
  if (row.state_text) {
    const look = row.float ? "qx-tree-float" : row.int8 ? "qx-int8" : `qx-tree-is-${row.state}`;
    found.push({ text: row.state_text, className: look, title: row.state_title ?? "" });
  } else if (row.int8) {
    found.push({ text: "int8", className: "qx-int8", title: "An int8 module of torch" });
  } else if (row.float) {
    const title = "Computes in float at this stage";
    found.push({ text: "float", className: "qx-tree-float", title });
  }
  if (row.not_run) {
    const title = "Did not run in the forward of the example input";
    found.push({ text: "not run", className: "", title });
  }
  if (row.shared !== null && row.kind === "module") {
    const title = `The same object as ${row.shared || "the model"}`;
    found.push({ text: "shared", className: "", title });
  }
  if (row.qconfig) {
    found.push({ text: row.qconfig, className: "qx-tree-qconfig", title: row.qconfig_title });
  }
  return found;
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

/**
 * The whole path, and what was done to it at this stage.
 * @param {TreeRow} row
 */
function nameTitle(row) {
  const lines = [row.kind === "fold" ? row.title : row.path || "the model itself"];
  if (row.kind === "site") lines.unshift(row.name);
  if (row.changed) lines.push(`Changed in this stage: ${row.what.join(", ")}`);
  return lines.join("\n");
}

/** @param {TreeRow} row */
function moduleCells(row) {
  const title = nameTitle(row);
  const first = html("span", { class: "qx-tree-first", title }, [
    indent(row),
    html("span", { class: "qx-tree-chevron", "aria-hidden": "true" }),
    span("qx-tree-name", row.name, title),
  ]);
  return [
    first,
    typeCell(row),
    html("span", { class: "qx-tree-quants" }, quantBadges(row).map(badgeElement)),
    html("span", { class: "qx-tree-state" }, stateBadges(row).map(badgeElement)),
  ];
}

/**
 * A fake quant has its row to itself: there is nothing of it in the other columns. Behind its name
 * is what torch calls it.
 * @param {TreeRow} row
 */
function siteCell(row) {
  const title = nameTitle(row);
  const [kind, mark] = KINDS.find(([k]) => k === row.site) ?? ["", ""];
  const behind = [row.torch_name, row.source, row.type].filter(Boolean).join(" · ");
  return html("span", { class: "qx-tree-first qx-tree-wide", title }, [
    indent(row),
    span(`qx-tree-mark qx-tree-${kind}`, mark),
    span("qx-tree-name", row.name, title),
    ...[...quantBadges(row), ...stateBadges(row)].map(badgeElement),
    span("qx-tree-torch", behind, row.title),
  ]);
}

/**
 * In the margin: what a check found, else that something changed, which the border says too.
 * @param {TreeRow} row
 * @param {Finding} [finding]
 */
function margin(row, finding) {
  if (!finding) return span("qx-tree-delta", row.changed ? "Δ" : "");
  const look = `qx-tree-finding-${finding.inside ? "inside" : finding.severity}`;
  return span(`qx-tree-delta qx-tree-finding ${look}`, finding.mark, finding.words);
}

/** @param {TreeRow} row */
function indent(row) {
  const element = span("qx-tree-indent");
  element.style.setProperty("--qx-depth", String(row.depth));
  return element;
}

/**
 * Writes `row` into its element: the columns name, type, fake quants and state, whose widths the
 * tree around it has (see columns.js).
 * @param {HTMLElement} element
 * @param {TreeRow} row
 * @param {Finding} [finding]
 */
export function fillRow(element, row, finding) {
  element.replaceChildren(
    margin(row, finding),
    ...(row.kind === "site" ? [siteCell(row)] : moduleCells(row)),
  );
  element.className = "qx-tree-row";
  element.classList.toggle("qx-is-changed", row.changed);
  element.classList.toggle("qx-is-gone", row.what.includes("gone"));
  element.classList.toggle("qx-is-site", row.kind === "site");
  element.classList.toggle("qx-is-quiet", row.quiet === true);
  element.setAttribute("aria-label", describe(row, finding));
  element.setAttribute("aria-level", String(row.depth + 1));
}
