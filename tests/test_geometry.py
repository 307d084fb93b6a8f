"""Crops: where a pixel goes, its joint goes, and both come back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from simplepose.core.geometry import apply_affine, box_to_crop, crop_affine, invert_affine
from simplepose.core.images import crop_image


def three_point_affine(center, crop_width, rotation_deg, size_wh):
    """The original's construction: centre, the point above it, and the third corner of a right angle."""
    radians = np.deg2rad(rotation_deg)
    up_in_image = crop_width / 2 * np.array([np.sin(radians), -np.cos(radians)])
    up_in_crop = np.array([0, -size_wh[0] / 2])
    middle = np.array(size_wh) / 2

    def corner(a, b):
        return b + np.array([-(a - b)[1], (a - b)[0]])

    image = np.array([center, center + up_in_image, corner(center, center + up_in_image)], np.float32)
    crop = np.array([middle, middle + up_in_crop, corner(middle, middle + up_in_crop)], np.float32)
    return cv2.getAffineTransform(image, crop)


@pytest.mark.parametrize("size_wh", [(256, 256), (192, 256), (288, 384)])
@pytest.mark.parametrize("rotation", [0, 30, -47.5])
def test_crop_matrix_is_the_originals(size_wh, rotation):
    center = np.array([411.3, 203.8])
    ours = crop_affine(center, 350.0, rotation, size_wh)
    theirs = three_point_affine(center, 350.0, rotation, size_wh)
    corners = np.array([[0, 0], [800, 0], [0, 600], [800, 600]])
    # The original computes its three points in float32.
    np.testing.assert_allclose(apply_affine(ours, corners), apply_affine(theirs, corners), atol=2e-3)


def test_crop_by_hand():
    # A crop 100 wide around (50, 40) into 20 x 20: five image pixels make one.
    affine = crop_affine(np.array([50.0, 40.0]), 100, 0, (20, 20))
    np.testing.assert_allclose(affine, [[0.2, 0, 0], [0, 0.2, 2]], atol=1e-12)


def test_flip_is_a_mirrored_image_cropped_at_the_mirrored_centre():
    # The original: image[:, ::-1], centre and joints at width - 1 - x, then the crop.
    image_width, center, joint = 300, np.array([120.0, 90.0]), np.array([[140.0, 70.0]])
    ours = apply_affine(crop_affine(center, 160, 25, (192, 256), flip=True), joint)
    mirrored_center, mirrored_joint = center.copy(), joint.copy()
    mirrored_center[0] = image_width - 1 - center[0]
    mirrored_joint[:, 0] = image_width - 1 - joint[:, 0]
    theirs = apply_affine(crop_affine(mirrored_center, 160, 25, (192, 256)), mirrored_joint)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotation", [0, 40, -75])
@pytest.mark.parametrize("size_wh", [(128, 128), (96, 128)])
def test_a_single_bright_spot_stays_under_its_joint(size_wh, rotation, flip):
    spot = np.array([63, 41])
    image = np.zeros((120, 160, 3), np.uint8)
    cv2.circle(image, tuple(int(v) for v in spot), 2, (255, 255, 255), -1)
    affine = crop_affine(np.array([70.0, 50.0]), 80.0, rotation, size_wh, flip)
    crop = crop_image(image, affine, size_wh)[..., 0].astype(float)
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]]
    centroid = np.array([(crop * x).sum(), (crop * y).sum()]) / crop.sum()
    np.testing.assert_allclose(centroid, apply_affine(affine, spot[None].astype(float))[0], atol=0.1)


def test_inverse_brings_points_back():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 500, (4, 16, 2))
    affines = np.stack([crop_affine(rng.uniform(0, 300, 2), 200, a, (192, 256), bool(a % 2)) for a in range(4)])
    np.testing.assert_allclose(apply_affine(invert_affine(affines), apply_affine(affines, points)), points, atol=1e-9)


def test_box_to_crop_by_hand():
    # 40 x 100 at 3:4 is too narrow: the width becomes 75; then x 1.25.
    center, size = box_to_crop(np.array([10, 20, 40, 100]), 3 / 4)
    np.testing.assert_allclose(center, [30, 70])
    np.testing.assert_allclose(size, [93.75, 125])
    # 200 x 100 is too wide: the height becomes 266.67.
    _, size = box_to_crop(np.array([0, 0, 200, 100]), 3 / 4)
    np.testing.assert_allclose(size, [250, 1000 / 3])
