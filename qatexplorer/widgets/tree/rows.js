// The rows of the module tree: which are open, found and drawn, and how one looks. Joined with
// tree.js, which follows, into one module.

const ROW = 26;
const OPEN_AT_FIRST = 80;
const KINDS = [
  ["weight", "■", "W"],
  ["input", "▲", "I"],
  ["output", "●", "A"],
];

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function badge(text, className, title) {
  const element = make("span", `qx-badge ${className}`, text);
  if (title) element.title = title;
  return element;
}

/** Rows, who is whose child, and which are open and found. */
class Tree {
  constructor() {
    this.open = new Map(); // path -> bool; by path, as a module's id may become a site's
    this.closedInSearch = new Set();
    this.setRows([]);
  }

  setRows(rows) {
    this.rows = rows;
    this.byId = new Map(rows.map((row) => [row.id, row]));
    this.children = new Map();
    for (const row of rows) {
      if (row.parent === null || !this.byId.has(row.parent)) continue;
      if (!this.children.has(row.parent)) this.children.set(row.parent, []);
      this.children.get(row.parent).push(row);
    }
    // Whole levels, as many as make a page or two; the first one always.
    const perDepth = [];
    for (const row of rows) perDepth[row.depth] = (perDepth[row.depth] || 0) + 1;
    this.openDepth = 0;
    for (let sum = 0; this.openDepth < perDepth.length; this.openDepth++) {
      sum += perDepth[this.openDepth] || 0;
      if (sum > OPEN_AT_FIRST) break;
    }
    this.openDepth = Math.max(1, this.openDepth - 1);
    this.position = new Map();
    for (const siblings of [...this.children.values(), rows.filter((r) => r.parent === null)]) {
      siblings.forEach((row, i) => this.position.set(row.id, [i + 1, siblings.length]));
    }
  }

  find(selection) {
    const path = selection.slice(selection.indexOf(":") + 1);
    if (!/^(module|site):/.test(selection)) return undefined;
    return (
      this.byId.get(selection) || this.byId.get(`site:${path}`) || this.byId.get(`module:${path}`)
    );
  }

  hasChildren(row) {
    return this.children.has(row.id);
  }

  isOpen(row) {
    if (this.filtered) return !this.closedInSearch.has(row.path);
    if (this.open.has(row.path)) return this.open.get(row.path);
    return this.allOpen ?? row.depth < this.openDepth;
  }

  setOpen(row, open) {
    if (!this.hasChildren(row)) return;
    if (!this.filtered) this.open.set(row.path, open);
    else if (open) this.closedInSearch.delete(row.path);
    else this.closedInSearch.add(row.path);
  }

  setAllOpen(open) {
    // Also for rows that a later stage brings.
    this.allOpen = open;
    this.open.clear();
    this.closedInSearch.clear();
    if (open) return;
    for (const row of this.rows) {
      // The root stays open: one line alone would look like an empty tree.
      if (row.parent === null) this.open.set(row.path, true);
      else if (this.filtered) this.closedInSearch.add(row.path);
    }
  }

  reveal(row) {
    for (let up = this.byId.get(row.parent); up; up = this.byId.get(up.parent)) {
      this.open.set(up.path, true);
      this.closedInSearch.delete(up.path);
    }
  }

  /** Hits of the search and filters, or null when all rows are shown. */
  search(query, only) {
    const terms = query.toLowerCase().split(/\s+/).filter(Boolean);
    this.filtered = terms.length > 0 || only !== "all";
    if (!this.filtered) return null;
    const hits = new Set();
    for (const row of this.rows) {
      if (only === "changed" && !row.changed) continue;
      if (only === "float" && !row.float) continue;
      const text = `${row.path} ${row.type} ${row.before}`.toLowerCase();
      if (terms.every((term) => text.includes(term))) hits.add(row.id);
    }
    return hits;
  }

