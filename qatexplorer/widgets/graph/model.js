// The scene of views/scene.py, indexed: who lies in whom, and which edges each group shows.

const ROOT = "g:";

/** Indexes a scene once; everything the drawing asks later is a map look-up. */
function indexScene(scene) {
  const items = new Map();
  const groups = scene.groups || [];
  const nodes = scene.nodes || [];
  const edges = scene.edges || [];
  const depth = new Map();
  groups.forEach((g) => {
    items.set(g.id, g);
    depth.set(g.id, g.parent === null ? 0 : depth.get(g.parent) + 1);
  });
  nodes.forEach((n, i) => {
    items.set(n.id, n);
    depth.set(n.id, depth.get(n.parent) + 1);
    n.index = i;
  });
  // Per group: edges between its children, and which children tensors enter and leave.
  const inner = new Map(groups.map((g) => [g.id, { edges: new Map(), ins: new Map(), outs: new Map() }]));
  const push = (map, key, value) => {
    const list = map.get(key);
    if (list) list.push(value);
    else map.set(key, [value]);
  };
  edges.forEach(([s, t], index) => {
    let a = nodes[s].id;
    let b = nodes[t].id;
    while (items.get(a).parent !== items.get(b).parent) {
      if (depth.get(a) >= depth.get(b)) {
        push(inner.get(items.get(a).parent).outs, a, index);
        a = items.get(a).parent;
      } else {
        push(inner.get(items.get(b).parent).ins, b, index);
        b = items.get(b).parent;
      }
      if (a === b) return;
    }
    push(inner.get(items.get(a).parent).edges, `${a}\n${b}`, index);
  });
  const redundant = new Set(scene.redundant || []);
  return { scene, items, groups, nodes, edges, redundant, inner, sites: scene.sites || {}, measured: new Map() };
}

/** Ids from the root down to the item's parent. */
function ancestorsOf(index, id) {
  const chain = [];
  let item = index.items.get(id);
  while (item && item.parent !== null) {
    chain.unshift(item.parent);
    item = index.items.get(item.parent);
  }
  return chain;
}

/** Item ids that a selection string means, best first; [] if nothing here shows it. */
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

function edgeOfSelection(index, selection) {
  return index.edges.findIndex((_, i) => edgeSelection(index, i) === selection);
}

function edgeSelection(index, edge) {
  const [s, t] = index.edges[edge];
  return `edge:${index.nodes[s].id.slice(2)}:${index.nodes[t].id.slice(2)}`;
}

/** Matches of a search: by path, label, type or operation; whole-word starts first. */
function searchItems(index, text, most = 12) {
  const query = text.trim().toLowerCase();
  if (!query) return { hits: [], total: 0 };
  const scored = [];
  const real = index.groups.filter((g) => !g.synthetic && g.parent !== null);
  for (const item of [...real, ...index.nodes]) {
    const hay = `${item.path} ${item.label} ${item.sub} ${item.op || ""} ${item.id.slice(2)}`.toLowerCase();
    const at = hay.indexOf(query);
    if (at < 0) continue;
    const exact = item.path.toLowerCase() === query || item.label.toLowerCase() === query;
    const starts = at === 0 || /[\s._·]/.test(hay[at - 1]);
    scored.push([exact ? 0 : starts ? 1 : 2, item]);
  }
  scored.sort((a, b) => a[0] - b[0]);
  return { hits: scored.slice(0, most).map((s) => s[1]), total: scored.length };
}

/** How many marks an item takes when it is drawn closed or as a node. */
function marksOf(item) {
  return 1 + Math.min(item.marks.length, MAX_ITEM_MARKS);
}

/** Marks drawn when `root` is shown and the groups in `opened` are open. */
function countMarks(index, opened, root) {
  let total = 0;
  const walk = (id) => {
    const item = index.items.get(id);
    total += marksOf(item);
    if (item.children && (id === root || opened.has(id))) item.children.forEach(walk);
  };
  walk(root);
  return total;
}

/** Which groups to open in the first picture: as many as leave it easy to read. */
function firstOpened(index) {
  if (!index.groups.length) return new Set();
  const opened = new Set();
  const everything = new Set(index.groups.map((g) => g.id));
  if (countMarks(index, everything, ROOT) <= 70) return everything;
  let shown = index.items.get(ROOT).children.filter((c) => index.items.get(c).children);
  const leaves = index.items.get(ROOT).children.length;
  // Only a thin shell (a wrapper around the model) is opened for the reader.
  while (leaves <= 4 && shown.length === 1) {
    const id = shown[0];
    const next = new Set([...opened, id]);
    if (countMarks(index, next, ROOT) > 70) break;
    opened.add(id);
    shown = index.items.get(id).children.filter((c) => index.items.get(c).children);
  }
  return opened;
}
