import assert from "node:assert/strict";
import { test } from "node:test";
import {
  countMarks,
  firstOpened,
  withinBudget,
  withNewFolds,
} from "../../qatexplorer/widgets/graph/budget.js";
import {
  ancestorsOf,
  edgeOfSelection,
  indexScene,
  itemOf,
  itemsOfSelection,
  placeOfItem,
  ROOT,
  searchItems,
  titleOf,
} from "../../qatexplorer/widgets/graph/scene.js";
import { chainOfBlocks, edge, group, node } from "./scenes.js";

// root ⊃ block ⊃ {a, b}, root ⊃ {input, head}; input → a → b → head, input → head, b → b
const SCENE = {
  groups: [
    group(ROOT, null, ["n:input", "g:block", "n:head"]),
    group("g:block", ROOT, ["n:a", "n:b"]),
  ],
  nodes: [
    node("n:input", ROOT, { op: "placeholder", label: "input" }),
    node("n:a", "g:block", {
      path: "block.a",
      sub: "Conv2d",
      marks: ["block.a.weight_fake_quant"],
    }),
    node("n:b", "g:block", { path: "block.b", sub: "BatchNorm2d" }),
    node("n:head", ROOT, { path: "head", sub: "Linear" }),
  ],
  edges: [edge(0, 1), edge(1, 2), edge(2, 3), edge(0, 3), edge(2, 2, 1)],
};

test("indexScene gives each group the edges between its children, and what enters and leaves", () => {
  const { inner } = indexScene(SCENE);
  const root = inner.get(ROOT);
  const block = inner.get("g:block");
  assert.deepEqual(
    [...root.edges],
    [
      ["n:input\ng:block", [0]],
      ["g:block\nn:head", [2]],
      ["n:input\nn:head", [3]],
    ],
  );
  assert.deepEqual([root.ins.size, root.outs.size], [0, 0]);
  assert.deepEqual(
    [...block.edges],
    [
      ["n:a\nn:b", [1]],
      ["n:b\nn:b", [4]],
    ],
  );
  assert.deepEqual([...block.ins], [["n:a", [0]]]);
  assert.deepEqual([...block.outs], [["n:b", [2]]]);
});

test("indexScene joins edges of the scene that one line stands for", () => {
  const scene = {
    groups: [
      group(ROOT, null, ["g:x", "g:y"]),
      group("g:x", ROOT, ["n:1", "n:2"]),
      group("g:y", ROOT, ["n:3"]),
    ],
    nodes: [node("n:1", "g:x"), node("n:2", "g:x"), node("n:3", "g:y")],
    edges: [edge(0, 2), edge(1, 2)],
  };
  const { inner } = indexScene(scene);
  assert.deepEqual([...inner.get(ROOT).edges], [["g:x\ng:y", [0, 1]]]);
  assert.deepEqual([...inner.get("g:y").ins], [["n:3", [0, 1]]]);
});

test("indexScene of nothing is empty", () => {
  const index = indexScene({});
  assert.equal(index.items.size, 0);
  assert.deepEqual(searchItems(index, "conv"), { hits: [], total: 0 });
  assert.equal(firstOpened(index).size, 0);
  assert.throws(() => itemOf(index, ROOT), /the scene has no g:/);
});

test("ancestorsOf goes from the root to the parent", () => {
  const index = indexScene(SCENE);
  assert.deepEqual(ancestorsOf(index, "n:a"), [ROOT, "g:block"]);
  assert.deepEqual(ancestorsOf(index, ROOT), []);
  assert.deepEqual(ancestorsOf(index, "n:nowhere"), []);
});

test("a selection string means items", () => {
  const index = indexScene(SCENE);
  assert.deepEqual(itemsOfSelection(index, "module:block.a"), ["n:a"]);
  assert.deepEqual(itemsOfSelection(index, "module:block"), ["g:block"]);
  // What the graph does not show is in the nearest that it does.
  assert.deepEqual(itemsOfSelection(index, "module:block.a.inner.deep"), ["n:a"]);
  assert.deepEqual(itemsOfSelection(index, "site:block.a.weight_fake_quant"), ["n:a"]);
  assert.deepEqual(itemsOfSelection(index, "node:head"), ["n:head"]);
  assert.deepEqual(itemsOfSelection(index, "edge:a:b"), ["n:a"]);
  assert.equal(edgeOfSelection(index, "edge:a:b"), 1);
  for (const none of ["", "node:nowhere", "module:elsewhere", "edge:b:a", "what:ever"]) {
    assert.deepEqual(itemsOfSelection(index, none), []);
  }
});

