// One model in a pane that scrolls: only what is seen is drawn.
const SVG = "http://www.w3.org/2000/svg", AROUND = 300;

function draw(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {}))
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  made.append(...children.filter((child) => child != null));
  return made;
}

const shortened = (text, width, letter) => {
  const most = Math.floor((width - 16) / letter);
  return text.length <= most ? text : `${text.slice(0, Math.max(1, most - 1))}…`;
};
const SIGN = { added: "+", removed: "−", changed: "≠" };

class Pane {
  constructor(model, side, told) {
    this.model = model; this.side = side; this.told = told;
    this.zoom = 1; this.selected = null;
    this.shown = { graphs: model.graphs, opened: new Set(), folding: false, unfolded: new Set() };
    this.svg = draw("svg", { class: "graph", role: "img" });
    this.sheet = element("div", { class: "sheet" }, this.svg);
    this.holder = element("div", { class: "scrolls", tabindex: "0", role: "group",
      "aria-label": `${told.name(side)}: arrow keys go from node to node, Enter opens what is inside one` }, this.sheet);
    this.marks = draw("svg", { class: "marks", "aria-hidden": "true", preserveAspectRatio: "none" });
    this.element = element("div", { class: "pane" }, this.holder, this.marks);
    this.holder.addEventListener("scroll", () => this.drawSoon(), { passive: true });
    this.holder.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.marks.addEventListener("click", (event) => this.toMark(event));
    new ResizeObserver(() => this.drawSoon()).observe(this.holder);
    this.parents = model.graphs.map(() => null);
    model.graphs.forEach((graph, number) => graph.boxes.forEach((box, at) => box.inner.forEach(([, inside]) => {
      this.parents[inside] ??= [number, at];
    })));
    this.place();
  }

  place() {
    this.whole = placed(0, this.shown);
    this.where = new Map();
    const note = (whole, x, y) => whole.boxes.forEach((one) => {
      const key = `${whole.number}:${one.at}`;
      if (!this.where.has(key)) this.where.set(key, { x: x + one.x, y: y + one.y, width: one.width, height: one.height });
      one.inner.forEach((inner) => note(inner.placed, x + one.x + inner.x, y + one.y + inner.y));
    });
    note(this.whole, 0, 0);
    this.svg.setAttribute("aria-label", `The graph of ${this.told.name(this.side)}, ${this.model.nodes} nodes`);
    this.size();
  }

  size() {
    this.sheet.style.width = `${Math.ceil(this.whole.width * this.zoom)}px`;
    this.sheet.style.height = `${Math.ceil(this.whole.height * this.zoom)}px`;
    this.markRows();
    this.drawSoon();
  }

