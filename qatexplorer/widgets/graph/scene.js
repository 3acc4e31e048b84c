// The scene of views/graph/scene.py, indexed: who lies in whom, which edges each group shows, and
// what a selection or a search means in it.

/**
 * @typedef {{ site: string, role: "side" | "tail" | "inside" | "head" }} Mark
 * @typedef {[source: number, target: number, back: number]} Edge
 */

/**
 * What a node and a group have in common.
 * @typedef {object} Common
 * @property {string} id
 * @property {string} label
 * @property {string} sub
 * @property {string} path
 * @property {string} sel
 * @property {boolean} changed
 * @property {string[]} tip
 * @property {Mark[]} marks
 * @property {Finding} [finding] what a check found there or inside (see view.js)
 */

/**
 * The mark at the place of findings, as views/checks/marks.py makes it.
 * @typedef {{ severity: string, mark: string, words: string, inside: string }} Finding
 */

/**
 * @typedef {object} NodeOnly
 * @property {string} parent
 * @property {string} op
 * @property {"float" | "fq" | "int8"} precision
 * @property {string} shape
 * @property {boolean} [passes] an Identity that an edge can stand for
 * @property {undefined} [children]
 * @property {undefined} [sites]
 * @property {undefined} [synthetic]
 * @property {undefined} [inside]
 * @property {undefined} [repeat]
 * @property {undefined} [twice]
 */

/**
 * @typedef {object} GroupOnly
 * @property {string | null} parent
 * @property {string[]} children ids
 * @property {number} ops
 * @property {{ weight: number, input: number, output: number }} sites fake quants inside
 * @property {boolean} inside something in it changed
 * @property {number} int8
 * @property {boolean} synthetic
 * @property {number} [repeat] how many equal blocks it holds, and nothing else
 * @property {number} [passes] how many operations inside only pass a tensor on
 * @property {number} [twice] how many edges inside carry what is fake-quantized twice
 * @property {undefined} [op]
 * @property {undefined} [precision]
 */

/**
 * @typedef {Common & NodeOnly} SceneNode
 * @typedef {Common & GroupOnly} SceneGroup
 * @typedef {SceneNode | SceneGroup} Item
 */

/**
 * A fake quant.
 * @typedef {object} Site
 * @property {string} sel
 * @property {Kind} kind
 * @property {string} letter
 * @property {boolean} changed
 * @property {boolean} off
 * @property {string[]} tip
 */

/** @typedef {"weight" | "input" | "output"} Kind */

/**
 * What Python sends, see views/graph/scene.py; `{}` before there is any.
 * @typedef {object} Scene
 * @property {string} [reason]
 * @property {SceneGroup[]} [groups]
 * @property {SceneNode[]} [nodes]
 * @property {Edge[]} [edges]
 * @property {number[]} [redundant]
 * @property {Record<string, Site>} [sites]
 */

/**
 * A way of a tensor from one operation that is drawn to another: one edge of the scene, or several
 * with the Identities between them.
 * @typedef {object} Link
 * @property {number} from index into nodes
 * @property {number} to
 * @property {number[]} list indices into edges, in order
 * @property {string[]} via ids of the Identities that it passes
 */

/** @typedef {"edges" | "ins" | "outs"} Part */

/**
 * Of one group: links between its children (by "a\nb"), and which children tensors enter and
 * leave; all with the indices of the links that they stand for.
 * @typedef {object} Inner
 * @property {Map<string, number[]>} edges
 * @property {Map<string, number[]>} ins
 * @property {Map<string, number[]>} outs
 * @property {Map<string, string[]>} via ids of the Identities on them, by "<part> <key>"
 */

/** @typedef {ReturnType<typeof indexScene>} Index */

export const ROOT = "g:";

/**
 * @param {Map<string, number[]>} map
 * @param {string} key
 * @param {number} value
 */
function push(map, key, value) {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}

/**
 * Indexes a scene once; everything the drawing asks later is a map look-up.
 * @param {Scene} scene
 * @param {boolean} [identities] whether Identities are drawn as boxes
 */
