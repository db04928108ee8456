// Reporting the pair on the screen, and what became of one's reports. label.js says under which lease the pair was given.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const box = $("report-box");

  async function call(method, body) {
    const response = await fetch("/api/items", {
      method, headers: { Accept: "application/json", ...(body && { "Content-Type": "application/json" }) },
      body: body && JSON.stringify(body), signal: AbortSignal.timeout(15000), cache: "no-store",
    });
    if (response.status === 401) { location.assign("/login"); await new Promise(() => {}); }
    const json = await response.json();
    if (!response.ok) throw Object.assign(new Error(), { said: `${json.error.message}: ${json.error.fix}` });
    return json;
  }

  function open() {
    $("report-error").textContent = "";
    $("report-title").hidden = $("report-form").hidden;
    $("report-close-row").hidden = !$("report-form").hidden;
    box.showModal();
    refresh();
  }

  async function refresh() {
    try {
      show((await call("GET")).items);
    } catch (error) {
      $("reports-none").textContent = error.said || "The server can’t be reached: your reports can’t be shown.";
      $("reports-none").hidden = false;
    }
  }

  function show(items) {
    $("reports").replaceChildren(...items.map(entryOf));
    $("reports-none").textContent = "You have reported nothing yet.";
    $("reports-none").hidden = items.length > 0;
  }

  function entryOf(item) {
    const entry = document.createElement("li");
    const head = document.createElement("p");
    head.className = "said";
    head.dir = "auto";
    head.textContent = item.text || (item.kind === "safety" ? "It could harm somebody" : "A report");
    const told = document.createElement("ul");
    for (const line of item.told) {
      const point = document.createElement("li");
      point.dir = "auto";
      point.textContent = line;
      told.append(point);
    }
    entry.append(head, told);
    return entry;
  }

  async function send(event) {
    event.preventDefault();
    $("report-error").textContent = "";
    const kind = document.querySelector("[name=report-kind]:checked").value;
    try {
      await call("POST", { lease: $("report").dataset.lease, kind, text: $("report-text").value.trim() || null });
    } catch (error) {
      $("report-error").textContent = error.said || "Not sent: the server can’t be reached. What you wrote is still here; try again.";
      return;
    }
    $("report-text").value = "";
    box.close();
    $("status").className = "saved";
    $("status").textContent = kind === "safety" ? "Reported: an expert looks at it. You may skip the pair" : "Reported. You can go on as usual";
  }

  $("report").addEventListener("click", open);
  $("report-form").addEventListener("submit", send);
  for (const id of ["report-cancel", "report-close"]) $(id).addEventListener("click", () => box.close());
})();
