"""The codec against loops written from the original's description, and against literals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simplepose.core.codecs.gaussian import HeatmapCodec, flip_heatmaps
from simplepose.metrics.accuracy import heatmap_accuracy

CODEC = HeatmapCodec((256, 256), (64, 64), 2)


def draw_by_loop(joint, size_wh, stride, sigma):
    """One target, cell by cell: a peak of 1, a window of three sigma, weight 0 when it lies outside."""
    width, height = size_wh
    peak = [int(joint[axis] / stride + 0.5) for axis in range(2)]
    heatmap = np.zeros((height, width))
    reach = 3 * sigma
    if any(peak[a] - reach >= size_wh[a] or peak[a] + reach + 1 < 0 for a in range(2)):
        return heatmap, 0
    for y in range(max(0, peak[1] - reach), min(height, peak[1] + reach + 1)):
        for x in range(max(0, peak[0] - reach), min(width, peak[0] + reach + 1)):
            heatmap[y, x] = math.exp(-((x - peak[0]) ** 2 + (y - peak[1]) ** 2) / (2 * sigma**2))
    return heatmap, 1


@pytest.mark.parametrize("size_wh", [(64, 64), (48, 64)])
def test_targets_are_the_originals(size_wh):
    codec = HeatmapCodec((size_wh[0] * 4, size_wh[1] * 4), size_wh, 2)
    rng = np.random.default_rng(1)
    joints = rng.uniform(-60, 320, (40, 2))
    heatmaps, weights = codec.encode(joints, np.ones(40))
    for joint, heatmap, weight in zip(joints, heatmaps, weights):
        expected, expected_weight = draw_by_loop(joint, size_wh, 4, 2)
        assert weight == expected_weight
        np.testing.assert_allclose(heatmap, expected, atol=1e-7)


def test_target_on_paper():
    # sigma 1/3 leaves a window of one cell on each side; the joint at pixel (9, 5), stride 4, is cell (2, 1).
    codec = HeatmapCodec((20, 12), (5, 3), 1 / 3)
    heatmaps, _ = codec.encode(np.array([[9.0, 5.0]]), np.ones(1))
    side, corner = math.exp(-4.5), math.exp(-9)
    expected = [[0, corner, side, corner, 0], [0, side, 1, side, 0], [0, corner, side, corner, 0]]
    np.testing.assert_allclose(heatmaps[0], expected, atol=1e-7)


@pytest.mark.parametrize(
    ("x", "weight", "drawn"),  # cells -6, -7, -8, 69, 70: int() truncates toward zero
    [(-26, 1, True), (-30, 1, False), (-34, 0, False), (276, 1, True), (280, 0, False)],
)
def test_a_joint_just_off_the_map_still_teaches(x, weight, drawn):
    # sigma 2: the window reaches 6 cells. At -7 it ends at column -1: nothing to draw, and yet weight 1.
    heatmaps, weights = CODEC.encode(np.array([[x, 128.0]]), np.ones(1))
    assert weights[0] == weight
    assert (heatmaps[0].max() > 0) == drawn


def test_an_unlabelled_joint_draws_nothing():
    heatmaps, weights = CODEC.encode(np.full((2, 2), 100.0), np.array([0, 1]))
    assert weights.tolist() == [0, 1]
    assert heatmaps[0].max() == 0
    assert heatmaps[1].max() == 1


def test_decode_inverts_encode_within_half_a_cell():
    rng = np.random.default_rng(2)
    joints = rng.uniform(8, 244, (16, 17, 2))
    heatmaps, _ = CODEC.encode(joints, np.ones((16, 17)))
    decoded, scores = CODEC.decode(heatmaps)
    # A Gaussian sits on a whole cell, its neighbours are equal and the quarter step is 0: the bound is stride / 2.
    assert np.abs(decoded - joints).max() <= 2 + 1e-9
    np.testing.assert_array_equal(scores, 1)


def test_unbiased_sizes_reach_from_the_first_pixel_to_the_last():
    codec = HeatmapCodec((17, 9), (5, 3), 1, unbiased=True)
    np.testing.assert_array_equal(codec.stride_xy, [4, 4])
    assert codec.extent_wh == (16, 8)
    heatmaps, _ = codec.encode(np.array([[16.0, 8.0], [9.0, 5.0]]), np.ones(2))  # the last pixel; cell (2.25, 1.25)
    assert heatmaps[0, 2, 4] == 1
    assert heatmaps[1, 1, 2] == pytest.approx(math.exp(-(0.25**2 + 0.25**2) / 2))
    assert heatmaps[1, 2, 0] == pytest.approx(math.exp(-(0.75**2 + 2.25**2) / 2))
    half = HeatmapCodec((192, 256), (48, 64), 2, unbiased=True)
    np.testing.assert_allclose(half.stride_xy, [191 / 47, 255 / 63])


@pytest.mark.parametrize("size_wh", [(32, 32), (48, 64), (96, 72)])
@pytest.mark.parametrize("sigma", [1, 2, 3])
def test_dark_finds_a_gaussian_between_the_cells(size_wh, sigma):
    codec = HeatmapCodec((size_wh[0] * 4, size_wh[1] * 4), size_wh, sigma, unbiased=True, decoder="dark")
    rng = np.random.default_rng(4)
    inside = 5.5 * sigma  # cells from the border: beyond, the smoothing meets nothing
    cells = rng.uniform(inside, np.array(size_wh) - 1 - inside, (20, 17, 2)) if sigma < 3 else np.full((1, 1, 2), 15.7)
    joints = cells * codec.stride_xy
    heatmaps, _ = codec.encode(joints, np.ones(joints.shape[:-1]))
    decoded, scores = codec.decode(heatmaps)
    assert np.abs(decoded - joints).max() / 4 < 0.02
    np.testing.assert_array_equal(scores, heatmaps.max(axis=(2, 3)))  # of the raw heatmap
    mirrored, _ = codec.encode((size_wh[0] * 4 - 1, 0) + (-1, 1) * joints, np.ones(joints.shape[:-1]))
    np.testing.assert_allclose(mirrored[..., ::-1], heatmaps, atol=1e-6)


def test_dark_steps_only_where_there_is_a_peak():
    codec = HeatmapCodec((64, 64), (16, 16), 1, unbiased=False, decoder="dark")
    y, x = np.mgrid[:16, :16]
    peak = np.exp(-((x - 8.3) ** 2 + (y - 7.0) ** 2) / 8).astype(np.float32)
    ridge = np.exp(-((x - 8.3) ** 2) / 8 + 0 * y).astype(np.float32)  # no end to it along y
    border = np.exp(-((x - 0.6) ** 2 + (y - 7.0) ** 2) / 8).astype(np.float32)
    broken = np.where((x == 8) & (y == 7), np.nan, peak)
    joints, scores = codec.decode(np.stack([peak, border, -peak, broken]))
    np.testing.assert_allclose(joints[0], [4 * 8.3, 4 * 7.0], atol=0.02)
    np.testing.assert_array_equal(joints[1], [4, 28])
    np.testing.assert_array_equal(joints[2], [0, 0])
    assert np.isnan(scores[3]) and np.isfinite(joints[3]).all()
    assert np.abs(codec.decode(ridge[None])[0][0] - [32, 0]).max() <= 4  # within a cell of the maximum, whatever it is
    np.testing.assert_array_equal(codec.decode(peak[None], refine=False)[0], [[32, 28]])


def decode_by_loop(heatmap, stride):
    height, width = heatmap.shape
    index = int(heatmap.argmax())
    score, x, y = heatmap.flat[index], index % width, index // width
    if score <= 0:
        return (0, 0), score
    step = [0, 0]
    if 1 < x < width - 1 and 1 < y < height - 1:
        step = [np.sign(heatmap[y, x + 1] - heatmap[y, x - 1]), np.sign(heatmap[y + 1, x] - heatmap[y - 1, x])]
    return ((x + 0.25 * step[0]) * stride, (y + 0.25 * step[1]) * stride), score


def test_decode_is_the_originals():
    rng = np.random.default_rng(3)
    heatmaps = rng.normal(size=(60, 4, 8, 6)).astype(np.float32)
    heatmaps[:5] = -np.abs(heatmaps[:5])  # nothing positive
    heatmaps[5:8] = 0.5  # ties
    codec = HeatmapCodec((24, 32), (6, 8), 1)
    joints, scores = codec.decode(heatmaps)
    for index in np.ndindex(60, 4):
        expected, score = decode_by_loop(heatmaps[index], 4)
        np.testing.assert_allclose(joints[index], expected)
        assert scores[index] == score


def test_decode_without_refinement_is_the_bare_maximum():
    heatmap = np.zeros((1, 6, 6), np.float32)
    heatmap[0, 3, 2], heatmap[0, 3, 3] = 1, 0.5
    codec = HeatmapCodec((24, 24), (6, 6), 1)
    np.testing.assert_allclose(codec.decode(heatmap, refine=False)[0], [[8, 12]])
    np.testing.assert_allclose(codec.decode(heatmap)[0], [[9, 12]])


def test_flip_without_shift_mirrors_and_swaps():
    heatmaps = np.arange(2 * 5).reshape(1, 2, 1, 5)
    swapped = flip_heatmaps(heatmaps, np.array([1, 0]), shift=False)
    np.testing.assert_array_equal(swapped[0, :, 0], [[9, 8, 7, 6, 5], [4, 3, 2, 1, 0]])


def test_flip_with_shift_moves_right_and_keeps_column_0():
    heatmap = np.array(
        [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15], [16, 17, 18, 19, 20], [21, 22, 23, 24, 25]]
    )
    shifted = flip_heatmaps(heatmap[None, None], np.array([0]), shift=True)
    expected = [[5, 5, 4, 3, 2], [10, 10, 9, 8, 7], [15, 15, 14, 13, 12], [20, 20, 19, 18, 17], [25, 25, 24, 23, 22]]
    np.testing.assert_array_equal(shifted[0, 0], expected)


def accuracy_by_loop(predicted, target):
    """The original's accuracy, joint by joint and person by person."""
    num, joints, height, width = target.shape
    shares = []
    for k in range(joints):
        hits, count = 0, 0
        for n in range(num):
            t, _ = decode_cell(target[n, k])
            p, _ = decode_cell(predicted[n, k])
            if t[0] > 1 and t[1] > 1:
                count += 1
                hits += math.hypot((p[0] - t[0]) / (width / 10), (p[1] - t[1]) / (height / 10)) < 0.5
        if count:
            shares.append(hits / count)
    return (sum(shares) / len(shares) if shares else 0), len(shares)


