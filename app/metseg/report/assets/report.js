"use strict";
// Sorting and filtering of the table of cases. Without this script everything is there, in the input's order.
const table = document.getElementById("table");
const rows = Array.from(table.tBodies[0].rows);
const headings = Array.from(table.tHead.rows[0].cells);
const field = (name) => document.getElementById(name);

function value(row, column, kind) {
  const text = row.cells[column].textContent.trim();
  if (kind === "text") return text;
  const number = Number.parseFloat(text);
  return Number.isNaN(number) ? Number.NEGATIVE_INFINITY : number;
}

function sortBy(column) {
  const heading = headings[column];
  const kind = heading.dataset.kind;
  const before = heading.getAttribute("aria-sort");
  // Numbers start with the largest: that is what one looks for.
  const next = before ? (before === "ascending" ? "descending" : "ascending") : (kind === "number" ? "descending" : "ascending");
  for (const other of headings) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", next);
  const sign = next === "ascending" ? 1 : -1;
  const keyed = rows.map((row, place) => ({ row, place, key: value(row, column, kind) }));
  const compare = kind === "number"
    ? (a, b) => (a.key === b.key ? 0 : a.key < b.key ? -1 : 1)
    : (a, b) => a.key.localeCompare(b.key, undefined, { numeric: true });
  keyed.sort((a, b) => sign * compare(a, b) || a.place - b.place);
  table.tBodies[0].append(...keyed.map((item) => item.row));
}

function filter() {
  const words = field("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const outcome = field("outcome").value;
  const flag = field("flag").value;
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const fits = words.every((word) => text.includes(word))
      && (!outcome || row.dataset.outcome === outcome)
      && (!flag || row.dataset.flags.split("|").includes(flag));
    row.hidden = !fits;
    shown += fits;
    document.getElementById(row.dataset.section).hidden = !fits && field("sections").checked;
  }
  field("count").textContent = `${shown} of ${rows.length} shown`;
}

headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => sortBy(column)));
for (const kind of ["input", "change"]) field("filters").addEventListener(kind, filter);
field("filters").addEventListener("submit", (event) => event.preventDefault());
// Pictures that were never scrolled to must be there on paper.
window.addEventListener("beforeprint", () => {
  for (const image of document.images) image.loading = "eager";
});
