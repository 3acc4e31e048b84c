// Sizes of boxes, and the nested layouts put together into one picture.

import { MAX_ITEM_MARKS } from "./budget.js";
import { itemOf } from "./scene.js";

/**
 * @typedef {import("./scene.js").Index} Index
 * @typedef {import("./scene.js").Item} Item
 * @typedef {import("./scene.js").SceneGroup} SceneGroup
 * @typedef {import("./layered.js").Point} Point
 * @typedef {import("./layered.js").Spec} Spec
 * @typedef {import("./layered.js").LaidOut} LaidOut
 */

/**
 * A node or a closed group: `bw`, `bh` its own size, `bx`, `by` where that lies in `w`, `h`, which
 * hold its marks too.
 * @typedef {ReturnType<typeof measureBox>} ClosedBox
 */

/**
 * An open group: `ox`, `oy` where its inside begins, `inX`, `outX` where tensors enter and leave,
 * from its centre.
 * @typedef {ReturnType<typeof measureOpen>} OpenBox
 */

/** @typedef {{ id: string, x: number, y: number }} Place where a box lies on the sheet */
/** @typedef {ClosedBox & Place} PlacedClosed */
/** @typedef {OpenBox & Place} PlacedOpen */
/** @typedef {PlacedClosed | PlacedOpen} PlacedBox */

/**
 * One line of the picture, for one or several links of the scene.
 * @typedef {object} DrawnEdge
 * @property {number[]} list indices into the scene's edges
 * @property {boolean} many whether it stands for several links
 * @property {string[]} via ids of the Identities on it
 * @property {Point[] | null} points null for a loop from an item to itself
 * @property {string | null} from null where it enters the group from outside
 * @property {string | null} to null where it leaves
 * @property {boolean} back whether it closes a cycle
 * @property {boolean} arrow
 */

/**
 * @typedef {object} Picture
 * @property {Map<string, PlacedBox>} boxes by item id
 * @property {DrawnEdge[]} edges
 * @property {number} w
 * @property {number} h
 * @property {boolean} lr laid out from left to right
 */

/** @typedef {{ key: string, box: ClosedBox, parts: null }} BuiltClosed */
/** @typedef {{ key: string, box: OpenBox, parts: Built[], inside: LaidOut, item: SceneGroup }} BuiltOpen */
/** @typedef {BuiltClosed | BuiltOpen} Built */

export const HEADER = 30;
export const FONT = { label: "600 12.5px", sub: "400 10.5px" };
const PAD = 16;
const TAIL = 26;

/** @type {CanvasRenderingContext2D | null} */
let measuring = null;

/**
 * Width of `text` in px in the font stack that the page draws with.
 * @param {string} text
 * @param {string} font weight and size
 * @param {string} family
 */
export function textWidth(text, font, family) {
  measuring ??= document.createElement("canvas").getContext("2d");
  if (!measuring) return 7 * text.length; // a browser that refuses canvases
  measuring.font = `${font} ${family}`;
  return measuring.measureText(text).width;
}

/**
 * `text` cut in the middle to fit, since both ends of a path tell modules apart.
 * @param {string} text
 * @param {number} width
 * @param {string} font
 * @param {string} family
 */
function fitText(text, width, font, family) {
  if (textWidth(text, font, family) <= width) return text;
  const letters = [...text];
  let low = 2;
  let high = letters.length;
  /** @param {number} n */
  const cut = (n) => {
    const head = Math.ceil(n / 2);
    const tail = letters.slice(letters.length - (n - head));
    return `${letters.slice(0, head).join("")}…${tail.join("")}`;
  };
  while (low < high) {
    const mid = Math.ceil((low + high) / 2);
    if (textWidth(cut(mid), font, family) <= width) low = mid;
    else high = mid - 1;
  }
  return cut(low);
}

/**
 * Fake quants inside a group; 0 for a node.
 * @param {Item} item
 */
export const siteTotal = (item) =>
  item.sites ? item.sites.weight + item.sites.input + item.sites.output : 0;

/**
 * Where the counts of a closed group are drawn, from the left border of its box.
 * @param {Item} item
 * @returns {{ kind: import("./scene.js").Kind | "twice", count: string, at: number }[]}
 */
export function countPlaces(item) {
  const places = [];
  let at = 18;
  const counts = { ...(item.sites ?? { weight: 0, input: 0, output: 0 }), twice: item.twice ?? 0 };
  for (const kind of /** @type {const} */ (["weight", "input", "output", "twice"])) {
    if (!counts[kind]) continue;
    const count = `${counts[kind]}`;
    const start = kind === "twice" ? at + 5 : at;
    places.push({ kind, count, at: start });
    at = start + (kind === "twice" ? 26 : 21) + 6.5 * count.length;
  }
  return places;
}

