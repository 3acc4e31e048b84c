// Made by tests/js/build.mjs, not by hand, of
//   common/dom.js
//   common/list.js
//   tree/choosing.js
//   tree/columns.js
//   tree/row.js
//   tree/rows.js
//   tree/tree.js
// sha256 of these: f087bd364f70c085b9509d9d7d65d07a35c2a2d7c22ab6d63c9b75fdabbf260a

// common/dom.js
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
function forceTheme(root, dark) {
  root.classList.toggle("qx-dark", dark === true);
  root.classList.toggle("qx-light", dark === false);
}
function isShortcut(event) {
  return event.ctrlKey || event.metaKey || event.altKey;
}
function unpacked(value) {
  return ArrayBuffer.isView(value) ? JSON.parse(new TextDecoder().decode(value)) : value;
}

// common/list.js
var SPARE = 8;
function rowsInView(top, height, rowHeight, count) {
  const first = Math.max(0, Math.floor(top / rowHeight) - SPARE);
  const last = Math.min(count, Math.ceil((top + height) / rowHeight) + SPARE);
  return [first, Math.max(first, last)];
}
function leastScroll(index, scrolled, height, rowHeight) {
  const top = index * rowHeight;
  if (top < scrolled) return top;
  return top + rowHeight > scrolled + height ? top + rowHeight - height : scrolled;
}
var RowList = class {
  /** @param {Options<Row>} options */
  constructor(options) {
    this.options = options;
    this.viewport = options.viewport;
    this.rows = [];
    this.indexOf = /* @__PURE__ */ new Map();
    this.elements = /* @__PURE__ */ new Map();
    this.stale = /* @__PURE__ */ new Set();
    this.active = null;
    this.viewport.addEventListener("scroll", () => this.draw(), { passive: true });
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.viewport);
  }
  destroy() {
    this.resize.disconnect();
  }
  /** @param {Row[]} rows in order; call {@link draw} after it */
  setRows(rows) {
    this.rows = rows;
    this.indexOf = new Map(rows.map((row, i) => [row.id, i]));
    this.options.canvas.style.height = `${rows.length * this.options.rowHeight}px`;
  }
  /** What rows say has changed: each is written anew when it is next drawn. */
  refill() {
    this.stale = new Set(this.elements.keys());
  }
  get headHeight() {
    return this.options.head?.offsetHeight ?? 0;
  }
  draw() {
    const { rowHeight, height } = this.options;
    const top = Math.max(0, this.viewport.scrollTop - this.headHeight);
    const room = this.viewport.clientHeight || height();
    const [first, last] = rowsInView(top, room, rowHeight, this.rows.length);
    const wanted = new Set(Array.from({ length: last - first }, (_, i) => first + i));
    const active = this.active === null ? void 0 : this.indexOf.get(this.active);
    if (active !== void 0) wanted.add(active);
    const keep = new Set([...wanted].map((i) => this.rows[i].id));
    for (const [id, element] of this.elements) {
      if (keep.has(id)) continue;
      element.remove();
      this.elements.delete(id);
    }
    for (const i of [...wanted].sort((a, b) => a - b)) this.drawRow(this.rows[i], i);
  }
  /**
   * @param {Row} row
   * @param {number} i
   */
  drawRow(row, i) {
    const { canvas, role, rowHeight, fill, mark } = this.options;
    let element = this.elements.get(row.id);
    if (!element || this.stale.has(row.id)) {
      if (!element) {
        element = document.createElement("div");
        element.setAttribute("role", role);
        element.dataset.id = row.id;
        this.elements.set(row.id, element);
        canvas.append(element);
      }
      fill(element, row);
      this.stale.delete(row.id);
    }
    element.style.transform = `translateY(${i * rowHeight}px)`;
    element.tabIndex = row.id === this.active ? 0 : -1;
    mark(element, row, i);
  }
  /** Scrolls as little as needed to show a row. @param {number} index */
  reveal(index) {
    const { scrollTop, clientHeight } = this.viewport;
    const room = clientHeight - this.headHeight;
    const to = leastScroll(index, scrollTop, room, this.options.rowHeight);
    if (to !== scrollTop) this.viewport.scrollTop = to;
  }
  /** Shows a row in the middle, unless it is well in view already. @param {number} index */
  centre(index) {
    const { rowHeight } = this.options;
    const height = this.viewport.clientHeight || this.options.height();
    const [top, now] = [index * rowHeight, this.viewport.scrollTop];
    if (top < now + rowHeight || top + 2 * rowHeight > now + height) {
      this.viewport.scrollTop = Math.max(0, top - height / 2);
    }
  }
  /** Gives a row the focus; beyond the ends the first or last. @param {number} index */
  focus(index) {
    const at = Math.max(0, Math.min(this.rows.length - 1, index));
    const row = this.rows[at];
    if (!row) return;
    this.active = row.id;
    this.reveal(at);
    this.draw();
    this.elements.get(row.id)?.focus({ preventScroll: true });
    this.options.onFocus?.(row);
  }
  /** The row that an event happened in, undefined for none. @param {Event} event */
  rowOf(event) {
    const id = closest(event.target, `[role=${this.options.role}][data-id]`)?.dataset.id;
    const index = id === void 0 ? void 0 : this.indexOf.get(id);
    return index === void 0 ? void 0 : this.rows[index];
  }
  /**
   * Acts on a key that means something in a list, or in `more`. Returns whether it did.
   * @param {KeyboardEvent} event
   * @param {(row: Row) => void} choose for Enter and the space bar
   * @param {Record<string, (row: Row, at: number) => void>} [more] other keys
   */
  key(event, choose, more = {}) {
    const at = this.active === null ? void 0 : this.indexOf.get(this.active);
    if (at === void 0 || isShortcut(event)) return false;
    const room = this.viewport.clientHeight - this.headHeight;
    const page = Math.max(1, Math.floor(room / this.options.rowHeight) - 1);
    const actions = {
      ArrowDown: () => this.focus(at + 1),
      ArrowUp: () => this.focus(at - 1),
      PageDown: () => this.focus(at + page),
      PageUp: () => this.focus(at - page),
      Home: () => this.focus(0),
      End: () => this.focus(this.rows.length - 1),
      Enter: choose,
      " ": choose,
      ...more
    };
    if (!Object.hasOwn(actions, event.key)) return false;
    actions[event.key](this.rows[at], at);
    event.preventDefault();
    event.stopPropagation();
    return true;
  }
};

