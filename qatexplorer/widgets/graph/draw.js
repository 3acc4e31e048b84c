// The picture as SVG elements. Text goes in as text nodes, so no name can become markup.

const SVG_NS = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, children = []) {
  const node = document.createElementNS(SVG_NS, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter(Boolean));
  return node;
}

function svgText(x, y, className, text, extra = {}) {
  const node = svg("text", { x, y, class: className, ...extra });
  node.textContent = text;
  return node;
}

/** A fake quant: square, triangle or circle with its letter, 16 px around (x, y). */
function drawMark(entry, x, y, attributes = {}) {
  const shape = {
    weight: () => svg("rect", { x: -8, y: -8, width: 16, height: 16, rx: 2 }),
    input: () => svg("path", { d: "M0 -10 L10.5 8.5 L-10.5 8.5 Z" }),
    output: () => svg("circle", { r: 8.5 }),
  }[entry.kind]();
  shape.setAttribute("class", "qxg-shape");
  const names = ["qxg-mark", `qxg-${entry.kind}`];
  if (entry.changed) names.push("qxg-changed");
  if (entry.off) names.push("qxg-off");
  return svg("g", { class: names.join(" "), transform: `translate(${x} ${y})`, ...attributes }, [
    shape,
    svgText(0, entry.kind === "input" ? 6 : 3.6, "qxg-letter", entry.letter),
    entry.off && svg("path", { d: "M-9 9 L9 -9", class: "qxg-slash" }),
  ]);
}

function drawSite(index, path, x, y) {
  const entry = index.sites[path];
  const label = entry.tip.join(", ") + (entry.changed ? ", changed in this step" : "");
  return drawMark(entry, x, y, {
    "data-site": path, "data-sel": entry.sel, role: "img", "aria-label": label,
  });
}

/** Some marks in a row, and how many more there are. */
function drawRow(index, sites, x, y) {
  const shown = sites.length > MAX_ITEM_MARKS ? sites.slice(0, MAX_ITEM_MARKS - 1) : sites;
  const parts = shown.map((path, i) => drawSite(index, path, x + i * 22, y));
  if (sites.length > shown.length) {
    const more = `+${sites.length - shown.length}`;
    parts.push(svgText(x + shown.length * 22 - 6, y + 4, "qxg-sub", more));
  }
  return parts;
}

/** Counts by kind, for a closed group. */
function drawCounts(item, x, y) {
  const parts = [];
  let at = x;
  for (const [kind, letter] of [["weight", "W"], ["input", "I"], ["output", "A"]]) {
    const count = item.sites[kind];
    if (!count) continue;
    const mark = drawMark({ kind, letter }, at, y);
    mark.setAttribute("transform", `translate(${at} ${y}) scale(0.72)`);
    const text = svgText(at + 10, y + 3.8, "qxg-count", `${count}`);
    parts.push(mark, text);
    at += 21 + 6.5 * `${count}`.length;
  }
  return parts;
}

const deltaBadge = (x, y) =>
  svg("g", { class: "qxg-delta", transform: `translate(${x} ${y})` }, [
    svg("circle", { r: 8 }),
    svgText(0, 3.8, "", "Δ"),
  ]);

function chevron(x, y, open) {
  const d = open ? "M-4 -2.5 L0 2.5 L4 -2.5" : "M-2.5 -4 L2.5 0 L-2.5 4";
  return svg("g", { class: "qxg-chevron", transform: `translate(${x} ${y})`, "data-toggle": "1" }, [
    svg("rect", { x: -10, y: -10, width: 20, height: 20, rx: 4, class: "qxg-hit" }),
    svg("path", { d }),
  ]);
}

function itemLabel(item) {
  const parts = [item.path || item.label, item.children ? opsText(item) : item.sub];
  if (item.precision === "int8") parts.push("int8");
  if (item.sites && siteTotal(item)) {
    const { weight, input, output } = item.sites;
    parts.push(`${weight} weight, ${input} input, ${output} output fake quants inside`);
  } else if (!item.sites && item.marks.length) {
    parts.push(`${item.marks.length} fake quant${item.marks.length === 1 ? "" : "s"}`);
  }
  if (item.changed) parts.push("changed in this step");
  else if (item.inside) parts.push("something inside changed in this step");
  return parts.filter(Boolean).join(", ");
}

