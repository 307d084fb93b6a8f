"""Convert weights between PyTorch, Paddle and safetensors; neither framework needs to be installed.

The source format and the names are recognised from the file. Reading never executes code. `--to` chooses the
format by its extension: .pdparams, .safetensors, or .pth (a PyTorch state dict in the original's names).
"""

from __future__ import annotations

import argparse
import os

from simplepose.commands.cli import Parser
from simplepose.core.errors import UserError

EXAMPLE = """example:
  python pose_estimation/convert.py --from pose_resnet_50_256x192.pth.tar --to weights/pose_resnet_50_256x192.pdparams --image-size 192 256
"""  # noqa: E501


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__.splitlines()[0], epilog=EXAMPLE)
    parser.add_argument("--from", dest="source_file", required=True, metavar="FILE", help="weights to read")
    parser.add_argument("--to", dest="target_file", required=True, metavar="FILE", help="weights to write")
    parser.add_argument(
        "--source",
        metavar="NAME",
        help="whose names the file uses, if recognition is wrong: simplepose, humanposebl, microsoft, hrnet, "
        "torchvision, mmpose-0.x, mmpose-1.x or paddle-vision",
    )
    stated = parser.add_argument_group("what another project's file cannot say; stored beside the weights")
    stated.add_argument("--image-size", nargs=2, type=int, metavar=("WIDTH", "HEIGHT"), help="of the network's input")
    stated.add_argument("--style", metavar="NAME", help="where a bottleneck strides: pytorch or caffe")
    stated.add_argument(
        "--input-format",
        metavar="NAME",
        help="how the network wants its pixels: bgr, rgb or humanposebl. By default what the source was trained "
        "with. microsoft's and the HRNet repository's pose_resnet have the same names, and so its default (bgr); "
        "say rgb for an HRNet model trained with COLOR_RGB: true",
    )
    stated.add_argument(
        "--calibration",
        metavar="FILE",
        help="figures.json of analyze.py: the network's scores become probabilities of being right",
    )
    return parser.parse_args()


def read_calibration(path: str) -> list[float]:
    """The map from scores to probabilities that analyze.py found."""
    from simplepose.core.files import read_json

    figures = read_json(path)
    try:
        (analysis,) = figures["files"]
        return analysis["confidence"]["calibration"]
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path} holds no calibration: name the figures.json that analyze.py wrote for one file of predictions "
            "with scores"
        ) from None


def main() -> None:
    args = parse_args()
    both = (args.source_file, args.target_file)
    if all(map(os.path.exists, both)) and os.path.samefile(*both):
        raise UserError(f"--from and --to are both {args.source_file}; write to another file, the source stays")
    from simplepose.config.load import load_config
    from simplepose.weights import CONFIG_KEY, infer_depth, infer_joints, read_weights, write_weights

    weights = read_weights(args.source_file, args.source)
    if weights.source == "unknown":
        names = ", ".join(list(weights.state)[:3])
        raise UserError(
            f"{args.source_file} uses names that are not known here ({names}, ...); "
            "if it is a PoseResNet or ResNet, name its origin with --source"
        )
    stated = {
        "MODEL.IMAGE_SIZE": args.image_size,
        "MODEL.STYLE": args.style,
        "MODEL.INPUT_FORMAT": args.input_format,
        "MODEL.CALIBRATION": read_calibration(args.calibration) if args.calibration else None,
    }
    stated = {key: value for key, value in stated.items() if value is not None}
    if stated:
        if not weights.description:
            raise UserError(f"{args.source_file} is a backbone without a pose head: it has no {next(iter(stated))}")
        weights.metadata[CONFIG_KEY] = {**weights.metadata.get(CONFIG_KEY, {}), **stated}
    description = weights.description
    load_config(None, described=(args.source_file, description))  # raises for an invalid description
    write_weights(args.target_file, weights.state, weights.metadata)

    shapes = {name: array.shape for name, array in weights.state.items()}
    depth, joints = infer_depth(shapes), infer_joints(shapes)
    print(f"read     {args.source_file}: {weights.file_format} file, names of {weights.source}")
    network = f"ResNet-{depth}" if depth else "a network of unknown depth"
    print(f"network  {network}, {f'{joints} joints' if joints else 'a backbone without a pose head'}")
    print(f"tensors  {len(shapes)}, {sum(array.size for array in weights.state.values()):,} numbers")
    if description:
        for title, key in (("size", "IMAGE_SIZE"), ("style", "STYLE"), ("input", "INPUT_FORMAT")):
            flag = f"--{key.lower().replace('_', '-')}"
            print(f"{title:8} {description.get(f'MODEL.{key}', f'not stated in the file; {flag} states it')}")
    for note in weights.notes:
        print(f"note     {note}")
    if weights.dropped:
        print(f"dropped  {', '.join(weights.dropped)}")
    print(f"wrote    {args.target_file}")
