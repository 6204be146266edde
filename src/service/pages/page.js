// The pages of Lifeboat work without this. It keeps them fresh, shows how far jobs are, and copies commands.
"use strict";
(() => {
  const live = document.getElementById("live");
  const status = document.getElementById("status");
  const say = (text) => { if (status && status.textContent !== text) status.textContent = text; };

  // Fetches this page again and takes over the part that changes, unless somebody is typing in it.
  let under_way = false;
  async function refresh() {
    const active = document.activeElement;
    const typing = active && live.contains(active) && /^(INPUT|SELECT|TEXTAREA)$/.test(active.tagName);
    if (under_way || typing || document.hidden) return;
    under_way = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
      if (fresh) { live.replaceChildren(...fresh.childNodes); copyable(live); }
      document.body.classList.remove("stale");
    } catch (e) {
      say("This page could not be refreshed: it shows what was true when it was loaded.");
      document.body.classList.add("stale");
    } finally { under_way = false; }
  }

  function copyable(root) {
    for (const box of root.querySelectorAll(".command")) {
      if (!navigator.clipboard || box.querySelector("button")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Copy";
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(box.querySelector("pre").textContent);
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      });
      box.append(button);
    }
  }
  copyable(document);
  if (!live) return;

  const size = (n) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (n >= 1024 && unit + 1 < units.length) { n /= 1024; unit += 1; }
    return (unit ? n.toFixed(1) : n) + " " + units[unit];
  };

  // Jobs as they go on: those that are on the page are moved forward; when others are there, the page is fetched again.
  let known = null;
  function jobs(list) {
    const scope = live.dataset.environment;
    const mine = list.filter((job) => !scope || job.environment === scope);
    const names = mine.map((job) => job.run + job.state).join();
    if (known !== null && names !== known) { say("Jobs changed."); refresh(); }
    known = names;
    for (const job of mine) {
      const box = [...live.querySelectorAll("[data-run]")].find((b) => b.dataset.run === job.run);
      if (!box) continue;
      const phase = box.querySelector(".phase");
      if (phase && job.phase) {
        const total = job.total ? " of " + size(job.total) : "";
        phase.textContent = job.bytes ? job.phase + ", " + size(job.bytes) + total : job.phase;
      }
      const bar = box.querySelector("progress");
      if (bar && job.total) { bar.max = job.total; bar.value = job.bytes || 0; }
    }
  }

  const events = new EventSource("/api/v1/events");
  events.addEventListener("jobs", (event) => jobs(JSON.parse(event.data)));
  setInterval(refresh, 30000);
})();
