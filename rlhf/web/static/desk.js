// What the pages of reviewers and operators share: asking the server, building elements out of words, and the way out.
"use strict";
const Desk = (() => {
  const ASK_MS = 15000;

  /** The answer's JSON. Throws an error whose `said` is the server's refusal in words; without it the server wasn't reached. */
  async function call(method, path, body, waits_ms = ASK_MS) {
    const response = await fetch(path, {
      method, headers: { Accept: "application/json", ...(body && { "Content-Type": "application/json" }) },
      body: body && JSON.stringify(body), signal: AbortSignal.timeout(waits_ms), cache: "no-store",
    });
    if (response.status === 401) { location.assign("/login"); await new Promise(() => {}); }
    const json = await response.json();
    if (!response.ok) throw Object.assign(new Error(), { said: `${json.error.message}: ${json.error.fix}` });
    return json;
  }

  /** An element with a class and children; a string is text. */
  function el(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  }

  document.getElementById("logout").addEventListener("click", async () => {
    await fetch("/logout", { method: "POST" }).catch(() => {});
    location.assign("/login");
  });

  return { $: (id) => document.getElementById(id), call, el };
})();