def decode_cell(heatmap):
    index = int(heatmap.argmax())
    score = heatmap.flat[index]
    return ((index % heatmap.shape[1], index // heatmap.shape[1]) if score > 0 else (0, 0)), score


def test_accuracy_is_the_originals_on_square_maps():
    rng = np.random.default_rng(4)
    target, _ = CODEC.encode(rng.uniform(-10, 260, (6, 5, 2)), rng.integers(0, 2, (6, 5)))
    predicted, _ = CODEC.encode(rng.uniform(0, 256, (6, 5, 2)), np.ones((6, 5)))
    predicted[:3] = np.roll(target[:3], 3, axis=-1)  # three cells off: within a tenth of 64, halved
    accuracy, count = heatmap_accuracy(predicted, target)
    expected, expected_count = accuracy_by_loop(predicted, target)
    assert 0 < expected < 1
    assert accuracy == pytest.approx(expected)
    assert count == expected_count


def test_accuracy_divides_each_axis_by_its_own_side():
    # 20 wide, 40 high: half a tenth is 1 cell across and 2 cells down. Off by (0, 1.x) hits, (1, 0) does not.
    target, predicted = np.zeros((2, 1, 40, 20)), np.zeros((2, 1, 40, 20))
    target[:, 0, 10, 10] = 1
    predicted[0, 0, 11, 10] = 1
    predicted[1, 0, 10, 11] = 1
    assert heatmap_accuracy(predicted, target) == (0.5, 1)


def test_accuracy_without_any_target():
    assert heatmap_accuracy(np.ones((1, 2, 8, 8)), np.zeros((1, 2, 8, 8))) == (0.0, 0)
