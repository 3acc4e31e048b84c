// Where an explorer stands, and the sizes of its parts that the browser remembers.

/**
 * "window": Voila's page, which it fills. "tab": a JupyterLab tab of its own, which it fills.
 * "cell": an output among others, which has a height of its own.
 * @typedef {"window" | "tab" | "cell"} Place
 */

/** Parts whose size a user can change, in px. @typedef {"tree" | "inspector" | "drawer" | "height"} Part */

/** @typedef {{ least: number, most: number }} Range */

const KEY = "qatexplorer.layout";
/** What holds an output that JupyterLab shows in a tab of its own. */
export const OWN_TAB = ".jp-LinkedOutputView";

/**
 * Where an element of the page stands.
 * @param {Element} el
 * @returns {Place}
 */
export function placeOf(el) {
  if (document.body.dataset.voila === "voila") return alone(el) ? "window" : "cell";
  return el.closest(OWN_TAB) === null ? "cell" : "tab";
}

/** Whether nothing else stands on Voila's page. @param {Element} el */
function alone(el) {
  const outputs = document.querySelectorAll(".jp-OutputArea-output, .jp-MarkdownOutput");
  for (const output of outputs) {
    if (!output.contains(el) && output.getBoundingClientRect().height > 0) return false;
  }
  return true;
}

/**
 * What an unknown text of the browser's storage holds; {} where it is no object.
 * @param {string | null} text
 * @returns {Record<string, any>}
 */
export function parsed(text) {
  try {
    const value = JSON.parse(text ?? "{}");
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

/**
 * What was remembered of the explorers in such a place. A browser may refuse to remember.
 * @param {Place} place
 * @returns {Record<string, any>}
 */
export function remembered(place) {
  try {
    return parsed(localStorage.getItem(`${KEY}.${place}`));
  } catch {
    return {};
  }
}

/**
 * Remembers one value, undefined to forget it.
 * @param {Place} place
 * @param {string} name
 * @param {number | string | boolean | undefined} value
 */
export function remember(place, name, value) {
  const all = { ...remembered(place), [name]: value };
  try {
    localStorage.setItem(`${KEY}.${place}`, JSON.stringify(all));
  } catch {
    // A full or forbidden storage: the size holds for as long as the page does.
  }
}

/**
 * A size within its range; below two thirds of the least it is 0, closed, where that is allowed.
 * @param {number} size
 * @param {Range} range
 * @param {boolean} closes
 */
export function within(size, { least, most }, closes) {
  if (closes && size < (least * 2) / 3) return 0;
  return Math.round(Math.min(Math.max(size, least), Math.max(least, most)));
}

/**
 * How small and large a part may be in an explorer of this size.
 * @param {Part} part
 * @param {{ width: number, height: number }} room
 * @returns {Range}
 */
export function rangeOf(part, room) {
  if (part === "tree") return { least: 200, most: Math.floor(room.width * 0.4) };
  if (part === "inspector") return { least: 220, most: Math.floor(room.width * 0.4) };
  if (part === "drawer") return { least: 120, most: Math.floor(room.height * 0.75) };
  return { least: 480, most: 2400 };
}
