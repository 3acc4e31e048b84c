// The picture as SVG elements.

import { svg } from "../common/dom.js";
import { MAX_ITEM_MARKS } from "./budget.js";
import { countPlaces, HEADER, siteTotal, subText } from "./geometry.js";
import {
  drawChevron,
  drawCounts,
  drawDelta,
  drawFinding,
  drawInt8,
  drawPass,
  drawSite,
  drawSites,
  drawTwice,
  pointAlong,
  svgText,
} from "./marks.js";
import { paintOverlay } from "./overlay.js";
import { itemOf, titleOf } from "./scene.js";

/**
 * @typedef {import("./scene.js").Index} Index
 * @typedef {import("./scene.js").Item} Item
 * @typedef {import("./layered.js").Point} Point
 * @typedef {import("./geometry.js").Picture} Picture
 * @typedef {import("./geometry.js").PlacedClosed} PlacedClosed
 * @typedef {import("./geometry.js").PlacedOpen} PlacedOpen
 * @typedef {import("./geometry.js").DrawnEdge} DrawnEdge
 */

/**
 * What is in the page: elements by item id, those of the edges, and the dots that stand for
 * Identities, by their ids.
 * @typedef {object} Drawn
 * @property {Map<string, SVGGElement>} elements
 * @property {{ element: SVGGElement, edge: DrawnEdge }[]} edgeElements
 * @property {Map<string, { element: SVGElement, at: Point }>} passes
 */

/**
 * An item in words.
 * @param {Item} item
 */
export function itemLabel(item) {
  const parts = [titleOf(item), subText(item)];
  if (item.precision === "int8") parts.push("int8");
  if (item.sites && siteTotal(item)) {
    const { weight, input, output } = item.sites;
    parts.push(`${weight} weight, ${input} input, ${output} output fake quants inside`);
  } else if (!item.sites && item.marks.length) {
    parts.push(`${item.marks.length} fake quant${item.marks.length === 1 ? "" : "s"}`);
  }
  if (item.twice) parts.push(`${item.twice} fake-quantized twice inside`);
  if (item.finding) parts.push(item.finding.words);
  if (item.changed) parts.push("changed in this step");
  else if (item.inside) parts.push("something inside changed in this step");
  return parts.filter(Boolean).join(", ");
}

/**
 * Attributes of an item's element.
 * @param {Item} item
 * @param {{ x: number, y: number }} box
 * @param {string} prefix
 * @param {string[]} names classes
 */
const itemAttributes = (item, box, prefix, names) => ({
  class: names.join(" "),
  transform: `translate(${box.x} ${box.y})`,
  id: `${prefix}${item.id}`,
  "data-item": item.id,
  "data-sel": item.sel,
  role: "button",
  "aria-label": itemLabel(item),
});

/** Whether it is an input or output of the model. @param {Item} item */
const isPort = (item) => item.op === "placeholder" || item.op === "output";

/**
 * Classes of a node or a closed group.
 * @param {Item} item
 */
function boxNames(item) {
  const names = ["qxg-item", item.children ? "qxg-closed" : "qxg-node"];
  if (item.repeat) names.push("qxg-fold");
  if (item.precision && item.precision !== "float") names.push(`qxg-is-${item.precision}`);
  if (isPort(item)) names.push("qxg-io");
  if (item.changed || item.inside) names.push("qxg-changed");
  return names;
}

/**
 * A node or a closed group.
 * @param {Index} index
 * @param {PlacedClosed} box
 * @param {string} prefix
 */