// tree/choosing.js
function chosenOf(selected, chosen) {
  if (!selected) return [];
  return chosen?.includes(selected) ? chosen : [selected];
}
function only(id) {
  return { selected: id, chosen: [id] };
}
function toggled(chosen, id) {
  const rest = chosen.filter((one) => one !== id && /^(module|site):/.test(one));
  if (chosen.includes(id)) return { selected: rest.at(-1) ?? "", chosen: rest };
  return { selected: id, chosen: [...rest, id] };
}
function through(rows, from, to, before = []) {
  const part = rows.slice(Math.min(from, to), Math.max(from, to) + 1);
  if (to < from) part.reverse();
  const ids = part.filter((row) => row.kind !== "fold").map((row) => row.id);
  const chosen = [...before.filter((id) => !ids.includes(id)), ...ids];
  return { selected: chosen.at(-1) ?? "", chosen };
}

// tree/row.js
var KINDS = [
  ["weight", "■"],
  ["input", "▲"],
  ["output", "●"]
];
var span = (className, text, title) => html("span", { class: className, text, title });
var badgeElement = ({ text, className, title }) => span(`qx-badge ${className}`, text, title || null);
function qconfigWords(row) {
  const rule = row.rule ? [`by a rule: ${row.rule}`] : [];
  return row.qconfig ? [`qconfig ${row.qconfig}`, ...rule] : rule;
}
function describe(row, finding) {
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
function quantBadges(row) {
  if (row.kind === "site") {
    if (!row.shares?.length) return [];
    const title = `One fake quant for ${row.shares.length} tensors:
${row.shares.join("\n")}`;
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
function stateBadges(row) {
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
function typeCell(row) {
  if (!row.before) return span("qx-tree-type", row.type, row.title);
  const title = `${row.before} → ${row.type}
${row.title}`;
  return html("span", { class: "qx-tree-type", title }, [
    span("qx-tree-before", row.before),
    span("qx-tree-arrow", " → "),
    html("strong", { class: "qx-tree-after", text: row.type })
  ]);
}
function nameTitle(row) {
  const lines = [row.kind === "fold" ? row.title : row.path || "the model itself"];
  if (row.kind === "site") lines.unshift(row.name);
  if (row.changed) lines.push(`Changed in this stage: ${row.what.join(", ")}`);
  return lines.join("\n");
}
function moduleCells(row) {
  const title = nameTitle(row);
  const first = html("span", { class: "qx-tree-first", title }, [
    indent(row),
    html("span", { class: "qx-tree-chevron", "aria-hidden": "true" }),
    span("qx-tree-name", row.name, title)
  ]);
  return [
    first,
    typeCell(row),
    html("span", { class: "qx-tree-quants" }, quantBadges(row).map(badgeElement)),
    html("span", { class: "qx-tree-state" }, stateBadges(row).map(badgeElement))
  ];
}
function siteCell(row) {
  const title = nameTitle(row);
  const [kind, mark] = KINDS.find(([k]) => k === row.site) ?? ["", ""];
  const behind = [row.torch_name, row.source, row.type].filter(Boolean).join(" · ");
  return html("span", { class: "qx-tree-first qx-tree-wide", title }, [
    indent(row),
    span(`qx-tree-mark qx-tree-${kind}`, mark),
    span("qx-tree-name", row.name, title),
    ...[...quantBadges(row), ...stateBadges(row)].map(badgeElement),
    span("qx-tree-torch", behind, row.title)
  ]);
}
function margin(row, finding) {
  if (!finding) return span("qx-tree-delta", row.changed ? "Δ" : "");
  const look = `qx-tree-finding-${finding.inside ? "inside" : finding.severity}`;
  return span(`qx-tree-delta qx-tree-finding ${look}`, finding.mark, finding.words);
}
function indent(row) {
  const element = span("qx-tree-indent");
  element.style.setProperty("--qx-depth", String(row.depth));
  return element;
}
function fillRow(element, row, finding) {
  element.replaceChildren(
    margin(row, finding),
    ...row.kind === "site" ? [siteCell(row)] : moduleCells(row)
  );
  element.className = "qx-tree-row";
  element.classList.toggle("qx-is-changed", row.changed);
  element.classList.toggle("qx-is-gone", row.what.includes("gone"));
  element.classList.toggle("qx-is-site", row.kind === "site");
  element.classList.toggle("qx-is-quiet", row.quiet === true);
  element.setAttribute("aria-label", describe(row, finding));
  element.setAttribute("aria-level", String(row.depth + 1));
}

// tree/columns.js
var STEP = 16;
var LEAST_STEP = 4;
var INDENTED = 0.3;
var EDGES = 24;
var GAP = 8;
var BEFORE = 20;
var LEAST_CELL = 24;
var SPARE2 = 60;
var FAIR_CELL = 56;
function stepFor(depth, view) {
  if (depth * STEP <= view * INDENTED) return STEP;
  return Math.max(LEAST_STEP, Math.floor(view * INDENTED / depth));
}
function share(view, { name, site, quants, state, step, head }) {
  const full = [quants, state].map((width) => width ? width + GAP : 0);
  let left = view - EDGES - name;
  if (Math.max(name, site) > view - EDGES) {
    const row = Math.max(name + SPARE2 + full[0] + full[1], site);
    const type = row - name - full[0] - full[1];
    return { name, type, quants: full[0], state: full[1], step, row: row + EDGES };
  }
  const got = [0, 0];
  const turns = (
    /** @type {const} */
    [
      [FAIR_CELL, 0],
      [Number.POSITIVE_INFINITY, SPARE2]
    ]
  );
  for (const [most, spared] of turns) {
    for (const [i, width] of full.entries()) {
      const more = Math.min(Math.min(width, most) - got[i], Math.max(0, left - spared));
      if (got[i] + more < Math.min(width, LEAST_CELL + GAP)) continue;
      got[i] += more;
      left -= more;
    }
  }
  if (got[1]) {
    const more = Math.max(0, Math.min(head + GAP - got[1], left - SPARE2));
    got[1] += more;
    left -= more;
  }
  return { name, type: left, quants: got[0], state: got[1], step, row: view };
}
var Ruler = class {
  /** @param {HTMLElement} host where cells are put to be measured */
  constructor(host) {
    this.host = host;
    this.known = /* @__PURE__ */ new Map();
    this.cells = /* @__PURE__ */ new WeakMap();
    this.context = document.createElement("canvas").getContext("2d");
  }
  /** Of a name. @param {string} name */
  name(name) {
    const known = this.known.get(name);
    if (known !== void 0) return known;
    if (!this.font) {
      const probe = html("span", { class: "qx-tree-name qx-tree-measured" });
      this.host.append(probe);
      const style = getComputedStyle(probe);
      this.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
      probe.remove();
    }
    if (!this.context) return name.length * 8;
    this.context.font = this.font;
    const width = Math.ceil(this.context.measureText(name).width) + 2;
    this.known.set(name, width);
    return width;
  }
  /**
   * Of a cell with labels, as the page draws it.
   * @param {import("./row.js").Badge[]} badges
   * @param {string} className
   */
  cell(badges, className) {
    if (!badges.length) return 0;
    const key = badges.map((badge) => `${badge.className}|${badge.text}`).join("\n");
    const known = this.known.get(key);
    if (known !== void 0) return known;
    const cell = html("span", { class: `${className} qx-tree-measured` });
    for (const { text, className: look } of badges) {
      cell.append(html("span", { class: `qx-badge ${look}`, text }));
    }
    this.host.append(cell);
    const width = Math.ceil(cell.getBoundingClientRect().width);
    cell.remove();
    this.known.set(key, width);
    return width;
  }
  /** Of the cells with fake quants and with the state. @param {TreeRow} row */
  cellsOf(row) {
    let found = this.cells.get(row);
    if (!found) {
      found = [
        this.cell(quantBadges(row), "qx-tree-quants"),
        this.cell(stateBadges(row), "qx-tree-state")
      ];
      this.cells.set(row, found);
    }
    return found;
  }
  /**
   * What the columns of `rows` want, in a view of `view` px.
   * @param {TreeRow[]} rows
   * @param {number} view
   * @param {string} label of the column with the states
   * @returns {Wanted}
   */
  wanted(rows, view, label) {
    let deepest = 0;
    for (const row of rows) deepest = Math.max(deepest, row.depth);
    const bare = (row) => BEFORE + this.name(row.name) + (row.kind === "site" ? 2 * GAP : 0);
    let step = stepFor(deepest, view);
    for (const row of rows) {
      const room = view - EDGES - bare(row);
      if (row.depth && row.depth * step > room)
        step = Math.max(LEAST_STEP, Math.floor(room / row.depth));
    }
    let [name, site, quants, state] = [0, 0, 0, 0];
    for (const row of rows) {
      const width = row.depth * step + bare(row);
      if (row.kind === "site") {
        site = Math.max(site, width);
        continue;
      }
      name = Math.max(name, width);
      const [own, states] = this.cellsOf(row);
      quants = Math.max(quants, own);
      state = Math.max(state, states);
    }
    return { name, site, quants, state, step, head: this.name(label) };
  }
};

// tree/rows.js
var OPEN_AT_FIRST = 80;
var TYPE = "type:";
var Tree = class {
  constructor() {
    this.open = /* @__PURE__ */ new Map();
    this.closedInSearch = /* @__PURE__ */ new Set();
    this.allOpen = void 0;
    this.filtered = false;
    this.rows = [];
    this.byId = /* @__PURE__ */ new Map();
    this.children = /* @__PURE__ */ new Map();
    this.position = /* @__PURE__ */ new Map();
    this.openDepth = 1;
  }
  /** @param {TreeRow[]} rows parents before children */
  setRows(rows) {
    this.rows = rows;
    this.byId = new Map(rows.map((row) => [row.id, row]));
    this.children = /* @__PURE__ */ new Map();
    for (const row of rows) {
      if (row.parent === null || !this.byId.has(row.parent)) continue;
      const siblings = this.children.get(row.parent);
      if (siblings) siblings.push(row);
      else this.children.set(row.parent, [row]);
    }
    this.openDepth = firstOpenDepth(rows);
    this.position = /* @__PURE__ */ new Map();
    for (const siblings of [...this.children.values(), rows.filter((r) => r.parent === null)]) {
      for (const [i, row] of siblings.entries()) {
        this.position.set(row.id, [i + 1, siblings.length]);
      }
    }
  }
  /**
   * The row that a selection string means.
   * @param {string} selection
   */
  find(selection) {
    if (!/^(module|site):/.test(selection)) return void 0;
    const path = selection.slice(selection.indexOf(":") + 1);
    return this.byId.get(selection) ?? this.byId.get(`site:${path}`) ?? this.byId.get(`module:${path}`);
  }
  /** @param {TreeRow} row */
  parentOf(row) {
    return row.parent === null ? void 0 : this.byId.get(row.parent);
  }
  /** @param {TreeRow} row */
  hasChildren(row) {
    return this.children.has(row.id);
  }
  /** @param {TreeRow} row */
  isOpen(row) {
    if (this.filtered) return !this.closedInSearch.has(row.path);
    const first = row.kind !== "fold" && row.depth < this.openDepth;
    return this.open.get(row.path) ?? this.allOpen ?? first;
  }
  /**
   * @param {TreeRow} row
   * @param {boolean} open
   */
  setOpen(row, open) {
    if (!this.hasChildren(row)) return;
    if (!this.filtered) this.open.set(row.path, open);
    else if (open) this.closedInSearch.delete(row.path);
    else this.closedInSearch.add(row.path);
  }
  /** Opens or closes all rows, also those that a later stage brings. @param {boolean} open */
  setAllOpen(open) {
    this.allOpen = open;
    this.open.clear();
    this.closedInSearch.clear();
    if (open) return;
    for (const row of this.rows) {
      if (row.parent === null) this.open.set(row.path, true);
      else if (this.filtered) this.closedInSearch.add(row.path);
    }
  }
  /** Opens what a row lies in. @param {TreeRow} row */
  reveal(row) {
    for (let up = this.parentOf(row); up; up = this.parentOf(up)) {
      this.open.set(up.path, true);
      this.closedInSearch.delete(up.path);
    }
  }
  /**
   * Ids that the search and the filter find, or null when all rows are shown.
   * @param {string} query words that path, name, type or earlier type must contain; `type:Linear`
   *   finds modules of that very type
   * @param {Only} only
   */
  search(query, only2) {
    const terms = query.toLowerCase().split(/\s+/).filter(Boolean);
    this.filtered = terms.length > 0 || only2 !== "all";
    if (!this.filtered) return null;
    const hits = /* @__PURE__ */ new Set();
    for (const row of this.rows) {
      if (row.kind === "fold") continue;
      if (only2 === "changed" && !row.changed) continue;
      if (only2 === "float" && !row.float) continue;
      const text = `${row.path} ${row.name} ${row.type} ${row.before}`.toLowerCase();
      if (terms.every((term) => matches(row, text, term))) hits.add(row.id);
    }
    return hits;
  }
  /**
   * The rows to draw, in order: open ones, and under a search hits with their ancestors.
   * @param {Set<string> | null} hits
   * @param {string | null} pinned id of a row that is shown though it is no hit
   */
  visible(hits, pinned) {
    const keep = hits && this.withAncestors(pinned === null ? hits : [...hits, pinned]);
    const shown = [];
    let hiddenBelow = Number.POSITIVE_INFINITY;
    for (const row of this.rows) {
      if (row.depth > hiddenBelow) continue;
      hiddenBelow = Number.POSITIVE_INFINITY;
      if (keep && !keep.has(row.id)) continue;
      shown.push(row);
      if (this.hasChildren(row) && !this.isOpen(row)) hiddenBelow = row.depth;
    }
    return shown;
  }
  /** @param {Iterable<string>} ids */
  withAncestors(ids) {
    const found = /* @__PURE__ */ new Set();
    for (const id of ids) {
      let row = this.byId.get(id);
      while (row && !found.has(row.id)) {
        found.add(row.id);
        row = this.parentOf(row);
      }
    }
    return found;
  }
};
function matches(row, text, term) {
  if (!term.startsWith(TYPE)) return text.includes(term);
  return row.kind === "module" && row.type.toLowerCase() === term.slice(TYPE.length);
}
function firstOpenDepth(rows) {
  const perDepth = [];
  for (const row of rows) perDepth[row.depth] = (perDepth[row.depth] ?? 0) + 1;
  let depth = 0;
  for (let sum = 0; depth < perDepth.length; depth++) {
    sum += perDepth[depth] ?? 0;
    if (sum > OPEN_AT_FIRST) break;
  }
  return Math.max(1, depth - 1);
}

// tree/tree.js
var ROW_HEIGHT = 26;
var TreeView = class {
  /**
   * @param {import("@anywidget/types").AnyModel<Traits>} model
   * @param {HTMLElement} el
   */
  constructor(model, el) {
    this.model = model;
    this.tree = new Tree();
    this.hits = null;
    this.selected = null;
    this.chosen = /* @__PURE__ */ new Set();
    this.anchor = null;
    this.input = html("input", {
      class: "qx-field qx-tree-search",
      type: "search",
      placeholder: "Name, path or type",
      "aria-label": "Search modules by name, path or type"
    });
    this.toggles = /* @__PURE__ */ new Map();
    this.status = html("span", { class: "qx-tree-status qx-muted", role: "status" });
    this.canvas = html("div", { class: "qx-tree-canvas", role: "presentation" });
    this.empty = html("p", { class: "qx-tree-empty qx-muted" });
    this.viewport = html(
      "div",
      {
        class: "qx-tree-viewport",
        role: "tree",
        "aria-label": "Modules of the model",
        "aria-multiselectable": "true"
      },
      [this.canvas, this.empty]
    );
    this.stateHead = html("span", { class: "qx-tree-state" });
    this.head = html("div", { class: "qx-tree-head", "aria-hidden": "true" }, [
      html("span", { class: "qx-tree-first", text: "Name" }),
      html("span", { class: "qx-tree-type", text: "Type" }),
      html("span", { class: "qx-tree-quants", text: "Fake quants" }),
      this.stateHead
    ]);
    this.root = html("div", { class: "qx qx-tree", ...OWN_KEYS }, [
      this.bar(),
      this.head,
      this.viewport
    ]);
    this.ruler = new Ruler(this.canvas);
    this.resize = new ResizeObserver(() => this.layOut());
    this.list = new RowList({
      viewport: this.viewport,
      canvas: this.canvas,
      rowHeight: ROW_HEIGHT,
      role: "treeitem",
      height: () => model.get("height"),
      fill: (element, row) => fillRow(element, row, model.get("findings")?.[row.id]),
      mark: (element, row) => this.markRow(element, row)
    });
    el.append(this.root);
    this.resize.observe(this.viewport);
    this.hear();
    this.onLook();
    this.onRows();
    this.onSelected();
  }
  bar() {
    this.toggles.set("changed", this.toggleButton("changed", "changed", "Only what changed"));
    this.toggles.set("float", this.toggleButton("float", "float", "Only what stays float"));
    const all = (
      /** @type {const} */
      [
        ["⊞", "Expand all", true],
        ["⊟", "Collapse all", false]
      ].map(([text, label, open]) => {
        const name = "qx-button qx-tree-icon";
        const button = html("button", { class: name, text, title: label, "aria-label": label });
        button.addEventListener("click", () => {
          this.tree.setAllOpen(open);
          this.refresh();
        });
        return button;
      })
    );
    const filters = html("span", { class: "qx-tree-filters" }, [...this.toggles.values(), ...all]);
    return html("div", { class: "qx-tree-bar" }, [this.input, filters, this.status]);
  }
  /**
   * @param {Only} only
   * @param {string} text
   * @param {string} label
   */
  toggleButton(only2, text, label) {
    const names = { title: label, "aria-label": label };
    const button = html("button", { class: "qx-button", text, ...names });
    button.addEventListener(
      "click",
      () => save(this.model, { only: this.model.get("only") === only2 ? "all" : only2 })
    );
    return button;
  }
  hear() {
    this.input.addEventListener("input", () => save(this.model, { query: this.input.value }));
    this.input.addEventListener("keydown", (event) => this.onSearchKey(event));
    this.viewport.addEventListener("click", (event) => this.onClick(event, false));
    this.viewport.addEventListener("dblclick", (event) => this.onClick(event, true));
    this.viewport.addEventListener("keydown", (event) => this.onKey(event));
    this.viewport.addEventListener("scroll", () => this.scrollHead(), { passive: true });
    this.unlisten = listen(this.model, {
      "change:rows": () => this.onRows(),
      "change:selected": () => this.onSelected(),
      "change:chosen": () => this.markChosen(),
      "change:query": () => this.onFilter(),
      "change:only": () => this.onFilter(),
      "change:findings": () => {
        this.list.refill();
        this.list.draw();
      },
      "change:state_label": () => this.refresh(),
      "change:height": () => this.onLook(),
      "change:dark": () => this.onLook()
    });
  }
  destroy() {
    this.unlisten?.();
    this.resize.disconnect();
    this.list.destroy();
    this.root.remove();
  }
  onLook() {
    forceTheme(this.root, this.model.get("dark"));
    this.root.style.height = `${this.model.get("height")}px`;
  }
  onRows() {
    this.tree.setRows(unpacked(this.model.get("rows")));
    const { active } = this.list;
    if (active === null || !this.tree.byId.has(active)) {
      this.list.active = this.tree.rows[0]?.id ?? null;
    }
    this.list.refill();
    this.refresh();
  }
  onFilter() {
    this.tree.closedInSearch.clear();
    this.refresh();
  }
  onSelected() {
    const row = this.tree.find(this.model.get("selected"));
    if (row) {
      this.list.active = row.id;
      this.tree.reveal(row);
    }
    this.refresh();
    const at = row && this.list.indexOf.get(row.id);
    if (at === void 0) return;
    this.list.centre(at);
    this.list.draw();
  }
  refresh() {
    const query = this.model.get("query");
    const only2 = this.model.get("only");
    if (this.input.value !== query) this.input.value = query;
    for (const [name, button] of this.toggles) {
      button.setAttribute("aria-pressed", String(only2 === name));
    }
    this.hits = this.tree.search(query, only2);
    this.readSelection();
    const shown = this.tree.visible(this.hits, this.selected);
    this.list.setRows(shown);
    this.list.active = this.nearestShown(this.list.active);
    this.layOut();
    this.sayStatus();
    this.empty.hidden = shown.length > 0;
    this.empty.textContent = emptyText(query, only2);
    this.list.draw();
  }
  readSelection() {
    const selected = this.model.get("selected");
    this.selected = this.tree.find(selected)?.id ?? null;
    const found = chosenOf(selected, this.model.get("chosen")).map(
      (one) => this.tree.find(one)?.id
    );
    this.chosen = new Set(found.filter((id) => id !== void 0));
  }
  markChosen() {
    this.readSelection();
    this.list.draw();
    this.sayStatus();
  }
  sayStatus() {
    const all = this.tree.rows.filter((row) => row.kind !== "fold").length.toLocaleString("en");
    const found = this.hits ? `${this.hits.size.toLocaleString("en")} of ${all}` : `${all} modules and fake quants`;
    const many = this.chosen.size.toLocaleString("en");
    this.status.textContent = this.chosen.size > 1 ? `${many} selected, ${found}` : found;
  }
  /** Gives the columns their widths: one for all rows that are shown, in view or not. */
  layOut() {
    const view = this.viewport.clientWidth;
    if (!view) return;
    const label = this.model.get("state_label") ?? "";
    this.stateHead.textContent = label;
    const widths = share(view, this.ruler.wanted(this.list.rows, view, label));
    for (const [name, width] of Object.entries(widths)) {
      this.root.style.setProperty(`--qx-tree-${name}`, `${width}px`);
    }
    this.scrollHead();
  }
  scrollHead() {
    this.head.style.transform = `translateX(${-this.viewport.scrollLeft}px)`;
  }
  /**
   * The row `id`, or what is shown of what it lies in, or the first row.
   * @param {string | null} id
   */
  nearestShown(id) {
    let row = id === null ? void 0 : this.tree.byId.get(id);
    while (row && !this.list.indexOf.has(row.id)) row = this.tree.parentOf(row);
    return row?.id ?? this.list.rows[0]?.id ?? null;
  }
  /**
   * @param {HTMLElement} element
   * @param {TreeRow} row
   */
  markRow(element, row) {
    element.setAttribute("aria-selected", String(this.chosen.has(row.id)));
    element.classList.toggle("qx-is-also", this.chosen.has(row.id) && row.id !== this.selected);
    const [place, size] = this.tree.position.get(row.id) ?? [1, 1];
    element.setAttribute("aria-posinset", String(place));
    element.setAttribute("aria-setsize", String(size));
    if (this.tree.hasChildren(row)) {
      element.setAttribute("aria-expanded", String(this.tree.isOpen(row)));
    } else {
      element.removeAttribute("aria-expanded");
    }
    element.classList.toggle("qx-is-context", this.hits !== null && !this.hits.has(row.id));
  }
  /**
   * @param {TreeRow} row
   * @param {boolean} open
   */
  toggle(row, open) {
    this.tree.setOpen(row, open);
    this.refresh();
  }
  /**
   * @param {MouseEvent} event
   * @param {boolean} double
   */
  onClick(event, double) {
    const row = this.list.rowOf(event);
    if (!row) return;
    const onChevron = closest(event.target, ".qx-tree-chevron") !== null;
    if (double ? !onChevron : onChevron) this.toggle(row, !this.tree.isOpen(row));
    else if (!double) this.pick(row, event);
    const at = this.list.indexOf.get(row.id);
    if (at !== void 0) this.list.focus(at);
  }
  /**
   * A click: with Ctrl (or ⌘) this row too, with Shift all from the last one to it.
   * @param {TreeRow} row
   * @param {MouseEvent} event
   */
  pick(row, event) {
    const also = event.ctrlKey || event.metaKey;
    const at = this.list.indexOf.get(row.id);
    if (event.shiftKey && at !== void 0) this.chooseThrough(at, also);
    else if (also) this.chooseToo(row);
    else this.choose(row);
  }
  /** Selects a row; one that folds others has nothing to select, and opens. @param {TreeRow} row */
  choose(row) {
    this.anchor = row.id;
    if (row.kind === "fold") this.toggle(row, !this.tree.isOpen(row));
    else save(this.model, only(row.id));
  }
  /** Selects a row besides the others, or leaves it out again. @param {TreeRow} row */
  chooseToo(row) {
    this.anchor = row.id;
    if (row.kind === "fold") this.toggle(row, !this.tree.isOpen(row));
    else save(this.model, toggled(this.chosenNow(), row.id));
  }
  /**
   * Selects all rows from the anchor to the row `to`.
   * @param {number} to index of a row that is shown
   * @param {boolean} also whether what is selected elsewhere stays so
   */
  chooseThrough(to, also) {
    const begin = this.anchor ?? this.selected;
    const from = begin === null ? void 0 : this.list.indexOf.get(begin);
    this.anchor = begin;
    if (from === void 0) this.choose(this.list.rows[to]);
    else save(this.model, through(this.list.rows, from, to, also ? this.chosenNow() : []));
  }
  /** Selection strings of all that is selected. */
  chosenNow() {
    return chosenOf(this.model.get("selected"), this.model.get("chosen"));
  }
  /**
   * Moves the focus to the row `to`; with Shift it is selected with all from the anchor on.
   * @param {number} from
   * @param {number} to
   * @param {KeyboardEvent} event
   */
  walk(from, to, event) {
    if (event.shiftKey) {
      const at = Math.max(0, Math.min(this.list.rows.length - 1, to));
      if (this.anchor === null || !this.list.indexOf.has(this.anchor)) {
        this.anchor = this.list.rows[from].id;
      }
      this.chooseThrough(at, false);
    }
    this.list.focus(to);
  }
  /** @param {KeyboardEvent} event */
  onSearchKey(event) {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      const { hits } = this;
      this.list.focus(hits ? this.list.rows.findIndex((row) => hits.has(row.id)) : 0);
    } else if (event.key === "Escape") {
      save(this.model, { query: "" });
    } else return;
    event.preventDefault();
  }
  /** @param {KeyboardEvent} event */
  onKey(event) {
    const { tree, list } = this;
    const isOpen = (row) => tree.hasChildren(row) && tree.isOpen(row);
    const more = {
      ArrowDown: (_, at) => this.walk(at, at + 1, event),
      ArrowUp: (_, at) => this.walk(at, at - 1, event),
      " ": (row) => this.chooseToo(row),
      ArrowRight: (row, at) => isOpen(row) ? list.focus(at + 1) : this.toggle(row, true),
      ArrowLeft: (row) => {
        const up = row.parent === null ? void 0 : list.indexOf.get(row.parent);
        if (isOpen(row)) this.toggle(row, false);
        else if (up !== void 0) list.focus(up);
      },
      "*": (row) => {
        const siblings = row.parent === null ? [row] : tree.children.get(row.parent) ?? [row];
        for (const sibling of siblings) tree.setOpen(sibling, true);
        this.refresh();
      }
    };
    if (list.key(event, (row) => this.choose(row), more)) return;
    if (isShortcut(event) || event.key.length !== 1 || list.active === null) return;
    this.input.focus();
    this.input.value += event.key;
    save(this.model, { query: this.input.value });
    event.preventDefault();
    event.stopPropagation();
  }
};
function emptyText(query, only2) {
  if (query.trim()) return "Nothing matches the search.";
  if (only2 === "changed") return "Nothing changed in this stage.";
  if (only2 === "float") {
    return "Nothing stays float here. (Before fake quants are inserted this is not decided.)";
  }
  return "There is no model to show.";
}
var tree_default = {
  /** @param {import("@anywidget/types").RenderProps<Traits>} props */
  render({ model, el }) {
    const view = new TreeView(model, el);
    return () => view.destroy();
  }
};
export {
  tree_default as default
};
