// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   common/file.js
//   graph/budget.js
//   graph/camera.js
//   graph/draw.js
//   graph/export.js
//   graph/geometry.js
//   graph/graph.js
//   graph/keys.js
//   graph/layered.js
//   graph/layout.js
//   graph/marks.js
//   graph/minimap.js
//   graph/overlay.js
//   graph/overlay_panel.js
//   graph/pointer.js
//   graph/scale.js
//   graph/scene.js
//   graph/search.js
//   graph/toolbar.js
//   graph/tooltip.js
//   graph/vendor/dagre/dagre.min.js
//   graph/view.js
// sha256 of these: e452dfb45cc86fd24bba23b47a3ad0fdec7053fa9884df0e105ee6d01bd8e0a8

// common/dom.js
var SVG_NS = "http://www.w3.org/2000/svg";
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
function svg(tag, attributes = {}, children = []) {
  return complete(document.createElementNS(SVG_NS, tag), attributes, children);
}
function closest(target, selector) {
  return target instanceof Element ? target.closest(selector) : null;
}
function listen(model, handlers) {
  const pairs = Object.entries(handlers);
  for (const [event, handler] of pairs) model.on(event, handler);
  return () => {
    for (const [event, handler] of pairs) model.off(event, handler);
  };
}
function save(model, changes) {
  for (const name of Object.keys(changes)) {
    model.set(
      name,
      /** @type {Traits[string]} */
      changes[name]
    );
  }
  model.save_changes();
}
function pageIsDark() {
  const { body } = document;
  if (body.dataset.jpThemeLight !== void 0) return body.dataset.jpThemeLight === "false";
  if (document.querySelector(".jp-theme-dark")) return true;
  const colour = getComputedStyle(body).getPropertyValue("--jp-layout-color1").trim();
  const hex = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(colour)?.[1];
  if (hex) {
    const full = hex.length === 3 ? [...hex].map((c) => c + c).join("") : hex;
    const [r, g, b] = [0, 2, 4].map((i) => Number.parseInt(full.slice(i, i + 2), 16));
    return 0.3 * r + 0.59 * g + 0.11 * b < 110;
  }
  if (colour === "white") return false;
  return matchMedia("(prefers-color-scheme: dark)").matches;
}
function watchPageTheme(onChange) {
  const watcher = new MutationObserver(onChange);
  const names = ["class", "data-jp-theme-light", "data-jp-theme-name"];
  watcher.observe(document.body, { attributes: true, attributeFilter: names });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", onChange);
  return () => {
    watcher.disconnect();
    system.removeEventListener("change", onChange);
  };
}
function isShortcut(event) {
  return event.ctrlKey || event.metaKey || event.altKey;
}
function unpacked(value) {
  return ArrayBuffer.isView(value) ? JSON.parse(new TextDecoder().decode(value)) : value;
}

// common/file.js
function download(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  html("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1e3);
}

// graph/export.js
var EXPORTED = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "opacity",
  "font-size",
  "font-family",
  "font-weight",
  "text-anchor",
  "display"
];
function exportSvg(view) {
  if (!view.picture) return "";
  const { w, h } = view.picture;
  const copy = (
    /** @type {SVGSVGElement} */
    view.svg.cloneNode(true)
  );
  const from = view.svg.querySelectorAll("*");
  for (const [i, node] of [...copy.querySelectorAll("*")].entries()) {
    const style = getComputedStyle(from[i]);
    if (node instanceof SVGElement) {
      for (const name of EXPORTED) node.style.setProperty(name, style.getPropertyValue(name));
    }
    node.classList.remove("qxg-cursor");
  }
  for (const node of copy.querySelectorAll(".qxg-hit, .qxg-wide")) node.remove();
  copy.querySelector(".qxg-world")?.removeAttribute("transform");
  const paper = getComputedStyle(view.stage).backgroundColor;
  const box = { x: -20, y: -20, width: w + 40, height: h + 40 };
  copy.prepend(svg("rect", { ...box, fill: paper }));
  copy.setAttribute("xmlns", SVG_NS);
  copy.setAttribute("viewBox", `${box.x} ${box.y} ${box.width} ${box.height}`);
  copy.setAttribute("width", String(box.width));
  copy.setAttribute("height", String(box.height));
  for (const name of ["class", "tabindex", "aria-activedescendant", "style"]) {
    copy.removeAttribute(name);
  }
  return new XMLSerializer().serializeToString(copy);
}

// graph/scene.js
var ROOT = "g:";
function push(map, key, value) {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}
function indexScene(scene, identities = false) {
  const { nodes = [], edges = [], sites = {} } = scene;
  const hidden = hiddenItems(scene, identities);
  const all = scene.groups ?? [];
  const groups = hidden.size ? all.map((group) => withoutHidden(group, hidden)) : all;
  const items = /* @__PURE__ */ new Map();
  for (const item of [...groups, ...nodes]) items.set(item.id, item);
  const links = linksOf(nodes, edges, hidden);
  return {
    items,
    groups,
    nodes,
    edges,
    sites,
    links,
    /** Ids of the Identities that edges stand for, and of groups that hold nothing else. */
    hidden,
    /** How many Identities the scene has that can be hidden. */
    passes: nodes.filter((node) => node.passes).length,
    redundant: new Set(scene.redundant ?? []),
    inner: innerLinks(groups, nodes, links),
    /** Boxes, measured once. @type {Map<string, import("./geometry.js").ClosedBox>} */
    measured: /* @__PURE__ */ new Map()
  };
}
function hiddenItems({ groups = [], nodes = [] }, identities) {
  const hidden = /* @__PURE__ */ new Set();
  if (identities) return hidden;
  for (const { id, passes } of nodes) if (passes) hidden.add(id);
  if (!hidden.size) return hidden;
  for (const { id, parent, children } of [...groups].reverse()) {
    if (parent !== null && children.every((child) => hidden.has(child))) hidden.add(id);
  }
  return hidden;
}
function withoutHidden(group, hidden) {
  if (hidden.has(group.id) || !group.children.some((child) => hidden.has(child))) return group;
  return { ...group, children: group.children.filter((child) => !hidden.has(child)) };
}
function linksOf(nodes, edges, hidden) {
  if (!hidden.size) return edges.map(([from, to], i) => ({ from, to, list: [i], via: [] }));
  const feeds = /* @__PURE__ */ new Map();
  for (const [i, [, target]] of edges.entries()) {
    if (hidden.has(nodes[target].id)) feeds.set(target, i);
  }
  const links = [];
  for (const [i, [source, to]] of edges.entries()) {
    if (feeds.has(to)) continue;
    const link = { from: source, to, list: [i], via: [] };
    for (let at = feeds.get(source); at !== void 0; at = feeds.get(link.from)) {
      link.via.unshift(nodes[link.from].id);
      link.list.unshift(at);
      link.from = edges[at][0];
    }
    links.push(link);
  }
  return links;
}
function innerLinks(groups, nodes, links) {
  const places = /* @__PURE__ */ new Map();
  for (const { id, parent } of [...groups, ...nodes]) {
    const depth = parent === null ? 0 : (places.get(parent)?.depth ?? 0) + 1;
    places.set(id, { parent: parent ?? "", depth });
  }
  const inner = /* @__PURE__ */ new Map();
  for (const { id } of groups) {
    inner.set(id, { edges: /* @__PURE__ */ new Map(), ins: /* @__PURE__ */ new Map(), outs: /* @__PURE__ */ new Map(), via: /* @__PURE__ */ new Map() });
  }
  const placeOf = (id) => places.get(id) ?? { parent: "", depth: 0 };
  const parts2 = /* @__PURE__ */ new Map();
  const add = (id, part, key, link) => {
    const { parent } = placeOf(id);
    push(
      /** @type {Inner} */
      inner.get(parent)[part],
      key,
      link
    );
    if (links[link].via.length) parts2.set(parent, [part, key]);
  };
  for (const [index, { from, to, via }] of links.entries()) {
    let a = nodes[from].id;
    let b = nodes[to].id;
    while (a !== b && placeOf(a).parent !== placeOf(b).parent) {
      if (placeOf(a).depth >= placeOf(b).depth) {
        add(a, "outs", a, index);
        a = placeOf(a).parent;
      } else {
        add(b, "ins", b, index);
        b = placeOf(b).parent;
      }
    }
    if (a !== b || from === to) add(a, "edges", `${a}
${b}`, index);
    for (const id of via) noteVia(inner, parts2, placeOf, id);
    if (via.length) parts2.clear();
  }
  return inner;
}
function noteVia(inner, parts2, placeOf, id) {
  for (let group = placeOf(id).parent; group; group = placeOf(group).parent) {
    const found = parts2.get(group);
    if (!found) continue;
    const { via } = (
      /** @type {Inner} */
      inner.get(group)
    );
    const key = found.join(" ");
    const known = via.get(key) ?? [];
    if (!known.includes(id)) via.set(key, [...known, id]);
    return;
  }
}
function itemOf(index, id) {
  const item = index.items.get(id);
  if (!item) throw new Error(`the scene has no ${id}`);
  return item;
}
function ancestorsOf(index, id) {
  const chain = [];
  let item = index.items.get(id);
  while (item && item.parent !== null) {
    chain.unshift(item.parent);
    item = index.items.get(item.parent);
  }
  return chain;
}
function itemsOfSelection(index, selection) {
  const cut = selection.indexOf(":");
  if (cut < 0) return [];
  const kind = selection.slice(0, cut);
  const rest = selection.slice(cut + 1);
  if (kind === "module") return itemsOfPath(index, rest);
  if (kind === "node") return index.items.has(`n:${rest}`) ? [`n:${rest}`] : [];
  if (kind === "site") {
    const all = [...index.nodes, ...index.groups];
    return all.filter((item) => item.marks.some((m) => m.site === rest)).map((item) => item.id);
  }
  if (kind === "edge") {
    const edge = edgeOfSelection(index, selection);
    return edge < 0 ? [] : [index.nodes[index.edges[edge][0]].id];
  }
  return [];
}
function itemsOfPath(index, path) {
  const find = (p) => [
    ...index.nodes.filter((n) => n.path === p),
    ...index.groups.filter((g) => g.path === p && !g.synthetic)
  ];
  let found = find(path);
  let at = path;
  while (!found.length && at.includes(".")) {
    at = at.slice(0, at.lastIndexOf("."));
    found = find(at);
  }
  return found.flatMap((item) => index.hidden.has(item.id) ? leavesOf(index, item.id) : item.id);
}
var leavesOf = (index, id) => itemOf(index, id).children?.flatMap((child) => leavesOf(index, child)) ?? [id];
function edgeOfSelection(index, selection) {
  return index.edges.findIndex((_, i) => edgeSelection(index, i) === selection);
}
function placeOfItem(index, id) {
  return [id, ...ancestorsOf(index, id).reverse()].find((at) => !index.hidden.has(at)) ?? ROOT;
}
var titleOf = (item) => !item.synthetic && item.path || item.label;
function edgeSelection(index, edge) {
  const [s, t] = index.edges[edge];
  return `edge:${index.nodes[s].id.slice(2)}:${index.nodes[t].id.slice(2)}`;
}
function searchItems(index, text, most = 12) {
  const query = text.trim().toLowerCase();
  if (!query) return { hits: [], total: 0 };
  const scored = [];
  const real = index.groups.filter((g) => !g.synthetic && g.parent !== null);
  for (const item of [...real, ...index.nodes]) {
    const { path, label, sub, op = "", id } = item;
    const hay = `${path} ${label} ${sub} ${op} ${id.slice(2)}`.toLowerCase();
    const at = hay.indexOf(query);
    if (at < 0) continue;
    const exact = path.toLowerCase() === query || label.toLowerCase() === query;
    const starts = at === 0 || /[\s._·]/.test(hay[at - 1]);
    scored.push([exact ? 0 : starts ? 1 : 2, item]);
  }
  scored.sort((a, b) => a[0] - b[0]);
  return { hits: scored.slice(0, most).map(([, item]) => item), total: scored.length };
}

// graph/keys.js
var DOWN = { ArrowDown: "next", ArrowUp: "previous", ArrowLeft: "before", ArrowRight: "after" };
var ACROSS = { ArrowRight: "next", ArrowLeft: "previous", ArrowUp: "before", ArrowDown: "after" };
var PANS = /* @__PURE__ */ new Set(["PageDown", "PageUp", "Home", "End"]);
function neighbours(index, picture) {
  const shown = (node) => [node, ...ancestorsOf(index, node).reverse()].find(
    (id) => picture.boxes.get(id)?.open === false
  );
  const links = { next: /* @__PURE__ */ new Map(), previous: /* @__PURE__ */ new Map() };
  const add = (map, from, to) => map.set(from, (map.get(from) ?? /* @__PURE__ */ new Set()).add(to));
  const at = index.nodes.map((node) => shown(node.id));
  for (const { from, to } of index.links) {
    const [a, b] = [at[from], at[to]];
    if (a === void 0 || b === void 0 || a === b) continue;
    add(links.next, a, b);
    add(links.previous, b, a);
  }
  return links;
}
var Keyboard = class {
  /** @param {import("./view.js").GraphView} view */
  constructor(view) {
    this.view = view;
    this.markAt = -1;
    this.known = null;
  }
  /** @param {Picture} picture */
  links(picture) {
    if (this.known?.picture !== picture) {
      this.known = { picture, links: neighbours(this.view.index, picture) };
    }
    return this.known.links;
  }
  /**
   * Moves the cursor: "next" and "previous" along edges, "before" and "after" in the layer.
   * @param {Way} way
   */
  step(way) {
    const { picture, cursor } = this.view;
    if (!picture) return;
    const closed = [...picture.boxes.values()].filter((box) => !box.open);
    if (!closed.length) return;
    const here = picture.boxes.get(cursor ?? "");
    const to = here === void 0 ? closed[0].id : way === "next" || way === "previous" ? this.along(picture, here, closed, way) : besides(picture, here, closed, way === "after" ? 1 : -1);
    if (to !== void 0) this.moveTo(to);
  }
  /**
   * The nearest item that an edge leads to; for an open group, what it begins or ends with.
   * @param {Picture} picture
   * @param {PlacedBox} here
   * @param {PlacedBox[]} closed
   * @param {"next" | "previous"} way
   */
  along(picture, here, closed, way) {
    const { index } = this.view;
    if (here.open) {
      const inside = closed.filter((box) => ancestorsOf(index, box.id).includes(here.id));
      if (inside.length) return (way === "next" ? inside[0] : inside[inside.length - 1]).id;
    }
    const [a0, c0] = middle(here, picture.lr);
    const far = (id) => {
      const box = picture.boxes.get(id);
      if (!box) return Number.POSITIVE_INFINITY;
      const [a, c] = middle(box, picture.lr);
      return Math.abs(a - a0) + Math.abs(c - c0);
    };
    const found = [...this.links(picture)[way].get(here.id) ?? []];
    return found.sort((a, b) => far(a) - far(b))[0];
  }
  /**
   * Pans by most of the window, or to the picture's beginning or end.
   * @param {string} key
   */
  pan(key) {
    const { camera } = this.view;
    const { w, h } = camera.size;
    const ways = {
      ArrowDown: [0, -0.25 * h],
      ArrowUp: [0, 0.25 * h],
      ArrowLeft: [0.25 * w, 0],
      ArrowRight: [-0.25 * w, 0],
      PageDown: this.view.lr ? [-0.8 * w, 0] : [0, -0.8 * h],
      PageUp: this.view.lr ? [0.8 * w, 0] : [0, 0.8 * h]
    };
    if (ways[key]) camera.dragBy(...ways[key]);
    else this.view.lookAtEnd(key === "End");
  }
  /** @param {string} id */
  moveTo(id) {
    this.view.cursor = id;
    this.markAt = -1;
    this.view.paintCursor();
    this.view.makeVisible(id);
    this.view.host.onCursor(this.view.drawn.elements.get(id));
  }
  /** Goes through the fake quants of the item under the cursor. */
  nextMark() {
    const element = this.view.drawn.elements.get(this.view.cursor ?? "");
    const marks = element ? [...element.querySelectorAll("[data-site]")] : [];
    if (!marks.length) return;
    this.markAt = (this.markAt + 1) % marks.length;
    const mark2 = marks[this.markAt];
    this.view.host.onSelect(mark2.getAttribute("data-sel") ?? "");
    this.view.host.onCursor(mark2);
  }
  /**
   * Handles a key; true if it meant something here.
   * @param {KeyboardEvent} event
   */
  handle(event) {
    if (isShortcut(event)) return false;
    const { view } = this;
    if (PANS.has(event.key) || event.shiftKey && event.key.startsWith("Arrow")) {
      this.pan(event.key);
      return true;
    }
    const way = (view.lr ? ACROSS : DOWN)[event.key];
    if (way) {
      this.step(way);
      return true;
    }
    const item = view.index.items.get(view.cursor ?? "");
    const select = () => item && !item.synthetic && view.host.onSelect(item.sel);
    const actions = {
      Enter: () => item?.children ? view.toggle(item.id) : select(),
      " ": select,
      Escape: () => this.escape(item),
      m: () => this.nextMark(),
      "+": () => view.camera.zoomBy(1.25),
      "=": () => view.camera.zoomBy(1.25),
      "-": () => view.camera.zoomBy(0.8),
      0: () => view.fit(),
      z: () => view.zoomToSelection(),
      f: () => view.host.onSearch(),
      "/": () => view.host.onSearch()
    };
    if (!Object.hasOwn(actions, event.key)) return false;
    actions[event.key]();
    return true;
  }
  /**
   * Cancels a layout; else closes the group around the cursor; else clears the selection.
   * @param {Item | undefined} item
   */
  escape(item) {
    const { view } = this;
    if (view.cancel()) return;
    const isOpen = item?.children !== void 0 && view.opened.has(item.id);
    const around = view.index.items.get((isOpen ? item.id : item?.parent) ?? "");
    if (around && around.parent !== null) {
      view.cursor = around.id;
      view.toggle(around.id);
    } else {
      view.host.onSelect("");
    }
  }
};
function middle({ x, y, w, h }, lr) {
  const [mx, my] = [x + w / 2, y + h / 2];
  return lr ? [mx, my] : [my, mx];
}
function besides({ lr }, here, closed, sign) {
  const [along, across] = middle(here, lr);
  const size = (box) => (lr ? box.w : box.h) / 2;
  let best = [Number.POSITIVE_INFINITY, void 0];
  for (const box of closed) {
    const [a, c] = middle(box, lr);
    const far = (c - across) * sign;
    if (far <= 1 || Math.abs(a - along) > Math.max(size(here), size(box))) continue;
    if (far < best[0]) best = [far, box.id];
  }
  return best[1];
}

// graph/minimap.js
var WIDTH = 150;
var HEIGHT = 190;
var SEEN = 0.75;
function mapScale({ w, h }) {
  const k = Math.min(WIDTH / w, HEIGHT / h);
  return { k, w: w * k, h: h * k };
}
var needsMap = (picture, view) => view.w < SEEN * picture.w || view.h < SEEN * picture.h;
var Minimap = class {
  /**
   * @param {HTMLElement} stage
   * @param {Camera} camera
   */
  constructor(stage, camera) {
    this.camera = camera;
    this.on = true;
    this.picture = null;
    this.frame = svg("rect", { class: "qxg-map-frame", rx: 1.5 });
    this.drawing = svg("svg", {});
    const attributes = { class: "qxg-map", "aria-hidden": "true", hidden: true };
    this.box = html("div", attributes, [this.drawing]);
    stage.append(this.box);
    this.listen();
  }
  listen() {
    const look = (e) => {
      if (!this.picture) return;
      const box = this.drawing.getBoundingClientRect();
      const { k } = mapScale(this.picture);
      this.camera.lookAt((e.clientX - box.left) / k, (e.clientY - box.top) / k);
    };
    this.box.addEventListener("pointerdown", (e) => {
      if (e.button !== 0) return;
      e.preventDefault();
      e.stopPropagation();
      this.box.setPointerCapture(e.pointerId);
      look(e);
    });
    this.box.addEventListener("pointermove", (e) => {
      if (this.box.hasPointerCapture(e.pointerId)) look(e);
    });
  }
  /** @param {Picture | null} picture */
  draw(picture) {
    this.picture = picture;
    if (picture) {
      const { k, w, h } = mapScale(picture);
      const frames = [...picture.boxes.values()];
      const open = frames.filter((box) => box.open);
      const closed = frames.filter((box) => !box.open);
      this.drawing.setAttribute("width", `${w}`);
      this.drawing.setAttribute("height", `${h}`);
      this.drawing.replaceChildren(
        svg("path", { class: "qxg-map-open", d: outlines(open, k) }),
        svg("path", { class: "qxg-map-closed", d: outlines(closed, k) }),
        this.frame
      );
    }
    this.paint();
  }
  /** Shows where the camera looks. */
  paint() {
    const view = this.camera.view;
    const shown = this.on && this.picture !== null && needsMap(this.picture, view);
    this.box.hidden = !shown;
    if (!shown || !this.picture) return;
    const { k, w, h } = mapScale(this.picture);
    const [left, top] = [Math.max(0, view.x * k), Math.max(0, view.y * k)];
    const [right, bottom] = [
      Math.min(w, (view.x + view.w) * k),
      Math.min(h, (view.y + view.h) * k)
    ];
    const place2 = { x: left, y: top, width: right - left, height: bottom - top };
    for (const [name, value] of Object.entries(place2)) {
      this.frame.setAttribute(name, `${Math.max(0, value)}`);
    }
  }
  /** @param {boolean} on */
  toggle(on) {
    this.on = on;
    this.paint();
  }
};
function outlines(boxes, k) {
  const parts2 = [];
  for (const box of boxes) {
    const [x, y, w, h] = box.open ? [box.x, box.y, box.w, box.h] : [box.x + box.bx, box.y + box.by, box.bw, box.bh];
    const [left, top] = [(x * k).toFixed(1), (y * k).toFixed(1)];
    const [across, down] = [Math.max(1, w * k).toFixed(1), Math.max(1, h * k).toFixed(1)];
    parts2.push(`M${left} ${top}h${across}v${down}h-${across}Z`);
  }
  return parts2.join("");
}

// graph/scale.js
var LIGHT = ["#fbf6dc", "#e6d9a0", "#c3b67f", "#96927a", "#66707c", "#3b4f78", "#00224e"];
var DARK = ["#0f2a4d", "#35456c", "#575d6d", "#7c7b78", "#a69d75", "#d3c164", "#fee838"];
var CATEGORIES = [
  "#e69f00",
  "#56b4e9",
  "#cc79a7",
  "#2fb38c",
  "#f0e442",
  "#8fa3ff",
  "#ff8f5a",
  "#b8bec5"
];
var parts = (hex) => [1, 3, 5].map((i) => Number.parseInt(hex.slice(i, i + 2), 16));
var hexOf = (rgb) => `#${rgb.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("")}`;
function luminance(hex) {
  const [r, g, b] = parts(hex).map((part) => part / 255).map((p) => p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function textOn(hex) {
  const light = luminance(hex) + 0.05;
  return light / 0.05 >= 1.05 / light ? "#000000" : "#ffffff";
}
function colourAt(at, dark) {
  const stops = dark ? DARK : LIGHT;
  const place2 = Math.min(1, Math.max(0, at)) * (stops.length - 1);
  const first = Math.min(Math.floor(place2), stops.length - 2);
  const [one, two] = [parts(stops[first]), parts(stops[first + 1])];
  return hexOf(one.map((part, i) => part + (two[i] - part) * (place2 - first)));
}
var categoryColour = (index) => CATEGORIES[index % CATEGORIES.length];
function domainOf(overlay, shown) {
  const { low = 0, high = 0, groups, values = {} } = overlay;
  if (groups !== "sum") return { low, high };
  const known = [...shown].map((id) => values[id]).filter((value) => value !== void 0);
  if (!known.length) return { low, high };
  return { low: Math.min(0, ...known), high: Math.max(...known) };
}
function attention({ highIs }, { low, high }, value) {
  if (high <= low) return 0.5;
  const at = Math.min(1, Math.max(0, (value - low) / (high - low)));
  return highIs === "good" ? 1 - at : at;
}
function ticksOf({ low, high }) {
  if (!(high > low)) return [low];
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 4, 5, 8, 10].map((n) => n * power).find((n) => n >= 0.8 * rough) ?? rough;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9) + 0; i * step <= high * (1 + 1e-9) + 1e-12; i += 1) {
    ticks.push(i * step);
  }
  return ticks;
}
var COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
var PLAIN = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
function tickText(value, unit) {
  if (unit === "share") return `${PLAIN.format(100 * value)} %`;
  return (Math.abs(value) >= 1e4 ? COMPACT : PLAIN).format(value);
}

