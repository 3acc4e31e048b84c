// Bundles the widgets' JavaScript: anywidget loads a widget's code from a blob, where imports lead
// nowhere. `node build.mjs` writes the bundles, `node build.mjs --check` fails where one differs
// from what its sources give.

import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const WIDGETS = fileURLToPath(new URL("../../qatexplorer/widgets/", import.meta.url));
const BUNDLED = join(WIDGETS, "bundled");
const ENTRIES = [
  "common/download.js",
  "common/html.js",
  "common/note.js",
  "common/panel.js",
  "common/plot.js",
  "common/table.js",
  "explorer/frame.js",
  "explorer/news.js",
  "explorer/splitter.js",
  "explorer/stagebar.js",
  "explorer/tabstrip.js",
  "graph/graph.js",
  "training/multiples.js",
  "tree/tree.js",
];

/**
 * Name and text of the bundle of one widget.
 * @param {string} entry
 */
async function bundle(entry) {
  const { outputFiles, metafile } = await build({
    absWorkingDir: WIDGETS,
    entryPoints: [entry],
    bundle: true,
    charset: "utf8",
    format: "esm",
    metafile: true,
    outdir: BUNDLED,
    target: "es2022",
    write: false,
  });
  const sources = Object.keys(metafile.inputs).sort();
  // So that a test without Node.js sees too that a source has changed.
  const hash = createHash("sha256");
  for (const source of sources) hash.update(await readFile(join(WIDGETS, source)));
  const head = [
    "Made by tests/js/build.mjs, not by hand, of",
    ...sources.map((source) => `  ${source}`),
    `sha256 of these: ${hash.digest("hex")}`,
  ];
  const lines = head.map((line) => `// ${line}\n`);
  return { name: entry.split("/").at(-1), text: `${lines.join("")}\n${outputFiles[0].text}` };
}

const bundles = await Promise.all(ENTRIES.map(bundle));
const names = bundles.map(({ name }) => name);
await mkdir(BUNDLED, { recursive: true });
const found = (await readdir(BUNDLED)).filter((name) => name.endsWith(".js"));
const extra = found.filter((name) => !names.includes(name));
if (process.argv.includes("--check")) {
  const stale = [...extra];
  for (const { name, text } of bundles) {
    const now = found.includes(name) ? await readFile(join(BUNDLED, name), "utf8") : "";
    if (now !== text) stale.push(name);
  }
  if (stale.length) {
    const list = stale.map((name) => `qatexplorer/widgets/bundled/${name}`).join(", ");
    console.error(`Not what the sources give: ${list}. Run: npm --prefix tests/js run build`);
    process.exitCode = 1;
  }
} else {
  for (const { name, text } of bundles) await writeFile(join(BUNDLED, name), text);
  for (const name of extra) await rm(join(BUNDLED, name));
}
