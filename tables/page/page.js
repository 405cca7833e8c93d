"use strict";
// Filters, copies, saves, and opens the number that the address names; the page is whole without it.
document.documentElement.classList.add("scripted");
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

function filter(verdict) {
  let shown = 0;
  for (const table of all("[data-filtered]")) {
    let rows = 0;
    for (const row of all("tr[data-verdicts]", table)) {
      row.hidden = verdict !== "" && !row.dataset.verdicts.split("|").includes(verdict);
      rows += !row.hidden;
    }
    for (const body of all("tbody", table)) body.hidden = !all("tr[data-verdicts]", body).some((row) => !row.hidden);
    table.querySelector(".none").hidden = rows > 0;
    table.querySelector(".wide").hidden = rows === 0;
    shown += rows;
  }
  document.querySelector(".told").textContent = verdict ? `${shown} rows have a number that is ${verdict}` : "";
}

for (const radio of all(".filter input")) radio.addEventListener("change", () => filter(radio.value));
filter(document.querySelector(".filter input:checked").value); // a reload keeps what was chosen

for (const button of all("[data-copies]")) {
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copies);
    getSelection().selectAllChildren(text);
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch {
      document.execCommand("copy"); // of what is selected
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}

document.querySelector(".save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([document.getElementById("data").textContent], { type: "application/json" }));
  link.download = "resim-bench.json";
  link.click();
});

function openNamed() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named && named.matches("[popover]") && !named.matches(":popover-open")) named.showPopover();
}
for (const detail of all("[popover]")) {
  detail.addEventListener("toggle", (event) => {
    const here = location.pathname + location.search;
    history.replaceState(null, "", event.newState === "open" ? `#${detail.id}` : here);
  });
}
addEventListener("hashchange", openNamed);
openNamed();
