// Saved views: searches with a name, kept in this browser. An address says the same to everybody else.
const VIEWS = "looseends.views";
const VIEWS_MAX = 30;
const place = document.getElementById("views");

if (place) {
  const read = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(VIEWS) ?? "[]");
      return Array.isArray(kept) ? kept.filter((view) => typeof view?.name === "string" && String(view.path).startsWith("/tasks")) : [];
    } catch {
      return [];
    }
  };
  const keep = (views) => {
    localStorage.setItem(VIEWS, JSON.stringify(views.slice(0, VIEWS_MAX)));
    draw();
  };
  const button = (words, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = words;
    made.addEventListener("click", act);
    return made;
  };

  function draw() {
    const list = document.createElement("ul");
    for (const view of read()) {
      const item = list.appendChild(document.createElement("li"));
      const link = item.appendChild(document.createElement("a"));
      link.href = view.path;
      link.textContent = view.name;
      const drop = button("×", () => keep(read().filter((other) => other.name !== view.name)));
      drop.setAttribute("aria-label", `Forget ${view.name}`);
      item.append(drop);
    }
    const form = document.createElement("form");
    const field = form.appendChild(document.createElement("input"));
    field.required = true;
    field.maxLength = 60;
    field.setAttribute("aria-label", "Name of this view");
    field.placeholder = "name this view";
    form.append(button("Save", () => form.requestSubmit()));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const here = new URL(location.href);
      here.searchParams.delete("cursor");
      const view = { name: field.value.trim(), path: here.pathname + here.search };
      if (view.name) keep([view, ...read().filter((other) => other.name !== view.name)]);
    });
    place.querySelector("[data-views]").replaceChildren(list, form);
  }
  place.hidden = false;
  draw();
}
