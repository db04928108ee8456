// The labeler's page: one pair, one key, one acknowledged answer.
//
// An answer is first written to localStorage under its lease, then sent until the server says that it is durable; only then
// the page says "Saved" and shows the next pair. Texts are shown by words.js.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const labeler = document.querySelector("[data-labeler]").dataset.labeler;
  const KEYS = { 1: "left", ArrowLeft: "left", 2: "right", ArrowRight: "right", t: "tie", b: "both_bad" };
  const SAID = { left: "Reply 1", right: "Reply 2", tie: "Tie", both_bad: "Both bad", skip: "Skipped" };
  const ROLES = { system: "System", user: "User", assistant: "Assistant", tool: "Tool" };
  const TIMEOUT_MS = 15000;
  const LONGEST_WAIT_S = 30;
  const SETTLE_MS = 250; // a key pressed twice for the last pair must not judge the next one unseen

  const KEPT = 100; // answers whose strength an undo brings back
  const BEAT_MS = 300000;
  let task = null;
  let strength = null; // 1 slightly, 3 much
  let isAsked = false; // whether to take the consent back, once
  let texts = null; // guideline, consent, and what was agreed to
  let busy = false;
  let shownAt = 0; // when this pair came up, for SETTLE_MS
  let visibleSince = null; // since when it is looked at; null = tab hidden
  let lookedMs = 0;
  let wakeUp = null; // ends the wait before the next try

  const store = {
    name: (key) => `rlhf ${labeler} ${key}`,
    get(key) { try { return JSON.parse(localStorage.getItem(this.name(key))); } catch { return null; } },
    set(key, value) { try { localStorage.setItem(this.name(key), JSON.stringify(value)); } catch { /* full or forbidden */ } },
    drop(key) { try { localStorage.removeItem(this.name(key)); } catch { /* forbidden */ } },
  };

  // --- the server -----------------------------------------------------------------------------------------------------

  class Refusal extends Error {
    constructor(status, error) { super(`${error.message}: ${error.fix}`); Object.assign(this, { status, code: error.code, said: error.message }); }
  }

  /** JSON of a 2xx. Throws Refusal for an answer of the server that trying again won't change, any other error otherwise. */
  async function call(method, path, body) {
    const response = await fetch(path, {
      method, headers: { Accept: "application/json", ...(body && { "Content-Type": "application/json" }) },
      body: body && JSON.stringify(body), signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store",
    });
    if (response.status === 401) { location.assign("/login"); await new Promise(() => {}); }
    const json = await response.json();
    if (response.ok) return json;
    if (response.status >= 500 || [408, 429].includes(response.status)) throw Object.assign(new Error(), { said: json.error.message });
    throw new Refusal(response.status, json.error);
  }

  async function load() {
    try {
      show(await call("GET", "/api/tasks/next"));
    } catch (error) {
      task = null;
      if (error.code === "agreement_wanted") { await askToAgree(error.said); return; }
      if (error.code === "paused") { await showPause(); return; }
      $("failed-text").textContent = error instanceof Refusal ? error.message : "The server can’t be reached. Check the network.";
      only("failed");
    }
  }

  /** Show the texts that must be agreed to before the first pair, and again when they have changed. */
  async function askToAgree(why) {
    texts = await call("GET", "/api/texts");
    $("wanted-text").textContent = `${why[0].toUpperCase()}${why.slice(1)}.`;
    Words.show($("wanted-guideline"), texts.guideline.body, texts.guideline.nodes);
    Words.show($("wanted-consent"), texts.consent.body, texts.consent.nodes);
    only("wanted");
    $("main").focus({ preventScroll: true });
  }

  async function agree() {
    try {
      await call("POST", "/api/agree", { guideline: texts.guideline.digest, consent: texts.consent.digest });
      say("");
    } catch (error) {
      say(error instanceof Refusal ? error.said : "The server can’t be reached. Try again", "problem");
    }
    await load();
  }

  /** Why this labeler is paused, their appeal, and what a reviewer said to it. */
  async function showPause(sent) {
    task = null;
    try {
      const { pause } = sent || await call("GET", "/api/appeal");
      if (!pause) { await load(); return; }
      $("paused-text").textContent = `Since ${pause.since.slice(0, 10)}: ${pause.reason}.`;
      $("appeal-box").hidden = pause.appeal !== null || pause.decision !== null;
      for (const [box, text] of [["appealed", pause.appeal], ["decided", pause.decision]]) {
        $(box).hidden = text === null;
        $(`${box}-text`).textContent = text || "";
      }
      $("appeal-status").textContent = pause.appeal !== null && pause.decision === null ? "It is sent. A reviewer decides; look again later." : "";
      only("paused");
      $("main").focus({ preventScroll: true });
    } catch {
      $("failed-text").textContent = "The server can’t be reached. Check the network.";
      only("failed");
    }
  }

  async function sendAppeal() {
    try {
      await showPause(await call("POST", "/api/appeal", { text: $("appeal").value }));
    } catch (error) {
      $("appeal-status").textContent = error instanceof Refusal ? error.message : "The server can’t be reached: your appeal is not sent. Try again.";
    }
  }

  /** The first press of the button asks, the second one does it. */
  function askWithdraw(is) {
    isAsked = is;
    $("withdraw").textContent = is ? "Yes, take my consent back" : "Take my consent back";
    $("withdraw-ask").textContent = is ? "Your answers are then left out of everything that is made from now on, and you get no more pairs. Press once more to take your consent back." : "";
  }

  async function withdraw(event) {
    if (event.detail > 1) return; // a double click is one press
    if (!isAsked) { askWithdraw(true); return; }
    $("guide-box").close();
    try {
      await call("POST", "/api/withdraw", {});
      say("Your consent is taken back");
    } catch (error) {
      say(error instanceof Refusal ? error.said : "The server can’t be reached: your consent stands. Try again", "problem");
    }
    await load();
  }

  async function showGuide() {
    try {
      texts = await call("GET", "/api/texts");
    } catch {
      say("The guidelines can’t be fetched: the server can’t be reached", "problem");
      return;
    }
    Words.show($("guide-text"), texts.guideline.body, texts.guideline.nodes);
    Words.show($("guide-consent"), texts.consent.body, texts.consent.nodes);
    $("guide-rules").textContent = texts.rules;
    askWithdraw(false);
    $("withdraw").hidden = !(texts.agreement && texts.agreement.in_force);
    $("guide-box").showModal();
  }

  /** While a pair is looked at it stays this labeler's. */
  function beat() {
    if (task && !busy && !document.hidden) call("POST", "/api/heartbeat", { lease: task.lease }).catch(() => {});
  }

  /** Send an answer until it is saved or refused for good. */
  async function deliver(pending) {
    setBusy(true);
    let next = null; // what came with the acknowledgement
    for (let wait_s = 1; ; wait_s = Math.min(2 * wait_s, LONGEST_WAIT_S)) {
      try {
        next = await call("POST", "/api/judgements", { ...pending, next: true });
        settle(pending);
        say(pending.answer === "skip" ? "Skipped" : `Saved: ${SAID[pending.answer]}`, "saved");
        break;
      } catch (error) {
        if (error instanceof Refusal) {
          store.drop("pending");
          say(error.message, "problem");
          if (error.status === 400 && task && task.lease === pending.lease) { setBusy(false); return; }
          store.drop(`note ${pending.lease}`);
          break;
        }
        await pause(wait_s, error.said || "the server can’t be reached");
      }
    }
    $("banner").hidden = true;
    if (next && next.paused) await showPause(); else if (next) show(next); else await load();
    setBusy(false);
  }

  function show({ task: given, progress }) {
    showProgress(progress);
    if (given) showTask(given); else showEmpty(progress);
  }

  function settle(pending) {
    if (pending.strength !== null) store.set("strengths", [[pending.lease, pending.strength], ...(store.get("strengths") || [])].slice(0, KEPT));
    store.drop("pending");
    store.drop(`note ${pending.lease}`);
  }

  async function pause(wait_s, why) {
    say("Not saved yet", "problem");
    $("banner-text").textContent = `Not saved yet: ${why}. Your answer is kept in this browser; next try in ${wait_s} s.`;
    $("banner").hidden = false;
    await new Promise((resolve) => { wakeUp = resolve; setTimeout(resolve, 1000 * wait_s); });
  }

  // --- what the labeler does ------------------------------------------------------------------------------------------

  function choose(answer, reason = null) {
    if (busy || !task || performance.now() - shownAt < SETTLE_MS) return;
    const isChoice = answer === "left" || answer === "right";
    const pending = { lease: task.lease, answer, seconds: looked_s(), strength: isChoice ? strength : null, note: $("note").value.trim() || null, reason };
    store.set("pending", pending);
    $("left-card").classList.toggle("chosen", answer === "left");
    $("right-card").classList.toggle("chosen", answer === "right");
    closeSkip();
    say("Saving…");
    deliver(pending);
  }

  /** How much better the reply is that is chosen next; the same again takes it back. */
  function setStrength(value) {
    if (!busy && task) markStrength(strength === value ? null : value);
  }

  function markStrength(value) {
    strength = value;
    for (const button of document.querySelectorAll("[data-strength]")) button.setAttribute("aria-pressed", String(Number(button.dataset.strength) === strength));
  }

  async function undo() {
    if (busy) return;
    setBusy(true);
    try {
      const { task: given, progress, before } = await call("POST", "/api/undo", {});
      showProgress(progress);
      showTask(given);
      if (before) bringBack(before);
      say("Undone: this is your last pair again");
    } catch (error) {
      if (error instanceof Refusal) say(error.message, "problem");
      else { await load(); say("The network failed during the undo; this is where you are now", "problem"); }
    }
    setBusy(false);
  }

  /** What was said with the answer that is taken back. The server tells the note; the strength is this browser's own: kept for
   * judgements alone, it would tell from the server which pairs were checks. */
  function bringBack(before) {
    $("note").value = before.note || "";
    store.set(`note ${task.lease}`, $("note").value);
    openNote($("note").value !== "");
    const said = (store.get("strengths") || []).find(([lease]) => lease === before.lease);
    markStrength(said ? said[1] : null);
  }

  function openSkip() {
    if (busy || !task) return;
    $("skip-box").hidden = false;
    document.body.classList.add("skipping");
    $("skip").setAttribute("aria-expanded", "true");
    $("reason").focus();
  }

  function closeSkip() {
    if ($("skip-box").contains(document.activeElement)) $("main").focus({ preventScroll: true });
    $("skip-box").hidden = true;
    document.body.classList.remove("skipping");
    $("skip").setAttribute("aria-expanded", "false");
    $("reason").value = "";
  }

  function openNote(open) {
    $("note-box").hidden = !open;
    $("note-toggle").setAttribute("aria-expanded", String(open));
    markNote();
  }

  function markNote() {
    $("note-toggle").classList.toggle("written", $("note").value.trim() !== "");
  }

  function writeNote() {
    if (busy || !task) return;
    openNote(true);
    $("note").focus();
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key === "Escape" && typing) {
      if (typing.id === "reason") closeSkip();
      else openNote(false);
      $("main").focus({ preventScroll: true });
      return;
    }
    if (typing || event.repeat) return; // a key held down judges once
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const deed = Object.hasOwn(KEYS, key) ? () => choose(KEYS[key])
      : { s: openSkip, u: undo, n: writeNote, g: showGuide, r: () => $("report").click(), l: () => setStrength(1), m: () => setStrength(3), "?": () => $("help-box").showModal() }[key];
    if (!deed) return;
    event.preventDefault();
    deed();
  }

  // --- what the labeler sees ------------------------------------------------------------------------------------------

  function only(id) {
    for (const other of ["waiting", "empty", "wanted", "paused", "failed", "task"]) $(other).hidden = other !== id;
    $("actions").hidden = id === "waiting" || id === "wanted" || id === "paused";
    $("report-form").hidden = id !== "task";
    $("actions").classList.toggle("resting", id !== "task"); // the status and the undo stay, the choices go
  }

  function showTask(given) {
    const isNew = !task || task.lease !== given.lease;
    task = given;
    $("report").dataset.lease = given.lease; // report.js sends it
    const last = given.prompt.length - 1;
    $("review").hidden = !given.review;
    $("prompt").replaceChildren(...given.prompt.map((turn, i) => turnOf(turn, given.nodes.prompt[i], i === last)));
    $("prompt-title").parentElement.hidden = last < 0;
    Words.show($("left-text"), given.left, given.nodes.left);
    Words.show($("right-text"), given.right, given.nodes.right);
    for (const card of ["left-card", "right-card"]) $(card).classList.remove("chosen");
    $("note").value = store.get(`note ${given.lease}`) || "";
    openNote($("note").value !== "");
    only("task");
    if (isNew) {
      markStrength(null);
      window.scrollTo(0, 0);
      $("main").focus({ preventScroll: true });
      shownAt = performance.now();
      lookedMs = 0;
      visibleSince = document.hidden ? null : shownAt;
    }
  }

  function turnOf(turn, nodes, isLast) {
    const item = document.createElement("li");
    item.className = `turn ${turn.role === "user" ? "user" : "other"} ${isLast ? "last" : "earlier"}`;
    const role = document.createElement("span");
    role.className = "role";
    role.textContent = ROLES[turn.role] || turn.role;
    const text = document.createElement("div");
    text.className = "text";
    text.dir = "auto";
    text.lang = "";
    Words.show(text, turn.content, nodes);
    item.append(role, text);
    return item;
  }

  function showEmpty(progress) {
    task = null;
    const waiting = progress.n_left > 0;
    $("empty-title").textContent = waiting ? "Others are on the last pairs" : progress.n_done ? "All done, thank you" : "Nothing to label yet";
    $("empty-text").textContent = waiting ? "What is left is on other labelers’ screens. What they don’t answer comes back within half an hour."
      : progress.n_done ? "Every pair has its answers. New ones show up here when they are imported."
      : "No pair waits for an answer. They show up here once feedback is imported.";
    only("empty");
    $("main").focus({ preventScroll: true }); // the button that was pressed is gone
  }

  function showProgress(progress) {
    const number = new Intl.NumberFormat();
    $("today").textContent = number.format(progress.n_done_today);
    $("done").textContent = number.format(progress.n_done);
    $("left").textContent = number.format(progress.n_left);
    $("bar").max = Math.max(1, progress.n_done + progress.n_left);
    $("bar").value = progress.n_done;
    $("counts").hidden = false;
  }

  function say(text, kind = "") {
    $("status").className = kind;
    $("status").textContent = text;
  }

  function setBusy(is) {
    busy = is;
    document.body.classList.toggle("busy", is);
    for (const button of document.querySelectorAll("[data-answer]")) button.setAttribute("aria-disabled", String(is));
  }

  function looked_s() {
    const now = performance.now();
    return Math.round((lookedMs + (visibleSince === null ? 0 : now - visibleSince)) / 100) / 10;
  }

  // --- wiring ---------------------------------------------------------------------------------------------------------

  document.addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", () => {
    const now = performance.now();
    if (document.hidden && visibleSince !== null) { lookedMs += now - visibleSince; visibleSince = null; }
    else if (!document.hidden && visibleSince === null) visibleSince = now;
  });
  for (const button of document.querySelectorAll("[data-answer]")) button.addEventListener("click", () => choose(button.dataset.answer));
  $("skip").addEventListener("click", () => ($("skip-box").hidden ? openSkip() : closeSkip()));
  $("skip-cancel").addEventListener("click", closeSkip);
  $("skip-box").addEventListener("submit", (event) => { event.preventDefault(); choose("skip", $("reason").value.trim() || null); });
  $("note-toggle").addEventListener("click", () => ($("note-box").hidden ? writeNote() : openNote(false)));
  $("note").addEventListener("input", () => { if (task) store.set(`note ${task.lease}`, $("note").value); markNote(); });
  $("undo").addEventListener("click", undo);
  for (const button of document.querySelectorAll("[data-strength]")) button.addEventListener("click", () => setStrength(Number(button.dataset.strength)));
  $("guide").addEventListener("click", showGuide);
  $("agree").addEventListener("click", agree);
  $("withdraw").addEventListener("click", withdraw);
  $("withdraw").addEventListener("keydown", (event) => { if (event.repeat) event.preventDefault(); }); // a key held down is one press
  $("appeal-box").addEventListener("submit", (event) => { event.preventDefault(); sendAppeal(); });
  $("paused-again").addEventListener("click", load);
  setInterval(beat, BEAT_MS);
  $("help").addEventListener("click", () => $("help-box").showModal());
  $("retry").addEventListener("click", () => wakeUp && wakeUp());
  window.addEventListener("online", () => wakeUp && wakeUp());
  for (const id of ["again", "failed-again"]) $(id).addEventListener("click", load);
  $("logout").addEventListener("click", async () => {
    await fetch("/logout", { method: "POST" }).catch(() => {});
    location.assign("/login");
  });

  const kept = store.get("pending"); // an answer that an earlier visit could not deliver
  if (kept && kept.lease) deliver(kept); else load();
})();