// graph/overlay.js
var paints = /* @__PURE__ */ new WeakMap();
var ofIndex = /* @__PURE__ */ new WeakMap();
var NOT_KNOWN = "qxg-not-known";
var PATTERNS = ["lines", "", "dots", "back", "", "cross", "", "lines"];
function setPaint(world, paint) {
  paints.set(world, paint);
}
function pattern(prefix, name) {
  const lines = { lines: "M0 8 L8 0", back: "M0 0 L8 8", cross: "M4 0 V8 M0 4 H8" };
  const d = lines[
    /** @type {keyof typeof lines} */
    name
  ] ?? lines.lines;
  const drawing = name === "dots" ? svg("circle", { cx: 4, cy: 4, r: 1.3, class: "qxg-pattern-dot" }) : svg("path", { d, class: name === NOT_KNOWN ? "qxg-pattern-none" : "qxg-pattern-line" });
  const box = { width: 8, height: 8, patternUnits: "userSpaceOnUse" };
  return svg("pattern", { id: `${prefix}${name}`, ...box }, [drawing]);
}
function patternUrl(world, prefix, name) {
  const defs = world.parentElement?.querySelector("defs");
  if (defs && !defs.querySelector(`#${CSS.escape(prefix + name)}`)) {
    defs.append(pattern(prefix, name));
  }
  return `url(#${prefix}${name})`;
}
function clear(element) {
  element.classList.remove("qxg-painted", "qxg-unknown", "qxg-only");
  element.style.removeProperty("--qxg-paint");
  element.style.removeProperty("--qxg-on");
  for (const extra of element.querySelectorAll(":scope > .qxg-extra")) extra.remove();
  element.setAttribute("aria-label", labelOf(element));
}
function labelOf(element) {
  element.dataset.label ??= element.getAttribute("aria-label") ?? "";
  return element.dataset.label;
}
function cover(element, fill) {
  const frame2 = element.querySelector(":scope > .qxg-frame");
  if (!frame2) return;
  const box = {};
  for (const name of ["x", "y", "width", "height", "rx"]) box[name] = frame2.getAttribute(name);
  frame2.after(svg("rect", { ...box, fill, class: "qxg-extra qxg-cover" }));
}
function signAt(element, sign) {
  const frame2 = element.querySelector(":scope > .qxg-frame");
  const [x, y] = ["x", "y"].map((name) => Number(frame2?.getAttribute(name) ?? 0));
  const at = frame2 ? `translate(${x + 1} ${y + 1})` : "translate(-8 -8) scale(0.72)";
  element.append(
    svg("g", { class: "qxg-extra qxg-sign", transform: at }, [
      svg("circle", { r: 8 }),
      svg("text", { x: 0, y: 4, text: sign })
    ])
  );
}
function paintOverlay(world, drawn, index) {
  const paint = paints.get(world);
  if (!paint) return;
  ofIndex.set(index, paint);
  const { overlay } = paint;
  const wanted = overlay.values || paint.only.size || paint.onlySites.size;
  if (!wanted && !world.dataset.painted) return;
  world.dataset.painted = wanted ? "1" : "";
  const closed = [...drawn.elements].filter(([, g]) => !g.classList.contains("qxg-open"));
  const domain = domainOf(
    overlay,
    closed.map(([id]) => id)
  );
  for (const [id, element] of drawn.elements) {
    clear(element);
    const more = overlayLines(index, id);
    if (overlay.values) paintItem(world, element, id, paint, domain);
    if (paint.only.has(id)) {
      element.classList.add("qxg-only");
      signAt(element, paint.sign);
    }
    if (more.length) element.setAttribute("aria-label", [labelOf(element), ...more].join(", "));
  }
  paintSites(world, paint);
  paint.onPaint(domain);
}
function paintSites(world, { overlay, onlySites, sign, lacks }) {
  const marks = world.querySelectorAll("[data-site]");
  for (const mark2 of marks) {
    clear(mark2);
    const path = mark2.dataset.site ?? "";
    const text = overlay.sites?.[path];
    const more = text === void 0 ? [] : [`${overlay.title}: ${text}`];
    if (onlySites.has(path)) {
      mark2.classList.add("qxg-only");
      signAt(mark2, sign);
      more.push(lacks);
    }
    if (more.length) mark2.setAttribute("aria-label", [labelOf(mark2), ...more].join(", "));
  }
}
function paintItem(world, element, id, { overlay, dark }, domain) {
  const prefix = element.id.slice(0, element.id.length - id.length);
  const value = overlay.values?.[id];
  if (value === void 0) {
    if (element.classList.contains("qxg-io")) return;
    element.classList.add("qxg-unknown");
    if (element.classList.contains("qxg-open")) return;
    cover(element, patternUrl(world, prefix, NOT_KNOWN));
    return;
  }
  const named = Boolean(overlay.categories?.length);
  const colour = named ? categoryColour(value) : colourAt(attention(overlay, domain, value), dark);
  element.classList.add("qxg-painted");
  element.style.setProperty("--qxg-paint", colour);
  element.style.setProperty("--qxg-on", textOn(colour));
  const name = named ? PATTERNS[value % PATTERNS.length] : "";
  if (name && !element.classList.contains("qxg-open")) {
    cover(element, patternUrl(world, prefix, name));
  }
}
function overlayLines(index, id) {
  const paint = ofIndex.get(index);
  if (!paint) return [];
  const { overlay, only, lacks } = paint;
  const lines = [];
  if (overlay.values) lines.push(`${overlay.title}: ${overlay.texts?.[id] ?? "not known"}`);
  if (only.has(id)) lines.push(lacks);
  return lines;
}
function siteLines(index, path) {
  const paint = ofIndex.get(index);
  if (!paint) return [];
  const text = paint.overlay.sites?.[path];
  const lines = text === void 0 ? [] : [`${paint.overlay.title}: ${text}`];
  return paint.onlySites.has(path) ? [...lines, paint.lacks] : lines;
}

// graph/overlay_panel.js
var STEPS = 12;
var OverlayPanel = class {
  /**
   * @param {import("@anywidget/types").AnyModel<any>} model
   * @param {import("./view.js").GraphView} view
   * @param {HTMLElement} bar the tool bar
   * @param {HTMLElement} stage what the graph is drawn in
   */
  constructor(model, view, bar, stage) {
    this.model = model;
    this.view = view;
    this.pickers = html("span", { class: "qxg-pickers" });
    bar.append(this.pickers);
    this.scale = html("div", { class: "qxg-scale", role: "note", hidden: true });
    stage.before(this.scale);
    this.caption = html("div", { class: "qxg-caption", hidden: true });
    bar.before(this.caption);
    this.domain = { low: 0, high: 0 };
    this.overlay = {};
    const ends = [
      listen(model, {
        "change:overlay": () => this.onOverlay(),
        "change:compared": () => this.onOverlay(),
        "change:pickers": () => this.paintPickers(),
        "change:picked": () => this.paintPicked()
      }),
      watchPageTheme(() => this.onOverlay())
    ];
    this.end = () => {
      for (const end of ends) end();
    };
    this.paintPickers();
    this.onOverlay();
  }
  /** An overlay, a comparison or the theme is another: paints what is drawn anew. */
  onOverlay() {
    const { model, view } = this;
    this.overlay = unpacked(model.get("overlay")) ?? {};
    const compared = unpacked(model.get("compared")) ?? {};
    setPaint(view.world, {
      overlay: this.overlay,
      dark: pageIsDark(),
      only: new Set(compared.only ?? []),
      onlySites: new Set(compared.sites ?? []),
      sign: compared.sign ?? "",
      lacks: compared.lacks ?? "",
      onPaint: (domain) => {
        this.domain = domain;
        this.paintScale();
      }
    });
    this.paintCaption(compared);
    this.paintScale();
    paintOverlay(view.world, view.drawn, view.index);
  }
  /** @param {Compared} compared */
  paintCaption({ caption = "", sign = "", lacks = "", said = "", only = [], sites = [] }) {
    const marked = only.length + sites.length;
    this.caption.hidden = !caption && !said;
    this.caption.replaceChildren(
      html("strong", { text: caption }),
      marked ? html("span", { text: `${sign} ${marked} ${lacks}` }) : "",
      html("span", { class: "qxg-said", role: "status", text: said })
    );
  }
  paintPickers() {
    const pickers = this.model.get("pickers") ?? [];
    const focused = this.pickers.contains(document.activeElement) ? document.activeElement?.getAttribute("data-picker") : null;
    this.pickers.replaceChildren(...pickers.map((picker) => this.picker(picker)));
    this.paintPicked();
    if (focused) this.select(focused)?.focus();
  }
  /** @param {string} id */
  select(id) {
    return (
      /** @type {HTMLSelectElement | null} */
      this.pickers.querySelector(`[data-picker="${CSS.escape(id)}"]`)
    );
  }
  /** @param {Picker} picker */
  picker({ id, label, title, options }) {
    const items = options.map(([value, text]) => html("option", { value, text }));
    const select = html("select", { ...OWN_KEYS, "data-picker": id, title }, items);
    select.addEventListener("change", () => {
      const picked = { ...this.model.get("picked"), [id]: select.value };
      save(this.model, { picked });
    });
    select.addEventListener("keydown", (event) => event.stopPropagation());
    return html("label", { class: "qxg-picker", title }, [`${label} `, select]);
  }
  paintPicked() {
    const picked = this.model.get("picked") ?? {};
    for (const select of this.pickers.querySelectorAll("select")) {
      const value = picked[select.dataset.picker ?? ""] ?? "";
      if ([...select.options].some((option) => option.value === value)) select.value = value;
    }
  }
  paintScale() {
    const { overlay } = this;
    this.scale.hidden = !overlay.title;
    if (!overlay.title) {
      this.scale.replaceChildren();
      return;
    }
    const { title, unit = "", categories = [] } = overlay;
    const said = ["", "share", title.toLowerCase()].includes(unit.toLowerCase());
    const text = said || categories.length ? title : `${title} (${unit})`;
    const heading = html("strong", { text });
    this.scale.setAttribute("aria-label", `Colours: ${overlay.title}`);
    this.scale.replaceChildren(heading, ...this.scaleParts());
  }
  scaleParts() {
    const { overlay } = this;
    if (overlay.error) return [html("span", { class: "qxg-scale-error", text: overlay.error })];
    if (overlay.busy) {
      const stop = html("button", { class: "qxg-scale-stop", text: "Stop" });
      stop.addEventListener("click", () => {
        save(this.model, { picked: { ...this.model.get("picked"), overlay: "" } });
      });
      return [html("span", { role: "status", text: overlay.busy }), stop];
    }
    const known = Object.keys(overlay.values ?? {}).length > 0;
    const notes = [overlay.meaning, overlay.inside && `groups: ${overlay.inside}`];
    const words = notes.filter(Boolean).join(" · ");
    const note = html("span", { class: "qxg-scale-note", text: words, title: overlay.note });
    if (!known) return [html("span", { text: overlay.note || "nothing is known" })];
    const scale = overlay.categories?.length ? this.categories() : this.gradient();
    const none = html("span", { class: "qxg-scale-none" }, [
      html("i", { "aria-hidden": "true" }),
      "not known"
    ]);
    const about = html("span", { class: "qxg-scale-about", text: overlay.note ?? "" });
    return [scale, none, words ? note : "", about];
  }
  categories() {
    const names = this.overlay.categories ?? [];
    const used = new Set(Object.values(this.overlay.values ?? {}));
    const chips = names.map((text, i) => {
      if (!used.has(i)) return "";
      const chip = html("span", { class: `qxg-category qxg-category-${i % 8}`, text });
      const colour = categoryColour(i);
      chip.style.backgroundColor = colour;
      chip.style.color = textOn(colour);
      return chip;
    });
    return html("span", { class: "qxg-categories" }, chips);
  }
  gradient() {
    const { overlay, domain } = this;
    const dark = pageIsDark();
    const { low, high } = domain;
    const colours = Array.from({ length: STEPS + 1 }, (_, i) => {
      const value = low + (high - low) * i / STEPS;
      return colourAt(attention(overlay, domain, value), dark);
    });
    const bar = html("span", { class: "qxg-gradient", "aria-hidden": "true" });
    bar.style.backgroundImage = `linear-gradient(to right, ${colours.join(", ")})`;
    const ticks = ticksOf(domain).map((value) => {
      const tick = html("span", { text: tickText(value, overlay.unit ?? "") });
      const at = high > low ? (value - low) / (high - low) : 0.5;
      tick.style.left = `${100 * at}%`;
      return tick;
    });
    return html("span", { class: "qxg-ramp" }, [bar, html("span", { class: "qxg-ticks" }, ticks)]);
  }
};

// graph/budget.js
var MAX_ITEM_MARKS = 4;
var MAX_MARKS = 300;
var EASY_TO_READ = 70;
var marksOf = (item) => 1 + Math.min(item.marks.length, MAX_ITEM_MARKS);
function countMarks(index, opened, root) {
  let total = 0;
  const walk = (id) => {
    const item = itemOf(index, id);
    total += marksOf(item);
    if (item.children && (id === root || opened.has(id))) item.children.forEach(walk);
  };
  walk(root);
  return total;
}
function firstOpened(index) {
  const opened = /* @__PURE__ */ new Set();
  if (!index.groups.length) return opened;
  const everything = new Set(index.groups.map((g) => g.id));
  if (countMarks(index, everything, ROOT) <= EASY_TO_READ) return everything;
  const groupsIn = (id) => (itemOf(index, id).children ?? []).filter((child) => {
    const item = itemOf(index, child);
    return item.children && !item.repeat;
  });
  let shown = groupsIn(ROOT);
  const thin = (itemOf(index, ROOT).children ?? []).length <= 4;
  while (thin && shown.length === 1) {
    const [id] = shown;
    if (countMarks(index, /* @__PURE__ */ new Set([...opened, id]), ROOT) > EASY_TO_READ) break;
    opened.add(id);
    shown = groupsIn(id);
  }
  return opened;
}
function withNewFolds(index, openIds, known) {
  const opened = /* @__PURE__ */ new Set();
  for (const id of openIds) {
    for (const above of ancestorsOf(index, id)) {
      if (itemOf(index, above).repeat && !known.has(above)) opened.add(above);
    }
    opened.add(id);
  }
  return opened;
}
function isShown(index, id, opened, root) {
  if (root === id) return true;
  const chain = ancestorsOf(index, id);
  const from = chain.indexOf(root);
  return from >= 0 && chain.slice(from + 1).every((above) => opened.has(above));
}
function withinBudget(index, wanted, wantedRoot, keep, most = MAX_MARKS) {
  const opened = new Set(wanted);
  let root = wantedRoot;
  const closed = [];
  const way = keep === null ? [] : [...ancestorsOf(index, keep), keep];
  for (const id of wanted) {
    if (countMarks(index, opened, root) <= most) break;
    if (way.includes(id) || !index.items.has(id)) continue;
    if (!isShown(index, id, opened, root)) continue;
    opened.delete(id);
    closed.push(itemOf(index, id).label);
  }
  for (const id of way.slice(way.indexOf(root) + 1)) {
    if (countMarks(index, opened, root) <= most) break;
    root = id;
  }
  const says = [];
  if (closed.length) {
    const names = closed.length > 2 ? `${closed.length} groups` : closed.join(", ");
    says.push(`collapsed ${names} to stay under ${most} marks`);
  }
  if (root !== wantedRoot) {
    says.push(`showing inside ${itemOf(index, root).label} to stay under ${most} marks`);
  }
  return { opened, root, say: says.join(", ") };
}

// graph/geometry.js
var HEADER = 30;
var FONT = { label: "600 12.5px", sub: "400 10.5px" };
var PAD = 16;
var TAIL = 26;
var measuring = null;
function textWidth(text, font, family) {
  measuring ??= document.createElement("canvas").getContext("2d");
  if (!measuring) return 7 * text.length;
  measuring.font = `${font} ${family}`;
  return measuring.measureText(text).width;
}
function fitText(text, width, font, family) {
  if (textWidth(text, font, family) <= width) return text;
  const letters = [...text];
  let low = 2;
  let high = letters.length;
  const cut = (n) => {
    const head = Math.ceil(n / 2);
    const tail = letters.slice(letters.length - (n - head));
    return `${letters.slice(0, head).join("")}…${tail.join("")}`;
  };
  while (low < high) {
    const mid = Math.ceil((low + high) / 2);
    if (textWidth(cut(mid), font, family) <= width) low = mid;
    else high = mid - 1;
  }
  return cut(low);
}
var siteTotal = (item) => item.sites ? item.sites.weight + item.sites.input + item.sites.output : 0;
function countPlaces(item) {
  const places = [];
  let at = 18;
  const counts = { ...item.sites ?? { weight: 0, input: 0, output: 0 }, twice: item.twice ?? 0 };
  for (
    const kind of
    /** @type {const} */
    ["weight", "input", "output", "twice"]
  ) {
    if (!counts[kind]) continue;
    const count = `${counts[kind]}`;
    const start = kind === "twice" ? at + 5 : at;
    places.push({ kind, count, at: start });
    at = start + (kind === "twice" ? 26 : 21) + 6.5 * count.length;
  }
  return places;
}
function countsRoom(item) {
  const last = countPlaces(item).at(-1);
  return last ? last.at + 32 + 6.5 * last.count.length : 0;
}
function subText(item) {
  if (!item.children) return item.sub;
  const ops = `${item.ops} op${item.ops === 1 ? "" : "s"}`;
  return [item.sub, ops, item.int8 ? `${item.int8} int8` : ""].filter(Boolean).join(" · ");
}
function measureItem(index, item, lr, family) {
  const key = `${item.id}|${lr}|${family}`;
  let box = index.measured.get(key);
  if (!box) {
    box = measureBox(item, lr, family);
    index.measured.set(key, box);
  }
  return box;
}
function measureBox(item, lr, family) {
  const label = fitText(item.label, 190, FONT.label, family);
  const sub = fitText(subText(item), 200, FONT.sub, family);
  const roles = { side: [], tail: [], inside: [], head: [] };
  for (const mark2 of item.marks) roles[mark2.role].push(mark2.site);
  const inner = [...roles.inside, ...roles.head];
  const counts = countsRoom(item);
  const chips = counts > 0 || !item.children && inner.length > 0;
  const [besideLabel, besideSub] = item.children ? [22, 20] : [0, 0];
  const tag = item.precision === "int8" ? 36 : 0;
  const labelWidth = textWidth(label, FONT.label, family) + besideLabel + tag + 28;
  const subWidth = textWidth(sub, FONT.sub, family) + besideSub + 28;
  const bw = Math.ceil(Math.max(84, labelWidth, subWidth, counts));
  const bh = (sub ? 42 : 30) + (chips ? 20 : 0);
  const side = roles.side.length > 0;
  const tail = roles.tail.length ? TAIL : 0;
  return {
    open: (
      /** @type {const} */
      false
    ),
    lr,
    label,
    sub,
    roles,
    inner,
    chips,
    bw,
    bh,
    w: bw + (lr ? tail : side ? 22 : 0),
    h: bh + (lr ? side ? 24 : 0 : tail),
    bx: !lr && side ? 11 : 0,
    by: lr && side ? 12 : 0
  };
}
function measureOpen(item, inside, lr, family) {
  const [iw, ih] = lr ? [inside.h, inside.w] : [inside.w, inside.h];
  const label = fitText(item.label, 260, FONT.label, family);
  const sub = fitText(item.sub, 160, FONT.sub, family);
  const heads = Math.min(item.marks.length, MAX_ITEM_MARKS);
  const labelWidth = textWidth(label, FONT.label, family);
  const title = labelWidth + textWidth(sub, FONT.sub, family) + 64 + heads * 22;
  const w = Math.ceil(Math.max(iw + 2 * PAD, title));
  const h = Math.ceil(HEADER + ih + 2 * PAD);
  const ox = (w - iw) / 2;
  const oy = HEADER + PAD;
  const [start, length] = lr ? [oy, h] : [ox, w];
  const port = (at) => at === null ? 0 : start + at - length / 2;
  return {
    open: (
      /** @type {const} */
      true
    ),
    label,
    labelWidth,
    sub,
    w,
    h,
    ox,
    oy,
    inX: port(inside.in),
    outX: port(inside.out)
  };
}
function layoutSpec(index, item, parts2, lr) {
  const { edges, ins, outs } = innerOf(index, item.id);
  const order = new Map(item.children.map((child, i) => [child, i]));
  return {
    gap: lr ? 16 : 24,
    rankGap: lr ? 44 : 30,
    nodes: parts2.map(({ box }, i) => {
      const [inX, outX] = box.open ? [box.inX, box.outX] : [0, 0];
      const [w, h] = lr ? [box.h, box.w] : [box.w, box.h];
      return [item.children[i], w, h, inX, outX];
    }),
    edges: [...edges.keys()].map((key) => {
      const [a, b] = key.split("\n");
      return [key, a, b, (order.get(a) ?? 0) >= (order.get(b) ?? 0)];
    }),
    ins: [...ins.keys()],
    outs: [...outs.keys()]
  };
}
var innerOf = (index, id) => (
  /** @type {import("./scene.js").Inner} */
  index.inner.get(id)
);
async function composePicture(index, layouter, root, opened, lr, family) {
  const build = async (id) => {
    const item = itemOf(index, id);
    if (!item.children || id !== root && !opened.has(id)) {
      return { key: id, box: measureItem(index, item, lr, family), parts: null };
    }
    const parts2 = [];
    for (const child of item.children) parts2.push(await build(child));
    const below = parts2.map((part) => part.parts ? part.key : "").join(",");
    const key = `${id}|${lr ? "lr" : "tb"}|(${below})`;
    const inside = await layouter.layout(key, layoutSpec(index, item, parts2, lr));
    return { key, box: measureOpen(item, inside, lr, family), parts: parts2, inside, item };
  };
  const top = await build(root);
  const picture = { boxes: /* @__PURE__ */ new Map(), edges: [], w: top.box.w, h: top.box.h, lr };
  place(index, picture, root, top, 0, 0);
  return picture;
}
var gripOf = (box) => box.open ? [box.x + 16, box.y + HEADER / 2] : [box.x + box.bx + 16, box.y + box.by + 14];
function place(index, picture, id, built, x, y) {
  picture.boxes.set(id, { ...built.box, id, x, y });
  if (!built.parts) return;
  const { inside, parts: parts2, item } = built;
  const { ox, oy } = built.box;
  const onSheet = ([px, py]) => picture.lr ? [x + ox + py, y + oy + px] : [x + ox + px, y + oy + py];
  for (const [i, child] of item.children.entries()) {
    const [cx, cy] = onSheet(inside.pos[child]);
    const { w, h } = parts2[i].box;
    place(index, picture, child, parts2[i], cx - w / 2, cy - h / 2);
  }
  const { edges, ins, outs, via } = innerOf(index, id);
  const isClosed = (child) => !picture.boxes.get(child)?.open;
  const what = (part, key, links) => ({
    list: links.flatMap((link) => index.links[link].list),
    many: links.length > 1,
    via: via.get(`${part} ${key}`) ?? []
  });
  for (const [key, links] of edges) {
    const [from, to] = key.split("\n");
    const points = from === to ? null : inside.edges[key].map(onSheet);
    const same = what("edges", key, links);
    const back = same.list.some((e) => index.edges[e][2]);
    picture.edges.push({ ...same, points, from, to, back, arrow: isClosed(to) });
  }
  for (const [to, links] of ins) {
    const points = [
      /** @type {Point} */
      [inside.in, -PAD],
      ...inside.ins[to]
    ].map(onSheet);
    const same = what("ins", to, links);
    picture.edges.push({ ...same, points, from: null, to, back: false, arrow: isClosed(to) });
  }
  for (const [from, links] of outs) {
    const end = (
      /** @type {Point} */
      [inside.out, inside.h + PAD]
    );
    const points = [...inside.outs[from], end].map(onSheet);
    const same = what("outs", from, links);
    picture.edges.push({ ...same, points, from, to: null, back: false, arrow: false });
  }
}

