// The keyboard. One table: what a key does and what the help says of it. Off while typing, with modifiers, and by its own switch.
const OFF = "looseends.keys.off";
const go = (path) => () => location.assign(path);
const rows = () => [...document.querySelectorAll("main tbody tr")].filter((row) => row.querySelector("a[href]"));

function step(by) {
  const all = rows();
  const at = all.indexOf(document.activeElement.closest("tr"));
  const row = all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + by))];
  row?.querySelector("td a[href]").focus();
}

function search() {
  const field = document.querySelector("main input[type=search]") ?? document.querySelector("input[type=search]");
  field?.focus();
  field?.select();
}

const KEYS = [
  ["/", "search", search],
  ["?", "this help", () => help()],
  ["g o", "overview", go("/")],
  ["g t", "tasks", go("/tasks")],
  ["g l", "loose ends", go("/tasks?q=is:loose")],
  ["g i", "incidents", go("/incidents")],
  ["g r", "replays", go("/replays")],
  ["g y", "types", go("/types")],
  ["g n", "instances", go("/instances")],
  ["g s", "status", go("/status")],
  ["j", "next row", () => step(1)],
  ["k", "row before", () => step(-1)],
  ["x", "select the row", () => document.activeElement.closest("tr")?.querySelector("input[type=checkbox]")?.click()],
  ["r", "replay: the plan, or the form of this task", () => document.querySelector("main [data-replay], main .primary")?.focus()],
  ["y", "copy the address of this page", () => navigator.clipboard?.writeText(location.href)],
  ["p", "pause or go on with live updates", () => document.getElementById("live")?.click()],
];
const PICTURE = [["← →", "move in the picture"], ["Shift ← →", "select in it"], ["Enter", "zoom to the selection"], ["Esc", "clear it"]];

function help() {
  let dialog = document.getElementById("keys");
  if (!dialog) {
    dialog = document.createElement("dialog");
    dialog.id = "keys";
    dialog.setAttribute("aria-label", "Keys");
    const list = document.createElement("dl");
    for (const [key, words] of [...KEYS, ...PICTURE]) {
      const dt = list.appendChild(document.createElement("dt"));
      dt.appendChild(document.createElement("kbd")).textContent = key;
      list.appendChild(document.createElement("dd")).textContent = words;
    }
    const label = document.createElement("label");
    const box = label.appendChild(document.createElement("input"));
    box.type = "checkbox";
    box.checked = !localStorage.getItem(OFF);
    box.addEventListener("change", () => (box.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "1")));
    label.append(" single keys are on");
    const close = document.createElement("button");
    close.textContent = "Close";
    close.addEventListener("click", () => dialog.close());
    dialog.append(list, label, close);
    document.body.append(dialog);
  }
  dialog.showModal();
}

const opener = document.getElementById("help");
opener?.addEventListener("click", help);
if (opener) opener.className = "";

let before = "";
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey || typing || document.querySelector("dialog[open]")) return;
  if (localStorage.getItem(OFF) && event.key !== "?") return;
  const pressed = before ? `${before} ${event.key}` : event.key;
  before = "";
  const found = KEYS.find(([key]) => key === pressed) ?? KEYS.find(([key]) => key === event.key);
  if (found) {
    event.preventDefault();
    found[2]();
  } else if (event.key === "g") {
    before = "g";
    setTimeout(() => (before = ""), 1500);
  }
});