  /** The rows to draw, in order: open ones, and under a search hits with their ancestors. */
  visible(hits, pinned) {
    let keep = null;
    if (hits) {
      keep = new Set();
      for (const id of pinned ? [...hits, pinned] : hits) {
        for (let row = this.byId.get(id); row && !keep.has(row.id); ) {
          keep.add(row.id);
          row = this.byId.get(row.parent);
        }
      }
    }
    const shown = [];
    let hiddenBelow = Infinity;
    for (const row of this.rows) {
      if (row.depth > hiddenBelow) continue;
      hiddenBelow = Infinity;
      if (keep && !keep.has(row.id)) continue;
      shown.push(row);
      if (this.hasChildren(row) && !this.isOpen(row)) hiddenBelow = row.depth;
    }
    return shown;
  }
}

function describe(row) {
  const parts = [row.name, row.before ? `was ${row.before}, now ${row.type}` : row.type];
  if (row.kind === "site") parts.push(`${row.site} fake quant`);
  if (row.changed) parts.push(`changed: ${row.what.join(", ")}`);
  if (row.qconfig) parts.push(`qconfig ${row.qconfig}`);
  KINDS.forEach(([kind], i) => {
    if (row.below[i]) parts.push(`${row.below[i]} ${kind} fake quant${row.below[i] > 1 ? "s" : ""}`);
  });
  if (row.int8) parts.push("int8");
  if (row.float) parts.push("stays float");
  if (row.not_run) parts.push("not run");
  if (row.shared !== null) parts.push(`same object as ${row.shared || "the model"}`);
  return parts.join(", ");
}

function typeCell(row) {
  const cell = make("span", "qx-tree-type");
  if (row.before) {
    cell.append(make("span", "qx-tree-before", row.before), make("span", "qx-tree-arrow", " → "));
    cell.append(make("strong", "qx-tree-after", row.type));
  } else {
    cell.textContent = row.type;
  }
  cell.title = row.before ? `${row.before} → ${row.type}\n${row.title}` : row.title;
  return cell;
}

function badges(row) {
  const box = make("span", "qx-tree-badges");
  const own = row.marks.some(Boolean);
  KINDS.forEach(([kind, mark, letter], i) => {
    const n = own ? row.marks[i] : row.below[i];
    if (!n) return;
    const text = own ? `${mark} ${letter}${n > 1 ? ` ${n}` : ""}` : `${mark} ${n}`;
    const where = own ? "held by this module" : "inside";
    box.append(
      badge(text, own ? `qx-${kind}` : "qx-tree-inside", `${n} ${kind} fake quant(s) ${where}`),
    );
  });
  if (row.int8) box.append(badge("int8", "qx-int8", "An int8 module of torch"));
  if (row.float) box.append(badge("float", "qx-tree-float", "Computes in float at this stage"));
  if (row.not_run) box.append(badge("not run", "", "Did not run in the forward of the example input"));
  if (row.shared !== null) {
    box.append(badge("shared", "", `The same object as ${row.shared || "the model"}`));
  }
  if (row.qconfig) box.append(badge(row.qconfig, "qx-tree-qconfig", row.qconfig_title));
  return box;
}

function fillRow(element, row) {
  element.replaceChildren();
  const guides = make("span", "qx-tree-indent");
  guides.style.width = `${row.depth * 16}px`;
  const chevron = make("span", "qx-tree-chevron");
  chevron.setAttribute("aria-hidden", "true");
  const name = make("span", "qx-tree-name", row.name);
  name.title = row.path || "the model itself";
  element.append(guides, chevron);
  if (row.kind === "site") {
    const [kind, mark, letter] = KINDS.find(([k]) => k === row.site);
    element.append(badge(`${mark} ${letter}`, `qx-${kind}`, `${kind} fake quant`));
  }
  element.append(name, typeCell(row));
  const delta = make("span", "qx-tree-delta", row.changed ? "Δ" : "");
  if (row.changed) delta.title = `Changed in this stage: ${row.what.join(", ")}`;
  element.append(delta, badges(row));
  element.className = "qx-tree-row";
  element.classList.toggle("qx-is-changed", row.changed);
  element.classList.toggle("qx-is-gone", row.what.includes("gone"));
  element.classList.toggle("qx-is-site", row.kind === "site");
  element.setAttribute("aria-label", describe(row));
  element.setAttribute("aria-level", String(row.depth + 1));
}

