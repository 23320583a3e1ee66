// What is around the panes: search, what is told of the chosen node, keys.
const found = JSON.parse(document.getElementById("document").textContent);
const two = found.models.length === 2;
const names = two ? ["original", "other"] : ["model"];
const FOLDED_ABOVE = 60, LISTED = 100;
let chosen = null;

const boxOf = ([side, graph, at]) => found.models[side].graphs[graph].boxes[at];
const titled = (box) => [box.op, box.name].filter(Boolean).join(" ");

const told = {
  name: (side) => (two ? `${names[side]} (${found.models[side].source})` : found.models[0].source),
  select(side, graph, at, { move = false } = {}) {
    chosen = [side, graph, at];
    const box = boxOf(chosen);
    panes.forEach((pane) => { pane.selected = null; });
    panes[side].selected = `${graph}:${at}`;
    if (move) panes[side].reveal(graph, at);
    if (two && box.other) {
      const other = panes[1 - side];
      other.selected = box.other.join(":");
      other.reveal(...box.other);
    }
    panes.forEach((pane) => pane.drawSoon());
    show(side);
    describe();
  },
};

const panes = found.models.map((model, side) => new Pane(model, side, told));
const holder = document.getElementById("view");
const search = element("input", { id: "search", type: "search", autocomplete: "off", spellcheck: "false" });
const kinds = element("select", { id: "kinds" },
  element("option", { value: "all" }, "all nodes"),
  two ? element("option", { value: "changed" }, "changed, added, removed") : null,
  found.measured ? element("option", { value: "error" }, "by the error they add") : null);
const hits = element("ul", { class: "hits", "aria-label": "Nodes found" });
const count = element("output", { for: "search", "aria-live": "polite" });
const about = element("section", { class: "about", "aria-live": "polite", "aria-label": "The chosen node" },
  element("p", { class: "note" }, "Choose a node to see what is in it. Keys: arrows go along the graph, Enter opens what is inside, n and p go to the next and previous change, / searches, + and − zoom."));
const fold = element("input", { id: "fold", type: "checkbox" });
const tabs = found.models.map((model, side) =>
  element("button", { type: "button", class: "tab", "aria-pressed": String(side === 0), onclick: () => show(side) }, names[side]));

function show(side) {
  holder.dataset.side = side;
  tabs.forEach((tab, at) => tab.setAttribute("aria-pressed", String(at === side)));
  panes[side].drawSoon();
}

function everyBox() {
  return found.models.flatMap((model, side) => model.graphs.flatMap((graph, number) =>
    graph.boxes.map((box, at) => ({ box, side, number, at }))));
}
const boxes = everyBox();

function matching() {
  const asked = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = ({ box }) => {
    const text = [box.op, box.name, box.note, ...box.inputs.flat(), ...box.outputs.flat()].join(" ").toLowerCase();
    return asked.every((word) => text.includes(word));
  };
  let hit = boxes.filter(fits);
  // What is the same in both is listed once.
  if (kinds.value === "changed")
    hit = hit.filter(({ box, side }) => box.status !== "same" && !(side === 1 && box.other));
  else if (two) hit = hit.filter(({ box, side }) => !(side === 1 && box.other));
  if (kinds.value === "error")
    hit = hit.filter(({ box }) => box.error).sort((a, b) => b.box.error.noise - a.box.error.noise);
  return hit;
}

function list() {
  const hit = matching();
  count.textContent = hit.length > LISTED ? `${hit.length.toLocaleString("en")} found, the first ${LISTED} shown` : `${hit.length} found`;
  hits.replaceChildren(...hit.slice(0, LISTED).map(({ box, side, number, at }) => {
    const error = kinds.value === "error" ? ` adds ${box.error.adds}` : "";
    return element("li", {}, element("button", { type: "button", class: box.status ?? "same",
      onclick: () => told.select(side, number, at, { move: true }) },
      `${SIGN[box.status] ?? ""} ${titled(box)}${error}`.trim()));
  }));
}

