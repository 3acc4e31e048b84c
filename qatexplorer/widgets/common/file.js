// Files that the page hands to the browser.

import { html } from "./dom.js";

/**
 * Lets the browser save `text`.
 * @param {string} text
 * @param {string} name of the file
 * @param {string} type as MIME names it
 */
export function download(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  html("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
