import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import {
  keptInView,
  middleWithin,
  shiftIntoView,
  wholeScale,
} from "../../qatexplorer/widgets/graph/camera.js";
import { edgePath } from "../../qatexplorer/widgets/graph/draw.js";
import { countPlaces, gripOf } from "../../qatexplorer/widgets/graph/geometry.js";
import { neighbours } from "../../qatexplorer/widgets/graph/keys.js";
import { layoutOne, workerText } from "../../qatexplorer/widgets/graph/layered.js";
import { pointAlong } from "../../qatexplorer/widgets/graph/marks.js";
import { mapScale, needsMap } from "../../qatexplorer/widgets/graph/minimap.js";
import { indexScene, ROOT } from "../../qatexplorer/widgets/graph/scene.js";
import { chainOfBlocks, edge, group, node } from "./scenes.js";

const DAGRE = new URL("../../qatexplorer/widgets/graph/vendor/dagre/dagre.min.js", import.meta.url);
const dagreText = await readFile(DAGRE, "utf8");
const dagre = new Function(`${dagreText}\nreturn dagre;`)();

test("edgePath is straight within a layer and bends between layers", () => {
  const points = [
    [10, 0],
    [10.3, 20],
    [50, 40],
  ];
  assert.equal(edgePath(points, false), "M10.0 0.0 L10.3 20.0 C10.3 30 50 30 50.0 40.0");
});

test("edgePath from left to right bends the other way", () => {
  const points = [
    [0, 10],
    [20, 10],
    [40, 50],
  ];
  assert.equal(edgePath(points, true), "M0.0 10.0 L20.0 10.0 C30 10 30 50 40.0 50.0");
});

const SPEC = {
  gap: 24,
  rankGap: 30,
  nodes: [
    ["a", 80, 40, 0, 0],
    ["b", 80, 40, 5, -5],
    ["c", 120, 60, 0, 0],
  ],
  edges: [
    ["a\nb", "a", "b", false],
    ["a\nc", "a", "c", false],
    ["c\na", "c", "a", true],
    ["b\nb", "b", "b", true],
  ],
  ins: ["a"],
  outs: ["b", "c"],
};

test("layoutOne puts what a tensor reaches later further down, and lets no boxes overlap", () => {
  const { pos, w, h, in: entry, out: exit } = layoutOne(dagre, SPEC);
  assert.ok(pos.a[1] < pos.b[1]);
  assert.equal(pos.b[1], pos.c[1]);
  assert.ok(Math.abs(pos.b[0] - pos.c[0]) >= (80 + 120) / 2 + SPEC.gap);
  for (const [id, bw, bh] of SPEC.nodes) {
    const [x, y] = pos[id];
    assert.ok(x - bw / 2 >= -1e-6 && x + bw / 2 <= w + 1e-6);
    assert.ok(y - bh / 2 >= -1e-6 && y + bh / 2 <= h + 1e-6);
  }
  for (const port of [entry, exit]) assert.ok(port >= 0 && port <= w);
});

test("layoutOne begins and ends edges at the boxes' ports; those that close a cycle go up", () => {
  const { pos, edges, ins, outs } = layoutOne(dagre, SPEC);
  const down = edges["a\nb"];
  assert.deepEqual(down[0], [pos.a[0], pos.a[1] + 20]);
  assert.deepEqual(down.at(-1), [pos.b[0] + 5, pos.b[1] - 20]);
  const up = edges["c\na"];
  assert.ok(up[0][1] > up.at(-1)[1]);
  assert.equal(edges["b\nb"], undefined);
  assert.deepEqual(Object.keys(ins), ["a"]);
  assert.deepEqual(Object.keys(outs), ["b", "c"]);
});

test("a group that no tensor enters or leaves has no ports", () => {
  const laid = layoutOne(dagre, { ...SPEC, ins: [], outs: [] });
  assert.deepEqual([laid.in, laid.out, laid.ins, laid.outs], [null, null, {}, {}]);
});

test("the worker's text lays out by itself, and answers with the error of what it cannot", () => {
  const answers = [];
  const scope = new Function(
    "postMessage",
    `let onmessage;${workerText(dagreText)};return onmessage;`,
  );
  const onmessage = scope((answer) => answers.push(answer));
  onmessage({ data: { id: 7, spec: SPEC } });
  onmessage({ data: { id: 8, spec: null } });
  assert.deepEqual(answers[0], { id: 7, result: layoutOne(dagre, SPEC) });
  assert.equal(answers[1].id, 8);
  assert.match(answers[1].error, /^TypeError/);
});

