import assert from "node:assert/strict";
import { test } from "node:test";
import { share, stepFor } from "../../qatexplorer/widgets/tree/columns.js";
import { describe, quantBadges, stateBadges } from "../../qatexplorer/widgets/tree/row.js";
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

test("what a check found at a row stands in its words", () => {
  const finding = { severity: "error", mark: "✖", words: "1 error, 2 notes inside", inside: "1" };
  assert.equal(describe(row("head"), finding), "head, Module, 1 error, 2 notes inside");
  assert.equal(describe(row("head")), "head, Module");
});

test("a search finds what a fake quant is called here and in torch", () => {
  const path = "activation_post_process_3";
  const site = row(path, {
    kind: "site",
    name: "output of layer1.0.conv1",
    type: "FakeQuantize",
    site: "output",
    torch_name: path,
  });
  const made = tree([...ROWS, site]);
  for (const query of ["layer1.0.conv1", "output of layer1", "process_3"]) {
    assert.deepEqual([...made.search(query, "all")], [`site:${path}`], query);
  }
});

test("type: finds modules of that very type only", () => {
  const rows = [
    row(""),
    row("a", { type: "Conv2d" }),
    row("b", { type: "quantized.Conv2d" }),
    row("c", { type: "FakeQuantize", kind: "site", site: "weight" }),
  ];
  const made = tree(rows);
  assert.deepEqual([...made.search("type:Conv2d", "all")], ["module:a"]);
  assert.deepEqual([...made.search("type:quantized.conv2d", "all")], ["module:b"]);
  assert.deepEqual([...made.search("type:FakeQuantize", "all")], []);
});

test("a fold is closed at first, opens, and is no hit of a search", () => {
  const fold = row("identities", { kind: "fold", name: "2 × Identity", type: "bn, relu" });
  const inside = ["bn", "relu"].map((path) =>
    row(path, { type: "Identity", parent: fold.id, depth: 2 }),
  );
  const made = tree([row(""), fold, ...inside]);
  assert.deepEqual(paths(made.visible(null, null)), ["", "identities"]);
  made.reveal(inside[0]);
  assert.deepEqual(paths(made.visible(null, null)), ["", "identities", "bn", "relu"]);
  const hits = made.search("relu", "all");
  assert.deepEqual([...hits], ["module:relu"]);
  assert.deepEqual(paths(made.visible(hits, null)), ["", "identities", "relu"]);
});

const WANTED = { name: 120, site: 200, quants: 60, state: 90, step: 16, head: 70 };

test("with room for all the type gets what is left", () => {
  const got = share(600, WANTED);
  assert.equal(got.name, 120);
  assert.deepEqual([got.quants, got.state], [68, 98]);
  assert.equal(got.name + got.type + got.quants + got.state + 24, 600);
  assert.equal(got.row, 600);
});

test("the type is cut first; a fake quant has the whole row for its name", () => {
  for (const view of [240, 300, 340, 420, 520]) {
    const got = share(view, WANTED);
    assert.ok(got.name + got.type + got.quants + got.state + 24 <= view, `${view}`);
    assert.equal(got.row, view);
  }
  const narrow = share(270, WANTED);
  assert.deepEqual([narrow.type, narrow.quants, narrow.state], [14, 56, 56]);
});

test("only a name that is wider than the view makes it scroll sideways", () => {
  const got = share(180, WANTED);
  assert.deepEqual([got.quants, got.state], [68, 98]);
  assert.equal(got.name + got.type + got.quants + got.state + 24, got.row);
  assert.ok(got.row > 224);
  assert.equal(share(224, WANTED).row, 224);
  assert.ok(share(223, WANTED).row > 224);
});

test("deep rows are indented less", () => {
  assert.equal(stepFor(4, 300), 16);
  assert.equal(stepFor(9, 300), 10);
  assert.equal(stepFor(3000, 300), 4);
});

test("a fake quant for several tensors says so, in words too", () => {
  const shares = ["output of a", "output of b"];
  const site = row("fq", { kind: "site", site: "output", name: "output of a", shares });
  assert.deepEqual(
    quantBadges(site).map((badge) => badge.text),
    ["1 for 2"],
  );
  assert.match(quantBadges(site)[0].title, /output of b/);
  assert.match(describe(site), /one for 2 tensors/);
});

test("the state is one label, with the sentence on hover", () => {
  const mixed = row("m", {
    state: "mixed",
    state_text: "mixed: 3 of 5 int8",
    state_title: "3 of 5 layers inside are prepared for int8",
    qconfig: "int8 pc",
  });
  assert.deepEqual(
    stateBadges(mixed).map((badge) => badge.text),
    ["mixed: 3 of 5 int8", "int8 pc"],
  );
  assert.match(describe(mixed), /3 of 5 layers inside are prepared for int8/);
});

test("a qconfig that a rule has made is marked, in words too", () => {
  const ruled = row("head", { rule: "4 bits", rule_title: "Rule for head: weight 4 bits" });
  const [mark] = stateBadges(ruled);
  assert.equal(mark.text, "✎ 4 bits");
  assert.equal(mark.title, "Rule for head: weight 4 bits");
  assert.match(describe(ruled), /by a rule: 4 bits/);
  assert.deepEqual(stateBadges(row("head")), []);
});
