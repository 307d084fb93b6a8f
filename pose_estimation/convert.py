"""Convert weights between PyTorch, Paddle and safetensors; neither framework needs to be installed.

The source format and the names are recognised from the file. What is read never runs code. `--to` chooses the
format by its extension: .pdparams, .safetensors, or .pth (a PyTorch state dict in the original's names).
"""

import argparse
import sys

import _init_paths  # noqa: F401
from simplepose.errors import UserError, run_command


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Example: python pose_estimation/convert.py --from pose_resnet_50_256x256.pth.tar "
        "--to weights/pose_resnet_50_256x256.pdparams",
    )
    parser.add_argument("--from", dest="source_file", required=True, metavar="FILE", help="weights to read")
    parser.add_argument("--to", dest="target_file", required=True, metavar="FILE", help="weights to write")
    parser.add_argument(
        "--source",
        metavar="NAME",
        help="whose names the file uses, if recognition is wrong: simplepose, humanposebl, microsoft, hrnet, "
        "torchvision, mmpose-0.x, mmpose-1.x or paddle-vision",
    )
    parser.add_argument(
        "--input-format",
        choices=("bgr", "rgb", "humanposebl"),
        help="how the network wants its pixels; stored beside the weights. By default what the source was "
        "trained with. microsoft's and the HRNet repository's pose_resnet have the same names, and so "
        "is their default (bgr); say rgb for an HRNet model trained with COLOR_RGB: true",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from simplepose.weights import infer_depth, infer_joints, read_weights, write_weights

    weights = read_weights(args.source_file, args.source)
    if weights.source == "unknown":
        names = ", ".join(list(weights.state)[:3])
        raise UserError(
            f"{args.source_file} uses names that are not known here ({names}, ...); "
            "if it is a PoseResNet or ResNet, name its origin with --source"
        )
    if args.input_format:
        weights.metadata["input_format"] = args.input_format
    shapes = {name: array.shape for name, array in weights.state.items()}
    depth, joints = infer_depth(shapes), infer_joints(shapes)
    for key, value in (("depth", depth), ("num_joints", joints)):
        if value is not None:
            weights.metadata.setdefault(key, value)
    write_weights(args.target_file, weights.state, weights.metadata)

    print(f"read     {args.source_file}: {weights.file_format} file, names of {weights.source}")
    network = f"ResNet-{depth}" if depth else "a network of unknown depth"
    print(f"network  {network}, {f'{joints} joints' if joints else 'a backbone without a pose head'}")
    print(f"tensors  {len(shapes)}, {sum(array.size for array in weights.state.values()):,} numbers")
    print(f"input    {weights.metadata.get('input_format', 'not stated in the file')}")
    for note in weights.notes:
        print(f"note     {note}")
    if weights.dropped:
        print(f"dropped  {', '.join(weights.dropped)}")
    print(f"wrote    {args.target_file}")


if __name__ == "__main__":
    sys.exit(run_command(main))
