import assert from "node:assert/strict";
import { test } from "node:test";
import { describe } from "../../qatexplorer/widgets/tree/row.js";
import { Tree } from "../../qatexplorer/widgets/tree/rows.js";

const row = (path, { kind = "module", ...more } = {}) => {
  const parent = path.includes(".") ? path.slice(0, path.lastIndexOf(".")) : "";
  return {
    id: `${kind}:${path}`,
    parent: path === "" ? null : `module:${parent}`,
    kind,
    path,
    name: path.slice(path.lastIndexOf(".") + 1) || "(model)",
    depth: path === "" ? 0 : path.split(".").length,
    type: "Module",
    before: "",
    what: [],
    changed: false,
    qconfig: "",
    qconfig_title: "",
    marks: [0, 0, 0],
    below: [0, 0, 0],
    float: false,
    not_run: false,
    shared: null,
    int8: false,
    title: "",
    ...more,
  };
};

const ROWS = [
  row(""),
  row("stem", { type: "Sequential" }),
  row("stem.conv", { type: "Conv2d", before: "ConvBn2d", changed: true }),
  row("stem.conv.weight_fake_quant", { kind: "site", type: "FakeQuantize", site: "weight" }),
  row("stem.relu", { type: "ReLU" }),
  row("head", { type: "Linear", float: true }),
];

function tree(rows = ROWS) {
  const made = new Tree();
  made.setRows(rows);
  return made;
}

const paths = (rows) => rows.map((r) => r.path);

test("at first whole levels are open, as many as make a page or two", () => {
  assert.equal(tree().visible(null, null).length, ROWS.length);
  const wide = Array.from({ length: 200 }, (_, i) => row(`m${i}`));
  const shown = tree([row(""), wide[0], row("m0.x"), ...wide.slice(1)]).visible(null, null);
  assert.equal(shown.length, 201); // the first level always, the second not
});

test("closing hides all below, opening shows it again", () => {
  const made = tree();
  made.setOpen(made.byId.get("module:stem"), false);
  assert.deepEqual(paths(made.visible(null, null)), ["", "stem", "head"]);
  made.setOpen(made.byId.get("module:stem"), true);
  made.setOpen(made.byId.get("module:stem.conv"), false);
  const shown = ["", "stem", "stem.conv", "stem.relu", "head"];
  assert.deepEqual(paths(made.visible(null, null)), shown);
});

test("what is open stays open when a later stage brings other rows", () => {
  const made = tree();
  made.setOpen(made.byId.get("module:stem"), false);
  made.setRows([...ROWS, row("tail")]);
  assert.deepEqual(paths(made.visible(null, null)), ["", "stem", "head", "tail"]);
});

test("collapse all leaves the root open, expand all opens later rows too", () => {
  const made = tree();
  made.setAllOpen(false);
  assert.deepEqual(paths(made.visible(null, null)), ["", "stem", "head"]);
  made.setAllOpen(true);
  made.setRows([...ROWS, row("head.a"), row("head.a.b"), row("head.a.b.c")]);
  assert.equal(made.visible(null, null).length, 9);
});

test("search takes all words, in path, type or earlier type, and shows ancestors", () => {
  const made = tree();
  const hits = made.search("STEM convbn", "all");
  assert.deepEqual([...hits], ["module:stem.conv"]);
  assert.deepEqual(paths(made.visible(hits, null)), ["", "stem", "stem.conv"]);
  assert.deepEqual([...made.search("nothing", "all")], []);
});

test("without words and filter everything is shown", () => {
  assert.equal(tree().search("  ", "all"), null);
});

test("filters leave what changed or what stays float", () => {
  const made = tree();
  assert.deepEqual([...made.search("", "changed")], ["module:stem.conv"]);
  assert.deepEqual([...made.search("", "float")], ["module:head"]);
  assert.deepEqual([...made.search("stem", "float")], []);
});

test("the selected row is shown though the search does not find it", () => {
  const made = tree();
  const hits = made.search("head", "all");
  assert.deepEqual(paths(made.visible(hits, "module:stem.relu")), [
    "",
    "stem",
    "stem.relu",
    "head",
  ]);
});

test("a search opens everything; what is closed in it is closed only there", () => {
  const made = tree();
  const hits = made.search("weight_fake", "all");
  assert.equal(made.visible(hits, null).length, 4);
  made.setOpen(made.byId.get("module:stem"), false);
  assert.deepEqual(paths(made.visible(hits, null)), ["", "stem"]);
  made.search("", "all");
  assert.equal(made.isOpen(made.byId.get("module:stem")), true);
});

test("a selection finds a fake quant by its path whether it is a module or a site here", () => {
  const made = tree();
  const path = "stem.conv.weight_fake_quant";
  assert.equal(made.find(`module:${path}`).id, `site:${path}`);
  assert.equal(made.find("site:head").id, "module:head");
  assert.equal(made.find("module:").path, "");
  for (const none of ["", "node:head", "edge:a:b", "module:gone"]) {
    assert.equal(made.find(none), undefined);
  }
});

test("reveal opens all that a row lies in", () => {
  const made = tree();
  made.setAllOpen(false);
  made.reveal(made.byId.get("site:stem.conv.weight_fake_quant"));
  assert.equal(made.visible(null, null).length, 6);
});

test("each row knows its place among its siblings", () => {
  const { position } = tree();
  assert.deepEqual(position.get("module:"), [1, 1]);
  assert.deepEqual(position.get("module:stem.relu"), [2, 2]);
});

test("a row in words says what its badges say", () => {
  const marked = row("stem.conv", {
    type: "Conv2d",
    before: "ConvBn2d",
    changed: true,
    what: ["type", "qconfig"],
    below: [1, 0, 2],
    shared: "",
    not_run: true,
  });
  assert.equal(
    describe(marked),
    "conv, was ConvBn2d, now Conv2d, changed: type, qconfig, 1 weight fake quant, " +
      "2 output fake quants, not run, same object as the model",
  );
});
