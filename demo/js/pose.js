// From a box in a picture to keypoints: crop, pixels, flip test, decoding. The arithmetic of pose_estimation/deploy.py,
// function by function; a test in a browser holds the two together.
// Pictures are {data, width, height}, RGBA as canvas gives them. Boxes are [left, top, width, height] in pixels.

export const BOX_PADDING = 1.25; // the crop is so much larger than the box
const QUARTER = 0.25; // cells; the step from the maximum towards its higher neighbour

/** Picture pixels times scale plus shift are crop pixels. The box grows to the crop's shape, then by the padding. */
export function cropScaleAndShift([x, y, width, height], [cropWidth, cropHeight]) {
  const scale = cropWidth / (Math.max(width, height * (cropWidth / cropHeight)) * BOX_PADDING);
  return { scale, shift: [cropWidth / 2 - scale * (x + width / 2), cropHeight / 2 - scale * (y + height / 2)] };
}

/** Cut a person out, bilinearly as OpenCV does it, black outside of the picture: (height, width, 3) RGB bytes. */
export function crop({ data, width, height }, { scale, shift }, [cropWidth, cropHeight]) {
  const made = new Uint8Array(cropWidth * cropHeight * 3);
  for (let row = 0, at = 0; row < cropHeight; row++) {
    const y = (row - shift[1]) / scale, top = Math.floor(y), down = y - top;
    for (let column = 0; column < cropWidth; column++, at += 3) {
      const x = (column - shift[0]) / scale, left = Math.floor(x), right = x - left;
      for (let dy = 0; dy < 2; dy++) {
        if (top + dy < 0 || top + dy >= height) continue;
        for (let dx = 0; dx < 2; dx++) {
          if (left + dx < 0 || left + dx >= width) continue;
          const from = ((top + dy) * width + left + dx) * 4, weight = (dy ? down : 1 - down) * (dx ? right : 1 - right);
          for (let channel = 0; channel < 3; channel++) sums[channel] += weight * data[from + channel];
        }
      }
      for (let channel = 0; channel < 3; channel++) {
        made[at + channel] = Math.round(sums[channel]);
        sums[channel] = 0;
      }
    }
  }
  return made;
}
const sums = new Float64Array(3);

/** An RGB crop as the network takes it: {data, shape}; `mirrored` for the flip test. */
export function networkInput(pixels, [width, height], { input, graph }, mirrored = false) {
  const order = (graph.preprocess ? graph.pixels : input.channels) === "rgb" ? [0, 1, 2] : [2, 1, 0];
  const source = (row, column) => (row * width + (mirrored ? width - 1 - column : column)) * 3;
  if (graph.preprocess) {
    const data = new Uint8Array(pixels.length);
    for (let row = 0, at = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        for (const channel of order) data[at++] = pixels[source(row, column) + channel];
      }
    }
    return { data, shape: [1, height, width, 3] };
  }
  const data = new Float32Array(pixels.length);
  order.forEach((channel, plane) => {
    const scale = Math.fround(1 / (input.divisor * input.std[plane])), shift = Math.fround(input.mean[plane] / input.std[plane]);
    const table = Float32Array.from({ length: 256 }, (_, level) => Math.fround(level * scale) - shift);
    for (let row = 0, at = plane * width * height; row < height; row++) {
      for (let column = 0; column < width; column++) data[at++] = table[pixels[source(row, column) + channel]];
    }
  });
  return { data, shape: [1, 3, height, width] };
}

/** Average heatmaps (joints, rows, columns) with those of the mirrored crop. */
export function averageWithMirrored(heatmaps, mirrored, { heatmap_size_wh: [columns, rows], flip_permutation, graph }) {
  const cells = rows * columns;
  flip_permutation.forEach((other, joint) => {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const shifted = graph.shift_heatmap ? Math.max(column - 1, 0) : column; // mirroring loses about a cell
        const at = joint * cells + row * columns + column;
        heatmaps[at] = 0.5 * (heatmaps[at] + mirrored[other * cells + row * columns + columns - 1 - shifted]);
      }
    }
  });
}

/** Keypoints [[x, y]] in crop pixels and scores of heatmaps (joints, rows, columns). */
export function decode(heatmaps, { heatmap_size_wh: [columns, rows], image_size_wh: [width], graph }) {
  const cells = rows * columns, stride = width / columns;
  const keypoints = [], scores = [];
  for (let start = 0; start < heatmaps.length; start += cells) {
    let best = start;
    for (let at = start + 1; at < start + cells; at++) if (heatmaps[at] > heatmaps[best]) best = at;
    scores.push(heatmaps[best]);
    if (!(heatmaps[best] > 0)) best = start;
    let x = (best - start) % columns, y = Math.floor((best - start) / columns);
    if (graph.post_process && x > 1 && x < columns - 1 && y > 1 && y < rows - 1) {
      x += QUARTER * Math.sign(heatmaps[best + 1] - heatmaps[best - 1]);
      y += QUARTER * Math.sign(heatmaps[best + columns] - heatmaps[best - columns]);
    }
    keypoints.push([x * stride, y * stride]);
  }
  return { keypoints, scores };
}

/** The mean of the positive scores, as the library's pose_score. */
export function poseScore(scores) {
  const positive = scores.filter((score) => score > 0);
  return positive.length ? positive.reduce((sum, score) => sum + score, 0) / positive.length : 0;
}