// graph/tooltip.js
var Tooltip = class {
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
};
function tipOf(index, element) {
  const at = element.closest("[data-site], [data-pass], [data-edge], [data-item]");
  if (!at) return null;
  const { site, pass, edge, item } = at.dataset;
  if (pass !== void 0) return passTip(index, pass.split("\n"));
  if (site !== void 0) {
    const { tip, changed } = index.sites[site];
    return {
      title: site,
      lines: [...siteLines(index, site), ...tip, changed ? "changed in this step" : ""]
    };
  }
  if (edge !== void 0) return edgeTip(index, Number(edge));
  return itemTip(index, item ?? "");
}
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
    lines: [source.shape || "shape unknown", passes, twice, back]
  };
}
function passTip(index, ids) {
  const items = ids.map((id) => itemOf(index, id));
  const changed = items.filter((item) => item.changed).map((item) => item.label);
  return {
    title: items.map(titleOf).join(", "),
    lines: [
      `${items.length > 1 ? "Identities that pass" : "Identity that passes"} the tensor on`,
      changed.length ? `changed in this step: ${changed.join(", ")}` : ""
    ]
  };
}
function itemTip(index, id) {
  const item = itemOf(index, id);
  const lines = [subText(item), ...overlayLines(index, id), ...item.tip];
  if (item.finding) lines.push(`${item.finding.mark} ${item.finding.words}, see the checks`);
  if (item.twice) lines.push(`${item.twice} inside fake-quantized twice, see the ledger`);
  for (const mark2 of item.marks) {
    const { tip, letter } = index.sites[mark2.site];
    const [what, ...rest] = tip;
    const kind = what.split(" ").slice(0, 3).join(" ");
    lines.push(`${letter}  ${kind}: ${rest.slice(0, 3).join("; ")}`);
  }
  if (item.changed) lines.push("changed in this step");
  else if (item.inside) lines.push("something inside changed in this step");
  return { title: titleOf(item), lines };
}

// graph/pointer.js
var DOUBLE = { ms: 400, px: 8 };
function nextPass({ index, selection }, ids) {
  const at = ids.findIndex((id) => itemOf(index, id).sel === selection);
  return ids[(at + 1) % ids.length];
}
function click(view, target) {
  const id = closest(target, "[data-item]")?.dataset.item;
  const item = view.index.items.get(id ?? "");
  const isMark = closest(target, "[data-site]") !== null;
  const opens = item?.synthetic && !view.opened.has(item.id) && !isMark;
  if (item && (opens || closest(target, "[data-toggle]"))) {
    view.cursor = item.id;
    view.toggle(item.id);
    return Boolean(opens);
  }
  const pass = closest(target, "[data-pass]")?.dataset.pass;
  const edge = closest(target, "[data-edge]")?.dataset.edge;
  if (pass !== void 0) {
    view.host.onSelect(itemOf(view.index, nextPass(view, pass.split("\n"))).sel);
  } else if (edge !== void 0) {
    view.host.onSelect(edgeSelection(view.index, Number(edge)));
  } else {
    if (id !== void 0) view.cursor = id;
    view.host.onSelect(closest(target, "[data-sel]")?.dataset.sel ?? "");
  }
  return false;
}
function zoomByWheel(view, place2, tooltip, onUnfocused) {
  const wheel = (e) => {
    const zooms = e.ctrlKey || e.metaKey || view.svg.matches(":focus");
    if (!zooms) {
      if (Math.abs(e.deltaY) > Math.abs(e.deltaX)) onUnfocused();
      return;
    }
    e.preventDefault();
    const unit = e.deltaMode === 1 ? 16 : 1;
    const speed = e.ctrlKey && Math.abs(e.deltaY) < 40 ? 8e-3 : 16e-4;
    view.camera.zoomBy(Math.exp(-e.deltaY * unit * speed), place2(e));
    tooltip.hide();
  };
  view.svg.addEventListener("wheel", wheel, { passive: false });
}
function pinch(view, fingers, id, to, place2) {
  const [other] = [...fingers].filter(([key]) => key !== id).map(([, finger]) => finger);
  const from = fingers.get(id) ?? to;
  const before = Math.hypot(from.x - other.x, from.y - other.y);
  const after = Math.hypot(to.x - other.x, to.y - other.y);
  fingers.set(id, to);
  view.camera.dragBy((to.x - from.x) / 2, (to.y - from.y) / 2);
  const middle2 = { clientX: (to.x + other.x) / 2, clientY: (to.y + other.y) / 2 };
  if (before > 0) view.camera.zoomBy(after / before, place2(middle2));
}
function listenToPointer(view, stage, tooltip, onUnfocused) {
  let drag = null;
  const fingers = /* @__PURE__ */ new Map();
  let opened = { at: Number.NEGATIVE_INFINITY, x: 0, y: 0 };
  const isSecond = (e) => performance.now() - opened.at < DOUBLE.ms && Math.hypot(e.clientX - opened.x, e.clientY - opened.y) < DOUBLE.px;
  const place2 = (e) => {
    const box = stage.getBoundingClientRect();
    return [e.clientX - box.left, e.clientY - box.top];
  };
  const isInside = (e) => e.target instanceof Node && view.svg.contains(e.target);
  const down = (e) => {
    if (e.button !== 0 || !isInside(e)) return;
    if (e.pointerType === "touch") fingers.set(e.pointerId, { x: e.clientX, y: e.clientY });
    drag = { x: e.clientX, y: e.clientY, moved: fingers.size > 1, target: e.target };
    view.svg.focus({ preventScroll: true });
  };
  const move = (e) => {
    if (drag && fingers.size > 1 && fingers.has(e.pointerId)) {
      pinch(view, fingers, e.pointerId, { x: e.clientX, y: e.clientY }, place2);
      return;
    }
    if (drag) {
      const [dx, dy] = [e.clientX - drag.x, e.clientY - drag.y];
      if (!drag.moved && Math.hypot(dx, dy) < 4) return;
      stage.classList.add("qxg-dragging");
      view.camera.dragBy(dx, dy);
      drag = { x: e.clientX, y: e.clientY, moved: true, target: drag.target };
      tooltip.hide();
      return;
    }
    const tip = isInside(e) && e.target instanceof Element ? tipOf(view.index, e.target) : null;
    if (tip) tooltip.show(tip, ...place2(e));
    else tooltip.hide();
  };
  const up = (e) => {
    fingers.delete(e.pointerId);
    if (fingers.size) return;
    const was = drag;
    drag = null;
    stage.classList.remove("qxg-dragging");
    if (!was || was.moved || isSecond(e)) return;
    if (click(view, was.target)) opened = { at: performance.now(), x: e.clientX, y: e.clientY };
  };
  const twice = (e) => {
    const item = closest(e.target, "[data-item]")?.dataset.item;
    const isOther = isSecond(e) || closest(e.target, "[data-toggle]");
    if (item !== void 0 && !isOther) view.toggle(item);
  };
  stage.addEventListener("pointerdown", down);
  stage.addEventListener("pointerleave", () => tooltip.hide());
  stage.addEventListener("dblclick", twice);
  zoomByWheel(view, place2, tooltip, onUnfocused);
  window.addEventListener("pointermove", move);
  window.addEventListener("pointerup", up);
  window.addEventListener("pointercancel", up);
  return () => {
    window.removeEventListener("pointermove", move);
    window.removeEventListener("pointerup", up);
    window.removeEventListener("pointercancel", up);
  };
}

// graph/search.js
var SearchBox = class {
  /**
   * @param {string} prefix of element ids
   * @param {(text: string) => { hits: Item[], total: number }} find
   * @param {(item: Item | null) => void} choose takes a hit, null when the search is given up
   */
  constructor(prefix, find, choose) {
    this.find = find;
    this.choose = choose;
    this.listId = `${prefix}matches`;
    this.input = html("input", {
      type: "search",
      class: "qxg-search",
      placeholder: "Find path, type or op  (f)",
      role: "combobox",
      "aria-label": "Find in the graph by path, type or operation",
      "aria-expanded": "false",
      "aria-controls": this.listId,
      autocomplete: "off",
      spellcheck: "false"
    });
    const attributes = { id: this.listId, class: "qxg-matches", role: "listbox", hidden: true };
    this.list = html("ul", attributes);
    this.box = html("div", { class: "qxg-find" }, [this.input, this.list]);
    this.hits = [];
    this.at = 0;
    this.input.addEventListener("input", () => this.refresh());
    this.input.addEventListener("focus", () => this.refresh());
    this.input.addEventListener("blur", () => this.close());
    this.input.addEventListener("keydown", (event) => this.onKey(event));
  }
  close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }
  paint() {
    for (const [i, row] of [...this.list.querySelectorAll("[role=option]")].entries()) {
      row.setAttribute("aria-selected", String(i === this.at));
      if (i === this.at) this.input.setAttribute("aria-activedescendant", row.id);
    }
  }
  /** @param {Item} item */
  take(item) {
    this.close();
    this.choose(item);
  }
  /**
   * @param {Item} item
   * @param {number} i
   */
  row(item, i) {
    const name = titleOf(item);
    const row = html("li", { role: "option", id: `${this.listId}${i}`, title: name }, [
      html("b", { text: name }),
      html("span", { text: subText(item) })
    ]);
    row.addEventListener("mousedown", (event) => {
      event.preventDefault();
      this.take(item);
    });
    return row;
  }
  refresh() {
    const { hits, total } = this.find(this.input.value);
    this.hits = hits;
    this.at = 0;
    const rows = hits.map((item, i) => this.row(item, i));
    const more = total > hits.length ? `${total - hits.length} more` : "";
    const note = !total && this.input.value.trim() ? "no match" : more;
    if (note) rows.push(html("li", { class: "qxg-more", text: note }));
    this.list.replaceChildren(...rows);
    this.list.hidden = !rows.length;
    this.input.setAttribute("aria-expanded", rows.length ? "true" : "false");
    this.paint();
  }
  /** @param {KeyboardEvent} event */
  onKey(event) {
    event.stopPropagation();
    const { hits, at } = this;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const by = event.key === "ArrowDown" ? 1 : hits.length - 1;
      if (hits.length) this.at = (at + by) % hits.length;
      this.paint();
    } else if (event.key === "Enter" && hits[at]) {
      this.take(hits[at]);
    } else if (event.key === "Escape") {
      this.close();
      this.choose(null);
    }
  }
};

// graph/marks.js
var LETTERS = { weight: "W", input: "I", output: "A" };
var svgText = (x, y, className, text) => svg("text", { x, y, class: className, text });
function shapeOf(kind) {
  if (kind === "weight") return svg("rect", { x: -8, y: -8, width: 16, height: 16, rx: 2 });
  if (kind === "input") return svg("path", { d: "M0 -10 L10.5 8.5 L-10.5 8.5 Z" });
  return svg("circle", { r: 8.5 });
}
function drawMark(site, x, y, attributes = {}) {
  const shape = shapeOf(site.kind);
  shape.setAttribute("class", "qxg-shape");
  const names = ["qxg-mark", `qxg-${site.kind}`];
  if (site.changed) names.push("qxg-changed");
  if (site.off) names.push("qxg-off");
  return svg("g", { class: names.join(" "), transform: `translate(${x} ${y})`, ...attributes }, [
    shape,
    svgText(0, site.kind === "input" ? 6 : 3.6, "qxg-letter", site.letter),
    site.off && svg("path", { d: "M-9 9 L9 -9", class: "qxg-slash" })
  ]);
}
function drawSite(index, path, x, y) {
  const site = index.sites[path];
  const label = site.tip.join(", ") + (site.changed ? ", changed in this step" : "");
  return drawMark(site, x, y, {
    "data-site": path,
    "data-sel": site.sel,
    role: "img",
    "aria-label": label
  });
}
function drawSites(index, paths, x, y) {
  const shown = paths.length > MAX_ITEM_MARKS ? paths.slice(0, MAX_ITEM_MARKS - 1) : paths;
  const parts2 = shown.map((path, i) => drawSite(index, path, x + i * 22, y));
  const more = paths.length - shown.length;
  if (more) parts2.push(svgText(x + shown.length * 22 - 6, y + 4, "qxg-sub", `+${more}`));
  return parts2;
}
function drawCounts(places, x, y) {
  const parts2 = [];
  for (const { kind, count, at } of places) {
    if (kind === "twice") {
      parts2.push(twiceMark(x + at, y, `${count} inside fake-quantized twice`, 0.72));
      parts2.push(svgText(x + at + 13, y + 3.8, "qxg-count", count));
      continue;
    }
    const transform = `translate(${x + at} ${y}) scale(0.72)`;
    parts2.push(drawMark({ kind, letter: LETTERS[kind] }, x + at, y, { transform }));
    parts2.push(svgText(x + at + 10, y + 3.8, "qxg-count", count));
  }
  return parts2;
}
var drawDelta = (x, y) => svg("g", { class: "qxg-delta", transform: `translate(${x} ${y})` }, [
  svg("circle", { r: 8 }),
  svgText(0, 3.8, "", "Δ")
]);
var drawFinding = ({ severity, mark: mark2, inside }, x, y) => svg(
  "g",
  {
    class: `qxg-finding qxg-finding-${severity}${inside ? " qxg-finding-inside" : ""}`,
    transform: `translate(${x} ${y})`
  },
  [svg("circle", { r: 8 }), svgText(0, 3.4, "", mark2)]
);
function drawChevron(x, y, open) {
  const d = open ? "M-4 -2.5 L0 2.5 L4 -2.5" : "M-2.5 -4 L2.5 0 L-2.5 4";
  return svg("g", { class: "qxg-chevron", transform: `translate(${x} ${y})`, "data-toggle": "1" }, [
    svg("rect", { x: -10, y: -10, width: 20, height: 20, rx: 4, class: "qxg-hit" }),
    svg("path", { d })
  ]);
}
var drawInt8 = (x, y) => svg("g", { class: "qxg-tag", transform: `translate(${x} ${y})` }, [
  svg("rect", { x: -15, y: -7.5, width: 30, height: 15, rx: 4 }),
  svgText(0, 3.6, "", "int8")
]);
function twiceMark(x, y, label, size = 1) {
  const transform = `translate(${x} ${y}) scale(${size})`;
  const attributes = { class: "qxg-twice-mark", transform, role: "img", "aria-label": label };
  const pill = svg("rect", { x: -12, y: -8, width: 24, height: 16, rx: 8 });
  return svg("g", attributes, [pill, svgText(0, 4, "", "2×")]);
}
var drawTwice = (points) => twiceMark(...pointAlong(points, 0.5), "fake-quantized twice");
function drawPass(items, [x, y]) {
  const names = ["qxg-pass"];
  if (items.some((item) => item.changed)) names.push("qxg-changed");
  return svg(
    "g",
    {
      class: names.join(" "),
      transform: `translate(${x} ${y})`,
      "data-pass": items.map((item) => item.id).join("\n"),
      role: "img",
      "aria-label": `passes through ${items.map((item) => item.path).join(", ")}`
    },
    [
      svg("circle", { r: 9, class: "qxg-hit" }),
      svg("circle", { r: 3.2, class: "qxg-dot" }),
      svgText(9, 3.8, "qxg-left qxg-pass-name", "")
    ]
  );
}
function pointAlong(points, share) {
  const lengths = points.slice(1).map(([x, y], i) => Math.hypot(x - points[i][0], y - points[i][1]));
  let left = share * lengths.reduce((sum, length) => sum + length, 0);
  for (const [i, length] of lengths.entries()) {
    if (left <= length && length > 0) {
      const [[x0, y0], [x1, y1]] = [points[i], points[i + 1]];
      return [x0 + (x1 - x0) * left / length, y0 + (y1 - y0) * left / length];
    }
    left -= length;
  }
  return points[points.length - 1];
}

// graph/toolbar.js
var ICONS = {
  fit: "M3 6V3h3M10 3h3v3M13 10v3h-3M6 13H3v-3",
  out: "M4 8h8",
  in: "M4 8h8M8 4v8",
  target: "M8 2v3M8 11v3M2 8h3M11 8h3M8 8h.01",
  right: "M3 8h10M9.5 4.5 13 8l-3.5 3.5",
  collapse: "M4 6l4-3.5L12 6M4 10l4 3.5L12 10",
  save: "M8 2.5v7M5 7l3 3 3-3M3 13h10",
  identity: "M8 1.5v4M8 10.5v4M5.5 8a2.5 2.5 0 1 0 5 0 2.5 2.5 0 1 0-5 0",
  map: "M2.5 3h11v10h-11zM8.5 8h5M8.5 8v5",
  legend: "M3 4.5h2M7 4.5h6M3 8h2M7 8h6M3 11.5h2M7 11.5h6"
};
function iconButton(name, title, onClick) {
  const box = { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" };
  const icon = svg("svg", box, [svg("path", { d: ICONS[name], class: "qxg-icon" })]);
  const button = html("button", { class: "qxg-button", title, "aria-label": title }, [icon]);
  button.addEventListener("click", onClick);
  return button;
}
var sample = (drawing) => svg("svg", { width: 34, height: 24, viewBox: "-17 -12 34 24", "aria-hidden": "true" }, [drawing]);
var mark = (kind, letter, more = {}) => sample(drawMark({ kind, letter, ...more }, 0, 0));
function frame(names, look) {
  const behind = { x: -11, y: -5, width: 26, height: 14, rx: 4, class: "qxg-behind" };
  const inner = { x: -11.5, y: -5.5, width: 23, height: 10, rx: 2, class: "qxg-inner" };
  const outer = { x: -14, y: -8, width: 28, height: 15, rx: 4, class: "qxg-frame" };
  const parts2 = [
    look === "fold" && svg("rect", { ...behind, x: -7, y: -2 }),
    look !== "inner" && svg("rect", behind),
    svg("rect", outer),
    look === "inner" && svg("rect", inner)
  ];
  return sample(svg("g", { class: `qxg-item ${names}` }, parts2));
}
var passSample = () => [
  svg("path", { d: "M0 -11V11", class: "qxg-line" }),
  svg("circle", { r: 3.2, class: "qxg-dot" })
];
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
    finding: [...groups, ...nodes].some((item) => item.finding)
  };
}
var legendRows = () => [
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
    "a check found something"
  ],
  ["int8", frame("qxg-node qxg-is-int8", "inner"), "computes in int8"],
  ["group", frame("qxg-closed", "behind"), "group, Enter or ▸ opens it"],
  ["fold", frame("qxg-closed qxg-fold", "fold"), "×5: equal blocks in a row, a click opens them"],
  ["pass", sample(svg("g", { class: "qxg-pass" }, passSample())), "passes an Identity"]
];
var legendBox = () => html("div", { class: "qxg-legend", role: "note", "aria-label": "Legend" });
function paintLegend(box, index) {
  const has = contentsOf(index);
  const rows = legendRows().filter(([what]) => has[what]);
  box.replaceChildren(
    ...rows.map(([, picture, text]) => html("div", {}, [picture, html("span", { text })]))
  );
  box.classList.toggle("qxg-bare", !rows.length);
}

