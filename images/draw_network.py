"""Draw images/network.png: PoseResNet-50 at 256x256, from one person to one heatmap per joint.

The person and the heatmaps are real: a training sample of data/mpii.zip and the targets that the codec draws.
Run it from the repository's root: python images/draw_network.py
"""

from __future__ import annotations

import argparse
import runpy
import tempfile
import zipfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon
from matplotlib.transforms import Affine2D

ROOT = Path(__file__).resolve().parent.parent
runpy.run_path(str(ROOT / "pose_estimation" / "_init_paths.py"))

from simplepose.core.codecs.gaussian import HeatmapCodec  # noqa: E402
from simplepose.core.images import INPUT_FORMATS  # noqa: E402
from simplepose.core.skeletons import MPII  # noqa: E402
from simplepose.data.dataset import PoseDataset  # noqa: E402
from simplepose.data.mpii import load_mpii  # noqa: E402

SAMPLE = 6  # row of train.json
XLIM, YLIM = (0, 31), (0, 9.6)  # half inches
INK, GREY, PAPER = "#26323f", "#7b8794", "#ffffff"
BLUE, ORANGE, GREEN = "#4c86c6", "#ef8a3c", "#49a078"

# name, channels, side of the square map, colour; shapes of ResNet-50
STAGES = (
    ("conv1", 64, 128, BLUE),
    ("layer1", 256, 64, BLUE),
    ("layer2", 512, 32, BLUE),
    ("layer3", 1024, 16, BLUE),
    ("layer4", 2048, 8, BLUE),
    ("deconv 1", 256, 16, ORANGE),
    ("deconv 2", 256, 32, ORANGE),
    ("deconv 3", 256, 64, ORANGE),
)
SHOWN_JOINTS = ("head_top", "right_elbow", "left_wrist", "right_ankle")
SLANT = np.array([0.30, 0.20])  # where a cuboid's depth goes, per unit of its side
SHEET = np.array([1.4, 0.8])  # the same for a whole heatmap, SHEET_SIDE high
SHEET_SIDE = 3.6
SHEET_STEP = 1.42


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default=str(ROOT / "images" / "network.png"), metavar="FILE")
    args = parser.parse_args()
    crop, heatmaps = load_sample()
    draw(crop, heatmaps, args.output)
    print(f"=> {args.output}")


def load_sample() -> tuple[np.ndarray, np.ndarray]:
    """A person's crop (256, 256, 3) RGB and its target heatmaps (16, 64, 64)."""
    codec = HeatmapCodec((256, 256), (64, 64), sigma=2)
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(ROOT / "data" / "mpii.zip").extractall(folder)
        samples = load_mpii(Path(folder) / "mpii", "train")
        dataset = PoseDataset(samples, MPII, codec, INPUT_FORMATS["rgb"])
        crop, joints, visible, _ = dataset.load_crop(SAMPLE)
    heatmaps, _ = codec.encode(joints, visible)
    return crop[..., ::-1], heatmaps


