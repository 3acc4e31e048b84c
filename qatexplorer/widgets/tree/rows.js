// The rows of the module tree: which are open, which a search finds, which are drawn.

/**
 * One row, as views/tree.py makes it.
 * @typedef {object} TreeRow
 * @property {string} id selection string
 * @property {string | null} parent id
 * @property {"module" | "site" | "fold"} kind
 * @property {string} path
 * @property {string} name
 * @property {number} depth
 * @property {string} type
 * @property {string} before the type in the stage before, "" if it is the same
 * @property {string[]} what changed
 * @property {boolean} changed
 * @property {string} qconfig
 * @property {string} qconfig_title
 * @property {string} [rule] what a rule of the session says of its qconfig, "" without one
 * @property {string} [rule_title] the same as a sentence
 * @property {number[]} marks own fake quants: weight, input, output
 * @property {number[]} below fake quants of the whole subtree: weight, input, output
 * @property {boolean} float
 * @property {string} [state] "int8", "float", "mixed" or ""
 * @property {string} [state_text] the same as a label
 * @property {string} [state_title] the same as a sentence
 * @property {boolean} not_run
 * @property {boolean} [quiet] it does nothing
 * @property {string | null} shared another path that names the same object
 * @property {boolean} int8
 * @property {string} title
 * @property {string} [site] kind of the fake quant
 * @property {string} [torch_name] what torch calls the fake quant
 * @property {string} [source] the line of the user's code that makes its tensor
 * @property {string[]} [shares] the tensors that share the fake quant
 */

/** @typedef {"all" | "changed" | "float"} Only */

const OPEN_AT_FIRST = 80;
/** Before the name of a type in a search. */
const TYPE = "type:";

/** Rows, who is whose child, and which are open and found. */
export class Tree {
  constructor() {
    /** By path, as a module's id may become a fake quant's. @type {Map<string, boolean>} */
    this.open = new Map();
    /** @type {Set<string>} */
    this.closedInSearch = new Set();
    /** What "expand all" and "collapse all" said last. @type {boolean | undefined} */
    this.allOpen = undefined;
    this.filtered = false;
    /** @type {TreeRow[]} */
    this.rows = [];
    /** @type {Map<string, TreeRow>} */
    this.byId = new Map();
    /** @type {Map<string, TreeRow[]>} */
    this.children = new Map();
    /** Place among the siblings, and how many there are. @type {Map<string, [number, number]>} */
    this.position = new Map();
    this.openDepth = 1;
  }

  /** @param {TreeRow[]} rows parents before children */
  setRows(rows) {
    this.rows = rows;
    this.byId = new Map(rows.map((row) => [row.id, row]));
    this.children = new Map();
    for (const row of rows) {
      if (row.parent === null || !this.byId.has(row.parent)) continue;
      const siblings = this.children.get(row.parent);
      if (siblings) siblings.push(row);
      else this.children.set(row.parent, [row]);
    }
    this.openDepth = firstOpenDepth(rows);
    this.position = new Map();
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
    if (!/^(module|site):/.test(selection)) return undefined;
    const path = selection.slice(selection.indexOf(":") + 1);
    return (
      this.byId.get(selection) ?? this.byId.get(`site:${path}`) ?? this.byId.get(`module:${path}`)
    );
  }

  /** @param {TreeRow} row */
  parentOf(row) {
    return row.parent === null ? undefined : this.byId.get(row.parent);
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
      // The root stays open: one line alone would look like an empty tree.
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
  search(query, only) {
    const terms = query.toLowerCase().split(/\s+/).filter(Boolean);
    this.filtered = terms.length > 0 || only !== "all";
    if (!this.filtered) return null;
    /** @type {Set<string>} */
    const hits = new Set();
    for (const row of this.rows) {
      if (row.kind === "fold") continue;
      if (only === "changed" && !row.changed) continue;
      if (only === "float" && !row.float) continue;
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
    /** @type {Set<string>} */
    const found = new Set();
    for (const id of ids) {
      let row = this.byId.get(id);
      while (row && !found.has(row.id)) {
        found.add(row.id);
        row = this.parentOf(row);
      }
    }
    return found;
  }
}

/**
 * @param {TreeRow} row
 * @param {string} text what is searched, in lower case
 * @param {string} term in lower case
 */
function matches(row, text, term) {
  if (!term.startsWith(TYPE)) return text.includes(term);
  return row.kind === "module" && row.type.toLowerCase() === term.slice(TYPE.length);
}

/**
 * How many levels are open at first: whole ones, as many as make a page or two; one at least.
 * @param {TreeRow[]} rows
 */
function firstOpenDepth(rows) {
  /** @type {number[]} */
  const perDepth = [];
  for (const row of rows) perDepth[row.depth] = (perDepth[row.depth] ?? 0) + 1;
  let depth = 0;
  for (let sum = 0; depth < perDepth.length; depth++) {
    sum += perDepth[depth] ?? 0;
    if (sum > OPEN_AT_FIRST) break;
  }
  return Math.max(1, depth - 1);
}