export function indexScene(scene, identities = false) {
  const { nodes = [], edges = [], sites = {} } = scene;
  const hidden = hiddenItems(scene, identities);
  const all = scene.groups ?? [];
  const groups = hidden.size ? all.map((group) => withoutHidden(group, hidden)) : all;
  /** @type {Map<string, Item>} */
  const items = new Map();
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
    measured: new Map(),
  };
}

/**
 * @param {Scene} scene
 * @param {boolean} identities
 * @returns {Set<string>}
 */
function hiddenItems({ groups = [], nodes = [] }, identities) {
  /** @type {Set<string>} */
  const hidden = new Set();
  if (identities) return hidden;
  for (const { id, passes } of nodes) if (passes) hidden.add(id);
  if (!hidden.size) return hidden;
  // Parents come before their children.
  for (const { id, parent, children } of [...groups].reverse()) {
    if (parent !== null && children.every((child) => hidden.has(child))) hidden.add(id);
  }
  return hidden;
}

/**
 * @param {SceneGroup} group
 * @param {Set<string>} hidden
 */
function withoutHidden(group, hidden) {
  if (hidden.has(group.id) || !group.children.some((child) => hidden.has(child))) return group;
  return { ...group, children: group.children.filter((child) => !hidden.has(child)) };
}

/**
 * @param {SceneNode[]} nodes
 * @param {Edge[]} edges
 * @param {Set<string>} hidden
 * @returns {Link[]}
 */
function linksOf(nodes, edges, hidden) {
  if (!hidden.size) return edges.map(([from, to], i) => ({ from, to, list: [i], via: [] }));
  /** The edge that feeds each Identity. @type {Map<number, number>} */
  const feeds = new Map();
  for (const [i, [, target]] of edges.entries()) {
    if (hidden.has(nodes[target].id)) feeds.set(target, i);
  }
  /** @type {Link[]} */
  const links = [];
  for (const [i, [source, to]] of edges.entries()) {
    if (feeds.has(to)) continue;
    /** @type {Link} */
    const link = { from: source, to, list: [i], via: [] };
    // Each is fed by what ran before it, so this ends.
    for (let at = feeds.get(source); at !== undefined; at = feeds.get(link.from)) {
      link.via.unshift(nodes[link.from].id);
      link.list.unshift(at);
      link.from = edges[at][0];
    }
    links.push(link);
  }
  return links;
}

/**
 * @param {SceneGroup[]} groups
 * @param {SceneNode[]} nodes
 * @param {Link[]} links
 */
function innerLinks(groups, nodes, links) {
  /** @type {Map<string, { parent: string, depth: number }>} */
  const places = new Map();
  for (const { id, parent } of [...groups, ...nodes]) {
    const depth = parent === null ? 0 : (places.get(parent)?.depth ?? 0) + 1;
    places.set(id, { parent: parent ?? "", depth });
  }
  /** @type {Map<string, Inner>} */
  const inner = new Map();
  for (const { id } of groups) {
    inner.set(id, { edges: new Map(), ins: new Map(), outs: new Map(), via: new Map() });
  }
  /** @param {string} id */
  const placeOf = (id) => places.get(id) ?? { parent: "", depth: 0 };
  /** The parts of a link by the group that they lie in. @type {Map<string, [Part, string]>} */
  const parts = new Map();
  /** @param {string} id in the group @param {Part} part @param {string} key @param {number} link */
  const add = (id, part, key, link) => {
    const { parent } = placeOf(id);
    push(/** @type {Inner} */ (inner.get(parent))[part], key, link);
    if (links[link].via.length) parts.set(parent, [part, key]);
  };
  for (const [index, { from, to, via }] of links.entries()) {
    let a = nodes[from].id;
    let b = nodes[to].id;
    // Up from both ends until they lie in one group; an edge into what it comes from is inside.
    while (a !== b && placeOf(a).parent !== placeOf(b).parent) {
      if (placeOf(a).depth >= placeOf(b).depth) {
        add(a, "outs", a, index);
        a = placeOf(a).parent;
      } else {
        add(b, "ins", b, index);
        b = placeOf(b).parent;
      }
    }
    if (a !== b || from === to) add(a, "edges", `${a}\n${b}`, index);
    for (const id of via) noteVia(inner, parts, placeOf, id);
    if (via.length) parts.clear();
  }
  return inner;
}

