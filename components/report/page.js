"use strict";
// The page is whole without this: it adds sorting, search and saving of tables, reading of curves, larger pictures.
(() => {
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // How what is added looks; colours are the page's own, where it names them.
  document.head.append(make("style", {}, `
    thead th button { all: unset; cursor: pointer; }
    thead th button:focus-visible, svg.chart:focus-visible, .legend:focus-visible { outline: 2px solid var(--accent, currentColor); }
    [aria-sort=descending] button::after { content: " ▼"; } [aria-sort=ascending] button::after { content: " ▲"; }
    .tools { margin: .2rem 0; text-align: right; max-width: none; }
    .tools button, .tools input { font: inherit; font-size: .8rem; color: var(--accent, inherit); background: var(--card, transparent);
      border: 1px solid var(--line, #8885); border-radius: 6px; padding: .1rem .6rem; }
    svg .cursor { stroke: var(--soft, currentColor); stroke-dasharray: 3 3; } .series[hidden] { display: none; }
    svg .legend, main img { cursor: pointer; } svg .legend.off { opacity: .35; } .reading { font-size: .8rem; color: var(--soft, inherit); }
    .large { border: 0; padding: 0; background: #000; } .large::backdrop { background: #000c; }
    .large img { display: block; max-width: 94vw; max-height: 94vh; min-width: min(94vw, 70vh); object-fit: contain; }
    @media print { .tools, .reading { display: none; } }
  `));

  const pressed = (element, does) => {
    element.tabIndex = 0;
    element.setAttribute("role", "button");
    element.addEventListener("click", does);
    element.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        does();
      }
    });
  };

  const words = cell => {
    const copy = cell.cloneNode(true);
    copy.querySelectorAll(".means, svg").forEach(part => part.remove());
    return copy.textContent.replace(/\s+/g, " ").trim();
  };

  // A number where the cell has one, else its words; null where it has neither.
  const worth = cell => {
    const text = cell.dataset.value ?? words(cell).replace("−", "-").replace(/\s*%$/, "").replace(/^–$/, "");
    return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
  };

  const order = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing stays last
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
  };

  const sortable = (table, rows) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.textContent.trim()) return;
      const button = make("button", { type: "button", title: "Sort by this column" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { descending: "ascending", ascending: "none" }[head.ariaSort] ?? "descending";
        heads.forEach(other => other.removeAttribute("aria-sort"));
        head.ariaSort = next;
        const sign = next === "ascending" ? 1 : -1;
        const place = new Map(rows.map(row => [row, worth(row.cells[column])]));
        const sorted = next === "none" ? rows : [...rows].sort((a, b) => order(place.get(a), place.get(b), sign));
        table.tBodies[0].append(...sorted);
      });
    });
  };

  // Of a figure four columns: value, both ends of its interval, number of images.
  const PARTS = ["value", "low", "high", "n"];
  const cellsOf = cell => (cell.dataset.value === undefined ? [words(cell)] : PARTS.map(part => cell.dataset[part] ?? ""));

  const csv = (table, rows) => {
    const first = rows[0] ? [...rows[0].cells] : [];
    const head = [...table.tHead.rows[0].cells].flatMap((cell, column) =>
      first[column]?.dataset.value === undefined ? [words(cell)] : PARTS.map(part => `${words(cell)} ${part}`));
    const quoted = text => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const lines = [head, ...[...table.tBodies[0].rows].filter(row => !row.hidden).map(row => [...row.cells].flatMap(cellsOf))];
    return lines.map(line => line.map(quoted).join(",")).join("\n") + "\n";
  };

  const titleOf = table => {
    const part = table.closest("details")?.querySelector("summary");
    let place = table.closest(".scroll");
    while (!part && place && !/^H[1-3]$/.test(place.tagName)) place = place.previousElementSibling;
    return words(part ?? place ?? table.tHead);
  };

  document.querySelectorAll("table").forEach(table => {
    if (!table.tHead || !table.tBodies[0]) return;
    const rows = [...table.tBodies[0].rows];
    const title = titleOf(table);
    const tools = make("p", { className: "tools" });
    if (rows.length > 1) sortable(table, rows);
    if (rows.length > 20) {
      const search = make("input", { type: "search", placeholder: "part of a name", ariaLabel: `Search in: ${title}` });
      search.addEventListener("input", () => {
        const wanted = search.value.toLowerCase();
        rows.forEach(row => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
      });
      tools.append(search, " ");
    }
    const save = make("button", { type: "button", ariaLabel: `Save as CSV: ${title}` }, "Save as CSV");
    save.addEventListener("click", () => {
      const name = title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60);
      const link = make("a", { href: URL.createObjectURL(new Blob([csv(table, rows)], { type: "text/csv" })), download: `${name}.csv` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    tools.append(save);
    table.closest(".scroll").before(tools);
  });

  document.querySelectorAll("svg.chart").forEach(svg => {
    const numbers = name => svg.dataset[name].split(" ").map(Number);
    const [left, right, bottom, top] = numbers("frame");
    const [x0, x1, y0, y1] = numbers("range");
    const curves = [...svg.querySelectorAll("polyline")].map(line => ({
      line,
      series: line.closest(".series"),
      points: line.getAttribute("points").split(" ").map(point => point.split(",").map(Number)),
      intervals: line.dataset.intervals?.split(" ").map(ends => ends.split(",").map(Number)),
    }));
    const places = [...new Set(curves.flatMap(curve => curve.points.map(point => point[0])))].sort((a, b) => a - b);
    const cursor = document.createElementNS(svg.namespaceURI, "line");
    Object.entries({ class: "cursor", y1: top, y2: bottom, visibility: "hidden" }).forEach(([k, v]) => cursor.setAttribute(k, v));
    svg.append(cursor);
    const reading = make("output", { className: "reading" }, "Point at a curve, or use the arrow keys, to read it.");
    svg.after(reading);
    const short = value => String(Number(value.toPrecision(3))).replace("-", "−");
    let at = 0;
    const counts = x1 - x0 > 1; // steps, grades or images, not shares
    const told = x => {
      const value = x0 + ((x - left) / (right - left || 1)) * (x1 - x0);
      return counts ? Math.round(value) : short(value);
    };
    const read = place => {
      at = Math.min(Math.max(place, 0), places.length - 1);
      const x = places[at];
      ["x1", "x2"].forEach(name => cursor.setAttribute(name, x));
      cursor.setAttribute("visibility", "visible");
      const each = curves.filter(curve => !curve.series.hasAttribute("hidden")).map(({ line, points, intervals }) => {
        const nearest = points.reduce((best, point, index) => (Math.abs(point[0] - x) < Math.abs(points[best][0] - x) ? index : best), 0);
        const near = points[nearest];
        const elsewhere = near[0] === x ? "" : ` (at ${told(near[0])})`;
        const interval = intervals ? ` (${intervals[nearest].map(short).join(" to ")})` : "";
        return `${line.dataset.name} ${short(y0 + ((bottom - near[1]) / (bottom - top)) * (y1 - y0))}${interval}${elsewhere}`;
      });
      reading.value = `${svg.dataset.name} ${told(x)}: ${each.join(", ")}`;
    };
    svg.addEventListener("pointermove", event => {
      const { x } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      read(places.reduce((best, place, index) => (Math.abs(place - x) < Math.abs(places[best] - x) ? index : best), 0));
    });
    svg.setAttribute("role", "group"); // no longer a picture alone
    svg.tabIndex = 0;
    svg.addEventListener("keydown", event => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) {
        event.preventDefault();
        read(at + step);
      }
    });
    svg.querySelectorAll(".legend").forEach((legend, index) => pressed(legend, () => {
      legend.classList.toggle("off", curves[index].series.toggleAttribute("hidden"));
      read(at);
    }));
  });

  const large = make("img");
  const dialog = make("dialog", { className: "large" }, large);
  document.body.append(dialog);
  dialog.addEventListener("click", () => dialog.close());
  document.querySelectorAll("main img").forEach(image => pressed(image, () => {
    large.src = image.src;
    large.alt = image.alt;
    dialog.showModal();
  }));
})();
