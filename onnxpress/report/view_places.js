"use strict";
// Where everything is: rows of a graph from top to bottom, opened graphs inside of their boxes.
const ROW = 46, BETWEEN = 40, PAD = 14, TITLE = 22, BAND = 30, CONTEXT = 2, LEAST_FOLDED = 4;

const rowsOf = (graph) => graph.boxes.reduce((most, box) => Math.max(most, box.row), -1) + 1;

// Rows that nothing changed in, away from those where something did: [first, last] of each run.
function unchangedRuns(graph) {
  const rows = rowsOf(graph);
  const busy = Array(rows).fill(false);
  for (const box of graph.boxes) {
    if (box.status === "same") continue;
    for (let row = box.row - CONTEXT; row <= box.row + CONTEXT; row += 1)
      if (row >= 0 && row < rows) busy[row] = true;
  }
  const runs = [];
  for (let row = 0; row < rows; row += 1) {
    if (busy[row]) continue;
    let last = row;
    while (last + 1 < rows && !busy[last + 1]) last += 1;
    if (last - row + 1 >= LEAST_FOLDED) runs.push([row, last]);
    row = last;
  }
  return runs;
}

// `shown`: {graphs, opened: Set of "graph:box", folding, unfolded: Set of "graph:row"}.
function placed(number, shown) {
  const graph = shown.graphs[number];
  const sizes = graph.boxes.map((box, at) => sizeOf(box, number, at, shown));
  const rows = rowsOf(graph);
  const [tops, bottoms, bands, height] = verticals(graph, number, rows, sizes, shown);
  const [xs, bends, width] = horizontals(graph, rows, sizes);
  const boxes = graph.boxes.map((box, at) => ({
    box, at, graph: number,
    x: xs[at] - sizes[at].width / 2, y: tops[box.row],
    width: sizes[at].width, height: sizes[at].height, inner: sizes[at].inner,
    folded: bands.some(([first, last]) => box.row >= first && box.row <= last),
  }));
  return { number, graph, boxes, bends, tops, bottoms, bands, width, height };
}

function sizeOf(box, number, at, shown) {
  if (!box.inner.length || !shown.opened.has(`${number}:${at}`))
    return { width: box.width, height: ROW, inner: [] };
  let x = PAD, height = 0;
  const inner = box.inner.map(([name, inside]) => {
    const one = placed(inside, shown);
    const found = { name, x, y: ROW + TITLE, placed: one };
    x += Math.max(one.width, 8 * name.length) + 2 * PAD;
    height = Math.max(height, one.height);
    return found;
  });
  return { width: Math.max(x - PAD, box.width), height: ROW + TITLE + height + PAD, inner };
}

function verticals(graph, number, rows, sizes, shown) {
  const heights = Array(rows).fill(ROW);
  graph.boxes.forEach((box, at) => { heights[box.row] = Math.max(heights[box.row], sizes[at].height); });
  const runs = shown.folding ? unchangedRuns(graph) : [];
  const bands = runs.filter(([first]) => !shown.unfolded.has(`${number}:${first}`));
  const tops = [], bottoms = [];
  let y = PAD;
  for (let row = 0; row < rows; row += 1) {
    const band = bands.find(([first]) => first === row);
    if (band) {
      for (let inside = row; inside <= band[1]; inside += 1) { tops.push(y); bottoms.push(y + BAND); }
      y += BAND + BETWEEN;
      row = band[1];
    } else {
      tops.push(y);
      bottoms.push(y + heights[row]);
      y += heights[row] + BETWEEN;
    }
  }
  return [tops, bottoms, bands, y - BETWEEN + PAD + 14];
}

// An opened box pushes what is beside it aside, half to the left and half to the right.
function horizontals(graph, rows, sizes) {
  const items = Array.from({ length: rows }, () => []);
  const bends = graph.nets.map((net) => net.bends.slice());
  const xs = graph.boxes.map((box) => box.x);
  graph.boxes.forEach((box, at) =>
    items[box.row].push({ x: box.x, more: sizes[at].width - box.width, set: (x) => { xs[at] = x; } }));
  graph.nets.forEach((net, n) => {
    const first = graph.boxes[net.from].row + 1;
    net.bends.forEach((x, at) => items[first + at].push({ x, more: 0, set: (to) => { bends[n][at] = to; } }));
  });
  let left = 0, right = graph.width;
  for (const row of items) {
    const all = row.reduce((sum, item) => sum + item.more, 0);
    if (!all) continue;
    row.sort((a, b) => a.x - b.x);
    let shift = -all / 2;
    for (const item of row) {
      item.set(item.x + shift + item.more / 2);
      shift += item.more;
    }
    left = Math.min(left, -all / 2);
    right = Math.max(right, graph.width + all / 2);
  }
  const by = PAD - left;
  return [xs.map((x) => x + by), bends.map((chain) => chain.map((x) => x + by)), right - left + 2 * PAD];
}

// A tensor's way as a path: through its bends, and from them to all that is near.
function wayOf(net, n, whole) {
  const { graph, boxes, bends, tops, bottoms } = whole;
  const source = boxes[net.from], first = source.box.row + 1;
  const points = [[source.x + source.width / 2, source.folded ? bottoms[source.box.row] : source.y + source.height]];
  const parts = [];
  const curve = ([x, y], [to, down]) => `M${x} ${y}C${x} ${(y + down) / 2} ${to} ${(y + down) / 2} ${to} ${down}`;
  bends[n].forEach((x, at) => {
    const row = first + at, before = points[points.length - 1];
    // Rows of one band are one place.
    if (tops[row] > before[1]) parts.push(`${curve(before, [x, tops[row]])}V${bottoms[row]}`);
    points.push([x, bottoms[row]]);
  });
  const far = new Set(net.far);
  for (const target of net.to) {
    const box = boxes[target], from = points[graph.boxes[target].row - first];
    if (far.has(target) || !from) continue;
    if (box.y > from[1]) parts.push(curve(from, [box.x + box.width / 2, box.y]));
  }
  return parts.join("");
}
