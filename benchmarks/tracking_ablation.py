"""The paper's Table 4 again: what box propagation and each similarity bring.

    python benchmarks/tracking_ablation.py --model-file posenet.onnx --detector nanodet_m.onnx    one real video
    python benchmarks/tracking_ablation.py --annotated --seeds 5                                   thirty sequences

The data are the folder `video` of POSE_REAL_DATA: one sequence with photographs and thirty of annotations alone. On the
latter, boxes, poses and flow are the annotated ones with seeded noise and drop-outs, so that no network is needed; what
stands in for them is below. Scores by TrackEval (`pip install ".[tracking]"`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

from simplepose.core.errors import UserError, run_command
from simplepose.core.skeletons import MPII
from simplepose.data.mpii import HEAD_SIZE_FACTOR
from simplepose.data.posetrack import JOINTS, SAME_JOINT, PeopleOfFrame
from simplepose.inference.predictor import Crops, Pose
from simplepose.metrics.tracking import above, pair_frames, people_metrics, tracking_metrics, tracking_table
from simplepose.tracking.matching import box_similarity, joint_boxes
from simplepose.tracking.tracker import PoseTracker, TrackingSettings

DATA = Path(os.environ.get("POSE_REAL_DATA", Path(__file__).resolve().parents[2] / "shared/data")) / "video"
SHOWN_SCORE = 0.3  # predicted joints below it are left out, as MOTA wants
DETECTION_SCORE = 0.3

# The noise of an annotated sequence, in head sizes where not said otherwise.
MISSED = 0.15  # the chance that the detector misses somebody in a frame,
MISSED_LONG, LONG = 0.02, (2, 7)  # that it begins to miss somebody for some frames,
MISSED_HIDDEN = 0.5  # and that it misses somebody of whom most is hidden
FALSE_BOXES = 0.1  # a frame
BOX_JITTER = 0.05  # of its height
JOINT_NOISE, HIDDEN_NOISE, FLOW_NOISE = 0.15, 0.5, 0.07

PEOPLE = ("MOTA", "IDF1", "HOTA", "switches", "fragments")
VARIANTS = {
    "S_bbox": {"similarity": "bbox", "memory": 1},
    "S_pose": {"similarity": "pose", "memory": 1},
    "S_flow": {"similarity": "flow", "memory": 1},
    "S_pose, ten frames": {"similarity": "pose"},
    "S_multiflow": {"similarity": "flow"},
    "S_multiflow, Hungarian": {"similarity": "flow", "hungarian": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-file", metavar="FILE")
    parser.add_argument("--detector", metavar="FILE")
    parser.add_argument("--annotated", action="store_true", help="the sequences without images, with noise")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="TrackingSettings for all variants")
    parser.add_argument("--save", metavar="FILE", help="all scores as JSON")
    args = parser.parse_args()
    if not args.annotated and not (args.model_file and args.detector):
        raise UserError("the real video needs --model-file and --detector; --annotated needs neither")
    common = {name: json.loads(value) for name, value in (text.split("=") for text in args.set)}
    run = annotated_run(args.seeds) if args.annotated else real_run(args.model_file, args.detector)
    columns = [*(() if args.annotated else ("MOTA", "IDF1")), *(f"people {name}" for name in PEOPLE)]
    print("| propagation | similarity | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    results = {}
    for propagate in (False, True):
        for name in args.only:
            scores = run(TrackingSettings(**{**VARIANTS[name], **common, "propagate": propagate}))
            cells = [interval([each[column] for each in scores]) for column in columns]
            print(f"| {'yes' if propagate else 'no'} | {name} | {' | '.join(cells)} |", flush=True)
            results[f"{name}, propagation {propagate}"] = scores
    if args.save:
        Path(args.save).write_text(json.dumps(results, indent=1))


def interval(values: list[float]) -> str:
    """The mean, and half the width of its 95 % interval over the seeds (Student's t: they are few)."""
    from scipy.stats import t

    text = f"{np.mean(values):.1f}"
    if len(values) > 1:
        text += f" +- {t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5:.1f}"
    return text


def read_annotation(path: Path) -> list[dict[str, np.ndarray]]:
    """Per frame: ids (P,), joints (P, 16, 2), labelled and visible (P, 16) bool, heads (P,) pixels."""
    frames = []
    for frame in json.loads(path.read_text())["frames"]:
        people = frame["people"]
        each = {
            "ids": np.array([person["track_id"] for person in people], dtype=np.int64),
            "joints": np.array([person["joints"] for person in people], dtype=float).reshape(-1, 16, 2),
            "labelled": np.array([person["joints_labelled"] for person in people], dtype=bool).reshape(-1, 16),
            "visible": np.array([person["joints_visible"] for person in people], dtype=bool).reshape(-1, 16),
        }
        frames.append({**each, "heads": np.array([head_size(person) for person in people])})
    typical = np.nanmedian(np.concatenate([each["heads"] for each in frames]))
    for each in frames:
        each["heads"] = np.where(np.isnan(each["heads"]), typical, each["heads"])
    return frames


def head_size(person: dict) -> float:
    """By the head box; where there is none, by neck and head top, whose distance is on average 4/3 of that."""
    if person["head_rect"]:
        left, top, right, bottom = person["head_rect"]
        return HEAD_SIZE_FACTOR * float(np.hypot(right - left, bottom - top))
    neck, head_top = (MPII.joints.index(name) for name in ("upper_neck", "head_top"))
    if not (person["joints_labelled"][neck] and person["joints_labelled"][head_top]):
        return np.nan
    return 0.75 * max(float(np.linalg.norm(np.subtract(person["joints"][neck], person["joints"][head_top]))), 4)


COLUMNS = [
    JOINTS.index(SAME_JOINT.get(name, name)) if SAME_JOINT.get(name, name) in JOINTS else -1 for name in MPII.joints
]


def as_people(index: int, ids, joints, known, scores, heads) -> PeopleOfFrame:
    """MPII's 16 joints of some people as PoseTrack's 15."""
    rows = [row for row, column in enumerate(COLUMNS) if column >= 0]
    places = [COLUMNS[row] for row in rows]
    moved = (
        np.zeros((len(ids), len(JOINTS), 2)),
        np.zeros((len(ids), len(JOINTS)), bool),
        np.zeros((len(ids), len(JOINTS))),
    )
    for target, source in zip(moved, (joints, known, scores)):
        target[:, places] = source[:, rows]
    return PeopleOfFrame(f"{index:05d}.jpg", np.asarray(ids, dtype=np.int64), *moved, np.asarray(heads))


def truth_of(frames: list[dict[str, np.ndarray]]) -> list[PeopleOfFrame]:
    return [
        as_people(index, each["ids"], each["joints"], each["labelled"], np.ones(each["labelled"].shape), each["heads"])
        for index, each in enumerate(frames)
    ]


def found_of(tracked: list[list[Pose]]) -> list[PeopleOfFrame]:
    found = []
    for index, poses in enumerate(tracked):
        joints = np.array([pose.keypoints for pose in poses]).reshape(-1, 16, 2)
        scores = np.array([pose.scores for pose in poses]).reshape(-1, 16)
        ids, heads = [pose.track_id for pose in poses], np.full(len(poses), np.nan)
        found.append(above(as_people(index, ids, joints, np.ones(scores.shape, bool), scores, heads), SHOWN_SCORE))
    return found


# --- the real video ------------------------------------------------------------------------------------------------


def real_run(model_file: str, detector_file: str):
    import cv2

    from simplepose import InferenceSettings, PersonDetector, PosePredictor

    images = [cv2.imread(str(path)) for path in sorted((DATA / "060470979/frames").glob("*.jpg"))]
    truth = truth_of(read_annotation(DATA / "060470979/annotation.json"))
    detector = PersonDetector(detector_file, min_score=DETECTION_SCORE)
    boxes = [detector(image) for image in images]
    predictor = Remembering(PosePredictor(model_file, InferenceSettings(flip_test=True)))

    def run(settings: TrackingSettings) -> list[dict[str, float]]:
        tracker = PoseTracker(predictor, settings=settings)
        tracked = [tracker(image, *found) for image, found in zip(images, boxes)]
        metrics = tracking_metrics([pair_frames(truth, found_of(tracked), "the video")])
        if os.environ.get("SHOW"):
            print("\n".join(tracking_table(metrics)))
        return [metrics]

    return run


class Remembering:
    """A predictor that answers what it was asked before from memory: variants differ in few boxes."""

    def __init__(self, predictor):
        self.predictor, self.skeleton, self.detector, self._known = predictor, predictor.skeleton, None, {}

    def crop(self, image, boxes, scores):
        return Crops(image, np.zeros(0), boxes, scores)  # cut out only if the answer is not known

    def predict(self, people):
        image, boxes, scores = people[0].images, people[0].boxes, people[0].box_scores
        keys = [(id(image), *np.round(box, 3)) for box in boxes]
        missing = [row for row, key in enumerate(keys) if key not in self._known]
        if missing:
            poses = self.predictor(image, boxes[missing], scores[missing])
            self._known.update(zip([keys[row] for row in missing], poses))
        return [[replace(self._known[key], box_score=float(score)) for key, score in zip(keys, scores)]]


# --- annotations with noise ----------------------------------------------------------------------------------------


def annotated_run(seeds: int):
    sequences = [read_annotation(path) for path in sorted((DATA / "tracks_without_images").glob("*.json"))]
    truths = [truth_of(frames) for frames in sequences]

    def run(settings: TrackingSettings) -> list[dict[str, float]]:
        scores = []
        for seed in range(1, seeds + 1):  # 0 is the one that the defaults were chosen on
            pairs = []
            for number, (frames, truth) in enumerate(zip(sequences, truths)):
                stage = Stage(frames, (seed, number))
                tracker = PoseTracker(stage, stage.detect, settings, stage)
                pairs.append(pair_frames(truth, found_of([tracker(stage.image) for _ in frames]), "the sequence"))
            scores.append(people_metrics(pairs))
        return scores

    return run


class Stage:
    """Detector, pose network and optical flow of an annotated sequence: the truth, with seeded noise."""

    skeleton, detector = MPII, None

    def __init__(self, frames: list[dict[str, np.ndarray]], seed: tuple[int, int]):
        self.frames, self.seed, self.now = frames, seed, -1
        width, height = np.concatenate([each["joints"].reshape(-1, 2) for each in frames]).max(axis=0).astype(int) + 50
        self.image = np.zeros((height, width, 3), np.uint8)
        rng = np.random.default_rng((*seed, 0))
        self.detections, until = [], defaultdict(int)
        for index, frame in enumerate(frames):
            boxes = person_boxes(frame)
            kept = []
            for person, share in zip(frame["ids"], (frame["visible"] & frame["labelled"]).mean(axis=1)):
                if rng.random() < MISSED_LONG:
                    until[person] = index + rng.integers(*LONG)
                missed = rng.random() < MISSED or (rng.random() < MISSED_HIDDEN and share < 0.3)
                kept.append(not missed and index >= until[person])
            boxes = boxes[np.array(kept, bool)] if len(boxes) else boxes
            boxes = boxes + rng.normal(0, BOX_JITTER, boxes.shape) * boxes[:, 3:]
            false = rng.poisson(FALSE_BOXES)
            size = boxes[:, 2:].mean(axis=0) if len(boxes) else np.array([60.0, 120.0])
            corners = rng.uniform(0, 1, (false, 2)) * (width, height)
            boxes = np.concatenate([boxes, np.concatenate([corners, np.tile(size, (false, 1))], axis=1)])
            boxes[:, 2:] = np.maximum(boxes[:, 2:], 4)
            inside = ((boxes[:, :2] < (width, height)) & (boxes[:, :2] + boxes[:, 2:] > 0)).all(axis=1)
            self.detections.append((boxes[inside], rng.uniform(0.4, 0.9, inside.sum())))

    # in the place of Motion
    def see(self, image: np.ndarray) -> bool:
        self.now += 1
        return True

    def carry(self, points: np.ndarray) -> np.ndarray | None:
        """Every point moves as the nearest visible joint does; hidden people so move with those before them."""
        if not self.now:
            return None
        before, after = self.frames[self.now - 1], self.frames[self.now]
        starts, moves, heads = [], [], []
        for row, person in enumerate(before["ids"]):
            for place in np.flatnonzero(after["ids"] == person):
                both = before["labelled"][row] & after["labelled"][place] & before["visible"][row]
                starts.append(before["joints"][row][both])
                moves.append(after["joints"][place][both] - starts[-1])
                heads.append(np.full(both.sum(), after["heads"][place]))
        if not sum(map(len, starts)) or not len(points):
            return points
        starts, moves, heads = map(np.concatenate, (starts, moves, heads))
        nearest = ((points[:, None] - starts[None]) ** 2).sum(axis=-1).argmin(axis=1)
        noise = np.random.default_rng((*self.seed, 1, self.now)).normal(0, FLOW_NOISE, points.shape)
        return points + moves[nearest] + noise * heads[nearest, None]

    # in the place of the detector
    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.detections[self.now]

    # in the place of the predictor
    def crop(self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Crops:
        return Crops(np.zeros(0), np.zeros(0), np.asarray(boxes).reshape(-1, 4), np.asarray(scores))

    def predict(self, people: list[Crops]) -> list[list[Pose]]:
        """Each box shows the person who fills it best, visible ones rather than hidden ones; nobody scores low."""
        frame = self.frames[self.now]
        overlaps = box_similarity(people[0].boxes, person_boxes(frame)) * (0.5 + frame["visible"].mean(axis=1))
        poses = []
        for box, score, overlap in zip(people[0].boxes, people[0].box_scores, overlaps):
            person = overlap.argmax() if len(overlap) else -1
            rng = np.random.default_rng((*self.seed, 2, self.now, abs(int(box[0])), abs(int(box[1]))))
            joints, scores = box[:2] + rng.uniform(0, 1, (16, 2)) * box[2:], rng.uniform(0, 0.25, 16)
            if len(overlap) and overlap[person] > 0.25:
                labelled, visible = frame["labelled"][person], frame["visible"][person]
                noise = np.where(visible, JOINT_NOISE, HIDDEN_NOISE)[:, None] * frame["heads"][person]
                joints[labelled] = (frame["joints"][person] + rng.normal(0, 1, (16, 2)) * noise)[labelled]
                scores[labelled] = np.where(visible, rng.uniform(0.5, 0.9, 16), rng.uniform(0.1, 0.5, 16))[labelled]
            poses.append(Pose(joints, scores, box, float(score), MPII))
        return [poses]


def person_boxes(frame: dict[str, np.ndarray]) -> np.ndarray:
    """(P, 4) boxes around the labelled joints, a tenth larger on each side."""
    boxes = joint_boxes(frame["joints"], frame["labelled"])
    boxes[:, :2] -= 0.1 * boxes[:, 2:]
    boxes[:, 2:] *= 1.2
    return boxes


if __name__ == "__main__":
    start = time.perf_counter()
    code = run_command(main)
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
    sys.exit(code)
