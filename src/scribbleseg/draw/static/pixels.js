// Pixels of strokes, and pictures of planes. A plane is {data, rows, columns}; 255 in a label is "not drawn".

export const NOT_DRAWN = 255;

export const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

// Calls put(pixel) for every pixel of a round brush along the line from a to b ([column, row], in pixels).
// radius and spacing [row, column] in mm, so that the brush is round on the screen.
export function alongLine(plane, a, b, radius, spacing, put) {
  const [height, width] = spacing;
  const steps = Math.max(1, Math.ceil(2 * Math.hypot(b[0] - a[0], b[1] - a[1])));
  for (let step = 0; step <= steps; step++) {
    const x = a[0] + ((b[0] - a[0]) * step) / steps, y = a[1] + ((b[1] - a[1]) * step) / steps;
    putIf(plane, Math.floor(x), Math.floor(y), put);
    for (let row = Math.floor(y - radius / height); row <= y + radius / height; row++) {
      for (let column = Math.floor(x - radius / width); column <= x + radius / width; column++) {
        if (Math.hypot((column + 0.5 - x) * width, (row + 0.5 - y) * height) < radius) putIf(plane, column, row, put);
      }
    }
  }
}

function putIf(plane, column, row, put) {
  if (column >= 0 && row >= 0 && column < plane.columns && row < plane.rows) put(row * plane.columns + column);
}

// Calls put(pixel) for every pixel whose centre lies inside the polygon of points [column, row].
export function inside(plane, points, put) {
  for (let row = 0; row < plane.rows; row++) {
    const crossings = [];
    points.forEach(([x, y], index) => {
      const [x2, y2] = points[(index + 1) % points.length];
      if ((y <= row + 0.5) !== (y2 <= row + 0.5)) crossings.push(x + ((row + 0.5 - y) * (x2 - x)) / (y2 - y));
    });
    crossings.sort((one, other) => one - other);
    for (let pair = 0; pair + 1 < crossings.length; pair += 2) {
      for (let column = Math.ceil(crossings[pair] - 0.5); column + 0.5 < crossings[pair + 1]; column++) putIf(plane, column, row, put);
    }
  }
}

// The pixels that differ between two labels: {at, before, after}.
export function difference(before, after) {
  const at = [];
  for (let pixel = 0; pixel < after.length; pixel++) if (before[pixel] !== after[pixel]) at.push(pixel);
  return { at: Uint32Array.from(at), before: Uint8Array.from(at, (p) => before[p]), after: Uint8Array.from(at, (p) => after[p]) };
}

function picture(plane, fill) {
  const canvas = new OffscreenCanvas(plane.columns, plane.rows);
  const image = new ImageData(plane.columns, plane.rows);
  fill(new Uint32Array(image.data.buffer), plane.data);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const packed = ([red, green, blue], alpha = 255) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;

// Of a plane with one number per pixel, or with red, green and blue.
export const imagePicture = (plane, { low, high }) =>
  picture(plane, (out, data) => {
    const scale = 255 / (high - low), light = (at) => Math.max(0, Math.min(255, (data[at] - low) * scale)) | 0;
    if (plane.numbers === 3) {
      for (let pixel = 0; pixel < out.length; pixel++) out[pixel] = packed([light(3 * pixel), light(3 * pixel + 1), light(3 * pixel + 2)]);
      return;
    }
    for (let pixel = 0; pixel < out.length; pixel++) out[pixel] = (0xff000000 | (light(pixel) * 0x010101)) >>> 0;
  });

// `first`: the lowest class that is shown; 1 leaves the background of a prediction clear.
export const labelPicture = (plane, colours, first = 0) =>
  picture(plane, (out, data) => {
    const table = new Uint32Array(256);
    colours.forEach((colour, value) => { if (value >= first) table[value] = packed(rgb(colour)); });
    for (let pixel = 0; pixel < out.length; pixel++) out[pixel] = table[data[pixel]];
  });

export const heatPicture = (plane) =>
  picture(plane, (out, data) => {
    for (let pixel = 0; pixel < out.length; pixel++) {
      const value = data[pixel];
      out[pixel] = packed([255, 90 + value * 0.6, 20], Math.min(180, value) | 0);
    }
  });

// The outline of every class above background, as one path per class in pixel coordinates.
export function outlines(plane, classes) {
  const { data, rows, columns } = plane;
  const paths = Array.from({ length: classes }, () => new Path2D());
  const edge = (value, x, y, x2, y2) => { if (value > 0 && value < classes) { paths[value].moveTo(x, y); paths[value].lineTo(x2, y2); } };
  for (let row = 0; row <= rows; row++) {
    for (let column = 0; column <= columns; column++) {
      const here = row < rows && column < columns ? data[row * columns + column] : 0;
      const left = row < rows && column > 0 ? data[row * columns + column - 1] : 0;
      const above = column < columns && row > 0 ? data[(row - 1) * columns + column] : 0;
      if (row < rows && here !== left) { edge(here, column, row, column, row + 1); edge(left, column, row, column, row + 1); }
      if (column < columns && here !== above) { edge(here, column, row, column + 1, row); edge(above, column, row, column + 1, row); }
    }
  }
  return paths;
}
