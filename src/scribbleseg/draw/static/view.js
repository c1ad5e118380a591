// A plane on a canvas: where it lies, how it is enlarged, and its layers from the image up to the strokes.

import { heatPicture, imagePicture, labelPicture, outlines } from "./pixels.js";

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.spacing = [1, 1]; // mm between rows, between columns
    this.planes = {}; // image, strokes, prediction, uncertainty
    this.pictures = {}; // what was made of them
    this.scale = 1; // CSS pixels per mm
    this.left = this.top = 0;
    this.fitted = true;
    this.look = { window: { low: 0, high: 1 }, colours: [], opacity: 0.3, show: {} };
    this.cursor = null; // {x, y, radius} on the screen
    this.cross = null; // [column, row]
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    if (this.fitted) this.fit();
    this.redraw();
  }

  // Show these planes; a layer that is left out is empty.
  set(planes, spacing) {
    const before = this.planes.image;
    for (const kind of ["image", "strokes", "prediction", "uncertainty"]) {
      if (this.planes[kind] !== planes[kind]) this.changed(kind);
    }
    this.planes = planes;
    this.spacing = spacing;
    const other = before?.rows !== planes.image?.rows || before?.columns !== planes.image?.columns;
    if (other || this.fitted) this.fit();
    this.redraw();
  }

  changed(kind) {
    delete this.pictures[kind];
    if (kind === "prediction") delete this.pictures.outlines;
    this.redraw();
  }

  restyle() {
    this.pictures = {};
    this.redraw();
  }

  fit() {
    const image = this.planes.image;
    if (!image) return;
    const width = image.columns * this.spacing[1], height = image.rows * this.spacing[0];
    this.scale = Math.min(this.canvas.clientWidth / width, this.canvas.clientHeight / height) || 1;
    this.left = (this.canvas.clientWidth - width * this.scale) / 2;
    this.top = (this.canvas.clientHeight - height * this.scale) / 2;
    this.fitted = true;
    this.redraw();
  }

  zoom(factor, x, y) {
    const next = Math.max(0.05, Math.min(200, this.scale * factor));
    this.left = x - ((x - this.left) * next) / this.scale;
    this.top = y - ((y - this.top) * next) / this.scale;
    this.scale = next;
    this.fitted = false;
    this.redraw();
  }

  move(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.fitted = false;
    this.redraw();
  }

  // [column, row] with fractions, of a place on the canvas in CSS pixels.
  at(x, y) {
    return [(x - this.left) / (this.scale * this.spacing[1]), (y - this.top) / (this.scale * this.spacing[0])];
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  made(kind, make) {
    return (this.pictures[kind] ??= make());
  }

  draw() {
    const { context, planes, look, spacing } = this, ratio = window.devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    if (!planes.image) return;
    const width = planes.image.columns * spacing[1] * this.scale, height = planes.image.rows * spacing[0] * this.scale;
    const layer = (picture, alpha, smooth) => {
      context.globalAlpha = alpha;
      context.imageSmoothingEnabled = smooth;
      context.imageSmoothingQuality = "high";
      context.drawImage(picture, this.left, this.top, width, height);
      context.globalAlpha = 1;
    };
    layer(this.made("image", () => imagePicture(planes.image, look.window)), 1, true);
    if (planes.prediction && look.show.prediction) {
      layer(this.made("prediction", () => labelPicture(planes.prediction, look.colours, 1)), look.opacity, false);
      const paths = this.made("outlines", () => outlines(planes.prediction, look.colours.length));
      const place = new DOMMatrix([spacing[1] * this.scale, 0, 0, spacing[0] * this.scale, this.left, this.top]);
      paths.forEach((path, value) => {
        const onScreen = new Path2D();
        onScreen.addPath(path, place);
        context.strokeStyle = look.colours[value];
        context.lineWidth = 1.5;
        context.stroke(onScreen);
      });
    }
    if (planes.uncertainty && look.show.uncertainty) {
      layer(this.made("uncertainty", () => heatPicture(planes.uncertainty)), 1, true);
    }
    if (planes.strokes && look.show.strokes) {
      layer(this.made("strokes", () => labelPicture(planes.strokes, look.colours)), 0.9, false);
    }
    if (this.cross) this.drawCross();
    if (this.cursor) this.drawCursor();
  }

  drawCross() {
    const { context } = this;
    const x = this.left + (this.cross[0] + 0.5) * this.spacing[1] * this.scale;
    const y = this.top + (this.cross[1] + 0.5) * this.spacing[0] * this.scale;
    context.strokeStyle = "#4aa3ffb0";
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, this.canvas.clientHeight);
    context.moveTo(0, y);
    context.lineTo(this.canvas.clientWidth, y);
    context.stroke();
  }

  drawCursor() {
    const { context } = this, { x, y, radius } = this.cursor;
    for (const [colour, width] of [["#000", 3], ["#fff", 1]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.arc(x, y, Math.max(2, radius), 0, 2 * Math.PI);
      context.stroke();
    }
  }
}
