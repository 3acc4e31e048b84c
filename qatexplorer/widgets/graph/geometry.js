// Sizes of boxes, and the nested layouts put together into one picture.

const MAX_ITEM_MARKS = 4;
const PAD = 16;
const HEADER = 30;
const TAIL = 26;
const FONT = { label: "600 12.5px", sub: "400 10.5px" };

let measuring = null;

/** Width of `text` in px in the font stack that the page draws with. */
function textWidth(text, font, family) {
  measuring = measuring || document.createElement("canvas").getContext("2d");
  measuring.font = `${font} ${family}`;
  return measuring.measureText(text).width;
}

/** `text` cut in the middle to fit, since both ends of a path tell modules apart. */
function fitText(text, width, font, family) {
  if (textWidth(text, font, family) <= width) return text;
  const letters = [...text];
  let low = 2;
  let high = letters.length;
  const cut = (n) => {
    const head = Math.ceil(n / 2);
    return `${letters.slice(0, head).join("")}…${letters.slice(letters.length - (n - head)).join("")}`;
  };
  while (low < high) {
    const mid = Math.ceil((low + high) / 2);
    if (textWidth(cut(mid), font, family) <= width) low = mid;
    else high = mid - 1;
  }
  return cut(low);
}

const siteTotal = (item) => (item.sites ? item.sites.weight + item.sites.input + item.sites.output : 0);

function opsText(item) {
  const ops = `${item.ops} op${item.ops === 1 ? "" : "s"}`;
  return [item.sub, ops, item.int8 ? `${item.int8} int8` : ""].filter(Boolean).join(" · ");
}

/** Box of a node or a closed group, measured once per scene. */
function measureItem(index, item, lr, family) {
  const key = `${item.id}|${lr}|${family}`;
  if (!index.measured.has(key)) index.measured.set(key, measureBox(item, lr, family));
  return index.measured.get(key);
}

/** Its own size, and what its marks add around it. */
function measureBox(item, lr, family) {
  const isGroup = Boolean(item.children);
  const label = fitText(item.label, 190, FONT.label, family);
  const sub = fitText(isGroup ? opsText(item) : item.sub, 200, FONT.sub, family);
  const roles = { side: [], tail: [], inside: [], head: [] };
  item.marks.forEach((m) => roles[m.role].push(m.site));
  const inner = [...roles.inside, ...roles.head];
  const chips = isGroup ? siteTotal(item) > 0 : inner.length > 0;
  const labelWidth = textWidth(label, FONT.label, family) + (isGroup ? 22 : 0);
  const tag = item.precision === "int8" ? 36 : 0;
  const bw = Math.max(84, labelWidth + tag + 28, textWidth(sub, FONT.sub, family) + 28 + (isGroup ? 20 : 0));
  const bh = (sub ? 42 : 30) + (chips ? 20 : 0);
  const side = roles.side.length ? 20 * Math.min(roles.side.length, 2) : 0;
  const tail = roles.tail.length ? TAIL : 0;
  const box = { lr, label, sub, roles, inner, chips, bw: Math.ceil(bw), bh, side, tail };
  box.w = box.bw + (lr ? tail : side ? 22 : 0);
  box.h = box.bh + (lr ? (side ? 24 : 0) : tail);
  box.bx = lr ? 0 : side ? 11 : 0;
  box.by = lr && side ? 12 : 0;
  return box;
}

/** Size of an open group around its laid-out inside. */
function measureOpen(item, inside, lr, family) {
  const [iw, ih] = lr ? [inside.h, inside.w] : [inside.w, inside.h];
  const label = fitText(item.label, 260, FONT.label, family);
  const sub = fitText(item.sub, 160, FONT.sub, family);
  const heads = Math.min(item.marks.length, MAX_ITEM_MARKS);
  const title =
    textWidth(label, FONT.label, family) + textWidth(sub, FONT.sub, family) + 64 + heads * 22;
  const w = Math.ceil(Math.max(iw + 2 * PAD, title));
  const h = Math.ceil(HEADER + ih + 2 * PAD);
  const ox = (w - iw) / 2;
  const oy = HEADER + PAD;
  const across = lr ? [oy, h] : [ox, w];
  const port = (at) => (at === null ? 0 : across[0] + at - across[1] / 2);
  return { open: true, label, sub, w, h, ox, oy, inX: port(inside.in), outX: port(inside.out), inside };
}

/**
 * Lays out `root` and every open group below it, innermost first, and puts them together.
 * Returns `boxes` (by item id: place and size on the sheet), `edges` and the size.
 */
async function composePicture(index, layouter, root, opened, lr, family) {
  const build = async (id) => {
    const item = index.items.get(id);
    if (!item.children || (id !== root && !opened.has(id))) {
      return { key: id, box: measureItem(index, item, lr, family), parts: null };
    }
    const parts = [];
    for (const child of item.children) parts.push(await build(child));
    const sized = parts.map(({ box }, i) => {
      const [inX, outX] = box.open ? [box.inX, box.outX] : [0, 0];
      const size = lr ? [box.h, box.w] : [box.w, box.h];
      return [item.children[i], ...size, inX, outX];
    });
    const { edges, ins, outs } = index.inner.get(id);
    const order = new Map(item.children.map((c, i) => [c, i]));
    const spec = {
      gap: lr ? 16 : 24, rankGap: lr ? 44 : 30, nodes: sized,
      edges: [...edges.keys()].map((key) => {
        const [a, b] = key.split("\n");
        return [key, a, b, order.get(a) >= order.get(b)];
      }),
      ins: [...ins.keys()], outs: [...outs.keys()],
    };
    const key = `${id}|${lr ? "lr" : "tb"}|(${parts.map((p) => (p.parts ? p.key : "")).join(",")})`;
    const inside = await layouter.layout(key, spec);
    return { key, box: measureOpen(item, inside, lr, family), parts };
  };
  const top = await build(root);
  const picture = { boxes: new Map(), edges: [], w: top.box.w, h: top.box.h, lr };
  place(index, picture, root, top, 0, 0);
  return picture;
}

/** Puts a laid-out group on the sheet at (x, y), and all that it holds. */
function place(index, picture, id, built, x, y) {
  const { box, parts } = built;
  picture.boxes.set(id, { ...box, id, x, y });
  if (!parts) return;
  const { inside, ox, oy } = box;
  const { lr } = picture;
  const item = index.items.get(id);
  const onSheet = ([px, py]) => (lr ? [x + ox + py, y + oy + px] : [x + ox + px, y + oy + py]);
  item.children.forEach((child, i) => {
    const [cx, cy] = onSheet(inside.pos[child]);
    place(index, picture, child, parts[i], cx - parts[i].box.w / 2, cy - parts[i].box.h / 2);
  });
  const { edges, ins, outs } = index.inner.get(id);
  const isOpen = (child) => Boolean(picture.boxes.get(child).open);
  for (const [key, list] of edges) {
    const [a, b] = key.split("\n");
    const points = a === b ? null : inside.edges[key].map(onSheet);
    const back = list.some((e) => index.edges[e][2]);
    picture.edges.push({ list, points, from: a, to: b, back, arrow: !isOpen(b) });
  }
  for (const [child, list] of ins) {
    const points = [[inside.in, -PAD], ...inside.ins[child]].map(onSheet);
    picture.edges.push({ list, points, from: null, to: child, back: false, arrow: !isOpen(child) });
  }
  for (const [child, list] of outs) {
    const points = [...inside.outs[child], [inside.out, inside.h + PAD]].map(onSheet);
    picture.edges.push({ list, points, from: child, to: null, back: false, arrow: false });
  }
}
