// An invitation: its code comes in the link's fragment (which no server sees) and is posted once the texts were agreed to.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const SCOPES = { train: "to train models", evaluate: "to measure models", publish: "in what is published" };
  const code = new URLSearchParams(location.hash.slice(1)).get("code") || "";
  history.replaceState(null, "", location.pathname); // no code stays in the address bar or the history
  let texts = null;

  async function post(path, fields) {
    return fetch(path, { method: "POST", headers: { Accept: "application/json" }, body: new URLSearchParams({ code, ...fields }) });
  }

  async function look() {
    try {
      const response = await post("/invite", {});
      const answer = await response.json();
      if (!response.ok) { refuse(`${answer.error.message}: ${answer.error.fix}`); return; }
      texts = answer;
      $("as-role").textContent = ` as ${answer.roles.join(" and ")}`;
      Words.show($("guideline"), answer.guideline.body, answer.guideline.nodes);
      Words.show($("consent"), answer.consent.body, answer.consent.nodes);
      $("scopes").textContent = `Your answers may be used ${answer.consent.scopes.map((scope) => SCOPES[scope] || scope).join(" and ")}.`;
      $("asked").hidden = true;
      $("accept").hidden = false;
      $("agreed").focus();
    } catch {
      refuse("The server can’t be reached. Check the network and open the link again.");
    }
  }

  function refuse(text) {
    $("asked").setAttribute("aria-busy", "false");
    $("asked-text").className = "problem";
    $("asked-text").setAttribute("role", "alert");
    $("asked-text").textContent = text;
  }

  $("accept").addEventListener("submit", async (event) => {
    event.preventDefault();
    $("accept-error").textContent = "";
    try {
      const response = await post("/invite/accept", { guideline: texts.guideline.digest, consent: texts.consent.digest });
      if (response.ok) { location.replace("/"); return; }
      const { error } = await response.json();
      $("accept-error").textContent = `${error.message}: ${error.fix}`;
    } catch {
      $("accept-error").textContent = "The server can’t be reached. Check the network and try again.";
    }
  });

  if (code) look(); else refuse("This address needs the whole link that you were given: it ends in #code=…");
})();