/** Width of a box that holds its counts, 0 if it has none. @param {Item} item */
function countsRoom(item) {
  const last = countPlaces(item).at(-1);
  return last ? last.at + 32 + 6.5 * last.count.length : 0;
}

/**
 * The line under an item's name.
 * @param {Item} item
 */
export function subText(item) {
  if (!item.children) return item.sub;
  const ops = `${item.ops} op${item.ops === 1 ? "" : "s"}`;
  return [item.sub, ops, item.int8 ? `${item.int8} int8` : ""].filter(Boolean).join(" · ");
}

/**
 * Box of a node or a closed group, measured once per scene.
 * @param {Index} index
 * @param {Item} item
 * @param {boolean} lr
 * @param {string} family
 */
function measureItem(index, item, lr, family) {
  const key = `${item.id}|${lr}|${family}`;
  let box = index.measured.get(key);
  if (!box) {
    box = measureBox(item, lr, family);
    index.measured.set(key, box);
  }
  return box;
}

/**
 * Its own size, and what its marks add around it.
 * @param {Item} item
 * @param {boolean} lr
 * @param {string} family
 */
function measureBox(item, lr, family) {
  const label = fitText(item.label, 190, FONT.label, family);
  const sub = fitText(subText(item), 200, FONT.sub, family);
  /** Paths of fake quants by where they are drawn. @type {Record<string, string[]>} */
  const roles = { side: [], tail: [], inside: [], head: [] };
  for (const mark of item.marks) roles[mark.role].push(mark.site);
  const inner = [...roles.inside, ...roles.head];
  const counts = countsRoom(item);
  const chips = counts > 0 || (!item.children && inner.length > 0);
  const [besideLabel, besideSub] = item.children ? [22, 20] : [0, 0];
  const tag = item.precision === "int8" ? 36 : 0;
  const labelWidth = textWidth(label, FONT.label, family) + besideLabel + tag + 28;
  const subWidth = textWidth(sub, FONT.sub, family) + besideSub + 28;
  const bw = Math.ceil(Math.max(84, labelWidth, subWidth, counts));
  const bh = (sub ? 42 : 30) + (chips ? 20 : 0);
  const side = roles.side.length > 0;
  const tail = roles.tail.length ? TAIL : 0;
  return {
    open: /** @type {const} */ (false),
    lr,
    label,
    sub,
    roles,
    inner,
    chips,
    bw,
    bh,
    w: bw + (lr ? tail : side ? 22 : 0),
    h: bh + (lr ? (side ? 24 : 0) : tail),
    bx: !lr && side ? 11 : 0,
    by: lr && side ? 12 : 0,
  };
}

/**
 * Size of an open group around its laid-out inside.
 * @param {SceneGroup} item
 * @param {LaidOut} inside
 * @param {boolean} lr
 * @param {string} family
 */
function measureOpen(item, inside, lr, family) {
  const [iw, ih] = lr ? [inside.h, inside.w] : [inside.w, inside.h];
  const label = fitText(item.label, 260, FONT.label, family);
  const sub = fitText(item.sub, 160, FONT.sub, family);
  const heads = Math.min(item.marks.length, MAX_ITEM_MARKS);
  const labelWidth = textWidth(label, FONT.label, family);
  const title = labelWidth + textWidth(sub, FONT.sub, family) + 64 + heads * 22;
  const w = Math.ceil(Math.max(iw + 2 * PAD, title));
  const h = Math.ceil(HEADER + ih + 2 * PAD);
  const ox = (w - iw) / 2;
  const oy = HEADER + PAD;
  const [start, length] = lr ? [oy, h] : [ox, w];
  /** @param {number | null} at */
  const port = (at) => (at === null ? 0 : start + at - length / 2);
  return {
    open: /** @type {const} */ (true),
    label,
    labelWidth,
    sub,
    w,
    h,
    ox,
    oy,
    inX: port(inside.in),
    outX: port(inside.out),
  };
}

/**
 * What the layout of one open group depends on.
 * @param {Index} index
 * @param {SceneGroup} item
 * @param {Built[]} parts its children, in order
 * @param {boolean} lr
 * @returns {Spec}
 */
