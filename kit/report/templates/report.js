"use strict";
(function () {
  const all = Array.from(document.querySelectorAll("table.cells tbody"));
  const find = document.getElementById("find"), only = document.getElementById("only");
  const shown = document.getElementById("shown");
  const cell = (body, i) => body.rows[0].cells[i].textContent.trim();
  const verdict = (body) => cell(body, body.rows[0].cells.length - 1).replace(/ \(.*/, "");
  function filter() {
    const text = find.value.toLowerCase(), word = only.value.replace(/-/g, " ");
    let count = 0;
    for (const body of all) {
      const name = body.textContent.toLowerCase();
      body.hidden = !(name.includes(text) && (!word || verdict(body) === word));
      count += !body.hidden;
    }
    shown.textContent = text || word ? count + " of " + all.length + " lines" : "";
  }
  function key(body, i) {
    const text = cell(body, i).replace(/^\[/, "").replace(/\u2212/g, "-");
    const value = parseFloat(text);
    return Number.isNaN(value) ? text : value;
  }
  function sort(head, i) {
    const table = head.closest("table"), bodies = Array.from(table.tBodies);
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = (a, b) => typeof a === typeof b ? (a < b ? -1 : +(a > b)) : typeof a === "number" ? -1 : 1;
    const keyed = bodies.map((body) => [key(body, i), body]);
    keyed.sort((a, b) => (down ? -1 : 1) * order(a[0], b[0]));
    table.append(...keyed.map((pair) => pair[1]));
  }
  for (const head of document.querySelectorAll("table.cells thead")) {
    Array.from(head.rows[0].cells).forEach((column, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...column.childNodes);
      button.addEventListener("click", () => sort(column, i));
      column.append(button);
    });
  }
  const tools = document.getElementById("tools");
  tools.hidden = all.length < 2;
  tools.addEventListener("submit", (event) => event.preventDefault());
  find.addEventListener("input", filter);
  only.addEventListener("change", filter);
})();
