// From a box in a picture to keypoints: crop, pixels, flip test, decoding. The arithmetic of pose_estimation/deploy.py,
// function by function; a test in a browser holds the two together.
// Pictures are {data, width, height}, RGBA as canvas gives them. Boxes are [left, top, width, height] in pixels.

export const BOX_PADDING = 1.25; // the crop is so much larger than the box
const QUARTER = 0.25; // cells; the step from the maximum towards its higher neighbour

/**
 * Picture pixels times scale plus shift are crop pixels. The box grows to the crop's shape, then by the padding.
 * An unbiased crop (UDP) is measured from its first pixel to its last.
 */
export function cropScaleAndShift([x, y, width, height], { image_size_wh: [cropWidth, cropHeight], unbiased }) {
  const [wide, high] = [cropWidth - unbiased, cropHeight - unbiased];
  const scale = wide / (Math.max(width, height * (cropWidth / cropHeight)) * BOX_PADDING);
  return { scale, shift: [wide / 2 - scale * (x + width / 2), high / 2 - scale * (y + height / 2)] };
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
export function averageWithMirrored(heatmaps, mirrored, description) {
  const { heatmap_size_wh: [columns, rows], flip_permutation, graph, unbiased } = description;
  const cells = rows * columns, shift = graph.shift_heatmap && !unbiased; // unless unbiased, mirroring loses about a cell
  flip_permutation.forEach((other, joint) => {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const shifted = shift ? Math.max(column - 1, 0) : column;
        const at = joint * cells + row * columns + column;
        heatmaps[at] = 0.5 * (heatmaps[at] + mirrored[other * cells + row * columns + columns - 1 - shifted]);
      }
    }
  });
}

/** Keypoints [[x, y]] in crop pixels and scores of heatmaps (joints, rows, columns). */
export function decode(heatmaps, { heatmap_size_wh: [columns, rows], image_size_wh: [width, height], unbiased, decoder, sigma, graph }) {
  const cells = rows * columns;
  const strideX = (width - unbiased) / (columns - unbiased), strideY = (height - unbiased) / (rows - unbiased);
  const keypoints = [], scores = [];
  for (let start = 0; start < heatmaps.length; start += cells) {
    let best = start;
    for (let at = start + 1; at < start + cells; at++) if (heatmaps[at] > heatmaps[best]) best = at;
    scores.push(heatmaps[best]);
    if (!(heatmaps[best] > 0)) best = start;
    let x = (best - start) % columns, y = Math.floor((best - start) / columns);
    if (graph.post_process && x > 1 && x < columns - 1 && y > 1 && y < rows - 1) {
      const heatmap = heatmaps.subarray(start, start + cells);
      const step = decoder === "dark" ? darkStep(heatmap, columns, x, y, sigma)
        : [1, columns].map((next) => QUARTER * Math.sign(heatmaps[best + next] - heatmaps[best - next]));
      x += step[0];
      y += step[1];
    }
    keypoints.push([x * strideX, y * strideY]);
  }
  return { keypoints, scores };
}

/** From the maximum of a heatmap to its peak: Newton's step on the logarithm of the smoothed heatmap (DARK). */
function darkStep(heatmap, columns, x, y, sigma) {
  const radius = Math.max(1, Math.round(2.5 * sigma)), rows = heatmap.length / columns;
  const bell = Array.from({ length: 2 * radius + 1 }, (_, at) => Math.exp(-((at - radius) ** 2) / (2 * sigma ** 2)));
  const total = bell.reduce((sum, value) => sum + value) ** 2;
  const log = (dx, dy) => {
    let sum = 0;
    for (let row = -radius; row <= radius; row++) {
      for (let column = -radius; column <= radius; column++) {
        const atX = x + dx + column, atY = y + dy + row;
        if (atX < 0 || atX >= columns || atY < 0 || atY >= rows) continue;
        sum += bell[row + radius] * bell[column + radius] * heatmap[atY * columns + atX];
      }
    }
    return Math.log(Math.max(sum / total, 1e-10));
  };
  const middle = log(0, 0), [left, right, above, below] = [log(-1, 0), log(1, 0), log(0, -1), log(0, 1)];
  const slopeX = (right - left) / 2, slopeY = (below - above) / 2;
  const xx = right - 2 * middle + left, yy = below - 2 * middle + above;
  const xy = (log(1, 1) - log(-1, 1) - log(1, -1) + log(-1, -1)) / 4, determinant = xx * yy - xy ** 2;
  const flat = 0.005 / sigma ** 2;
  if (!(determinant > flat ** 2 && xx < -flat)) return [0, 0];
  const within = (step) => Math.min(Math.max(step / determinant, -1), 1);
  return [within(xy * slopeY - yy * slopeX), within(xy * slopeX - xx * slopeY)];
}

/** Scores as probabilities of being right, by the pairs (score, probability, ...) that a file may carry. */
export function calibrated(scores, { score_calibration: pairs = [] }) {
  if (!pairs.length) return scores;
  return scores.map((score) => {
    if (Number.isNaN(score)) return score;
    const next = pairs.findIndex((value, at) => at % 2 === 0 && value >= score);
    if (next === 0) return pairs[1];
    if (next < 0) return pairs.at(-1);
    const part = (score - pairs[next - 2]) / (pairs[next] - pairs[next - 2]);
    return pairs[next - 1] + part * (pairs[next + 1] - pairs[next - 1]);
  });
}

/** The mean of the positive scores, as the library's pose_score. */
export function poseScore(scores) {
  const positive = scores.filter((score) => score > 0);
  return positive.length ? positive.reduce((sum, score) => sum + score, 0) / positive.length : 0;
}
