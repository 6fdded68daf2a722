"use strict";
// One channel drawn by NiiVue: it paints slices into rectangles of a canvas. Which part of a slice a rectangle shows is
// decided here, so that contours, distances and the crosshair can be drawn on top of it in the same places.

(() => {
  const SLICE_TYPES = [2, 1, 0]; // of NiiVue, for slices along the first, second and third axis
  const INT16 = 4, RGBA = 2304; // NIfTI's codes

  class Painter {
    // `step` and `spacing` are those of the grid of the masks; the volume of the channel may be coarser.
    static async create(stage, channel, step, spacing) {
      const painter = new Painter();
      painter.fields = {};
      painter.canvas = document.createElement("canvas");
      painter.canvas.className = "viewer-image";
      painter.canvas.setAttribute("aria-hidden", "true");
      stage.prepend(painter.canvas);
      painter.channel = channel;
      painter.step = step;
      painter.spacing = spacing;
      const nv = new niivue.Niivue({
        interactive: false, isResizeCanvas: false, dragAndDropEnabled: false, logLevel: "error", loadingText: "",
        isRadiologicalConvention: true, sagittalNoseLeft: true, isOrientationTextVisible: false,
        crosshairWidth: 0, show3Dcrosshair: false, backColor: [0, 0, 0, 1], isColorbar: false, isRuler: false,
      });
      painter.nv = nv;
      await nv.attachToCanvas(painter.canvas, false);
      const limit = nv.gl.getParameter(nv.gl.MAX_3D_TEXTURE_SIZE);
      if (Math.max(...channel.size) > limit) throw new Error(`volumes larger than ${limit} voxels cannot be drawn`);
      await painter.load();
      // Each rectangle shows its own part of the slice, all of the rectangle. NiiVue also draws when it has its font.
      nv.draw2D = (rectangle, sliceType) => { if (painter.fields[sliceType]) nv.draw2DMain(rectangle, sliceType, NaN); };
      nv.screenFieldOfViewExtendedVox = (sliceType) => painter.fields[sliceType];
      return painter;
    }

    async load() {
      const { channel, nv } = this, coloured = channel.type === "rgb";
      const size = this.spacing.map((mm, axis) => mm * this.step[axis]);
      const affine = [size[0], 0, 0, 0, 0, size[1], 0, 0, 0, 0, size[2], 0, 0, 0, 0, 1];
      const voxels = coloured ? withAlpha(channel.voxels) : channel.voxels;
      const file = niivue.NVImage.createNiftiArray(channel.size, size, affine, coloured ? RGBA : INT16, voxels);
      const image = await niivue.NVImage.new(file.buffer, "image.nii", "gray", 1, null, NaN, NaN);
      nv.addVolume(image);
    }

    // Show values from `low` to `high` as black to white.
    setWindow(low, high) {
      if (this.channel.type === "rgb" || (low === this.low && high === this.high)) return;
      [this.low, this.high] = [low, high];
      const image = this.nv.volumes[0], { slope, offset } = this.channel;
      image.cal_min = (low - offset) / slope;
      image.cal_max = (high - offset) / slope;
      this.nv.updateGLVolume();
    }

    // Draw rectangles {plane, left, top, width, height, centre, scale}, in CSS pixels on the stage: `centre` is the
    // place in the middle in voxels of the grid, `scale` in pixels per mm. All show slices through `voxel`.
    draw(rectangles, voxel, ratio) {
      const { nv, canvas } = this, image = nv.volumes[0];
      const low = image.extentsMinOrtho, high = image.extentsMaxOrtho;
      const fraction = (place, axis) => (place / this.step[axis] + 0.5) / this.channel.size[axis];
      const ortho = (place, axis) => low[axis] + fraction(place, axis) * (high[axis] - low[axis]);
      const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      this.fields = {};
      const layout = rectangles.map(({ plane, left, top, width: wide, height: tall, centre, scale }) => {
        const { across, up, through } = plane, half = [wide / scale / 2, tall / scale / 2];
        const middle = [ortho(centre[across], across), ortho(centre[up], up)];
        const mnMM = [middle[0] - half[0], middle[1] - half[1], low[through]];
        const mxMM = [middle[0] + half[0], middle[1] + half[1], high[through]];
        const sliceType = SLICE_TYPES[through];
        this.fields[sliceType] = { mnMM, mxMM, fovMM: mxMM.map((value, at) => value - mnMM[at]), rotation: null };
        const x = Math.round(left * ratio), y = Math.round(top * ratio);
        const right = Math.min(width, Math.round((left + wide) * ratio));
        const bottom = Math.min(height, Math.round((top + tall) * ratio));
        return { sliceType, position: [x / width, y / height, (right - x) / width, (bottom - y) / height] };
      });
      nv.customLayout = layout;
      nv.scene.pan2Dxyzmm = [0, 0, 0, 1];
      nv.scene.crosshairPos = voxel.map((place, axis) => Math.min(1, Math.max(0, fraction(place, axis))));
      nv.drawScene();
    }
  }

  function withAlpha(rgb) {
    const voxels = new Uint8Array(rgb.length / 3 * 4);
    for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
      voxels[to] = rgb[from];
      voxels[to + 1] = rgb[from + 1];
      voxels[to + 2] = rgb[from + 2];
      voxels[to + 3] = 255;
    }
    return voxels;
  }

  medunetViewer.Painter = Painter;
})();
