"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = (row) => row.cells[column].textContent;
      const order = (a, b) => {
        const x = Number(text(a)), y = Number(text(b));
        const step = Number.isNaN(x) || Number.isNaN(y) ? text(b).localeCompare(text(a)) : y - x;
        return down ? step : -step;
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
