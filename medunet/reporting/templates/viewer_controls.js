"use strict";
// The controls of the viewer: what its keys, lists and buttons do, jumps to findings, and the lines of text below.

(() => {
  const viewer = medunetViewer, { element, clamp, state, redraw } = viewer;
  const FEW_TARGETS = 6; // up to so many are outlined together at first

  // ---- what keys and buttons do

  function scroll(by) {
    const size = viewer.data.size[state.plane];
    state.voxel[state.plane] = clamp(state.voxel[state.plane] + by, 0, size - 1);
  }

  function choosePlane(plane) {
    if (viewer.data.size.every((size) => size > 1)) state.plane = plane;
  }

  function cycle(id) {
    const list = element(id);
    if (list.options.length < 2) return;
    list.selectedIndex = (list.selectedIndex + 1) % list.options.length;
    list.dispatchEvent(new Event("change"));
  }

  function toggleMask(at) {
    if (at >= state.shown.length) return;
    state.shown[at] = state.errors >= 0 || !state.shown[at];
    state.errors = -1;
  }

  function toggleMasks() {
    const none = state.errors < 0 && !state.shown.some(Boolean);
    state.errors = -1;
    state.shown = state.shown.map(() => none);
  }

  // The masks whose errors can be shown: all but the reference.
  const wrong = () => (viewer.data.reference === null ? [] : viewer.masks.map((_, at) => at).filter((at) => at !== viewer.data.reference));

  function nextErrors() {
    const order = [-1, ...wrong()];
    state.errors = order[(order.indexOf(state.errors) + 1) % order.length];
  }

  function setMeasuring(on) {
    state.measuring = on;
    if (!on) state.ruler = null;
  }

  function toggleHelp(on = element("help").hidden) {
    element("help").hidden = !on;
    element("ask").setAttribute("aria-expanded", on);
  }

  function jump(by) {
    const count = viewer.data.findings.length, first = by > 0 ? 0 : count - 1;
    if (count) show(state.finding < 0 ? first : (state.finding + by + count) % count);
  }

  // Show a finding: its planes, its target on the image that shows it, its surroundings. Public, for links on the page.
  function show(index, { focus = true } = {}) {
    const finding = viewer.data.findings[index];
    if (!finding) return;
    state.finding = index;
    state.voxel = viewer.onGrid(finding.centre);
    if (finding.target !== null) {
      state.channel = viewer.data.targets[finding.target].channel ?? state.channel;
      if (viewer.data.targets.length > FEW_TARGETS || state.target >= 0) state.target = finding.target;
    }
    viewer.zoomTo(finding.low, finding.high);
    if (state.errors < 0 && !state.shown.some(Boolean)) state.shown = state.shown.map(() => true);
    redraw();
    if (focus) {
      element("stage").focus({ preventScroll: true });
      element("stage").scrollIntoView({ block: "nearest" });
    }
  }

  // ---- lists and buttons

  function fillControls() {
    const { channels, data, masks } = viewer;
    fill("channel", channels.map((channel, at) => [at, channel.name]), (value) => { state.channel = Number(value); });
    element("channel-field").hidden = channels.length < 2;
    const solid = data.size.every((size) => size > 1);
    const layouts = [...(solid ? [["three", "three planes"]] : []), ["one", "one plane"], ...(channels.length > 1 ? [["channels", "images side by side"]] : [])];
    fill("layout", layouts, (value) => { state.layout = value; });
    element("layout-field").hidden = layouts.length < 2;
    fill("target", [[-1, "all"], ...data.targets.map((target, at) => [at, target.name])], (value) => { state.target = Number(value); });
    fill("preset", [], (value) => {
      const preset = channels[state.channel].presets[Number(value)];
      if (preset) state.windows[state.channel] = { name: preset[0], low: preset[1], high: preset[2] };
    });
    masks.forEach((mask, at) => addMaskButton(mask.name, `Key: ${at + 1}`, () => toggleMask(at)));
    for (const at of wrong()) {
      const name = wrong().length > 1 ? `errors of ${masks[at].name}` : "errors";
      addMaskButton(name, "Key: E", () => { state.errors = state.errors === at ? -1 : at; });
    }
    element("filled").addEventListener("change", (event) => { state.filled = event.target.checked; redraw(); });
    element("opacity").addEventListener("input", (event) => { state.opacity = Number(event.target.value); redraw(); });
    element("slice").addEventListener("input", (event) => { state.voxel[state.plane] = Number(event.target.value); redraw(); });
    for (const id of ["level", "width"]) element(id).addEventListener("change", readWindow);
  }

  function fill(id, entries, onChange) {
    const list = element(id);
    list.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
    list.addEventListener("change", () => { onChange(list.value); redraw(); });
  }

  function addMaskButton(name, title, onClick) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = title;
    button.textContent = name;
    button.addEventListener("click", () => { onClick(); redraw(); });
    element("masks").append(button);
  }

  function readWindow() {
    const level = Number(element("level").value), width = Number(element("width").value);
    if (!(width > 0) || !Number.isFinite(level)) return redraw();
    setWindow(level - width / 2, level + width / 2);
    redraw();
  }

  function setWindow(low, high) {
    state.windows[state.channel] = { name: "", low, high };
  }

  // Bring all controls in line with the state, after each drawing.
  function updateControls() {
    const { data, channels, masks } = viewer, channel = channels[state.channel];
    const { name, low, high } = state.windows[state.channel];
    const presets = channel.presets.map(([text]) => text);
    const list = element("preset");
    const options = [...presets.map((text, at) => [at, text]), ...(presets.includes(name) ? [] : [["", name || "free"]])];
    if (list.dataset.options !== JSON.stringify(options)) {
      list.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
      list.dataset.options = JSON.stringify(options);
    }
    list.selectedIndex = presets.includes(name) ? presets.indexOf(name) : options.length - 1;
    for (const id of ["preset", "level", "width"]) element(id).closest("label").hidden = channel.type === "rgb";
    const round = (value) => Number(value.toPrecision(5));
    if (document.activeElement !== element("level")) element("level").value = round((low + high) / 2);
    if (document.activeElement !== element("width")) element("width").value = round(high - low);
    element("channel").value = state.channel;
    element("layout").value = state.layout;
    element("target").value = state.target;
    element("filled").checked = state.filled;
    element("opacity").value = state.opacity;
    element("slice").max = data.size[state.plane] - 1;
    element("slice").value = state.voxel[state.plane];
    element("slice").closest("label").hidden = data.size[state.plane] < 2;
    element("measure").setAttribute("aria-pressed", state.measuring);
    const others = wrong();
    [...element("masks").children].forEach((button, at) => {
      const pressed = at < masks.length ? state.errors < 0 && state.shown[at] : state.errors === others[at - masks.length];
      button.setAttribute("aria-pressed", pressed);
    });
    for (const button of document.querySelectorAll("button[data-finding]")) {
      button.setAttribute("aria-current", Number(button.dataset.finding) === state.finding);
    }
    element("place").textContent = placeText();
    updateLegend();
  }

  function placeText() {
    const { data, channels, masks } = viewer;
    const parts = [data.unit === "px" ? viewer.pixelText(state.voxel)
      : [0, 1, 2].map((axis) => viewer.depthText(axis, state.voxel)).join("  ")];
    const shown = state.layout === "channels" ? channels : [channels[state.channel]];
    for (const channel of shown) {
      const { text, away } = viewer.valueAt(channel, state.voxel);
      const where = away > 0.01 ? ` at the stored voxel ${away.toFixed(1)} mm away` : "";
      parts.push(`${channels.length > 1 ? `${channel.name} ` : ""}${text}${where}`);
    }
    for (const mask of masks) parts.push(`${mask.name}: ${viewer.targetsAt(mask, state.voxel).join(", ") || "nothing"}`);
    if (state.finding >= 0) parts.push(data.findings[state.finding].title);
    return parts.join(" · ");
  }

  function updateLegend() {
    const { data, masks } = viewer;
    const styles = { 0: "solid", 7: "dashed", 2: "dotted" };
    const rows = state.errors >= 0 ? Object.entries(data.errors).map(([kind, colour], at) => [kind, colour, at ? "dashed" : "solid"]) : [
      ...masks.flatMap((mask, at) => (state.shown[at] ? [[mask.name, "currentColor", styles[viewer.dashesOf(at)[0] ?? 0]]] : [])),
      ...(state.shown.some(Boolean) ? viewer.shownTargets().slice(0, 12).map((target) => [target.name, target.colour, "solid"]) : []),
    ];
    element("legend").replaceChildren(...rows.map(([text, colour, style]) => {
      const entry = document.createElement("span"), line = document.createElement("i");
      line.style.borderTopColor = colour;
      line.style.borderTopStyle = style;
      entry.append(line, text);
      return entry;
    }));
  }

  Object.assign(viewer, {
    scroll, choosePlane, cycle, toggleMask, toggleMasks, nextErrors, setMeasuring, toggleHelp, jump, show,
    setWindow, fillControls, updateControls, FEW_TARGETS,
  });
})();
