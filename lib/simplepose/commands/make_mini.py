"""Draw the learnable mini data set: cartoon people in MPII's format, without any download."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from simplepose.commands.cli import Parser
from simplepose.core.errors import UserError

DEFAULT_OUTPUT = Path("data/mini")


def parse_args() -> argparse.Namespace:
    parser = Parser(
        description=__doc__,
        epilog="example: python pose_estimation/make_mini.py --output data/mini --seed 1",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help=f"folder to create (default: {DEFAULT_OUTPUT}, or none with --zip)",
    )
    parser.add_argument("--zip", type=Path, metavar="FILE", help="also pack the set, as mpii/... inside FILE")
    parser.add_argument("--train-images", type=int, default=800, metavar="N", help="default: %(default)s")
    parser.add_argument("--valid-images", type=int, default=120, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--train-persons",
        type=int,
        metavar="N",
        help="annotated people in all training images (default: one to three an image)",
    )
    parser.add_argument("--valid-persons", type=int, metavar="N", help="the same for the validation images")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the same seed draws the same set (default: %(default)s)",
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if args.zip is not None and args.zip.is_dir():
        raise UserError(f"--zip {args.zip} is a folder; name a file such as {args.zip / 'mpii.zip'}")

    # Imported here, so that --help need not load OpenCV.
    from simplepose.data.synthetic import write_mini_mpii, zip_mini_mpii

    with tempfile.TemporaryDirectory() as workshop:
        output = args.output or (DEFAULT_OUTPUT if args.zip is None else Path(workshop) / "mpii")
        written = write_mini_mpii(
            output,
            args.train_images,
            args.valid_images,
            args.seed,
            train_persons=args.train_persons,
            valid_persons=args.valid_persons,
        )
        if args.zip is not None:
            zip_mini_mpii(output, args.zip)
            print(f"packed {args.zip}")
        if output.parent != Path(workshop):
            print(f"wrote {output}" if written else f"{output} already holds this set; kept as it is")
    return 0
