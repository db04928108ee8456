// The operator's page: aliases, their rollouts, and the way back. Everything that a person or a model wrote is set as text. What
// stands on the page is changed in its place, so that a refresh moves neither the focus nor what is being typed or read.
"use strict";
(() => {
  const { $, call, el } = Desk;
  const EVERY_MS = 5000;
  const DEED_MS = 120000; // a gate may read gigabytes before an alias moves
  const KINDS = { ab: "A/B test", canary: "Canary", shadow: "Shadow", bandit: "Bandit" };
  const METRICS = { error_rate: "Errors", latency: "Latency", refusal: "Refusals", reply_length: "Reply length", reward: "Reward", satisfaction: "Satisfaction" };
  const STATUS = { pending: "not begun", running: "running", paused: "paused", completed: "completed", rolled_back: "rolled back", superseded: "ended: its alias was set elsewhere" };
  const ACTIONS = { set: "Set", rollback: "Rolled back", start: "Started", begin: "Begun", advance: "Advanced", weigh: "Shares moved", pause: "Paused", resume: "Went on", complete: "Completed", roll_back: "Rolled back" };
  const ENDED = { "alias set": "Ended, since its alias was set", "alias rollback": "Ended, since its alias was rolled back" };
  const NBSP = "\u00a0"; // between a number and its unit, so that no line ends there
  const share = (x) => `${x}${NBSP}%`;
  const percent = (x) => share((100 * x).toFixed(x > 0 && x < 0.1 ? 1 : 0));
  const seconds = (s) => (s < 0.0001 ? `under 0.1${NBSP}ms` : s < 1 ? `${(1000 * s).toFixed(s < 0.01 ? 1 : 0)}${NBSP}ms` : `${s.toFixed(2)}${NBSP}s`);
  const points = (x) => x.toFixed(2);
  // Field of an arm's figures, its head, how it is written, whether its own n is told.
  const COLUMNS = [["error_rate", "Errors", percent], ["latency_p50", "Latency, median", seconds], ["latency_p95", "Latency, 95th", seconds], ["satisfaction", "Satisfied", percent, true], ["reward", "Reward", points, true], ["refusal", "Refusals", percent, true]];
  const sections = new Map(); // alias -> what stands for it on the page
  let may = [];
  let deed = null; // what the dialog is about
  let asking = false;

  /** Words of a person, running their own way. */
  function said(words) {
    const element = el("p", "said", words);
    element.dir = "auto";
    element.lang = "";
    return element;
  }

  /** Set only where it differs: a live region speaks at changes alone, and a selection stays. */
  function write(element, words) {
    if (element.textContent !== words) element.textContent = words;
  }

  const when = (at) => at.slice(0, 16).replace("T", " ");

  // --- what stands ----------------------------------------------------------------------------------------------------

  async function load() {
    if (asking) return;
    asking = true;
    try {
      const found = await call("GET", "/api/operate");
      write($("problem"), "");
      may = found.may;
      show(found);
    } catch (error) {
      write($("problem"), error.said || "The server can’t be reached; what stands here is from before. It is asked again every 5 seconds.");
    } finally {
      asking = false;
    }
  }

  function show(found) {
    const n_rollouts = found.aliases.filter((one) => one.rollout).length;
    const n_harmed = found.aliases.filter((one) => one.rollout && isBad(one.rollout.verdict)).length;
    write($("summary"), `${counted(found.aliases.length, "alias", "aliases")}, ${counted(n_rollouts, "rollout", "rollouts")}${n_harmed ? `, ${n_harmed} to look at` : ""}`);
    write($("seen-at"), `As of ${found.at.slice(11, 19)} UTC`);
    const room = found.room;
    write($("room"), `Disk: ${gib(room.used)}${room.budget === null ? "" : ` of ${gib(room.budget)}`} used, ${gib(room.free)} free`);
    $("room").className = room.budget !== null && room.used > room.budget ? "problem" : "quiet";
    $("none").hidden = found.aliases.length > 0;
    for (const [index, one] of found.aliases.entries()) {
      if (!sections.has(one.alias)) {
        const made = section(one.alias);
        sections.set(one.alias, made);
        $("aliases").insertBefore(made.box, $("aliases").children[index] || null);
      }
      fill(sections.get(one.alias), one, found.minutes);
    }
    if (deed && !$("deed").hidden) noteNews();
  }

  const gib = (n) => `${(n / 2 ** 30).toFixed(1)} GiB`;
  const counted = (n, one, many) => `${n} ${n === 1 ? one : many}`;

  /** The bones of an alias's section; `fill` gives them flesh, every 5 seconds. */
  function section(alias) {
    const s = { alias, to: el("span", "to"), line: el("p", "quiet"), why: said(""), lately: el("p", "eyebrow"), figures: el("dl", "figures"), seen: null };
    const title = el("h2", "", `${alias} → `, s.to);
    title.id = `alias-${sections.size}`;
    s.back = button("Roll back…", "", () => openRollback(s));
    s.back.setAttribute("aria-describedby", title.id);
    s.first = el("p", "quiet", "First entry: nothing before it");
    s.rollout = rolloutBones(s, title.id);
    s.list = el("div", "");
    s.history = el("details", "history", el("summary", "", "History"), s.list);
    s.history.addEventListener("toggle", () => { if (s.history.open) loadHistory(s); });
    s.box = el("section", "alias", el("div", "alias-head", el("div", "", title, s.line, s.why), s.back, s.first), s.lately, s.figures, s.rollout.box, s.history);
    s.box.setAttribute("aria-labelledby", title.id);
    return s;
  }

  function button(words, look, call) {
    const made = el("button", look, words);
    made.type = "button";
    made.addEventListener("click", call);
    return made;
  }

  function fill(s, one, minutes) {
    const moved = s.seen && s.seen !== `${one.seq} ${one.rollout ? one.rollout.seq : 0}`;
    s.one = one;
    s.seen = `${one.seq} ${one.rollout ? one.rollout.seq : 0}`;
    write(s.to, one.version);
    const effect = one.effect ? `, in force after ${seconds(one.effect.max_s)} on ${counted(one.effect.n, "server", "servers")}` : "";
    write(s.line, `${one.digest.slice(0, 12)}, ${one.role}, since ${when(one.since)} by ${one.who}${effect}${one.gate ? "; moves through a gate" : ""}`);
    write(s.why, one.why);
    hide(s.back, !may.includes("roll_back") || one.back === null);
    s.first.hidden = one.back !== null;
    writeFigures(s, one.lately, minutes);
    fillRollout(s.rollout, one.rollout);
    if (moved && s.history.open) loadHistory(s);
  }

  function writeFigures(s, l, minutes) {
    write(s.lately, `The last ${minutes} minutes${l ? "" : ": no requests"}`);
    const told = l ? [
      ["Requests a minute", l.per_minute.toFixed(l.per_minute < 10 ? 1 : 0)],
      ["Errors", orNone(l.error_rate, percent)],
      ["Latency, mean", orNone(l.latency_s, seconds)],
      ["Thumbs up", l.n_thumbs ? `${percent(l.satisfaction)} of ${l.n_thumbs}` : "none told"],
      ["Reward, mean", l.n_rewards ? `${points(l.reward)} of ${l.n_rewards}` : "none told"],
    ] : [];
    s.figures.hidden = l === null;
    replace(s.figures, told.map(([head, value]) => el("div", "", el("dt", "", head), el("dd", "", value))));
  }

  const orNone = (value, written) => (value === null ? "none told" : written(value));

  /** Gone from the page, and the focus with it to the page itself, not to nowhere. */
  function hide(element, is_hidden) {
    if (is_hidden && element.contains(document.activeElement)) $("main").focus();
    element.hidden = is_hidden;
  }

  /** New children, only where they read otherwise than the old ones: what is selected or looked at stays. */
  function replace(element, children) {
    const is_same = children.length === element.children.length && children.every((child, i) => child.isEqualNode(element.children[i]));
    if (!is_same) element.replaceChildren(...children);
  }

  // --- a rollout ------------------------------------------------------------------------------------------------------

  function rolloutBones(s, named) {
    const r = { title: el("h3", ""), line: el("p", "quiet"), why: said(""), arms: el("tbody", ""), verdict: el("p", "verdict"), guards: el("ul", "guards"), effect: el("p", "quiet"), one: null };
    const heads = ["Arm", "Share", "Requests", ...COLUMNS.map(([, head]) => head)].map((head) => role(el("th", "", head), "columnheader"));
    for (const head of heads) head.scope = "col";
    const table = role(el("table", "arms", role(el("thead", "", role(el("tr", "", ...heads), "row")), "rowgroup"), role(r.arms, "rowgroup")), "table");
    table.setAttribute("aria-label", `Arms of the rollout of ${s.alias}; ranges are of 95 %`);
    r.buttons = Object.fromEntries([["advance", "Advance…"], ["pause", "Pause…"], ["complete", "Complete…"], ["rollback", "Roll back the rollout…"]].map(([verb, words]) => [verb, button(words, "", () => openStep(s, verb))]));
    for (const one of Object.values(r.buttons)) one.setAttribute("aria-describedby", named);
    r.box = el("div", "rollout", r.title, r.line, r.why, table, r.verdict, r.guards, r.effect, el("p", "row", ...Object.values(r.buttons)));
    return r;
  }

  function role(element, word) { // said aloud, for a phone's table isn't laid out as one
    element.setAttribute("role", word);
    return element;
  }

  function fillRollout(r, rollout) {
    hide(r.box, rollout === null);
    r.one = rollout;
    if (!rollout) return;
    const stage = rollout.stages.length ? `, stage ${rollout.stage + 1} of ${rollout.stages.length} (${rollout.stages.map(share).join(", ")})` : "";
    write(r.title, `${KINDS[rollout.kind]}, ${STATUS[rollout.status]}${stage}`);
    write(r.line, `Started ${when(rollout.started_at)} by ${rollout.started_by}; last entry ${rollout.seq}, ${when(rollout.at)}, by ${rollout.who}`);
    write(r.why, rollout.why);
    replace(r.arms, rollout.arms.map((arm) => armRow(arm, rollout.figures[arm.arm])));
    write(r.verdict, verdictOf(rollout));
    r.verdict.className = isBad(rollout.verdict) ? "verdict harm" : "verdict";
    replace(r.guards, [...rollout.verdict.guards.map(guardLine), sharesLine(rollout)]);
    const effect = rollout.time_to_effect;
    write(r.effect, `${effect ? `Changes were in force after ${seconds(effect.p50_s)} (median of ${effect.n}), ${seconds(effect.max_s)} at most. ` : ""}Figures of ${rollout.figures_at.slice(11, 19)} UTC; ranges are 95 % intervals.`);
    const may_step = may.includes("promote"), live = ["pending", "running", "paused"].includes(rollout.status);
    hide(r.buttons.advance, !(may_step && live && (rollout.status !== "running" || rollout.stage + 1 < rollout.stages.length)));
    write(r.buttons.advance, rollout.status === "pending" ? "Begin…" : rollout.status === "paused" ? "Go on…" : "Advance…");
    hide(r.buttons.pause, !(may.includes("roll_back") && rollout.status === "running"));
    hide(r.buttons.complete, !(may_step && live));
    hide(r.buttons.rollback, !(may.includes("roll_back") && live));
  }

  const isBad = (verdict) => verdict.blocked || verdict.action !== "none";

  function verdictOf({ verdict, status }) {
    const paused = status === "paused" ? "It is paused until somebody goes on." : "A running server pauses it by itself.";
    const then = verdict.action === "roll_back" ? "A running server rolls it back by itself." : paused;
    if (verdict.blocked) return `Users came in other shares than were drawn, so nothing compared can be trusted. ${verdict.action === "none" ? "Somebody went on past that." : then}`;
    if (verdict.action === "none") return "No harm is shown.";
    const harmed = verdict.guards.filter((one) => one.fired && !one.passed_over).map((one) => `${METRICS[one.metric].toLowerCase()} of ${one.arm}`);
    return `Harm is shown: ${harmed.join(", ")}. ${then}`;
  }

  function armRow(arm, figures) {
    const name = role(el("th", "", arm.arm, el("small", "", `${arm.version}, ${arm.digest.slice(0, 12)}`)), "rowheader");
    name.scope = "row";
    const cells = [arm.shadowed === null ? cell("Share", share(arm.share)) : cell("Share", "never shown", `computed for ${share(arm.shadowed)}`), cell("Requests", String(figures.n), counted(figures.units, "user", "users") + (figures.toggled ? `, ${figures.toggled} by a toggle` : ""))];
    for (const [field, head, written, has_n] of COLUMNS) {
      const f = figures[field];
      const ends = f && f.low !== null ? range(written(f.low), written(f.high)) : "–"; // of so few there is no interval
      cells.push(f ? cell(head, written(f.value), `${ends}${has_n || ends === "–" ? `, of ${f.n}` : ""}`) : cell(head, "none told"));
    }
    return role(el("tr", "", name, ...cells), "row");
  }

  /** The unit once, where both have the same. */
  function range(low, high) {
    const [number, unit] = low.split(NBSP);
    return `${unit === high.split(NBSP)[1] ? number : low} to ${high}`;
  }

  function cell(head, value, below) {
    const made = role(el("td", "", value, ...(below ? [el("small", "", below)] : [])), "cell");
    made.dataset.label = head;
    return made;
  }

  function guardLine(guard) {
    const stands = guard.fired ? (guard.passed_over ? "harm was shown, and somebody went on past it" : "harm is shown") : "no harm is shown";
    const does = guard.role === "guardrail" ? "rolls back by itself" : "pauses by itself";
    return el("li", guard.fired && !guard.passed_over ? "harm" : "", `${METRICS[guard.metric]} of ${guard.arm}: ${stands} (evidence ${short(guard.peak)}, ${does} at ${short(guard.threshold)}; ${counted(guard.n, "row", "rows")} compared)`);
  }

  function sharesLine({ arms, verdict: { mismatch } }) {
    const came = arms.map(({ arm }) => `${arm} ${mismatch.units[arm]}, drawn ${Math.round(mismatch.expected[arm])}`).join("; ");
    return el("li", mismatch.found ? "harm" : "", `Users by arm: ${mismatch.found ? "not as they were drawn" : "as they were drawn"} (${came}; evidence ${short(mismatch.peak)}, blocks at ${short(mismatch.threshold)})`);
  }

  const short = (x) => (x === null || x >= 1e6 ? "over a million" : x >= 100 ? String(Math.round(x)) : x.toPrecision(2));

  // --- history --------------------------------------------------------------------------------------------------------

  async function loadHistory(s) {
    let found;
    try {
      found = await call("GET", `/api/operate/${encodeURIComponent(s.alias)}`);
    } catch (error) {
      s.list.replaceChildren(el("p", "problem", error.said || "The server can’t be reached. Close and open the history again."));
      return;
    }
    const moves = found.history.map((move) => entry(`${move.seq}. ${ACTIONS[move.action]} ${move.from ? `from ${move.from} ` : ""}to ${move.version}`, move));
    const parts = [el("ol", "steps", ...moves)];
    if (found.n_history > moves.length) parts.push(el("p", "quiet", `The newest ${moves.length} of ${found.n_history}; all: rlhf alias history ${s.alias}`));
    if (found.rollout) {
      const steps = found.rollout.entries.map((step) => entry(step.seq === null ? ENDED[step.kind] : `${step.seq}. ${ACTIONS[step.kind] || step.kind}`, step));
      parts.push(el("h3", "", `Newest rollout: ${KINDS[found.rollout.kind]}, ${STATUS[found.rollout.status]}`), el("ol", "steps", ...steps));
    }
    replace(s.list, parts);
  }

  function entry(what, one) {
    return el("li", "", el("p", "eyebrow", `${what}, ${when(one.at)}, by ${one.who}`), said(one.why));
  }

  // --- deeds ----------------------------------------------------------------------------------------------------------

  async function openRollback(s) {
    let found;
    try {
      found = await call("GET", `/api/operate/${encodeURIComponent(s.alias)}`);
    } catch (error) {
      write($("problem"), error.said || "The server can’t be reached.");
      return;
    }
    const ends = found.rollout && ["pending", "running", "paused"].includes(found.rollout.status) ? ` The rollout beside it ends with that; to end the rollout alone and stay at ${found.version}, roll back the rollout.` : "";
    const others = found.returns.filter((version) => version !== found.back);
    const choices = [...(found.back ? [["", `${found.back}, the one before`]] : []), ...others.map((version) => [version, version])];
    open({
      s, seq: () => s.one.seq, seen: found.seq, path: `/api/operate/${encodeURIComponent(s.alias)}/rollback`, field: "to",
      title: `Roll back ${s.alias}`, line: `It points at ${found.version} and would return to ${found.back}. The next request is answered by that.${ends}`,
      choice: "Return to", choices, words: "Roll back", done: (told) => `${told.alias} went from ${told.from} back to ${told.to} in ${seconds(told.seconds)}.`,
    });
  }

  function openStep(s, verb) {
    const rollout = s.rollout.one;
    const kind = KINDS[rollout.kind].replace(/^[BCS]/, (letter) => letter.toLowerCase());
    const arms = rollout.arms.map((arm) => [arm.arm, arm.arm === "control" ? `control: ${s.alias} stays at ${arm.version}` : `${arm.arm}: ${s.alias} moves to ${arm.version}`]);
    if (rollout.kind === "canary") arms.reverse();
    const next = rollout.stages[rollout.stage + 1], now = rollout.stages[rollout.stage];
    const lines = {
      advance: rollout.status === "pending" ? "It begins: its arms get requests." : rollout.status === "paused" ? "It goes on where it stood, past the signals that paused it." : `Its arm goes from ${now} to ${share(next)} of users.`,
      pause: "The shares stand where they are until somebody goes on.",
      complete: "It ends, and everybody gets one version. The alias’s gate is asked.",
      rollback: `Everybody is back on ${rollout.arms.find((arm) => arm.arm === "control").version}; no alias moves.`,
    };
    const words = { advance: "Advance", pause: "Pause", complete: "Complete", rollback: "Roll back" }[verb];
    open({
      s, seq: () => (s.rollout.one && s.rollout.one.id === rollout.id ? s.rollout.one.seq : 0), seen: rollout.seq, path: `/api/operate/rollouts/${encodeURIComponent(rollout.id)}/${verb}`, field: "arm",
      title: `${words} the ${kind} of ${s.alias}`, line: lines[verb], choice: "With", choices: verb === "complete" ? arms : [], words,
      done: (told) => `${s.alias}: ${STATUS[told.rollout.status]}, ${told.rollout.arms.filter((arm) => arm.shadowed === null).map((arm) => `${arm.arm} ${share(arm.share)}`).join(", ")}, in ${seconds(told.seconds)}.`,
    });
  }

  function open(wanted) {
    deed = wanted;
    write($("deed-title"), deed.title);
    write($("deed-line"), deed.line);
    write($("deed-choice-label"), deed.choice);
    write($("deed-do"), deed.words);
    for (const id of ["deed-news", "deed-error", "deed-said"]) write($(id), "");
    $("deed-choice").replaceChildren(...deed.choices.map(([value, words]) => Object.assign(el("option", "", words), { value })));
    $("deed-which").hidden = deed.choices.length < 2;
    $("deed-why").value = "";
    $("deed").hidden = $("deed-line").hidden = false;
    $("deed-done").hidden = true;
    $("deed-box").showModal();
    $("deed-why").focus();
  }

  /** Somebody moved what the dialog is about: what is typed stays, and the server would refuse. */
  function noteNews() {
    write($("deed-news"), deed.seq() === deed.seen ? "" : "This was changed meanwhile. Close, look at it, and say it again if you still want to.");
  }

  async function act() {
    const why = $("deed-why").value.trim();
    if (!why) { write($("deed-error"), "Say why first: it stands in the history."); $("deed-why").focus(); return; }
    const chosen = $("deed-choice").value;
    const mine = deed;
    $("deed-do").disabled = true;
    let told = null, refusal = "";
    try {
      told = await call("POST", mine.path, { seen: mine.seen, why, ...(chosen && { [mine.field]: chosen }) }, DEED_MS);
    } catch (error) {
      refusal = error.said || "It isn’t known whether that was done: the server can’t be reached. What you wrote is still here; look at the page when it answers.";
    }
    $("deed-do").disabled = false;
    load();
    if (deed !== mine) return; // closed meanwhile: the page shows what came of it
    write($("deed-error"), refusal);
    if (told) {
      $("deed").hidden = $("deed-line").hidden = true;
      $("deed-done").hidden = false;
      write($("deed-news"), "");
      write($("deed-said"), mine.done(told));
      $("deed-close").focus();
    }
  }

  $("deed").addEventListener("submit", (event) => { event.preventDefault(); act(); });
  $("deed-why").addEventListener("input", () => write($("deed-error"), ""));
  for (const id of ["deed-cancel", "deed-close"]) $(id).addEventListener("click", () => $("deed-box").close());
  $("deed-box").addEventListener("close", () => {
    const { s } = deed;
    deed = null;
    const active = document.activeElement; // the button that opened it, unless that is gone by now
    if (!active || active === document.body || $("deed-box").contains(active)) (s.back.hidden ? $("main") : s.back).focus();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) load(); });
  setInterval(() => { if (!document.hidden) load(); }, EVERY_MS);
  load();
})();
