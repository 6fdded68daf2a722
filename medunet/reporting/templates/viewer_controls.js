"use strict";
// The controls of the viewer: lists and buttons, keys, mouse and touch, and jumps to findings. It also starts it.

(() => {
  const viewer = medunetViewer, { element, clamp, state, redraw } = viewer;
  const FEW_TARGETS = 6; // up to so many are outlined together at first
  let dragged = null;

  const KEYS = [
    [["ArrowUp", "PageUp"], "Arrow up", "next slice", () => scroll(1)],
    [["ArrowDown", "PageDown"], "Arrow down", "previous slice", () => scroll(-1)],
    [["a"], "A", "axial", () => choosePlane(2)],
    [["o"], "O", "coronal", () => choosePlane(1)],
    [["s"], "S", "sagittal", () => choosePlane(0)],
    [["v"], "V", "next layout", () => cycle("layout")],
    [["c"], "C", "next image", () => cycle("channel")],
    [["w"], "W", "next window", () => cycle("preset")],
    [["+", "="], "+", "zoom in", () => viewer.zoomBy(1.25)],
    [["-", "_"], "−", "zoom out", () => viewer.zoomBy(0.8)],
    [["0"], "0", "fit the whole slice", () => viewer.fit()],
    [["m"], "M", "all masks on or off", () => toggleMasks()],
    [["1", "2", "3", "4"], "1, 2 …", "one mask on or off", (key) => toggleMask(Number(key) - 1)],
    [["e"], "E", "errors instead of masks", () => nextErrors()],
    [["t"], "T", "next target", () => cycle("target")],
    [["f"], "F", "filled or contours", () => { state.filled = !state.filled; }],
    [["["], "[", "less opacity", () => { state.opacity = clamp(state.opacity - 0.1, 0, 1); }],
    [["]"], "]", "more opacity", () => { state.opacity = clamp(state.opacity + 0.1, 0, 1); }],
    [["x"], "X", "crosshair on or off", () => { state.crosshair = !state.crosshair; }],
    [["d"], "D", "measure a distance: drag", () => setMeasuring(!state.measuring)],
    [["n"], "N", "next finding", () => jump(1)],
    [["p"], "P", "previous finding", () => jump(-1)],
    [["?"], "?", "this list", () => toggleHelp()],
    [["Escape"], "Escape", "end measuring, close this list", () => { setMeasuring(false); toggleHelp(false); }],
  ];
  const MOUSE = [
    ["Click, drag", "move the crosshair"],
    ["Wheel", "scroll, once the viewer has the focus"],
    ["Ctrl + wheel", "zoom"],
    ["Shift + drag", "move the picture"],
    ["Right drag", "window: across its width, up its level"],
    ["Double click", "this plane alone, and back"],
  ];

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
    for (const [, shown, text] of KEYS) addKey(shown, text);
    for (const [shown, text] of MOUSE) addKey(shown, text);
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

  function addKey(shown, text) {
    const row = document.createElement("div");
    for (const [tag, content] of [["dt", shown], ["dd", text]]) {
      row.appendChild(document.createElement(tag)).textContent = content;
    }
    element("keys").append(row);
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
    const parts = [data.unit === "px" ? `pixel ${state.voxel.slice(0, 2).map((at, axis) => at + data.first[axis]).join(", ")}`
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

  // ---- keys, mouse and touch

  function listen() {
    const stage = element("stage");
    stage.addEventListener("keydown", onKey);
    stage.addEventListener("wheel", onWheel, { passive: false });
    stage.addEventListener("pointerdown", onDown);
    stage.addEventListener("pointermove", onMove);
    for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, () => { dragged = null; });
    stage.addEventListener("dblclick", onDoubleClick);
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    new ResizeObserver(redraw).observe(stage);
    const actions = {
      zoomIn: () => viewer.zoomBy(1.25), zoomOut: () => viewer.zoomBy(0.8), fit: () => viewer.fit(),
      measure: () => setMeasuring(!state.measuring), help: () => toggleHelp(),
    };
    element("on").addEventListener("click", (event) => {
      const button = event.target.closest("[data-viewer]");
      if (button) { actions[button.dataset.viewer](); redraw(); }
    });
    document.addEventListener("click", (event) => {
      const link = event.target.closest("[data-finding]");
      if (link) { event.preventDefault(); show(Number(link.dataset.finding)); }
    });
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const known = KEYS.find(([keys]) => keys.includes(key));
    if (!known) return;
    event.preventDefault();
    known[3](key);
    redraw();
  }

  const pointOf = (event) => {
    const box = element("stage").getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  function onWheel(event) {
    const rectangle = viewer.rectangleAt(...pointOf(event));
    if (!rectangle || (document.activeElement !== element("stage") && !event.ctrlKey)) return; // the page scrolls
    event.preventDefault();
    if (event.ctrlKey) {
      viewer.zoomBy(Math.exp(-event.deltaY * 0.002), viewer.toVoxel(rectangle, ...pointOf(event)));
    } else {
      const axis = rectangle.plane.through;
      state.voxel[axis] = clamp(state.voxel[axis] - Math.sign(event.deltaY), 0, viewer.data.size[axis] - 1);
    }
    redraw();
  }

  function onDown(event) {
    const [x, y] = pointOf(event), rectangle = viewer.rectangleAt(x, y);
    if (!rectangle) return;
    element("stage").focus({ preventScroll: true });
    element("stage").setPointerCapture(event.pointerId);
    const right = event.button === 2, move = event.button === 1 || event.shiftKey;
    dragged = { kind: right ? "window" : move ? "pan" : state.measuring ? "ruler" : "crosshair", rectangle, x, y };
    if (right) state.channel = rectangle.channel;
    if (dragged.kind === "ruler") state.ruler = { plane: rectangle.plane, from: viewer.toVoxel(rectangle, x, y), to: viewer.toVoxel(rectangle, x, y) };
    if (dragged.kind === "crosshair") state.voxel = viewer.onGrid(viewer.toVoxel(rectangle, x, y));
    redraw();
  }

  function onMove(event) {
    if (!dragged) return;
    const [x, y] = pointOf(event), { rectangle, kind } = dragged, here = viewer.toVoxel(rectangle, x, y);
    if (kind === "crosshair") state.voxel = viewer.onGrid(here);
    if (kind === "ruler") state.ruler.to = here;
    if (kind === "pan") {
      const before = viewer.toVoxel(rectangle, dragged.x, dragged.y);
      state.centre = state.centre.map((at, axis) => at - (here[axis] - before[axis]));
    }
    if (kind === "window") {
      const { low, high } = state.windows[state.channel], width = high - low, level = (low + high) / 2;
      const wide = width * Math.exp((x - dragged.x) * 0.006), middle = level + (dragged.y - y) * width * 0.003;
      setWindow(middle - wide / 2, middle + wide / 2);
    }
    [dragged.x, dragged.y] = [x, y];
    redraw();
  }

  function onDoubleClick(event) {
    const rectangle = viewer.rectangleAt(...pointOf(event));
    if (!rectangle || state.layout === "channels") return;
    const alone = state.layout === "one";
    if (alone && viewer.data.size.every((size) => size > 1)) state.layout = "three";
    if (!alone) { state.layout = "one"; state.plane = rectangle.plane.through; }
    redraw();
  }

  // ---- start and stop

  async function start() {
    element("on").hidden = false; // the pictures need a size
    await viewer.open();
    const { data } = viewer;
    if (data.targets.length > FEW_TARGETS && data.findings.length) state.target = data.findings[0].target ?? -1;
    fillControls();
    listen();
    if (data.findings.length) show(0, { focus: false });
    viewer.drawNow();
    element("off").hidden = true;
    document.documentElement.classList.add("viewer-runs");
  }

  function stop(reason) {
    document.documentElement.classList.remove("viewer-runs");
    element("on").hidden = true;
    element("off").hidden = false;
    element("off").textContent = `The interactive viewer is not running: ${reason}. The pictures on this page show the same errors.`;
  }

  Object.assign(viewer, { show, stop, updateControls, start });

  const root = document.getElementById("viewer");
  if (root) {
    const library = document.createElement("script");
    library.src = root.dataset.library;
    library.addEventListener("error", () => stop(`${root.dataset.library} is missing beside the pages`));
    library.addEventListener("load", () => start().catch((error) => stop(error.message)));
    document.head.append(library);
  }
})();