test("shiftIntoView moves as little as needed", () => {
  assert.equal(shiftIntoView(100, 50, 500), 0);
  assert.equal(shiftIntoView(-30, 50, 500), 54);
  assert.equal(shiftIntoView(480, 50, 500), -54);
  assert.equal(shiftIntoView(-100, 900, 500), 0); // covers the view
  assert.equal(shiftIntoView(100, 900, 500), -76); // too long: from its beginning
});

const closed = (id) => [id, { id, open: false }];

test("neighbours are the closed boxes that edges lead to, whatever group lies between", () => {
  const index = indexScene(chainOfBlocks(3, 2));
  const boxes = new Map([
    [ROOT, { id: ROOT, open: true }],
    closed("g:0"),
    ["g:1", { id: "g:1", open: true }],
    closed("n:1.0"),
    closed("n:1.1"),
    closed("g:2"),
  ]);
  const { next, previous } = neighbours(index, { boxes });
  assert.deepEqual([...next.get("g:0")], ["n:1.0"]);
  assert.deepEqual([...next.get("n:1.0")], ["n:1.1"]);
  assert.deepEqual([...next.get("n:1.1")], ["g:2"]);
  assert.equal(next.has("g:2"), false);
  assert.deepEqual([...previous.get("g:2")], ["n:1.1"]);
});

test("what lies outside of the shown group has no neighbours", () => {
  const scene = {
    groups: [group(ROOT, null, ["n:x", "g:in"]), group("g:in", ROOT, ["n:a", "n:b"])],
    nodes: [node("n:x", ROOT), node("n:a", "g:in"), node("n:b", "g:in")],
    edges: [edge(0, 1), edge(1, 2)],
  };
  const boxes = new Map([["g:in", { id: "g:in", open: true }], closed("n:a"), closed("n:b")]);
  const { next } = neighbours(indexScene(scene), { boxes });
  assert.deepEqual([...next.keys()], ["n:a"]);
});

test("the whole picture is seen at wholeScale, with a margin", () => {
  assert.equal(wholeScale({ w: 100, h: 1000 }, { w: 640, h: 540 }), 0.5);
  assert.equal(wholeScale({ w: 300, h: 10 }, { w: 640, h: 540 }), 2);
});

test("keptInView leaves some of the picture in the window on either side", () => {
  assert.equal(keptInView(100, 300, 500), 100);
  assert.equal(keptInView(900, 300, 500), 452);
  assert.equal(keptInView(-900, 300, 500), -252);
});

test("middleWithin shows no more than a margin beside the picture", () => {
  assert.equal(middleWithin(500, 1000, 200, 20), 500);
  assert.equal(middleWithin(0, 1000, 200, 20), 80);
  assert.equal(middleWithin(1e9, 1000, 200, 20), 920);
  assert.equal(middleWithin(0, 100, 200, 20), 50); // all of it is in view
});

test("pointAlong goes by length, whatever the corners", () => {
  const corner = [
    [0, 0],
    [0, 10],
    [30, 10],
  ];
  assert.deepEqual(pointAlong(corner, 0), [0, 0]);
  assert.deepEqual(pointAlong(corner, 0.125), [0, 5]);
  assert.deepEqual(pointAlong(corner, 0.5), [10, 10]);
  assert.deepEqual(pointAlong(corner, 1), [30, 10]);
  const still = [
    [3, 4],
    [3, 4],
  ];
  assert.deepEqual(pointAlong(still, 0.5), [3, 4]);
});

test("the map has the picture's shape, and is there when much lies out of view", () => {
  assert.deepEqual(mapScale({ w: 300, h: 1900 }), { k: 0.1, w: 30, h: 190 });
  assert.deepEqual(mapScale({ w: 1500, h: 100 }), { k: 0.1, w: 150, h: 10 });
  assert.equal(needsMap({ w: 100, h: 1000 }, { w: 200, h: 900 }), false);
  assert.equal(needsMap({ w: 100, h: 1000 }, { w: 200, h: 500 }), true);
  assert.equal(needsMap({ w: 1000, h: 100 }, { w: 500, h: 500 }), true);
});

test("gripOf is where the sign that opens a box is drawn, open or closed", () => {
  assert.deepEqual(gripOf({ open: true, x: 10, y: 20 }), [26, 35]);
  assert.deepEqual(gripOf({ open: false, x: 10, y: 20, bx: 11, by: 0 }), [37, 34]);
});

test("countPlaces puts counts beside each other and leaves out what there is none of", () => {
  const sites = { weight: 12, input: 0, output: 3 };
  const places = countPlaces({ sites, twice: 1 });
  assert.deepEqual(
    places.map(({ kind, count }) => [kind, count]),
    [
      ["weight", "12"],
      ["output", "3"],
      ["twice", "1"],
    ],
  );
  for (const [i, { at }] of places.slice(1).entries()) assert.ok(at - places[i].at >= 27);
  assert.deepEqual(countPlaces({ sites: undefined }), []);
});