  drawSoon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  draw() {
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.holder;
    if (!clientWidth) return;
    const wide = clientWidth + 2 * AROUND, high = clientHeight + 2 * AROUND;
    const left = Math.max(0, scrollLeft - AROUND), top = Math.max(0, scrollTop - AROUND);
    const width = Math.max(1, Math.min(wide, this.sheet.offsetWidth - left));
    const height = Math.max(1, Math.min(high, this.sheet.offsetHeight - top));
    Object.assign(this.svg.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    const z = this.zoom;
    this.svg.setAttribute("viewBox", `${left / z} ${top / z} ${width / z} ${height / z}`);
    const seen = { left: left / z, top: top / z, right: (left + width) / z, bottom: (top + height) / z, words: z > 0.3 };
    this.svg.replaceChildren(this.drawGraph(this.whole, seen));
  }

  drawGraph(whole, seen) {
    const layer = draw("g", {});
    whole.bands.forEach(([first, last]) => {
      const y = whole.tops[first];
      if (y > seen.bottom || y + BAND < seen.top) return;
      const inside = whole.boxes.filter(({ box }) => box.row >= first && box.row <= last && box.kind === "node").length;
      const middle = (Math.max(seen.left, 0) + Math.min(seen.right, whole.width)) / 2;
      const band = draw("g", { class: "band" }, draw("rect", { x: 0, y, width: whole.width, height: BAND }));
      if (seen.words) band.append(words(middle, y + BAND / 2 + 4, `${inside} nodes that are the same`, { "text-anchor": "middle" }));
      band.addEventListener("click", () => { this.shown.unfolded.add(`${whole.number}:${first}`); this.place(); });
      layer.append(band);
    });
    whole.graph.nets.forEach((net, n) => {
      const from = whole.boxes[net.from], rows = net.to.map((target) => whole.boxes[target].y);
      if (from.y > seen.bottom || Math.max(...rows) < seen.top) return;
      const ends = [net.from, ...net.to].map((at) => `${whole.number}:${at}`);
      const lit = this.selected && ends.includes(this.selected);
      const path = draw("path", { class: `net e${net.level ?? 0}${lit ? " lit" : ""}`, d: wayOf(net, n, whole) });
      if (seen.words) path.append(draw("title", {}, `${net.name} ${net.type}`));
      layer.append(path);
      if (lit) net.far.forEach((target) => layer.append(this.farWay(from, whole.boxes[target])));
    });
    whole.boxes.forEach((one) => {
      if (one.folded || one.y > seen.bottom || one.y + one.height < seen.top) return;
      if (one.x > seen.right || one.x + one.width < seen.left) return;
      layer.append(this.drawBox(one, whole, seen));
    });
    return layer;
  }

  farWay(from, to) {
    const x = from.x + from.width / 2, y = from.y + from.height, end = to.x + to.width / 2;
    return draw("path", { class: "net lit far", d: `M${x} ${y}C${x} ${y + 80} ${end} ${to.y - 80} ${end} ${to.y}` });
  }

  drawBox(one, whole, seen) {
    const { box } = one, key = `${whole.number}:${one.at}`;
    const chosen = key === this.selected;
    const made = draw("g", { class: `box ${box.kind} ${box.status ?? "same"}${chosen ? " chosen" : ""}`, "data-key": key,
      transform: `translate(${one.x} ${one.y})` });
    made.append(draw("rect", { width: one.width, height: one.height, rx: box.kind === "node" ? 5 : 20 }));
    if (seen.words) {
      const label = `${SIGN[box.status] ? `${SIGN[box.status]} ` : ""}${box.op}`;
      made.append(words(10, 19, shortened(label, one.width, 8.4), { class: "op" }));
      made.append(words(10, 36, shortened(box.note, one.width, 6.4), { class: "small" }));
      if (box.error && box.error.level && box.kind !== "output") made.append(words(one.width / 2 + 6, one.height + 14, box.error.has, { class: `small e${box.error.level}` }));
      if (box.inner.length) made.append(words(one.width - 10, 19, one.inner.length ? "▾" : "▸", { class: "op", "text-anchor": "end" }));
      made.append(draw("title", {}, [box.op, box.name, ...box.why].filter(Boolean).join("\n")));
    }
    for (const inner of one.inner) {
      if (seen.words) made.append(words(inner.x + PAD, inner.y - 6, inner.name || inner.placed.graph.title, { class: "small" }));
      const x = one.x + inner.x, y = one.y + inner.y;
      const part = { left: seen.left - x, right: seen.right - x, top: seen.top - y, bottom: seen.bottom - y, words: seen.words };
      const group = this.drawGraph(inner.placed, part);
      group.setAttribute("transform", `translate(${inner.x} ${inner.y})`);
      made.append(group);
    }
    made.addEventListener("click", (event) => {
      event.stopPropagation();
      this.told.select(this.side, whole.number, one.at);
      if (event.detail === 2) this.toggle(whole.number, one.at);
    });
    return made;
  }

  // A strip beside the pane, as tall as it: where something changed or differs.
  markRows() {
    const height = this.whole.height;
    this.marks.setAttribute("viewBox", `0 0 10 ${height}`);
    this.marks.replaceChildren();
    for (const one of this.whole.boxes) {
      const marked = one.box.status && one.box.status !== "same" ? one.box.status : "";
      const level = one.box.error?.level > 1 ? `e${one.box.error.level}` : "";
      if (marked) this.marks.append(draw("rect", { class: marked, x: 0, y: one.y, width: 5, height: Math.max(ROW, height / 250) }));
      if (level) this.marks.append(draw("rect", { class: level, x: 5, y: one.y, width: 5, height: Math.max(ROW, height / 250) }));
    }
  }

  toMark(event) {
    const box = this.marks.getBoundingClientRect();
    const y = ((event.clientY - box.top) / box.height) * this.sheet.offsetHeight;
    this.holder.scrollTop = y - this.holder.clientHeight / 2;
  }

  wheel(event) {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const box = this.holder.getBoundingClientRect();
    this.zoomTo(this.zoom * Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  }

  zoomTo(zoom, x = this.holder.clientWidth / 2, y = this.holder.clientHeight / 2) {
    const before = this.zoom;
    this.zoom = Math.min(2, Math.max(0.04, zoom));
    const [left, top] = [(this.holder.scrollLeft + x) / before, (this.holder.scrollTop + y) / before];
    this.size();
    this.holder.scrollLeft = left * this.zoom - x;
    this.holder.scrollTop = top * this.zoom - y;
  }

  fit() {
    this.zoomTo(Math.min(1, this.holder.clientWidth / this.whole.width));
    this.holder.scrollLeft = 0;
  }

  toggle(graph, at) {
    const box = this.model.graphs[graph].boxes[at], key = `${graph}:${at}`;
    if (!box.inner.length) return;
    if (!this.shown.opened.delete(key)) this.shown.opened.add(key);
    this.place();
    this.reveal(graph, at);
  }

  // Open what a box is inside of, and scroll to it.
  reveal(graph, at) {
    let changed = false;
    for (let inside = graph; this.parents[inside]; [inside] = this.parents[inside]) {
      const key = this.parents[inside].join(":");
      if (!this.shown.opened.has(key)) { this.shown.opened.add(key); changed = true; }
      if (this.unfold(...this.parents[inside])) changed = true;
    }
    if (this.unfold(graph, at)) changed = true;
    if (changed) this.place();
    const found = this.where.get(`${graph}:${at}`);
    if (!found) return;
    const { clientWidth, clientHeight } = this.holder;
    this.holder.scrollLeft = (found.x + found.width / 2) * this.zoom - clientWidth / 2;
    this.holder.scrollTop = found.y * this.zoom + Math.min(found.height * this.zoom, clientHeight) / 2 - clientHeight / 2;
    this.drawSoon();
  }

  unfold(graph, at) {
    if (!this.shown.folding) return false;
    const { row } = this.model.graphs[graph].boxes[at];
    const run = unchangedRuns(this.model.graphs[graph]).find(([first, last]) => first <= row && row <= last);
    if (!run || this.shown.unfolded.has(`${graph}:${run[0]}`)) return false;
    this.shown.unfolded.add(`${graph}:${run[0]}`);
    return true;
  }

  // The box an arrow key goes to: what the current one gives to or reads, or its neighbour.
  next(graph, at, key) {
    const { boxes, nets } = this.model.graphs[graph];
    const own = boxes[at];
    if (key === "ArrowDown") return nets.find((net) => net.from === at && net.to.length)?.to[0];
    if (key === "ArrowUp") return nets.find((net) => net.to.includes(at))?.from;
    const beside = boxes.map((box, place) => [box, place]).filter(([box]) => box.row === own.row).sort((a, b) => a[0].x - b[0].x);
    const place = beside.findIndex(([, found]) => found === at) + (key === "ArrowRight" ? 1 : -1);
    return beside[place]?.[1];
  }
}

function words(x, y, text, attributes) {
  return draw("text", { x, y, ...attributes }, text);
}
