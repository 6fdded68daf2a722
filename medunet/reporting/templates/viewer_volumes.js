"use strict";
// Volumes of the page: decoded, looked up, and outlined. The first axis runs to the patient's right, the second to the
// front, the third to the head; the first varies fastest. A voxel is a triple of whole numbers on the grid of the masks.
var medunetViewer = {};

(() => {
  async function inflate(text) {
    const packed = atob(text), bytes = new Uint8Array(packed.length);
    for (let at = 0; at < packed.length; at++) bytes[at] = packed.charCodeAt(at);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Undo the differences to neighbours that make 16-bit images small, see `_predict` in viewer_volumes.py.
  function restore(bytes, [width, height, depth]) {
    const count = width * height * depth, voxels = new Int16Array(count);
    for (let k = 0, at = 0; k < depth; k++) {
      for (let j = 0; j < height; j++) {
        for (let i = 0, across = 0; i < width; i++, at++) {
          const folded = bytes[at] | (bytes[at + count] << 8);
          across += (folded >>> 1) ^ -(folded & 1);
          voxels[at] = across + (j ? voxels[at - width] : 0);
        }
      }
    }
    return voxels;
  }

  async function decodeChannel(stored) {
    const bytes = await inflate(stored.data);
    const voxels = stored.type === "rgb" ? bytes : restore(bytes, stored.size);
    return { ...stored, data: null, voxels };
  }

  async function decodeMask(stored, size) {
    const bytes = await inflate(stored.data);
    const voxels = stored.type === "uint8" ? bytes : new Uint16Array(bytes.buffer);
    return { name: stored.name, voxels, boxes: boxLabels(voxels, size) };
  }

  // The bounding box [low i, j, k, high i, j, k] (inclusive) of each label that a mask has.
  function boxLabels(voxels, [width, height, depth]) {
    const boxes = new Map();
    for (let k = 0, at = 0; k < depth; k++) {
      for (let j = 0; j < height; j++) {
        for (let i = 0; i < width; i++, at++) {
          const label = voxels[at];
          if (!label) continue;
          const box = boxes.get(label);
          if (!box) { boxes.set(label, [i, j, k, i, j, k]); continue; }
          if (i < box[0]) box[0] = i; else if (i > box[3]) box[3] = i;
          if (j < box[1]) box[1] = j; else if (j > box[4]) box[4] = j;
          box[5] = k;
        }
      }
    }
    return boxes;
  }

  // The slice along each axis with the most labelled voxels, as a voxel; the middle where there are none.
  function largestSections(masks, [width, height, depth]) {
    const counts = [new Float64Array(width), new Float64Array(height), new Float64Array(depth)];
    for (const { voxels } of masks) {
      for (let k = 0, at = 0; k < depth; k++) {
        for (let j = 0; j < height; j++) {
          for (let i = 0; i < width; i++, at++) {
            if (voxels[at]) { counts[0][i]++; counts[1][j]++; counts[2][k]++; }
          }
        }
      }
    }
    return counts.map((row) => {
      const most = row.reduce((best, value) => Math.max(best, value), 0);
      return most ? row.indexOf(most) : Math.floor(row.length / 2);
    });
  }

  // Axes across and up a picture of the slices along each axis.
  const PLANES = [
    { name: "sagittal", across: 1, up: 2, through: 0 },
    { name: "coronal", across: 0, up: 2, through: 1 },
    { name: "axial", across: 0, up: 1, through: 2 },
  ];

  // The outline of the voxels of a slice for which `inside(at)` holds, as a path along their edges: voxel (x, y) covers
  // x to x + 1 and y to y + 1. Only voxels of the box, [low, high] in both directions, are asked for.
  function outline(size, plane, index, box, inside) {
    const strides = [1, size[0], size[0] * size[1]];
    const { across, up, through } = plane;
    const left = box[across], bottom = box[up], width = box[across + 3] - left + 1, height = box[up + 3] - bottom + 1;
    const start = index * strides[through], row = width + 2;
    const cells = new Uint8Array(row * (height + 2)); // with a border of one
    let any = false;
    for (let y = 0; y < height; y++) {
      let at = start + (bottom + y) * strides[up] + left * strides[across];
      for (let x = 0; x < width; x++, at += strides[across]) {
        if (inside(at)) { cells[(y + 1) * row + x + 1] = 1; any = true; }
      }
    }
    const path = new Path2D();
    if (!any) return null;
    // Edges between inside and outside, with the inside on their left, by their first corner.
    const corners = width + 1, next = new Map();
    const edge = (from, to) => { const known = next.get(from); if (known) known.push(to); else next.set(from, [to]); };
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const cell = (y + 1) * row + x + 1;
        if (!cells[cell]) continue;
        const corner = y * corners + x;
        if (!cells[cell - row]) edge(corner, corner + 1);
        if (!cells[cell + 1]) edge(corner + 1, corner + 1 + corners);
        if (!cells[cell + row]) edge(corner + 1 + corners, corner + corners);
        if (!cells[cell - 1]) edge(corner + corners, corner);
      }
    }
    for (const [first, ways] of next) {
      while (ways.length) {
        let corner = first, step = 0;
        do {
          const to = next.get(corner).pop();
          if (to - corner !== step) { // a straight run is one line
            const x = left + corner % corners, y = bottom + Math.floor(corner / corners);
            if (step) path.lineTo(x, y); else path.moveTo(x, y);
          }
          step = to - corner;
          corner = to;
        } while (corner !== first);
        path.closePath();
      }
    }
    return path;
  }

  // What of a mask or of the errors is shown: voxels of targets, as a box and a test of places in the volume.
  function targetRegion(mask, values) {
    const table = new Uint8Array(65536);
    const box = joinBoxes(values.map((value) => { table[value] = 1; return mask.boxes.get(value); }));
    return box && { box, inside: (at) => table[mask.voxels[at]] };
  }

  function errorRegion(has, lacks, values, reference, ignored) {
    const region = targetRegion(has, values);
    if (!region) return null;
    const table = new Uint8Array(65536);
    for (const value of values) table[value] = 1;
    return {
      box: region.box,
      inside: (at) => table[has.voxels[at]] && !table[lacks.voxels[at]] && reference.voxels[at] !== ignored,
    };
  }

  function joinBoxes(boxes) {
    const known = boxes.filter(Boolean);
    if (!known.length) return null;
    return known[0].map((_, at) => Math[at < 3 ? "min" : "max"](...known.map((box) => box[at])));
  }

  Object.assign(medunetViewer, { decodeChannel, decodeMask, largestSections, outline, targetRegion, errorRegion, PLANES });
})();
