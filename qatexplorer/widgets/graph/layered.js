// Layered layout of one group, by dagre. It runs in a worker made of the text of these functions,
// so they use nothing but each other and their arguments.

/** @typedef {[number, number]} Point */

/**
 * What to lay out, all in top-to-bottom coordinates.
 * @typedef {object} Spec
 * @property {number} gap between boxes of a layer
 * @property {number} rankGap between layers
 * @property {[id: string, w: number, h: number, inX: number, outX: number][]} nodes inX and outX
 *   are where tensors enter and leave, from the box's centre
 * @property {[key: string, from: string, to: string, back: boolean][]} edges
 * @property {string[]} ins ids that tensors enter from outside
 * @property {string[]} outs ids that tensors leave from
 */

/**
 * @typedef {object} LaidOut
 * @property {number} w
 * @property {number} h
 * @property {Record<string, Point>} pos centres by id
 * @property {Record<string, Point[]>} edges by key
 * @property {Record<string, Point[]>} ins by id
 * @property {Record<string, Point[]>} outs by id
 * @property {number | null} in where tensors enter the group, null if none do
 * @property {number | null} out
 */

/**
 * A graph of dagre; it brings no types.
 * @typedef {any} DagreGraph
 */

/**
 * Where tensors enter and leave each box, from its centre.
 * @typedef {Map<string, Point>} Ports
 */

/**
 * Where each layer begins and ends, by {@link rankOf}.
 * @typedef {Map<number, { top: number, bottom: number }>} Ranks
 */

/**
 * The group as a graph of dagre.
 * @param {any} dagre
 * @param {Spec} spec
 * @returns {{ g: DagreGraph, ports: Ports }}
 */
function buildGraph(dagre, spec) {
  const g = new dagre.graphlib.Graph({ multigraph: true });
  g.setGraph({
    rankdir: "TB",
    nodesep: spec.gap,
    edgesep: 14,
    ranksep: spec.rankGap,
    marginx: 0,
    marginy: 0,
    ranker: spec.nodes.length > 150 ? "longest-path" : "network-simplex",
  });
  g.setDefaultEdgeLabel(() => ({}));
  /** @type {Ports} */
  const ports = new Map();
  for (const [id, w, h, inX, outX] of spec.nodes) {
    g.setNode(id, { width: w, height: h });
    ports.set(id, [inX, outX]);
  }
  const fed = new Set();
  const feeds = new Set();
  for (const [key, a, b, back] of spec.edges) {
    if (a === b) continue;
    const [from, to] = back ? [b, a] : [a, b];
    g.setEdge(from, to, { weight: back ? 0 : 2 }, key);
    fed.add(to);
    feeds.add(from);
  }
  /**
   * The port of the group's inputs lies above everything, that of the outputs below.
   * @param {string} name
   * @param {string[]} real ids that tensors pass
   * @param {Set<string>} tied ids that an edge at that end holds in place
   * @param {boolean} toNode
   */
  const addPort = (name, real, tied, toNode) => {
    if (!real.length) return;
    g.setNode(name, { width: 2, height: 2 });
    ports.set(name, [0, 0]);
    const wanted = new Set(real);
    const loose = spec.nodes.map(([id]) => id).filter((id) => !tied.has(id));
    for (const id of new Set([...real, ...loose])) {
      const [v, w] = toNode ? [name, id] : [id, name];
      g.setEdge(v, w, { weight: wanted.has(id) ? 1 : 0 }, `${name}${id}`);
    }
  };
  addPort("@in", spec.ins, fed, true);
  addPort("@out", spec.outs, feeds, false);
  return { g, ports };
}

/** Which layer a height is in; dagre gives the middles of one layer the same. @param {number} y */
function rankOf(y) {
  return Math.round(y * 4);
}

/**
 * @param {DagreGraph} g laid out
 * @returns {{ ranks: Ranks, w: number, h: number }}
 */
function measureRanks(g) {
  /** @type {Ranks} */
  const ranks = new Map();
  let [w, h] = [0, 0];
  for (const id of g.nodes()) {
    const n = g.node(id);
    const { top, bottom } = ranks.get(rankOf(n.y)) ?? { top: n.y, bottom: n.y };
    const half = n.height / 2;
    ranks.set(rankOf(n.y), {
      top: Math.min(top, n.y - half),
      bottom: Math.max(bottom, n.y + half),
    });
    w = Math.max(w, n.x + n.width / 2);
    h = Math.max(h, n.y + half);
  }
  return { ranks, w, h };
}

/**
 * Way of an edge. Within a layer it runs straight, so it never cuts a box; it bends between layers.
 * @param {DagreGraph} g laid out
 * @param {Ranks} ranks
 * @param {Ports} ports
 * @param {string} v
 * @param {string} w
 * @param {string} name
 */
function route(g, ranks, ports, v, w, name) {
  const [a, b] = [g.node(v), g.node(w)];
  /** @type {Point} */
  const start = [a.x + (ports.get(v)?.[1] ?? 0), a.y + a.height / 2];
  /** @type {Point} */
  const end = [b.x + (ports.get(w)?.[0] ?? 0), b.y - b.height / 2];
  const first = ranks.get(rankOf(a.y))?.bottom ?? start[1];
  const last = ranks.get(rankOf(b.y))?.top ?? end[1];
  /** @type {Point[]} */
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

/**
 * Lays out one group.
 * @param {any} dagre the library
 * @param {Spec} spec
 * @returns {LaidOut}
 */
export function layoutOne(dagre, spec) {
  const { g, ports } = buildGraph(dagre, spec);
  dagre.layout(g);
  const { ranks, w, h } = measureRanks(g);
  /** @type {LaidOut} */
  const out = { w, h, pos: {}, edges: {}, ins: {}, outs: {}, in: null, out: null };
  for (const [key, a, b, back] of spec.edges) {
    if (a === b) continue;
    const [from, to] = back ? [b, a] : [a, b];
    const points = route(g, ranks, ports, from, to, key);
    out.edges[key] = back ? points.reverse() : points;
  }
  for (const id of spec.ins) out.ins[id] = route(g, ranks, ports, "@in", id, `@in${id}`);
  for (const id of spec.outs) out.outs[id] = route(g, ranks, ports, id, "@out", `@out${id}`);
  // Long edges may run outside of all boxes, on either side.
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

/**
 * The text of a worker's script that defines `dagre`, a function that lays out, and answers
 * `{ id, spec }` with `{ id, result }` or `{ id, error }`.
 * @param {string} dagreText
 */
export function workerText(dagreText) {
  // Their own names: a bundler may have given them others.
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
