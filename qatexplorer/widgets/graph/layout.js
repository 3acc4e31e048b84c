// Layered layout of one group at a time, in a worker; cached, and ended by terminating the worker.

/**
 * Lays out one group. Runs in the worker, so it may use nothing but its arguments.
 * All in top-to-bottom coordinates: `nodes` [[id, w, h, inX, outX]] where inX and outX are where
 * tensors enter and leave, from the box's centre; `edges` [[key, a, b, back]]; `ins`, `outs` ids.
 */
function layoutOne(dagre, spec) {
  const g = new dagre.graphlib.Graph({ multigraph: true });
  g.setGraph({
    rankdir: "TB", nodesep: spec.gap, edgesep: 14, ranksep: spec.rankGap, marginx: 0, marginy: 0,
    ranker: spec.nodes.length > 150 ? "longest-path" : "network-simplex",
  });
  g.setDefaultEdgeLabel(() => ({}));
  const port = new Map();
  for (const [id, w, h, inX, outX] of spec.nodes) {
    g.setNode(id, { width: w, height: h });
    port.set(id, [inX, outX]);
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
  // The port of the group's inputs lies above everything, that of the outputs below.
  const addPort = (name, real, loose, toNode) => {
    if (!real.length) return;
    g.setNode(name, { width: 2, height: 2 });
    port.set(name, [0, 0]);
    const wanted = new Set(real);
    for (const id of new Set([...real, ...loose])) {
      const [v, w] = toNode ? [name, id] : [id, name];
      g.setEdge(v, w, { weight: wanted.has(id) ? 1 : 0 }, `${name}${id}`);
    }
  };
  const ids = spec.nodes.map((n) => n[0]);
  addPort("@in", spec.ins, ids.filter((id) => !fed.has(id)), true);
  addPort("@out", spec.outs, ids.filter((id) => !feeds.has(id)), false);
  dagre.layout(g);

  const ranks = new Map();
  const rankOf = (y) => Math.round(y * 4);
  const size = { w: 0, h: 0 };
  for (const id of g.nodes()) {
    const n = g.node(id);
    const r = ranks.get(rankOf(n.y)) || { top: Infinity, bottom: -Infinity };
    r.top = Math.min(r.top, n.y - n.height / 2);
    r.bottom = Math.max(r.bottom, n.y + n.height / 2);
    ranks.set(rankOf(n.y), r);
    size.w = Math.max(size.w, n.x + n.width / 2);
    size.h = Math.max(size.h, n.y + n.height / 2);
  }
  // Within a layer an edge runs straight, so it never cuts a box; it bends between layers only.
  const route = (v, w, name) => {
    const a = g.node(v);
    const b = g.node(w);
    const points = [[a.x + port.get(v)[1], a.y + a.height / 2]];
    const first = ranks.get(rankOf(a.y)).bottom;
    if (first - points[0][1] > 1) points.push([points[0][0], first]);
    const way = g.edge(v, w, name).points.slice(1, -1);
    for (const p of way) {
      const r = ranks.get(rankOf(p.y));
      if (r) points.push([p.x, r.top], [p.x, r.bottom]);
    }
    const last = ranks.get(rankOf(b.y)).top;
    const end = [b.x + port.get(w)[0], b.y - b.height / 2];
    if (end[1] - last > 1) points.push([end[0], last]);
    points.push(end);
    return points;
  };
  const out = { pos: {}, edges: {}, ins: {}, outs: {}, in: null, out: null };
  for (const [key, a, b, back] of spec.edges) {
    if (a === b) continue;
    out.edges[key] = back ? route(b, a, key).reverse() : route(a, b, key);
  }
  for (const id of spec.ins) out.ins[id] = route("@in", id, `@in${id}`);
  for (const id of spec.outs) out.outs[id] = route(id, "@out", `@out${id}`);
  // Long edges may run outside of all boxes, on either side.
  const routes = [out.edges, out.ins, out.outs].flatMap((table) => Object.values(table)).flat();
  const left = routes.reduce((least, [x]) => Math.min(least, x), 0);
  const right = routes.reduce((most, [x]) => Math.max(most, x), size.w);
  for (const point of new Set(routes)) point[0] -= left;
  for (const id of ids) out.pos[id] = [g.node(id).x - left, g.node(id).y];
  if (spec.ins.length) out.in = g.node("@in").x - left;
  if (spec.outs.length) out.out = g.node("@out").x - left;
  out.w = right - left;
  out.h = size.h;
  return out;
}

class Cancelled extends Error {}

/** Runs `layoutOne` off the main thread; in it where the page refuses workers. */
class Layouter {
  constructor() {
    this.cache = new Map();
    this.waiting = new Map();
    this.serial = 0;
    this.worker = null;
    this.url = null;
    this.local = null;
    this.start();
  }

  start() {
    const answer =
      "onmessage = (e) => { const { id, spec } = e.data;" +
      "try { postMessage({ id, result: layoutOne(dagre, spec) }); }" +
      "catch (error) { postMessage({ id, error: String(error) }); } };";
    const code = `${DAGRE_SOURCE}\n${layoutOne.toString()}\n${answer}`;
    try {
      this.url = this.url || URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
      this.worker = new Worker(this.url);
      this.worker.onmessage = (e) => this.settle(e.data);
      this.worker.onerror = () => this.refuse();
    } catch {
      this.worker = null;
    }
  }

  settle({ id, result, error }) {
    const wait = this.waiting.get(id);
    if (!wait) return;
    this.waiting.delete(id);
    if (error) wait.reject(new Error(error));
    else wait.resolve(result);
  }

  /** The worker could not be loaded: what waits is laid out here instead. */
  refuse() {
    this.worker = null;
    const waits = [...this.waiting.values()];
    this.waiting.clear();
    waits.forEach((w) => this.runHere(w.spec).then(w.resolve, w.reject));
  }

  async runHere(spec) {
    if (!this.local) {
      const code = `${DAGRE_SOURCE}\nexport default dagre;`;
      const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
      this.local = import(url).finally(() => URL.revokeObjectURL(url));
    }
    return layoutOne((await this.local).default, spec);
  }

  async layout(key, spec) {
    const known = this.cache.get(key);
    if (known) return known;
    const result = this.worker
      ? await new Promise((resolve, reject) => {
          const id = ++this.serial;
          this.waiting.set(id, { resolve, reject, spec });
          this.worker.postMessage({ id, spec });
        })
      : await this.runHere(spec);
    if (this.cache.size > 400) this.cache.delete(this.cache.keys().next().value);
    this.cache.set(key, result);
    return result;
  }

  get busy() {
    return this.waiting.size > 0;
  }

  /** Ends what is being laid out, at once. */
  cancel() {
    const waits = [...this.waiting.values()];
    this.waiting.clear();
    if (this.worker && waits.length) {
      this.worker.terminate();
      this.start();
    }
    waits.forEach((w) => w.reject(new Cancelled("cancelled")));
    return waits.length > 0;
  }

  forget() {
    this.cache.clear();
  }

  dispose() {
    this.cancel();
    if (this.worker) this.worker.terminate();
    if (this.url) URL.revokeObjectURL(this.url);
    this.worker = this.url = null;
  }
}