function drawBox(index, box, prefix) {
  const item = itemOf(index, box.id);
  const isGroup = Boolean(item.children);
  const isInt8 = item.precision === "int8";
  const { bx, by, bw, bh } = box;
  const round = isPort(item) ? bh / 2 : 6;
  /**
   * @param {number} grow
   * @param {string} name
   * @param {number} [shift]
   */
  const rect = (grow, name, shift = 0) =>
    svg("rect", {
      x: bx - grow + shift,
      y: by - grow + shift,
      width: bw + 2 * grow,
      height: bh + 2 * grow,
      rx: Math.max(round + grow, 1),
      class: name,
    });
  const marked = item.changed || item.inside;
  const mid = bx + bw / 2;
  const cx = isGroup ? mid + 8 : isInt8 ? mid - 16 : mid;
  const attributes = itemAttributes(item, box, prefix, boxNames(item));
  const g = svg("g", { ...attributes, "aria-expanded": isGroup ? "false" : null }, [
    item.repeat !== undefined && rect(0, "qxg-behind", 8),
    isGroup && rect(0, "qxg-behind", 4),
    rect(3.5, "qxg-ring"),
    rect(0, "qxg-frame"),
    isInt8 && rect(-3, "qxg-inner"),
    svgText(cx, by + (box.sub ? 18 : 19), "qxg-label", box.label),
    box.sub && svgText(mid, by + 33, "qxg-sub", box.sub),
    isInt8 && drawInt8(bx + bw - 25, by + 14),
    isGroup && drawChevron(bx + 16, by + 14, false),
  ]);
  if (box.chips) {
    if (item.sites) g.append(...drawCounts(countPlaces(item), bx, by + bh - 12));
    else g.append(...drawSites(index, box.inner, bx + 18, by + bh - 13));
  }
  g.append(...drawAround(index, box));
  g.append(...drawSigns(item, Boolean(marked), bx + bw - 1, by + 1, by + bh - 1));
  return g;
}

/**
 * What changed and what a check found, on the right border of a box.
 * @param {Item} item
 * @param {boolean} changed
 * @param {number} x
 * @param {number} top
 * @param {number} bottom
 */
function drawSigns(item, changed, x, top, bottom) {
  const signs = [];
  if (changed) signs.push(drawDelta(x, top));
  if (item.finding) signs.push(drawFinding(item.finding, x, bottom));
  return signs;
}

/**
 * Fake quants of weights and of a layer's own input on the border, those of activations on the outgoing edge.
 * @param {Index} index
 * @param {PlacedClosed} box
 */
function drawAround(index, box) {
  const { bx, by, bw, bh, roles, w, h, lr } = box;
  /** @type {SVGElement[]} */
  const parts = [];
  const beside = roles.side.slice(0, 2);
  for (const [i, path] of beside.entries()) {
    const off = (i - (beside.length - 1) / 2) * 20;
    // Along the border: towards the middle the second would hide the text.
    const [x, y] = lr ? [bx + 16 + i * 20, by] : [bx, by + bh / 2 + off];
    parts.push(drawSite(index, path, x, y));
  }
  if (!roles.tail.length) return parts;
  const stem = lr ? `M${bx + bw} ${by + bh / 2} H${w}` : `M${bx + bw / 2} ${by + bh} V${h}`;
  parts.push(svg("path", { d: stem, class: "qxg-stem" }));
  const shown = roles.tail.slice(0, MAX_ITEM_MARKS - 1);
  for (const [i, path] of shown.entries()) {
    const off = (i - (shown.length - 1) / 2) * 20;
    const [x, y] = lr ? [bx + bw + 15, by + bh / 2 + off] : [bx + bw / 2 + off, by + bh + 15];
    parts.push(drawSite(index, path, x, y));
  }
  return parts;
}

/**
 * Frame and title of an open group.
 * @param {Index} index
 * @param {PlacedOpen} box
 * @param {boolean} isRoot
 * @param {string} prefix
 */
function drawOpen(index, box, isRoot, prefix) {
  const item = itemOf(index, box.id);
  const names = ["qxg-item", "qxg-open"];
  if (item.changed) names.push("qxg-changed");
  /**
   * @param {number} grow
   * @param {string} name
   */
  const frame = (grow, name) =>
    svg("rect", {
      x: -grow,
      y: -grow,
      width: box.w + 2 * grow,
      height: box.h + 2 * grow,
      rx: 8 + grow,
      class: name,
    });
  const title = `M0 ${HEADER} V8 Q0 0 8 0 H${box.w - 8} Q${box.w} 0 ${box.w} 8 V${HEADER} Z`;
  const attributes = itemAttributes(item, box, prefix, names);
  const left = isRoot ? 12 : 30;
  const g = svg("g", { ...attributes, "aria-expanded": "true" }, [
    frame(3.5, "qxg-ring"),
    frame(0, "qxg-frame"),
    svg("path", { d: title, class: "qxg-title" }),
    frame(0, "qxg-outline"),
    !isRoot && drawChevron(16, HEADER / 2, true),
    svgText(left, 19.5, "qxg-label qxg-left", box.label),
    box.sub && svgText(left + 8 + box.labelWidth, 19.5, "qxg-sub qxg-left", box.sub),
  ]);
  const paths = item.marks.map((mark) => mark.site);
  const room = Math.min(paths.length, MAX_ITEM_MARKS) * 22;
  g.append(...drawSites(index, paths, box.w - room, HEADER / 2));
  g.append(...drawSigns(item, item.changed, box.w - 1, 1, HEADER));
  return g;
}