/** A node or a closed group. */
function drawBox(index, box, prefix) {
  const item = index.items.get(box.id);
  const isGroup = Boolean(item.children);
  const { bx, by, bw, bh } = box;
  const round = item.op === "placeholder" || item.op === "output" ? bh / 2 : 6;
  const rect = (grow, name, shift = 0) =>
    svg("rect", {
      x: bx - grow + shift, y: by - grow + shift, width: bw + 2 * grow, height: bh + 2 * grow,
      rx: Math.max(round + grow, 1), class: name,
    });
  const marked = item.changed || item.inside;
  const names = ["qxg-item", isGroup ? "qxg-closed" : "qxg-node"];
  if (item.precision && item.precision !== "float") names.push(`qxg-is-${item.precision}`);
  if (item.op === "placeholder" || item.op === "output") names.push("qxg-io");
  if (marked) names.push("qxg-changed");
  const mid = bx + bw / 2;
  const cx = isGroup ? mid + 8 : item.precision === "int8" ? mid - 16 : mid;
  const labelY = by + (box.sub ? 18 : 19);
  const g = svg(
    "g",
    {
      class: names.join(" "), transform: `translate(${box.x} ${box.y})`, id: `${prefix}${item.id}`,
      "data-item": item.id, "data-sel": item.sel, role: "button", "aria-label": itemLabel(item),
      "aria-expanded": isGroup ? "false" : null,
    },
    [
      isGroup && rect(0, "qxg-behind", 4),
      rect(3.5, "qxg-ring"),
      rect(0, "qxg-frame"),
      item.precision === "int8" && rect(-3, "qxg-inner"),
      svgText(cx, labelY, "qxg-label", box.label),
      box.sub && svgText(mid, by + 33, "qxg-sub", box.sub),
      item.precision === "int8" && drawTag(bx + bw - 25, by + 14),
      isGroup && chevron(bx + 16, by + 14, false),
    ],
  );
  if (isGroup && box.chips) g.append(...drawCounts(item, bx + 18, by + bh - 12));
  if (!isGroup && box.chips) g.append(...drawRow(index, box.inner, bx + 18, by + bh - 13));
  g.append(...drawAround(index, box));
  if (marked) g.append(deltaBadge(bx + bw - 1, by + 1));
  return g;
}

const drawTag = (x, y) =>
  svg("g", { class: "qxg-tag", transform: `translate(${x} ${y})` }, [
    svg("rect", { x: -15, y: -7.5, width: 30, height: 15, rx: 4 }),
    svgText(0, 3.6, "", "int8"),
  ]);

/** Weight marks on the border, activation marks on the outgoing edge. */
function drawAround(index, box) {
  const { bx, by, bw, bh, roles, w, h, lr } = box;
  const parts = [];
  if (roles.side.length) {
    const [x, y] = lr ? [bx + 16, by] : [bx, by + bh / 2];
    parts.push(...roles.side.slice(0, 2).map((site, i) => drawSite(index, site, x + i * 20, y)));
  }
  if (roles.tail.length) {
    const shown = roles.tail.slice(0, MAX_ITEM_MARKS - 1);
    const step = 20;
    shown.forEach((site, i) => {
      const off = (i - (shown.length - 1) / 2) * step;
      const at = lr ? [bx + bw + 15, by + bh / 2 + off] : [bx + bw / 2 + off, by + bh + 15];
      const stem =
        lr
          ? `M${bx + bw} ${by + bh / 2} H${w}`
          : `M${bx + bw / 2} ${by + bh} V${h}`;
      if (i === 0) parts.push(svg("path", { d: stem, class: "qxg-stem" }));
      parts.push(drawSite(index, site, ...at));
    });
  }
  return parts;
}

