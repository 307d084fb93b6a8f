"""What moves where between two frames: optical flow on small grey images, computed once a pair of frames and only where
people are.
"""

from __future__ import annotations

from typing import Callable

import cv2
import numpy as np

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]

LONGER_SIDE = 480  # of the grey images; on real people of 540p video twice the size brought joints 0.006 heads closer
MARGIN = 0.5  # around the people, of the height and width of the region that they fill
MIN_REGION = 48  # pixels of a small grey image; the coarsest level of the flow needs some
MIN_SIDE = 16  # of what DIS takes: its patches have 8 pixels
THUMB_WH = (96, 64)
# Mean difference of two thumbnails after the flow, in standard deviations. Frames of a real video: at most 0.14, with
# 19 frames left out 0.6; two different photographs: 0.7 and more, half of the pairs beyond 1.3.
CUT = 0.7


def dis_flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Dense optical flow by OpenCV's DIS (Kroeger et al., ECCV 2016).

    Args:
        before, after: (h, w) uint8 grey.

    Returns:
        (h, w, 2) float32, how far each pixel of `before` moves in x and y; 0 in images that are too small for it.
    """
    if min(before.shape) < MIN_SIDE:
        return np.zeros((*before.shape, 2), np.float32)
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(before, after, None)


class Motion:
    """The motion from the last frame to the newest one.

    Args:
        flow: a function like `dis_flow`.
    """

    def __init__(self, flow: Flow = dis_flow):
        self.flow = flow
        self._before: np.ndarray | None = None
        self._now: np.ndarray | None = None
        self._size_wh = self._size_before_wh = (0, 0)  # of the frames themselves

    def see(self, image: np.ndarray) -> bool:
        """Take the next frame, (H, W, 3) uint8 BGR; returns False if it repeats the last one."""
        height, width = image.shape[:2]
        scale = min(1.0, LONGER_SIDE / max(height, width))
        size_wh = max(1, round(width * scale)), max(1, round(height * scale))
        grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), size_wh, interpolation=cv2.INTER_AREA)
        if self._size_wh == (width, height) and np.array_equal(grey, self._now):
            self._before, self._size_before_wh = self._now, self._size_wh  # nothing has moved
            return False
        self._before, self._now = self._now, grey
        self._size_before_wh, self._size_wh = self._size_wh, (width, height)
        return True

    def carry(self, points: np.ndarray) -> np.ndarray | None:
        """Where points (N, 2) of the last frame are in the newest one, both in pixels of their frames.

        Returns:
            (N, 2), or None if there is nothing to follow: the first frame, a cut, or another aspect ratio.
        """
        before, now = self._before, self._now
        if before is None or _differ(before.shape, now.shape):
            return None
        if before.shape != now.shape:  # a stream that changes its resolution
            before = cv2.resize(before, now.shape[::-1], interpolation=cv2.INTER_AREA)
        if is_cut(before, now, self.flow):
            return None
        if not len(points):
            return points
        size_wh = np.array(now.shape[::-1])
        small = (points + 0.5) * (size_wh / self._size_before_wh) - 0.5
        small += self._displacements(before, now, small)
        return (small + 0.5) * (self._size_wh / size_wh) - 0.5

    def _displacements(self, before: np.ndarray, now: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The flow at points (N, 2) of the small images; outside of them that of the nearest pixel."""
        limits = np.array(before.shape[::-1]) - 1
        points = np.clip(points, 0, limits)
        low, high = points.min(axis=0), points.max(axis=0)
        margin = np.maximum((high - low) * MARGIN, MIN_REGION / 2)
        left, top = np.maximum(low - margin, 0).astype(int)
        right, bottom = np.minimum(high + margin, limits).astype(int) + 1
        region = slice(top, bottom), slice(left, right)
        field = self.flow(np.ascontiguousarray(before[region]), np.ascontiguousarray(now[region]))
        x, y = (points - (left, top)).astype(np.float32).T[:, None]
        return cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]


def is_cut(before: np.ndarray, now: np.ndarray, flow: Flow = dis_flow) -> bool:
    """Whether the flow between two grey images of one size explains so little that they show different scenes.

    A change of brightness or contrast alone is none.
    """
    first, second = (cv2.resize(grey, THUMB_WH, interpolation=cv2.INTER_AREA) for grey in (before, now))
    x, y = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in THUMB_WH))
    field = flow(first, second)
    moved = cv2.remap(second, x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(_standardised(first) - _standardised(moved)).mean()) > CUT


def _standardised(grey: np.ndarray) -> np.ndarray:
    return (grey - grey.mean()) / max(float(grey.std()), 1.0)


def _differ(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two small images have different aspect ratios, beyond rounding."""
    return abs(shape[0] / shape[1] * other[1] / other[0] - 1) > 0.02
