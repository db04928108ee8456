// The board: items by impact and effort. Everything that a person or a model wrote is set as text.
"use strict";
(() => {
  const { $, call, el } = Desk;
  const SCALE = [1, 2, 3, 4, 5];
  const SAID = { safety: "Safety", bug: "Bug", feature: "Feature", preference: "Preference", new: "New", triaged: "Triaged", in_progress: "In progress", done: "Done", declined: "Declined", low: "low risk", medium: "medium risk", high: "high risk" };
  const FIELDS = ["kind", "risk", "impact", "effort", "status", "owner"];
  const ROLES = { system: "System", user: "User", assistant: "Assistant", tool: "Tool" };
  let board = null; // what GET /api/board gave last
  let open = null; // the item in the dialog, as it was read

  async function load() {
    const asked = new URLSearchParams();
    const stands = $("stands").value;
    if ($("kind").value) asked.set("kind", $("kind").value);
    if (stands === "held") asked.set("held", "true");
    else if (stands === "open") asked.set("open", "true"); // what is held, too, whatever its status
    else if (stands !== "all") asked.set("status", stands);
    try {
      board = await call("GET", `/api/board?${asked}`);
      $("problem").textContent = "";
    } catch (error) {
      $("problem").textContent = error.said || "The server can’t be reached. Check the network and choose again.";
      return;
    }
    show();
  }

  function show() {
    const placed = (item) => item.impact !== null && item.effort !== null;
    const loose = board.items.filter((item) => !placed(item));
    $("tray").replaceChildren(...loose.map((item) => el("li", "", cardOf(item))));
    $("tray-section").hidden = board.items.length > 0 && loose.length === 0;
    $("tray-none").textContent = board.items.length ? "" : "Nothing here fits the filters.";
    $("tray-none").hidden = loose.length > 0;
    const cells = [];
    for (const impact of [...SCALE].reverse()) {
      for (const effort of SCALE) {
        const inside = board.items.filter((item) => item.impact === impact && item.effort === effort);
        const pays = impact >= 4 && effort <= 2 ? " pays" : "";
        cells.push(el("section", `cell${inside.length ? "" : " none"}${pays}`, el("h3", "", `Impact ${impact}, effort ${effort}`), el("ol", "cards", ...inside.map((item) => el("li", "", cardOf(item))))));
      }
    }
    $("grid").replaceChildren(...cells);
    $("grid-none").hidden = loose.length < board.items.length;
    const n_all = Object.values(board.counts).flatMap(Object.values).reduce((sum, n) => sum + n, 0);
    $("summary").textContent = `${board.n_shown} of ${n_all} items`;
  }

  function cardOf(item) {
    const badge = el("span", "badge", el("span", "", SAID[item.kind]), el("span", "", SAID[item.status]));
    if (item.is_held) badge.append(el("span", "held", "held"));
    if (item.owner) badge.append(el("span", "", item.owner));
    const words = el("span", "words", item.text || (item.about === "pair" ? "A pair, without words" : "Without words"));
    words.dir = "auto";
    const card = el("button", `card ${item.kind}`, badge, words);
    card.type = "button";
    card.dataset.item = item.id;
    card.setAttribute("aria-haspopup", "dialog");
    card.addEventListener("click", () => look(item.id));
    return card;
  }

  // --- one item -------------------------------------------------------------------------------------------------------

  async function look(id) {
    let found;
    try {
      found = await call("GET", `/api/board/${encodeURIComponent(id)}`);
      $("problem").textContent = "";
    } catch (error) {
      $("problem").textContent = error.said || "The server can’t be reached.";
      return;
    }
    open = found.item;
    $("card-title").textContent = `${SAID[open.kind]}, ${SAID[open.risk]}`;
    const by = open.given_by ? `by ${open.given_by}` : "by nobody known";
    $("card-line").textContent = `${open.channel}, ${by}, ${open.created_at.slice(0, 10)}${open.rule ? `; kind guessed by the rule: ${open.rule}` : ""}${open.is_held ? "; held until an expert clears it" : ""}`;
    $("card-text").textContent = open.text || "";
    $("card-text").hidden = !open.text;
    showFields();
    showAbout(found);
    $("became").replaceChildren(...found.told.map((line) => textItem(line)));
    $("log").replaceChildren(...found.log.map((entry) => textItem(wordsOf(entry))));
    $("move-error").textContent = "";
    $("clear").hidden = !(open.is_held && board.may_review && open.given_by !== board.me);
    if (!$("card-box").open) { $("m-why").value = ""; $("card-box").showModal(); }
    $("card-box").scrollTop = 0;
  }

  function showFields() {
    const owners = [...new Set([...board.people, ...(open.owner ? [open.owner] : [])])];
    const nobody = el("option", "", "Nobody");
    nobody.value = "";
    $("m-owner").replaceChildren(nobody, ...owners.map((name) => el("option", "", name)));
    for (const field of FIELDS) $(`m-${field}`).value = open[field] === null ? "" : String(open[field]);
  }

  function showAbout(found) {
    const said = [...found.prompt.map((turn) => [ROLES[turn.role] || turn.role, turn.content]), ...found.replies.map((reply, i) => [found.replies.length > 1 ? `Reply ${i + 1}` : "Reply", reply])];
    $("about").hidden = said.length === 0;
    $("about-words").replaceChildren(...said.map(([who, words]) => {
      const text = el("div", "text", words);
      text.dir = "auto";
      text.lang = "";
      text.tabIndex = 0; // what scrolls can be reached by keyboard
      text.setAttribute("role", "group");
      text.setAttribute("aria-label", who);
      return el("div", "", el("p", "eyebrow", who), text);
    }));
  }

  function wordsOf(entry) {
    const day = `${entry.at.slice(0, 16).replace("T", " ")}, ${entry.who}: `;
    const changes = Object.entries(entry.changes).map(([field, [before, after]]) => `${field} ${before === null ? "" : `${before} → `}${after === null ? "none" : after}`);
    const deed = { hold: "held", clear: "cleared", link: `linked to the ${entry.link}` }[entry.action];
    return day + [...(deed ? [deed] : []), ...changes].join(", ") + (entry.why ? `. ${entry.why}` : "");
  }

  function textItem(words) {
    const item = el("li", "", words);
    item.dir = "auto";
    return item;
  }

  function changed() {
    const changes = {};
    for (const field of FIELDS) {
      const value = $(`m-${field}`).value;
      const now = value === "" ? null : field === "impact" || field === "effort" ? Number(value) : value;
      if (now !== open[field]) changes[field] = now;
    }
    return changes;
  }

  async function move(changes) {
    const id = open.id;
    try {
      await call("POST", `/api/board/${encodeURIComponent(id)}`, { seen: open.seq, why: $("m-why").value.trim() || null, ...changes });
    } catch (error) {
      $("move-error").textContent = error.said || "Not saved: the server can’t be reached. What you chose is still here; try again.";
      return;
    }
    $("card-box").close();
    await load();
    const card = document.querySelector(`[data-item="${CSS.escape(id)}"]`);
    (card || $("main")).focus(); // where it stands now; out of the filters, the page
  }

  function askWhy(words) {
    $("move-error").textContent = words;
    $("m-why").focus();
  }

  $("move").addEventListener("submit", (event) => {
    event.preventDefault();
    const changes = changed();
    if (["done", "declined"].includes(changes.status) && !$("m-why").value.trim()) askWhy(`Say why it is ${SAID[changes.status].toLowerCase()}: who gave it reads that.`);
    else if (Object.keys(changes).length === 0) $("move-error").textContent = "Nothing is changed yet: choose something, or close.";
    else move(changes);
  });
  $("clear").addEventListener("click", () => {
    if ($("m-why").value.trim()) move({ cleared: true });
    else askWhy("Say why it may be learnt from: who reported it reads that.");
  });
  $("card-close").addEventListener("click", () => $("card-box").close());
  $("filters").addEventListener("change", load);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  load();
})();