/**
 * The `d` of an edge: straight within a layer, one smooth bend between layers.
 * @param {Point[]} points
 * @param {boolean} lr
 */
export function edgePath(points, lr) {
  let d = `M${points[0][0].toFixed(1)} ${points[0][1].toFixed(1)}`;
  for (let i = 1; i < points.length; i += 1) {
    const [x0, y0] = points[i - 1];
    const [x, y] = points[i];
    const end = `${x.toFixed(1)} ${y.toFixed(1)}`;
    if (Math.abs(lr ? y - y0 : x - x0) < 0.6) d += ` L${end}`;
    else if (lr) d += ` C${(x0 + x) / 2} ${y0} ${(x0 + x) / 2} ${y} ${end}`;
    else d += ` C${x0} ${(y0 + y) / 2} ${x} ${(y0 + y) / 2} ${end}`;
  }
  return d;
}

/**
 * The `d` of an edge from an item to itself.
 * @param {import("./geometry.js").PlacedBox | undefined} box
 */
function loopPath(box) {
  if (!box) return "";
  const right = box.open ? box.w : box.bx + box.bw;
  const [x, y] = [box.x + right, box.y + box.h / 2];
  return `M${x} ${y - 8} C${x + 26} ${y - 18} ${x + 26} ${y + 18} ${x + 3} ${y + 8}`;
}

/**
 * @param {Index} index
 * @param {DrawnEdge} edge
 * @param {Picture} picture
 * @param {string} prefix
 */
function drawEdge(index, edge, picture, prefix) {
  const { points, list, many, back, arrow, from } = edge;
  const d = points ? edgePath(points, picture.lr) : loopPath(picture.boxes.get(from ?? ""));
  const twice = list.find((i) => index.redundant.has(i));
  const names = ["qxg-edge"];
  if (back) names.push("qxg-back");
  if (many) names.push("qxg-many");
  if (twice !== undefined) names.push("qxg-twice");
  return svg("g", { class: names.join(" "), "data-edge": twice ?? list[0] }, [
    svg("path", { d, class: "qxg-wide" }),
    svg("path", { d, class: "qxg-line", "marker-end": arrow && `url(#${prefix}arrow)` }),
    twice !== undefined && points !== null && drawTwice(points),
  ]);
}

/**
 * Puts a dot on an edge that stands for Identities too.
 * @param {Index} index
 * @param {DrawnEdge} edge
 * @param {SVGGElement} element of the edge
 * @param {Drawn} drawn
 */
function addPass(index, { points, list, via }, element, drawn) {
  if (!points || !via.length) return;
  // Beside the sign "2×" where there is one.
  const at = pointAlong(points, list.some((i) => index.redundant.has(i)) ? 0.08 : 0.5);
  const dot = drawPass(
    via.map((id) => itemOf(index, id)),
    at,
  );
  element.append(dot);
  for (const id of via) drawn.passes.set(id, { element: dot, at });
}

/**
 * Replaces what `world` shows.
 * @param {Index} index
 * @param {Picture} picture
 * @param {SVGGElement} world
 * @param {string} root id of the outermost group
 * @param {string} prefix of element ids
 * @returns {Drawn}
 */
export function drawPicture(index, picture, world, root, prefix) {
  /** @type {Drawn} */
  const drawn = { elements: new Map(), edgeElements: [], passes: new Map() };
  const boxes = [...picture.boxes.values()];
  for (const box of boxes) {
    if (box.open) drawn.elements.set(box.id, drawOpen(index, box, box.id === root, prefix));
  }
  for (const edge of picture.edges) {
    const element = drawEdge(index, edge, picture, prefix);
    drawn.edgeElements.push({ element, edge });
    addPass(index, edge, element, drawn);
  }
  const frames = [...drawn.elements.values()];
  const lines = drawn.edgeElements.map(({ element }) => element);
  const closed = [];
  for (const box of boxes) {
    if (box.open) continue;
    const element = drawBox(index, box, prefix);
    drawn.elements.set(box.id, element);
    closed.push(element);
  }
  world.replaceChildren(...frames, ...lines, ...closed);
  paintOverlay(world, drawn, index);
  return drawn;
}
