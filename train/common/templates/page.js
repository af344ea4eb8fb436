"use strict";
// A box of a legend shows and hides its curve in all figures of the section.
for (const box of document.querySelectorAll(".legend input")) {
  const show = () => {
    for (const curve of box.closest("section").querySelectorAll(`[id$="-${box.value}"]`)) {
      curve.style.display = box.checked ? "" : "none";
    }
  };
  box.addEventListener("change", show);
  show(); // a page that is loaded again keeps its boxes
}
// Images to step through: by buttons, and by arrow keys in the group used last.
const groups = [...document.querySelectorAll(".steps")].map((group) => {
  const items = [...group.querySelectorAll("article")];
  const [back, forward] = group.querySelectorAll("button");
  const place = group.querySelector("[role=status]");
  let shown = 0;
  const step = (by) => {
    last = group;
    shown = (shown + by + items.length) % items.length;
    items.forEach((item, i) => { item.hidden = i !== shown; });
    place.textContent = `${shown + 1} of ${items.length}`;
  };
  back.addEventListener("click", () => step(-1));
  forward.addEventListener("click", () => step(1));
  group.querySelector("nav").hidden = false;
  return { group, step };
});
let last = null;
groups.forEach(({ step }) => step(0));
last = groups.length ? groups[0].group : null;
document.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const within = event.target.closest(".steps");
  if (!by || event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input")) return;
  if (event.target.closest(".wide")) return; // they scroll it
  const found = groups.find(({ group }) => group === (within || last));
  if (!found) return;
  found.step(by);
  found.group.scrollIntoView({ block: "nearest" });
  event.preventDefault();
});
