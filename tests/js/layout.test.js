import assert from "node:assert/strict";
import { test } from "node:test";
import { parsed, rangeOf, within } from "../../qatexplorer/widgets/explorer/layout.js";

test("a size stays within its range, and far below it closes what may close", () => {
  const range = { least: 200, most: 500 };
  assert.equal(within(300.4, range, true), 300);
  assert.equal(within(900, range, true), 500);
  assert.equal(within(150, range, true), 200);
  assert.equal(within(120, range, true), 0);
  assert.equal(within(120, range, false), 200);
  assert.equal(within(300, { least: 200, most: 100 }, false), 200);
});

test("what a browser's storage holds is an object or nothing", () => {
  assert.deepEqual(parsed('{"tree": 300}'), { tree: 300 });
  for (const text of [null, "", "3", "null", "[1]", "{"]) assert.deepEqual(parsed(text), {});
});

test("no part may push the others out of the page", () => {
  const room = { width: 900, height: 600 };
  const tree = rangeOf("tree", room);
  const inspector = rangeOf("inspector", room);
  assert.ok(tree.most + inspector.most < room.width);
  assert.ok(rangeOf("drawer", room).most < room.height);
  for (const part of ["tree", "inspector", "drawer", "height"]) {
    const { least, most } = rangeOf(part, room);
    assert.ok(least > 0 && least <= most, part);
  }
});
