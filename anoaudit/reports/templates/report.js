(() => {
  "use strict";
  const table = document.getElementById("list");
  if (!table) return;
  const FIRST = 50;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const find = (id) => document.getElementById(id);
  const filter = find("filter"), flagged = find("flagged"), all = find("all"), copy = find("copy"), status = find("status");
  let order = rows, open = rows.length <= FIRST;

  const matching = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    return order.filter((row) => (!flagged?.checked || "f" in row.dataset) && words.every((w) => texts.get(row).includes(w)));
  };
  const show = () => {
    const found = matching();
    const limited = !open && !filter.value;
    const seen = new Set(limited ? found.slice(0, FIRST) : found);
    for (const row of rows) row.hidden = !seen.has(row);
    all.hidden = !limited || found.length <= FIRST;
    all.textContent = `Show all ${found.length}`;
    copy.textContent = found.length === 1 ? "Copy 1 id" : `Copy ${found.length} ids`;
    copy.disabled = found.length === 0;
    status.textContent = `${seen.size} of ${rows.length} shown`;
  };

  const value = (row, at) => {
    const cell = row.cells[at];
    if (!("v" in cell.dataset)) return cell.textContent;
    return cell.dataset.v === "" ? null : Number(cell.dataset.v);
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  for (const button of table.tHead.querySelectorAll("button")) {
    const head = button.parentElement;
    button.addEventListener("click", () => {
      const old = head.getAttribute("aria-sort");
      const first = head.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const way = old === first ? other : first;
      for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way);
      const keyed = rows.map((row) => [value(row, head.cellIndex), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);  // what is missing stands last, either way
        return way === "ascending" ? compare(a, b) : compare(b, a);
      });
      order = keyed.map(([, row]) => row);
      body.append(...order);
      show();
    });
  }

  const say = (text) => { status.textContent = text; };
  const copyOld = (text) => {
    const area = document.createElement("textarea");
    area.value = text;
    area.setAttribute("readonly", "");
    area.className = "unseen";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    copy.focus();
    return done;
  };
  copy.addEventListener("click", async () => {
    const ids = matching().map((row) => row.dataset.id);
    const text = ids.join("\n") + "\n";
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch {
      done = copyOld(text);
    }
    say(done ? `${ids.length} copied` : "The browser refused; select the ids by hand");
  });
  filter.addEventListener("input", show);
  flagged?.addEventListener("change", show);
  all.addEventListener("click", () => {
    open = true;
    show();
    filter.focus();
  });
  find("controls").hidden = false;
  show();
})();
