// A person without a box or a detector: the network looks at the whole picture, boxes what it found, and looks again
// until the box settles.

import { overlap } from "./detectors.js";

const LOOKS = 3; // at most
const SETTLED = 0.9; // overlap of a box with the one before
const MIN_SCORE = 0.2; // of a joint that counts

/** The pose of the most visible person. `ask`: box -> promise of a pose with keypoints and scores. */
export async function findPerson([width, height], ask) {
  let pose = await ask([0, 0, width, height]);
  for (let look = 1; look < LOOKS; look++) {
    const box = boxAround(pose, [width, height]);
    if (!box || overlap(box, pose.box) > SETTLED) break;
    pose = await ask(box);
  }
  return pose;
}

/** The box around the joints that a network is sure of, inside the picture; null with fewer than two of them. */
export function boxAround({ keypoints, scores }, [width, height]) {
  const sure = keypoints.filter((_, joint) => scores[joint] >= MIN_SCORE);
  if (sure.length < 2) return null;
  const within = (value, limit) => Math.min(Math.max(value, 0), limit);
  const xs = sure.map(([x]) => within(x, width)), ys = sure.map(([, y]) => within(y, height));
  const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys)];
  return box[2] > 0 && box[3] > 0 ? box : null;
}
