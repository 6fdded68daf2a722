"use strict";
// The table of cases: sorted, filtered and paged from its data; and the dots of the charts, which are links to cases.
(() => {
  const source = document.getElementById("cases-data");
  if (source) startTable(JSON.parse(source.textContent));
  startCharts();

  function startTable(data) {
    const [CASE, PAGE, SEVERITY, VERDICT, THUMBNAIL, TEXTS, NUMBERS] = [0, 1, 2, 3, 4, 5, 6];
    const NAMES = { failed: "failed", review: "review", good: "good", none: "empty" };
    const ORDER = ["failed", "review", "good", "none"];
    const byId = (id) => document.getElementById(id);
    const body = byId("cases-table").tBodies[0];
    const filters = [...document.querySelectorAll("[data-filter]")];
    const values = data.rows.map((row) => row[NUMBERS].map((value) =>
      value === null ? NaN : value === "inf" ? Infinity : value === "-inf" ? -Infinity : value));
    const searched = data.rows.map((row) => [row[CASE], row[VERDICT], ...row[TEXTS]].join("\n").toLowerCase());
    let sorted = { by: "", down: false };
    let first = 0;

    byId("tools").hidden = false;
    for (const heading of document.querySelectorAll("[data-sort]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => {
        const by = heading.dataset.sort;
        sorted = sorted.by !== by ? { by, down: false } : sorted.down ? { by: "", down: false } : { by, down: true };
        first = 0;
        show();
      });
      heading.append(button);
    }
    byId("tools").addEventListener("input", () => { first = 0; show(); });
    byId("tools").addEventListener("submit", (event) => event.preventDefault());
    byId("tools").addEventListener("reset", () => setTimeout(() => {
      sorted = { by: "", down: false };
      first = 0;
      show();
    }));
    byId("previous").addEventListener("click", () => { first -= perPage(); show(true); });
    byId("next").addEventListener("click", () => { first += perPage(); show(true); });
    byId("rows").addEventListener("change", () => { first = 0; show(); });
    restore();

    function perPage() {
      return Number(byId("rows").value) || data.rows.length;
    }

    // The numbers of the rows that the filters leave, in the order of the table.
    function chosen() {
      const words = byId("search").value.trim().toLowerCase();
      const severity = byId("severity").value;
      const measure = byId("measure")?.value ?? "";
      const bound = byId("bound")?.value ?? "";
      const above = byId("side")?.value === "above";
      const rows = data.rows.map((_, number) => number).filter((number) => {
        const row = data.rows[number];
        const value = measure === "" ? 0 : values[number][measure];
        return (words === "" || searched[number].includes(words))
          && (severity === "" || row[SEVERITY] === severity)
          && filters.every((each, index) => each.value === "" || row[TEXTS][index] === each.value)
          && (measure === "" || bound === "" || (above ? value > Number(bound) : value < Number(bound)));
      });
      return sorted.by === "" ? rows : rows.sort(compare);
    }

    // Undefined values are last in both directions, and equal ones keep the order from worst to best.
    function compare(one, other) {
      const [a, b] = [one, other].map((number) => sorted.by === "case" ? data.rows[number][CASE]
        : sorted.by === "severity" ? ORDER.indexOf(data.rows[number][SEVERITY]) : values[number][sorted.by]);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b) || one - other;
      return (a < b ? -1 : a > b ? 1 : 0) * (sorted.down ? -1 : 1) || one - other;
    }

    function show(isTurned = false) {
      const rows = chosen();
      const size = perPage();
      first = Math.max(0, Math.min(first, Math.floor((rows.length - 1) / size) * size));
      const shown = rows.slice(first, first + size);
      body.replaceChildren(...shown.map(drawRow));
      byId("pages").hidden = data.rows.length <= data.pageRows;
      byId("previous").disabled = first === 0;
      byId("next").disabled = first + size >= rows.length;
      byId("page").textContent = rows.length ? `${first + 1} to ${first + shown.length}` : "none";
      const of = rows.length === data.rows.length ? "" : ` of ${data.rows.length}`;
      const where = shown.length < rows.length ? `Rows ${first + 1} to ${first + shown.length} of ` : "";
      byId("shown").textContent = `${where}${rows.length}${of} ${data.rows.length === 1 ? "case" : "cases"}.`;
      for (const heading of document.querySelectorAll("[data-sort]")) {
        const is = heading.dataset.sort === sorted.by;
        heading.classList.toggle("up", is && !sorted.down);
        heading.classList.toggle("down", is && sorted.down);
        heading.querySelector("button").setAttribute("aria-pressed", is);
      }
      mark(rows);
      store();
      if (isTurned) byId("cases").scrollIntoView();
    }

    function drawRow(number) {
      const row = data.rows[number];
      const line = document.createElement("tr");
      const picture = add(line, "td", "thumb");
      if (row[THUMBNAIL]) {
        const link = add(picture, "a");
        link.href = row[PAGE];
        link.tabIndex = -1;
        link.setAttribute("aria-hidden", "true");
        const image = add(link, "img", "thumbnail");
        image.src = row[THUMBNAIL];
        image.alt = "";
      }
      const name = add(line, "th");
      name.scope = "row";
      const link = add(name, "a", "", row[CASE]);
      link.href = row[PAGE];
      link.dir = "auto";
      if (row[TEXTS].length) add(name, "span", "second", row[TEXTS].join(" · ")).dir = "auto";
      const verdict = add(line, "td", "sentence");
      add(verdict, "span", `status ${row[SEVERITY]}`, NAMES[row[SEVERITY]]);
      verdict.append(` ${row[VERDICT]}`);
      let at = 0;
      for (const count of data.targets) {
        const cell = add(line, "td", "number");
        for (let place = 0; place < count; place++, at++) {
          const text = written(values[number][at], data.decimals[at]);
          if (place === 0) cell.append(text);
          else add(cell, "span", "second", text);
        }
      }
      return line;
    }

    // Dots of cases that the filters leave out are pale.
    function mark(rows) {
      const kept = new Set(rows);
      const isWhole = rows.length === data.rows.length;
      for (const dot of document.querySelectorAll("svg.plot a[data-c]")) {
        dot.classList.toggle("out", !isWhole && !kept.has(Number(dot.dataset.c)));
      }
    }

    // The state is in the address, so that Back from a case returns to it.
    function store() {
      const state = new URLSearchParams();
      for (const field of fields()) {
        if (field.value && field.type !== "reset") state.set(nameOf(field), field.value);
      }
      if (state.get("side") === "below") state.delete("side");
      if (state.get("rows") === String(data.pageRows)) state.delete("rows");
      if (sorted.by !== "") state.set("sort", (sorted.down ? "-" : "") + sorted.by);
      if (first) state.set("first", first);
      const text = state.toString();
      if (text || location.hash.includes("=")) {
        try { history.replaceState(null, "", text ? `#${text}` : "#cases"); } catch { /* a browser may forbid it */ }
      }
    }

    function restore() {
      const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
      for (const field of fields()) {
        if (state.has(nameOf(field))) field.value = state.get(nameOf(field));
      }
      const by = state.get("sort") ?? "";
      const name = by.replace(/^-/, "");
      if (document.querySelector(`[data-sort="${CSS.escape(name)}"]`)) sorted = { by: name, down: by.startsWith("-") };
      first = Number(state.get("first")) || 0;
      if ([...state].length || data.rows.length > data.pageRows) show();
    }

    function fields() {
      return [...byId("tools").elements, byId("rows")];
    }

    function nameOf(field) {
      return field.id || `f${field.dataset.filter}`;
    }
  }

  function startCharts() {
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    tip.setAttribute("aria-hidden", "true");
    document.body.append(tip);
    for (const chart of document.querySelectorAll("svg.plot")) {
      const dots = [...chart.querySelectorAll("a[data-c]")].reverse(); // the worst case first
      dots.forEach((dot, index) => { if (index) dot.setAttribute("tabindex", "-1"); });
      chart.addEventListener("keydown", (event) => {
        const at = dots.indexOf(event.target.closest("a"));
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const to = event.key === "Home" ? 0 : event.key === "End" ? dots.length - 1 : step ? at + step : -1;
        if (at < 0 || to < 0 || to >= dots.length) return;
        event.preventDefault();
        dots[at].setAttribute("tabindex", "-1");
        dots[to].setAttribute("tabindex", "0");
        dots[to].focus();
      });
      for (const kind of ["pointerover", "focusin"]) chart.addEventListener(kind, say);
      for (const kind of ["pointerout", "focusout"]) chart.addEventListener(kind, () => { tip.hidden = true; });
    }
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

    function say(event) {
      const dot = event.target.closest("a[data-c]");
      if (!dot) return;
      const title = dot.querySelector("title");
      if (title) { // else the browser would show it a second time
        dot.setAttribute("aria-label", title.textContent);
        title.remove();
      }
      tip.textContent = dot.getAttribute("aria-label");
      tip.hidden = false;
      const box = dot.getBoundingClientRect();
      const left = Math.min(box.left + scrollX, scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8);
      tip.style.left = `${Math.max(left, 4)}px`;
      tip.style.top = `${box.top + scrollY - tip.offsetHeight - 6}px`;
    }
  }

  function add(parent, tag, name = "", text = "") {
    const child = document.createElement(tag);
    if (name) child.className = name;
    if (text) child.textContent = text;
    parent.append(child);
    return child;
  }

  function written(value, decimals) {
    if (Number.isNaN(value)) return "–";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    return value.toFixed(decimals).replace("-", "−");
  }
})();
