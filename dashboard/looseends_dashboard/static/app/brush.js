// Selecting a part of the gap picture by mouse, touch or keyboard. The selection is in the address, so it can be shared; what it
// holds is asked of the server, so it is the ledger's own count.
const box = document.querySelector(".brush");

if (box) {
  const svg = () => box.querySelector("svg.gap");
  const bars = () => +svg().dataset.bars;
  const from = () => +svg().dataset.from;
  const bar = () => (+svg().dataset.to - from()) / bars();
  const iso = (n) => new Date(from() + n * bar()).toISOString();
  let anchor = null;
  let cursor = null;
  let touched = null;
  let asking = 0;

  box.tabIndex = 0;
  box.setAttribute("role", "slider");
  box.setAttribute("aria-label", "The gap picture: arrow keys move, with Shift they select, Enter zooms, Escape clears");
  box.setAttribute("aria-valuemin", 0);

  const at = (event) => {
    const place = svg().getBoundingClientRect();
    return Math.max(0, Math.min(bars() - 1, Math.floor(((event.clientX - place.left) / place.width) * bars())));
  };
  const span = () => [Math.min(anchor, cursor), Math.max(anchor, cursor) + 1];

  function paint() {
    const rect = svg().querySelector(".picked");
    const [a, b] = anchor === null ? [0, 0] : span();
    rect.setAttribute("x", `${(a / bars()) * 100}%`);
    rect.setAttribute("width", `${((b - a) / bars()) * 100}%`);
    box.setAttribute("aria-valuemax", bars() - 1);
    box.setAttribute("aria-valuenow", cursor ?? 0);
    if (cursor !== null) {
      const words = `${iso(a).slice(0, 16).replace("T", " ")} to ${iso(b).slice(0, 16).replace("T", " ")} UTC`;
      box.setAttribute("aria-valuetext", words);
    }
  }

  // The line under the picture for what is selected; the newest question wins.
  async function ask() {
    const url = new URL(location.href);
    for (const name of ["sel_from", "sel_to"]) url.searchParams.delete(name);
    if (anchor !== null) {
      const [a, b] = span();
      url.searchParams.set("sel_from", iso(a));
      url.searchParams.set("sel_to", iso(b));
    }
    history.replaceState(null, "", url);
    url.searchParams.set("part", "picked");
    const mine = ++asking;
    try {
      const answer = await fetch(url, { cache: "no-store" });
      if (!answer.ok || mine !== asking) return;
      const doc = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.getElementById("picked").replaceChildren(...doc.body.childNodes);
    } catch {
      // the daemon is away; the sign at the top says so
    }
  }

  function clear() {
    anchor = cursor = null;
    paint();
    ask();
  }

  function zoom() {
    const link = document.querySelector("#picked [data-zoom]");
    if (link) location.assign(link.href);
  }

  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    touched = event.pointerType === "touch" ? [event.clientX, event.clientY] : null;
    anchor = cursor = at(event);
    box.setPointerCapture(event.pointerId);
    paint();
  });
  box.addEventListener("pointermove", (event) => {
    if (!box.hasPointerCapture(event.pointerId) || anchor === null) return;
    cursor = at(event);
    paint();
  });
  box.addEventListener("pointerup", (event) => {
    if (anchor === null) return;
    const still = touched && Math.hypot(event.clientX - touched[0], event.clientY - touched[1]) < 4;
    cursor = at(event);
    touched = null;
    if (still) paint();
    ask();
  });
  // A finger that scrolls the page takes its pointer away: then nothing was selected.
  box.addEventListener("pointercancel", () => {
    anchor = cursor = null;
    paint();
  });
  box.addEventListener("dblclick", zoom);

  box.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (move !== undefined) {
      event.preventDefault();
      const old = cursor ?? bars() - 1;
      cursor = Math.max(0, Math.min(bars() - 1, old + move));
      anchor = event.shiftKey ? (anchor ?? old) : cursor;
      paint();
      settle();
    } else if (event.key === "Enter") {
      zoom();
    } else if (event.key === "Escape") {
      clear();
    }
  });

  let timer = 0;
  function settle() {
    clearTimeout(timer);
    timer = setTimeout(ask, 150);
  }

  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-clear]") || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    clear();
    box.focus();
  });
  document.addEventListener("patched", () => cursor !== null && paint());
  paintFromAddress();

  function paintFromAddress() {
    const asked = new URLSearchParams(location.search);
    const [a, b] = [Date.parse(asked.get("sel_from")), Date.parse(asked.get("sel_to"))];
    box.setAttribute("aria-valuemax", bars() - 1);
    box.setAttribute("aria-valuenow", 0);
    if (!(a < b)) return;
    anchor = Math.max(0, Math.floor((a - from()) / bar()));
    cursor = Math.min(bars() - 1, Math.ceil((b - from()) / bar()) - 1);
    paint();
  }
}
