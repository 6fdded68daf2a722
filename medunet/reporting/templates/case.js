// Search among the targets of a case: rows whose name has all words, in every table; folded groups with a hit open.
(() => {
  const box = document.getElementById("search");
  const rows = [...document.querySelectorAll("tr[data-target]")];
  const groups = [...document.querySelectorAll("details.folded")].filter((group) => group.querySelector("tr[data-target]"));
  const plain = (text) => text.toLowerCase().normalize("NFKD").replace(/[_\s-]+/g, " ");
  box.addEventListener("input", () => {
    const words = plain(box.value).split(" ").filter(Boolean);
    const found = new Set();
    for (const row of rows) {
      const name = plain(row.dataset.target);
      row.hidden = !words.every((word) => name.includes(word));
      if (!row.hidden) found.add(row.dataset.target);
    }
    for (const group of groups) {
      const hasHit = group.querySelector("tr[data-target]:not([hidden])") !== null;
      group.open = words.length > 0 && hasHit;
      group.hidden = !hasHit;
    }
    document.getElementById("search-count").textContent = words.length ? `${found.size} found` : "";
  });
})();
