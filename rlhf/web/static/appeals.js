// Paused labelers and their appeals. Everything that a person wrote is set as text.
"use strict";
(() => {
  const { $, call, el } = Desk;
  const SAID = { pause: "Paused", appeal: "Appeal", uphold: "Upheld" };

  async function load() {
    let found;
    try {
      found = await call("GET", "/api/appeals");
      $("problem").textContent = "";
    } catch (error) {
      $("problem").textContent = error.said || "The server can’t be reached. Check the network and load the page again.";
      return;
    }
    const waiting = found.paused.filter((one) => one.log.at(-1).action === "appeal").length;
    $("summary").textContent = `${found.paused.length} paused, ${waiting} waiting for an answer`;
    $("none").hidden = found.paused.length > 0;
    $("logs").replaceChildren(...found.paused.map((one) => oneOf(one, found.me)));
  }

  function oneOf(one, me) {
    const steps = one.log.map((entry) => {
      const words = el("p", "said", entry.why);
      words.dir = "auto";
      words.lang = "";
      const by = entry.action === "appeal" || entry.who === one.labeler ? "" : `, by ${entry.who}`;
      return el("li", "", el("p", "eyebrow", `${SAID[entry.action] || entry.action} ${entry.at.slice(0, 16).replace("T", " ")}${by}`), words);
    });
    const title = el("h2", "", one.labeler);
    title.id = `name-${one.labeler}`;
    const box = el("li", "log", title, el("ol", "steps", ...steps), one.labeler === me ? el("p", "quiet", "Somebody else decides about you.") : formOf(one));
    box.setAttribute("aria-labelledby", title.id);
    return box;
  }

  function formOf(one) {
    const why = el("textarea", "");
    Object.assign(why, { id: `why-${one.labeler}`, rows: 2, maxLength: 2000, dir: "auto" });
    const label = el("label", "", `Why, in words for ${one.labeler}`);
    label.htmlFor = why.id;
    const problem = el("p", "problem");
    problem.setAttribute("role", "alert");
    const buttons = [["resume", "primary", "Let them label again"], ["uphold", "", "Keep the pause"]].filter(([decision]) => decision === "resume" || one.log.at(-1).action === "appeal");
    const row = el("p", "row", ...buttons.map(([decision, look, words]) => {
      const button = el("button", look, words);
      button.type = "button";
      button.setAttribute("aria-describedby", `name-${one.labeler}`);
      button.addEventListener("click", () => decide(one, decision, why, problem));
      return button;
    }));
    return el("div", "", label, why, problem, row);
  }

  async function decide(one, decision, why, problem) {
    if (!why.value.trim()) { problem.textContent = "Say why first: they read it."; why.focus(); return; }
    try {
      await call("POST", `/api/appeals/${encodeURIComponent(one.labeler)}`, { seen: one.seq, decision, why: why.value.trim() });
    } catch (error) {
      problem.textContent = error.said || "Not saved: the server can’t be reached. What you wrote is still here; try again.";
      return;
    }
    await load();
    $("main").focus();
  }

  load();
})();
