import assert from "node:assert/strict";
import { test } from "node:test";
import {
  attention,
  categoryColour,
  colourAt,
  domainOf,
  luminance,
  textOn,
  ticksOf,
  tickText,
} from "../../qatexplorer/widgets/graph/scale.js";

/** @param {string} a @param {string} b */
function contrast(a, b) {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

test("text can be read on every colour of the scale and of the categories", () => {
  for (const dark of [false, true]) {
    for (let i = 0; i <= 200; i += 1) {
      const colour = colourAt(i / 200, dark);
      assert.ok(contrast(colour, textOn(colour)) >= 4.5, colour);
    }
  }
  for (let i = 0; i < 8; i += 1) {
    assert.ok(contrast(categoryColour(i), textOn(categoryColour(i))) >= 4.5);
  }
});

test("the scale goes one way in lightness, away from the page", () => {
  for (const dark of [false, true]) {
    const lights = Array.from({ length: 41 }, (_, i) => luminance(colourAt(i / 40, dark)));
    for (const [i, light] of lights.entries()) {
      if (i) assert.ok(dark ? light > lights[i - 1] : light < lights[i - 1]);
    }
  }
});

test("what is bad draws the eye, whichever way the numbers go", () => {
  const domain = { low: 10, high: 50 };
  assert.equal(attention({ highIs: "bad" }, domain, 50), 1);
  assert.equal(attention({ highIs: "good" }, domain, 50), 0);
  assert.equal(attention({ highIs: "" }, domain, 30), 0.5);
  assert.equal(attention({}, domain, 99), 1);
  assert.equal(attention({}, { low: 3, high: 3 }, 3), 0.5);
});

test("of sums what is in sight makes the scale, of others all that is known", () => {
  const values = { "g:": 100, "g:a": 60, "n:b": 40, "n:a.0": 20 };
  const sums = { groups: "sum", values, low: 1, high: 2 };
  assert.deepEqual(domainOf(sums, ["g:a", "n:b", "n:unknown"]), { low: 0, high: 60 });
  assert.deepEqual(domainOf(sums, []), { low: 1, high: 2 });
  assert.deepEqual(domainOf({ ...sums, groups: "highest" }, ["g:a"]), { low: 1, high: 2 });
});

test("ticks are round and lie on the scale", () => {
  assert.deepEqual(ticksOf({ low: 0, high: 100 }), [0, 20, 40, 60, 80, 100]);
  assert.deepEqual(ticksOf({ low: 12, high: 24.8 }), [12, 16, 20, 24]);
  assert.deepEqual(ticksOf({ low: 4, high: 4 }), [4]);
  for (const [low, high] of [
    [0, 7e9],
    [-3, 8],
    [0, 1e-6],
    [0, 0.65],
    [12, 24.8],
    [1, 97],
  ]) {
    const ticks = ticksOf({ low, high });
    assert.ok(ticks.length >= 3 && ticks.length <= 6, String(ticks));
    assert.ok(ticks.every((tick) => tick >= low - 1e-12 && tick <= high * (1 + 1e-9) + 1e-12));
  }
});

test("numbers at the scale are short", () => {
  assert.equal(tickText(0.025, "share"), "2.5 %");
  assert.equal(tickText(1_500_000, "MACs"), "1.5M");
  assert.equal(tickText(30, "dB"), "30");
});
