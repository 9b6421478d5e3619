// Keys and enlargement. Without this script the page is a plain form and works as one.
"use strict";

const form = document.getElementById("reading");
const rows = [...form.querySelectorAll("fieldset.row")];
const pane = document.getElementById("pane");
const picture = document.getElementById("picture");
const keys = document.getElementById("keys");
const LARGEST = 8;
let zoom = 1;

const answered = (row) => row.querySelector("input:checked") !== null;

function markNext() {
  const next = rows.find((row) => !answered(row));
  rows.forEach((row) => row.classList.toggle("next", row === next));
}

function choose(row, value) {
  const input = row && row.querySelector(`input[value="${value}"]`);
  if (input) {
    input.checked = true;
    input.focus();
    markNext();
  }
}

// The row that a digit answers: the first open one; when all are answered, the one that has the focus.
function rowForDigit() {
  const ratings = rows.slice(1);
  return ratings.find((row) => !answered(row)) || ratings.find((row) => row.contains(document.activeElement));
}

// Enlarges so that the point of the picture under (x, y) of the pane stays where it is.
function enlarge(to, x = pane.clientWidth / 2, y = pane.clientHeight / 2) {
  to = Math.min(LARGEST, Math.max(1, to));
  const before = picture.getBoundingClientRect();
  const frame = pane.getBoundingClientRect();
  const across = (frame.left + x - before.left) / before.width;
  const down = (frame.top + y - before.top) / before.height;
  zoom = to;
  picture.style.setProperty("--zoom", String(zoom));
  document.getElementById("zoom").textContent = `${Math.round(zoom * 100)} %`;
  const after = picture.getBoundingClientRect();
  pane.scrollLeft += after.left + across * after.width - (frame.left + x);
  pane.scrollTop += after.top + down * after.height - (frame.top + y);
}

document.getElementById("larger").addEventListener("click", () => enlarge(zoom * 1.25));
document.getElementById("smaller").addEventListener("click", () => enlarge(zoom / 1.25));
document.getElementById("fit").addEventListener("click", () => enlarge(1));
pane.addEventListener("wheel", (event) => {
  event.preventDefault();
  const frame = pane.getBoundingClientRect();
  enlarge(zoom * (event.deltaY < 0 ? 1.25 : 0.8), event.clientX - frame.left, event.clientY - frame.top);
}, { passive: false });

let dragged = null;
picture.addEventListener("pointerdown", (event) => {
  dragged = { x: event.clientX + pane.scrollLeft, y: event.clientY + pane.scrollTop };
  picture.setPointerCapture(event.pointerId);
});
picture.addEventListener("pointermove", (event) => {
  if (dragged) {
    pane.scrollLeft = dragged.x - event.clientX;
    pane.scrollTop = dragged.y - event.clientY;
  }
});
picture.addEventListener("pointerup", () => { dragged = null; });
picture.addEventListener("pointercancel", () => { dragged = null; });

// Single keys can be switched off: they get in the way of speech input and some aids.
keys.checked = sessionStorage.getItem("keys") !== "off";
keys.addEventListener("change", () => sessionStorage.setItem("keys", keys.checked ? "on" : "off"));

document.addEventListener("keydown", (event) => {
  // A key that is held down answers once.
  if (event.ctrlKey || event.metaKey || event.altKey || (event.repeat && !/^[-+=]$/.test(event.key))) {
    return;
  }
  const onControl = document.activeElement.matches("button, a, input[type=checkbox]");
  if (event.key === "Enter") {
    if (!onControl) {
      event.preventDefault();
      form.requestSubmit();
    }
    return;
  }
  if (!keys.checked) {
    return;
  }
  const key = event.key.toLowerCase();
  if (key === "r" || key === "s") {
    choose(rows[0], key === "r" ? "real" : "synthetic");
  } else if (/^[0-3]$/.test(key)) {
    choose(rowForDigit(), key);
  } else if (key === "+" || key === "=") {
    enlarge(zoom * 1.25);
  } else if (key === "-") {
    enlarge(zoom / 1.25);
  } else if (key === "f") {
    enlarge(1);
  } else {
    return;
  }
  event.preventDefault();
});

form.addEventListener("change", markNext);
markNext();
