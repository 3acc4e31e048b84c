// Which rows of a table are shown, and in what order.

/**
 * One row, as views/ledger/tables.py makes it.
 * @typedef {object} TableRow
 * @property {string} id
 * @property {string} sel selection string, "" for none
 * @property {string} [kind]
 * @property {string[]} flags
 * @property {string[]} cells texts
 * @property {(number | string | null | undefined)[]} sort what each column is sorted by
 * @property {string[]} [tips] what a cell has no room for
 */

/**
 * The column that sorts, -1 for none.
 * @typedef {{ column: number, down: boolean }} Sort
 */

/** @param {unknown} value */
const isEmpty = (value) => value === null || value === undefined || value === "";

/**
 * Numbers by value, text by the alphabet with numbers inside, nothing last.
 * @param {unknown} a
 * @param {unknown} b
 */
export function compare(a, b) {
  if (isEmpty(a) || isEmpty(b)) return Number(isEmpty(a)) - Number(isEmpty(b));
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

/**
 * The rows with `flag` ("" for any) whose cells contain all words of `query`.
 * @param {TableRow[]} rows
 * @param {string} flag
 * @param {string} query
 */
export function filterRows(rows, flag, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter((row) => {
    if (flag && !row.flags.includes(flag)) return false;
    const text = words.length ? row.cells.join("\n").toLowerCase() : "";
    return words.every((word) => text.includes(word));
  });
}

/**
 * The rows in order; those with nothing in the column come last both ways.
 * @param {TableRow[]} rows
 * @param {Sort} sort
 */
export function sortRows(rows, { column, down }) {
  if (column < 0) return rows;
  return [...rows].sort((one, other) => {
    const [a, b] = [one.sort[column], other.sort[column]];
    const order = compare(a, b);
    return down && !isEmpty(a) && !isEmpty(b) ? -order : order;
  });
}

/**
 * What a click on the head of `column` makes of `sort`: up, then down, then as Python gave them.
 * @param {Sort} sort
 * @param {number} column
 * @returns {Sort}
 */
export function nextSort(sort, column) {
  if (sort.column !== column) return { column, down: false };
  return sort.down ? { column: -1, down: false } : { column, down: true };
}
