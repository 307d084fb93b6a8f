"""A drawn mini data set in MPII's format: cartoon people on small pictures, learnable in minutes on a CPU.

Inside this file everything is 0-based pixels, (x, y), pixel centres at whole numbers. MPII's 1-based
coordinates begin only where the annotation files are written.

Every picture has its own random generator, seeded by (seed, split, index), so that it does not depend on how
many others there are. All figures face the viewer and nothing but geometry tells their left from their right:
a fixed colour for "left" would contradict mirrored training images and the flip test.
"""

from __future__ import annotations

import colorsys
import json
import math
import os
import tempfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from simplepose.core.errors import UserError
from simplepose.core.files import SETTINGS_BYTES, read_json, written_whole
from simplepose.data.mpii import CENTER_DROP, PIXELS_PER_SCALE
from simplepose.data.mpii_mat import write_ground_truth

GENERATOR_VERSION = 1  # raise it when the same seed draws something else
TEST_IMAGES = 4  # test.json is for looking, not for scoring

R_ANKLE, R_KNEE, R_HIP, L_HIP, L_KNEE, L_ANKLE, PELVIS, THORAX = range(8)
NECK, HEAD_TOP, R_WRIST, R_ELBOW, R_SHOULDER, L_SHOULDER, L_ELBOW, L_WRIST = range(8, 16)
ARMS = ((R_SHOULDER, R_ELBOW, R_WRIST), (L_SHOULDER, L_ELBOW, L_WRIST))  # (right, left), as everywhere below
LEGS = ((R_HIP, R_KNEE, R_ANKLE), (L_HIP, L_KNEE, L_ANKLE))

HEAD_WIDTH = 0.75  # of its height; makes the head box's diagonal 1.25 x (neck to head top), as in MPII

# Angle ranges in degrees. First: upper limb, 0 = along the body, 90 = straight out to the person's own side.
# Second: how far the lower limb turns away from the upper one; negative bends inwards.
ARM_MOODS = {
    "hang": ((-8, 45), (-35, 60)),
    "on the hip": ((35, 65), (-115, -85)),
    "out": ((45, 105), (-40, 60)),
    "flexed": ((60, 100), (60, 120)),
    "up": ((105, 165), (-50, 45)),
}
LEG_MOODS = {
    "stand": ((-6, 22), (-18, 8)),
    "wide": ((18, 50), (-30, 12)),
    "bent": ((30, 75), (-120, -50)),
    "kick": ((50, 85), (-45, 10)),
    "heel up": ((0, 35), (30, 85)),
}
TURN_DEG = 32  # standard deviation of the whole body's turn in the picture
MAX_TURN_DEG = 65

Color = tuple[float, float, float]  # BGR, 0 to 255

SKINS: tuple[Color, ...] = (
    (190, 214, 250),
    (164, 196, 240),
    (130, 170, 222),
    (98, 138, 196),
    (66, 100, 152),
    (48, 72, 112),
)
# Circles on the face: x, y, radius.
LONG_HAIR = ((-0.7, -0.8, 0.36), (0.7, -0.8, 0.36), (-0.55, 0.4, 0.45), (0.55, 0.4, 0.45))
HAIRS: tuple[Color, ...] = (
    (30, 28, 34),
    (34, 52, 84),
    (48, 84, 134),
    (92, 166, 222),
    (44, 84, 176),
    (186, 186, 192),
)


def _hsv(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0))
    return 255 * blue, 255 * green, 255 * red


def _shade(color: Color, factor: float) -> Color:
    return tuple(min(255.0, c * factor) for c in color)


class _Pen:
    """Draws on a twice-as-large canvas in the pixel coordinates of the finished picture."""

    ZOOM = 2
    FRACTION_BITS = 4  # OpenCV draws in sixteenths of a pixel
    RING = np.array([(math.cos(k * math.pi / 12), math.sin(k * math.pi / 12)) for k in range(24)])  # (24, 2)

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.canvas = np.zeros((height * self.ZOOM, width * self.ZOOM, 3), np.uint8)

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) picture pixels -> (N, 1, 2) fixed-point canvas pixels; in both, centres are whole."""
        canvas = (np.asarray(points, float).reshape(-1, 1, 2) + 0.5) * self.ZOOM - 0.5
        return np.round(canvas * (1 << self.FRACTION_BITS)).astype(np.int32)

    def polygon(self, points: np.ndarray, color: Color) -> None:
        cv2.fillPoly(self.canvas, [self._fixed(points)], color, cv2.LINE_AA, self.FRACTION_BITS)

    def blob(self, circles: list[tuple[np.ndarray, float]], color: Color) -> None:
        """The convex hull of circles (centre, radius): a disc, a tapered limb or a round-cornered torso."""
        points = np.concatenate([np.asarray(centre) + radius * self.RING for centre, radius in circles])
        self.polygon(cv2.convexHull(points.astype(np.float32)), color)

    def line(self, points: np.ndarray, color: Color, width: float) -> None:
        thickness = max(1, round(width * self.ZOOM))
        cv2.polylines(self.canvas, [self._fixed(points)], False, color, thickness, cv2.LINE_AA, self.FRACTION_BITS)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        self.polygon(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), color)

    def picture(self) -> np.ndarray:
        """-> (height, width, 3) uint8, BGR."""
        return cv2.resize(self.canvas, (self.width, self.height), interpolation=cv2.INTER_AREA)


# ---- The figure ----------------------------------------------------------------------------------------


def _toward(angle_deg: float) -> np.ndarray:
    """Unit vector at an angle from straight down (y points down), positive towards the picture's right."""
    angle = math.radians(angle_deg)
    return np.array([math.sin(angle), math.cos(angle)])


