// How many findings there are of each severity, and how far the check is.

import { html } from "../common/dom.js";

/**
 * How the check stands, as views/checks/state.py makes it.
 * @typedef {object} Checks
 * @property {{ severity: string, mark: string, n: number, word: string }[]} [counts]
 * @property {string} [said]
 * @property {boolean} [busy]
 */

/**
 * All of it in words; "" before anything is known.
 * @param {Checks} checks
 */
export function countsInWords({ counts = [], said = "" }) {
  const words = [...counts.map(({ n, word }) => `${n.toLocaleString("en")} ${word}`), said];
  return words.filter(Boolean).join(", ");
}

/**
 * What a screen reader says by itself: the first error, and how many more there are.
 * @param {{ severity: string, message: string }[]} findings
 */
export function alertOf(findings) {
  const errors = findings.filter((finding) => finding.severity === "error");
  if (errors.length < 2) return errors[0]?.message ?? "";
  const more = errors.length - 1;
  return `${errors[0].message} ${more.toLocaleString("en")} more error${more === 1 ? "" : "s"}.`;
}

/**
 * Mark and number of each severity, with the word for who does not see the mark.
 * @param {Checks} checks
 */
export function countParts({ counts = [], said = "" }) {
  const numbers = counts.map(({ severity, mark, n, word }) =>
    html("span", { class: `qx-count qx-count-${severity}` }, [
      html("span", { class: "qx-finding-mark", "aria-hidden": "true", text: mark }),
      n.toLocaleString("en"),
      html("span", { class: "qx-sr", text: ` ${word}` }),
    ]),
  );
  return said ? [...numbers, html("span", { class: "qx-counts-said", text: said })] : numbers;
}
