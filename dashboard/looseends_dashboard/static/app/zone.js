// Times: the server writes UTC; here they become this browser's zone if that is chosen, and ages stay true while a page is open.
const ZONE = "looseends.zone";
const asked = new URLSearchParams(location.search).get("tz");
let local = (asked ?? localStorage.getItem(ZONE)) === "local";
const full = (at) => at.toLocaleString("sv-SE", { hour12: false });

function age(seconds) {
  const s = Math.abs(seconds);
  if (s < 1) return "just now";
  const [size, unit] = s >= 172800 ? [86400, "d"] : s >= 7200 ? [3600, "h"] : s >= 120 ? [60, "min"] : [1, "s"];
  const words = `${Math.floor(s / size)} ${unit}`;
  return seconds > 0 ? `${words} ago` : `in ${words}`;
}

// The server's clock, not this one, says how old a thing is.
const skew = Date.now() - (Date.parse(document.body.dataset.now) || Date.now());

function write(scope = document) {
  for (const el of scope.querySelectorAll("time[datetime]")) {
    el.dataset.utc ??= "ago" in el.dataset ? el.title : el.textContent;
    const at = new Date(el.dateTime);
    const clock = local ? full(at) : el.dataset.utc;
    const old = age((Date.now() - skew - at) / 1000);
    const [text, title] = "ago" in el.dataset ? [old, clock] : [clock, old];
    if (el.textContent !== text) el.textContent = text;
    if (el.title !== title) el.title = title;
  }
  for (const el of scope.querySelectorAll("text[data-at]")) {
    el.dataset.utc ??= el.textContent;
    const at = new Date(+el.dataset.at);
    const day = !el.dataset.utc.includes(":");
    el.textContent = local ? (day ? `${full(at).slice(5, 16)}` : full(at).slice(11, 16)) : el.dataset.utc;
  }
}

const said = document.getElementById("zone");
if (said) {
  const button = said.querySelector("button");
  const show = () => {
    const name = local && (Intl.DateTimeFormat().resolvedOptions().timeZone ?? "local"); // asked late: it takes milliseconds
    said.firstChild.textContent = local ? `Times are ${name}. ` : "Times are UTC. ";
    button.textContent = local ? "Show UTC" : "Show local time";
    // For the server, which then says that this must run before the first paint.
    if (local !== ("zone" in document.body.dataset)) document.cookie = `looseends_zone=${local ? "local" : ""}; path=/; max-age=31536000; samesite=lax`;
    write();
  };
  button.addEventListener("click", () => {
    local = !local;
    localStorage.setItem(ZONE, local ? "local" : "utc");
    show();
  });
  button.className = "";
  show();
  setInterval(() => document.hidden || write(), 5000);
}
window.looseends = { write };
