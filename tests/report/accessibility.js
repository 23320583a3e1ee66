// What keeps people with a keyboard, a screen reader or weak eyes out, as sentences.
// After the rules of WCAG 2.2 of the same names: contrast 1.4.3, names 4.1.2, headings 1.3.1.
(() => {
  const faults = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  const shown = (element) => element.checkVisibility({ visibilityProperty: true });
  const told = (element) => element.outerHTML.slice(0, 120);
  const check = (right, what, element) => {
    if (!right) faults.push(element ? `${what}: ${told(element)}` : what);
  };
  check(document.documentElement.lang, "no language");
  check(document.title.trim(), "no title");
  check(all("main").length === 1, "not one main");
  check(all("h1").length === 1, "not one h1");
  let level = 0;
  for (const heading of all("h1, h2, h3, h4, h5, h6")) {
    const own = Number(heading.tagName[1]);
    check(own <= level + 1, "a heading skips a level", heading);
    check(heading.textContent.trim(), "an empty heading", heading);
    level = own;
  }
  const ids = all("[id]").map((element) => element.id);
  check(new Set(ids).size === ids.length, "an id twice");
  for (const image of all("img")) check(image.alt.trim(), "a picture without words", image);
  for (const drawing of all("svg"))
    check(
      drawing.getAttribute("aria-hidden") === "true" ||
        (["img", "group"].includes(drawing.getAttribute("role")) && drawing.getAttribute("aria-label")),
      "a drawing without a role and words", drawing);
  for (const input of all("input"))
    check(input.labels.length && input.labels[0].textContent.trim(), "a field without label", input);
  for (const button of all("button, a, summary"))
    check((button.getAttribute("aria-label") ?? button.textContent).trim(), "nothing to call it by", button);
  for (const link of all("a[href^='#']"))
    check(document.querySelector(link.getAttribute("href")), "a link to nowhere", link);
  for (const heading of all("table:not(.bars) thead th")) {
    check(heading.scope === "col", "a heading of no column", heading);
    check(heading.textContent.trim(), "an empty heading of a column", heading);
  }
  for (const table of all("table:not(.bars)")) check(table.tHead, "a table without headings", table);
  check(!all("[tabindex]").some((element) => element.tabIndex > 0), "an order of its own for the Tab key");
  for (const part of all(".wide"))
    if (part.scrollWidth > part.clientWidth) check(part.tabIndex === 0, "scrolls without a keyboard", part);
  check(document.documentElement.scrollWidth <= innerWidth, "the page is wider than the window");

  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((value, i) => a * value + (1 - a) * below[i]);
  const light = (colour) => {
    const [r, g, b] = colour.map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const chain = [];
    for (let one = element; one; one = one.parentElement) chain.unshift(getComputedStyle(one).backgroundColor);
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    return chain.reduce((below, colour) => over(numbers(colour), below), dark ? [18, 18, 18] : [255, 255, 255]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !shown(element) || element.closest("script, style, title")) continue;
    const style = getComputedStyle(element);
    const drawn = element instanceof SVGElement;
    const ground = behind(element);
    const colour = over(numbers(drawn ? style.fill : style.color), ground);
    const [more, less] = [light(colour), light(ground)].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (more + 0.05) / (less + 0.05);
    const key = `${colour} ${ground} ${large}`;
    if (ratio < (large ? 3 : 4.5) && !seen.has(key)) {
      seen.add(key);
      faults.push(`contrast ${ratio.toFixed(2)}: ${told(element)}`);
    }
    check(drawn || size >= 12, `letters of ${size} pixels`, element);
  }
  return faults;
})()
