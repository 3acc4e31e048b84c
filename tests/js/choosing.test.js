import assert from "node:assert/strict";
import { test } from "node:test";
import { chosenOf, only, through, toggled } from "../../qatexplorer/widgets/tree/choosing.js";

const ROWS = ["a", "b", "c", "d"].map((name) => ({ id: `module:${name}`, kind: "module" }));

test("a selection from elsewhere is that alone", () => {
  assert.deepEqual(chosenOf("module:a", ["module:b", "module:c"]), ["module:a"]);
  assert.deepEqual(chosenOf("module:c", ["module:b", "module:c"]), ["module:b", "module:c"]);
  assert.deepEqual(chosenOf("module:a", undefined), ["module:a"]);
  assert.deepEqual(chosenOf("", ["module:b"]), []);
});

test("a row is selected with the others, or left out again", () => {
  const two = toggled(only("module:a").chosen, "module:c");
  assert.deepEqual(two, { selected: "module:c", chosen: ["module:a", "module:c"] });
  assert.deepEqual(toggled(two.chosen, "module:c"), only("module:a"));
  assert.deepEqual(toggled(["module:a"], "module:a"), { selected: "", chosen: [] });
  assert.deepEqual(toggled(["edge:x:y"], "site:a"), only("site:a"));
});

test("all rows from one to another are selected, the last one reached is the selection", () => {
  assert.deepEqual(through(ROWS, 1, 3), {
    selected: "module:d",
    chosen: ["module:b", "module:c", "module:d"],
  });
  assert.deepEqual(through(ROWS, 2, 1).chosen, ["module:c", "module:b"]);
  assert.deepEqual(through(ROWS, 2, 2), only("module:c"));
  assert.deepEqual(through(ROWS, 2, 3, ["module:a", "module:d"]).chosen, [
    "module:a",
    "module:c",
    "module:d",
  ]);
});

test("what folds others is not selected with them", () => {
  const rows = [ROWS[0], { id: "fold:x", kind: "fold" }, ROWS[1]];
  assert.deepEqual(through(rows, 0, 2).chosen, ["module:a", "module:b"]);
  assert.deepEqual(through(rows, 0, 1), only("module:a"));
});
