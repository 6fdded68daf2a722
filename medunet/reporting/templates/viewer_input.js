"use strict";
// Keys, mouse and touch of the viewer. This script comes last, and starts the viewer.

(() => {
  const viewer = medunetViewer, { element, clamp, state, redraw } = viewer;
  let dragged = null;

  const KEYS = [
    [["ArrowUp", "PageUp"], "Arrow up", "next slice", () => viewer.scroll(1)],
    [["ArrowDown", "PageDown"], "Arrow down", "previous slice", () => viewer.scroll(-1)],
    [["a"], "A", "axial", () => viewer.choosePlane(2)],
    [["o"], "O", "coronal", () => viewer.choosePlane(1)],
    [["s"], "S", "sagittal", () => viewer.choosePlane(0)],
    [["v"], "V", "next layout", () => viewer.cycle("layout")],
    [["c"], "C", "next image", () => viewer.cycle("channel")],
    [["w"], "W", "next window", () => viewer.cycle("preset")],
    [["+", "="], "+", "zoom in", () => viewer.zoomBy(1.25)],
    [["-", "_"], "−", "zoom out", () => viewer.zoomBy(0.8)],
    [["0"], "0", "fit the whole slice", () => viewer.fit()],
    [["m"], "M", "all masks on or off", () => viewer.toggleMasks()],
    [["1", "2", "3", "4"], "1, 2 …", "one mask on or off", (key) => viewer.toggleMask(Number(key) - 1)],
    [["e"], "E", "errors instead of masks", () => viewer.nextErrors()],
    [["t"], "T", "next target", () => viewer.cycle("target")],
    [["f"], "F", "filled or contours", () => { state.filled = !state.filled; }],
    [["["], "[", "less opacity", () => { state.opacity = clamp(state.opacity - 0.1, 0, 1); }],
    [["]"], "]", "more opacity", () => { state.opacity = clamp(state.opacity + 0.1, 0, 1); }],
    [["x"], "X", "crosshair on or off", () => { state.crosshair = !state.crosshair; }],
    [["d"], "D", "measure a distance: drag", () => viewer.setMeasuring(!state.measuring)],
    [["n"], "N", "next finding", () => viewer.jump(1)],
    [["p"], "P", "previous finding", () => viewer.jump(-1)],
    [["?"], "?", "this list", () => viewer.toggleHelp()],
    [["Escape"], "Escape", "end measuring, close this list", () => { viewer.setMeasuring(false); viewer.toggleHelp(false); }],
  ];
  const MOUSE = [
    ["Click, drag", "move the crosshair"],
    ["Wheel", "scroll, once the viewer has the focus"],
    ["Ctrl + wheel", "zoom"],
    ["Shift + drag", "move the picture"],
    ["Right drag", "window: across its width, up its level"],
    ["Double click", "this plane alone, and back"],
  ];

  function addKey(shown, text) {
    const row = document.createElement("div");
    for (const [tag, content] of [["dt", shown], ["dd", text]]) {
      row.appendChild(document.createElement(tag)).textContent = content;
    }
    element("keys").append(row);
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
      measure: () => viewer.setMeasuring(!state.measuring), help: () => viewer.toggleHelp(),
    };
    element("on").addEventListener("click", (event) => {
      const button = event.target.closest("[data-viewer]");
      if (button) { actions[button.dataset.viewer](); redraw(); }
    });
    document.addEventListener("click", (event) => {
      const link = event.target.closest("[data-finding]");
      if (link) { event.preventDefault(); viewer.show(Number(link.dataset.finding)); }
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
      viewer.setWindow(middle - wide / 2, middle + wide / 2);
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
    if (data.targets.length > viewer.FEW_TARGETS && data.findings.length) state.target = data.findings[0].target ?? -1;
    viewer.fillControls();
    for (const [, shown, text] of KEYS) addKey(shown, text);
    for (const [shown, text] of MOUSE) addKey(shown, text);
    listen();
    if (data.findings.length) viewer.show(0, { focus: false });
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

  Object.assign(viewer, { start, stop });

  const root = document.getElementById("viewer");
  if (root) {
    const library = document.createElement("script");
    library.src = root.dataset.library;
    library.addEventListener("error", () => stop(`${root.dataset.library} is missing beside the pages`));
    library.addEventListener("load", () => start().catch((error) => stop(error.message)));
    document.head.append(library);
  }
})();
