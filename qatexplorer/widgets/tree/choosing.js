// Which rows of the tree are selected: one of them is the selection that all views share, the
// others are selected with it, for what can be done to many at once.

/**
 * @typedef {object} Choice
 * @property {string} selected the selection that the other views show, "" for none
 * @property {string[]} chosen all that are selected, in the order of choosing, that one among them
 */

/**
 * What is selected, where `chosen` may be older than `selected`: a selection from elsewhere is one
 * thing only.
 * @param {string | undefined} selected
 * @param {string[] | undefined} chosen
 * @returns {string[]}
 */
export function chosenOf(selected, chosen) {
  if (!selected) return [];
  return chosen?.includes(selected) ? chosen : [selected];
}

/**
 * This row only.
 * @param {string} id
 * @returns {Choice}
 */
export function only(id) {
  return { selected: id, chosen: [id] };
}

/**
 * This row too, or, if it was selected, no more; then the one chosen before it is the selection.
 * @param {string[]} chosen
 * @param {string} id
 * @returns {Choice}
 */
export function toggled(chosen, id) {
  // What is selected in the graph only (a tensor, an operation) has no row to be one of many.
  const rest = chosen.filter((one) => one !== id && /^(module|site):/.test(one));
  if (chosen.includes(id)) return { selected: rest.at(-1) ?? "", chosen: rest };
  return { selected: id, chosen: [...rest, id] };
}

/**
 * All rows from one to another; what folds others is none of them.
 * @param {{ id: string, kind: string }[]} rows that are shown, in order
 * @param {number} from
 * @param {number} to of the row that is the selection then
 * @param {string[]} [before] what stays selected besides
 * @returns {Choice}
 */
export function through(rows, from, to, before = []) {
  const part = rows.slice(Math.min(from, to), Math.max(from, to) + 1);
  if (to < from) part.reverse();
  const ids = part.filter((row) => row.kind !== "fold").map((row) => row.id);
  const chosen = [...before.filter((id) => !ids.includes(id)), ...ids];
  return { selected: chosen.at(-1) ?? "", chosen };
}
