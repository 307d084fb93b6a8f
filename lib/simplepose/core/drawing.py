"""Drawing: skeletons on images, and the four kinds of debug pictures of the original."""

from __future__ import annotations

import colorsys
import os
from pathlib import Path

import cv2
import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.skeletons import Skeleton

LEFT_COLOR = (60, 150, 255)  # BGR; orange for the person's left,
RIGHT_COLOR = (255, 170, 50)  # blue for the right,
MIDDLE_COLOR = (90, 220, 90)  # green for what has no side
SIDE_COLORS = {"left": LEFT_COLOR, "right": RIGHT_COLOR, "": MIDDLE_COLOR}  # of Skeleton.sides
OUTLINE_COLOR = (30, 30, 30)
BACKGROUND_COLOR = (245, 245, 245)  # of drawings without the photograph
GRID_COLUMNS = 8


def draw_pose(
    image: np.ndarray,
    keypoints: np.ndarray,
    scores: np.ndarray,
    skeleton: Skeleton,
    min_score: float = 0.2,
    color: tuple[int, int, int] | None = None,
) -> None:
    """Draw limbs and joints onto an image, in place.

    Args:
        image: (H, W, 3) uint8, BGR.
        keypoints: (K, 2) pixels.
        scores: (K,); a joint below `min_score`, and limbs to it, are left out.
        color: BGR, of everything; None colours by side.
    """
    colors = {side: color or by_side for side, by_side in SIDE_COLORS.items()}
    shown = (scores >= min_score) & np.isfinite(keypoints).all(axis=1)
    if not shown.any():
        return
    # Thickness follows the person's size; a pose drawn on one pixel still shows.
    extent = np.ptp(keypoints[shown], axis=0).max()
    thickness = int(np.clip(round(extent / 60), 1, 40))
    near = np.clip(np.nan_to_num(keypoints), -32768, 32767)
    points = [tuple(int(value) for value in np.rint(point)) for point in near]
    for start, end in skeleton.limb_indices:
        if shown[start] and shown[end]:
            limb_color = colors[skeleton.sides[start] or skeleton.sides[end]]
            cv2.line(image, points[start], points[end], OUTLINE_COLOR, thickness + 2, cv2.LINE_AA)
            cv2.line(image, points[start], points[end], limb_color, thickness, cv2.LINE_AA)
    for index in np.flatnonzero(shown):
        cv2.circle(image, points[index], thickness + 2, OUTLINE_COLOR, -1, cv2.LINE_AA)
        cv2.circle(image, points[index], thickness + 1, colors[skeleton.sides[index]], -1, cv2.LINE_AA)


def track_color(track_id: int) -> tuple[int, int, int]:
    """The colour of a track, BGR: neighbouring ids are far apart on the colour circle."""
    red, green, blue = colorsys.hsv_to_rgb(track_id * 0.618034 % 1, 0.75, 1)  # the golden section
    return round(255 * blue), round(255 * green), round(255 * red)


def draw_label(image: np.ndarray, box_xywh: np.ndarray, text: str, color: tuple[int, int, int] = MIDDLE_COLOR) -> None:
    """Draw a box with a line of text above its left corner, in place.

    Args:
        image: (H, W, 3) uint8, BGR.
        box_xywh: (4,) pixels.
        color: BGR.
    """
    x, y, width, height = (float(value) for value in np.clip(box_xywh, -32768, 32767))
    scale = float(np.clip(min(width, height) / 200, 0.4, 3))
    thickness = max(1, round(scale))
    corners = (round(x), round(y)), (round(x + width), round(y + height))
    cv2.rectangle(image, *corners, color, thickness, cv2.LINE_AA)
    draw_text(image, text, (round(x), round(y)), scale, color)


def draw_text(
    image: np.ndarray,
    text: str,
    left_bottom: tuple[int, int] = (0, 0),
    scale: float = 0.4,
    color: tuple[int, int, int] = MIDDLE_COLOR,
) -> None:
    """Write a line of text on a dark strip, in place; above `left_bottom` as far as the image allows."""
    thickness = max(1, round(scale))
    (text_width, text_height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    left, bottom = max(0, left_bottom[0]), max(text_height + below, left_bottom[1])
    cv2.rectangle(image, (left, bottom - text_height - below), (left + text_width, bottom), OUTLINE_COLOR, -1)
    cv2.putText(image, text, (left, bottom - below), cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA)


def draw_crops(crops: np.ndarray, joints: np.ndarray, shown: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """A grid of crops with their joints.

    Args:
        crops: (N, H, W, 3) uint8 BGR.
        joints: (N, K, 2) crop pixels.
        shown: (N, K), joints with a positive value are drawn.

    Returns:
        One BGR picture, eight crops a row.
    """
    cells = []
    for crop, person, mask in zip(crops, joints, shown):
        cell = np.ascontiguousarray(crop)
        draw_pose(cell, person, (mask > 0).astype(float), skeleton, min_score=0.5)
        cells.append(cv2.copyMakeBorder(cell, 1, 1, 1, 1, cv2.BORDER_CONSTANT))
    blank = np.zeros_like(cells[0])
    columns = min(GRID_COLUMNS, len(cells))
    cells += [blank] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[row : row + columns]) for row in range(0, len(cells), columns)])


def draw_heatmaps(crops: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """One row a crop: the crop at the heatmaps' size, then each heatmap over it.

    Args:
        crops: (N, H, W, 3) uint8 BGR.
        heatmaps: (N, K, h, w); 0 is drawn blue, 1 red.
    """
    height, width = heatmaps.shape[-2:]
    rows = []
    for crop, person in zip(crops, heatmaps):
        small = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
        cells = [small]
        for heatmap in person:
            colored = cv2.applyColorMap(np.clip(heatmap * 255, 0, 255).astype(np.uint8), cv2.COLORMAP_JET)
            cells.append(cv2.addWeighted(colored, 0.7, small, 0.3, 0))
        rows.append(np.hstack(cells))
    return np.vstack(rows)


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image in the format of the path's extension; non-ASCII paths work.

    Raises:
        UserError: an extension OpenCV cannot write, or a folder that is not writable.
    """
    path = Path(path)
    try:
        written, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        written = False
    if not written:
        raise UserError(f"cannot write an image as {path.name!r}; use an extension such as .jpg or .png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
