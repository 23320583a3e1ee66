"use strict";
// The page is complete without this: it adds sorting, a search, words under charts, and copying.
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function sortable(table) {
  const body = table.tBodies[0];
  const headings = all("thead th", table);
  headings.forEach((heading, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const of = (row) => row.cells[place];
      const numeric = heading.classList.contains("number");
      const number = (row) => (of(row).dataset.order ? Number(of(row).dataset.order) : -Infinity);
      const rows = [...body.rows].sort((a, b) =>
        numeric
          ? number(a) - number(b)
          : of(a).textContent.localeCompare(of(b).textContent, "en", { numeric: true }),
      );
      body.append(...(down ? rows.reverse() : rows));
    });
  });
}

function searchable(holder) {
  const filter = holder.querySelector(".filter");
  const input = filter.querySelector("input");
  const count = filter.querySelector("output");
  const rows = all("tbody tr", holder);
  const told = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown`;
  };
  input.addEventListener("input", told);
  filter.hidden = false;
  told();
}

function telling(figure) {
  const told = figure.querySelector(".told");
  for (const plot of all(".plot", figure)) {
    const marks = all("[data-words]", plot);
    const tell = (mark) => { told.textContent = mark.dataset.words; };
    marks.forEach((mark) => {
      mark.addEventListener("mouseenter", () => tell(mark));
      mark.addEventListener("focus", () => tell(mark));
      mark.addEventListener("click", () => tell(mark));
    });
    // One stop for the Tab key; the arrows go on from there, from left to right.
    const order = [...marks].sort((a, b) => Number(a.dataset.x) - Number(b.dataset.x));
    const last = order.indexOf(plot.querySelector(".taken")) ;
    let current = last < 0 ? order.length - 1 : last;
    if (!order.length) continue;
    order.forEach((mark, place) => mark.setAttribute("tabindex", place === current ? "0" : "-1"));
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const place = { Home: 0, End: order.length - 1 }[event.key] ?? current + (step ?? 0);
      if (place === current || place < 0 || place >= order.length) return;
      event.preventDefault();
      order[current].setAttribute("tabindex", "-1");
      current = place;
      order[current].setAttribute("tabindex", "0");
      order[current].focus();
    });
    plot.addEventListener("focusin", (event) => {
      const place = order.indexOf(event.target);
      if (place < 0) return;
      order[current].setAttribute("tabindex", "-1");
      current = place;
      order[current].setAttribute("tabindex", "0");
    });
  }
}

function copying(button) {
  const source = document.getElementById(button.dataset.of);
  button.hidden = false;
  button.addEventListener("click", async () => {
    let done = false;
    try {
      await navigator.clipboard.writeText(source.textContent);
      done = true;
    } catch {
      getSelection().selectAllChildren(source);
      done = document.execCommand("copy");
    }
    button.textContent = done ? "copied" : "selected: press Ctrl-C";
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  });
}

all(".searchable").forEach((holder) => { sortable(holder.querySelector("table")); searchable(holder); });
all("figure.telling").forEach(telling);
all("button.copy").forEach(copying);
let closed = [];
addEventListener("beforeprint", () => {
  closed = all("details:not([open])");
  closed.forEach((one) => { one.open = true; });
});
addEventListener("afterprint", () => closed.forEach((one) => { one.open = false; }));
