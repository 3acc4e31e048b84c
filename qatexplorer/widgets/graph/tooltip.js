// The tooltip: built of text nodes, shown beside the pointer or the focused item.

import { html } from "../common/dom.js";
import { subText } from "./geometry.js";
import { overlayLines, siteLines } from "./overlay.js";
import { itemOf, titleOf } from "./scene.js";

/** @typedef {{ title: string, lines: string[] }} Tip */

export class Tooltip {
  /** @param {HTMLElement} stage */
  constructor(stage) {
    this.stage = stage;
    this.box = html("div", { class: "qxg-tip", role: "tooltip", hidden: true });
    stage.append(this.box);
  }

  /**
   * @param {Tip} tip
   * @param {number} x
   * @param {number} y
   */
  show({ title, lines }, x, y) {
    const rows = lines.filter(Boolean).map((text) => html("div", { text }));
    this.box.replaceChildren(html("b", { text: title }), ...rows);
    this.box.hidden = false;
    const { clientWidth: w, clientHeight: h } = this.stage;
    const { offsetWidth: bw, offsetHeight: bh } = this.box;
    this.box.style.left = `${Math.max(4, x + 14 + bw > w ? x - bw - 10 : x + 14)}px`;
    this.box.style.top = `${Math.max(4, Math.min(y + 12, h - bh - 4))}px`;
  }

  hide() {
    this.box.hidden = true;
  }
}

/**
 * What to say of whatever the pointer or the cursor is on; null for nothing.
 * @param {import("./scene.js").Index} index
 * @param {Element} element
 * @returns {Tip | null}
 */
export function tipOf(index, element) {
  /** @type {HTMLElement | SVGElement | null} */
  const at = element.closest("[data-site], [data-pass], [data-edge], [data-item]");
  if (!at) return null;
  const { site, pass, edge, item } = at.dataset;
  if (pass !== undefined) return passTip(index, pass.split("\n"));
  if (site !== undefined) {
    const { tip, changed } = index.sites[site];
    return {
      title: site,
      lines: [...siteLines(index, site), ...tip, changed ? "changed in this step" : ""],
    };
  }
  if (edge !== undefined) return edgeTip(index, Number(edge));
  return itemTip(index, item ?? "");
}

/**
 * @param {import("./scene.js").Index} index
 * @param {number} edge
 */
function edgeTip(index, edge) {
  const isBack = index.edges[edge][2];
  const link = index.links.find(({ list }) => list.includes(edge));
  const [s, t] = link ? [link.from, link.to] : index.edges[edge];
  const [source, target] = [index.nodes[s], index.nodes[t]];
  const via = (link?.via ?? []).map((id) => titleOf(itemOf(index, id)));
  const passes = via.length ? `through ${via.join(", ")} (Identity)` : "";
  const isTwice = index.redundant.has(edge);
  const twice = isTwice ? "2×: fake-quantized twice on this way, see the ledger" : "";
  const back = isBack ? "closes a cycle" : "";
  return {
    title: `${source.path || source.label} → ${target.path || target.label}`,
    lines: [source.shape || "shape unknown", passes, twice, back],
  };
}

/**
 * @param {import("./scene.js").Index} index
 * @param {string[]} ids of Identities
 */
function passTip(index, ids) {
  const items = ids.map((id) => itemOf(index, id));
  const changed = items.filter((item) => item.changed).map((item) => item.label);
  return {
    title: items.map(titleOf).join(", "),
    lines: [
      `${items.length > 1 ? "Identities that pass" : "Identity that passes"} the tensor on`,
      changed.length ? `changed in this step: ${changed.join(", ")}` : "",
    ],
  };
}

/**
 * @param {import("./scene.js").Index} index
 * @param {string} id
 */
function itemTip(index, id) {
  const item = itemOf(index, id);
  const lines = [subText(item), ...overlayLines(index, id), ...item.tip];
  if (item.finding) lines.push(`${item.finding.mark} ${item.finding.words}, see the checks`);
  if (item.twice) lines.push(`${item.twice} inside fake-quantized twice, see the ledger`);
  for (const mark of item.marks) {
    const { tip, letter } = index.sites[mark.site];
    const [what, ...rest] = tip;
    const kind = what.split(" ").slice(0, 3).join(" ");
    lines.push(`${letter}  ${kind}: ${rest.slice(0, 3).join("; ")}`);
  }
  if (item.changed) lines.push("changed in this step");
  else if (item.inside) lines.push("something inside changed in this step");
  return { title: titleOf(item), lines };
}