test("searchItems puts exact matches first, then starts of words, then the rest", () => {
  const scene = {
    groups: [group(ROOT, null, ["n:1", "n:2", "n:3"])],
    nodes: [
      node("n:1", ROOT, { path: "deconv", label: "deconv" }),
      node("n:2", ROOT, { path: "stem.conv", label: "stem.conv" }),
      node("n:3", ROOT, { path: "conv", label: "conv" }),
    ],
  };
  const index = indexScene(scene);
  const { hits, total } = searchItems(index, "  CONV ");
  assert.deepEqual(
    hits.map((item) => item.id),
    ["n:3", "n:2", "n:1"],
  );
  assert.equal(total, 3);
  assert.deepEqual(searchItems(index, "conv", 1).hits.length, 1);
  assert.equal(searchItems(index, "conv", 1).total, 3);
  assert.deepEqual(searchItems(index, " "), { hits: [], total: 0 });
});

test("searchItems finds by type and operation, and neither the root nor made-up groups", () => {
  const index = indexScene({
    groups: [
      group(ROOT, null, ["g:part"], { label: "Net" }),
      group("g:part", ROOT, ["n:x"], { label: "Net … Net", synthetic: true }),
    ],
    nodes: [node("n:x", "g:part", { path: "x", sub: "Linear · 1×10", op: "call_module" })],
  });
  assert.equal(searchItems(index, "linear").total, 1);
  assert.equal(searchItems(index, "call_mod").total, 1);
  assert.equal(searchItems(index, "net").total, 0);
});

test("countMarks counts what is drawn: items and at most four of their fake quants", () => {
  const index = indexScene(SCENE);
  assert.equal(countMarks(index, new Set(), ROOT), 4); // the root, input, closed block, head
  assert.equal(countMarks(index, new Set(["g:block"]), ROOT), 7); // and a with its mark, and b
  const many = Array.from({ length: 9 }, (_, i) => `s${i}`);
  const crowded = indexScene({
    groups: [group(ROOT, null, ["n:x"])],
    nodes: [node("n:x", ROOT, { marks: many })],
  });
  assert.equal(countMarks(crowded, new Set(), ROOT), 6);
});

test("firstOpened opens a small model fully and a large one not at all", () => {
  const small = indexScene(chainOfBlocks(4, 5));
  assert.equal(firstOpened(small).size, 5);
  const large = indexScene(chainOfBlocks(20, 30));
  assert.equal(firstOpened(large).size, 0);
});

test("firstOpened opens a thin shell around a large model", () => {
  const { groups, nodes, edges } = chainOfBlocks(20, 30);
  const inner = { ...groups[0], id: "g:net", parent: ROOT };
  const rest = groups.slice(1).map((g) => ({ ...g, parent: "g:net" }));
  const shell = group(ROOT, null, ["g:net"]);
  const index = indexScene({ groups: [shell, inner, ...rest], nodes, edges });
  assert.deepEqual([...firstOpened(index)], ["g:net"]);
});

test("withinBudget leaves alone what fits", () => {
  const index = indexScene(chainOfBlocks(4, 5));
  const wanted = ["g:0", "g:1"];
  const { opened, root, say } = withinBudget(index, wanted, ROOT, null);
  assert.deepEqual([[...opened], root, say], [wanted, ROOT, ""]);
});

test("withinBudget closes what was used least recently, not what must stay", () => {
  const index = indexScene(chainOfBlocks(4, 10)); // 5 marks closed, 10 more for each open block
  const fitted = withinBudget(index, ["g:0", "g:1", "g:2"], ROOT, null, 30);
  assert.deepEqual([...fitted.opened], ["g:1", "g:2"]);
  assert.equal(fitted.say, "collapsed block 0 to stay under 30 marks");
  const kept = withinBudget(index, ["g:0", "g:1", "g:2"], ROOT, "g:0", 30);
  assert.deepEqual([...kept.opened], ["g:0", "g:2"]);
  const tight = withinBudget(index, ["g:0", "g:1", "g:2", "g:3"], ROOT, null, 10);
  assert.equal(tight.opened.size, 0);
  assert.equal(tight.say, "collapsed 4 groups to stay under 10 marks");
});

test("withinBudget closes only what is drawn", () => {
  const index = indexScene(SCENE);
  const hidden = withinBudget(index, ["g:gone", "g:block"], ROOT, null, 4);
  assert.deepEqual([...hidden.opened], ["g:gone"]);
});

test("withinBudget steps inside when what must stay does not fit with what is around it", () => {
  const index = indexScene(chainOfBlocks(50, 10));
  const { opened, root, say } = withinBudget(index, ["g:7"], ROOT, "g:7", 40);
  assert.deepEqual([...opened], ["g:7"]);
  assert.equal(root, "g:7");
  assert.equal(say, "showing inside block 7 to stay under 40 marks");
});

