// Selecting rows: one by one, a range with Shift, all of the page. What is selected goes into a plain form.
const bar = document.getElementById("selected");

if (bar) {
  const boxes = () => [...document.querySelectorAll("tbody input[type=checkbox][name=task]")];
  const all = document.getElementById("all-rows");
  let last = null;

  function count() {
    const chosen = boxes().filter((box) => box.checked).length;
    bar.hidden = chosen === 0;
    bar.querySelector("[data-count]").textContent = String(chosen);
    if (!all) return;
    all.checked = chosen > 0 && chosen === boxes().length;
    all.indeterminate = chosen > 0 && !all.checked;
  }

  document.addEventListener("click", (event) => {
    const box = event.target.closest("tbody input[type=checkbox][name=task]");
    if (!box) return;
    const list = boxes();
    if (event.shiftKey && last && list.includes(last)) {
      const [a, b] = [list.indexOf(last), list.indexOf(box)].sort((x, y) => x - y);
      for (const one of list.slice(a, b + 1)) one.checked = box.checked;
    }
    last = box;
    count();
  });
  if (all) {
    all.closest("label").hidden = false;
    all.addEventListener("change", () => {
      for (const box of boxes()) box.checked = all.checked;
      count();
    });
  }
  bar.querySelector("[data-none]")?.addEventListener("click", () => {
    for (const box of boxes()) box.checked = false;
    count();
  });
  addEventListener("pageshow", count); // a browser keeps boxes ticked when it goes back
  count();
}