function layoutSpec(index, item, parts, lr) {
  const { edges, ins, outs } = innerOf(index, item.id);
  const order = new Map(item.children.map((child, i) => [child, i]));
  return {
    gap: lr ? 16 : 24,
    rankGap: lr ? 44 : 30,
    nodes: parts.map(({ box }, i) => {
      const [inX, outX] = box.open ? [box.inX, box.outX] : [0, 0];
      const [w, h] = lr ? [box.h, box.w] : [box.w, box.h];
      return [item.children[i], w, h, inX, outX];
    }),
    edges: [...edges.keys()].map((key) => {
      const [a, b] = key.split("\n");
      return [key, a, b, (order.get(a) ?? 0) >= (order.get(b) ?? 0)];
    }),
    ins: [...ins.keys()],
    outs: [...outs.keys()],
  };
}

/**
 * @param {Index} index
 * @param {string} id of a group
 */
const innerOf = (index, id) => /** @type {import("./scene.js").Inner} */ (index.inner.get(id));

/**
 * Lays out `root` and every open group below it, innermost first, and puts them together.
 * @param {Index} index
 * @param {{ layout: (key: string, spec: Spec) => Promise<LaidOut> }} layouter
 * @param {string} root
 * @param {Set<string>} opened
 * @param {boolean} lr
 * @param {string} family font family
 */
export async function composePicture(index, layouter, root, opened, lr, family) {
  /**
   * @param {string} id
   * @returns {Promise<Built>}
   */
  const build = async (id) => {
    const item = itemOf(index, id);
    if (!item.children || (id !== root && !opened.has(id))) {
      return { key: id, box: measureItem(index, item, lr, family), parts: null };
    }
    /** @type {Built[]} */
    const parts = [];
    for (const child of item.children) parts.push(await build(child));
    const below = parts.map((part) => (part.parts ? part.key : "")).join(",");
    const key = `${id}|${lr ? "lr" : "tb"}|(${below})`;
    const inside = await layouter.layout(key, layoutSpec(index, item, parts, lr));
    return { key, box: measureOpen(item, inside, lr, family), parts, inside, item };
  };
  const top = await build(root);
  /** @type {Picture} */
  const picture = { boxes: new Map(), edges: [], w: top.box.w, h: top.box.h, lr };
  place(index, picture, root, top, 0, 0);
  return picture;
}

/**
 * Where a group's sign that opens and closes it is drawn; of a node, the same place.
 * @param {PlacedBox} box
 * @returns {Point}
 */
export const gripOf = (box) =>
  box.open ? [box.x + 16, box.y + HEADER / 2] : [box.x + box.bx + 16, box.y + box.by + 14];

/**
 * Puts a laid-out item on the sheet at (x, y), and all that it holds.
 * @param {Index} index
 * @param {Picture} picture
 * @param {string} id
 * @param {Built} built
 * @param {number} x
 * @param {number} y
 */
function place(index, picture, id, built, x, y) {
  picture.boxes.set(id, { ...built.box, id, x, y });
  if (!built.parts) return;
  const { inside, parts, item } = built;
  const { ox, oy } = built.box;
  /** @param {Point} point @returns {Point} */
  const onSheet = ([px, py]) =>
    picture.lr ? [x + ox + py, y + oy + px] : [x + ox + px, y + oy + py];
  for (const [i, child] of item.children.entries()) {
    const [cx, cy] = onSheet(inside.pos[child]);
    const { w, h } = parts[i].box;
    place(index, picture, child, parts[i], cx - w / 2, cy - h / 2);
  }
  const { edges, ins, outs, via } = innerOf(index, id);
  /** @param {string} child */
  const isClosed = (child) => !picture.boxes.get(child)?.open;
  /**
   * @param {import("./scene.js").Part} part
   * @param {string} key
   * @param {number[]} links
   */
  const what = (part, key, links) => ({
    list: links.flatMap((link) => index.links[link].list),
    many: links.length > 1,
    via: via.get(`${part} ${key}`) ?? [],
  });
  for (const [key, links] of edges) {
    const [from, to] = key.split("\n");
    const points = from === to ? null : inside.edges[key].map(onSheet);
    const same = what("edges", key, links);
    const back = same.list.some((e) => index.edges[e][2]);
    picture.edges.push({ ...same, points, from, to, back, arrow: isClosed(to) });
  }
  for (const [to, links] of ins) {
    const points = [/** @type {Point} */ ([inside.in, -PAD]), ...inside.ins[to]].map(onSheet);
    const same = what("ins", to, links);
    picture.edges.push({ ...same, points, from: null, to, back: false, arrow: isClosed(to) });
  }
  for (const [from, links] of outs) {
    const end = /** @type {Point} */ ([inside.out, inside.h + PAD]);
    const points = [...inside.outs[from], end].map(onSheet);
    const same = what("outs", from, links);
    picture.edges.push({ ...same, points, from, to: null, back: false, arrow: false });
  }
}
