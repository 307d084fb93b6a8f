// What is painted: skeletons, boxes' heatmaps, crops. Colours and rules as the library's core/drawing.py.

export const COLORS = { left: "rgb(255, 150, 60)", right: "rgb(50, 170, 255)", middle: "rgb(90, 220, 90)" };
const OUTLINE = "rgb(30, 30, 30)";

/** "left", "right" or "middle" for each joint. */
export function sidesOf({ joints, pairs }) {
  return joints.map((name) => (pairs.some(([left]) => left === name) ? "left" : pairs.some(([, right]) => right === name) ? "right" : "middle"));
}

/** Draw a person in picture pixels; `unit` is the thickness of a limb in them. */
export function drawPose(context, { keypoints, scores }, skeleton, minScore, unit, marked = -1) {
  const sides = sidesOf(skeleton), shown = scores.map((score) => score >= minScore);
  context.lineCap = "round";
  for (const [start, end] of skeleton.limbs.map((limb) => limb.map((name) => skeleton.joints.indexOf(name)))) {
    if (!shown[start] || !shown[end]) continue;
    const color = COLORS[sides[start] === "middle" ? sides[end] : sides[start]];
    for (const [style, width] of [[OUTLINE, 1.8 * unit], [color, unit]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(...keypoints[start]);
      context.lineTo(...keypoints[end]);
      context.stroke();
    }
  }
  keypoints.forEach((point, joint) => {
    if (!shown[joint] && joint !== marked) return;
    const radius = joint === marked ? 2.4 * unit : 1.25 * unit;
    for (const [style, size] of [[joint === marked ? "white" : OUTLINE, radius + 0.5 * unit], [COLORS[sides[joint]], radius]]) {
      context.fillStyle = style;
      context.beginPath();
      context.arc(...point, size, 0, 2 * Math.PI);
      context.fill();
    }
  });
}

/**
 * Heatmaps (joints, rows, columns) as a small canvas that is clear where they are 0.
 * One joint's, shown relative to its own maximum; or (joint is -1) all, the highest value of each cell.
 */
export function heatmapCanvas(heatmaps, [columns, rows], joint) {
  const cells = rows * columns, canvas = new OffscreenCanvas(columns, rows), image = new ImageData(columns, rows);
  const chosen = joint < 0 ? heatmaps : heatmaps.subarray(joint * cells, (joint + 1) * cells);
  const full = joint < 0 ? 1 : Math.max(...chosen, 1e-6);
  for (let cell = 0; cell < cells; cell++) {
    let value = 0;
    for (let at = cell; at < chosen.length; at += cells) value = Math.max(value, chosen[at]);
    value = Math.min(value / full, 1);
    // From deep violet over red to pale yellow, lighter and more solid with the value.
    image.data.set([255 * Math.min(1, 0.3 + 1.6 * value), 255 * Math.max(0, 1.7 * value - 0.45), 255 * Math.max(0.6 - 1.4 * value, 1.9 * value - 1.3), 255 * Math.min(1, 1.3 * value ** 0.8)], cell * 4);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Lay a heatmap over what a crop of this size shows. Cell [y, x] stands for pixel (x, y) * stride, so it is drawn around it. */
export function drawHeatmap(context, canvas, [width, height]) {
  const strideX = width / canvas.width, strideY = height / canvas.height;
  context.imageSmoothingEnabled = true;
  context.drawImage(canvas, -strideX / 2, -strideY / 2, width, height);
}

/** An RGB crop as a canvas. */
export function cropCanvas(pixels, [width, height]) {
  const image = new ImageData(width, height);
  for (let from = 0, to = 0; from < pixels.length; from += 3, to += 4) image.data.set([pixels[from], pixels[from + 1], pixels[from + 2], 255], to);
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
