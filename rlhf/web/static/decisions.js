// The regular review. Everything that a person or a model wrote is set as text.
"use strict";
(() => {
  const { $, call, el } = Desk;
  const GONE = "The server can’t be reached. Check the network and load the page again.";
  const when = (at) => `${at.slice(0, 16).replace("T", " ")} UTC`;
  const counted = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
  const number = (x) => (Number.isInteger(x) ? String(x) : String(Number(x.toPrecision(4))));
  const hours = (h) => (h < 0.1 ? "under 0.1 h" : `${h.toFixed(h < 10 ? 1 : 0)} h`);
  let seen = 0;
  let may = [];
  let asked = null; // the decision that the dialog is about

  /** Words of a person, running their own way. */
  function said(words) {
    const element = el("p", "said", words);
    element.dir = "auto";
    element.lang = "";
    return element;
  }

  function role(element, word) { // said aloud, for a phone's table isn't laid out as one
    element.setAttribute("role", word);
    return element;
  }

  async function load() {
    let found;
    try {
      found = await call("GET", "/api/decisions", null, 60000);
    } catch (error) {
      $("problem").textContent = error.said || GONE;
      return false;
    }
    $("problem").textContent = "";
    may = found.may;
    seen = found.last;
    const { reviews, gates, canaries } = found.overdue;
    const n_due = reviews.length + gates.length + canaries.length;
    $("summary").textContent = `${counted(found.decided.length, "decision", "decisions")}, ${n_due ? `${n_due} to look at` : "nothing overdue"}`;
    $("seen-at").textContent = `As of ${found.at.slice(11, 19)} UTC`;
    $("since").textContent = found.review ? `Since ${when(found.review.at)}, when ${found.review.who} held the last review:` : "No review was held yet: everything since the beginning.";
    $("last-notes").textContent = found.review ? found.review.notes : "";
    $("overdue").replaceChildren(...(n_due ? [...reviews.map(reviewDue), ...gates.map(gateUnmet), ...canaries.map(canaryWaits)] : [el("li", "none", "Nothing is overdue.")]));
    showCameIn(found.came_in);
    $("changed").replaceChildren(...(found.changed.length ? found.changed.map(change) : [el("p", "quiet", "No alias moved.")]));
    $("decided").replaceChildren(...(found.decided.length ? found.decided.map(decision) : [el("li", "quiet", "Nothing was decided.")]));
    $("hold-part").hidden = !may.includes("review");
    $("parts").hidden = false;
    return true;
  }

  // --- overdue --------------------------------------------------------------------------------------------------------

  const due = (what, ...rest) => el("li", "", el("p", "what", what), ...rest);

  function reviewDue(one) {
    return due(`${one.alias} at ${one.to}: another look was due ${one.review_at.slice(0, 10)}`, el("p", "quiet", `Decision ${one.decision} of ${one.at.slice(0, 10)}, by ${one.who}. A review that is held renews it.`));
  }

  function gateUnmet(one) {
    const what = one.in_force ? `${one.alias} at ${one.version}: its gate wasn’t passed` : `${one.version} can’t pass the gate of ${one.alias} yet`;
    const fix = one.fix ? [el("p", "quiet", "To do: ", el("code", "", one.fix))] : [];
    return due(what, el("ul", "", ...one.reasons.map((reason) => el("li", "", reason))), ...fix);
  }

  function canaryWaits(one) {
    const kind = { ab: "A/B test", canary: "canary", shadow: "shadow", bandit: "bandit" }[one.kind];
    return due(`The ${kind} of ${one.alias} waits for ${one.waits_for}`, el("p", "quiet", `${one.status}, since ${when(one.since)}; it ran for ${hours(one.hours)}`));
  }

  // --- what came in and what it changed -------------------------------------------------------------------------------

  function showCameIn(c) {
    const kinds = Object.entries(c.by_kind).map(([kind, n]) => `${n.toLocaleString("en")} ${kind}`).join(", ");
    const told = [["Judgements", c.judgements, kinds], ["Labelers", c.labelers], ["Sources", c.n_sources], ["Imports", c.imports], ["Comments", c.comments], ["Items on the board", c.items], ["Erasures", c.erasures], ["Appeals", c.appeals]];
    $("came-in").replaceChildren(...told.map(([head, n, below]) => el("div", "", el("dt", "", head), el("dd", "", n.toLocaleString("en"), ...(below && n ? [el("small", "quiet", ` ${below}`)] : [])))));
    const more = c.n_sources - c.sources.length;
    $("sources").textContent = c.sources.length ? `From ${c.sources.join(", ")}${more ? ` and ${more} more` : ""}` : "";
  }

  function change(one) {
    const title = el("h3", "", `${one.alias}: ${one.from || "nothing"} → `, el("span", "to", one.to));
    const line = one.is_back ? "Moved, and back where it was." : `${counted(one.moves, "move", "moves")}; the last is decision ${one.decision}.`;
    const from = one.report ? ` Figures of report ${one.report.digest.slice(0, 12)}, n = ${one.report.n === null ? "not told" : one.report.n.toLocaleString("en")}${one.report.simulated ? ", of SIMULATED labelers" : ""}; ranges are its intervals.` : "";
    const box = el("section", "alias", title, el("p", "quiet", line + from), ...(one.figures.length ? [tableOf(one)] : one.is_back ? [] : [el("p", "quiet", "No report says what it changed.")]));
    title.id = `changed-${one.decision}`;
    box.setAttribute("aria-labelledby", title.id);
    return box;
  }

  function tableOf(one) {
    const has_both = one.figures.some((row) => row.from);
    const heads = ["Figure", ...(has_both ? [one.from] : []), one.to].map((head) => role(el("th", "", head), "columnheader"));
    for (const head of heads) head.scope = "col";
    const rows = one.figures.map((row) => {
      const name = role(el("th", "", row.figure), "rowheader");
      name.scope = "row";
      return role(el("tr", "", name, ...(has_both ? [cell(one.from, row.from)] : []), cell(one.to, row.to)), "row");
    });
    const table = role(el("table", "arms", role(el("thead", "", role(el("tr", "", ...heads), "row")), "rowgroup"), role(el("tbody", "", ...rows), "rowgroup")), "table");
    table.setAttribute("aria-label", `Figures of ${one.alias}, before and after`);
    return table;
  }

  function cell(head, figure) {
    const made = role(el("td", ""), "cell");
    made.dataset.label = head;
    if (!figure) { made.append("not told"); return made; }
    made.append(number(figure.value));
    if (figure.low !== null && figure.high !== null) made.append(el("small", "", `${number(figure.low)} to ${number(figure.high)}`));
    return made;
  }

  // --- decisions ------------------------------------------------------------------------------------------------------

  function decision(one) {
    const title = el("h3", "", one.title);
    title.id = `decision-${one.decision}`;
    const marks = [one.taken_back_by ? `taken back by decision ${one.taken_back_by}` : "", one.takes_back ? `takes decision ${one.takes_back} back` : "", one.overdue ? "overdue for a review" : ""].filter(Boolean);
    const record = el("div", "");
    const more = el("details", "history", el("summary", "", "The whole record"), record);
    more.addEventListener("toggle", () => { if (more.open) show(one.decision, record); });
    const box = el("li", "", el("p", "eyebrow", `${one.decision}. ${KINDS[one.kind]}, ${when(one.at)}, by ${one.who}`), title, ...(marks.length ? [el("p", "marks", marks.join("; "))] : []), ...(one.why ? [said(one.why)] : []), more);
    if (may.includes("revoke") && one.kind === "promotion" && one.in_force && one.from) {
      const button = el("button", "", "Take it back…");
      button.type = "button";
      button.setAttribute("aria-describedby", title.id);
      button.addEventListener("click", () => open(one));
      box.append(el("p", "row", button));
    }
    return box;
  }

  const KINDS = { promotion: "Promotion", rollback: "Rollback", gate: "Gate", retirement: "Retirement", review: "Review" };

  async function show(of, into) {
    let found;
    try {
      found = (await call("GET", `/api/decisions/${of}`)).decision;
    } catch (error) {
      into.replaceChildren(el("p", "problem", error.said || GONE));
      return;
    }
    const list = el("dl", "record");
    for (const [head, lines] of rows(found)) {
      if (lines.length) list.append(el("dt", "", head), el("dd", "", ...lines.map((line) => (typeof line === "string" ? el("p", "", line) : line))));
    }
    into.replaceChildren(list);
  }

  function rows(d) {
    const c = d.content, short = (digest) => digest.slice(0, 12);
    const moved = [["From", d.from_digest ? [`${d.from}, ${short(d.from_digest)}`] : []], ["To", d.to_digest ? [`${d.to}, ${short(d.to_digest)}`] : []]];
    const last = [["Another look", d.review_at ? [`due ${d.review_at.slice(0, 10)}`] : []], ["Digest", [short(d.digest)]]];
    if (d.kind === "gate") return [["Asked no more", c.gate.no_more], ["New", c.gate.new], ...last];
    if (d.kind === "review") return [["Up to", [`decision ${c.up_to}`]], ["In force then", [c.in_force.join(", ")].filter(Boolean)], ["Overdue then", [c.overdue.join(", ")].filter(Boolean)], ...last];
    if (d.kind !== "promotion") return [...moved, ...last];
    const gate = c.gate ? [`${c.gate.class ? `Class ${c.gate.class}, ` : ""}${short(c.gate.digest)}, set by ${c.gate.set_by}`, ...c.gate.results.map(result)] : ["No gate"];
    const opened = c.gate_changes.filter((one) => one.no_more.length).map((one) => el("p", "unmet", `Asked no more since decision ${one.decision}, by ${one.who}: ${one.no_more.join("; ")}`));
    return [
      ...moved, ["Gate", [...gate, ...opened]],
      ["Report", c.report ? [`${short(c.report.digest)}, ${c.report.kind}, n = ${c.report.n === null ? "not told" : c.report.n}: ${c.report.title}`] : ["None"]],
      ["Methods", Object.entries(c.methods || {}).map(([name, method]) => `${name}: ${method}`)], ["Assumptions", c.assumptions],
      ["Signed", c.signoffs.map((one) => `${one.who} as ${one.role}, ${when(one.at)}, ${short(one.digest)}`)],
      ["Canary", c.canary ? [`${hours(c.canary.hours)}, ${counted(c.canary.n_replies, "reply", "replies")} to ${counted(c.canary.n_units, "user", "users")}`] : []],
      ["Data", c.data.map(dataLine)], ...last,
    ];
  }

  function result(one) {
    if (!one.met) return el("p", "unmet", `Not met: ${one.rule}: ${one.reason}`);
    const range = one.low === null || one.low === undefined ? "" : ` (${number(one.low)} to ${number(one.high)}, ${one.method})`;
    return one.value === undefined || one.value === null ? `Met: ${one.rule}${one.who ? `: ${one.who}` : ""}` : `Met: ${one.rule}: ${number(one.value)}${range}, n = ${one.n}`;
  }

  function dataLine(one) {
    if (one.unreadable) return one.unreadable;
    const consents = Object.entries(one.consents || {}).map(([scopes, n]) => `${scopes || "none"} ${n}`).join("; ");
    const counts = one.judgements === null ? "counts unknown here" : `${counted(one.judgements, "judgement", "judgements")}, ${counted(one.labelers ? one.labelers.known : 0, "labeler", "labelers")}`;
    return `${one.snapshot || "snapshot"}, ${one.digest.slice(0, 12)}: ${counts}${consents ? `; consent: ${consents}` : ""}`;
  }

  // --- deeds ----------------------------------------------------------------------------------------------------------

  $("hold").addEventListener("submit", async (event) => {
    event.preventDefault();
    const notes = $("notes").value.trim();
    if (!notes) { $("hold-error").textContent = "Say what was looked at: who comes next reads it."; $("notes").focus(); return; }
    try {
      const made = await call("POST", "/api/reviews", { seen, notes });
      $("hold-error").textContent = "";
      $("notes").value = "";
      if (await load()) $("held").textContent = `Recorded as decision ${made.decision.decision}.`;
    } catch (error) {
      $("hold-error").textContent = error.said || "Not recorded: the server can’t be reached. What you wrote is still here; try again.";
    }
  });

  function open(one) {
    asked = one;
    $("back-title").textContent = `Take decision ${one.decision} back`;
    $("back-line").textContent = `${one.alias} points at ${one.to} and would return to what it pointed at before. The next request is answered by that.`;
    $("back-why").value = "";
    $("back-error").textContent = "";
    $("back-box").showModal();
    $("back-why").focus();
  }

  $("back").addEventListener("submit", async (event) => {
    event.preventDefault();
    const why = $("back-why").value.trim();
    if (!why) { $("back-error").textContent = "Say why first: it stands in the record."; $("back-why").focus(); return; }
    try {
      await call("POST", `/api/decisions/${asked.decision}/revoke`, { why });
    } catch (error) {
      $("back-error").textContent = error.said || "Not done: the server can’t be reached. What you wrote is still here; try again.";
      return;
    }
    $("back-box").close();
    await load();
    $("main").focus();
  });
  $("back-cancel").addEventListener("click", () => $("back-box").close());

  load();
})();
