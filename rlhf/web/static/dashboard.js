// The dashboard: versions beside each other while they serve. Names are set as text; a table that reads as before stays as it is.
"use strict";
(() => {
  const { $, call, el } = Desk;
  const EVERY_MS = 10000;
  const NBSP = "\u00a0"; // between a number and its unit, so that no line ends there
  const LINES = 4; // rows of an alias that have a line of their own in the plots: the busiest ones
  const WIDE = 300, HIGH = 92, FOOT = 16, SVG = $("shapes").namespaceURI;
  const percent = (x) => `${(100 * x).toFixed(x > 0 && x < 0.1 ? 1 : 0)}${NBSP}%`;
  const seconds = (s) => (s < 1 ? `${Math.round(1000 * s)}${NBSP}ms` : `${s.toFixed(s < 10 ? 2 : 0)}${NBSP}s`);
  const points = (x) => x.toFixed(2);
  const counted = (n, one, many) => `${n} ${n === 1 ? one : many}`;
  // Field of a row's figures, its head, how it is written.
  const COLUMNS = [["error_rate", "Errors", percent], ["latency_p50", "Latency, median", seconds], ["latency_p95", "Latency, 95th", seconds], ["satisfaction", "Satisfied", percent], ["reward", "Reward", points], ["refusal", "Refusals", percent]];
  const PLOTS = [["error_rate", "Errors", percent], ["latency_p95", "Latency, 95th", seconds], ["satisfaction", "Satisfied", percent], ["reward", "Reward", points]];
  let asked = 0;

  async function load() {
    const mine = ++asked;
    try {
      const found = await call("GET", `/api/dashboard?window=${$("window").value}&by=${$("by").value}`);
      if (mine !== asked) return; // another window was chosen meanwhile
      write($("problem"), "");
      show(found);
    } catch (error) {
      if (mine === asked) write($("problem"), error.said || "The server can’t be reached; what stands here is from before. It is asked again every 10 seconds.");
    }
  }

  function write(element, words) {
    if (element.textContent !== words) element.textContent = words;
  }

  function show(found) {
    const aliases = Map.groupBy ? Map.groupBy(found.rows, (row) => row.alias) : grouped(found.rows);
    const n = found.rows.reduce((sum, row) => sum + row.figures.n, 0);
    write($("summary"), `${counted(n, "request", "requests")}, ${counted(aliases.size, "alias", "aliases")}`);
    write($("seen-at"), `From ${found.since.replace("T", " ")} to ${found.at.slice(0, 19).replace("T", " ")} UTC`);
    $("none").hidden = found.rows.length > 0;
    const sheets = [...aliases].sort(([a], [b]) => (a === "") - (b === "") || (a < b ? -1 : 1)).map(([alias, rows]) => sheet(alias, rows, found));
    const there = $("aliases");
    sheets.forEach((made, i) => { if (!there.children[i]) there.append(made); else if (!there.children[i].isEqualNode(made)) there.children[i].replaceWith(made); });
    while (there.children.length > sheets.length) there.lastChild.remove();
  }

  function grouped(rows) {
    const found = new Map();
    for (const row of rows) found.set(row.alias, [...(found.get(row.alias) || []), row]);
    return found;
  }

  function sheet(alias, rows, found) {
    const title = el("h2", "", alias || "Asked for by version");
    const heads = ["Version", ...(found.by === "audience" ? ["Audience"] : []), "Requests", ...COLUMNS.map(([, head]) => head), "Held out"].map((head) => role(el("th", "", head), "columnheader"));
    for (const head of heads) head.scope = "col";
    const body = role(el("tbody", "", ...rows.map((row, k) => tableRow(row, k, found.by))), "rowgroup");
    const table = role(el("table", "arms", role(el("thead", "", role(el("tr", "", ...heads), "row")), "rowgroup"), body), "table");
    table.setAttribute("aria-label", `Versions behind ${alias || "no alias"}; ranges are of 95 %`);
    const plots = PLOTS.map(([field, head, written]) => plot(rows.slice(0, LINES), field, head, written, found)).filter(Boolean);
    return el("section", "alias", title, table, ...(plots.length ? [el("div", "plots", ...plots)] : []));
  }

  function role(element, word) { // said aloud, for a phone's table isn't laid out as one
    element.setAttribute("role", word);
    return element;
  }

  function tableRow(row, k, by) {
    const f = row.figures;
    const name = role(el("th", "", ...(k < LINES ? [key(k)] : []), row.version, el("small", "", row.digest.slice(0, 12))), "rowheader");
    name.scope = "row";
    const cells = by === "audience" ? [cell("Audience", row.cohort || "no cohort said")] : [];
    cells.push(cell("Requests", String(f.n), `${f.per_minute.toFixed(f.per_minute < 10 ? 1 : 0)} a minute${f.shed ? `, ${f.shed} turned away` : ""}`));
    for (const [field, head, written] of COLUMNS) cells.push(figureCell(head, f[field], written));
    cells.push(row.held_out ? figureCell("Held out", row.held_out, percent, row.held_out.what) : cell("Held out", "no report"));
    return role(el("tr", "", name, ...cells), "row");
  }

  function figureCell(head, f, written, what) {
    if (!f) return cell(head, "none told");
    const range = f.low === null ? "" : `${bare(written(f.low), written(f.high))} to ${written(f.high)}, `;
    return cell(head, written(f.value), `${what ? `${what}, ` : ""}${range}of ${f.n}`);
  }

  /** The lower end without its unit, where both have the same. */
  function bare(low, high) {
    const [number, unit] = low.split(NBSP);
    return unit === high.split(NBSP)[1] ? number : low;
  }

  function cell(head, value, below) {
    const made = role(el("td", "", value, ...(below ? [el("small", "", below)] : [])), "cell");
    made.dataset.label = head;
    return made;
  }

  // --- plots ----------------------------------------------------------------------------------------------------------

  function shape(tag, attributes, ...children) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function key(k) {
    return shape("svg", { class: "key", viewBox: "0 0 28 10", "aria-hidden": "true" }, shape("path", { class: `line k${k}`, d: "M1 5H27" }));
  }

  const time = (at) => Date.parse(`${at}${at.length === 10 ? "T00:00" : at.length === 13 ? ":00" : ""}Z`);

  function plot(rows, field, head, written, found) {
    const values = rows.flatMap((row) => row.series.map((point) => point[field]).filter((value) => value !== null));
    if (!values.length) return null;
    const start = time(found.since), end = Date.parse(found.at);
    const [low, high] = field === "reward" ? [Math.min(...values), Math.max(...values)] : [0, Math.max(...values)];
    const x = (at) => Math.max(0, Math.min(WIDE, (WIDE * (time(at) - start)) / (end - start)));
    const y = (value) => (high > low ? 4 + (HIGH - 8) * (1 - (value - low) / (high - low)) : HIGH / 2);
    const lines = rows.flatMap((row, k) => drawn(row.series.map((point) => [x(point.at), point[field]]), y, k));
    const last = rows.map((row) => [row, row.series.findLast((point) => point[field] !== null)]).filter(([, point]) => point);
    const svg = shape("svg", { viewBox: `0 0 ${WIDE} ${HIGH + FOOT}`, role: "img", "aria-label": `${head} over time: ${last.map(([row, point]) => `${row.version}${row.cohort ? ` ${row.cohort}` : ""} ends at ${written(point[field])}`).join(", ")}` },
      shape("path", { class: "axis", d: `M0 ${HIGH}H${WIDE}` }), ...lines,
      shape("text", { x: 0, y: HIGH + 12 }, label(found)), shape("text", { x: WIDE, y: HIGH + 12, "text-anchor": "end" }, "now"));
    return el("figure", "", el("figcaption", "", `${head}, ${low === high ? written(high) : `${written(low)} to ${written(high)}`}`), svg);
  }

  /** Where the axis begins: the time, with its date where that isn't today's. */
  function label({ since, at, window }) {
    if (window === "week" || window === "month") return since.slice(5, 10);
    return since.slice(0, 10) === at.slice(0, 10) ? since.slice(11, 16) : since.slice(5, 16).replace("T", " ");
  }

  /** A line through the points; where one is missing it is broken, and what stands alone is a dot. */
  function drawn(series, y, k) {
    const runs = [[]];
    for (const [at, value] of series) {
      if (value === null) runs.push([]);
      else runs.at(-1).push(`${at.toFixed(1)} ${y(value).toFixed(1)}`);
    }
    return runs.filter((run) => run.length).map((run) => {
      const [cx, cy] = run[0].split(" ");
      return run.length > 1 ? shape("path", { class: `line k${k}`, d: `M${run.join("L")}` }) : shape("circle", { class: `dot k${k}`, cx, cy, r: 3 });
    });
  }

  $("window").addEventListener("change", load);
  $("by").addEventListener("change", load);
  setInterval(() => { if (!document.hidden) load(); }, EVERY_MS);
  load();
})();
