"""Draw images/result.jpg: people a network has not seen, as crop | heatmaps | skeleton.

The persons are spread evenly over the experiment's TEST_SET; nobody is picked by hand. After `make quickstart`:

    python images/draw_result.py --cfg experiments/mini/resnet18/128x128_d128x3_adam_lr1e-3.yaml
"""

from __future__ import annotations

import argparse
import logging
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
runpy.run_path(str(ROOT / "pose_estimation" / "_init_paths.py"))

from simplepose.build.model import load_config_and_weights  # noqa: E402
from simplepose.core.errors import run_command  # noqa: E402
from simplepose.machine.paddle_start import start_paddle  # noqa: E402

TILE = 190  # pixels, each of the three pictures of a person
GAP = 6
MARGIN = 16
COLUMNS = 2  # persons in a row
PAPER = (255, 255, 255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="experiment file")
    parser.add_argument("--model-file", metavar="FILE", help="weights; default: the run's own model_best.pdparams")
    parser.add_argument("--people", type=int, default=6, metavar="N", help="default: %(default)s")
    parser.add_argument("--output", default=str(ROOT / "images" / "result.jpg"), metavar="FILE")
    parser.add_argument("overrides", nargs="*", metavar="SECTION.KEY=value")
    args = parser.parse_intermixed_args()
    flags = {"TEST.MODEL_FILE": args.model_file} if args.model_file else {}
    config, weights, _ = load_config_and_weights(args.cfg, args.overrides, flags)
    start_paddle()
    draw(args, config, weights)
    print(f"=> {args.output}")


def draw(args: argparse.Namespace, config, weights) -> None:
    from simplepose.build.data import build_valid_samples
    from simplepose.build.model import build_codec, build_inference_settings, build_model, build_skeleton
    from simplepose.core.drawing import draw_pose, write_image
    from simplepose.core.images import INPUT_FORMATS
    from simplepose.data.dataset import PoseDataset
    from simplepose.inference.network import paddle_network, predict_heatmaps
    from simplepose.weights.network import load_weights

    logging.getLogger("simplepose").setLevel(logging.ERROR)
    model = build_model(config)
    load_weights(model, weights)
    network, settings = paddle_network(model), build_inference_settings(config)
    skeleton, codec = build_skeleton(config), build_codec(config)
    samples = build_valid_samples(config)
    chosen = np.linspace(0, len(samples) - 1, args.people).round().astype(int)  # rows

    input_format = INPUT_FORMATS[config.MODEL.INPUT_FORMAT]
    seen = PoseDataset(samples, skeleton, codec, input_format).load_batch(chosen.tolist())
    heatmaps = predict_heatmaps(network, seen.images, skeleton.flip_permutation, settings)  # (N, K, h, w)
    joints, scores = codec.decode(heatmaps, settings.post_process)  # (N, K, 2), (N, K)

    shown_size = (TILE, round(TILE * codec.image_size_wh[1] / codec.image_size_wh[0]))
    zoom = np.array(shown_size) / codec.image_size_wh
    sharp = PoseDataset(samples, skeleton, replace(codec, image_size_wh=shown_size), input_format)
    people = []
    for row, index in enumerate(chosen):
        crop = sharp.load_crop(int(index))[0]
        posed = crop.copy()
        draw_pose(posed, joints[row] * zoom, scores[row], skeleton)
        people.append(side_by_side([crop, overlay(crop, heatmaps[row]), posed], GAP))
    rows = [side_by_side(people[start : start + COLUMNS], 3 * GAP) for start in range(0, len(people), COLUMNS)]
    width = max(row.shape[1] for row in rows)
    picture = np.vstack([pad(row, bottom=3 * GAP, right=width - row.shape[1]) for row in rows])[: -3 * GAP]
    write_image(args.output, pad(picture, MARGIN, MARGIN, MARGIN, MARGIN))


def overlay(crop: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """The highest of the heatmaps (K, h, w) at each place, as light over a darkened crop (H, W, 3) BGR."""
    height, width = crop.shape[:2]
    heat = cv2.resize(heatmaps.max(axis=0), (width, height), interpolation=cv2.INTER_CUBIC)
    heat = np.clip(heat, 0, 1)[..., None]  # (H, W, 1)
    glow = cv2.applyColorMap((heat[..., 0] * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    grey = crop.mean(axis=2, keepdims=True) * 0.45
    return np.clip((1 - heat) * grey + np.minimum(1, 1.4 * heat) * glow, 0, 255).astype(np.uint8)


def pad(picture: np.ndarray, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0) -> np.ndarray:
    return cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_CONSTANT, value=PAPER)


def side_by_side(pictures: list[np.ndarray], gap: int) -> np.ndarray:
    """Pictures of one height in a row, with paper between them."""
    space = np.full((pictures[0].shape[0], gap, 3), PAPER, np.uint8)
    row = [pictures[0]]
    for picture in pictures[1:]:
        row += [space, picture]
    return np.hstack(row)


if __name__ == "__main__":
    sys.exit(run_command(main))
