// A person without a box or a detector, as lib/simplepose/inference/person_search.py finds one: the network looks at crops
// of several sizes all over the picture, boxes the joints of the best one, and looks at that box again until it settles.

import { overlap } from "./detectors.js";
import { BOX_PADDING } from "./pose.js";

const FIRST_CROPS = [1, 0.7, 0.5, 0.35]; // their sides, as parts of the picture's longer side
const FIRST_LIVE = [1, 0.7]; // while a video plays, in which nobody can wait for all of them
const STEP = 0.5; // at most, between neighbouring crops, as a part of their side
const LOOKS = 3; // at most, the last of which is the pose itself
const SETTLED = 0.8; // overlap of a box and the one before it
const MIN_SCORE = 0.15, MIN_JOINTS = 3; // joints that count, and how many of them make a box
const BEYOND_JOINTS = 1.1; // a person's box is so much larger than the box of the joints

/**
 * The box of a person, the whole picture if nobody is found.
 * @param size [width, height] of the picture.
 * @param ask box -> promise of {keypoints, scores}.
 * @param live look at the larger crops only, for people who fill much of the picture.
 */
export async function findPerson(size, ask, live = false) {
  let box = boxOf(await best(firstBoxes(size, live ? FIRST_LIVE : FIRST_CROPS), ask), size);
  for (let look = 1; box && look < LOOKS; look++) {
    const next = boxOf(await ask(box), size);
    if (!next) break;
    const settled = overlap(next, box) > SETTLED;
    box = next;
    if (settled) break;
  }
  return box ?? [0, 0, ...size];
}

/** The boxes of the first look, whose crops are squares that cover the picture in each of their sizes. */
export function firstBoxes(size, parts = FIRST_CROPS) {
  const boxes = [];
  for (const part of parts) {
    const side = part * Math.max(...size), boxSide = side / BOX_PADDING;
    const [xs, ys] = size.map((length) => {
      const steps = Math.max(0, Math.ceil((length / side - 1) / STEP - 1e-9));
      return Array.from({ length: steps + 1 }, (_, at) => (steps ? side / 2 + (at / steps) * (length - side) : length / 2));
    });
    for (const y of ys) for (const x of xs) boxes.push([x - boxSide / 2, y - boxSide / 2, boxSide, boxSide]);
  }
  return boxes;
}

async function best(boxes, ask) {
  let found = null, highest = -Infinity;
  for (const box of boxes) {
    const pose = await ask(box);
    const mean = pose.scores.reduce((sum, score) => sum + score, 0) / pose.scores.length;
    if (mean > highest) [found, highest] = [pose, mean];
  }
  return found;
}

/** The box around the joints of a pose; null if it shows no person inside the picture. */
export function boxOf(pose, [width, height]) {
  const joints = pose ? pose.keypoints.filter((_, joint) => pose.scores[joint] >= MIN_SCORE) : [];
  if (joints.length < MIN_JOINTS) return null;
  const [[left, right], [top, bottom]] = [0, 1].map((axis) => {
    const values = joints.map((joint) => joint[axis]), low = Math.min(...values), high = Math.max(...values);
    const beyond = ((high - low) * (BEYOND_JOINTS - 1)) / 2;
    return [low - beyond, high + beyond];
  });
  const inside = left < width && top < height && right > 0 && bottom > 0;
  return inside && right - left >= 1e-3 && bottom - top >= 1e-3 ? [left, top, right - left, bottom - top] : null;
}
