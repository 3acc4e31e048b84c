import assert from "node:assert/strict";
import { test } from "node:test";
import { pickedOf } from "../../qatexplorer/widgets/common/plot.js";

test("a click picks the id of a point, or what a cell has in its place", () => {
  assert.equal(pickedOf([{ id: "row:3", customdata: "words" }]), "row:3");
  assert.equal(pickedOf([{ customdata: "row:4" }]), "row:4");
  assert.equal(pickedOf([{ customdata: [1, 2] }]), undefined);
  assert.equal(pickedOf([]), undefined);
});