def draw(crop: np.ndarray, heatmaps: np.ndarray, path: str) -> None:
    figure = plt.figure(figsize=(XLIM[1] / 2, YLIM[1] / 2), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    middle = 4.9  # the line on which everything is centred

    # The person.
    side = 4.0
    x = 0.6
    axes.imshow(crop, extent=(x, x + side, middle - side / 2, middle + side / 2), zorder=3)
    frame(axes, x, middle - side / 2, side)
    label(axes, x + side / 2, "image", "3×256×256")
    right = x + side

    # The network.
    starts = []
    for name, channels, size, color in STAGES:
        width, height = channel_width(channels), map_side(size)
        x = right + (0.95 if name in ("conv1", "deconv 1") else 0.72)
        arrow(axes, right + 0.12, x - 0.12, middle)
        right = cuboid(axes, x, middle, width, height, color)
        label(axes, (x + right) / 2, name, f"{channels}×{size}×{size}")
        starts.append((x, right))

    # The heatmaps, on sheets parallel to the cuboids' sides.
    x = right + 1.5
    arrow(axes, right + 0.12, x - 0.12, middle, GREEN)
    axes.text((right + x) / 2, middle + 0.25, "1×1", ha="center", fontsize=11, color=GREEN, weight="bold")
    grey = crop.mean(axis=2)[::4, ::4] / 255
    glow = LinearSegmentedColormap.from_list("glow", ("#d6453d", "#f7b733", "#fffbe8"))
    for number, name in enumerate(SHOWN_JOINTS):
        heat = heatmaps[MPII.joints.index(name)][..., None]  # (64, 64, 1)
        person = (0.10 + 0.22 * grey[..., None]) * np.array([0.7, 1.0, 1.2])
        picture = np.clip((1 - heat) * person + heat * glow(heat[..., 0])[..., :3], 0, 1)
        sheet(axes, picture, x + SHEET_STEP * number, middle, 10 + number)
    end = x + SHEET_STEP * (len(SHOWN_JOINTS) - 1) + SHEET[0]
    label(axes, (x + end) / 2, "K heatmaps, one per joint", "16×64×64")

    # What the parts are.
    bracket(axes, starts[0][0], starts[4][1], "ResNet-50: image to features, 1/32 of its size", BLUE)
    bracket(axes, starts[5][0], starts[7][1], "3 deconvolutions, 4×4, stride 2", ORANGE)
    bracket(axes, x, end, "where each joint is", GREEN)
    axes.set(xlim=XLIM, ylim=YLIM)
    figure.savefig(path, dpi=110, facecolor=PAPER)


def map_side(size: int) -> float:
    """Drawn side of a square map: the root keeps 8 visible beside 128."""
    return 0.36 * size**0.5


def channel_width(channels: int) -> float:
    return 0.1 * channels**0.36


def cuboid(axes: Axes, x: float, middle: float, width: float, height: float, color: str) -> float:
    """A cuboid whose left edge is x; returns its right edge."""
    depth = SLANT * height
    bottom = middle - (height + depth[1]) / 2
    front = np.array([(x, bottom), (x + width, bottom), (x + width, bottom + height), (x, bottom + height)])
    top = np.array([front[3], front[2], front[2] + depth, front[3] + depth])
    side = np.array([front[1], front[1] + depth, front[2] + depth, front[2]])
    for corners, shade in ((front, 1.0), (top, 1.28), (side, 0.82)):
        face = np.clip(np.array(to_rgb(color)) * shade, 0, 1)
        axes.add_patch(Polygon(corners, facecolor=face, edgecolor="white", lw=1.1, joinstyle="round", zorder=4))
    return x + width + depth[0]


def frame(axes: Axes, x: float, y: float, side: float, order: float = 5) -> None:
    corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
    axes.add_patch(Polygon(corners, fill=False, edgecolor="white", lw=1.6, zorder=order))


def sheet(axes: Axes, picture: np.ndarray, x: float, middle: float, order: float) -> None:
    """A slanted picture (h, w, 3) with a white edge; x is its left edge."""
    y = middle - (SHEET_SIDE + SHEET[1]) / 2
    slanted = Affine2D(np.array([[SHEET[0], 0, x], [SHEET[1], SHEET_SIDE, y], [0, 0, 1]])) + axes.transData
    axes.imshow(picture, extent=(0, 1, 0, 1), transform=slanted, zorder=order, interpolation="bilinear", clip_on=False)
    low, high = np.array([x, y]), np.array([x, y + SHEET_SIDE])
    corners = np.array([low, low + SHEET, high + SHEET, high])
    axes.add_patch(Polygon(corners, fill=False, edgecolor="white", lw=2.2, zorder=order + 0.5))
    axes.set(xlim=XLIM, ylim=YLIM)  # imshow moves them


def arrow(axes: Axes, start: float, end: float, y: float, color: str = GREY) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 13, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch((start, y), (end, y), lw=1.8, color=color, zorder=6, **style))


def label(axes: Axes, x: float, name: str, shape: str) -> None:
    axes.text(x, 1.15, name, ha="center", va="bottom", fontsize=11, color=INK, weight="bold")
    axes.text(x, 0.55, shape, ha="center", va="bottom", fontsize=9.5, color=GREY)


def bracket(axes: Axes, left: float, right: float, text: str, color: str) -> None:
    """A coloured bar above a part, with its name."""
    y = 8.3
    axes.add_patch(
        FancyBboxPatch((left, y), right - left, 0.08, boxstyle="round,pad=0,rounding_size=0.04", fc=color, ec="none")
    )
    axes.text((left + right) / 2, y + 0.3, text, ha="center", va="bottom", fontsize=11.5, color=color, weight="bold")


if __name__ == "__main__":
    main()
