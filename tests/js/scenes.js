// Small scenes as views/graph/scene.py makes them.

const ROOT = "g:";

/** @param {string} id */
export const group = (id, parent, children, more = {}) => ({
  id,
  parent,
  children,
  label: id,
  sub: "",
  path: id.slice(2),
  sel: `module:${id.slice(2)}`,
  ops: children.length,
  sites: { weight: 0, input: 0, output: 0 },
  changed: false,
  inside: false,
  int8: 0,
  synthetic: false,
  tip: [],
  marks: [],
  ...more,
});

/** `marks` are paths of fake quants. */
export const node = (id, parent, { marks = [], ...more } = {}) => ({
  id,
  parent,
  label: more.path ?? id.slice(2),
  sub: "",
  path: "",
  op: "call_module",
  sel: more.path ? `module:${more.path}` : `node:${id.slice(2)}`,
  precision: "float",
  changed: false,
  shape: "",
  tip: [],
  marks: marks.map((site) => ({ site, role: "side" })),
  ...more,
});

export const edge = (source, target, back = 0) => [source, target, back];

/** Blocks one after the other, each with as many operations in a row. */
export function chainOfBlocks(blocks, length) {
  const ids = Array.from({ length: blocks }, (_, b) => `g:${b}`);
  const groups = [group(ROOT, null, ids)];
  const nodes = [];
  for (const [b, id] of ids.entries()) {
    const inside = Array.from({ length }, (_, i) => `n:${b}.${i}`);
    groups.push(group(id, ROOT, inside, { label: `block ${b}` }));
    for (const inner of inside) nodes.push(node(inner, id, { path: inner.slice(2) }));
  }
  const edges = nodes.slice(1).map((_, i) => edge(i, i + 1));
  return { groups, nodes, edges };
}