function step(by) {
  const list = boxes.filter(({ box, side }) => box.status && box.status !== "same" && !(side === 1 && box.other));
  if (!list.length) return;
  const now = chosen && list.findIndex((one) => one.side === chosen[0] && one.number === chosen[1] && one.at === chosen[2]);
  const place = now == null || now < 0 ? (by > 0 ? 0 : list.length - 1) : (now + by + list.length) % list.length;
  const { side, number, at } = list[place];
  told.select(side, number, at, { move: true });
}

function describe() {
  const box = boxOf(chosen), [side] = chosen;
  const other = box.other ? boxOf([1 - side, ...box.other]) : null;
  const pair = side === 0 ? [box, other] : [other, box];
  const parts = [element("h2", {}, titled(box))];
  if (box.status) parts.push(element("p", { class: `status ${box.status}` }, {
    same: "the same in both", changed: "changed", added: "added: not in the original", removed: "removed: not in the other" }[box.status]));
  if (other && titled(other) !== titled(box)) parts.push(element("p", {}, `its counterpart is ${titled(other)}`));
  if (box.why.length) parts.push(element("ul", {}, ...box.why.map((line) => element("li", {}, line))));
  if (box.error) parts.push(element("p", {}, `Its tensor against the original's: ${box.error.has}; the node itself adds: ${box.error.adds}.`));
  if (box.inner.length) parts.push(element("button", { type: "button",
    onclick: () => panes[side].toggle(chosen[1], chosen[2]) }, "open or close what is inside"));
  parts.push(...attributes(pair), ...tensors(box), ...constants(pair));
  about.replaceChildren(...parts);
}

function attributes(pair) {
  const [one, other] = pair.map((box) => new Map(box?.attributes ?? []));
  const both = pair[0] && pair[1] && pair[0].op === pair[1].op;
  const sides = both ? [one, other] : [chosen[0] === 0 ? one : other];
  const all = [...new Set(sides.flatMap((side) => [...side.keys()]))];
  if (!all.length) return [];
  const rows = all.map((name) => element("tr", { class: both && one.get(name) !== other.get(name) ? "differs" : null },
    element("th", { scope: "row" }, name), ...sides.map((side) => element("td", {}, side.get(name) ?? "by default"))));
  const heads = ["attribute", ...(both ? names : ["value"])].map((text) => element("th", { scope: "col" }, text));
  return [element("h3", {}, "Attributes"), element("table", {}, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows))];
}

function tensors(box) {
  const [side, graph, at] = chosen, { nets } = found.models[side].graphs[graph];
  const go = (place) => element("button", { type: "button", onclick: () => told.select(side, graph, place, { move: true }) },
    titled(found.models[side].graphs[graph].boxes[place]) || "unnamed");
  const parts = [];
  const lines = (list, ends) => list.map(([name, type]) => element("li", {}, `${name} `, element("code", {}, type), ...ends(name)));
  const from = (name) => nets.filter((net) => net.name === name && net.to.includes(at)).map((net) => go(net.from));
  const to = (name) => nets.filter((net) => net.name === name && net.from === at).flatMap((net) => net.to.map(go));
  if (box.inputs.length) parts.push(element("h3", {}, "Reads"), element("ul", { class: "tensors" }, ...lines(box.inputs, from)));
  if (box.outputs.length) parts.push(element("h3", {}, "Gives"), element("ul", { class: "tensors" }, ...lines(box.outputs, to)));
  return parts;
}

function constants(pair) {
  const parts = [];
  pair.forEach((box, side) => box?.constants.forEach(([name, place, through]) => {
    const one = place == null ? null : found.models[side].constants[place];
    const made = through.length ? `, through ${through.join(", ")}` : "";
    const range = one && one.low != null ? `${number(one.low)} to ${number(one.high)}${one.sampled ? ` in ${one.sampled.toLocaleString("en")} of them` : ""}` : "";
    const zeros = one?.zeros ? `; ${(100 * one.zeros).toFixed(1)}% zeros` : "";
    parts.push(element("li", {}, two ? element("b", {}, `${names[side]}: `) : null, name,
      element("div", {}, element("code", {}, one?.type ?? "not known"), made),
      one ? element("div", { class: "note" }, one.values ? `= ${one.values}` : `${range}${zeros}`) : null,
      one?.counts ? histogram(one) : null));
  }));
  return parts.length ? [element("h3", {}, "Constants"), element("ul", { class: "constants" }, ...parts)] : [];
}