// root ⊃ {in, g:block ⊃ {a, i, g:only ⊃ {j}, b}, out}; in → a → i → j → b → out, i → out
const PASSING = {
  groups: [
    group(ROOT, null, ["n:in", "g:block", "n:out"]),
    group("g:block", ROOT, ["n:a", "n:i", "g:only", "n:b"]),
    group("g:only", "g:block", ["n:j"]),
  ],
  nodes: [
    node("n:in", ROOT),
    node("n:a", "g:block", { path: "block.a" }),
    node("n:i", "g:block", { path: "block.i", passes: true }),
    node("n:j", "g:only", { path: "only.j", passes: true }),
    node("n:b", "g:block", { path: "block.b" }),
    node("n:out", ROOT),
  ],
  edges: [edge(0, 1), edge(1, 2), edge(2, 3), edge(3, 4), edge(4, 5), edge(2, 5)],
};

test("a link stands for the Identities between two operations", () => {
  const index = indexScene(PASSING);
  assert.deepEqual([...index.hidden].sort(), ["g:only", "n:i", "n:j"]);
  assert.deepEqual(itemOf(index, "g:block").children, ["n:a", "n:b"]);
  assert.deepEqual(index.links, [
    { from: 0, to: 1, list: [0], via: [] },
    { from: 1, to: 4, list: [1, 2, 3], via: ["n:i", "n:j"] },
    { from: 4, to: 5, list: [4], via: [] },
    { from: 1, to: 5, list: [1, 5], via: ["n:i"] },
  ]);
  const block = index.inner.get("g:block");
  assert.deepEqual([...block.edges], [["n:a\nn:b", [1]]]);
  // The part of the way that lies in the group of the Identity has its dot.
  assert.deepEqual(
    [...block.via],
    [
      ["edges n:a\nn:b", ["n:i", "n:j"]],
      ["outs n:a", ["n:i"]],
    ],
  );
  assert.equal(index.inner.get(ROOT).via.size, 0);
  assert.equal(PASSING.groups[1].children.length, 4); // the scene itself is left alone
});

test("a selected Identity is found, and the Identities of a group of nothing else", () => {
  const index = indexScene(PASSING);
  assert.deepEqual(itemsOfSelection(index, "module:block.i"), ["n:i"]);
  assert.deepEqual(itemsOfSelection(index, "module:only"), ["n:j"]);
  assert.equal(placeOfItem(index, "n:j"), "g:block");
  assert.equal(placeOfItem(index, "n:a"), "n:a");
});

test("Identities are items like others where they are shown", () => {
  const index = indexScene(PASSING, true);
  assert.equal(index.hidden.size, 0);
  assert.equal(index.passes, 2);
  assert.deepEqual(itemOf(index, "g:block").children, ["n:a", "n:i", "g:only", "n:b"]);
  assert.equal(index.links.length, 6);
  assert.deepEqual(itemsOfSelection(index, "module:only"), ["g:only"]);
});

test("what made-up groups are called does not name the group around them", () => {
  assert.equal(titleOf(group("g:a.b", ROOT, [], { label: "b" })), "a.b");
  const fold = group("g:a.0×3", "g:a", [], { path: "a", label: "×3 a.0–2", synthetic: true });
  assert.equal(titleOf(fold), "×3 a.0–2");
});

test("a thin shell around a fold does not open it", () => {
  const { groups, nodes, edges } = chainOfBlocks(4, 30);
  const blocks = groups.slice(1).map((one) => ({ ...one, parent: "g:x" }));
  const ids = blocks.map(({ id }) => id);
  const fold = group("g:x", ROOT, ids, { synthetic: true, repeat: 4 });
  const index = indexScene({ groups: [group(ROOT, null, ["g:x"]), fold, ...blocks], nodes, edges });
  assert.equal(firstOpened(index).size, 0);
});

test("folds of a new scene open around what was open, those known before stay as they are", () => {
  const blocks = ["g:0", "g:1"];
  const groups = [
    group(ROOT, null, ["g:x"]),
    group("g:x", ROOT, blocks, { synthetic: true, repeat: 2 }),
    ...blocks.map((id) => group(id, "g:x", [`n:${id}`])),
  ];
  const nodes = blocks.map((id) => node(`n:${id}`, id));
  const index = indexScene({ groups, nodes });
  assert.deepEqual([...withNewFolds(index, ["g:1"], new Map())], ["g:x", "g:1"]);
  assert.deepEqual([...withNewFolds(index, ["g:1"], index.items)], ["g:1"]);
});
