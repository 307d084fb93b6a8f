// Person detectors in ONNX: recognised by their outputs, as lib/simplepose/inference/detectors does. The families here are
// those whose files carry no further settings: NanoDet, YOLOX, FastestDet, with COCO's 80 classes, of which 0 is a person.

const PERSON = 0, CLASSES = 80, MIN_SCORE = 0.3;

const FAMILIES = {
  nanodet: {
    size: [416, 416], maxOverlap: 0.5, keepRatio: true, centered: true, area: true,
    mean: [103.53, 116.28, 123.675], std: [57.375, 57.12, 58.395], decode: decodeNanodet, // B, G, R
  },
  yolox: { size: [640, 640], maxOverlap: 0.45, keepRatio: true, fill: 114, mean: [0, 0, 0], std: [1, 1, 1], decode: decodeYolox },
  fastestdet: { size: [352, 352], maxOverlap: 0.45, mean: [0, 0, 0], std: [255, 255, 255], decode: decodeFastestdet },
};

/** The name of a family by the shapes of a network's outputs; null if it is none of them. */
export function recognise(outputShapes) {
  const lasts = outputShapes.map((shape) => shape.at(-1));
  const count = (value) => lasts.filter((last) => last === value).length;
  if (lasts.length > 1 && count(CLASSES) === count(32) && count(CLASSES) + count(32) === lasts.length) return "nanodet";
  if (lasts.length === 1 && outputShapes[0].length === 3 && lasts[0] === CLASSES + 5) return "yolox";
  if (lasts.length === 1 && outputShapes[0].length === 4 && outputShapes[0][1] === CLASSES + 5) return "fastestdet";
  return null;
}

/**
 * What a detector is fed with: BGR planes, and a function from input x, y to picture x, y.
 * @param picture {data, width, height}, RGBA.
 */
export function detectorInput(picture, family, inputShape) {
  const { size, keepRatio, centered, area, fill = 0, mean, std } = FAMILIES[family];
  const known = (side, otherwise) => (typeof side === "number" && side > 0 ? side : otherwise);
  const height = known(inputShape[2], size[1]), width = known(inputShape[3], size[0]);
  const fit = Math.min(width / picture.width, height / picture.height);
  const fittedWidth = keepRatio ? Math.max(1, Math.round(picture.width * fit)) : width;
  const fittedHeight = keepRatio ? Math.max(1, Math.round(picture.height * fit)) : height;
  const left = centered ? Math.floor((width - fittedWidth) / 2) : 0, top = centered ? Math.floor((height - fittedHeight) / 2) : 0;
  const fitted = resize(picture, fittedWidth, fittedHeight, area);
  const data = new Float32Array(3 * width * height);
  for (let plane = 0; plane < 3; plane++) {
    data.fill((fill - mean[plane]) / std[plane], plane * width * height, (plane + 1) * width * height);
    for (let row = 0, from = 2 - plane; row < fittedHeight; row++) {
      for (let at = (plane * height + top + row) * width + left, end = at + fittedWidth; at < end; at++, from += 3) {
        data[at] = (Math.round(fitted[from]) - mean[plane]) / std[plane];
      }
    }
  }
  const scaleX = fittedWidth / picture.width, scaleY = fittedHeight / picture.height;
  return { data, shape: [1, 3, height, width], toPicture: (x, y) => [(x - left) / scaleX, (y - top) / scaleY] };
}

/** A picture as (height, width, 3) RGB numbers of another size, as OpenCV resizes: bilinearly, or averaged over areas. */
function resize({ data, width, height }, newWidth, newHeight, area) {
  const columns = spans(width, newWidth, area), rows = spans(height, newHeight, area);
  const made = new Float32Array(newWidth * newHeight * 3), line = new Float32Array(width * 3);
  for (let row = 0, at = 0; row < newHeight; row++) {
    line.fill(0);
    for (const [source, weight] of rows[row]) {
      for (let from = source * width * 4, to = 0; to < line.length; from += 4, to += 3) {
        for (let channel = 0; channel < 3; channel++) line[to + channel] += weight * data[from + channel];
      }
    }
    for (let column = 0; column < newWidth; column++, at += 3) {
      for (const [source, weight] of columns[column]) {
        for (let channel = 0; channel < 3; channel++) made[at + channel] += weight * line[source * 3 + channel];
      }
    }
  }
  return made;
}

/** For each of `made` pixels of a line the source pixels that it is made of, [[index, weight]]. */
function spans(length, made, area) {
  const scale = length / made, averaged = area && scale > 1;
  return Array.from({ length: made }, (_, index) => {
    if (!averaged) {
      const place = (index + 0.5) * scale - 0.5, low = Math.floor(place), within = (at) => Math.min(Math.max(at, 0), length - 1);
      return [[within(low), low + 1 - place], [within(low + 1), place - low]];
    }
    const start = index * scale, end = Math.min(start + scale, length), found = [];
    for (let at = Math.floor(start); at < end; at++) found.push([at, (Math.min(at + 1, end) - Math.max(at, start)) / (end - start)]);
    return found;
  });
}

