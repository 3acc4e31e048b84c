import assert from "node:assert/strict";
import { test } from "node:test";

import { alertOf, countsInWords } from "../../qatexplorer/widgets/explorer/counts.js";

const count = (n, word) => ({ severity: "error", mark: "✖", n, word });

test("counts and the state of the check are said in words", () => {
  const checks = { counts: [count(1, "error"), count(1200, "notes")], said: "checking 40 %" };
  assert.equal(countsInWords(checks), "1 error, 1,200 notes, checking 40 %");
  assert.equal(countsInWords({ counts: [], said: "no findings" }), "no findings");
  assert.equal(countsInWords({}), "");
});

test("only the first error is read out by itself", () => {
  const finding = (severity, message) => ({ severity, message });
  const [a, b, c] = ["A.", "B.", "C."].map((text) => finding("error", text));
  assert.equal(alertOf([finding("warning", "W.")]), "");
  assert.equal(alertOf([a, finding("info", "I.")]), "A.");
  assert.equal(alertOf([a, b]), "A. 1 more error.");
  assert.equal(alertOf([a, b, c]), "A. 2 more errors.");
});
