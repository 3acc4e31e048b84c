// Cards of the small multiples: what is drawn, and in which order they stand.

import assert from "node:assert/strict";
import test from "node:test";
import { withoutHeading } from "../../qatexplorer/widgets/common/plot.js";
import { barsPath, linePath, orderOf } from "../../qatexplorer/widgets/training/multiples.js";

test("a line goes through all points that are known, with a gap where one is not", () => {
  assert.equal(linePath([0, 100, null, 50, 0], 40, 24), "M0.0 22.0L10.0 2.0M30.0 12.0L40.0 22.0");
  assert.equal(linePath([], 40, 24), "");
});

test("bars stand on the ground, as high as they are", () => {
  assert.equal(
    barsPath([100, 0, 50], 10, 4, 20),
    "M10.0 20v-20.0h3.60v20.0zM18.0 20v-10.0h3.60v10.0z",
  );
});

test("cards stay where they are while the user is among them", () => {
  const shown = ["a", "b", "c"];
  assert.deepEqual(orderOf(["c", "b", "a"], shown, false), ["c", "b", "a"]);
  assert.deepEqual(orderOf(["c", "b", "a"], shown, true), shown);
  // What is gone goes, what is new comes at the end.
  assert.deepEqual(orderOf(["d", "c", "a"], shown, true), ["a", "c", "d"]);
});

test("a figure gives its heading to the page, and the room for it", () => {
  const layout = {
    title: { text: "x" },
    height: 300,
    margin: { t: 76, b: 44 },
    meta: { title: "x", subtitle: "", head: 46, alt: "", table: null },
  };
  const drawn = withoutHeading(layout);
  assert.equal(drawn.title, undefined);
  assert.equal(drawn.height, 254);
  assert.deepEqual(drawn.margin, { t: 30, b: 44 });
  // The plot itself stays as high as it was.
  assert.equal(drawn.height - drawn.margin.t - drawn.margin.b, 300 - 76 - 44);
  assert.equal(withoutHeading({ title: { text: "x" } }).title.text, "x");
});
