// Layout of groups, off the main thread and cached; ended by terminating the worker.

import { layoutOne, workerText } from "./layered.js";
// As text: the worker is made of it.
import DAGRE from "./vendor/dagre/dagre.min.js" with { type: "text" };

/**
 * @typedef {import("./layered.js").Spec} Spec
 * @typedef {import("./layered.js").LaidOut} LaidOut
 */

/**
 * A layout that the worker is at.
 * @typedef {object} Waiting
 * @property {Spec} spec
 * @property {(laidOut: LaidOut) => void} resolve
 * @property {(error: Error) => void} reject
 */

const MOST_KEPT = 400;

/** What a cancelled layout is rejected with. */
export class Cancelled extends Error {}

/** Runs `layoutOne` off the main thread; in it where the page refuses workers. */
export class Layouter {
  constructor() {
    /** @type {Map<string, LaidOut>} */
    this.cache = new Map();
    /** @type {Map<number, Waiting>} */
    this.waiting = new Map();
    this.serial = 0;
    /** @type {Worker | null} */
    this.worker = null;
    /** @type {string | null} */
    this.url = null;
    /** dagre in the main thread. @type {Promise<any> | null} */
    this.local = null;
    this.start();
  }

  start() {
    try {
      this.url ??= URL.createObjectURL(new Blob([workerText(DAGRE)], { type: "text/javascript" }));
      this.worker = new Worker(this.url);
      this.worker.onmessage = (e) => this.settle(e.data);
      this.worker.onerror = () => this.refuse();
    } catch {
      this.worker = null;
    }
  }

  /**
   * The worker's answer.
   * @param {{ id: number, result?: LaidOut, error?: string }} answer
   */
  settle({ id, result, error }) {
    const wait = this.waiting.get(id);
    if (!wait) return;
    this.waiting.delete(id);
    if (result) wait.resolve(result);
    else wait.reject(new Error(error));
  }

  /** The worker could not be loaded: what waits is laid out here instead. */
  refuse() {
    this.worker = null;
    const waits = [...this.waiting.values()];
    this.waiting.clear();
    for (const { spec, resolve, reject } of waits) this.runHere(spec).then(resolve, reject);
  }

  /** @param {Spec} spec */
  async runHere(spec) {
    if (!this.local) {
      const code = `${DAGRE}\nexport default dagre;`;
      const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
      this.local = import(url).finally(() => URL.revokeObjectURL(url));
    }
    return layoutOne((await this.local).default, spec);
  }

  /**
   * @param {string} key what `spec` follows from: under the same key it is laid out once
   * @param {Spec} spec
   * @returns {Promise<LaidOut>} rejected with {@link Cancelled} by {@link cancel}
   */
  async layout(key, spec) {
    const known = this.cache.get(key);
    if (known) return known;
    const result = this.worker ? await this.runThere(this.worker, spec) : await this.runHere(spec);
    const [oldest] = this.cache.keys();
    if (this.cache.size > MOST_KEPT) this.cache.delete(oldest);
    this.cache.set(key, result);
    return result;
  }

  /**
   * @param {Worker} worker
   * @param {Spec} spec
   * @returns {Promise<LaidOut>}
   */
  runThere(worker, spec) {
    return new Promise((resolve, reject) => {
      this.serial += 1;
      this.waiting.set(this.serial, { resolve, reject, spec });
      worker.postMessage({ id: this.serial, spec });
    });
  }

  /** Ends what is being laid out, at once. Returns whether there was anything. */
  cancel() {
    const waits = [...this.waiting.values()];
    this.waiting.clear();
    if (this.worker && waits.length) {
      this.worker.terminate();
      this.start();
    }
    for (const { reject } of waits) reject(new Cancelled("cancelled"));
    return waits.length > 0;
  }

  forget() {
    this.cache.clear();
  }

  dispose() {
    this.cancel();
    if (this.worker) this.worker.terminate();
    if (this.url) URL.revokeObjectURL(this.url);
    this.worker = null;
    this.url = null;
  }
}
