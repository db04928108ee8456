// The log-in: takes a token from the link's fragment (which no server sees) or from the form, and posts it.
"use strict";
(() => {
  const form = document.getElementById("login");
  const field = document.getElementById("token");
  const problem = document.getElementById("login-error");

  async function logIn() {
    problem.textContent = "";
    try {
      const response = await fetch("/login", {
        method: "POST", headers: { Accept: "application/json" }, body: new URLSearchParams({ token: field.value.trim() }),
      });
      if (response.ok) return location.replace("/");
      const { error } = await response.json();
      problem.textContent = `${error.message}: ${error.fix}`;
    } catch {
      problem.textContent = "The server can't be reached. Check the network and try again.";
    }
    field.focus();
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); logIn(); });

  function takeFromLink() {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (!given) return;
    history.replaceState(null, "", location.pathname); // no token stays in the address bar or the history
    field.value = given;
    logIn();
  }

  window.addEventListener("hashchange", takeFromLink); // the link opened again in this tab changes the fragment alone
  takeFromLink();
})();
