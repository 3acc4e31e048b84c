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
 */

/**
 * @typedef {object} NodeOnly
 * @property {string} parent
 * @property {string} op
 * @property {"float" | "fq" | "int8"} precision
 * @property {string} shape
 * @property {undefined} [children]
 * @property {undefined} [sites]
 * @property {undefined} [synthetic]
 * @property {undefined} [inside]
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
 * Of one group: edges between its children (by "a\nb"), and which children tensors enter and
 * leave; all with the indices of the scene's edges that they stand for.
 * @typedef {object} Inner
 * @property {Map<string, number[]>} edges
 * @property {Map<string, number[]>} ins
 * @property {Map<string, number[]>} outs
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
 */
export function indexScene(scene) {
  const { groups = [], nodes = [], edges = [], sites = {} } = scene;
  /** @type {Map<string, Item>} */
  const items = new Map();
  for (const item of [...groups, ...nodes]) items.set(item.id, item);
  return {
    items,
    groups,
    nodes,
    edges,
    sites,
    redundant: new Set(scene.redundant ?? []),
    inner: innerEdges(groups, nodes, edges),
    /** Boxes, measured once. @type {Map<string, import("./geometry.js").ClosedBox>} */
    measured: new Map(),
  };
}

/**
 * @param {SceneGroup[]} groups
 * @param {SceneNode[]} nodes
 * @param {Edge[]} edges
 */
function innerEdges(groups, nodes, edges) {
  /** @type {Map<string, { parent: string, depth: number }>} */
  const places = new Map();
  for (const { id, parent } of [...groups, ...nodes]) {
    const depth = parent === null ? 0 : (places.get(parent)?.depth ?? 0) + 1;
    places.set(id, { parent: parent ?? "", depth });
  }
  /** @type {Map<string, Inner>} */
  const inner = new Map();
  for (const { id } of groups) inner.set(id, { edges: new Map(), ins: new Map(), outs: new Map() });
  /** @param {string} id */
  const placeOf = (id) => places.get(id) ?? { parent: "", depth: 0 };
  /** @param {string} id */
  const around = (id) => /** @type {Inner} */ (inner.get(placeOf(id).parent));
  for (const [index, [source, target]] of edges.entries()) {
    let a = nodes[source].id;
    let b = nodes[target].id;
    // Up from both ends until they lie in one group; an edge into what it comes from is inside.
    while (a !== b && placeOf(a).parent !== placeOf(b).parent) {
      if (placeOf(a).depth >= placeOf(b).depth) {
        push(around(a).outs, a, index);
        a = placeOf(a).parent;
      } else {
        push(around(b).ins, b, index);
        b = placeOf(b).parent;
      }
    }
    if (a !== b || source === target) push(around(a).edges, `${a}\n${b}`, index);
  }
  return inner;
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
  return found.map((item) => item.id);
}

/**
 * Index of the edge that a selection string names, -1 for none.
 * @param {Index} index
 * @param {string} selection
 */
export function edgeOfSelection(index, selection) {
  return index.edges.findIndex((_, i) => edgeSelection(index, i) === selection);
}

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