// graph/camera.js
var READABLE = 0.85;
var LEGIBLE = 0.56;
var MOST = 4;
var MARGIN = 20;
var KEPT = 48;
function shiftIntoView(start, length, room) {
  const margin = 24;
  if (length > room - 2 * margin) {
    const covers = start <= margin && start + length >= room - margin;
    return covers ? 0 : margin - start;
  }
  if (start < margin) return margin - start;
  return start + length > room - margin ? room - margin - start - length : 0;
}
var wholeScale = (picture, window2) => Math.min((window2.w - 2 * MARGIN) / picture.w, (window2.h - 2 * MARGIN) / picture.h);
var keptInView = (at, length, room) => Math.min(room - KEPT, Math.max(KEPT - length, at));
function middleWithin(at, length, room, margin) {
  if (length + 2 * margin <= room) return length / 2;
  return Math.min(length + margin - room / 2, Math.max(room / 2 - margin, at));
}
var Camera = class {
  /**
   * @param {SVGSVGElement} window what is looked through
   * @param {SVGGElement} world what is looked at
   */
  constructor(window2, world) {
    this.window = window2;
    this.world = world;
    this.x = 0;
    this.y = 0;
    this.k = 1;
    this.extent = { w: 1, h: 1 };
    this.moved = false;
    this.seenIn = { w: 0, h: 0 };
    this.onMove = () => {
    };
  }
  /** What is seen, in the picture's px. @returns {Box} */
  get view() {
    const { w, h } = this.size;
    const { x, y, k } = this;
    return { x: -x / k, y: -y / k, w: w / k, h: h / k };
  }
  /** The least scale: the whole picture is seen, or its names get too small to read. */
  get least() {
    return Math.min(LEGIBLE, wholeScale(this.extent, this.size));
  }
  get size() {
    return { w: this.window.clientWidth || 800, h: this.window.clientHeight || 500 };
  }
  /** @param {{ x: number, y: number, k?: number }} to */
  set({ x, y, k = this.k }) {
    Object.assign(this, { x, y, k });
    this.seenIn = this.size;
    this.world.setAttribute("transform", `translate(${x} ${y}) scale(${k})`);
    this.onMove();
  }
  /**
   * @param {number} dx
   * @param {number} dy
   */
  panBy(dx, dy) {
    this.moved = true;
    this.set({ x: this.x + dx, y: this.y + dy });
  }
  /**
   * Pans as the user asks: some of the picture stays in the window.
   * @param {number} dx
   * @param {number} dy
   */
  dragBy(dx, dy) {
    const { extent, k, size } = this;
    const x = keptInView(this.x + dx, extent.w * k, size.w);
    const y = keptInView(this.y + dy, extent.h * k, size.h);
    this.panBy(x - this.x, y - this.y);
  }
  /**
   * After the window got another size: what was in the middle across the tensors' way stays there.
   * @param {boolean} lr
   */
  keepMiddle(lr) {
    const { size, seenIn } = this;
    this.dragBy(lr ? 0 : (size.w - seenIn.w) / 2, lr ? (size.h - seenIn.h) / 2 : 0);
  }
  /**
   * Brings a point of the picture to the middle of the window, or as near as shows no more than a
   * margin beside the picture.
   * @param {number} px
   * @param {number} py
   */
  lookAt(px, py) {
    const { k, extent, size } = this;
    const x = middleWithin(px, extent.w, size.w / k, MARGIN / k);
    const y = middleWithin(py, extent.h, size.h / k, MARGIN / k);
    this.panBy(size.w / 2 - x * k - this.x, size.h / 2 - y * k - this.y);
  }
  /**
   * Zooms around a point of the window, around its middle if none is given.
   * @param {number} factor
   * @param {[x: number, y: number]} [around]
   */
  zoomBy(factor, around) {
    const { w, h } = this.size;
    const [cx, cy] = around ?? [w / 2, h / 2];
    const k = Math.min(MOST, Math.max(Math.min(this.k, this.least), this.k * factor));
    this.moved = true;
    const real = k / this.k;
    this.set({ k, x: cx - (cx - this.x) * real, y: cy - (cy - this.y) * real });
  }
  /**
   * Shows `box` as large as fits between two scales.
   * @param {Box} box
   * @param {number} least
   * @param {number} most
   * @param {boolean} lr
   */
  frame(box, least, most, lr) {
    this.moved = true;
    const { w, h } = this.size;
    const margin = MARGIN;
    const k = Math.min(most, Math.max(least, wholeScale(box, this.size)));
    const centre = (room, size) => (room - size * k) / 2;
    const x = box.w * k > w - margin && lr ? margin : centre(w, box.w);
    const y = box.h * k > h - margin ? margin : centre(h, box.h);
    this.set({ k, x: x - box.x * k, y: y - box.y * k });
  }
  /**
   * The whole picture, however small it gets.
   * @param {import("./geometry.js").Picture} picture
   */
  fit({ w, h, lr }) {
    this.frame({ x: 0, y: 0, w, h }, 0, 1.15, lr);
    this.moved = false;
  }
  /**
   * The whole picture if it stays readable, else its beginning.
   * @param {import("./geometry.js").Picture} picture
   */
  fitReadable({ w, h, lr }) {
    this.frame({ x: 0, y: 0, w, h }, READABLE, 1.15, lr);
    this.moved = false;
  }
  /** Pans as little as needed to show `box`; does nothing if it is in view. @param {Box} box */
  reveal(box) {
    const { w, h } = this.size;
    const dx = shiftIntoView(box.x * this.k + this.x, box.w * this.k, w);
    const dy = shiftIntoView(box.y * this.k + this.y, box.h * this.k, h);
    if (dx || dy) this.panBy(dx, dy);
  }
  /**
   * The one of `boxes` nearest to the middle of the window.
   * @template {Box} B
   * @param {B[]} boxes
   */
  nearest(boxes) {
    const { w, h } = this.size;
    const [cx, cy] = [(w / 2 - this.x) / this.k, (h / 2 - this.y) / this.k];
    const far = (box) => Math.hypot(box.x + box.w / 2 - cx, box.y + box.h / 2 - cy);
    let best = [Number.POSITIVE_INFINITY, null];
    for (const box of boxes) if (far(box) < best[0]) best = [far(box), box];
    return best[1];
  }
};

