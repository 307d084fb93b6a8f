"""Find the pose of a person in an image: a drawing, and the coordinates as JSON beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import _init_paths  # noqa: F401
from simplepose.cli import add_inference_flags, config_parser, parse_config_and_weights
from simplepose.errors import UserError, run_command

EXAMPLES = """examples:
  python pose_estimation/infer.py --cfg experiments/mpii/resnet50/256x256_d256x3_adam_lr1e-3.yaml --img-file photo.jpg
  python pose_estimation/infer.py --model-file weights.pdparams --img-file photo.jpg
  python pose_estimation/infer.py --cfg ... --img-file group.jpg --bbox 35,20,180,400 --output out/group.png
"""


def main() -> int | None:
    parser = config_parser(__doc__, EXAMPLES, needs_cfg=False)
    add_inference_flags(parser)
    parser.add_argument("--img-file", required=True, metavar="FILE", help="the image")
    parser.add_argument("--bbox", metavar="x,y,w,h", help="the person's box in pixels; default: the whole image")
    parser.add_argument("--output", metavar="FILE", help="where to draw; default: <image name>_pose.jpg here")
    parser.add_argument("--kpt-thr", type=float, default=0.2, metavar="T", help="leave joints below this score undrawn")
    parser.add_argument("--show", action="store_true", help="open a window with the drawing")
    args, config, weights, notes = parse_config_and_weights(parser)

    from simplepose.runtime import start_paddle

    start_paddle()  # before anything else imports it
    for note in notes:
        print(f"=> {note}")
    infer(args, config, weights)


def infer(args, config, weights) -> None:
    """Image, box, network, drawing."""
    from simplepose import build, runtime
    from simplepose.checkpoint import load_weights
    from simplepose.inference import PosePredictor, paddle_network
    from simplepose.preprocessing import INPUT_FORMATS, read_image
    from simplepose.visualize import draw_pose, write_image

    image = read_image(args.img_file, apply_exif=True)
    height, width = image.shape[:2]
    box = parse_box(args.bbox, width, height)
    output = Path(args.output or f"{Path(args.img_file).stem}_pose.jpg")

    runtime.set_device(config.GPUS)
    model = build.build_model(config)
    load_weights(model, weights)
    skeleton = build.build_skeleton(config)
    predictor = PosePredictor(
        paddle_network(model),
        skeleton,
        build.build_codec(config),
        INPUT_FORMATS[config.MODEL.INPUT_FORMAT],
        build.build_inference_settings(config),
    )
    pose = predictor(image, [box])[0]

    draw_pose(image, pose.keypoints, pose.scores, skeleton, args.kpt_thr)
    write_image(output, image)
    beside = output.with_suffix(".json")
    runtime.write_json(
        beside,
        {
            "image": args.img_file,
            "size": [width, height],
            "model_file": weights.path,
            "people": [
                {
                    "bbox": pose.box_xywh,
                    "keypoints": {
                        name: {"x": float(x), "y": float(y), "score": float(score)}
                        for name, (x, y), score in zip(skeleton.joints, pose.keypoints, pose.scores)
                    },
                }
            ],
        },
    )
    if args.bbox is None:
        print(f"=> no --bbox: the whole image, {width}x{height}, counts as the person's box")
    print(f"=> {(pose.scores >= args.kpt_thr).sum()} of {skeleton.num_joints} joints score {args.kpt_thr} or more")
    print(f"=> drawing: {output.as_posix()}  coordinates: {beside.as_posix()}")
    if args.show:
        import cv2

        cv2.imshow("pose (any key closes)", image)
        cv2.waitKey(0)


def parse_box(text: str | None, width: int, height: int) -> tuple[float, ...]:
    """ "x,y,w,h" as numbers; the whole image for None. The box must touch the image."""
    if text is None:
        return 0, 0, width, height
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--bbox is {text!r}; write left,top,width,height in pixels, as --bbox 35,20,180,400") from None
    if not (w > 0 and h > 0 and x < width and y < height and x + w > 0 and y + h > 0):
        raise UserError(f"--bbox {text} does not touch the image, which is {width}x{height} pixels")
    return x, y, w, h


if __name__ == "__main__":
    sys.exit(run_command(main))
