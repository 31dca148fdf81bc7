// Suggestions over a plain search field: the field works without them, and they never take the Enter key unless one is chosen.
function suggesting(field, n) {
  const list = document.createElement("ul");
  list.id = `suggestions-${n}`;
  list.className = "suggestions";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Suggestions");
  list.hidden = true;
  const holder = document.createElement("span");
  holder.className = "combo";
  field.replaceWith(holder);
  holder.append(field, list);
  field.setAttribute("role", "combobox");
  field.setAttribute("aria-autocomplete", "list");
  field.setAttribute("aria-controls", list.id);
  field.setAttribute("aria-expanded", "false");
  let items = [];
  let start = 0;
  let active = -1;
  let asking = 0;
  let timer = 0;

  function close() {
    list.hidden = true;
    active = -1;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
  }

  function show() {
    list.replaceChildren(
      ...items.map((item, index) => {
        const option = document.createElement("li");
        option.id = `${list.id}-${index}`;
        option.setAttribute("role", "option");
        option.setAttribute("aria-selected", String(index === active));
        option.appendChild(document.createElement("code")).textContent = item.text;
        if (item.hint) option.append(" ", item.hint);
        option.addEventListener("mousedown", (event) => {
          event.preventDefault();
          take(index);
        });
        return option;
      }),
    );
    list.hidden = items.length === 0;
    field.setAttribute("aria-expanded", String(!list.hidden));
    if (active >= 0) field.setAttribute("aria-activedescendant", `${list.id}-${active}`);
    else field.removeAttribute("aria-activedescendant");
  }

  function take(index) {
    const item = items[index];
    const text = item.text + (item.more ? "" : " ");
    field.setRangeText(text, start, field.selectionStart, "end");
    close();
    if (item.more) ask();
  }

  async function ask() {
    const mine = ++asking;
    const asked = new URLSearchParams({ q: field.value, pos: field.selectionStart });
    try {
      const answer = await fetch(`/suggest?${asked}`);
      if (!answer.ok || mine !== asking || document.activeElement !== field) return;
      ({ items, start } = await answer.json());
      active = -1;
      show();
    } catch {
      close();
    }
  }

  // What is shown answers an older text: a quick Enter must not put it in place of a newer one.
  field.addEventListener("input", () => {
    close();
    asking += 1;
    clearTimeout(timer);
    timer = setTimeout(ask, 80);
  });
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && !list.hidden) {
      event.preventDefault();
      active = (active + step + items.length + (active < 0 && step < 0 ? 1 : 0)) % items.length;
      show();
    } else if (step === 1) {
      event.preventDefault();
      ask();
    } else if (event.key === "Enter" && active >= 0) {
      event.preventDefault();
      take(active);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    }
  });
}

document.querySelectorAll("input[type=search][name=q]").forEach(suggesting);