/**
 * Notes the Identity `id` at the part of its link that lies in the innermost group around it.
 * @param {Map<string, Inner>} inner
 * @param {Map<string, [Part, string]>} parts
 * @param {(id: string) => { parent: string }} placeOf
 * @param {string} id
 */
function noteVia(inner, parts, placeOf, id) {
  for (let group = placeOf(id).parent; group; group = placeOf(group).parent) {
    const found = parts.get(group);
    if (!found) continue;
    const { via } = /** @type {Inner} */ (inner.get(group));
    const key = found.join(" ");
    const known = via.get(key) ?? [];
    if (!known.includes(id)) via.set(key, [...known, id]);
    return;
  }
}

/**
 * The item `id`. Throws where there is none.
 * @param {Index} index
 * @param {string} id
 */
export function itemOf(index, id) {
  const item = index.items.get(id);
  if (!item) throw new Error(`the scene has no ${id}`);
  return item;
}

/**
 * Ids from the root down to the item's parent.
 * @param {Index} index
 * @param {string} id
 */
export function ancestorsOf(index, id) {
  const chain = [];
  let item = index.items.get(id);
  while (item && item.parent !== null) {
    chain.unshift(item.parent);
    item = index.items.get(item.parent);
  }
  return chain;
}

/**
 * Item ids that a selection string means, best first; [] if nothing here shows it.
 * @param {Index} index
 * @param {string} selection
 */
export function itemsOfSelection(index, selection) {
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

/**
 * @param {Index} index
 * @param {string} path
 */
function itemsOfPath(index, path) {
  /** @param {string} p */
  const find = (p) => [
    ...index.nodes.filter((n) => n.path === p),
    ...index.groups.filter((g) => g.path === p && !g.synthetic),
  ];
  let found = find(path);
  let at = path;
  // A module that the graph does not show (inside an LSTM, inside a fused one) is in the nearest.
  while (!found.length && at.includes(".")) {
    at = at.slice(0, at.lastIndexOf("."));
    found = find(at);
  }
  return found.flatMap((item) => (index.hidden.has(item.id) ? leavesOf(index, item.id) : item.id));
}

/**
 * The nodes in an item, itself if it is one.
 * @param {Index} index
 * @param {string} id
 * @returns {string[]}
 */
const leavesOf = (index, id) =>
  itemOf(index, id).children?.flatMap((child) => leavesOf(index, child)) ?? [id];

/**
 * Index of the edge that a selection string names, -1 for none.
 * @param {Index} index
 * @param {string} selection
 */
export function edgeOfSelection(index, selection) {
  return index.edges.findIndex((_, i) => edgeSelection(index, i) === selection);
}

/**
 * The innermost group around an item that is drawn when it is opened; the item itself if it is.
 * @param {Index} index
 * @param {string} id
 */
export function placeOfItem(index, id) {
  return [id, ...ancestorsOf(index, id).reverse()].find((at) => !index.hidden.has(at)) ?? ROOT;
}

/**
 * What an item is called: a path for a module, a label for what is none.
 * @param {Item} item
 */
export const titleOf = (item) => (!item.synthetic && item.path) || item.label;

/**
 * @param {Index} index
 * @param {number} edge
 */
export function edgeSelection(index, edge) {
  const [s, t] = index.edges[edge];
  return `edge:${index.nodes[s].id.slice(2)}:${index.nodes[t].id.slice(2)}`;
}

/**
 * Matches of a search: by path, label, type or operation; whole-word starts first.
 * @param {Index} index
 * @param {string} text
 * @param {number} [most] how many hits to give
 * @returns {{ hits: Item[], total: number }}
 */
export function searchItems(index, text, most = 12) {
  const query = text.trim().toLowerCase();
  if (!query) return { hits: [], total: 0 };
  /** @type {[number, Item][]} */
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
