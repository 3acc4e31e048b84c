import assert from "node:assert/strict";
import { test } from "node:test";
import { leastScroll, rowsInView } from "../../qatexplorer/widgets/common/list.js";
import {
  compare,
  filterRows,
  nextSort,
  sortRows,
} from "../../qatexplorer/widgets/common/table_rows.js";

const row = (id, sort, { flags = [], cells = [id] } = {}) => ({ id, sel: "", flags, cells, sort });
const ids = (rows) => rows.map((r) => r.id);

test("numbers are sorted by value, text by the alphabet with numbers inside, nothing last", () => {
  assert.ok(compare(9, 10) < 0);
  assert.ok(compare("layer9", "layer10") < 0);
  assert.ok(compare("b", "a") > 0);
  for (const nothing of [null, undefined, ""]) {
    assert.ok(compare(nothing, "a") > 0);
    assert.ok(compare(0, nothing) < 0);
    assert.equal(compare(nothing, ""), 0);
  }
});

test("sorting down turns values around, but rows with nothing stay last", () => {
  const rows = [row("none", [null]), row("two", [2]), row("ten", [10]), row("one", [1])];
  const up = sortRows(rows, { column: 0, down: false });
  assert.deepEqual(ids(up), ["one", "two", "ten", "none"]);
  const down = sortRows(rows, { column: 0, down: true });
  assert.deepEqual(ids(down), ["ten", "two", "one", "none"]);
});

test("sorting leaves Python's rows as they are; equal rows keep their order", () => {
  const rows = [row("b", [1]), row("a", [1]), row("c", [0])];
  assert.deepEqual(ids(sortRows(rows, { column: 0, down: false })), ["c", "b", "a"]);
  assert.deepEqual(ids(sortRows(rows, { column: -1, down: false })), ["b", "a", "c"]);
  assert.deepEqual(ids(rows), ["b", "a", "c"]);
});

test("a click sorts up, the next down, the third not at all; another column begins anew", () => {
  const first = nextSort({ column: -1, down: false }, 2);
  const second = nextSort(first, 2);
  assert.deepEqual(first, { column: 2, down: false });
  assert.deepEqual(second, { column: 2, down: true });
  assert.deepEqual(nextSort(second, 2), { column: -1, down: false });
  assert.deepEqual(nextSort(second, 0), { column: 0, down: false });
});

test("a filter leaves rows with the flag, a search those with all words in any cell", () => {
  const rows = [
    row("a", [], { flags: ["shared"], cells: ["stem.conv", "Weight"] }),
    row("b", [], { flags: ["ghost", "shared"], cells: ["head", "output"] }),
    row("c", [], { cells: ["stem.relu", "output"] }),
  ];
  assert.deepEqual(ids(filterRows(rows, "", "")), ["a", "b", "c"]);
  assert.deepEqual(ids(filterRows(rows, "shared", "")), ["a", "b"]);
  assert.deepEqual(ids(filterRows(rows, "", "OUTPUT stem")), ["c"]);
  assert.deepEqual(ids(filterRows(rows, "shared", "stem weight")), ["a"]);
  assert.deepEqual(ids(filterRows(rows, "", "stem convweight")), []); // words do not span cells
});

test("only rows in view are drawn, and a few around them", () => {
  assert.deepEqual(rowsInView(0, 300, 30, 5000), [0, 18]);
  assert.deepEqual(rowsInView(3000, 300, 30, 5000), [92, 118]);
  assert.deepEqual(rowsInView(0, 300, 30, 4), [0, 4]);
  assert.deepEqual(rowsInView(9000, 300, 30, 4), [292, 292]); // scrolled beyond what is left
  assert.deepEqual(rowsInView(0, 300, 30, 0), [0, 0]);
});

test("showing a row scrolls as little as needed", () => {
  assert.equal(leastScroll(5, 0, 300, 30), 0);
  assert.equal(leastScroll(2, 100, 300, 30), 60);
  assert.equal(leastScroll(20, 0, 300, 30), 330);
});
