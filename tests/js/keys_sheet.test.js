import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { KEYS } from "../../qatexplorer/widgets/explorer/keys_sheet.js";

const source = (name) =>
  readFile(new URL(`../../qatexplorer/widgets/${name}`, import.meta.url), "utf8");

/** The keys that the object `name` of a source has, such as `const actions = { Enter: …, "+": … }`. */
function keysOf(text, name) {
  const body = new RegExp(`const ${name} = \\{\\n(.*?)\\n\\s*\\};?\\n`, "s").exec(text)?.[1];
  assert.ok(body, `no object ${name}`);
  const indent = /^ */.exec(body)[0];
  const line = new RegExp(`^${indent}(?:"([^"]+)"|(\\w+)|\\[(\\w+)\\])(?:: |\\()`, "gm");
  return [...body.matchAll(line)].map((match) => match[1] ?? match[2]).filter(Boolean);
}

const listed = (part) =>
  new Set(KEYS.find((group) => group.part === part).entries.flatMap(({ keys }) => keys));

test("the sheet lists the keys of the graph", async () => {
  const text = await source("graph/keys.js");
  const panning = /PANS = new Set\(\[(.*?)\]\)/s.exec(text)[1].match(/\w+/g);
  const arrows = /const DOWN = \{(.*?)\}/.exec(text)[1].match(/Arrow\w+/g);
  const handled = new Set([...keysOf(text, "actions"), ...panning, ...arrows]);
  assert.deepEqual([...listed("Graph")].sort(), [...handled].sort());
});

test("the sheet lists the keys of tree and tables", async () => {
  const rows = keysOf(await source("common/list.js"), "actions");
  assert.deepEqual([...listed("Rows of the tree and of tables")].sort(), rows.sort());
  const tree = keysOf(await source("tree/tree.js"), "more");
  assert.deepEqual([...listed("Tree")].sort(), [...tree, "Escape"].sort());
});

test("the sheet lists the keys of bars and drawer", async () => {
  const bars = keysOf(await source("explorer/splitter.js"), "actions");
  const arrows = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];
  assert.deepEqual([...listed("Bars between the parts")].sort(), [...bars, ...arrows].sort());
  const tabs = keysOf(await source("explorer/tabstrip.js"), "to");
  const more = ["Enter", " ", "Escape"];
  assert.deepEqual([...listed("Panels below")].sort(), [...tabs, ...more].sort());
});