// graph/draw.js
function itemLabel(item) {
  const parts2 = [titleOf(item), subText(item)];
  if (item.precision === "int8") parts2.push("int8");
  if (item.sites && siteTotal(item)) {
    const { weight, input, output } = item.sites;
    parts2.push(`${weight} weight, ${input} input, ${output} output fake quants inside`);
  } else if (!item.sites && item.marks.length) {
    parts2.push(`${item.marks.length} fake quant${item.marks.length === 1 ? "" : "s"}`);
  }
  if (item.twice) parts2.push(`${item.twice} fake-quantized twice inside`);
  if (item.finding) parts2.push(item.finding.words);
  if (item.changed) parts2.push("changed in this step");
  else if (item.inside) parts2.push("something inside changed in this step");
  return parts2.filter(Boolean).join(", ");
}
var itemAttributes = (item, box, prefix, names) => ({
  class: names.join(" "),
  transform: `translate(${box.x} ${box.y})`,
  id: `${prefix}${item.id}`,
  "data-item": item.id,
  "data-sel": item.sel,
  role: "button",
  "aria-label": itemLabel(item)
});
var isPort = (item) => item.op === "placeholder" || item.op === "output";
function boxNames(item) {
  const names = ["qxg-item", item.children ? "qxg-closed" : "qxg-node"];
  if (item.repeat) names.push("qxg-fold");
  if (item.precision && item.precision !== "float") names.push(`qxg-is-${item.precision}`);
  if (isPort(item)) names.push("qxg-io");
  if (item.changed || item.inside) names.push("qxg-changed");
  return names;
}
function drawBox(index, box, prefix) {
  const item = itemOf(index, box.id);
  const isGroup = Boolean(item.children);
  const isInt8 = item.precision === "int8";
  const { bx, by, bw, bh } = box;
  const round = isPort(item) ? bh / 2 : 6;
  const rect = (grow, name, shift = 0) => svg("rect", {
    x: bx - grow + shift,
    y: by - grow + shift,
    width: bw + 2 * grow,
    height: bh + 2 * grow,
    rx: Math.max(round + grow, 1),
    class: name
  });
  const marked = item.changed || item.inside;
  const mid = bx + bw / 2;
  const cx = isGroup ? mid + 8 : isInt8 ? mid - 16 : mid;
  const attributes = itemAttributes(item, box, prefix, boxNames(item));
  const g = svg("g", { ...attributes, "aria-expanded": isGroup ? "false" : null }, [
    item.repeat !== void 0 && rect(0, "qxg-behind", 8),
    isGroup && rect(0, "qxg-behind", 4),
    rect(3.5, "qxg-ring"),
    rect(0, "qxg-frame"),
    isInt8 && rect(-3, "qxg-inner"),
    svgText(cx, by + (box.sub ? 18 : 19), "qxg-label", box.label),
    box.sub && svgText(mid, by + 33, "qxg-sub", box.sub),
    isInt8 && drawInt8(bx + bw - 25, by + 14),
    isGroup && drawChevron(bx + 16, by + 14, false)
  ]);
  if (box.chips) {
    if (item.sites) g.append(...drawCounts(countPlaces(item), bx, by + bh - 12));
    else g.append(...drawSites(index, box.inner, bx + 18, by + bh - 13));
  }
  g.append(...drawAround(index, box));
  g.append(...drawSigns(item, Boolean(marked), bx + bw - 1, by + 1, by + bh - 1));
  return g;
}
function drawSigns(item, changed, x, top, bottom) {
  const signs = [];
  if (changed) signs.push(drawDelta(x, top));
  if (item.finding) signs.push(drawFinding(item.finding, x, bottom));
  return signs;
}
function drawAround(index, box) {
  const { bx, by, bw, bh, roles, w, h, lr } = box;
  const parts2 = [];
  const beside = roles.side.slice(0, 2);
  for (const [i, path] of beside.entries()) {
    const off = (i - (beside.length - 1) / 2) * 20;
    const [x, y] = lr ? [bx + 16 + i * 20, by] : [bx, by + bh / 2 + off];
    parts2.push(drawSite(index, path, x, y));
  }
  if (!roles.tail.length) return parts2;
  const stem = lr ? `M${bx + bw} ${by + bh / 2} H${w}` : `M${bx + bw / 2} ${by + bh} V${h}`;
  parts2.push(svg("path", { d: stem, class: "qxg-stem" }));
  const shown = roles.tail.slice(0, MAX_ITEM_MARKS - 1);
  for (const [i, path] of shown.entries()) {
    const off = (i - (shown.length - 1) / 2) * 20;
    const [x, y] = lr ? [bx + bw + 15, by + bh / 2 + off] : [bx + bw / 2 + off, by + bh + 15];
    parts2.push(drawSite(index, path, x, y));
  }
  return parts2;
}
function drawOpen(index, box, isRoot, prefix) {
  const item = itemOf(index, box.id);
  const names = ["qxg-item", "qxg-open"];
  if (item.changed) names.push("qxg-changed");
  const frame2 = (grow, name) => svg("rect", {
    x: -grow,
    y: -grow,
    width: box.w + 2 * grow,
    height: box.h + 2 * grow,
    rx: 8 + grow,
    class: name
  });
  const title = `M0 ${HEADER} V8 Q0 0 8 0 H${box.w - 8} Q${box.w} 0 ${box.w} 8 V${HEADER} Z`;
  const attributes = itemAttributes(item, box, prefix, names);
  const left = isRoot ? 12 : 30;
  const g = svg("g", { ...attributes, "aria-expanded": "true" }, [
    frame2(3.5, "qxg-ring"),
    frame2(0, "qxg-frame"),
    svg("path", { d: title, class: "qxg-title" }),
    frame2(0, "qxg-outline"),
    !isRoot && drawChevron(16, HEADER / 2, true),
    svgText(left, 19.5, "qxg-label qxg-left", box.label),
    box.sub && svgText(left + 8 + box.labelWidth, 19.5, "qxg-sub qxg-left", box.sub)
  ]);
  const paths = item.marks.map((mark2) => mark2.site);
  const room = Math.min(paths.length, MAX_ITEM_MARKS) * 22;
  g.append(...drawSites(index, paths, box.w - room, HEADER / 2));
  g.append(...drawSigns(item, item.changed, box.w - 1, 1, HEADER));
  return g;
}
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
function loopPath(box) {
  if (!box) return "";
  const right = box.open ? box.w : box.bx + box.bw;
  const [x, y] = [box.x + right, box.y + box.h / 2];
  return `M${x} ${y - 8} C${x + 26} ${y - 18} ${x + 26} ${y + 18} ${x + 3} ${y + 8}`;
}
function drawEdge(index, edge, picture, prefix) {
  const { points, list, many, back, arrow, from } = edge;
  const d = points ? edgePath(points, picture.lr) : loopPath(picture.boxes.get(from ?? ""));
  const twice = list.find((i) => index.redundant.has(i));
  const names = ["qxg-edge"];
  if (back) names.push("qxg-back");
  if (many) names.push("qxg-many");
  if (twice !== void 0) names.push("qxg-twice");
  return svg("g", { class: names.join(" "), "data-edge": twice ?? list[0] }, [
    svg("path", { d, class: "qxg-wide" }),
    svg("path", { d, class: "qxg-line", "marker-end": arrow && `url(#${prefix}arrow)` }),
    twice !== void 0 && points !== null && drawTwice(points)
  ]);
}
function addPass(index, { points, list, via }, element, drawn) {
  if (!points || !via.length) return;
  const at = pointAlong(points, list.some((i) => index.redundant.has(i)) ? 0.08 : 0.5);
  const dot = drawPass(
    via.map((id) => itemOf(index, id)),
    at
  );
  element.append(dot);
  for (const id of via) drawn.passes.set(id, { element: dot, at });
}
function drawPicture(index, picture, world, root, prefix) {
  const drawn = { elements: /* @__PURE__ */ new Map(), edgeElements: [], passes: /* @__PURE__ */ new Map() };
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

// graph/layered.js
function buildGraph(dagre, spec) {
  const g = new dagre.graphlib.Graph({ multigraph: true });
  g.setGraph({
    rankdir: "TB",
    nodesep: spec.gap,
    edgesep: 14,
    ranksep: spec.rankGap,
    marginx: 0,
    marginy: 0,
    ranker: spec.nodes.length > 150 ? "longest-path" : "network-simplex"
  });
  g.setDefaultEdgeLabel(() => ({}));
  const ports = /* @__PURE__ */ new Map();
  for (const [id, w, h, inX, outX] of spec.nodes) {
    g.setNode(id, { width: w, height: h });
    ports.set(id, [inX, outX]);
  }
  const fed = /* @__PURE__ */ new Set();
  const feeds = /* @__PURE__ */ new Set();
  for (const [key, a, b, back] of spec.edges) {
    if (a === b) continue;
    const [from, to] = back ? [b, a] : [a, b];
    g.setEdge(from, to, { weight: back ? 0 : 2 }, key);
    fed.add(to);
    feeds.add(from);
  }
  const addPort = (name, real, tied, toNode) => {
    if (!real.length) return;
    g.setNode(name, { width: 2, height: 2 });
    ports.set(name, [0, 0]);
    const wanted = new Set(real);
    const loose = spec.nodes.map(([id]) => id).filter((id) => !tied.has(id));
    for (const id of /* @__PURE__ */ new Set([...real, ...loose])) {
      const [v, w] = toNode ? [name, id] : [id, name];
      g.setEdge(v, w, { weight: wanted.has(id) ? 1 : 0 }, `${name}${id}`);
    }
  };
  addPort("@in", spec.ins, fed, true);
  addPort("@out", spec.outs, feeds, false);
  return { g, ports };
}
function rankOf(y) {
  return Math.round(y * 4);
}
function measureRanks(g) {
  const ranks = /* @__PURE__ */ new Map();
  let [w, h] = [0, 0];
  for (const id of g.nodes()) {
    const n = g.node(id);
    const { top, bottom } = ranks.get(rankOf(n.y)) ?? { top: n.y, bottom: n.y };
    const half = n.height / 2;
    ranks.set(rankOf(n.y), {
      top: Math.min(top, n.y - half),
      bottom: Math.max(bottom, n.y + half)
    });
    w = Math.max(w, n.x + n.width / 2);
    h = Math.max(h, n.y + half);
  }
  return { ranks, w, h };
}
function route(g, ranks, ports, v, w, name) {
  const [a, b] = [g.node(v), g.node(w)];
  const start = [a.x + (ports.get(v)?.[1] ?? 0), a.y + a.height / 2];
  const end = [b.x + (ports.get(w)?.[0] ?? 0), b.y - b.height / 2];
  const first = ranks.get(rankOf(a.y))?.bottom ?? start[1];
  const last = ranks.get(rankOf(b.y))?.top ?? end[1];
  const points = [start];
  if (first - start[1] > 1) points.push([start[0], first]);
  for (const p of g.edge(v, w, name).points.slice(1, -1)) {
    const rank = ranks.get(rankOf(p.y));
    if (rank) points.push([p.x, rank.top], [p.x, rank.bottom]);
  }
  if (end[1] - last > 1) points.push([end[0], last]);
  points.push(end);
  return points;
}
function layoutOne(dagre, spec) {
  const { g, ports } = buildGraph(dagre, spec);
  dagre.layout(g);
  const { ranks, w, h } = measureRanks(g);
  const out = { w, h, pos: {}, edges: {}, ins: {}, outs: {}, in: null, out: null };
  for (const [key, a, b, back] of spec.edges) {
    if (a === b) continue;
    const [from, to] = back ? [b, a] : [a, b];
    const points2 = route(g, ranks, ports, from, to, key);
    out.edges[key] = back ? points2.reverse() : points2;
  }
  for (const id of spec.ins) out.ins[id] = route(g, ranks, ports, "@in", id, `@in${id}`);
  for (const id of spec.outs) out.outs[id] = route(g, ranks, ports, id, "@out", `@out${id}`);
  const points = [out.edges, out.ins, out.outs].flatMap((table) => Object.values(table)).flat();
  const left = points.reduce((least, [x]) => Math.min(least, x), 0);
  const right = points.reduce((most, [x]) => Math.max(most, x), w);
  for (const point of points) point[0] -= left;
  for (const [id] of spec.nodes) out.pos[id] = [g.node(id).x - left, g.node(id).y];
  if (spec.ins.length) out.in = g.node("@in").x - left;
  if (spec.outs.length) out.out = g.node("@out").x - left;
  out.w = right - left;
  return out;
}
function workerText(dagreText) {
  const functions = [buildGraph, rankOf, measureRanks, route, layoutOne].map(String);
  return `${dagreText}
${functions.join("\n")}
onmessage = ({ data: { id, spec } }) => {
  try {
    postMessage({ id, result: ${layoutOne.name}(dagre, spec) });
  } catch (error) {
    postMessage({ id, error: String(error) });
  }
};`;
}

// graph/vendor/dagre/dagre.min.js
var dagre_min_default = '"use strict";var dagre=(()=>{var J=Object.defineProperty;var Mn=Object.getOwnPropertyDescriptor;var Pn=Object.getOwnPropertyNames;var Fn=Object.prototype.hasOwnProperty;var Dn=(e,n,t)=>n in e?J(e,n,{enumerable:!0,configurable:!0,writable:!0,value:t}):e[n]=t;var je=(e,n)=>{for(var t in n)J(e,t,{get:n[t],enumerable:!0})},An=(e,n,t,r)=>{if(n&&typeof n=="object"||typeof n=="function")for(let o of Pn(n))!Fn.call(e,o)&&o!==t&&J(e,o,{get:()=>n[o],enumerable:!(r=Mn(n,o))||r.enumerable});return e};var Vn=e=>An(J({},"__esModule",{value:!0}),e);var Re=(e,n,t)=>Dn(e,typeof n!="symbol"?n+"":n,t);var Sr={};je(Sr,{Graph:()=>T,debug:()=>de,default:()=>Ir,graphlib:()=>ee,layout:()=>ae,util:()=>jr,version:()=>re});var ee={};je(ee,{Graph:()=>T,alg:()=>H});var Yn=Object.defineProperty,Me=(e,n)=>{for(var t in n)Yn(e,t,{get:n[t],enumerable:!0})},Z=class{constructor(e){this._isDirected=!0,this._isMultigraph=!1,this._isCompound=!1,this._nodes={},this._in={},this._preds={},this._out={},this._sucs={},this._edgeObjs={},this._edgeLabels={},this._nodeCount=0,this._edgeCount=0,this._defaultNodeLabelFn=()=>{},this._defaultEdgeLabelFn=()=>{},e&&(this._isDirected="directed"in e?e.directed:!0,this._isMultigraph="multigraph"in e?e.multigraph:!1,this._isCompound="compound"in e?e.compound:!1),this._isCompound&&(this._parent={},this._children={},this._children["\\0"]={})}isDirected(){return this._isDirected}isMultigraph(){return this._isMultigraph}isCompound(){return this._isCompound}setGraph(e){return this._label=e,this}graph(){return this._label}setDefaultNodeLabel(e){return typeof e!="function"?this._defaultNodeLabelFn=()=>e:this._defaultNodeLabelFn=e,this}nodeCount(){return this._nodeCount}nodes(){return Object.keys(this._nodes)}sources(){return this.nodes().filter(e=>Object.keys(this._in[e]).length===0)}sinks(){return this.nodes().filter(e=>Object.keys(this._out[e]).length===0)}setNodes(e,n){return e.forEach(t=>{n!==void 0?this.setNode(t,n):this.setNode(t)}),this}setNode(e,n){return e in this._nodes?(arguments.length>1&&(this._nodes[e]=n),this):(this._nodes[e]=arguments.length>1?n:this._defaultNodeLabelFn(e),this._isCompound&&(this._parent[e]="\\0",this._children[e]={},this._children["\\0"][e]=!0),this._in[e]={},this._preds[e]={},this._out[e]={},this._sucs[e]={},++this._nodeCount,this)}node(e){return this._nodes[e]}hasNode(e){return e in this._nodes}removeNode(e){if(e in this._nodes){let n=t=>this.removeEdge(this._edgeObjs[t]);delete this._nodes[e],this._isCompound&&(this._removeFromParentsChildList(e),delete this._parent[e],this.children(e).forEach(t=>{this.setParent(t)}),delete this._children[e]),Object.keys(this._in[e]).forEach(n),delete this._in[e],delete this._preds[e],Object.keys(this._out[e]).forEach(n),delete this._out[e],delete this._sucs[e],--this._nodeCount}return this}setParent(e,n){if(!this._isCompound)throw new Error("Cannot set parent in a non-compound graph");if(n===void 0)n="\\0";else{n+="";for(let t=n;t!==void 0;t=this.parent(t))if(t===e)throw new Error("Setting "+n+" as parent of "+e+" would create a cycle");this.setNode(n)}return this.setNode(e),this._removeFromParentsChildList(e),this._parent[e]=n,this._children[n][e]=!0,this}parent(e){if(this._isCompound){let n=this._parent[e];if(n!=="\\0")return n}}children(e="\\0"){if(this._isCompound){let n=this._children[e];if(n)return Object.keys(n)}else{if(e==="\\0")return this.nodes();if(this.hasNode(e))return[]}return[]}predecessors(e){let n=this._preds[e];if(n)return Object.keys(n)}successors(e){let n=this._sucs[e];if(n)return Object.keys(n)}neighbors(e){let n=this.predecessors(e);if(n){let t=new Set(n),r=this.successors(e);if(r)for(let o of r)t.add(o);return Array.from(t.values())}}isLeaf(e){var n;let t;return this.isDirected()?t=this.successors(e):t=this.neighbors(e),((n=t==null?void 0:t.length)!=null?n:0)===0}filterNodes(e){let n=new this.constructor({directed:this._isDirected,multigraph:this._isMultigraph,compound:this._isCompound});n.setGraph(this.graph()),Object.entries(this._nodes).forEach(([o,i])=>{e(o)&&n.setNode(o,i)}),Object.values(this._edgeObjs).forEach(o=>{n.hasNode(o.v)&&n.hasNode(o.w)&&n.setEdge(o,this.edge(o))});let t={},r=o=>{let i=this.parent(o);return!i||n.hasNode(i)?(t[o]=i,i):i in t?t[i]:r(i)};return this._isCompound&&n.nodes().forEach(o=>n.setParent(o,r(o))),n}setDefaultEdgeLabel(e){return typeof e!="function"?this._defaultEdgeLabelFn=()=>e:this._defaultEdgeLabelFn=e,this}edgeCount(){return this._edgeCount}edges(){return Object.values(this._edgeObjs)}setPath(e,n){return e.reduce((t,r)=>(n!==void 0?this.setEdge(t,r,n):this.setEdge(t,r),r)),this}setEdge(e,n,t,r){let o,i,s,a,l=!1;typeof e=="object"&&e!==null&&"v"in e?(o=e.v,i=e.w,s=e.name,arguments.length===2&&(a=n,l=!0)):(o=e,i=n,s=r,arguments.length>2&&(a=t,l=!0)),o=""+o,i=""+i,s!==void 0&&(s=""+s);let u=z(this._isDirected,o,i,s);if(u in this._edgeLabels)return l&&(this._edgeLabels[u]=a),this;if(s!==void 0&&!this._isMultigraph)throw new Error("Cannot set a named edge when isMultigraph = false");this.setNode(o),this.setNode(i),this._edgeLabels[u]=l?a:this._defaultEdgeLabelFn(o,i,s);let d=Bn(this._isDirected,o,i,s);return o=d.v,i=d.w,Object.freeze(d),this._edgeObjs[u]=d,Ie(this._preds[i],o),Ie(this._sucs[o],i),this._in[i][u]=d,this._out[o][u]=d,this._edgeCount++,this}edge(e,n,t){let r=arguments.length===1?le(this._isDirected,e):z(this._isDirected,e,n,t);return this._edgeLabels[r]}edgeAsObj(e,n,t){let r=arguments.length===1?this.edge(e):this.edge(e,n,t);return typeof r!="object"||r===null?{label:r}:r}hasEdge(e,n,t){return(arguments.length===1?le(this._isDirected,e):z(this._isDirected,e,n,t))in this._edgeLabels}removeEdge(e,n,t){let r=arguments.length===1?le(this._isDirected,e):z(this._isDirected,e,n,t),o=this._edgeObjs[r];if(o){let i=o.v,s=o.w;delete this._edgeLabels[r],delete this._edgeObjs[r],Se(this._preds[s],i),Se(this._sucs[i],s),delete this._in[s][r],delete this._out[i][r],this._edgeCount--}return this}inEdges(e,n){return this.isDirected()?this.filterEdges(this._in[e],e,n):this.nodeEdges(e,n)}outEdges(e,n){return this.isDirected()?this.filterEdges(this._out[e],e,n):this.nodeEdges(e,n)}nodeEdges(e,n){if(e in this._nodes)return this.filterEdges({...this._in[e],...this._out[e]},e,n)}_removeFromParentsChildList(e){delete this._children[this._parent[e]][e]}filterEdges(e,n,t){if(!e)return;let r=Object.values(e);return t?r.filter(o=>o.v===n&&o.w===t||o.v===t&&o.w===n):r}};function Ie(e,n){e[n]?e[n]++:e[n]=1}function Se(e,n){e[n]!==void 0&&!--e[n]&&delete e[n]}function z(e,n,t,r){let o=""+n,i=""+t;if(!e&&o>i){let s=o;o=i,i=s}return o+""+i+""+(r===void 0?"\\0":r)}function Bn(e,n,t,r){let o=""+n,i=""+t;if(!e&&o>i){let a=o;o=i,i=a}let s={v:o,w:i};return r&&(s.name=r),s}function le(e,n){return z(e,n.v,n.w,n.name)}var Wn={};Me(Wn,{read:()=>qn,write:()=>Xn});function Xn(e){let n={options:{directed:e.isDirected(),multigraph:e.isMultigraph(),compound:e.isCompound()},nodes:zn(e),edges:Hn(e)},t=e.graph();return t!==void 0&&(n.value=structuredClone(t)),n}function zn(e){return e.nodes().map(n=>{let t=e.node(n),r=e.parent(n),o={v:n};return t!==void 0&&(o.value=t),r!==void 0&&(o.parent=r),o})}function Hn(e){return e.edges().map(n=>{let t=e.edge(n),r={v:n.v,w:n.w};return n.name!==void 0&&(r.name=n.name),t!==void 0&&(r.value=t),r})}function qn(e){let n=new Z(e.options);return e.value!==void 0&&n.setGraph(e.value),e.nodes.forEach(t=>{n.setNode(t.v,t.value),t.parent&&n.setParent(t.v,t.parent)}),e.edges.forEach(t=>{n.setEdge({v:t.v,w:t.w,name:t.name},t.value)}),n}var H={};Me(H,{CycleException:()=>Q,bellmanFord:()=>Pe,components:()=>Jn,dijkstra:()=>K,dijkstraAll:()=>Zn,findCycles:()=>et,floydWarshall:()=>tt,isAcyclic:()=>ot,postorder:()=>st,preorder:()=>at,prim:()=>dt,shortestPaths:()=>lt,tarjan:()=>De,topsort:()=>Ae});var $n=()=>1;function Pe(e,n,t,r){return Un(e,String(n),t||$n,r||function(o){var i;return(i=e.outEdges(o))!=null?i:[]})}function Un(e,n,t,r){let o={},i,s=0,a=e.nodes(),l=function(c){let f=o[c.v],h=o[c.w];if(!f||!h)return;let g=t(c);f.distance+g<h.distance&&(o[c.w]={distance:f.distance+g,predecessor:c.v},i=!0)},u=function(){a.forEach(function(c){r(c).forEach(function(f){let h=f.v===c?f.v:f.w,g=h===f.v?f.w:f.v;l({v:h,w:g})})})};a.forEach(function(c){let f=c===n?0:Number.POSITIVE_INFINITY;o[c]={distance:f,predecessor:""}});let d=a.length;for(let c=1;c<d&&(i=!1,s++,u(),!!i);c++);if(s===d-1&&(i=!1,u(),i))throw new Error("The graph contains a negative weight cycle");return o}function Jn(e){let n={},t=[],r;function o(i){var s,a;i in n||(n[i]=!0,r.push(i),(s=e.successors(i))==null||s.forEach(o),(a=e.predecessors(i))==null||a.forEach(o))}return e.nodes().forEach(function(i){r=[],o(i),r.length&&t.push(r)}),t}var Fe=class{constructor(){this._arr=[],this._keyIndices={}}size(){return this._arr.length}keys(){return this._arr.map(e=>e.key)}has(e){return e in this._keyIndices}priority(e){let n=this._keyIndices[e];if(n!==void 0)return this._arr[n].priority}min(){if(this.size()===0)throw new Error("Queue underflow");return this._arr[0].key}add(e,n){let t=this._keyIndices,r=String(e);if(!(r in t)){let o=this._arr,i=o.length;return t[r]=i,o.push({key:r,priority:n}),this._decrease(i),!0}return!1}removeMin(){if(this.size()===0)throw new Error("Queue underflow");this._swap(0,this._arr.length-1);let e=this._arr.pop();return delete this._keyIndices[e.key],this._heapify(0),e.key}decrease(e,n){let t=this._keyIndices[e];if(t===void 0)throw new Error(`Key not found: ${e}`);let r=this._arr[t].priority;if(n>r)throw new Error(`New priority is greater than current priority. Key: ${e} Old: ${r} New: ${n}`);this._arr[t].priority=n,this._decrease(t)}_heapify(e){let n=this._arr,t=2*e,r=t+1,o=e;t<n.length&&(o=n[t].priority<n[o].priority?t:o,r<n.length&&(o=n[r].priority<n[o].priority?r:o),o!==e&&(this._swap(e,o),this._heapify(o)))}_decrease(e){let n=this._arr,t=n[e].priority,r;for(;e!==0&&(r=e>>1,!(n[r].priority<t));)this._swap(e,r),e=r}_swap(e,n){let t=this._arr,r=this._keyIndices,o=t[e],i=t[n];t[e]=i,t[n]=o,r[i.key]=e,r[o.key]=n}},Kn=()=>1;function K(e,n,t,r){let o=function(i){var s;return(s=e.outEdges(i))!=null?s:[]};return Qn(e,String(n),t||Kn,r||o)}function Qn(e,n,t,r){let o={},i=new Fe,s,a,l=function(u){let d=u.v!==s?u.v:u.w,c=o[d];if(!c)return;let f=t(u),h=a.distance+f;if(f<0)throw new Error("dijkstra does not allow negative edge weights. Bad edge: "+u+" Weight: "+f);h<c.distance&&(c.distance=h,c.predecessor=s,i.decrease(d,h))};for(e.nodes().forEach(function(u){let d=u===n?0:Number.POSITIVE_INFINITY;o[u]={distance:d,predecessor:""},i.add(u,d)});i.size()>0;){s=i.removeMin();let u=o[s];if(!u||u.distance===Number.POSITIVE_INFINITY)break;a=u,r(s).forEach(l)}return o}function Zn(e,n,t){return e.nodes().reduce(function(r,o){return r[o]=K(e,o,n,t),r},{})}function De(e){let n=0,t=[],r={},o=[];function i(s){var a;let l=r[s]={onStack:!0,lowlink:n,index:n++};if(t.push(s),(a=e.successors(s))==null||a.forEach(function(u){if(u in r){let d=r[u];d!=null&&d.onStack&&(l.lowlink=Math.min(l.lowlink,d.index))}else{i(u);let d=r[u];d&&(l.lowlink=Math.min(l.lowlink,d.lowlink))}}),l.lowlink===l.index){let u=[],d;do{d=t.pop();let c=r[d];c&&(c.onStack=!1),u.push(d)}while(s!==d);o.push(u)}}return e.nodes().forEach(function(s){s in r||i(s)}),o}function et(e){return De(e).filter(function(n){var t;let r=n[0];return r?n.length>1||n.length===1&&((t=e.outEdges(r,r))!=null?t:[]).length>0:!1})}var nt=()=>1;function tt(e,n,t){return rt(e,n||nt,t||function(r){var o;return(o=e.outEdges(r))!=null?o:[]})}function rt(e,n,t){let r={},o=e.nodes();return o.forEach(function(i){let s={};r[i]=s,s[i]={distance:0,predecessor:""},o.forEach(function(a){i!==a&&(s[a]={distance:Number.POSITIVE_INFINITY,predecessor:""})}),t(i).forEach(function(a){let l=a.v===i?a.w:a.v,u=n(a);s[l]={distance:u,predecessor:i}})}),o.forEach(function(i){let s=r[i];s&&o.forEach(function(a){let l=r[a];l&&o.forEach(function(u){let d=l[i],c=s[u],f=l[u];if(d&&c&&f){let h=d.distance+c.distance;h<f.distance&&(f.distance=h,f.predecessor=c.predecessor)}})})}),r}var Q=class extends Error{constructor(e){super(e),this.name="CycleException"}};function Ae(e){let n={},t={},r=[];function o(i){var s;if(i in t)throw new Q;i in n||(t[i]=!0,n[i]=!0,(s=e.predecessors(i))==null||s.forEach(o),delete t[i],r.push(i))}if(e.sinks().forEach(o),Object.keys(n).length!==e.nodeCount())throw new Q;return r}function ot(e){try{Ae(e)}catch(n){if(n instanceof Q)return!1;throw n}return!0}function it(e,n,t,r,o){Array.isArray(n)||(n=[n]);let i=(a=>{var l;return(l=e.isDirected()?e.successors(a):e.neighbors(a))!=null?l:[]}),s={};return n.forEach(function(a){if(!e.hasNode(a))throw new Error("Graph does not have node: "+a);o=Ve(e,a,t==="post",s,i,r,o)}),o}function Ve(e,n,t,r,o,i,s){return n in r||(r[n]=!0,t||(s=i(s,n)),o(n).forEach(function(a){s=Ve(e,a,t,r,o,i,s)}),t&&(s=i(s,n))),s}function Ye(e,n,t){return it(e,n,t,function(r,o){return r.push(o),r},[])}function st(e,n){return Ye(e,n,"post")}function at(e,n){return Ye(e,n,"pre")}function dt(e,n){var t;let r=new Z,o={},i=new Fe,s;function a(d){let c=d.v===s?d.w:d.v,f=i.priority(c);if(f!==void 0){let h=n(d);h<f&&(o[c]=s,i.decrease(c,h))}}if(e.nodeCount()===0)return r;e.nodes().forEach(function(d){i.add(d,Number.POSITIVE_INFINITY),r.setNode(d)});let l=e.nodes()[0];l!==void 0&&i.decrease(l,0);let u=!1;for(;i.size()>0;){if(s=i.removeMin(),s in o)r.setEdge(s,o[s]);else{if(u)throw new Error("Input graph is not connected: "+e);u=!0}(t=e.nodeEdges(s))==null||t.forEach(a)}return r}function lt(e,n,t,r){return ut(e,n,t,r!=null?r:(o=>{var i;return(i=e.outEdges(o))!=null?i:[]}))}function ut(e,n,t,r){if(t===void 0)return K(e,n,t,r);let o=!1,i=e.nodes();for(let s=0;s<i.length;s++){let a=i[s];if(a===void 0)continue;let l=r(a);for(let u=0;u<l.length;u++){let d=l[u];if(!d)continue;let c=d.v===a?d.v:d.w,f=c===d.v?d.w:d.v;t({v:c,w:f})<0&&(o=!0)}if(o)return Pe(e,n,t,r)}return K(e,n,t,r)}var T=Z;function M(e,n,t,r){let o=r;for(;e.hasNode(o);)o=$(r);return t.dummy=n,e.setNode(o,t),o}function Be(e){let n=new T().setGraph(e.graph());return e.nodes().forEach(t=>n.setNode(t,e.node(t))),e.edges().forEach(t=>{let r=n.edge(t.v,t.w)||{weight:0,minlen:1},o=e.edge(t);n.setEdge(t.v,t.w,{weight:r.weight+o.weight,minlen:Math.max(r.minlen,o.minlen)})}),n}function ne(e){let n=new T({multigraph:e.isMultigraph()}).setGraph(e.graph());return e.nodes().forEach(t=>{e.children(t).length||n.setNode(t,e.node(t))}),e.edges().forEach(t=>{n.setEdge(t,e.edge(t))}),n}function ue(e,n){let t=e.x,r=e.y,o=n.x-t,i=n.y-r,s=e.width/2,a=e.height/2;if(!o&&!i)throw new Error("Not possible to find intersection inside of the rectangle");let l,u;return o===0||Math.abs(i)*s>Math.abs(o)*a?(i<0&&(a=-a),l=a*o/i,u=a):(o<0&&(s=-s),l=s,u=s*i/o),{x:t+l,y:r+u}}function P(e){let n=D(fe(e)+1).map(()=>[]);return e.nodes().forEach(t=>{let r=e.node(t),o=r.rank;o!==void 0&&(n[o]||(n[o]=[]),n[o][r.order]=t)}),n}function We(e){let n=e.nodes().map(r=>{let o=e.node(r).rank;return o===void 0?Number.MAX_VALUE:o}),t=S(Math.min,n);e.nodes().forEach(r=>{let o=e.node(r);Object.hasOwn(o,"rank")&&(o.rank-=t)})}function Xe(e){let n=e.nodes().map(s=>e.node(s).rank).filter(s=>s!==void 0),t=S(Math.min,n),r=[];e.nodes().forEach(s=>{let a=e.node(s).rank-t;r[a]||(r[a]=[]),r[a].push(s)});let o=0,i=e.graph().nodeRankFactor;Array.from(r).forEach((s,a)=>{s===void 0&&a%i!==0?--o:s!==void 0&&o&&s.forEach(l=>e.node(l).rank+=o)})}function ce(e,n,t,r){let o={width:0,height:0};return arguments.length>=4&&(o.rank=t,o.order=r),M(e,"border",o,n)}function ct(e,n=ze){let t=[];for(let r=0;r<e.length;r+=n){let o=e.slice(r,r+n);t.push(o)}return t}var ze=65535;function S(e,n){if(n.length>ze){let t=ct(n);return e(...t.map(r=>e(...r)))}else return e(...n)}function fe(e){let t=e.nodes().map(r=>{let o=e.node(r).rank;return o===void 0?Number.MIN_VALUE:o});return S(Math.max,t)}function He(e,n){let t={lhs:[],rhs:[]};return e.forEach(r=>{n(r)?t.lhs.push(r):t.rhs.push(r)}),t}function he(e,n){let t=Date.now();try{return n()}finally{console.log(e+" time: "+(Date.now()-t)+"ms")}}function q(e,n){return n()}var ft=0;function $(e){let n=++ft;return e+(""+n)}function D(e,n,t=1){n==null&&(n=e,e=0);let r=i=>i<n;t<0&&(r=i=>n<i);let o=[];for(let i=e;r(i);i+=t)o.push(i);return o}function W(e,n){let t={};for(let r of n)e[r]!==void 0&&(t[r]=e[r]);return t}function X(e,n){let t;return typeof n=="string"?t=r=>r[n]:t=n,Object.entries(e).reduce((r,[o,i])=>(r[o]=t(i,o),r),{})}function qe(e,n){return e.reduce((t,r,o)=>(t[r]=n[o],t),{})}var V="\\0";function te(e,n,t){var u,d,c,f,h,g;if(!(e&&n&&t&&n.dummy==="edge"&&t.dummy==="edge"&&n.edgeObj&&t.edgeObj&&e[n.edgeObj.v]&&e[t.edgeObj.v]&&e[n.edgeObj.w]&&e[t.edgeObj.w]))return 0;let r=!0;n.edgeObj.w===t.edgeObj.w&&(r=!1);let o=r?(d=(u=e[n.edgeObj.v])==null?void 0:u.rank)!=null?d:NaN+1:(f=(c=e[n.edgeObj.w])==null?void 0:c.rank)!=null?f:NaN-1,i=Object.entries(e).find(m=>{var L,y;return((L=m[1].edgeObj)==null?void 0:L.v)===n.edgeObj.v&&((y=m[1].edgeObj)==null?void 0:y.w)===n.edgeObj.w&&m[1].rank===o}),s=Object.entries(e).find(m=>{var L,y;return((L=m[1].edgeObj)==null?void 0:L.v)===t.edgeObj.v&&((y=m[1].edgeObj)==null?void 0:y.w)===t.edgeObj.w&&m[1].rank===o});if(!i||!s)return 0;let a=(h=i[1].order)!=null?h:NaN,l=(g=s[1].order)!=null?g:NaN;return isNaN(a-l)?0:a-l}var re="3.1.3";var be=class{constructor(){Re(this,"_sentinel");let n={};n._next=n._prev=n,this._sentinel=n}dequeue(){let n=this._sentinel,t=n._prev;if(t!==n)return $e(t),t}enqueue(n){let t=this._sentinel;n._prev&&n._next&&$e(n),n._next=t._next,t._next._prev=n,t._next=n,n._prev=t}toString(){let n=[],t=this._sentinel,r=t._prev;for(;r!==t;)n.push(JSON.stringify(r,ht)),r=r._prev;return"["+n.join(", ")+"]"}};function $e(e){e._prev._next=e._next,e._next._prev=e._prev,delete e._next,delete e._prev}function ht(e,n){if(e!=="_next"&&e!=="_prev")return n}var Ue=be;var bt=()=>1;function me(e,n){if(e.nodeCount()<=1)return[];let t=pt(e,n||bt);return gt(t.graph,t.buckets,t.zeroIdx).flatMap(o=>e.outEdges(o.v,o.w)||[])}function gt(e,n,t){var a;let r=[],o=n[n.length-1],i=n[0],s;for(;e.nodeCount();){for(;s=i.dequeue();)ge(e,n,t,s);for(;s=o.dequeue();)ge(e,n,t,s);if(e.nodeCount()){for(let l=n.length-2;l>0;--l)if(s=(a=n[l])==null?void 0:a.dequeue(),s){r=r.concat(ge(e,n,t,s,!0)||[]);break}}}return r}function ge(e,n,t,r,o){let i=[],s=o?i:void 0;return(e.inEdges(r.v)||[]).forEach(a=>{let l=e.edge(a),u=e.node(a.v);o&&i.push({v:a.v,w:a.w}),u.out-=l,pe(n,t,u)}),(e.outEdges(r.v)||[]).forEach(a=>{let l=e.edge(a),u=a.w,d=e.node(u);d.in-=l,pe(n,t,d)}),e.removeNode(r.v),s}function pt(e,n){let t=new T,r=0,o=0;e.nodes().forEach(a=>{t.setNode(a,{v:a,in:0,out:0})}),e.edges().forEach(a=>{let l=t.edge(a.v,a.w)||0,u=n(a),d=l+u;t.setEdge(a.v,a.w,d);let c=t.node(a.v),f=t.node(a.w);o=Math.max(o,c.out+=u),r=Math.max(r,f.in+=u)});let i=mt(o+r+3).map(()=>new Ue),s=r+1;return t.nodes().forEach(a=>{pe(i,s,t.node(a))}),{graph:t,buckets:i,zeroIdx:s}}function pe(e,n,t){var r,o,i;t.out?t.in?(i=e[t.out-t.in+n])==null||i.enqueue(t):(o=e[e.length-1])==null||o.enqueue(t):(r=e[0])==null||r.enqueue(t)}function mt(e){let n=[];for(let t=0;t<e;t++)n.push(t);return n}function Je(e,n){(e.graph().acyclicer==="greedy"?me(e,r(e)):Et(e,n!=null?n:null)).forEach(o=>{let i=e.edge(o);e.removeEdge(o),i.forwardName=o.name,i.reversed=!0,e.setEdge(o.w,o.v,i,$("rev"))});function r(o){return i=>o.edge(i).weight}}function Et(e,n){let t=[],r={},o={};function i(l){Object.hasOwn(o,l)||(o[l]=!0,r[l]=!0,e.outEdges(l).forEach(u=>{Object.hasOwn(r,u.w)?t.push(u):i(u.w)}),delete r[l])}function s(l){var u;Object.hasOwn(o,l)||(o[l]=!0,r[l]=!0,(u=e.outEdges(l))==null||u.forEach(d=>{var c,f;Object.hasOwn(r,d.w)||((c=n.node(l))==null?void 0:c.rank)>((f=n.node(d.w))==null?void 0:f.rank)&&Lt(e,d.w,d)?t.push(d):s(d.w)}),delete r[l])}let a=i;return n&&typeof n.node=="function"&&(a=s),e.sources().forEach(a),e.nodes().forEach(a),t}function Ke(e){e.edges().forEach(n=>{let t=e.edge(n);if(t.reversed){e.removeEdge(n);let r=t.forwardName;delete t.reversed,delete t.forwardName,e.setEdge(n.w,n.v,t,r)}})}function Lt(e,n,t){let r=new Set;function o(i){var s;if(e.sources().includes(i))return!0;r.add(i);for(let a of(s=e.inEdges(i))!=null?s:[])if(!(a.v===t.v&&a.w===t.w)&&!r.has(a.v)&&o(a.v))return!0;return!1}return o(n)}function Qe(e){e.graph().dummyChains=[],e.edges().forEach(n=>wt(e,n))}function wt(e,n){let t=n.v,r=e.node(t).rank,o=n.w,i=e.node(o).rank,s=n.name,a=e.edge(n),l=a.labelRank;if(i===r+1)return;e.removeEdge(n);let u,d,c;for(c=0,++r;r<i;++c,++r)a.points=[],d={width:0,height:0,edgeLabel:a,edgeObj:n,rank:r},u=M(e,"edge",d,"_d"),r===l&&(d.width=a.width,d.height=a.height,d.dummy="edge-label",d.labelpos=a.labelpos),e.setEdge(t,u,{weight:a.weight},s),c===0&&e.graph().dummyChains.push(u),t=u;e.setEdge(t,o,{weight:a.weight},s)}function Ze(e){e.graph().dummyChains.forEach(n=>{let t=e.node(n),r=t.edgeLabel,o;for(e.setEdge(t.edgeObj,r);t.dummy;)o=e.successors(n)[0],e.removeNode(n),r.points.push({x:t.x,y:t.y}),t.dummy==="edge-label"&&(r.x=t.x,r.y=t.y,r.width=t.width,r.height=t.height),n=o,t=e.node(n)})}function U(e){let n={};function t(r){let o=e.node(r);if(Object.hasOwn(n,r))return o.rank;n[r]=!0;let i=e.outEdges(r),s=i?i.map(l=>l==null?Number.POSITIVE_INFINITY:t(l.w)-e.edge(l).minlen):[],a=S(Math.min,s);return a===Number.POSITIVE_INFINITY&&(a=0),o.rank=a}e.sources().forEach(t)}function A(e,n){return e.node(n.w).rank-e.node(n.v).rank-e.edge(n).minlen}var oe=Gt;function Gt(e){let n=new T({directed:!1}),t=e.nodes();if(t.length===0)throw new Error("Graph must have at least one node");let r=t[0],o=e.nodeCount();n.setNode(r,{});let i,s;for(;vt(n,e)<o&&(i=kt(n,e),!!i);)s=n.hasNode(i.v)?A(e,i):-A(e,i),xt(n,e,s);return n}function vt(e,n){function t(r){let o=n.nodeEdges(r);o&&o.forEach(i=>{let s=i.v,a=r===s?i.w:s;!e.hasNode(a)&&!A(n,i)&&(e.setNode(a,{}),e.setEdge(r,a,{}),t(a))})}return e.nodes().forEach(t),e.nodeCount()}function kt(e,n){return n.edges().reduce((r,o)=>{let i=Number.POSITIVE_INFINITY;return e.hasNode(o.v)!==e.hasNode(o.w)&&(i=A(n,o)),i<r[0]?[i,o]:r},[Number.POSITIVE_INFINITY,null])[1]}function xt(e,n,t){e.nodes().forEach(r=>n.node(r).rank+=t)}var{preorder:_t,postorder:Ot}=H,nn=Y;Y.initLowLimValues=Le;Y.initCutValues=Ee;Y.calcCutValue=tn;Y.leaveEdge=on;Y.enterEdge=sn;Y.exchangeEdges=an;function Y(e){e=Be(e),U(e);let n=oe(e);Le(n),Ee(n,e);let t,r;for(;t=on(n);)r=sn(n,e,t),an(n,e,t,r)}function Ee(e,n){let t=Ot(e,e.nodes());t=t.slice(0,t.length-1),t.forEach(r=>Ct(e,n,r))}function Ct(e,n,t){let o=e.node(t).parent,i=e.edge(t,o);i.cutvalue=tn(e,n,t)}function tn(e,n,t){let o=e.node(t).parent,i=!0,s=n.edge(t,o),a=0;s||(i=!1,s=n.edge(o,t)),a=s.weight;let l=n.nodeEdges(t);return l&&l.forEach(u=>{let d=u.v===t,c=d?u.w:u.v;if(c!==o){let f=d===i,h=n.edge(u).weight;if(a+=f?h:-h,jt(e,t,c)){let m=e.edge(t,c).cutvalue;a+=f?-m:m}}}),a}function Le(e,n){arguments.length<2&&(n=e.nodes()[0]),rn(e,{},1,n)}function rn(e,n,t,r,o){let i=t,s=e.node(r);n[r]=!0;let a=e.neighbors(r);return a&&a.forEach(l=>{Object.hasOwn(n,l)||(t=rn(e,n,t,l,r))}),s.low=i,s.lim=t++,o?s.parent=o:delete s.parent,t}function on(e){return e.edges().find(n=>e.edge(n).cutvalue<0)}function sn(e,n,t){let r=t.v,o=t.w;n.hasEdge(r,o)||(r=t.w,o=t.v);let i=e.node(r),s=e.node(o),a=i,l=!1;return i.lim>s.lim&&(a=s,l=!0),n.edges().filter(d=>l===en(e,e.node(d.v),a)&&l!==en(e,e.node(d.w),a)).reduce((d,c)=>A(n,c)<A(n,d)?c:d)}function an(e,n,t,r){let o=t.v,i=t.w;e.removeEdge(o,i),e.setEdge(r.v,r.w,{}),Le(e),Ee(e,n),Tt(e,n)}function Tt(e,n){let t=e.nodes().find(o=>!e.node(o).parent);if(!t)return;let r=_t(e,[t]);r=r.slice(1),r.forEach(o=>{let s=e.node(o).parent,a=n.edge(o,s),l=!1;a||(a=n.edge(s,o),l=!0),n.node(o).rank=n.node(s).rank+(l?a.minlen:-a.minlen)})}function jt(e,n,t){return e.hasEdge(n,t)}function en(e,n,t){return t.low<=n.lim&&n.lim<=t.lim}var ln=Rt;function Rt(e){let n=e.graph().ranker;if(typeof n=="function")return n(e);switch(n){case"network-simplex":dn(e);break;case"tight-tree":St(e);break;case"longest-path":It(e);break;case"none":break;default:dn(e)}}var It=U;function St(e){U(e),oe(e)}function dn(e){nn(e)}var un=Mt;function Mt(e){let n=Ft(e),t=e.graph();if(!Array.isArray(t.dummyChains))return;t.dummyChains.forEach(o=>{let i=e.node(o),s=i.edgeObj,a=Pt(e,n,s.v,s.w),l=a.path,u=a.lca,d=0,c=l[d],f=!0;for(;o!==s.w;){if(i=e.node(o),f){for(;(c=l[d])!==u&&e.node(c).maxRank<i.rank;)d++;c===u&&(f=!1)}if(!f){for(;d<l.length-1&&e.node(l[d+1]).minRank<=i.rank;)d++;c=l[d]}c!==void 0&&e.setParent(o,c),o=e.successors(o)[0]}})}function Pt(e,n,t,r){let o=[],i=[],s=Math.min(n[t].low,n[r].low),a=Math.max(n[t].lim,n[r].lim),l;l=t;do l=e.parent(l),o.push(l);while(l&&(n[l].low>s||a>n[l].lim));let u=l,d=r;for(;(d=e.parent(d))!==u;)i.push(d);return{path:o.concat(i.reverse()),lca:u}}function Ft(e){let n={},t=0;function r(o){let i=t;e.children(o).forEach(r),n[o]={low:i,lim:t++}}return e.children(V).forEach(r),n}function cn(e){let n=M(e,"root",{},"_root"),t=Dt(e),r=Object.values(t),o=S(Math.max,r)-1,i=2*o+1;e.graph().nestingRoot=n,e.edges().forEach(a=>e.edge(a).minlen*=i);let s=At(e)+1;e.children(V).forEach(a=>{fn(e,n,i,s,o,t,a)}),e.graph().nodeRankFactor=i}function fn(e,n,t,r,o,i,s){var c;let a=e.children(s);if(!a.length){s!==n&&e.setEdge(n,s,{weight:0,minlen:t});return}let l=ce(e,"_bt"),u=ce(e,"_bb"),d=e.node(s);e.setParent(l,s),d.borderTop=l,e.setParent(u,s),d.borderBottom=u,a.forEach(f=>{var b;fn(e,n,t,r,o,i,f);let h=e.node(f),g=h.borderTop?h.borderTop:f,m=h.borderBottom?h.borderBottom:f,L=h.borderTop?r:2*r,y=g!==m?1:o-((b=i[s])!=null?b:0)+1;e.setEdge(l,g,{weight:L,minlen:y,nestingEdge:!0}),e.setEdge(m,u,{weight:L,minlen:y,nestingEdge:!0})}),e.parent(s)||e.setEdge(n,l,{weight:0,minlen:o+((c=i[s])!=null?c:0)})}function Dt(e){let n={};function t(r,o){let i=e.children(r);i&&i.length&&i.forEach(s=>t(s,o+1)),n[r]=o}return e.children(V).forEach(r=>t(r,1)),n}function At(e){return e.edges().reduce((n,t)=>n+e.edge(t).weight,0)}function hn(e){let n=e.graph();e.removeNode(n.nestingRoot),delete n.nestingRoot,e.edges().forEach(t=>{e.edge(t).nestingEdge&&e.removeEdge(t)})}var gn=Yt;function Yt(e){function n(t){let r=e.children(t),o=e.node(t);if(r.length&&r.forEach(n),o&&Object.hasOwn(o,"minRank")){o.borderLeft=[],o.borderRight=[];for(let i=o.minRank,s=o.maxRank+1;i<s;++i)bn(e,"borderLeft","_bl",t,o,i),bn(e,"borderRight","_br",t,o,i)}}e.children(V).forEach(n)}function bn(e,n,t,r,o,i){let s={width:0,height:0,rank:i,borderType:n},a=o[n][i-1],l=M(e,"border",s,t);o[n][i]=l,e.setParent(l,r),a&&e.setEdge(a,l,{weight:1})}function mn(e){var t;let n=(t=e.graph().rankdir)==null?void 0:t.toLowerCase();(n==="lr"||n==="rl")&&Ln(e)}function En(e){var t;let n=(t=e.graph().rankdir)==null?void 0:t.toLowerCase();(n==="bt"||n==="rl")&&Bt(e),(n==="lr"||n==="rl")&&(Wt(e),Ln(e))}function Ln(e){e.nodes().forEach(n=>pn(e.node(n))),e.edges().forEach(n=>pn(e.edge(n)))}function pn(e){let n=e.width;e.width=e.height,e.height=n}function Bt(e){e.nodes().forEach(n=>ye(e.node(n))),e.edges().forEach(n=>{var r;let t=e.edge(n);(r=t.points)==null||r.forEach(ye),Object.hasOwn(t,"y")&&ye(t)})}function ye(e){e.y=-e.y}function Wt(e){e.nodes().forEach(n=>we(e.node(n))),e.edges().forEach(n=>{var r;let t=e.edge(n);(r=t.points)==null||r.forEach(we),Object.hasOwn(t,"x")&&we(t)})}function we(e){let n=e.x;e.x=e.y,e.y=n}function Ne(e,n=null){let t={},r=e.nodes().filter(d=>!e.children(d).length),o=r.map(d=>e.node(d).rank),i=S(Math.max,o),s=D(i+1).map(()=>[]);function a(d){if(t[d])return;t[d]=!0;let c=e.node(d);s[c.rank].push(d);let f=e.successors(d);f&&[...f].sort((g,m)=>u(g,m)).forEach(a)}r.sort((d,c)=>e.node(d).rank-e.node(c).rank).forEach(a);function u(d,c){let f=e.node(d),h=e.node(c);return te(n,f,h)}return s}function Ge(e,n){let t=0;for(let r=1;r<n.length;++r)t+=zt(e,n[r-1],n[r]);return t}function zt(e,n,t){let r=qe(t,t.map((u,d)=>d)),o=n.flatMap(u=>{let d=e.outEdges(u);return d?d.map(c=>({pos:r[c.w],weight:e.edge(c).weight})).sort((c,f)=>c.pos-f.pos):[]}),i=1;for(;i<t.length;)i<<=1;let s=2*i-1;i-=1;let a=new Array(s).fill(0),l=0;return o.forEach(u=>{let d=u.pos+i;a[d]+=u.weight;let c=0;for(;d>0;)d%2&&(c+=a[d+1]),d=d-1>>1,a[d]+=u.weight;l+=u.weight*c}),l}function ve(e,n=[]){return n.map(t=>{let r=e.inEdges(t);if(!r||!r.length)return{v:t};{let o=r.reduce((i,s)=>{let a=e.edge(s),l=e.node(s.v);return{sum:i.sum+a.weight*l.order,weight:i.weight+a.weight}},{sum:0,weight:0});return{v:t,barycenter:o.sum/o.weight,weight:o.weight}}})}function ke(e,n){let t={};e.forEach((o,i)=>{let s={indegree:0,in:[],out:[],vs:[o.v],i};o.barycenter!==void 0&&(s.barycenter=o.barycenter,s.weight=o.weight),t[o.v]=s}),n.edges().forEach(o=>{let i=t[o.v],s=t[o.w];i!==void 0&&s!==void 0&&(s.indegree++,i.out.push(s))});let r=Object.values(t).filter(o=>!o.indegree);return Ht(r)}function Ht(e){let n=[];function t(o){return i=>{i.merged||(i.barycenter===void 0||o.barycenter===void 0||i.barycenter>=o.barycenter)&&qt(o,i)}}function r(o){return i=>{i.in.push(o),--i.indegree===0&&e.push(i)}}for(;e.length;){let o=e.pop();n.push(o),o.in.reverse().forEach(t(o)),o.out.forEach(r(o))}return n.filter(o=>!o.merged).map(o=>W(o,["vs","i","barycenter","weight"]))}function qt(e,n){let t=0,r=0;e.weight&&(t+=e.barycenter*e.weight,r+=e.weight),n.weight&&(t+=n.barycenter*n.weight,r+=n.weight),e.vs=n.vs.concat(e.vs),e.barycenter=t/r,e.weight=r,e.i=Math.min(n.i,e.i),n.merged=!0}function xe(e,n,t,r,o){let i={},s=null,a=null,l=o;typeof n=="boolean"?(l=n,i={}):n&&(i=n,s=t!=null?t:null,a=r!=null?r:null);let u=He(e,y=>Object.hasOwn(y,"barycenter")),d=u.lhs,c=u.rhs.sort((y,b)=>b.i-y.i),f=[],h=0,g=0,m=0;d.sort($t(a,s,!!l));for(let[y,b]of Object.entries(i)){let p=d.findIndex(E=>E.vs[0]===y);d.splice(p+1,0,b)}m=yn(f,c,m),d.forEach(y=>{m+=y.vs.length,f.push(y.vs),h+=y.barycenter*y.weight,g+=y.weight,m=yn(f,c,m)});let L={vs:f.flat(1)};return g&&(L.barycenter=h/g,L.weight=g),L}function yn(e,n,t){let r;for(;n.length&&(r=n[n.length-1]).i<=t;)n.pop(),e.push(r.vs),t++;return t}function $t(e,n,t){return(r,o)=>{if(r.barycenter<o.barycenter)return-1;if(r.barycenter>o.barycenter)return 1;if(e&&(typeof r.vs[0]=="string"||typeof o.vs[0]=="string")){let i=e.node(r.vs[0]),s=e.node(o.vs[0]),a=te(n,i,s);if(a!==0)return a}return t?o.i-r.i:r.i-o.i}}function ie(e,n,t,r,o){var y,b,p,E,w,k,_,O,j,R,I;let i=null,s=o;typeof r=="boolean"?(s=r,i=null):r!==void 0&&(i=r);let a=e.children(n),l=e.node(n),u=l?l.borderLeft:void 0,d=l?l.borderRight:void 0,c={};u&&(a=a.filter(v=>v!==u&&v!==d));let f=ve(e,a);f.forEach(v=>{if(e.children(v.v).length){let{result:x}=ie(e,v.v,t,i,s);c[v.v]=x,Object.hasOwn(x,"barycenter")&&Jt(v,x)}});let h=ke(f,t);Ut(h,c);let g={},m=!1;for(let v=0;v<h.length;v++)for(let x=v+1;x<h.length;x++)if(!(!h[v]||!h[x]||!((y=h[v])!=null&&y.barycenter)||!((b=h[x])!=null&&b.barycenter))&&((p=h[v])==null?void 0:p.barycenter)===h[x].barycenter){let G=(w=(E=h[v])==null?void 0:E.vs[0])!=null?w:"",N=(_=(k=h[x])==null?void 0:k.vs[0])!=null?_:"",C=e.node(G),B=e.node(N);if(C.dummy==="edge"&&B.dummy==="edge"&&((O=C.edgeObj)==null?void 0:O.v)===((j=B.edgeObj)==null?void 0:j.v)&&((R=C.edgeObj)==null?void 0:R.w)===((I=B.edgeObj)==null?void 0:I.w))if(C.edgeLabel.reversed){g[N]=h[v],h.splice(v,1),v--;break}else g[G]||(g[G]=h[x],h.splice(x,1),x--);else m=!0}let L=xe(h,g,i,e,s);if(u&&d){L.vs=[u,L.vs,d].flat(1);let v=e.predecessors(u);if(v&&v.length){let x=e.node(v[0]),G=e.predecessors(d),N=e.node(G[0]);Object.hasOwn(L,"barycenter")||(L.barycenter=0,L.weight=0),L.barycenter=(L.barycenter*L.weight+x.order+N.order)/(L.weight+2),L.weight+=2}}return Object.defineProperty(L,"result",{value:L,enumerable:!1,configurable:!0,writable:!0}),Object.defineProperty(L,"usedBias",{value:m,enumerable:!1,configurable:!0,writable:!0}),L}function Ut(e,n){e.forEach(t=>{t.vs=t.vs.flatMap(r=>n[r]?n[r].vs:r)})}function Jt(e,n){e.barycenter!==void 0?(e.barycenter=(e.barycenter*e.weight+n.barycenter*n.weight)/(e.weight+n.weight),e.weight+=n.weight):(e.barycenter=n.barycenter,e.weight=n.weight)}function _e(e,n,t,r){r||(r=e.nodes());let o=Kt(e),i=new T({compound:!0}).setGraph({root:o}).setDefaultNodeLabel(s=>e.node(s));return r.forEach(s=>{let a=e.node(s),l=e.parent(s);if(a.rank===n||a.minRank<=n&&n<=a.maxRank){i.setNode(s),i.setParent(s,l||o);let u=e[t](s);u&&u.forEach(d=>{let c=d.v===s?d.w:d.v,f=i.edge(c,s),h=f!==void 0?f.weight:0;i.setEdge(c,s,{weight:e.edge(d).weight+h})}),Object.hasOwn(a,"minRank")&&i.setNode(s,{borderLeft:a.borderLeft[n],borderRight:a.borderRight[n]})}}),i}function Kt(e){let n;for(;e.hasNode(n=$("_root")););return n}function Oe(e,n,t){let r={},o;t.forEach(i=>{let s=e.parent(i),a,l;for(;s;){if(a=e.parent(s),a?(l=r[a],r[a]=s):(l=o,o=s),l&&l!==s){n.setEdge(l,s);return}s=a}})}function se(e,n={},t=null){if(typeof n.customOrder=="function"){n.customOrder(e,se);return}let r=fe(e),o=wn(e,D(1,r+1),"inEdges"),i=wn(e,D(r-1,-1,-1),"outEdges"),s=Ne(e,t);if(Nn(e,s),n.disableOptimalOrderHeuristic)return;let a=Number.POSITIVE_INFINITY,l,u=n.constraints||[];for(let d=0,c=0;c<4;++d,++c){Qt(d%2?o:i,d%4>=2,u,t),s=P(e);let f=Ge(e,s);f<a?(c=0,l=Object.assign({},s),a=f):f===a&&(l=structuredClone(s))}Nn(e,l)}function wn(e,n,t){let r=new Map,o=(i,s)=>{r.has(i)||r.set(i,[]),r.get(i).push(s)};for(let i of e.nodes()){let s=e.node(i);if(typeof s.rank=="number"&&o(s.rank,i),typeof s.minRank=="number"&&typeof s.maxRank=="number")for(let a=s.minRank;a<=s.maxRank;a++)a!==s.rank&&o(a,i)}return n.map(function(i){return _e(e,i,t,r.get(i)||[])})}function Qt(e,n,t,r){let o=!0,i=new T;e.forEach(function(s){t.forEach(d=>i.setEdge(d.left,d.right));let a=s.graph().root,{result:l,usedBias:u}=ie(s,a,i,r,o);n&&u&&(o=!o),l.vs.forEach((d,c)=>s.node(d).order=c),Oe(s,i,l.vs)})}function Nn(e,n){Object.values(n).forEach(t=>t.forEach((r,o)=>e.node(r).order=o))}function Zt(e,n){let t={};function r(o,i){let s=0,a=0,l=o.length,u=i[i.length-1];return i.forEach((d,c)=>{let f=nr(e,d),h=f?e.node(f).order:l;(f||d===u)&&(i.slice(a,c+1).forEach(g=>{let m=e.predecessors(g);m&&m.forEach(L=>{let y=e.node(L),b=y.order;(b<s||h<b)&&!(y.dummy&&e.node(g).dummy)&&vn(t,L,g)})}),a=c+1,s=h)}),i}return n.length&&n.reduce(r),t}function er(e,n){let t={};function r(a){var l;return((l=e.node(a))==null?void 0:l.dummy)==="border"}if(!e.nodes().some(r))return t;function i(a,l,u,d,c){D(l,u).forEach(f=>{let h=a[f];if(h!==void 0&&e.node(h).dummy){let g=e.predecessors(h);g&&g.forEach(m=>{if(m===void 0)return;let L=e.node(m);L.dummy&&(L.order<d||L.order>c)&&vn(t,m,h)})}})}function s(a,l){let u=-1,d=-1,c=0;return l.forEach((f,h)=>{if(r(f)){let g=e.predecessors(f);if(g&&g.length){let m=g[0];if(m===void 0)return;d=e.node(m).order,i(l,c,h,u,d),c=h,u=d}}i(l,c,l.length,d,a.length)}),l}return n.length&&n.reduce(s),t}function nr(e,n){if(e.node(n).dummy){let t=e.predecessors(n);if(t)return t.find(r=>e.node(r).dummy)}}function vn(e,n,t){if(n>t){let o=n;n=t,t=o}let r=e[n];r||(e[n]=r={}),r[t]=!0}function tr(e,n,t){if(n>t){let o=n;n=t,t=o}let r=e[n];return r!==void 0&&Object.hasOwn(r,t)}function rr(e,n,t,r,o){let i={},s={},a={};return n.forEach(l=>{l.forEach((u,d)=>{i[u]=u,s[u]=u,a[u]=d})}),n.forEach(l=>{let u=-1,d=-1,c=!1,f=l,h=l.findIndex(g=>(o==null?void 0:o.includes(g))||Gn(g,e,o));h>0&&(f=[l[h],...l.slice(0,h),...l.slice(h+1)],c=!0),f.forEach(g=>{var L;let m=r(g);if(m&&m.length){o!=null&&o.includes(g)&&(m=m.filter(p=>Gn(p,e,o)));let y=m.sort((p,E)=>{let w=a[p],k=a[E];return(w!==void 0?w:0)-(k!==void 0?k:0)}),b=(y.length-1)/2;for(let p=Math.floor(b),E=Math.ceil(b);p<=E;++p){let w=y[p];if(w===void 0)continue;let k=a[w];if(k!==void 0&&s[g]===g&&u<k&&a[w]!==d&&!tr(t,g,w)){let _=i[w];_!==void 0&&(s[w]=g,s[g]=i[g]=_,u=k,c&&(u=-1,d=(L=a[w])!=null?L:-1,c=!1))}}}})}),{root:i,align:s}}function or(e,n,t,r,o=!1){let i={},s=ir(e,n,t,o),a=o?"borderLeft":"borderRight";function l(h,g){let m=s.nodes().slice(),L={},y=m.pop();for(;y;){if(L[y])h(y);else{L[y]=!0,m.push(y);for(let b of g(y))m.push(b)}y=m.pop()}}function u(h){let g=s.inEdges(h);g?i[h]=g.reduce((m,L)=>{var p;let y=(p=i[L.v])!=null?p:0,b=s.edge(L);return Math.max(m,y+(b!==void 0?b:0))},0):i[h]=0}function d(h){let g=s.outEdges(h),m=Number.POSITIVE_INFINITY;g&&(m=g.reduce((y,b)=>{let p=i[b.w],E=s.edge(b);return Math.min(y,(p!==void 0?p:0)-(E!==void 0?E:0))},Number.POSITIVE_INFINITY));let L=e.node(h);m!==Number.POSITIVE_INFINITY&&L.borderType!==a&&(i[h]=Math.max(i[h]!==void 0?i[h]:0,m))}function c(h){return s.predecessors(h)||[]}function f(h){return s.successors(h)||[]}return l(u,c),l(d,f),Object.keys(r).forEach(h=>{var m;let g=t[h];g!==void 0&&(i[h]=(m=i[g])!=null?m:0)}),i}function ir(e,n,t,r){let o=new T,i=e.graph(),s=lr(i.nodesep,i.edgesep,r);return n.forEach(a=>{let l;a.forEach(u=>{let d=t[u];if(d!==void 0){if(o.setNode(d),l!==void 0){let c=t[l];if(c!==void 0){let f=o.edge(c,d);o.setEdge(c,d,Math.max(s(e,u,l),f||0))}}l=u}})}),o}function sr(e,n){return Object.values(n).reduce((t,r)=>{let o=Number.NEGATIVE_INFINITY,i=Number.POSITIVE_INFINITY;Object.entries(r).forEach(([a,l])=>{let u=ur(e,a)/2;o=Math.max(l+u,o),i=Math.min(l-u,i)});let s=o-i;return s<t[0]&&(t=[s,r]),t},[Number.POSITIVE_INFINITY,null])[1]}function ar(e,n){let t=Object.values(n),r=S(Math.min,t),o=S(Math.max,t);["u","d"].forEach(i=>{["l","r"].forEach(s=>{let a=i+s,l=e[a];if(!l||l===n)return;let u=Object.values(l),d=r-S(Math.min,u);s!=="l"&&(d=o-S(Math.max,u)),d&&(e[a]=X(l,c=>c+d))})})}function dr(e,n=void 0){let t=e.ul;return t?X(t,(r,o)=>{var s,a;if(n){let l=n.toLowerCase(),u=e[l];if(u&&u[o]!==void 0)return u[o]}let i=Object.values(e).map(l=>{let u=l[o];return u!==void 0?u:0}).sort((l,u)=>l-u);return(((s=i[1])!=null?s:0)+((a=i[2])!=null?a:0))/2}):{}}function kn(e,n){let t=P(e),r=Object.assign(Zt(e,t),er(e,t)),o={},i;["u","d"].forEach(a=>{i=a==="u"?t:Object.values(t).reverse(),["l","r"].forEach(l=>{l==="r"&&(i=i.map(f=>Object.values(f).reverse()));let d=rr(e,i,r,f=>(a==="u"?e.predecessors(f):e.successors(f))||[],n),c=or(e,i,d.root,d.align,l==="r");l==="r"&&(c=X(c,f=>-f)),o[a+l]=c})});let s=sr(e,o);return ar(o,s),dr(o,e.graph().align)}function lr(e,n,t){return(r,o,i)=>{let s=r.node(o),a=r.node(i),l=0,u;if(l+=s.width/2,Object.hasOwn(s,"labelpos"))switch(s.labelpos.toLowerCase()){case"l":u=-s.width/2;break;case"r":u=s.width/2;break}if(u&&(l+=t?u:-u),u=void 0,l+=(s.dummy?n:e)/2,l+=(a.dummy?n:e)/2,l+=a.width/2,Object.hasOwn(a,"labelpos"))switch(a.labelpos.toLowerCase()){case"l":u=a.width/2;break;case"r":u=-a.width/2;break}return u&&(l+=t?u:-u),l}}function ur(e,n){return e.node(n).width}function Gn(e,n,t){var s;if(!t)return!1;let r=(s=n.node(e))==null?void 0:s.edgeObj;if(!r||n.node(e).edgeLabel.reversed)return!1;let o=t.indexOf(r==null?void 0:r.v),i=t.indexOf(r==null?void 0:r.w);return o!==-1&&i!==-1&&o===(i+1)%t.length||o===(i-1)%t.length}function xn(e,n){e=ne(e),cr(e),Object.entries(kn(e,n)).forEach(([t,r])=>e.node(t).x=r)}function cr(e){let n=P(e),t=e.graph(),r=t.ranksep,o=t.rankalign,i=0;n.forEach(s=>{let a=s.reduce((l,u)=>{var c;let d=(c=e.node(u).height)!=null?c:0;return l>d?l:d},0);s.forEach(l=>{let u=e.node(l);o==="top"?u.y=i+u.height/2:o==="bottom"?u.y=i+a-u.height/2:u.y=i+a/2}),i+=a+r})}var _n=new WeakMap;function ae(e,n={}){return Sn(e,q,n),e}function On(e,n,t){let r=n;for(;r!==void 0;){let o=e.parent(r);if(o===t)return r;r=o}}function Sn(e,n,t){var y;let r=e.nodes().filter(b=>e.children(b).length),o={};r.forEach(b=>{let p=e.node(b);if(p&&p.rankdir){let E=new T({multigraph:!0,compound:!0});E.setGraph({rankdir:p.rankdir});let w=e.children(b);w.forEach(G=>{let N={...e.node(G)};E.setNode(G,N);let C=e.parent(G);C&&C!==b&&w.includes(C)&&E.setParent(G,C)});let k=new Set;e.edges().forEach(G=>{let N=On(e,G.v,b),C=On(e,G.w,b);if(N===G.v&&C===G.w)E.setEdge(G,{...e.edge(G)});else if(N&&C&&N!==C){let B=`${N}\\0${C}`;k.has(B)||(k.add(B),E.setEdge(N,C,{...e.edge(G)}))}}),Sn(E,n,t);let _=In(E);Tn(_,n,t,null),jn(E,_);let O=1/0,j=1/0,R=-1/0,I=-1/0;E.nodes().forEach(G=>{if(G===b)return;let N=E.node(G);N&&typeof N.x=="number"&&typeof N.y=="number"&&typeof N.width=="number"&&typeof N.height=="number"&&(O=Math.min(O,N.x-N.width/2),R=Math.max(R,N.x+N.width/2),j=Math.min(j,N.y-N.height/2),I=Math.max(I,N.y+N.height/2))}),(!isFinite(O)||!isFinite(j)||!isFinite(R)||!isFinite(I))&&(O=j=0,R=I=0);let v=R-O,x=I-j;o[b]={minX:O,minY:j,maxX:R,maxY:I,width:v,height:x,offsetX:O,offsetY:j},p._dagreClusterSubgraph=E}});let i=[],s=b=>{let p=[],E=(e.children(b)||[]).filter(w=>w!==b);for(;E.length>0;){let w=E.shift();p.push(w),(e.children(w)||[]).filter(k=>k!==w).forEach(k=>E.push(k))}return p},a=new Map;r.forEach(b=>{let p=e.node(b);p&&p.rankdir&&o[b]&&a.set(b,(e.children(b)||[]).filter(E=>E!==b))});let l=new Set([...a.values()].flat()),u=new Map;a.forEach((b,p)=>{l.has(p)||u.set(p,s(p))});let d=new Set([...u.values()].flat()),c=b=>{for(let[p,E]of u)if(E.includes(b))return p;return b},f=[];e.edges().forEach(b=>{(d.has(b.v)||d.has(b.w))&&f.push({edge:b,label:e.edge(b)})});let h=new Map;d.forEach(b=>{let p=e.parent(b);h.set(b,typeof p=="string"?p:void 0)}),u.forEach((b,p)=>{let E=e.node(p),w=[];b.forEach(O=>{let j=e.node(O);j&&(w.push({id:O,node:j,parent:h.get(O)}),e.removeNode(O))});let k=f.filter(({edge:O})=>b.includes(O.v)||b.includes(O.w)),_=o[p];E&&(i.push({clusterId:p,subgraph:E._dagreClusterSubgraph,bounds:_,children:b,removedNodes:w,removedEdges:k}),E.width=_.width,E.height=_.height)});let g=new Set;f.forEach(({edge:b,label:p})=>{let E=c(b.v),w=c(b.w);if(E!==w&&e.hasNode(E)&&e.hasNode(w)){let k=`${E}\\0${w}`;g.has(k)||(g.add(k),e.setEdge(E,w,{...p,width:0,height:0}))}});let m=In(e),L=Tn(m,n,t,(y=_n.get(e))!=null?y:null);_n.set(e,L),jn(e,m),g.forEach(b=>{let p=b.indexOf("\\0"),E=b.slice(0,p),w=b.slice(p+1);e.hasEdge(E,w)&&e.removeEdge(E,w)}),i.forEach(({clusterId:b,subgraph:p,bounds:E,removedNodes:w,removedEdges:k})=>{var v,x;let _=e.node(b),O=(v=_==null?void 0:_.x)!=null?v:0,j=(x=_==null?void 0:_.y)!=null?x:0,R=(E.minX+E.maxX)/2,I=(E.minY+E.maxY)/2;w.forEach(({id:G,node:N,parent:C})=>{e.setNode(G,N),C!==void 0&&e.setParent(G,C)}),k.forEach(({edge:G,label:N})=>{e.setEdge(G,N)}),p.nodes().forEach(G=>{if(G===b)return;let N=p.node(G),C=e.node(G);C&&N&&typeof N.x=="number"&&typeof N.y=="number"&&(C.x=O+(N.x-R),C.y=j+(N.y-I))}),Cn(e,p,O-R,j-I),delete _._dagreClusterSubgraph}),r.forEach(b=>{var w,k;let p=e.node(b),E=o[b];if(p&&p.rankdir&&p._dagreClusterSubgraph&&E){let _=p._dagreClusterSubgraph,O=(w=p.x)!=null?w:0,j=(k=p.y)!=null?k:0,R=(E.minX+E.maxX)/2,I=(E.minY+E.maxY)/2;_.nodes().forEach(v=>{if(v===b)return;let x=_.node(v),G=e.node(v);if(G&&x&&typeof x.x=="number"&&typeof x.y=="number"){let N=x.x-R,C=x.y-I;G.x=O+N,G.y=j+C}}),Cn(e,_,O-R,j-I),delete p._dagreClusterSubgraph}})}function Cn(e,n,t,r){n.edges().forEach(o=>{if(!e.hasEdge(o))return;let i=n.edge(o),s=e.edge(o);s.points=i.points.map(a=>({x:a.x+t,y:a.y+r})),Object.hasOwn(i,"x")&&(s.x=i.x+t,s.y=i.y+r)})}function Tn(e,n,t,r=null){var l,u;let o=(t==null?void 0:t.useDynamic)!==!1,i=o&&(l=r==null?void 0:r.graph)!=null?l:null,s=o&&(u=r==null?void 0:r.rawNodes)!=null?u:null;n("    makeSpaceForEdgeLabels",()=>Lr(e)),n("    removeSelfEdges",()=>Or(e)),n("    acyclic",()=>Je(e,i)),n("    nestingGraph.run",()=>cn(e)),n("    rank",()=>ln(ne(e))),n("    injectEdgeLabelProxies",()=>yr(e)),n("    removeEmptyRanks",()=>Xe(e)),n("    nestingGraph.cleanup",()=>hn(e)),n("    normalizeRanks",()=>We(e)),n("    assignRankMinMax",()=>wr(e)),n("    removeEdgeLabelProxies",()=>Nr(e)),n("    normalize.run",()=>Qe(e)),n("    parentDummyChains",()=>un(e)),n("    addBorderSegments",()=>gn(e)),n("    order",()=>se(e,t,s)),n("    insertSelfEdges",()=>Cr(e)),n("    adjustCoordinateSystem",()=>mn(e)),n("    position",()=>xn(e,t.corePath)),n("    positionSelfEdges",()=>Tr(e));let a=JSON.parse(JSON.stringify(e._nodes));return n("    removeBorderNodes",()=>_r(e)),n("    normalize.undo",()=>Ze(e)),n("    fixupEdgeLabelCoords",()=>kr(e)),n("    undoCoordinateSystem",()=>En(e)),n("    translateGraph",()=>Gr(e)),n("    assignNodeIntersects",()=>vr(e)),n("    reversePoints",()=>xr(e)),n("    acyclic.undo",()=>Ke(e)),{graph:e,rawNodes:a}}function jn(e,n){e.nodes().forEach(t=>{let r=e.node(t),o=n.node(t);r&&(r.x=o.x,r.y=o.y,r.order=o.order,r.rank=o.rank,n.children(t).length&&(r.width=o.width,r.height=o.height))}),e.edges().forEach(t=>{let r=e.edge(t),o=n.edge(t);r.points=o.points,Object.hasOwn(o,"x")&&(r.x=o.x,r.y=o.y)}),e.graph().width=n.graph().width,e.graph().height=n.graph().height}var fr=["nodesep","edgesep","ranksep","marginx","marginy"],hr={ranksep:50,edgesep:20,nodesep:50,rankdir:"TB",rankalign:"center"},br=["acyclicer","ranker","rankdir","align","rankalign"],gr=["width","height","rank"],Rn={width:0,height:0},pr=["minlen","weight","width","height","labeloffset"],mr={minlen:1,weight:1,width:0,height:0,labeloffset:10,labelpos:"r"},Er=["labelpos"];function In(e){let n=new T({multigraph:!0,compound:!0}),t=Te(e.graph());return n.setGraph(Object.assign({},hr,Ce(t,fr),W(t,br))),e.nodes().forEach(r=>{let o=Te(e.node(r)),i=Ce(o,gr);Object.keys(Rn).forEach(a=>{i[a]===void 0&&(i[a]=Rn[a])}),n.setNode(r,i);let s=e.parent(r);s!==void 0&&n.setParent(r,s)}),e.edges().forEach(r=>{let o=Te(e.edge(r));n.setEdge(r,Object.assign({},mr,Ce(o,pr),W(o,Er)))}),n}function Lr(e){let n=e.graph();n.ranksep/=2,e.edges().forEach(t=>{var o;let r=e.edge(t);r.minlen*=2,((o=r.labelpos)!=null?o:"r").toLowerCase()!=="c"&&(n.rankdir==="TB"||n.rankdir==="BT"?r.width+=r.labeloffset:r.height+=r.labeloffset)})}function yr(e){e.edges().forEach(n=>{let t=e.edge(n);if(t.width&&t.height){let r=e.node(n.v),i={rank:(e.node(n.w).rank-r.rank)/2+r.rank,e:n};M(e,"edge-proxy",i,"_ep")}})}function wr(e){let n=0;e.nodes().forEach(t=>{let r=e.node(t);r.borderTop&&(r.minRank=e.node(r.borderTop).rank,r.maxRank=e.node(r.borderBottom).rank,n=Math.max(n,r.maxRank))}),e.graph().maxRank=n}function Nr(e){e.nodes().forEach(n=>{let t=e.node(n);if(t.dummy==="edge-proxy"){let r=t;e.edge(r.e).labelRank=t.rank,e.removeNode(n)}})}function Gr(e){let n=Number.POSITIVE_INFINITY,t=0,r=Number.POSITIVE_INFINITY,o=0,i=e.graph(),s=i.marginx||0,a=i.marginy||0;function l(u){let d=u.x,c=u.y,f=u.width,h=u.height;n=Math.min(n,d-f/2),t=Math.max(t,d+f/2),r=Math.min(r,c-h/2),o=Math.max(o,c+h/2)}e.nodes().forEach(u=>l(e.node(u))),e.edges().forEach(u=>{let d=e.edge(u);Object.hasOwn(d,"x")&&l(d)}),n-=s,r-=a,e.nodes().forEach(u=>{let d=e.node(u);d.x-=n,d.y-=r}),e.edges().forEach(u=>{let d=e.edge(u);d.points.forEach(c=>{c.x-=n,c.y-=r}),Object.hasOwn(d,"x")&&(d.x-=n),Object.hasOwn(d,"y")&&(d.y-=r)}),i.width=t-n+s,i.height=o-r+a}function vr(e){e.edges().forEach(n=>{if(n.v===n.w)return;let t=e.edge(n),r=e.node(n.v),o=e.node(n.w),i,s;t.points?(i=t.points[0],s=t.points[t.points.length-1]):(t.points=[],i=o,s=r),t.points.unshift(ue(r,i)),t.points.push(ue(o,s))})}function kr(e){e.edges().forEach(n=>{let t=e.edge(n);if(Object.hasOwn(t,"x"))switch((t.labelpos==="l"||t.labelpos==="r")&&(t.width-=t.labeloffset),t.labelpos){case"l":t.x-=t.width/2+t.labeloffset;break;case"r":t.x+=t.width/2+t.labeloffset;break}})}function xr(e){e.edges().forEach(n=>{let t=e.edge(n);t.reversed&&t.points.reverse()})}function _r(e){e.nodes().forEach(n=>{if(e.children(n).length){let t=e.node(n),r=e.node(t.borderTop),o=e.node(t.borderBottom),i=e.node(t.borderLeft[t.borderLeft.length-1]),s=e.node(t.borderRight[t.borderRight.length-1]);t.width=Math.abs(s.x-i.x),t.height=Math.abs(o.y-r.y),t.x=i.x+t.width/2,t.y=r.y+t.height/2}}),e.nodes().forEach(n=>{e.node(n).dummy==="border"&&e.removeNode(n)})}function Or(e){e.edges().forEach(n=>{if(n.v===n.w){let t=e.node(n.v);t.selfEdges||(t.selfEdges=[]),t.selfEdges.push({e:n,label:e.edge(n)}),e.removeEdge(n)}})}function Cr(e){P(e).forEach(t=>{let r=0;t.forEach((o,i)=>{let s=e.node(o);typeof s.rank!="number"&&(s.rank=0),s.order=i+r,(s.selfEdges||[]).forEach(a=>{M(e,"selfedge",{width:a.label.width,height:a.label.height,rank:s.rank,order:i+ ++r,e:a.e,edgeLabel:a.label},"_se"),(!Array.isArray(a.label.points)||a.label.points.length!==7)&&(a.label.points=[{x:0,y:-10},{x:0,y:-10},{x:0,y:0},{x:0,y:10},{x:0,y:10},{x:0,y:0},{x:0,y:0}])}),delete s.selfEdges})})}function Tr(e){e.nodes().forEach(n=>{let t=e.node(n),r=o=>typeof o=="number"&&isFinite(o);if(t.dummy==="selfedge"){let o=t,i=e.node(o.e.v),s=r(i==null?void 0:i.x)?i.x:0,a=r(i==null?void 0:i.y)?i.y:0,l=r(i==null?void 0:i.width)?i.width:0,u=r(i==null?void 0:i.height)?i.height:0,d=r(t.x)?t.x:s,c=r(t.y)?t.y:a,f=l/2,h=u/2;o.edgeLabel.points=[{x:d+f,y:c-h},{x:d+f,y:c-h},{x:d,y:c},{x:d-f,y:c+h},{x:d-f,y:c+h},{x:d,y:c},{x:d,y:c}],o.edgeLabel.x=d,o.edgeLabel.y=c,e.setEdge(o.e,o.edgeLabel),e.removeNode(n)}else t&&Array.isArray(t.selfEdges)&&t.selfEdges.forEach(o=>{if(!Array.isArray(o.label.points)||o.label.points.length!==7){let i=r(t.x)?t.x:0,s=r(t.y)?t.y:0,a=r(t.width)?t.width:0,l=r(t.height)?t.height:0,u=a/2,d=l/2;o.label.points=[{x:i+u,y:s-d},{x:i+u,y:s-d},{x:i,y:s},{x:i-u,y:s+d},{x:i-u,y:s+d},{x:i,y:s},{x:i,y:s}]}})})}function Ce(e,n){return X(W(e,n),Number)}function Te(e){let n={};return e&&Object.entries(e).forEach(([t,r])=>{typeof t=="string"&&(t=t.toLowerCase()),n[t]=r}),n}function de(e){let n=P(e),t=new T({compound:!0,multigraph:!0}).setGraph({});return e.nodes().forEach(r=>{t.setNode(r,{label:r}),t.setParent(r,"layer"+e.node(r).rank)}),e.edges().forEach(r=>t.setEdge(r.v,r.w,{},r.name)),n.forEach((r,o)=>{let i="layer"+o;t.setNode(i,{rank:"same"}),r.reduce((s,a)=>(t.setEdge(s,a,{style:"invis"}),a))}),t}var jr={time:he,notime:q},Rr={graphlib:ee,version:re,layout:ae,debug:de,util:{time:he,notime:q}},Ir=Rr;return Vn(Sr);})();\n/*! For license information please see dagre.min.js.LEGAL.txt */\n';

// graph/layout.js
var MOST_KEPT = 400;
var Cancelled = class extends Error {
};
var Layouter = class {
  constructor() {
    this.cache = /* @__PURE__ */ new Map();
    this.waiting = /* @__PURE__ */ new Map();
    this.serial = 0;
    this.worker = null;
    this.url = null;
    this.local = null;
    this.start();
  }
  start() {
    try {
      this.url ??= URL.createObjectURL(new Blob([workerText(dagre_min_default)], { type: "text/javascript" }));
      this.worker = new Worker(this.url);
      this.worker.onmessage = (e) => this.settle(e.data);
      this.worker.onerror = () => this.refuse();
    } catch {
      this.worker = null;
    }
  }
  /**
   * The worker's answer.
   * @param {{ id: number, result?: LaidOut, error?: string }} answer
   */
  settle({ id, result, error }) {
    const wait = this.waiting.get(id);
    if (!wait) return;
    this.waiting.delete(id);
    if (result) wait.resolve(result);
    else wait.reject(new Error(error));
  }
  /** The worker could not be loaded: what waits is laid out here instead. */
  refuse() {
    this.worker = null;
    const waits = [...this.waiting.values()];
    this.waiting.clear();
    for (const { spec, resolve, reject } of waits) this.runHere(spec).then(resolve, reject);
  }
  /** @param {Spec} spec */
  async runHere(spec) {
    if (!this.local) {
      const code = `${dagre_min_default}
export default dagre;`;
      const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
      this.local = import(url).finally(() => URL.revokeObjectURL(url));
    }
    return layoutOne((await this.local).default, spec);
  }
  /**
   * @param {string} key what `spec` follows from: under the same key it is laid out once
   * @param {Spec} spec
   * @returns {Promise<LaidOut>} rejected with {@link Cancelled} by {@link cancel}
   */
  async layout(key, spec) {
    const known = this.cache.get(key);
    if (known) return known;
    const result = this.worker ? await this.runThere(this.worker, spec) : await this.runHere(spec);
    const [oldest] = this.cache.keys();
    if (this.cache.size > MOST_KEPT) this.cache.delete(oldest);
    this.cache.set(key, result);
    return result;
  }
  /**
   * @param {Worker} worker
   * @param {Spec} spec
   * @returns {Promise<LaidOut>}
   */
  runThere(worker, spec) {
    return new Promise((resolve, reject) => {
      this.serial += 1;
      this.waiting.set(this.serial, { resolve, reject, spec });
      worker.postMessage({ id: this.serial, spec });
    });
  }
  /** Ends what is being laid out, at once. Returns whether there was anything. */
  cancel() {
    const waits = [...this.waiting.values()];
    this.waiting.clear();
    if (this.worker && waits.length) {
      this.worker.terminate();
      this.start();
    }
    for (const { reject } of waits) reject(new Cancelled("cancelled"));
    return waits.length > 0;
  }
  forget() {
    this.cache.clear();
  }
  dispose() {
    this.cancel();
    if (this.worker) this.worker.terminate();
    if (this.url) URL.revokeObjectURL(this.url);
    this.worker = null;
    this.url = null;
  }
};

// graph/view.js
var nothingDrawn = () => ({ elements: /* @__PURE__ */ new Map(), edgeElements: [], passes: /* @__PURE__ */ new Map() });
var viewSerial = 0;
var GraphView = class {
  /**
   * @param {HTMLElement} stage
   * @param {Host} host
   */
  constructor(stage, host) {
    this.host = host;
    viewSerial += 1;
    this.prefix = `qxg${viewSerial}-`;
    this.layouter = new Layouter();
    this.scene = {};
    this.index = indexScene({});
    this.findings = {};
    this.drawnIndex = null;
    this.identities = false;
    this.opened = /* @__PURE__ */ new Set();
    this.target = this.opened;
    this.root = ROOT;
    this.lr = false;
    this.selection = "";
    this.cursor = null;
    this.token = 0;
    this.picture = null;
    this.drawn = nothingDrawn();
    this.hasFit = false;
    this.stage = stage;
    this.world = svg("g", { class: "qxg-world" });
    this.svg = this.makeSvg();
    this.camera = new Camera(this.svg, this.world);
    this.framed = "readable";
    stage.append(this.svg);
    this.family = this.fontFamily();
  }
  makeSvg() {
    const arrow = svg(
      "marker",
      {
        id: `${this.prefix}arrow`,
        viewBox: "0 0 8 8",
        refX: 7,
        refY: 4,
        markerWidth: 8,
        markerHeight: 8,
        markerUnits: "userSpaceOnUse",
        orient: "auto-start-reverse"
      },
      [svg("path", { d: "M0 0.8 L8 4 L0 7.2 Z", class: "qxg-arrow" })]
    );
    return svg(
      "svg",
      {
        ...OWN_KEYS,
        class: "qxg-svg",
        tabindex: 0,
        role: "application",
        "aria-label": "Dataflow graph",
        "aria-roledescription": "graph; arrow keys follow tensors, Enter opens a group or selects"
      },
      [svg("defs", {}, [arrow]), this.world]
    );
  }
  fontFamily() {
    return getComputedStyle(this.svg).fontFamily || "sans-serif";
  }
  /**
   * Shows a new scene and keeps the user's place.
   * @param {Scene} scene
   * @param {string[]} openIds empty for the first picture
   */
  async setScene(scene, openIds) {
    const began = performance.now();
    this.layouter.cancel();
    this.layouter.forget();
    const known = this.index.items;
    this.scene = scene;
    this.index = indexScene(scene, this.identities);
    this.markFindings();
    this.family = this.fontFamily();
    if (!this.index.items.has(this.root)) this.root = ROOT;
    this.world.replaceChildren();
    if (!this.index.nodes.length) {
      this.picture = null;
      this.drawn = nothingDrawn();
      this.host.onPicture(null);
      this.host.onStatus(scene.reason || "Nothing to draw yet");
      return;
    }
    const first = !this.hasFit && !openIds.length;
    const opened = first ? firstOpened(this.index) : withNewFolds(this.index, openIds, known);
    await this.apply(opened, this.root, { what: "scene", began, anchor: this.centreItem() });
  }
  /** @param {boolean} on whether Identities are drawn as boxes */
  async setIdentities(on) {
    if (on === this.identities) return;
    this.identities = on;
    const anchor = this.centreItem();
    this.layouter.cancel();
    this.layouter.forget();
    this.index = indexScene(this.scene, on);
    this.markFindings();
    if (this.index.hidden.has(this.root)) this.root = ROOT;
    if (!this.index.nodes.length) return;
    await this.apply(this.target, this.root, { what: "identities", anchor });
    if (this.selection) await this.select(this.selection, true);
  }
  markFindings() {
    for (const item of this.index.items.values()) {
      item.finding = item.synthetic ? void 0 : this.findings[item.sel];
    }
  }
  /** Marks the places of findings. @param {Record<string, import("./scene.js").Finding>} findings */
  setFindings(findings) {
    this.findings = findings;
    this.markFindings();
    if (this.picture && this.drawnIndex === this.index) this.draw(this.picture);
  }
  /** Text was measured before the widget was in the page, in another font: measures again. */
  async remeasure() {
    const family = this.fontFamily();
    if (family === this.family) return;
    this.family = family;
    this.layouter.forget();
    if (this.index.nodes.length) await this.apply(this.target, this.root, { what: "scene" });
  }
  /**
   * Lays out and draws the state wanted; the state before stays until that is done.
   * @param {Set<string>} opened
   * @param {string} root
   * @param {Reason} reason
   * @returns {Promise<boolean>} false if it was cancelled, overtaken by another, or failed
   */
  async apply(opened, root, { what, began = performance.now(), anchor = null, keep = null }) {
    const fitted = withinBudget(this.index, opened, root, keep);
    this.token += 1;
    const { token } = this;
    this.target = fitted.opened;
    const busy = setTimeout(() => token === this.token && this.host.onBusy(true), 120);
    const before = anchor === null ? void 0 : this.picture?.boxes.get(anchor);
    try {
      const laid = performance.now();
      const { index, layouter, lr, family } = this;
      const picture = await composePicture(index, layouter, fitted.root, fitted.opened, lr, family);
      if (token !== this.token) return false;
      const drawing = performance.now();
      const sameRoot = fitted.root === this.root;
      this.opened = fitted.opened;
      this.root = fitted.root;
      this.picture = picture;
      this.drawnIndex = index;
      this.draw(picture);
      const after = anchor === null ? void 0 : picture.boxes.get(anchor);
      this.camera.extent = { w: picture.w, h: picture.h };
      if (!this.hasFit || !sameRoot) this.fitReadable();
      else if (before && after) {
        const { k, moved } = this.camera;
        const [[x0, y0], [x1, y1]] = [gripOf(before), gripOf(after)];
        this.camera.panBy((x0 - x1) * k, (y0 - y1) * k);
        if (what === "scene") this.camera.moved = moved;
      }
      this.hasFit = true;
      this.host.onPicture(picture);
      this.report(what, fitted.say, { began, laid, drawing });
      return true;
    } catch (error) {
      if (token !== this.token) return false;
      this.target = this.opened;
      const message = error instanceof Error ? error.message : String(error);
      const failed = error instanceof Cancelled ? "cancelled" : `cannot lay out: ${message}`;
      this.host.onStatus(failed);
      return false;
    } finally {
      clearTimeout(busy);
      if (token === this.token) this.host.onBusy(false);
    }
  }
  /**
   * @param {string} what
   * @param {string} say
   * @param {{ began: number, laid: number, drawing: number }} times
   */
  report(what, say, { began, laid, drawing }) {
    const marks = countMarks(this.index, this.opened, this.root);
    const done = performance.now();
    this.host.onOpened([...this.opened]);
    this.host.onMetrics({
      what,
      marks,
      layout_ms: drawing - laid,
      draw_ms: done - drawing,
      total_ms: done - began
    });
    const text = `laid out ${marks} marks in ${Math.round(done - began)} ms`;
    this.host.onStatus([say, text].filter(Boolean).join("; "));
  }
  /**
   * Opens or closes a group. Insertion order of the set is the order of use.
   * @param {string} id
   */
  async toggle(id) {
    const item = this.index.items.get(id);
    if (!item?.children || item.parent === null) return;
    const opened = new Set(this.target);
    if (id === this.root) await this.goTo(item.parent);
    else if (opened.delete(id)) await this.apply(opened, this.root, { what: "close", anchor: id });
    else await this.open([id]);
  }
  /** @param {string[]} ids outer ones first */
  async open(ids) {
    const opened = new Set(this.target);
    for (const id of ids) {
      opened.delete(id);
      opened.add(id);
    }
    const last = ids[ids.length - 1];
    await this.apply(opened, this.root, { what: "open", anchor: ids[0], keep: last });
  }
  async closeAll() {
    if (await this.apply(/* @__PURE__ */ new Set(), ROOT, { what: "close" })) this.fitReadable();
  }
  /** Makes `id` the outermost group shown. @param {string} id */
  async goTo(id) {
    const opened = new Set(this.target);
    opened.delete(this.root);
    await this.apply(opened, id, { what: "root", keep: id });
  }
  /** `opened` was set from Python. @param {string[]} ids */
  async setOpened(ids) {
    const same = ids.length === this.target.size && ids.every((id) => this.target.has(id));
    if (same || !this.index.nodes.length) return;
    const anchor = this.centreItem();
    await this.apply(new Set(ids), this.root, { what: "open", anchor, keep: ids.at(-1) ?? null });
  }
  /** @param {boolean} lr whether to lay out from left to right */
  async setDirection(lr) {
    this.lr = lr;
    this.hasFit = false;
    if (this.index.nodes.length) await this.apply(this.target, this.root, { what: "direction" });
  }
  cancel() {
    return this.layouter.cancel();
  }
  fit() {
    this.framed = "fit";
    if (this.picture) this.camera.fit(this.picture);
  }
  fitReadable() {
    this.framed = "readable";
    if (this.picture) this.camera.fitReadable(this.picture);
  }
  /** @param {boolean} end whether to look where the tensors leave, else where they enter */
  lookAtEnd(end) {
    const { camera, picture } = this;
    if (!picture) return;
    const far = end ? Number.MAX_VALUE : -Number.MAX_VALUE;
    if (this.lr) camera.lookAt(far, picture.h / 2);
    else camera.lookAt(picture.w / 2, far);
  }
  /** The window has another size: a view that the user has not moved is framed again. */
  onResize() {
    if (this.camera.moved) this.camera.keepMiddle(this.lr);
    else if (this.framed === "fit") this.fit();
    else this.fitReadable();
  }
  zoomToSelection() {
    const found = itemsOfSelection(this.index, this.selection).find((id) => this.boxOf(id));
    const box = this.boxOf(found ?? this.cursor ?? "");
    if (!box) return;
    const around = { x: box.x - 60, y: box.y - 60, w: box.w + 120, h: box.h + 120 };
    this.camera.frame(around, 0.2, 1.6, this.lr);
  }
  /**
   * Where an item is drawn; for an Identity that an edge stands for, around its dot.
   * @param {string} id
   * @returns {import("./camera.js").Box | undefined}
   */
  boxOf(id) {
    const pass = this.drawn.passes.get(id);
    if (!pass) return this.picture?.boxes.get(id);
    const [x, y] = pass.at;
    return { x: x - 60, y: y - 40, w: 120, h: 80 };
  }
  /** Pans as little as needed to show an item. @param {string} id */
  makeVisible(id) {
    const box = this.boxOf(id);
    if (box) this.camera.reveal(box);
  }
  /** The item nearest to the middle of the window: it stays in place when the scene changes. */
  centreItem() {
    if (!this.picture) return null;
    const boxes = [...this.picture.boxes.values()];
    const here = boxes.filter((box) => !box.open && this.index.items.has(box.id));
    return this.camera.nearest(here)?.id ?? null;
  }
  /** @param {Picture} picture */
  draw(picture) {
    this.drawn = drawPicture(this.index, picture, this.world, this.root, this.prefix);
    if (this.cursor !== null && !this.drawn.elements.has(this.cursor)) {
      const around = ancestorsOf(this.index, this.cursor).reverse();
      this.cursor = around.find((id) => this.drawn.elements.has(id)) ?? null;
    }
    this.paintSelection();
    this.paintCursor();
  }
  /**
   * Shows `selection` as selected.
   * @param {string} selection
   * @param {boolean} reveal whether to open what hides it and to bring it into view
   */
  async select(selection, reveal) {
    this.selection = selection;
    if (reveal && selection && this.index.nodes.length) {
      const found = itemsOfSelection(this.index, selection);
      const shown = found.find((id2) => this.boxOf(id2));
      const id = shown ?? found[0];
      if (id === void 0) {
        this.host.onStatus(`${selection} runs nothing in this graph`);
      } else {
        if (shown === void 0) await this.revealHidden(id);
        if (this.selection !== selection) return;
        this.cursor = this.drawn.elements.has(id) ? id : this.cursor;
        this.makeVisible(id);
      }
    }
    this.paintSelection();
    this.paintCursor();
  }
  /**
   * Selects an item and shows it: what a search does, also for a module that is called twice.
   * @param {string} id
   */
  async revealItem(id) {
    if (!this.boxOf(id)) await this.revealHidden(id);
    this.selection = itemOf(this.index, id).sel;
    this.cursor = this.drawn.elements.has(id) ? id : this.cursor;
    this.makeVisible(id);
    this.paintSelection();
    this.paintCursor();
  }
  /** @param {string} id */
  async revealHidden(id) {
    const around = ancestorsOf(this.index, id);
    const chain = around.filter((above) => !this.index.hidden.has(above));
    const from = chain.indexOf(this.root);
    if (from >= 0) {
      await this.open(chain.slice(from + 1));
      return;
    }
    const opened = /* @__PURE__ */ new Set([...this.target, ...chain.slice(1)]);
    await this.apply(opened, ROOT, { what: "open", keep: chain.at(-1) ?? null });
  }
  paintSelection() {
    const { selection, index } = this;
    const { elements, edgeElements } = this.drawn;
    const chosen = /* @__PURE__ */ new Set();
    for (const [id, element] of elements) {
      const item = index.items.get(id);
      const on = selection !== "" && item?.sel === selection && !item.synthetic;
      if (on) chosen.add(id);
      element.classList.toggle("qxg-selected", on);
      element.classList.remove("qxg-holds");
    }
    const meant = selection ? itemsOfSelection(index, selection) : [];
    if (!chosen.size && selection.startsWith("module:")) {
      for (const id of meant) elements.get(id)?.classList.add("qxg-selected");
    }
    this.paintPasses(new Set(meant));
    this.paintHolders(meant);
    for (const mark2 of this.world.querySelectorAll("[data-site]")) {
      mark2.classList.toggle("qxg-selected", mark2.getAttribute("data-sel") === selection);
    }
    const edge = selection.startsWith("edge:") ? edgeOfSelection(index, selection) : -1;
    for (const { element, edge: drawn } of edgeElements) {
      element.classList.toggle("qxg-selected", edge >= 0 && drawn.list.includes(edge));
      element.classList.toggle("qxg-near", chosen.has(drawn.from) || chosen.has(drawn.to));
    }
  }
  /**
   * The dots of Identities that are selected, with their names.
   * @param {Set<string>} meant
   */
  paintPasses(meant) {
    for (const { element } of this.drawn.passes.values()) element.classList.remove("qxg-selected");
    for (const [id, { element }] of this.drawn.passes) {
      if (!meant.has(id)) continue;
      element.classList.add("qxg-selected");
      const name = element.querySelector(".qxg-pass-name");
      if (name) name.textContent = `${itemOf(this.index, id).label} (Identity)`;
    }
  }
  /**
   * The closed groups that hide what is selected.
   * @param {string[]} meant
   */
  paintHolders(meant) {
    const { elements } = this.drawn;
    for (const id of meant) {
      if (this.boxOf(id)) continue;
      const place2 = placeOfItem(this.index, id);
      const around = [place2, ...ancestorsOf(this.index, place2).reverse()];
      const at = around.find((above) => elements.has(above));
      if (at !== void 0 && !this.picture?.boxes.get(at)?.open) {
        elements.get(at)?.classList.add("qxg-holds");
      }
    }
  }
  paintCursor() {
    for (const [id, element] of this.drawn.elements) {
      element.classList.toggle("qxg-cursor", id === this.cursor);
    }
    if (this.cursor === null) this.svg.removeAttribute("aria-activedescendant");
    else this.svg.setAttribute("aria-activedescendant", `${this.prefix}${this.cursor}`);
  }
  dispose() {
    this.token += 1;
    this.layouter.dispose();
    this.svg.remove();
  }
};

// graph/graph.js
var NARROW = 760;
var HINT_MS = 1800;
var IS_MAC = /Mac|iP(hone|ad)/.test(navigator.platform);
var MAP_KEY = "qatexplorer.graph.map";
function mapWanted() {
  try {
    return localStorage.getItem(MAP_KEY) !== "off";
  } catch {
    return true;
  }
}
function rememberMap(on) {
  try {
    localStorage.setItem(MAP_KEY, on ? "on" : "off");
  } catch {
  }
}
var GraphPage = class {
  /**
   * @param {import("@anywidget/types").AnyModel<Traits>} model
   * @param {HTMLElement} el
   */
  constructor(model, el) {
    this.model = model;
    const bar = html("div", { class: "qxg-bar", role: "toolbar", "aria-label": "Graph tools" });
    this.stage = html("div", { class: "qxg-stage" });
    this.status = html("div", { class: "qxg-status", role: "status", "aria-live": "polite" });
    this.root = html("div", { class: "qxg" }, [bar, this.stage, this.status]);
    el.append(this.root);
    this.crumbs = html("nav", {
      class: "qxg-crumbs",
      "aria-label": "Shown part of the model",
      hidden: true
    });
    this.cancel = html("button", {
      class: "qxg-cancel",
      text: "Cancel layout (Esc)",
      hidden: true
    });
    this.hint = html("div", {
      class: "qxg-hint",
      "aria-hidden": "true",
      hidden: true,
      text: `${IS_MAC ? "⌘" : "Ctrl"} + wheel zooms; after a click on the graph, the wheel alone`
    });
    this.view = new GraphView(this.stage, this.host());
    this.map = new Minimap(this.stage, this.view.camera);
    this.view.camera.onMove = () => this.map.paint();
    this.keyboard = new Keyboard(this.view);
    this.tooltip = new Tooltip(this.stage);
    this.search = new SearchBox(
      this.view.prefix,
      (text) => searchItems(this.view.index, text),
      (item) => this.onFound(item)
    );
    this.legend = legendBox();
    this.legendButton = iconButton("legend", "Legend", () => this.toggleLegend());
    this.legendButton.setAttribute("aria-pressed", "true");
    this.identityButton = iconButton(
      "identity",
      "Show Identities",
      () => save(this.model, { identities: !this.view.identities })
    );
    this.mapButton = iconButton("map", "Map of the whole graph", () => this.toggleMap());
    bar.append(this.search.box, ...this.buttons(), this.crumbs);
    this.stage.append(this.legend, this.cancel, this.hint);
    this.view.identities = Boolean(model.get("identities"));
    this.view.findings = model.get("findings") ?? {};
    this.map.on = mapWanted();
    this.mapButton.setAttribute("aria-pressed", String(this.map.on));
    this.hiding = void 0;
    this.overlays = new OverlayPanel(model, this.view, bar, this.stage);
    this.endings = this.hear();
    this.paintHeight();
    this.paintTheme();
    this.onScene();
  }
  /** @returns {import("./view.js").Host} */
  host() {
    return {
      onSelect: (selection) => {
        this.view.select(selection, false);
        save(this.model, { selected: selection });
      },
      onOpened: (ids) => {
        const same = JSON.stringify(ids) === JSON.stringify(this.model.get("opened"));
        if (!same) save(this.model, { opened: ids });
        this.paintCrumbs();
      },
      onStatus: (text) => {
        this.status.textContent = text;
        save(this.model, { status: text });
      },
      onMetrics: (metrics) => save(this.model, { metrics }),
      onBusy: (busy) => {
        this.cancel.hidden = !busy;
        this.stage.classList.toggle("qxg-busy", busy);
        this.stage.setAttribute("aria-busy", String(busy));
      },
      onSearch: () => this.search.input.focus(),
      onPicture: (picture) => {
        this.map.draw(picture);
        this.paintIdentities();
      },
      onCursor: (element) => {
        const tip = element && tipOf(this.view.index, element);
        if (!tip) return;
        const [a, b] = [element.getBoundingClientRect(), this.stage.getBoundingClientRect()];
        this.tooltip.show(tip, a.right - b.left, a.top - b.top);
      }
    };
  }
  buttons() {
    const { view } = this;
    const direction = iconButton("right", "Lay out from left to right", () => {
      view.setDirection(!view.lr);
      direction.setAttribute("aria-pressed", String(view.lr));
    });
    direction.setAttribute("aria-pressed", "false");
    return [
      iconButton("fit", "Fit all (0)", () => view.fit()),
      iconButton("out", "Zoom out (-)", () => view.camera.zoomBy(0.8)),
      iconButton("in", "Zoom in (+)", () => view.camera.zoomBy(1.25)),
      iconButton("target", "Zoom to selection (z)", () => view.zoomToSelection()),
      iconButton("collapse", "Close all groups", () => view.closeAll()),
      direction,
      this.identityButton,
      this.mapButton,
      this.legendButton,
      iconButton(
        "save",
        "Download as SVG",
        () => download(exportSvg(view), "graph.svg", "image/svg+xml")
      )
    ];
  }
  /** Listens to the page, the model and the system. Returns what ends that. */
  hear() {
    const { view, model } = this;
    this.cancel.addEventListener("click", () => view.cancel());
    view.svg.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.tooltip.hide();
      if (!this.keyboard.handle(event)) return;
      event.preventDefault();
      event.stopPropagation();
    });
    view.svg.addEventListener("blur", () => this.tooltip.hide());
    let seen = false;
    const sized = new ResizeObserver(() => {
      if (!this.stage.clientWidth) return;
      if (seen) this.view.onResize();
      else this.onSeen();
      seen = true;
    });
    sized.observe(this.stage);
    return [
      listenToPointer(view, this.stage, this.tooltip, () => this.showHint()),
      watchPageTheme(() => this.paintTheme()),
      () => sized.disconnect(),
      listen(model, {
        "change:scene": () => this.onScene(),
        "change:selected": () => {
          const selected = model.get("selected");
          if (selected !== view.selection) view.select(selected, true);
        },
        "change:opened": () => view.setOpened(model.get("opened") || []),
        "change:identities": () => this.onIdentities(),
        "change:height": () => this.paintHeight(),
        "change:findings": () => this.onFindings()
      })
    ];
  }
  async onScene() {
    const first = !this.view.picture;
    await this.view.setScene(
      unpacked(this.model.get("scene")) || {},
      this.model.get("opened") || []
    );
    this.paintCrumbs();
    paintLegend(this.legend, this.view.index);
    const selected = this.model.get("selected");
    if (selected) await this.view.select(selected, first);
  }
  async onIdentities() {
    await this.view.setIdentities(Boolean(this.model.get("identities")));
    paintLegend(this.legend, this.view.index);
  }
  onFindings() {
    this.view.setFindings(this.model.get("findings") ?? {});
    paintLegend(this.legend, this.view.index);
  }
  /** The stage has a size for the first time. */
  async onSeen() {
    if (this.stage.clientWidth < NARROW) this.legendButton.click();
    await this.view.remeasure();
    this.view.fitReadable();
    if (this.view.selection) await this.view.select(this.view.selection, true);
  }
  /** @param {import("./scene.js").Item | null} item */
  onFound(item) {
    this.view.svg.focus({ preventScroll: true });
    if (!item) return;
    this.view.revealItem(item.id);
    save(this.model, { selected: item.sel });
  }
  toggleLegend() {
    this.legend.hidden = !this.legend.hidden;
    this.legendButton.setAttribute("aria-pressed", String(!this.legend.hidden));
  }
  toggleMap() {
    this.map.toggle(!this.map.on);
    rememberMap(this.map.on);
    this.mapButton.setAttribute("aria-pressed", String(this.map.on));
  }
  /** The wheel scrolls the page: says how to zoom. */
  showHint() {
    this.hint.hidden = false;
    clearTimeout(this.hiding);
    this.hiding = setTimeout(() => {
      this.hint.hidden = true;
    }, HINT_MS);
  }
  paintIdentities() {
    const { passes } = this.view.index;
    const on = this.view.identities;
    const modules = `${passes} Identity module${passes === 1 ? "" : "s"}`;
    const title = on ? `Hide the ${modules} again` : `Show the ${modules} that pass a tensor on`;
    this.identityButton.hidden = !passes;
    this.identityButton.title = title;
    this.identityButton.setAttribute("aria-label", title);
    this.identityButton.setAttribute("aria-pressed", String(on));
  }
  paintCrumbs() {
    const { view } = this;
    const chain = [...ancestorsOf(view.index, view.root), view.root];
    this.crumbs.hidden = chain.length < 2;
    const buttons = chain.map((id) => {
      const text = view.index.items.get(id)?.label ?? "";
      const button = html("button", { text, disabled: id === view.root });
      button.addEventListener("click", () => view.goTo(id));
      return button;
    });
    this.crumbs.replaceChildren(...buttons);
  }
  paintTheme() {
    const dark = pageIsDark();
    this.root.classList.toggle("qxg-dark", dark);
    if (this.model.get("dark") !== dark) save(this.model, { dark });
  }
  paintHeight() {
    this.root.style.setProperty("--qxg-height", `${this.model.get("height")}px`);
  }
  destroy() {
    for (const end of this.endings) end();
    clearTimeout(this.hiding);
    this.overlays.end();
    this.view.dispose();
    this.root.remove();
  }
};
var graph_default = {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const page = new GraphPage(model, el);
    return () => page.destroy();
  }
};
export {
  graph_default as default
};