def _sample_limb(
    rng: np.random.Generator,
    moods: dict,
    lengths: tuple[float, float],
    lean_deg: float,
    side: int,
    root: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Middle and end joint of an arm or leg; side is -1 for the right limb (on the viewer's left), else 1."""
    upper_range, lower_range = moods[list(moods)[rng.integers(len(moods))]]
    upper_deg = rng.uniform(*upper_range)
    lower_deg = upper_deg + rng.uniform(*lower_range)
    shortening = rng.uniform(0.82, 1.0, 2)  # a hint of the third dimension
    middle = root + lengths[0] * shortening[0] * _toward(side * upper_deg + lean_deg)
    return middle, middle + lengths[1] * shortening[1] * _toward(side * lower_deg + lean_deg)


def sample_pose(rng: np.random.Generator) -> np.ndarray:
    """A random pose -> (16, 2) joints in units of the figure's standing height, pelvis at (0, 0), y down."""
    joints = np.zeros((16, 2))
    lean_deg = rng.uniform(-14, 14)  # of the upper body against the hips
    up, right = (
        -_toward(lean_deg),
        np.array([math.cos(math.radians(lean_deg)), -math.sin(math.radians(lean_deg))]),
    )
    joints[THORAX] = rng.uniform(0.24, 0.28) * up
    joints[NECK] = joints[THORAX] + 0.055 * up
    joints[HEAD_TOP] = joints[NECK] - 0.21 * _toward(lean_deg + rng.uniform(-18, 18))
    shoulders, hips = rng.uniform(0.095, 0.12), rng.uniform(0.068, 0.08)  # half widths
    for side, (shoulder, elbow, wrist), (hip, knee, ankle) in zip((-1, 1), ARMS, LEGS):
        joints[shoulder] = joints[THORAX] + side * shoulders * right
        joints[hip] = side * hips * np.array([1.0, 0.0])
        joints[elbow], joints[wrist] = _sample_limb(rng, ARM_MOODS, (0.17, 0.155), lean_deg, side, joints[shoulder])
        joints[knee], joints[ankle] = _sample_limb(rng, LEG_MOODS, (0.23, 0.22), 0.0, side, joints[hip])
    turn = math.radians(np.clip(rng.normal(0, TURN_DEG), -MAX_TURN_DEG, MAX_TURN_DEG))
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return joints @ rotation


def _sample_look(rng: np.random.Generator) -> dict:
    """Skin, hair and clothes of one figure."""
    hue = rng.random()
    trousers_hue = hue + rng.uniform(0.25, 0.75)
    return {
        "skin": SKINS[rng.integers(len(SKINS))],
        "hair": HAIRS[rng.integers(len(HAIRS))],
        "hair style": ("short", "long", "bunches", "curly", "cap")[rng.integers(5)],
        "shirt": _hsv(hue, rng.uniform(0.5, 0.85), rng.uniform(0.7, 0.98)),
        "trousers": _hsv(trousers_hue, rng.uniform(0.35, 0.75), rng.uniform(0.4, 0.8)),
        "shoes": _hsv(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.3, 0.98)),
        "trim": _hsv(hue + 0.5, 0.35, 1.0),
        "pattern": ("plain", "stripes", "dot", "buttons")[rng.integers(4)],
        "long sleeves": rng.random() < 0.4,
        "long trousers": rng.random() < 0.6,
        "light": (1.0, 0.84) if rng.random() < 0.5 else (0.84, 1.0),  # (right, left): either side may lie in shade
    }


def _draw_leg(pen: _Pen, points: np.ndarray, side: int, look: dict, light: float, h: float) -> None:
    hip, knee, ankle = points  # (3, 2)
    skin, trousers, shoes = (_shade(look[key], light) for key in ("skin", "trousers", "shoes"))
    ink = _shade(look["trousers"], 0.35)
    shin = (ankle - knee) / np.linalg.norm(ankle - knee)
    across = side * np.array([shin[1], -shin[0]])  # away from the body
    heel, toe = ankle + 0.018 * h * shin, ankle + h * (0.024 * shin + 0.048 * across)
    for grow, colors in ((0.011 * h, None), (0.0, (trousers, skin, shoes))):  # one outline, then the filling
        cloth, lower, shoe = colors or (ink, ink, ink)
        pen.blob([(knee, 0.037 * h + grow), (ankle, 0.026 * h + grow)], lower)
        pen.blob([(hip, 0.052 * h + grow), (knee, 0.04 * h + grow)], cloth)
        if look["long trousers"]:
            pen.blob([(knee, 0.04 * h + grow), (ankle - 0.02 * h * shin, 0.032 * h + grow)], cloth)
        pen.blob([(heel, 0.026 * h + grow), (toe, 0.02 * h + grow)], shoe)


def _draw_arm(pen: _Pen, points: np.ndarray, look: dict, light: float, h: float) -> None:
    shoulder, elbow, wrist = points  # (3, 2)
    skin, shirt = _shade(look["skin"], light), _shade(look["shirt"], light)
    ink = _shade(look["shirt"], 0.35)
    forearm = (wrist - elbow) / np.linalg.norm(wrist - elbow)
    for grow, colors in ((0.01 * h, None), (0.0, (shirt, skin))):
        cloth, bare = colors or (ink, ink)
        pen.blob([(elbow, 0.028 * h + grow), (wrist, 0.022 * h + grow)], bare)
        pen.blob([(wrist, 0.022 * h + grow), (wrist + 0.022 * h * forearm, 0.03 * h + grow)], bare)  # hand
        pen.blob([(shoulder, 0.038 * h + grow), (elbow, 0.032 * h + grow)], cloth)
        if look["long sleeves"]:
            pen.blob([(elbow, 0.032 * h + grow), (wrist - 0.025 * h * forearm, 0.027 * h + grow)], cloth)


def _draw_hips(pen: _Pen, joints: np.ndarray, color: Color, radius: float) -> None:
    pen.blob([(joints[R_HIP], radius), (joints[L_HIP], radius)], color)


def _draw_torso(pen: _Pen, joints: np.ndarray, look: dict, h: float) -> None:
    thorax, pelvis = joints[THORAX], joints[PELVIS]
    across = joints[L_SHOULDER] - joints[R_SHOULDER]  # (2,)
    belly = thorax + 0.8 * (pelvis - thorax)
    corners = [(joints[R_SHOULDER], 0.036), (joints[L_SHOULDER], 0.036)]
    corners += [(belly - 0.33 * across, 0.03), (belly + 0.33 * across, 0.03)]
    ink = _shade(look["shirt"], 0.35)
    for grow, shirt, skin in ((0.011, ink, ink), (0.0, look["shirt"], _shade(look["skin"], 0.9))):
        pen.blob([(point, (radius + grow) * h) for point, radius in corners], shirt)
        pen.blob([(thorax, (0.032 + grow) * h), (joints[NECK], (0.03 + grow) * h)], skin)
    if look["pattern"] == "stripes":
        for along in (0.36, 0.66):
            middle = thorax + along * (pelvis - thorax)
            pen.line(np.stack([middle - 0.4 * across, middle + 0.4 * across]), look["trim"], 0.022 * h)
    elif look["pattern"] == "dot":
        pen.blob([(thorax + 0.45 * (pelvis - thorax), 0.04 * h)], look["trim"])
    elif look["pattern"] == "buttons":
        for along in (0.25, 0.45, 0.65):
            pen.blob([(thorax + along * (pelvis - thorax), 0.011 * h)], look["trim"])


def _draw_head(pen: _Pen, joints: np.ndarray, look: dict, h: float) -> None:
    neck, top = joints[NECK], joints[HEAD_TOP]
    half_height = np.linalg.norm(top - neck) / 2
    up = (top - neck) / (2 * half_height)
    right = np.array([-up[1], up[0]])
    centre = (neck + top) / 2

    def at(x: float, y: float) -> np.ndarray:
        """Face coordinates (-1 to 1, y up) -> picture pixels."""
        return centre + half_height * (HEAD_WIDTH * x * right + y * up)

    def oval(first_deg: float, last_deg: float, grow: float = 0.0) -> np.ndarray:
        angles = np.radians(np.linspace(first_deg, last_deg, 40))
        return np.stack([at((1 + grow) * math.cos(a), (1 + grow) * math.sin(a)) for a in angles])  # (40, 2)

    style, hair, skin = look["hair style"], look["hair"], look["skin"]
    ink = _shade(skin, 0.4)
    unit = half_height
    if style == "long":
        pen.blob([(at(x, y), r * unit) for x, y, r in LONG_HAIR], hair)
    if style == "bunches":
        for x in (-1.25, 1.25):
            pen.blob([(at(x, 0.25), 0.34 * unit), (at(1.1 * x, -0.25), 0.2 * unit)], hair)
    if style == "curly":
        for angle in np.radians(np.arange(-15, 200, 28)):
            pen.blob([(at(0.95 * math.cos(angle), 0.82 * math.sin(angle)), 0.34 * unit)], hair)
    pen.polygon(oval(0, 360, 0.08), ink)
    for x in (-1.0, 1.0):  # ears
        pen.blob([(at(x, -0.08), 0.15 * unit)], skin)
    pen.polygon(oval(0, 360), skin)
    if style == "cap":
        pen.polygon(oval(14, 166, 0.06), look["shirt"])
        pen.blob([(at(-0.75, 0.3), 0.1 * unit), (at(0.75, 0.3), 0.1 * unit)], _shade(look["shirt"], 0.7))
    else:
        fringe = np.stack([at(x, 0.42 + 0.14 * math.cos(4 * x)) for x in np.linspace(-0.85, 0.85, 12)])
        pen.polygon(np.concatenate([oval(25, 155, 0.05), fringe]), hair)
    dark = (40, 32, 36)
    cheek = tuple(0.72 * own + 0.28 * rosy for own, rosy in zip(skin, (110, 90, 255)))
    for x in (-0.38, 0.38):
        pen.blob([(at(x, -0.02), 0.135 * unit)], (250, 250, 250))
        pen.blob([(at(x, -0.04), 0.095 * unit)], dark)
        pen.blob([(at(1.5 * x, -0.36), 0.13 * unit)], cheek)
    smile = np.stack([at(x, -0.66 + 0.7 * x * x) for x in np.linspace(-0.42, 0.42, 9)])
    pen.polygon(smile, (70, 50, 170) if sum(skin) > 330 else (236, 238, 246))  # visible on any skin colour


def _draw_person(pen: _Pen, joints: np.ndarray, look: dict, height_px: float) -> None:
    """Draw one figure: joints (16, 2) in pixels, height_px its standing height."""
    _draw_hips(pen, joints, _shade(look["trousers"], 0.35), 0.057 * height_px)  # their outline, behind the legs
    for side, leg, light in zip((-1, 1), LEGS, look["light"]):
        _draw_leg(pen, joints[list(leg)], side, look, light, height_px)
    _draw_hips(pen, joints, look["trousers"], 0.046 * height_px)
    _draw_torso(pen, joints, look, height_px)
    _draw_head(pen, joints, look, height_px)
    for arm, light in zip(ARMS, look["light"]):
        _draw_arm(pen, joints[list(arm)], look, light, height_px)


# ---- The place -----------------------------------------------------------------------------------------


def _gradient(pen: _Pen, top: Color, bottom: Color, y0: float, y1: float) -> None:
    """Fill the rows y0 to y1 of the picture from one colour to the other."""
    first, last = (int(np.clip(y, 0, pen.height) * pen.ZOOM) for y in (y0, y1))
    mix = np.linspace(0, 1, max(last - first, 1))[: last - first, None, None]
    rows = np.round((1 - mix) * np.array(top) + mix * np.array(bottom))  # (rows, 1, 3)
    pen.canvas[first:last] = rows.astype(np.uint8)


def _meadow(pen: _Pen, rng: np.random.Generator, horizon: float) -> None:
    w, h = pen.width, pen.height
    sky = rng.uniform(0.5, 0.62)
    _gradient(pen, _hsv(sky, 0.42, 0.9), _hsv(sky - 0.03, 0.12, 1.0), 0, h)
    pen.blob([(rng.uniform((0, 10), (w, 60)), rng.uniform(12, 22))], (170, 236, 255))
    for _ in range(rng.integers(2, 5)):  # clouds
        x, y, size = rng.uniform(0, w), rng.uniform(5, horizon * 0.6), rng.uniform(6, 13)
        puffs = ((-2, 0, 0.6), (0, -0.5, 1.0), (2, 0, 0.7))
        pen.blob([((x + dx * size, y + dy * size), r * size) for dx, dy, r in puffs], (252, 250, 246))
    green = rng.uniform(0.22, 0.38)
    for layer in range(3):  # hills, the nearest last
        x = np.linspace(-5, w + 5, 40)
        y = horizon + 22 * layer + rng.uniform(5, 16) * np.sin(x / rng.uniform(35, 90) + rng.uniform(0, 6))
        hill = np.concatenate([np.stack([x, y], 1), [[w + 5, h + 5], [-5, h + 5]]])
        pen.polygon(hill, _hsv(green, 0.3 + 0.06 * layer, 0.86 - 0.07 * layer))
    for _ in range(rng.integers(1, 4)):  # trees
        x, y, size = rng.uniform(0, w), horizon + rng.uniform(0, 18), rng.uniform(9, 20)
        pen.box(x - 0.14 * size, y - size, x + 0.14 * size, y + 2, (70, 96, 122))
        for dx, dy, r in ((-0.5, -1.3, 0.7), (0.5, -1.3, 0.7), (0, -1.9, 0.75)):
            pen.blob([((x + dx * size, y + dy * size), r * size)], _hsv(green + 0.03, 0.45, 0.62))
    for _ in range(rng.integers(15, 40)):  # flowers
        spot = rng.uniform((0, horizon + 30), (w, h))
        pen.blob([(spot, rng.uniform(1, 2.2))], _hsv(rng.random(), 0.35, 1.0))


def _beach(pen: _Pen, rng: np.random.Generator, horizon: float) -> None:
    w, h = pen.width, pen.height
    warm = rng.uniform(0.02, 0.12)
    _gradient(pen, _hsv(0.56, 0.35, 0.95), _hsv(warm, 0.18, 1.0), 0, horizon)
    pen.blob([((rng.uniform(0, w), horizon - 4), rng.uniform(14, 26))], _hsv(warm, 0.35, 1.0))
    shore = horizon + rng.uniform(20, 45)
    _gradient(pen, _hsv(0.52, 0.5, 0.8), _hsv(0.48, 0.28, 0.92), horizon, h)
    for _ in range(rng.integers(4, 9)):  # waves
        x, y, size = rng.uniform(0, w), rng.uniform(horizon + 4, shore - 4), rng.uniform(8, 20)
        pen.line(np.array([[x - size, y], [x, y - 1.5], [x + size, y]]), (250, 246, 238), 1)
    x = np.linspace(-5, w + 5, 40)
    sand = np.stack([x, shore + rng.uniform(2, 6) * np.sin(x / rng.uniform(20, 60))], 1)
    pen.polygon(np.concatenate([sand - (0, 3), [[w + 5, h + 5], [-5, h + 5]]]), (246, 250, 250))
    pen.polygon(np.concatenate([sand, [[w + 5, h + 5], [-5, h + 5]]]), _hsv(0.11, rng.uniform(0.2, 0.34), 0.94))
    for _ in range(rng.integers(0, 3)):  # sailing boats
        x, y, size = rng.uniform(10, w - 10), horizon + rng.uniform(3, 10), rng.uniform(8, 16)
        pen.polygon(np.array([[x, y - 1.9 * size], [x + size, y - 3], [x, y - 3]]), (250, 250, 250))
        hull = np.array([[x - size, y - 2], [x + 1.2 * size, y - 2], [x + 0.7 * size, y + 3], [x - 0.6 * size, y + 3]])
        pen.polygon(hull, _hsv(rng.random(), 0.5, 0.7))
    if rng.random() < 0.6:  # sunshade
        x, y, size = rng.uniform(20, w - 20), shore + rng.uniform(5, 30), rng.uniform(20, 32)
        pen.line(np.array([[x, y - 1.6 * size], [x, y + 0.4 * size]]), (190, 210, 220), 1.5)
        hue, edges = rng.random(), np.linspace(180, 360, 7)
        for panel in range(6):
            angles = np.radians(np.linspace(edges[panel], edges[panel + 1], 3))
            rim = np.stack([x + size * np.cos(angles), y - size + 0.7 * size * np.sin(angles)], 1)  # (3, 2)
            color = _hsv(hue, 0.45, 0.95) if panel % 2 else (248, 248, 248)
            pen.polygon(np.concatenate([[[x, y - 1.68 * size]], rim]), color)


def _room(pen: _Pen, rng: np.random.Generator, horizon: float) -> None:
    w, h = pen.width, pen.height
    floor = max(horizon, 0.66 * h)
    hue = rng.random()
    _gradient(pen, _hsv(hue, 0.14, 0.95), _hsv(hue, 0.2, 0.86), 0, floor)
    step = rng.uniform(14, 34)
    for x in np.arange(rng.uniform(0, step), w, step):  # wallpaper
        if hue < 0.5:
            pen.box(x, 0, x + 0.35 * step, floor, _hsv(hue, 0.2, 0.9))
        else:
            for y in np.arange(step / 2, floor, step):
                pen.blob([((x, y), 1.8)], _hsv(hue, 0.3, 0.84))
    _gradient(pen, _hsv(0.08, 0.36, 0.78), _hsv(0.08, 0.4, 0.66), floor, h)
    for y in np.linspace(floor, h, 5)[1:-1]:
        pen.line(np.array([[0, y], [w, y]]), _hsv(0.08, 0.45, 0.6), 0.5)
    pen.box(-2, floor - 4, w + 2, floor, (244, 246, 246))  # skirting board
    hooks = np.array([0.12, 0.37, 0.63, 0.88]) * w + rng.uniform(-8, 8, 4)  # where things hang, side by side
    for x, thing in zip(hooks, rng.permutation(["window", "picture", "picture", "nothing"])):
        half, y = rng.uniform(14, 28), rng.uniform(14, 44)
        if thing == "window":
            half, bottom = half + 8, y + rng.uniform(54, 78)
            middle = (y + bottom) / 2
            pen.box(x - half - 4, y - 4, x + half + 4, bottom + 4, (248, 250, 250))
            pen.box(x - half, y, x + half, bottom, _hsv(0.55, 0.3, 0.97))
            pen.line(np.array([[x, y], [x, bottom]]), (248, 250, 250), 2.5)
            pen.line(np.array([[x - half, middle], [x + half, middle]]), (248, 250, 250), 2.5)
        elif thing == "picture":
            bottom = y + rng.uniform(24, 44)
            pen.box(x - half, y, x + half, bottom, _hsv(0.09, 0.45, 0.55))
            half, y, bottom = half - 3, y + 3, bottom - 3
            pen.box(x - half, y, x + half, bottom, _hsv(rng.random(), 0.2, 0.98))
            peak = np.array([x - 0.2 * half, 0.6 * y + 0.4 * bottom])
            pen.polygon(np.array([[x - half, bottom], peak, [x + half, bottom]]), _hsv(rng.random(), 0.3, 0.75))
    rug = rng.random()
    angles = np.linspace(0, 2 * math.pi, 40)
    for grow, saturation in ((1.0, 0.4), (0.8, 0.25)):
        ellipse = np.stack([w / 2 + 0.4 * w * grow * np.cos(angles), (floor + h) / 2 + 22 * grow * np.sin(angles)], 1)
        pen.polygon(ellipse, _hsv(rug, saturation, 0.85))


def _city(pen: _Pen, rng: np.random.Generator, horizon: float) -> None:
    w, h = pen.width, pen.height
    night = rng.random() < 0.35
    street = max(horizon, 0.62 * h)
    if night:
        _gradient(pen, (92, 58, 48), (168, 120, 150), 0, street)
        for spot in rng.uniform((0, 0), (w, 0.4 * h), (25, 2)):
            pen.blob([(spot, rng.uniform(0.5, 1.0))], (230, 244, 255))
    else:
        _gradient(pen, _hsv(0.57, 0.3, 0.95), _hsv(0.08, 0.12, 1.0), 0, street)
    hue, x = rng.random(), -10.0
    while x < w:  # houses
        width, top = rng.uniform(30, 62), street - rng.uniform(50, 130)
        tone = rng.uniform(0.42, 0.56) if night else rng.uniform(0.72, 0.9)
        pen.box(x, top, x + width, street, _hsv(hue + rng.uniform(-0.12, 0.12), 0.24, tone))
        if rng.random() < 0.5:
            roof = np.array([[x - 2, top], [x + width / 2, top - 14], [x + width + 2, top]])
            pen.polygon(roof, _hsv(0.02, 0.42, tone))
        for wx in np.arange(x + 6, x + width - 8, 12):
            for wy in np.arange(top + 8, street - 14, 16):
                lit = night and rng.random() < 0.6
                pen.box(wx, wy, wx + 6, wy + 8, (150, 226, 252) if lit else _hsv(0.57, 0.22, tone + 0.12))
        x += width + rng.uniform(0, 6)
    _gradient(pen, (168, 164, 166), (138, 134, 138), street, h)
    pen.box(-2, street, w + 2, street + 8, (200, 202, 204))
    for x in np.arange(rng.uniform(0, 30), w, 44):
        pen.box(x, h - 24, x + 22, h - 20, (226, 232, 234))


def _scatter_things(pen: _Pen, rng: np.random.Generator, horizon: float) -> None:
    """Balls, presents and balloons: clutter that does not look like an arm."""
    for _ in range(rng.integers(1, 6)):
        x, y, size = rng.uniform(0, pen.width), rng.uniform(horizon + 20, pen.height), rng.uniform(5, 12)
        color, other = _hsv(rng.random(), 0.45, 0.9), _hsv(rng.random(), 0.3, 1.0)
        kind = rng.integers(3)
        if kind == 0:
            pen.blob([((x, y), size)], color)
            pen.blob([((x - 0.3 * size, y - 0.3 * size), 0.35 * size)], other)
        elif kind == 1:
            pen.box(x - size, y - size, x + size, y + size, color)
            pen.box(x - 0.2 * size, y - size, x + 0.2 * size, y + size, other)
            pen.box(x - size, y - 0.2 * size, x + size, y + 0.2 * size, other)
        else:
            y -= 0.5 * pen.height
            pen.line(
                np.array([[x, y + size], [x + 2, y + 2.5 * size], [x - 1, y + 4 * size]]),
                (236, 236, 236),
                0.5,
            )
            pen.blob([((x, y), size), ((x, y + 0.9 * size), 0.3 * size)], color)
            pen.blob([((x - 0.35 * size, y - 0.35 * size), 0.2 * size)], (250, 250, 250))


PLACES = (_meadow, _beach, _room, _city)

# ---- The picture ---------------------------------------------------------------------------------------


def _overlap(box: np.ndarray, others: list[np.ndarray]) -> float:
    """How much of the smaller box overlaps, at worst, from 0 to 1; boxes are (2, 2): low and high corner."""
    worst = 0.0
    for other in others:
        common = np.clip(np.minimum(box[1], other[1]) - np.maximum(box[0], other[0]), 0, None).prod()
        worst = max(worst, common / min((box[1] - box[0]).prod(), (other[1] - other[0]).prod()))
    return worst


def _place(
    rng: np.random.Generator, pose: np.ndarray, size_wh: np.ndarray, height_px: float, taken: list[np.ndarray]
) -> tuple[np.ndarray, float, np.ndarray]:
    """Find room for a pose (16, 2) -> its joints in pixels, its standing height, its box (2, 2)."""
    may_leave = rng.random() < 0.12  # a hand or a foot, never the head
    best = None
    for _ in range(60):
        low, high = (pose.min(axis=0) - 0.07) * height_px, (pose.max(axis=0) + 0.07) * height_px
        slack = 0.3 * (high - low) if may_leave else np.zeros(2)
        first, last = -low - slack, size_wh - high + slack
        if (last < first).any():  # does not fit at this size
            height_px *= 0.95
            continue
        offset = rng.uniform(first, last)
        joints = pose * height_px + offset
        box = np.stack([low, high]) + offset
        head = joints[[NECK, HEAD_TOP, THORAX]]
        if (head < 0.06 * height_px).any() or (head > size_wh - 1 - 0.06 * height_px).any():
            continue
        overlap = _overlap(box, taken)
        if best is None or overlap < best[0]:
            best = overlap, joints, height_px, box
        if overlap < 0.06:
            break
        height_px = max(0.97 * height_px, 80.0)
    if best is None:  # every try cut the head off: place it in the middle, fully visible
        height_px = min(height_px, (0.9 * size_wh / (np.ptp(pose, axis=0) + 0.14)).min())
        offset = size_wh / 2 - (pose.min(axis=0) + pose.max(axis=0)) / 2 * height_px
        corners = np.stack([pose.min(axis=0) - 0.07, pose.max(axis=0) + 0.07]) * height_px + offset
        best = 0.0, pose * height_px + offset, height_px, corners
    return best[1:]


def _annotate(rng: np.random.Generator, joints: np.ndarray, height_px: float, size_wh: np.ndarray) -> dict:
    """The annotation of one figure; joints (16, 2) in pixels."""
    low, high = joints.min(axis=0), joints.max(axis=0)
    extent_px = max((high - low).max() + 0.1 * height_px, 0.85 * height_px)
    scale = extent_px * rng.uniform(0.95, 1.15) / PIXELS_PER_SCALE
    center = (low + high) / 2 + extent_px * rng.uniform(-0.08, 0.08, 2) - (0, 0.7 * CENTER_DROP * scale)
    half_height = np.linalg.norm(joints[HEAD_TOP] - joints[NECK]) / 2
    up = (joints[HEAD_TOP] - joints[NECK]) / (2 * half_height)
    half_box = half_height * np.hypot(up[::-1] * HEAD_WIDTH, up)  # the upright box around the turned oval
    middle = (joints[HEAD_TOP] + joints[NECK]) / 2
    return {
        "center": center,
        "scale": float(scale),
        "joints": joints,
        "visible": ((joints >= 0) & (joints <= size_wh - 1)).all(axis=1),
        "head_box": np.stack([middle - half_box, middle + half_box]),
    }


def draw_scene(rng: np.random.Generator, people: int | None = None) -> tuple[np.ndarray, list[dict]]:
    """Draw one picture with ``people`` figures (None: mostly one, sometimes two or three).

    Returns the picture, (H, W, 3) uint8 BGR, and one dictionary per figure, the rearmost first, in 0-based
    pixels: ``center`` (2,); ``scale``, extent / 200 px; ``joints`` (16, 2) in MPII's order; ``visible`` (16,)
    bool, inside the picture; ``head_box`` (2, 2) as ((x0, y0), (x1, y1)). The same generator state gives the
    same place whatever the number of people.
    """
    pen = _Pen(int(rng.integers(320, 381)), int(rng.integers(240, 281)))
    size_wh = np.array([pen.width, pen.height], float)
    horizon = rng.uniform(0.42, 0.62) * pen.height
    PLACES[rng.integers(len(PLACES))](pen, rng, horizon)
    _scatter_things(pen, rng, horizon)
    grain = rng.integers(-5, 6, (*pen.canvas.shape[:2], 1), dtype=np.int16)  # paper
    pen.canvas = np.clip(pen.canvas + grain, 0, 255).astype(np.uint8)

    drawn_people = 1 + int(rng.choice(3, p=(0.75, 0.2, 0.05)))
    people = drawn_people if people is None else people
    persons, taken = [], []
    for _ in range(people):
        height_px = rng.uniform(130, 195) if people == 1 else rng.uniform(110, 150)
        joints, height_px, box = _place(rng, sample_pose(rng), size_wh, height_px, taken)
        taken.append(box)
        _draw_person(pen, joints, _sample_look(rng), height_px)
        persons.append(_annotate(rng, joints, height_px, size_wh))
    return pen.picture(), persons


# ---- The files -----------------------------------------------------------------------------------------


def _entry(image: str, person: dict, with_joints: bool) -> dict:
    """One entry of an annotation file: 1-based, missing joints are (-1, -1)."""
    entry = {
        "image": image,
        "center": [round(float(v) + 1, 2) for v in person["center"]],
        "scale": round(person["scale"], 6),
    }
    if with_joints:
        visible = person["visible"]
        entry["joints_vis"] = [int(v) for v in visible]
        entry["joints"] = [
            [round(float(v) + 1, 2) for v in xy] if seen else [-1.0, -1.0]
            for xy, seen in zip(person["joints"], visible)
        ]
    return entry


def _people_per_image(rng: np.random.Generator, images: int, persons: int | None, what: str) -> list[int | None]:
    """How many figures each picture shows; None: drawn at random by the picture."""
    if persons is None:
        return [None] * images
    if not images <= persons <= 3 * images:
        raise UserError(f"{persons} {what} persons do not fit {images} images: a picture shows one to three people")
    counts = np.ones(images, int)
    for _ in range(persons - images):
        counts[rng.choice(np.flatnonzero(counts == counts.min()))] += 1
    return counts.tolist()


def _write_set(root: Path, recipe: dict) -> None:
    """Draw all pictures of a recipe into an existing empty folder and write the annotation files."""
    (root / "annot").mkdir()
    (root / "images").mkdir()
    splits = (
        ("train", recipe["train_images"], recipe["train_persons"]),
        ("valid", recipe["valid_images"], recipe["valid_persons"]),
        ("test", TEST_IMAGES, TEST_IMAGES),
    )
    annotations: dict[str, list[dict]] = {}
    valid_head_boxes: list[np.ndarray] = []
    with tqdm(total=sum(images for _, images, _ in splits), desc="drawing", unit="image", disable=None) as progress:
        for number, (split, images, persons) in enumerate(splits, start=1):
            counts = _people_per_image(np.random.default_rng([recipe["seed"], number]), images, persons, split)
            annotations[split] = []
            for index, people in enumerate(counts):
                picture, drawn = draw_scene(np.random.default_rng([recipe["seed"], number, index]), people)
                name = f"{number}{index + 1:08d}.jpg"  # nine digits, as MPII's
                encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
                (root / "images" / name).write_bytes(encoded.tobytes())
                annotations[split] += [_entry(name, person, with_joints=split != "test") for person in drawn]
                if split == "valid":
                    valid_head_boxes += [person["head_box"] for person in drawn]
                progress.update()
    annotations["trainval"] = annotations["train"] + annotations["valid"]
    for split, entries in annotations.items():
        (root / "annot" / f"{split}.json").write_text(json.dumps(entries) + "\n", encoding="utf-8")
    head_boxes = [np.round(box + 1, 2) for box in valid_head_boxes]
    write_ground_truth(root / "annot" / "gt_valid.mat", annotations["valid"], head_boxes, "simplepose mini data set")
    (root / "mini.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


def _holds_set(root: Path, recipe: dict) -> bool:
    """Whether root already holds exactly this set. False if root is missing or empty; UserError for anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = read_json(root / "mini.json", SETTINGS_BYTES)
    except UserError:
        raise UserError(f"{root} exists and is not a mini data set; choose another folder") from None
    if found != recipe:
        names = [name for name in recipe if not isinstance(found, dict) or found.get(name) != recipe[name]]
        different = ", ".join(names)
        raise UserError(
            f"{root} holds another mini data set (different {different}); remove it or choose another folder"
        )
    annotations = [f"{split}.json" for split in ("train", "valid", "trainval", "test")] + ["gt_valid.mat"]
    pictures = recipe["train_images"] + recipe["valid_images"] + TEST_IMAGES
    whole = all((root / "annot" / name).is_file() for name in annotations)
    if not whole or len(list((root / "images").glob("*.jpg"))) != pictures:
        raise UserError(f"{root} holds a mini data set with files missing; remove it and run again")
    return True


def write_mini_mpii(
    root: Path,
    train_images: int,
    valid_images: int,
    seed: int = 0,
    *,
    train_persons: int | None = None,
    valid_persons: int | None = None,
) -> bool:
    """Draw a data set: ``root/annot/{train,valid,trainval,test}.json, gt_valid.mat``, ``root/images/*.jpg``.

    ``train_persons`` and ``valid_persons`` fix the number of annotated people (one to three an image); None
    draws it at random. The same arguments give the same annotation bytes and, under one OpenCV version, the
    same pixels. The set is drawn in a hidden folder beside root and renamed when complete.

    Returns True if it was written, False if root already holds exactly this set (then nothing is touched).
    Raises UserError if root holds anything else or a number is out of range.
    """
    root = Path(root)
    if train_images < 1 or valid_images < 1:
        raise UserError(f"each split needs an image, got {train_images} train and {valid_images} valid images")
    if seed < 0:
        raise UserError(f"the seed must not be negative, got {seed}")
    recipe = {
        "generator": "simplepose.data.synthetic",
        "version": GENERATOR_VERSION,
        "train_images": train_images,
        "valid_images": valid_images,
        "train_persons": train_persons,
        "valid_persons": valid_persons,
        "seed": seed,
    }
    if _holds_set(root, recipe):
        return False
    target = root.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as workshop:
        draft = Path(workshop) / "mpii"
        draft.mkdir()
        _write_set(draft, recipe)
        if target.exists():
            target.rmdir()  # empty, as _holds_set has checked
        os.rename(draft, target)
    return True


def zip_mini_mpii(root: Path, path: Path) -> None:
    """Pack a mini data set as ``mpii/...``; the same files give the same archive (fixed times and order)."""
    root, path = Path(root), Path(path)
    with written_whole(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        for file in sorted(p for p in root.rglob("*") if p.is_file()):
            info = zipfile.ZipInfo(f"mpii/{file.relative_to(root).as_posix()}", (2018, 9, 8, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16  # a Unix file, rw-r--r--
            info.compress_type = zipfile.ZIP_STORED if file.suffix == ".jpg" else zipfile.ZIP_DEFLATED
            archive.writestr(info, file.read_bytes())
