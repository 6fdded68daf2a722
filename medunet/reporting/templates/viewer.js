"use strict";
// The viewer of the page: its state, where voxels are on the screen, and the drawing of all that is shown.

(() => {
  const viewer = medunetViewer, { decodeChannel, decodeMask, PLANES } = viewer;
  const LETTERS = [["L", "R"], ["P", "A"], ["I", "S"]]; // at the low and the high end of each axis
  const MAX_SIDE_BY_SIDE = 8, GAP = 4, NARROW = 560; // channels; pixels
  const element = (id) => document.getElementById(`viewer-${id}`);
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const painters = [], starting = []; // of each channel, when it is first shown
  const state = {
    channel: 0, layout: "three", plane: 2, voxel: [0, 0, 0], centre: [0, 0, 0], zoom: 1,
    windows: [], // of each channel: {name, low, high}
    shown: [], // whether each mask is
    errors: -1, // the mask whose errors are shown instead; -1: none
    target: -1, // -1: all
    filled: false, opacity: 0.45, crosshair: true,
    measuring: false, ruler: null, finding: -1,
  };
  let stage, marks, rectangles = [], scheduled = false;

  // Decode the page's volumes, and start NiiVue on the first channel.
  async function open() {
    const data = JSON.parse(document.getElementById("viewer-data").textContent);
    stage = element("stage");
    marks = element("marks");
    viewer.data = data;
    viewer.channels = await Promise.all(data.channels.map(decodeChannel));
    viewer.masks = await Promise.all(data.masks.map((mask) => decodeMask(mask, data.size)));
    state.windows = viewer.channels.map(firstWindow);
    state.shown = viewer.masks.map(() => true);
    if (data.size.some((size) => size === 1)) {
      state.layout = "one";
      state.plane = data.size.indexOf(1);
    }
    state.voxel = viewer.largestSections(viewer.masks, data.size);
    fit();
    await painterOf(0);
  }

  function firstWindow({ presets, slope, offset, voxels, type }) {
    if (presets.length) return { name: presets[0][0], low: presets[0][1], high: presets[0][2] };
    if (type === "rgb") return { name: "", low: 0, high: 255 };
    let low = Infinity, high = -Infinity;
    for (const value of voxels) { if (value < low) low = value; if (value > high) high = value; }
    return { name: "whole range", low: low * slope + offset, high: high * slope + offset };
  }

  // Start NiiVue on a channel, once.
  function painterOf(channel) {
    starting[channel] ??= viewer.Painter.create(stage, viewer.channels[channel], viewer.data.step, viewer.data.spacing)
      .then((painter) => {
        painter.canvas.addEventListener("webglcontextlost", () => viewer.stop("the browser took back the graphics processor, load the page again"));
        painters[channel] = painter;
      });
    return starting[channel];
  }

  // ---- places: a voxel may have fractions

  const size = (axis) => viewer.data.size[axis] * viewer.data.spacing[axis];
  const onGrid = (voxel) => voxel.map((at, axis) => clamp(Math.round(at), 0, viewer.data.size[axis] - 1));

  function world(voxel) {
    return viewer.data.affine.slice(0, 3).map((row) => row[3] + row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2]);
  }

  // In mm, of pictures in pixels.
  function distance(from, to) {
    const [a, b] = viewer.data.unit === "px" ? [from, to] : [world(from), world(to)];
    return Math.hypot(...a.map((value, axis) => value - b[axis]));
  }

  // Of a 2D picture, from its top left corner: its affine points against columns and rows.
  function pixelText(voxel) {
    const [column, row] = world(voxel).map((along) => Math.round(-along));
    return `column ${column}, row ${row}`;
  }

  function depthText(axis, voxel) {
    if (viewer.data.unit === "px") return "";
    const depth = Math.round(world(voxel)[axis] * 10) / 10;
    return `${LETTERS[axis][depth >= 0 ? 1 : 0]} ${Math.abs(depth).toFixed(1)} mm`;
  }

  // The value of a channel at the stored voxel that is nearest to a voxel, and how far away that one is.
  function valueAt(channel, voxel) {
    const { step } = viewer.data;
    const place = voxel.map((at, axis) => clamp(Math.round(at / step[axis]), 0, channel.size[axis] - 1));
    const at = place[0] + channel.size[0] * (place[1] + channel.size[1] * place[2]);
    const away = distance(place.map((n, axis) => n * step[axis]), voxel);
    const textOf = (stored) => (stored * channel.slope + channel.offset).toFixed(channel.decimals).replace("-", "−");
    if (channel.type === "rgb") return { text: [0, 1, 2].map((colour) => textOf(channel.voxels[3 * at + colour])).join(", "), away };
    return { text: `${textOf(channel.voxels[at])} ${channel.unit}`.trim(), away };
  }

  function targetsAt(mask, [i, j, k]) {
    const label = mask.voxels[i + viewer.data.size[0] * (j + viewer.data.size[1] * k)];
    return viewer.data.targets.filter((target) => target.values.includes(label)).map((target) => target.name);
  }

  // ---- rectangles of the stage in CSS pixels, each with the plane and the channel that it shows

  function layOut() {
    const wide = stage.clientWidth, tall = stage.clientHeight, plane = PLANES[state.plane];
    if (state.layout === "one") return place([[plane, state.channel, 0, 0, wide, tall]]);
    if (state.layout === "channels") return place(grid(wide, tall, plane));
    const others = [2, 1, 0].filter((axis) => axis !== state.plane).map((axis) => PLANES[axis]);
    if (wide < NARROW) {
      const first = Math.round(tall * 0.62), half = (wide - GAP) / 2, rest = tall - first - GAP;
      return place([
        [plane, state.channel, 0, 0, wide, first],
        [others[0], state.channel, 0, first + GAP, half, rest],
        [others[1], state.channel, half + GAP, first + GAP, half, rest],
      ]);
    }
    const first = Math.round(wide * 0.6), half = (tall - GAP) / 2, rest = wide - first - GAP;
    return place([
      [plane, state.channel, 0, 0, first, tall],
      [others[0], state.channel, first + GAP, 0, rest, half],
      [others[1], state.channel, first + GAP, half + GAP, rest, half],
    ]);
  }

  function grid(wide, tall, plane) {
    const count = Math.min(viewer.channels.length, MAX_SIDE_BY_SIDE);
    const best = Math.round(Math.sqrt(count * wide / tall * size(plane.up) / size(plane.across)));
    const rows = Math.ceil(count / clamp(best, 1, count)), columns = Math.ceil(count / rows);
    const width = (wide - GAP * (columns - 1)) / columns, height = (tall - GAP * (rows - 1)) / rows;
    return Array.from({ length: count }, (_, at) =>
      [plane, at, (at % columns) * (width + GAP), Math.floor(at / columns) * (height + GAP), width, height]);
  }

  function place(parts) {
    return parts.map(([plane, channel, left, top, width, height]) => {
      const scale = state.zoom * Math.min(width / size(plane.across), height / size(plane.up));
      return { plane, channel, left, top, width, height, centre: state.centre, scale };
    });
  }

  // Across, pictures run against the axis: the patient's right is on the left, the front on the left of sagittal ones.
  function toScreen({ plane, left, top, width, height, centre, scale }, voxel) {
    const { spacing } = viewer.data, { across, up } = plane;
    return [
      left + width / 2 - (voxel[across] - centre[across]) * spacing[across] * scale,
      top + height / 2 - (voxel[up] - centre[up]) * spacing[up] * scale,
    ];
  }

  function toVoxel({ plane, left, top, width, height, centre, scale }, x, y) {
    const { spacing } = viewer.data, { across, up } = plane, voxel = [...state.voxel];
    voxel[across] = centre[across] - (x - left - width / 2) / scale / spacing[across];
    voxel[up] = centre[up] - (y - top - height / 2) / scale / spacing[up];
    return voxel;
  }

  const rectangleAt = (x, y) => rectangles.find(({ left, top, width, height }) =>
    x >= left && x < left + width && y >= top && y < top + height);

  function fit() {
    state.zoom = 1;
    state.centre = viewer.data.size.map((size) => (size - 1) / 2);
  }

  // Zoom so that the place under a point of the screen stays there, or around the crosshair.
  function zoomBy(factor, fixed = state.voxel) {
    const zoom = clamp(state.zoom * factor, 1, 40);
    state.centre = state.centre.map((at, axis) => fixed[axis] + (at - fixed[axis]) * state.zoom / zoom);
    state.zoom = zoom;
    if (zoom === 1) fit();
  }

  // Bring a box of voxels to the middle, with as much around it.
  function zoomTo(low, high) {
    const { spacing } = viewer.data;
    const wanted = Math.max(...low.map((at, axis) => (high[axis] - at) * spacing[axis])) * 2 + 30;
    const whole = Math.max(...[0, 1, 2].map(size));
    state.zoom = clamp(whole / wanted, 1, 40);
    state.centre = low.map((at, axis) => (at + high[axis] - 1) / 2);
    if (state.zoom === 1) fit();
  }

  // ---- drawing

  function redraw() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => { scheduled = false; drawNow(); });
  }

  function drawNow() {
    const ratio = window.devicePixelRatio || 1;
    rectangles = layOut();
    const used = new Set(rectangles.map((rectangle) => rectangle.channel));
    for (const channel of used) {
      const painter = painters[channel];
      if (!painter) { painterOf(channel).then(redraw, (error) => viewer.stop(error.message)); continue; }
      const { low, high } = state.windows[channel];
      painter.setWindow(low, high);
      painter.draw(rectangles.filter((rectangle) => rectangle.channel === channel), state.voxel, ratio);
    }
    painters.forEach((painter, channel) => clip(painter.canvas, used.has(channel), channel));
    marks.width = Math.round(stage.clientWidth * ratio);
    marks.height = Math.round(stage.clientHeight * ratio);
    const context = marks.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    for (const rectangle of rectangles) viewer.drawMarks(context, rectangle, Boolean(painters[rectangle.channel]));
    viewer.updateControls();
  }

  // Side by side, each channel has a canvas of its own, of which only its rectangle is visible.
  function clip(canvas, isUsed, channel) {
    canvas.style.visibility = isUsed ? "" : "hidden";
    const mine = rectangles.filter((rectangle) => rectangle.channel === channel);
    if (state.layout !== "channels" || !mine.length) { canvas.style.clipPath = ""; return; }
    const { left, top, width, height } = mine[0];
    canvas.style.clipPath = `inset(${top}px ${stage.clientWidth - left - width}px ${stage.clientHeight - top - height}px ${left}px)`;
  }

  Object.assign(viewer, {
    LETTERS, element, clamp, state, open, onGrid, distance, pixelText, depthText, valueAt, targetsAt,
    toScreen, toVoxel, rectangleAt, fit, zoomBy, zoomTo, redraw, drawNow,
  });
})();