/** Frame and title of an open group. */
function drawOpen(index, box, isRoot, prefix) {
  const item = index.items.get(box.id);
  const marked = item.changed;
  const names = ["qxg-item", "qxg-open"];
  if (marked) names.push("qxg-changed");
  const frame = (grow, name) =>
    svg("rect", {
      x: -grow, y: -grow, width: box.w + 2 * grow, height: box.h + 2 * grow, rx: 8 + grow, class: name,
    });
  const labelWidth = textWidth(box.label, FONT.label, box.family);
  const g = svg(
    "g",
    {
      class: names.join(" "), transform: `translate(${box.x} ${box.y})`, id: `${prefix}${item.id}`,
      "data-item": item.id, "data-sel": item.sel, role: "button", "aria-label": itemLabel(item),
      "aria-expanded": "true",
    },
    [
      frame(3.5, "qxg-ring"),
      frame(0, "qxg-frame"),
      svg("path", {
        d: `M0 ${HEADER} V8 Q0 0 8 0 H${box.w - 8} Q${box.w} 0 ${box.w} 8 V${HEADER} Z`,
        class: "qxg-title",
      }),
      frame(0, "qxg-outline"),
      !isRoot && chevron(16, HEADER / 2, true),
      svgText(isRoot ? 12 : 30, 19.5, "qxg-label qxg-left", box.label),
      box.sub && svgText((isRoot ? 20 : 38) + labelWidth, 19.5, "qxg-sub qxg-left", box.sub),
    ],
  );
  const sites = item.marks.map((m) => m.site);
  const room = Math.min(sites.length, MAX_ITEM_MARKS) * 22;
  g.append(...drawRow(index, sites, box.w - room, HEADER / 2));
  if (marked) g.append(deltaBadge(box.w - 1, 1));
  return g;
}

/** Straight within a layer, one smooth bend between layers. */
function edgePath(points, lr) {
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

function drawEdge(index, edge, picture, prefix) {
  let d;
  if (edge.points) {
    d = edgePath(edge.points, picture.lr);
  } else {
    const box = picture.boxes.get(edge.from);
    const [x, y] = [box.x + (box.bx || 0) + (box.bw || box.w), box.y + box.h / 2];
    d = `M${x} ${y - 8} C${x + 26} ${y - 18} ${x + 26} ${y + 18} ${x + 3} ${y + 8}`;
  }
  const shape = svg("path", {
    d, class: "qxg-line", "marker-end": edge.arrow ? `url(#${prefix}arrow)` : null,
  });
  const names = ["qxg-edge", edge.back ? "qxg-back" : "", edge.list.length > 1 ? "qxg-many" : ""];
  const twice = edge.list.find((i) => index.redundant.has(i));
  if (twice !== undefined) names.push("qxg-twice");
  return svg(
    "g",
    { class: names.filter(Boolean).join(" "), "data-edge": twice ?? edge.list[0] },
    [
      svg("path", { d, class: "qxg-wide" }),
      shape,
      twice !== undefined && edge.points && drawTwice(edge.points),
    ],
  );
}

/** "2×" in the middle of an edge whose tensor is fake-quantized twice. */
function drawTwice(points) {
  const [[x0, y0], [x1, y1]] = points.length > 2
    ? [points[Math.floor((points.length - 1) / 2)], points[Math.ceil((points.length - 1) / 2)]]
    : [points[0], points[points.length - 1]];
  const at = `translate(${(x0 + x1) / 2} ${(y0 + y1) / 2})`;
  return svg(
    "g",
    { class: "qxg-twice-mark", transform: at, role: "img", "aria-label": "fake-quantized twice" },
    [svg("rect", { x: -12, y: -8, width: 24, height: 16, rx: 8 }), svgText(0, 4, "", "2×")],
  );
}

/** Replaces what `world` shows. Returns the drawn elements by item id, and those of the edges. */
function drawPicture(index, picture, world, root, prefix, family) {
  const layer = document.createDocumentFragment();
  const elements = new Map();
  const edgeElements = [];
  const open = [...picture.boxes.values()].filter((b) => b.open);
  const closed = [...picture.boxes.values()].filter((b) => !b.open);
  for (const box of open) {
    box.family = family;
    const g = drawOpen(index, box, box.id === root, prefix);
    elements.set(box.id, g);
    layer.append(g);
  }
  for (const edge of picture.edges) {
    const g = drawEdge(index, edge, picture, prefix);
    edgeElements.push({ element: g, edge });
    layer.append(g);
  }
  for (const box of closed) {
    const g = drawBox(index, box, prefix);
    elements.set(box.id, g);
    layer.append(g);
  }
  world.replaceChildren(layer);
  return { elements, edgeElements };
}