const number = (value) => Number(value.toPrecision(4)).toString();

function histogram({ counts, low, high }) {
  const most = Math.max(...counts), wide = 240 / counts.length;
  return draw("svg", { class: "histogram", viewBox: "0 0 240 60", role: "img",
    "aria-label": `Histogram from ${number(low)} to ${number(high)}, most values in bin ${counts.indexOf(most) + 1} of ${counts.length}` },
    ...counts.map((value, at) => draw("rect", { x: at * wide, width: wide - 1, y: 58 - (56 * value) / most, height: (56 * value) / most })),
    draw("path", { class: "axis", d: "M0 59H240" }));
}

function keys(event) {
  const typing = event.target.matches("input, select");
  if (event.key === "Escape" && typing) { panes[chosen?.[0] ?? 0].holder.focus(); return; }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const side = Math.max(0, panes.findIndex((pane) => pane.holder === document.activeElement));
  if (event.key === "/") { event.preventDefault(); search.focus(); }
  else if (event.key === "n" || event.key === "p") step(event.key === "n" ? 1 : -1);
  else if (event.key === "+" || event.key === "-") panes.forEach((pane) => pane.zoomTo(pane.zoom * (event.key === "+" ? 1.25 : 0.8)));
  else if (panes[side].holder === document.activeElement) alongGraph(event, side);
}

function alongGraph(event, side) {
  if (!/^(Arrow|Enter|Home|End)/.test(event.key)) return;
  event.preventDefault();
  const own = chosen && chosen[0] === side ? chosen : null;
  const graph = own?.[1] ?? 0, last = found.models[side].graphs[graph].boxes.length - 1;
  if (event.key === "Enter") { if (own) panes[side].toggle(graph, own[2]); return; }
  const to = !own || event.key === "Home" ? 0 : event.key === "End" ? last : panes[side].next(graph, own[2], event.key);
  if (to != null && last >= 0) told.select(side, graph, to, { move: true });
}

function folded() {
  panes.forEach((pane) => { pane.shown.folding = fold.checked; pane.shown.unfolded.clear(); pane.place(); });
}

function start() {
  const changed = two && boxes.some(({ box }) => box.status !== "same");
  const tools = element("div", { class: "tools" },
    two ? element("div", { class: "tabs", role: "group", "aria-label": "Which model is shown where one fits" }, ...tabs) : null,
    element("button", { type: "button", "aria-label": "smaller", onclick: () => panes.forEach((pane) => pane.zoomTo(pane.zoom * 0.8)) }, "−"),
    element("button", { type: "button", "aria-label": "larger", onclick: () => panes.forEach((pane) => pane.zoomTo(pane.zoom * 1.25)) }, "+"),
    element("button", { type: "button", onclick: () => panes.forEach((pane) => pane.fit()) }, "fit width"),
    two ? element("button", { type: "button", onclick: () => step(-1) }, "previous change") : null,
    two ? element("button", { type: "button", onclick: () => step(1) }, "next change") : null,
    two ? element("span", { class: "option" }, fold, element("label", { for: "fold" }, "fold what is the same")) : null);
  const side = element("div", { class: "side" },
    element("div", { class: "finder" }, element("label", { for: "search" }, "Search nodes and tensors"), search,
      element("label", { for: "kinds", class: "hidden" }, "Which nodes"), kinds, count, hits), about);
  panes.forEach((pane, at) => pane.element.prepend(element("div", { class: "of" }, told.name(at))));
  holder.append(tools, element("div", { class: "panes" }, ...panes.map((pane) => pane.element)), side);
  search.addEventListener("input", list);
  kinds.addEventListener("change", list);
  fold.addEventListener("change", folded);
  addEventListener("keydown", keys);
  fold.checked = changed && Math.max(...found.models.map((model) => model.nodes)) > FOLDED_ABOVE;
  if (changed) kinds.value = "changed";
  folded();
  show(0);
  list();
  panes.forEach((pane) => { pane.holder.scrollLeft = (pane.sheet.offsetWidth - pane.holder.clientWidth) / 2; });
}

start();