/** People, best first: [{box: [left, top, width, height], score}] in picture pixels, clipped to the picture. */
export function detectorBoxes(family, outputs, { shape, toPicture }, picture) {
  const found = FAMILIES[family].decode(outputs, shape).filter(({ score }) => score >= MIN_SCORE).map(({ corners, score }) => {
    const clip = ([x, y]) => [Math.min(Math.max(x, 0), picture.width), Math.min(Math.max(y, 0), picture.height)];
    const [left, top] = clip(toPicture(corners[0], corners[1])), [right, bottom] = clip(toPicture(corners[2], corners[3]));
    return { box: [left, top, right - left, bottom - top], score };
  }).filter(({ box }) => box[2] > 0 && box[3] > 0);
  found.sort((one, other) => other.score - one.score);
  const kept = [];
  for (const one of found) {
    if (kept.every((other) => overlap(one.box, other.box) <= FAMILIES[family].maxOverlap)) kept.push(one);
  }
  return kept;
}

/** Intersection over union of two boxes. */
export function overlap([x, y, width, height], [otherX, otherY, otherWidth, otherHeight]) {
  const wide = Math.min(x + width, otherX + otherWidth) - Math.max(x, otherX);
  const high = Math.min(y + height, otherY + otherHeight) - Math.max(y, otherY);
  const common = Math.max(wide, 0) * Math.max(high, 0);
  return common / (width * height + otherWidth * otherHeight - common);
}

/** Per stride class scores (cells, 80) and distributions (cells, 4 sides x 8 bins); a side's distance is their mean. */
function decodeNanodet(outputs, [, , height, width]) {
  const found = [];
  for (const classes of outputs.filter((output) => output.dims.at(-1) === CLASSES)) {
    const cells = classes.data.length / CLASSES, stride = Math.round(Math.sqrt((width * height) / cells));
    const bins = outputs.find((output) => output.dims.at(-1) === 32 && output.data.length === cells * 32).data;
    const columns = Math.ceil(width / stride);
    for (let cell = 0; cell < cells; cell++) {
      const score = classes.data[cell * CLASSES + PERSON];
      if (score < MIN_SCORE) continue;
      const x = (cell % columns) * stride + (stride - 1) / 2, y = Math.floor(cell / columns) * stride + (stride - 1) / 2;
      const [left, top, right, bottom] = [0, 1, 2, 3].map((side) => {
        const weights = Array.from(bins.subarray(cell * 32 + side * 8, cell * 32 + side * 8 + 8), Math.exp);
        return (stride * weights.reduce((sum, weight, bin) => sum + weight * bin, 0)) / weights.reduce((sum, weight) => sum + weight);
      });
      found.push({ corners: [x - left, y - top, x + right, y + bottom], score });
    }
  }
  return found;
}

/** (cells, 85) = centre, size, objectness, class scores, at strides 8, 16, 32 (, 64); in input pixels, or relative to cells. */
function decodeYolox([{ data, dims }], [, , height, width]) {
  const row = CLASSES + 5, cells = dims[1];
  let relative = true;
  for (let cell = 0; cell < cells && relative; cell++) relative = data[cell * row + 2] <= 10 && data[cell * row + 3] <= 10;
  const grid = [8, 16, 32, 64].flatMap((stride) => {
    const columns = Math.floor(width / stride), rows = Math.floor(height / stride);
    return Array.from({ length: columns * rows }, (_, index) => [index % columns, Math.floor(index / columns), stride]);
  });
  const found = [];
  for (let cell = 0; cell < cells; cell++) {
    let [x, y, wide, high, objectness] = data.subarray(cell * row, cell * row + 5);
    if (relative) {
      const [column, line, stride] = grid[cell];
      [x, y, wide, high] = [(x + column) * stride, (y + line) * stride, Math.exp(wide) * stride, Math.exp(high) * stride];
    }
    const score = objectness * data[cell * row + 5 + PERSON];
    found.push({ corners: [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], score });
  }
  return found;
}

/** (85, rows, columns) = objectness, tanh dx, tanh dy, sigmoid w, sigmoid h, class scores. */
function decodeFastestdet([{ data, dims }], [, , height, width]) {
  const [, , rows, columns] = dims, cells = rows * columns;
  const sigmoid = (value) => 1 / (1 + Math.exp(-value));
  return Array.from({ length: cells }, (_, cell) => {
    const value = (channel) => data[channel * cells + cell];
    const x = (((cell % columns) + Math.tanh(value(1))) / columns) * width;
    const y = ((Math.floor(cell / columns) + Math.tanh(value(2))) / rows) * height;
    const wide = sigmoid(value(3)) * width, high = sigmoid(value(4)) * height;
    const score = value(0) ** 0.6 * value(5 + PERSON) ** 0.4;
    return { corners: [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], score };
  });
}
