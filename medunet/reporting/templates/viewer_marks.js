"use strict";
// What is drawn on top of the slices: contours, errors, findings, distances, crosshair, directions and windows.

(() => {
  const viewer = medunetViewer, { outline, targetRegion, errorRegion, state, toScreen, clamp } = viewer;
  const MAX_OUTLINES = 400, INK = "#f2f2f2", SMALL = 280, WIDE = 560; // pixels
  const DASHES = [[], [7, 4], [2, 3]]; // of the reference, the prediction, and one more
  const outlines = new Map();
  let picture;

  function shownTargets() {
    return viewer.data.targets.filter((_, at) => state.target < 0 || state.target === at);
  }

  function drawMarks(context, rectangle, isDrawn) {
    const { masks, data } = viewer, { left, top, width, height } = rectangle;
    picture = context;
    picture.save();
    picture.beginPath();
    picture.rect(left, top, width, height);
    picture.clip();
    if (state.errors >= 0) drawErrors(rectangle);
    else masks.forEach((mask, at) => { if (state.shown[at]) drawMask(rectangle, mask, at); });
    if (state.finding >= 0) drawFinding(rectangle, data.findings[state.finding]);
    if (state.crosshair) drawCrosshair(rectangle);
    if (state.ruler && state.ruler.plane === rectangle.plane) drawRuler(rectangle, state.ruler.from, state.ruler.to);
    drawTexts(rectangle);
    if (!isDrawn) write("loading …", left + width / 2, top + height / 3, "center", "middle");
    picture.restore();
  }

  // The line style of a mask: the reference is continuous.
  function dashesOf(at) {
    const { reference } = viewer.data;
    return DASHES[at === reference ? 0 : reference === null ? at % 3 : 1 + (at - 1) % 2];
  }

  function drawMask(rectangle, mask, at) {
    const dashes = dashesOf(at);
    for (const target of shownTargets()) {
      const path = cachedOutline(rectangle.plane, `${at} ${target.name}`, () => targetRegion(mask, target.values));
      if (path) paint(rectangle, path, target.colour, dashes, state.filled);
    }
  }

  function drawErrors(rectangle) {
    const { data, masks } = viewer, reference = masks[data.reference], found = masks[state.errors];
    const kinds = [["false negative", reference, found, []], ["false positive", found, reference, DASHES[1]]];
    for (const target of shownTargets()) {
      for (const [kind, has, lacks, dashes] of kinds) {
        const path = cachedOutline(rectangle.plane, `${kind} ${state.errors} ${target.name}`,
          () => errorRegion(has, lacks, target.values, reference, data.ignored));
        if (path) paint(rectangle, path, data.errors[kind], dashes, true);
      }
    }
  }

  function cachedOutline(plane, key, region) {
    const index = state.voxel[plane.through], name = `${key} ${plane.name} ${index}`;
    if (!outlines.has(name)) {
      if (outlines.size >= MAX_OUTLINES * Math.max(1, viewer.data.targets.length)) outlines.clear();
      const found = region(), box = found?.box;
      const crosses = box && index >= box[plane.through] && index <= box[plane.through + 3];
      outlines.set(name, crosses ? outline(viewer.data.size, plane, index, box, found.inside) : null);
    }
    return outlines.get(name);
  }

  function paint(rectangle, path, colour, dashes, isFilled) {
    const { plane, scale } = rectangle, [x, y] = toScreen(rectangle, [-0.5, -0.5, -0.5]);
    const { spacing } = viewer.data, across = spacing[plane.across] * scale, up = spacing[plane.up] * scale;
    const moved = new Path2D();
    moved.addPath(path, new DOMMatrix([-across, 0, 0, -up, x, y]));
    if (isFilled) {
      picture.globalAlpha = state.opacity;
      picture.fillStyle = colour;
      picture.fill(moved, "nonzero");
      picture.globalAlpha = 1;
    }
    picture.setLineDash([]);
    picture.lineJoin = "round";
    picture.strokeStyle = "#000000a0";
    picture.lineWidth = dashes.length ? 3.2 : 2.8;
    if (!isFilled) { picture.setLineDash(dashes); picture.stroke(moved); }
    picture.setLineDash(dashes);
    picture.strokeStyle = colour;
    picture.lineWidth = isFilled ? 1 : 1.7;
    picture.stroke(moved);
    picture.setLineDash([]);
  }

  function line(points, colour, width, dashes = []) {
    for (const [style, wide] of [["#000000b0", width + 1.6], [colour, width]]) {
      picture.beginPath();
      points.forEach(([x, y], at) => (at ? picture.lineTo(x, y) : picture.moveTo(x, y)));
      picture.setLineDash(dashes);
      picture.strokeStyle = style;
      picture.lineWidth = wide;
      picture.stroke();
    }
    picture.setLineDash([]);
  }

  function write(text, x, y, align = "left", baseline = "alphabetic", weight = "") {
    picture.font = `${weight} 13px system-ui, sans-serif`.trim();
    picture.textAlign = align;
    picture.textBaseline = baseline;
    picture.lineJoin = "round";
    picture.strokeStyle = "#000000c0";
    picture.lineWidth = 3;
    picture.strokeText(text, x, y);
    picture.fillStyle = INK;
    picture.fillText(text, x, y);
  }

  function drawFinding(rectangle, finding) {
    const { plane } = rectangle, index = state.voxel[plane.through];
    if (finding.end && finding.kind === "surface_distance") { drawDistance(rectangle, finding); return; }
    if (index < finding.low[plane.through] || index >= finding.high[plane.through]) return;
    const margin = 4, [x0, y0] = toScreen(rectangle, finding.low.map((at) => at - 0.5));
    const [x1, y1] = toScreen(rectangle, finding.high.map((at) => at - 0.5));
    const box = [x1 - margin, y1 - margin, x0 + margin, y0 + margin]; // left, top, right, bottom
    const arm = clamp(Math.min(box[2] - box[0], box[3] - box[1]) / 3, 4, 16);
    for (const [x, inward] of [[box[0], 1], [box[2], -1]]) {
      for (const [y, down] of [[box[1], 1], [box[3], -1]]) {
        line([[x + inward * arm, y], [x, y], [x, y + down * arm]], INK, 1.5);
      }
    }
  }

  // A surface distance is drawn in every plane, projected: a round end lies in the slice that is shown, an open one not.
  function drawDistance(rectangle, { centre, end, length }) {
    const ends = [centre, end], points = ends.map((voxel) => toScreen(rectangle, voxel));
    const inSlice = ends.map((voxel) => voxel[rectangle.plane.through] === state.voxel[rectangle.plane.through]);
    if (!inSlice[0] && !inSlice[1]) return;
    line(points, INK, 2, inSlice[0] && inSlice[1] ? [] : [5, 3]);
    points.forEach(([x, y], at) => {
      picture.beginPath();
      picture.arc(x, y, 4.5, 0, 2 * Math.PI);
      picture.fillStyle = inSlice[at] ? INK : "#000000";
      picture.fill();
      picture.strokeStyle = inSlice[at] ? "#000000" : INK;
      picture.lineWidth = 1.5;
      picture.stroke();
    });
    if (length !== null) {
      write(`${length.toFixed(1)} ${viewer.data.unit}`, (points[0][0] + points[1][0]) / 2 + 8, (points[0][1] + points[1][1]) / 2 - 8);
    }
  }

  function drawCrosshair(rectangle) {
    const [x, y] = toScreen(rectangle, state.voxel), { left, top, width, height } = rectangle, gap = 9;
    picture.strokeStyle = "#ffffff80";
    picture.lineWidth = 1;
    picture.beginPath();
    for (const [x0, y0, x1, y1] of [[left, y, x - gap, y], [x + gap, y, left + width, y], [x, top, x, y - gap], [x, y + gap, x, top + height]]) {
      picture.moveTo(x0, y0);
      picture.lineTo(x1, y1);
    }
    picture.stroke();
  }

  function drawRuler(rectangle, from, to) {
    const points = [from, to].map((voxel) => toScreen(rectangle, voxel));
    line(points, "#ffe680", 2);
    for (const [x, y] of points) line([[x - 4, y - 4], [x + 4, y + 4]], "#ffe680", 1.5);
    write(`${viewer.distance(from, to).toFixed(1)} ${viewer.data.unit}`, points[1][0] + 8, points[1][1] - 6);
  }

  function drawTexts(rectangle) {
    const { plane, left, top, width, height, channel } = rectangle, small = width < SMALL;
    const depth = viewer.depthText(plane.through, state.voxel);
    const title = state.layout === "channels" ? viewer.channels[channel].name : depth && `${plane.name}  ${depth}`;
    // Small pictures have the title at the bottom, and neither the window nor the lowest letter.
    write(title, left + 8, small ? top + height - 8 : top + 8, "left", small ? "alphabetic" : "top");
    if (!small) write(windowText(channel, width > WIDE), left + 8, top + height - 8);
    if (!small) drawScaleBar(rectangle);
    if (viewer.data.unit === "px") return;
    const [across, up] = [viewer.LETTERS[plane.across], viewer.LETTERS[plane.up]];
    write(across[1], left + 6, top + height / 2, "left", "middle", "bold");
    write(across[0], left + width - 6, top + height / 2, "right", "middle", "bold");
    write(up[1], left + width / 2, top + 8, "center", "top", "bold");
    if (!small) write(up[0], left + width / 2, top + height - 8, "center", "alphabetic", "bold");
  }

  function drawScaleBar({ left, top, width, height, scale }) {
    const lengths = [1, 2, 5, 10, 20, 50, 100, 200, 500].filter((length) => length * scale < width * 0.22);
    const length = lengths[lengths.length - 1];
    if (!length) return;
    const right = left + width - 8, y = top + height - 10;
    line([[right - length * scale, y], [right, y]], INK, 2.5);
    write(`${length} ${viewer.data.unit}`, right, y - 6, "right");
  }

  function windowText(channel, isNamed) {
    const { type, unit } = viewer.channels[channel];
    if (type === "rgb") return "";
    const { name, low, high } = state.windows[channel];
    const round = (value) => Number(value.toPrecision(4)).toString().replace("-", "−");
    const numbers = unit ? `L ${round((low + high) / 2)} W ${round(high - low)}` : `${round(low)} to ${round(high)}`;
    return name && isNamed ? `${name}  ${numbers}` : numbers;
  }

  Object.assign(viewer, { drawMarks, dashesOf, shownTargets });
})();
