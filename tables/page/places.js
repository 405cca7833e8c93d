// The same place in two views: a cell of the query view is chosen, and each key view shows where it is found.
const SIGNS = { right: "#p-right", wrong: "#p-wrong", nowhere: "#p-nowhere" };
const OUTCOMES = { right: "right", wrong: "wrong", nowhere: "no place to find" };

function view(viewer, data) {
  const side = data.side;
  const colours = data.colours.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const keys = all(".key-view", viewer);
  const query = viewer.querySelector(".query");
  let pair = data.pairs[0];
  let chosen = pair.start;

  const spoken = (cell) => `row ${Math.floor(cell / side) + 1}, column ${(cell % side) + 1}`;
  const outcome = (found, cell) => (!pair.places[cell] ? "nowhere" : found.right[cell] ? "right" : "wrong");

  function frame(group, box) {
    group.classList.toggle("gone", !box);
    if (!box) return;
    for (const rect of group.children) {
      const [x0, y0, x1, y1] = box;
      for (const [name, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 })) rect.setAttribute(name, value);
    }
  }

  function level(heat, at) {
    const two = data.letters.indexOf(heat[at >> 1]);
    return at % 2 ? two % data.levels : Math.floor(two / data.levels);
  }

  function paint(canvas, heat, cell) {
    const brush = canvas.getContext("2d");
    const image = brush.createImageData(2 * side, 2 * side);
    const nearest = (pixel) => Math.min(side - 1, Math.round((pixel + 0.5) / 2));
    for (let y = 0; y < 2 * side; y++) {
      for (let x = 0; x < 2 * side; x++) {
        const colour = colours[level(heat, cell * side * side + nearest(y) * side + nearest(x))];
        image.data.set([...colour, 255], 4 * (2 * side * y + x));
      }
    }
    brush.putImageData(image, 0, 0);
  }

  function choose(cell) {
    cells[chosen].tabIndex = -1;
    cells[chosen].setAttribute("aria-selected", "false");
    chosen = cell;
    cells[chosen].tabIndex = 0;
    cells[chosen].setAttribute("aria-selected", "true");
    const place = pair.places[cell];
    frame(query.querySelector(".window"), data.windows[cell]);
    query.querySelector(".window").classList.toggle("open", !place);
    query.querySelector(".dot").setAttribute("cx", cell % side);
    query.querySelector(".dot").setAttribute("cy", Math.floor(cell / side));
    query.querySelector(".where").textContent = spoken(cell);
    keys.forEach((key, number) => {
      const found = pair.found[number];
      const best = found.best[cell];
      const sign = key.querySelector(".best");
      frame(key.querySelector(".true"), place);
      sign.setAttribute("href", SIGNS[outcome(found, cell)]);
      sign.setAttribute("x", (best % side) - 0.9);
      sign.setAttribute("y", Math.floor(best / side) - 0.9);
      sign.dataset.cell = best;
      key.querySelector(".outcome").textContent = OUTCOMES[outcome(found, cell)];
      paint(key.querySelector("canvas"), found.heat, cell);
    });
  }

  function open(next) {
    pair = next;
    const there = pair.places.filter(Boolean).length;
    query.querySelector("img").src = pair.views[0];
    query.querySelector("img").alt = `Query view of ${pair.title}`;
    query.querySelector(".nowhere").setAttribute("d", pair.nowhere);
    viewer.querySelector(".about").textContent = `${pair.title}: ${there} of ${side * side} cells have a place in the key view.`;
    keys.forEach((key, number) => {
      key.querySelector("img").src = pair.views[1];
      const right = pair.found[number].right.reduce((sum, one) => sum + one, 0);
      key.querySelector(".of-pair").textContent = `${right} of ${there} right in this pair`;
    });
    cells.forEach((cell, number) => {
      const said = data.names.map((name, of) => `${name} ${outcome(pair.found[of], number)}`).join(", ");
      cell.setAttribute("aria-label", `${spoken(number)}: ${pair.places[number] ? said : "no place in the key view"}`);
    });
    choose(pair.places[chosen] ? chosen : pair.start);
  }

  const grid = document.createElement("div"); // over the query view; a pixel belongs to the nearest cell
  const tracks = `0.5fr repeat(${side - 2}, 1fr) 1.5fr`;
  grid.className = "cells";
  grid.setAttribute("role", "grid");
  grid.setAttribute("aria-label", "Cells of the query view");
  grid.setAttribute("aria-describedby", "places-query");
  grid.style.gridTemplateRows = tracks;
  for (let y = 0; y < side; y++) {
    const row = document.createElement("div");
    row.setAttribute("role", "row");
    row.style.gridTemplateColumns = tracks;
    for (let x = 0; x < side; x++) {
      const cell = document.createElement("div");
      cell.setAttribute("role", "gridcell");
      cell.setAttribute("aria-selected", "false");
      cell.tabIndex = -1;
      row.append(cell);
    }
    grid.append(row);
  }
  const cells = all("[role=gridcell]", grid);
  query.querySelector(".view").append(grid);

  function under(event) {
    const box = grid.getBoundingClientRect();
    const at = (place, length) => Math.min(side - 1, Math.max(0, Math.round((place / length) * side)));
    return at(event.clientY - box.top, box.height) * side + at(event.clientX - box.left, box.width);
  }
  for (const kind of ["pointermove", "pointerdown"]) grid.addEventListener(kind, (event) => choose(under(event)));
  grid.addEventListener("focusin", (event) => choose(cells.indexOf(event.target)));
  grid.addEventListener("keydown", (event) => {
    const x = chosen % side;
    const y = Math.floor(chosen / side);
    const next = {
      ArrowLeft: [x - 1, y],
      ArrowRight: [x + 1, y],
      ArrowUp: [x, y - 1],
      ArrowDown: [x, y + 1],
      Home: [0, event.ctrlKey ? 0 : y],
      End: [side - 1, event.ctrlKey ? side - 1 : y],
    }[event.key];
    if (!next || event.altKey || event.metaKey) return;
    event.preventDefault();
    const [column, row] = next.map((place) => Math.min(side - 1, Math.max(0, place)));
    cells[row * side + column].focus({ preventScroll: true });
  });

  for (const radio of all("[name=pair]", viewer)) {
    radio.nextElementSibling.src = data.pairs[radio.value].views[0];
    radio.addEventListener("change", () => open(data.pairs[radio.value]));
  }
  const heats = viewer.querySelector(".heats input");
  heats.addEventListener("change", () => viewer.classList.toggle("plain-keys", !heats.checked));
  viewer.classList.toggle("plain-keys", !heats.checked);
  open(data.pairs[viewer.querySelector("[name=pair]:checked").value]); // a reload keeps what was chosen
}

if (document.getElementById("places-data"))
  view(document.querySelector(".viewer"), JSON.parse(document.getElementById("places-data").textContent));
