"use strict";
for (const gallery of document.querySelectorAll(".gallery")) {
  const keys = JSON.parse(gallery.dataset.keys);
  const list = gallery.querySelector("ol"), items = [...list.children];
  const names = items.map((item) => item.querySelector("h4").textContent);
  const form = gallery.querySelector("form"), told = gallery.querySelector(".told");
  const select = form.querySelector("select"), button = form.querySelector("button");
  let reversed = false;

  const order = () => {
    const { label, values, texts } = keys[select.selectedIndex];
    const words = values.some((value) => typeof value === "string");
    const up = words !== reversed;
    // What is not known comes last either way; equals stay as they were at first.
    const ranks = [...items.keys()].sort((i, j) => {
      const a = values[i], b = values[j];
      if (a === null || b === null) return (a === null) - (b === null);
      return (up ? 1 : -1) * (words ? a.localeCompare(b) : a - b);
    });
    list.append(...ranks.map((n) => items[n]));
    items.forEach((item, n) => {
      item.querySelector(".value").textContent = texts[n] && `${label}: ${texts[n]}`;
    });
    const said = (n) => (texts[n] ? `${names[n]} (${texts[n]})` : names[n]);
    const way = words ? (up ? "from A to Z" : "from Z to A") : up ? "lowest first" : "highest first";
    told.textContent = `Ordered by ${label}, ${way}: from ${said(ranks[0])} to ${said(ranks[ranks.length - 1])}.`;
  };

  select.addEventListener("change", () => {
    reversed = false;
    order();
  });
  button.addEventListener("click", () => {
    reversed = !reversed;
    order();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
}
