// How many marks are drawn, and which groups are closed so that a picture stays readable and quick.

import { ancestorsOf, itemOf, ROOT } from "./scene.js";

/**
 * @typedef {import("./scene.js").Index} Index
 * @typedef {import("./scene.js").Item} Item
 */

export const MAX_ITEM_MARKS = 4;
export const MAX_MARKS = 300;
const EASY_TO_READ = 70;

/**
 * How many marks an item takes when it is drawn closed or as a node.
 * @param {Item} item
 */
const marksOf = (item) => 1 + Math.min(item.marks.length, MAX_ITEM_MARKS);

/**
 * Marks drawn when `root` is shown and the groups in `opened` are open.
 * @param {Index} index
 * @param {Set<string>} opened
 * @param {string} root
 */
export function countMarks(index, opened, root) {
  let total = 0;
  /** @param {string} id */
  const walk = (id) => {
    const item = itemOf(index, id);
    total += marksOf(item);
    if (item.children && (id === root || opened.has(id))) item.children.forEach(walk);
  };
  walk(root);
  return total;
}

/**
 * Which groups to open in the first picture: as many as leave it easy to read.
 * @param {Index} index
 */
export function firstOpened(index) {
  /** @type {Set<string>} */
  const opened = new Set();
  if (!index.groups.length) return opened;
  const everything = new Set(index.groups.map((g) => g.id));
  if (countMarks(index, everything, ROOT) <= EASY_TO_READ) return everything;
  /** @param {string} id */
  const groupsIn = (id) =>
    (itemOf(index, id).children ?? []).filter((child) => {
      const item = itemOf(index, child);
      return item.children && !item.repeat;
    });
  let shown = groupsIn(ROOT);
  const thin = (itemOf(index, ROOT).children ?? []).length <= 4;
  // Only a thin shell (a wrapper around the model) is opened for the user.
  while (thin && shown.length === 1) {
    const [id] = shown;
    if (countMarks(index, new Set([...opened, id]), ROOT) > EASY_TO_READ) break;
    opened.add(id);
    shown = groupsIn(id);
  }
  return opened;
}

/**
 * What to open of a new scene: what was open, and the folds that lie around it only now.
 * @param {Index} index
 * @param {string[]} openIds
 * @param {Map<string, unknown>} known items of the scene before
 */
export function withNewFolds(index, openIds, known) {
  /** @type {Set<string>} */
  const opened = new Set();
  for (const id of openIds) {
    for (const above of ancestorsOf(index, id)) {
      if (itemOf(index, above).repeat && !known.has(above)) opened.add(above);
    }
    opened.add(id);
  }
  return opened;
}

/**
 * Whether the group `id` is drawn when `root` is shown and `opened` are open.
 * @param {Index} index
 * @param {string} id
 * @param {Set<string>} opened
 * @param {string} root
 */
function isShown(index, id, opened, root) {
  if (root === id) return true;
  const chain = ancestorsOf(index, id);
  const from = chain.indexOf(root);
  return from >= 0 && chain.slice(from + 1).every((above) => opened.has(above));
}

/**
 * Closes what was used least recently, then steps inside, until few enough marks are drawn.
 * @param {Index} index
 * @param {Iterable<string>} wanted ids of the open groups, least recently used first
 * @param {string} wantedRoot the outermost group shown
 * @param {string | null} keep what must stay shown
 * @param {number} [most] marks
 * @returns {{ opened: Set<string>, root: string, say: string }} `say` is what was done, in words
 */
export function withinBudget(index, wanted, wantedRoot, keep, most = MAX_MARKS) {
  const opened = new Set(wanted);
  let root = wantedRoot;
  const closed = [];
  const way = keep === null ? [] : [...ancestorsOf(index, keep), keep];
  for (const id of wanted) {
    if (countMarks(index, opened, root) <= most) break;
    if (way.includes(id) || !index.items.has(id)) continue;
    if (!isShown(index, id, opened, root)) continue;
    opened.delete(id);
    closed.push(itemOf(index, id).label);
  }
  for (const id of way.slice(way.indexOf(root) + 1)) {
    if (countMarks(index, opened, root) <= most) break;
    root = id;
  }
  const says = [];
  if (closed.length) {
    const names = closed.length > 2 ? `${closed.length} groups` : closed.join(", ");
    says.push(`collapsed ${names} to stay under ${most} marks`);
  }
  if (root !== wantedRoot) {
    says.push(`showing inside ${itemOf(index, root).label} to stay under ${most} marks`);
  }
  return { opened, root, say: says.join(", ") };
}
