"""Draw the pictures that a README opens with, of one photograph of one person: an overlay, a strip from the crop over
the heatmaps to the skeleton, and a clip of how the network finds the person and the pose.

    python images/draw_showcase.py --img-file photo.jpg --output output/showcase

writes output/showcase_overlay.jpg, _strip.jpg and _clip.gif. The network is the bundled one, or --model-file.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
runpy.run_path(str(ROOT / "pose_estimation" / "_init_paths.py"))

from draw_result import GAP, overlay, side_by_side  # noqa: E402

from simplepose import InferenceSettings, PosePredictor, UserError  # noqa: E402
from simplepose.core.drawing import BACKGROUND_COLOR, draw_pose, write_image  # noqa: E402
from simplepose.core.errors import run_command  # noqa: E402
from simplepose.core.geometry import apply_affine, box_to_crop, crop_affine  # noqa: E402
from simplepose.core.images import crop_image, read_image  # noqa: E402
from simplepose.inference.person_search import find_person  # noqa: E402
from simplepose.inference.videos import open_video  # noqa: E402

HEIGHT = 480  # pixels, of each picture
FPS = 1  # of the clip: a frame a step
BOX_COLOR = (255, 255, 255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img-file", required=True, metavar="FILE", help="photograph of one person")
    parser.add_argument("--model-file", metavar="FILE", help="network; default: the bundled one")
    parser.add_argument("--bbox", metavar="x,y,w,h", help="the person's box in pixels; default: the network finds it")
    parser.add_argument("--output", default="output/showcase", metavar="PREFIX", help="default: %(default)s")
    args = parser.parse_args()
    predictor = PosePredictor(args.model_file, InferenceSettings(flip_test=True))
    if predictor.network.graph.decode:
        raise UserError("this network decodes in its graph and shows no heatmaps; name another one with --model-file")
    image = read_image(args.img_file)
    zoom = HEIGHT / image.shape[0]
    image = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)

    looks = []  # boxes (4,) and poses, one after the other

    def look(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        poses = predictor(image, boxes)
        best = max(poses, key=lambda pose: pose.scores.mean())
        looks.append((best.box, best))
        return np.stack([pose.keypoints for pose in poses]), np.stack([pose.scores for pose in poses])

    box = np.array(args.bbox.split(","), float) * zoom if args.bbox else find_person(look, image.shape[1::-1])
    (pose,) = predictor(image, [box])
    looks.append((box, pose))
    posed = pose.draw(image.copy())
    write_image(f"{args.output}_overlay.jpg", posed)
    write_image(f"{args.output}_strip.jpg", side_by_side(strip(predictor, image, pose), GAP))

    clip = Path(f"{args.output}_clip.gif")
    video = open_video(clip, FPS, image.shape[1::-1])
    video.write(image)
    for seen, found in looks:
        frame = found.draw(image.copy())
        corner = tuple(int(value) for value in seen[:2])
        cv2.rectangle(frame, corner, tuple(int(value) for value in seen[:2] + seen[2:]), BOX_COLOR, 2)
        video.write(frame)
    for _ in range(2):
        video.write(posed)
    video.close()
    print(f"=> {args.output}_overlay.jpg, {args.output}_strip.jpg, {clip}")


def strip(predictor: PosePredictor, image: np.ndarray, pose) -> list[np.ndarray]:
    """The crop, the heatmaps over it, and the skeleton on it and on plain ground."""
    codec = predictor.network.codec
    crops = predictor.crop(image, [pose.box])
    (heatmaps,) = predictor.network.heatmaps(crops.images, predictor.settings)  # (K, h, w)
    size_wh = (round(HEIGHT * codec.image_size_wh[0] / codec.image_size_wh[1]), HEIGHT)
    center, size = box_to_crop(pose.box, size_wh[0] / size_wh[1])
    affine = crop_affine(center, size[0], 0.0, size_wh)
    crop = crop_image(image, affine, size_wh)
    drawn = [crop.copy(), np.full_like(crop, BACKGROUND_COLOR)]
    for picture in drawn:
        draw_pose(picture, apply_affine(affine, pose.keypoints), pose.scores, pose.skeleton)
    return [crop, overlay(crop, heatmaps), *drawn]


if __name__ == "__main__":
    sys.exit(run_command(main))
