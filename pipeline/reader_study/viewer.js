"use strict";

// Shows one image on the canvas: windowing, zoom, and the slices of a volume.
class Viewer {
  constructor(canvas, window_, unit) {
    this.canvas = canvas;
    this.full = window_;
    this.unit = unit;
    this.slider = Object.fromEntries(["centre", "width", "zoom", "slice"].map(name => [name, document.getElementById(name)]));
    const [low, high] = window_, step = (high - low) / 256;
    Object.assign(this.slider.centre, { min: low, max: high, step });
    Object.assign(this.slider.width, { min: step, max: high - low, step });
    for (const slider of Object.values(this.slider)) slider?.addEventListener("input", () => this.draw());
    this.resetWindow();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  resetWindow() {
    const [low, high] = this.full;
    this.slider.centre.value = (low + high) / 2;
    this.slider.width.value = high - low;
  }

  reset() {
    this.resetWindow();
    this.slider.zoom.value = 1;
    this.shift = [0, 0];
    this.draw();
  }

  // Decompresses the image's levels of grey; the window stays as the reader set it.
  async show(image) {
    this.image = null;
    const packed = Uint8Array.from(atob(image.pixels), sign => sign.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const raw = await new Response(stream).arrayBuffer();
    const [slices, rows, columns] = image.shape;
    this.image = { slices, rows, columns, levels: image.levels,
                   grey: image.levels > 255 ? new Uint16Array(raw) : new Uint8Array(raw) };
    if (this.slider.slice) Object.assign(this.slider.slice, { max: slices, value: Math.ceil(slices / 2) });
    this.slider.zoom.value = 1;
    this.shift = [0, 0];
    this.draw();
  }

  // The slice through the window, as a canvas of its own size.
  plane() {
    const { rows, columns, levels, grey } = this.image, [low, high] = this.full;
    const centre = Number(this.slider.centre.value), width = Number(this.slider.width.value);
    const table = Uint8ClampedArray.from({ length: levels + 1 }, (_, level) =>
      255 * (low + (high - low) * level / levels - centre + width / 2) / width);
    const pixels = new ImageData(columns, rows), whole = new Uint32Array(pixels.data.buffer);
    const start = (this.slider.slice ? this.slider.slice.value - 1 : 0) * rows * columns;
    for (let place = 0; place < rows * columns; place++) {
      whole[place] = 0xff000000 | (table[grey[start + place]] * 0x010101);
    }
    const plane = document.createElement("canvas");
    plane.width = columns;
    plane.height = rows;
    plane.getContext("2d").putImageData(pixels, 0, 0);
    return plane;
  }

  draw() {
    if (!this.image) return;
    const side = Math.max(1, Math.round(this.canvas.clientWidth * devicePixelRatio)), { rows, columns } = this.image;
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    const context = this.canvas.getContext("2d");
    const scale = Number(this.slider.zoom.value) * side / Math.max(rows, columns);
    const limit = Math.max(0, (scale * Math.max(rows, columns) - side) / 2);
    this.shift = this.shift.map(one => Math.min(Math.max(one, -limit), limit));
    context.fillStyle = "#000";
    context.fillRect(0, 0, side, side);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.plane(), (side - scale * columns) / 2 + this.shift[0],
                      (side - scale * rows) / 2 + this.shift[1], scale * columns, scale * rows);
    this.tell();
  }

  tell() {
    const unit = this.unit ? ` ${this.unit}` : "";
    const said = name => `${Math.round(this.slider[name].value)}${unit}`;
    document.getElementById("centre-said").textContent = said("centre");
    document.getElementById("width-said").textContent = said("width");
    document.getElementById("zoom-said").textContent = `× ${Number(this.slider.zoom.value).toFixed(1)}`;
    if (this.slider.slice) document.getElementById("slice-said").textContent = `${this.slider.slice.value} of ${this.image.slices}`;
  }

  move(name, by) {
    this.slider[name].value = Number(this.slider[name].value) + by;
    this.draw();
  }

  // Drag: the window; with Shift, or by finger when enlarged: the image. Wheel: slices, or zoom.
  listen() {
    let last = null;
    this.canvas.addEventListener("pointerdown", event => {
      this.canvas.setPointerCapture(event.pointerId);
      last = [event.clientX, event.clientY];
    });
    this.canvas.addEventListener("pointermove", event => {
      if (!last || !this.image) return;
      const by = [event.clientX - last[0], event.clientY - last[1]], enlarged = this.slider.zoom.value > 1;
      last = [event.clientX, event.clientY];
      if (event.shiftKey || (event.pointerType === "touch" && enlarged)) {
        this.shift = this.shift.map((one, axis) => one + by[axis] * devicePixelRatio);
        this.draw();
      } else {
        const step = (this.full[1] - this.full[0]) / 400;
        this.move("width", by[0] * step);
        this.move("centre", by[1] * step);
      }
    });
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, () => { last = null; });
    this.canvas.addEventListener("wheel", event => {
      event.preventDefault();
      if (this.slider.slice && !event.ctrlKey) this.move("slice", -Math.sign(event.deltaY));
      else this.move("zoom", -Math.sign(event.deltaY) * 0.25);
    }, { passive: false });
  }
}
