// Live updates. A message says that something changed; this page then asks for itself and patches what differs.
// Nothing is inserted or moved under a reader: new rows are counted on a pill, and everything waits while somebody selects.
const STALE_MS = 15000;
const PAUSED = "looseends.paused";
const sign = document.getElementById("live");
const worker = document.body.dataset.worker;
const regions = () => [...document.querySelectorAll("[data-live]")];

if (sign && worker && regions().length) {
  let heard = Date.now();
  let feed = "connecting";
  let wanted = false;
  let busy = false;
  let last = 0;
  let due = 0;
  let stamp = document.body.dataset.stamp;
  let held = new Map();
  let paused = sessionStorage.getItem(PAUSED) === "1";

  const selecting = () => {
    if (document.querySelector("dialog[open]")) return "a dialog is open";
    if (document.querySelector("main tbody input:checked")) return "rows are selected";
    const text = getSelection();
    if (!text.isCollapsed && document.querySelector("main").contains(text.anchorNode)) return "text is selected";
    const field = document.activeElement?.closest("main input:not([type=checkbox]), main textarea");
    return field && field.value !== field.defaultValue ? "something is being typed" : "";
  };

  function say() {
    const stale = Date.now() - heard > STALE_MS;
    const why = selecting();
    const clock = new Date(heard).toTimeString().slice(0, 5);
    const [state, words] =
      feed === "signed-out" ? ["stale", "Signed out"]
      : feed === "old" ? ["stale", "Updated: reload"]
      : stale ? ["stale", `Stale since ${clock}`]
      : paused ? ["paused", "Paused"]
      : why ? ["paused", `Paused: ${why}`]
      : feed === "live" ? ["live", "Live"]
      : ["waiting", "Reconnecting"];
    document.body.classList.toggle("stale", state === "stale");
    sign.dataset.state = state;
    if (sign.textContent !== words) sign.textContent = words;
    sign.setAttribute("aria-pressed", String(paused));
    sign.title = `${words}. ${paused ? "Go on with" : "Pause"} live updates (p)`;
  }

  function pill() {
    const count = [...held.values()].reduce((sum, n) => sum + n, 0);
    let button = document.getElementById("pill");
    if (!count) return button?.remove();
    if (!button) {
      button = document.createElement("button");
      button.id = "pill";
      button.type = "button";
      button.addEventListener("click", () => {
        const to = new URL(location.href);
        to.searchParams.delete("cursor");
        location.assign(to);
      });
      document.body.append(button);
    }
    button.textContent = `${count > 49 ? "50 or more" : count} new: show`;
  }

  // Rows are patched by their id; a new one is only counted, one that is gone is dimmed until the page is shown anew.
  function patchRows(old, fresh) {
    const rows = new Map([...fresh.querySelectorAll("[data-id]")].map((row) => [row.dataset.id, row]));
    let fits = 0;
    for (const row of old.querySelectorAll("[data-id]")) {
      const now = rows.get(row.dataset.id);
      rows.delete(row.dataset.id);
      row.classList.toggle("past", !now);
      if (!now || row.contains(document.activeElement)) continue;
      window.looseends.write(now);
      if (row.innerHTML !== now.innerHTML) row.replaceChildren(...now.childNodes);
      fits += 1;
    }
    held.set(old.dataset.live, rows.size);
    if (!fits && !rows.size) held.delete(old.dataset.live);
  }

  function patch(doc) {
    for (const old of regions()) {
      const fresh = doc.querySelector(`[data-live="${old.dataset.live}"]`);
      if (!fresh) continue;
      if ("rows" in old.dataset) patchRows(old, fresh);
      else {
        window.looseends.write(fresh);
        const held = old.contains(document.activeElement) || old.querySelector(":active");
        if (old.innerHTML !== fresh.innerHTML && !held) old.replaceChildren(...fresh.childNodes);
      }
    }
    document.title = doc.title;
    document.dispatchEvent(new Event("patched"));
    pill();
  }

  async function refresh() {
    if (busy || document.hidden || paused || selecting()) return;
    const wait = last + 1000 - Date.now();
    if (wait > 0) {
      clearTimeout(due);
      due = setTimeout(refresh, wait);
      return;
    }
    busy = true;
    wanted = false;
    last = Date.now();
    try {
      const answer = await fetch(location.href, { cache: "no-store", headers: { Accept: "text/html" } });
      if (answer.redirected && new URL(answer.url).pathname === "/sign-in") feed = "signed-out";
      else if (answer.ok) patch(new DOMParser().parseFromString(await answer.text(), "text/html"));
      else wanted = true;
    } catch {
      wanted = true;
    } finally {
      busy = false;
      say();
    }
  }

  function hear({ kind, state, data }) {
    if (kind === "state") feed = state;
    if (kind !== "state") heard = Date.now();
    if (kind === "now") {
      if (data.assets && data.assets !== document.body.dataset.assets) feed = "old";
      if (stamp !== data.stamp) wanted = true;
      stamp = data.stamp;
    }
    say();
    if (wanted) refresh();
  }

  // One stream for all tabs of a browser: over HTTP/1.1 six open streams are all the connections there are.
  let send = () => {};
  if (self.SharedWorker) {
    const shared = new SharedWorker(worker, { type: "module", name: "looseends" });
    shared.port.onmessage = (event) => hear(event.data);
    send = (words) => shared.port.postMessage(words);
    send(document.hidden ? "hidden" : "visible");
  } else {
    import(worker).then(({ feeding }) => {
      const own = feeding(hear);
      send = (words) => (words === "visible" ? own.open() : own.close());
      send(document.hidden ? "hidden" : "visible");
    });
  }
  document.addEventListener("visibilitychange", () => {
    send(document.hidden ? "hidden" : "visible");
    if (!document.hidden) {
      heard = Date.now();
      wanted = true;
      refresh();
    }
    say();
  });
  addEventListener("pagehide", () => send("bye"));
  addEventListener("pageshow", (event) => event.persisted && send("visible"));
  sign.addEventListener("click", () => {
    if (feed === "old" || feed === "signed-out") return location.reload();
    paused = !paused;
    sessionStorage.setItem(PAUSED, paused ? "1" : "0");
    wanted = true;
    say();
    refresh();
  });
  // What the clock of the daemon moves is in no message: such a page says how often to look (s).
  setInterval(() => {
    say();
    const again = document.querySelector("[data-again]");
    if (again && Date.now() - last > +again.dataset.again * 1000) wanted = true;
    if (wanted) refresh();
  }, 1000);
  say();
}
