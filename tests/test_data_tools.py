"""MPII from MATLAB, splits, sigmas, and the commands around them."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from simplepose.core.errors import UserError
from simplepose.core.skeletons import MPII
from simplepose.data.formats.base import Labels, Person, Picture
from simplepose.data.joint_names import skeleton_of
from simplepose.data.lspet_mat import EXPECTED, read_joints
from simplepose.data.mpii_mat import read_release, valid_images
from simplepose.data.sigmas import repeats, sigmas_of_repeats, sigmas_of_residuals
from simplepose.data.splits import choose, group_of
from simplepose.metrics.pckh import load_pckh_ground_truth


def write_release(path: Path, images: list[tuple[str, int, list[dict]]]) -> None:
    """RELEASE as MPII's official file has it: nested structs, fields missing where there is nothing.

    Args:
        images: name, img_train, persons.
    """
    kind = [("image", object), ("annorect", object)]
    annolist = np.zeros((1, len(images)), kind)
    for k, (name, _, persons) in enumerate(images):
        annolist["image"][0, k] = {"name": name}
        fields = list(dict.fromkeys(field for person in persons for field in person))
        rects = np.zeros((1, len(persons)), [(field, object) for field in fields]) if persons else np.zeros((0, 0))
        for p, person in enumerate(persons):
            for field in fields:
                rects[field][0, p] = person.get(field, np.zeros((0, 0)))
        annolist["annorect"][0, k] = rects
    trains = np.array([[flag for _, flag, _ in images]], np.uint8)
    savemat(str(path), {"RELEASE": {"annolist": annolist, "img_train": trains, "version": "12"}})


def official_person(entry: dict, head_box: np.ndarray) -> dict:
    """An annorect of a person in JSON form: joints that are labelled, as points in any order, 1-based as they are."""
    points = [
        {"x": x, "y": y, "id": k, **({} if k in (8, 9) else {"is_visible": str(k % 2)})}
        for k, ((x, y), v) in enumerate(zip(entry["joints"], entry["joints_vis"]))
        if v
    ][::-1]
    fields = ["x", "y", "id", "is_visible"]
    array = np.zeros((1, len(points)), [(field, object) for field in fields])
    for n, point in enumerate(points):
        for field in fields:
            array[field][0, n] = point.get(field, np.zeros((0, 0)))
    corners = dict(zip(("x1", "y1", "x2", "y2"), head_box.ravel().tolist()))
    place = {"x": entry["center"][0], "y": entry["center"][1]}
    return {**corners, "annopoints": {"point": array}, "scale": entry["scale"], "objpos": place}


def test_mpii_from_a_made_matlab_file(tmp_path, run_command):
    rng = np.random.default_rng(0)
    entry = {
        "joints": rng.integers(1, 500, (16, 2)).astype(float).tolist(), "joints_vis": [1] * 15 + [0],
        "center": [300.0, 200.0], "scale": 1.234567,
    }  # fmt: skip
    validates, before = valid_images()[1], valid_images()[0]
    whole = official_person(entry, np.array([[10, 20], [30, 45]]))
    images = [
        ("000000001.jpg", 1, [whole, {"x1": 1, "y1": 1, "x2": 2, "y2": 2}]),  # beside a head box alone
        ("000000002.jpg", 0, [{"scale": 2.0, "objpos": {"x": 5, "y": 6}}]),
        ("000000003.jpg", 1, []),
        (f"{validates}.jpg", 1, [whole]),
        (f"{before}.jpg", 1, [whole]),
        ("000000004.jpg", 1, [{"scale": 2.0, "objpos": {"x": 5, "y": 6}}, whole]),
    ]
    write_release(tmp_path / "mpii.mat", images)
    finished = run_command("data_tools.py", "mpii-from-mat", "mpii.mat", "--output", "data/mpii", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "train.json: 2 persons (the original's JSON has 22246)" in finished.stdout
    assert "left out: 1 persons of training images without joints" in finished.stdout
    annot = tmp_path / "data" / "mpii" / "annot"
    train, valid, test = (json.loads((annot / f"{name}.json").read_text()) for name in ("train", "valid", "test"))
    expected = {**entry, "joints": [*entry["joints"][:15], [-1.0, -1.0]]}
    assert valid == [{**expected, "image": f"{name}.jpg"} for name in (before, validates)]  # in the published order
    assert [person["image"] for person in train] == ["000000001.jpg", "000000004.jpg"]
    assert test == [{"image": "000000002.jpg", "scale": 2.0, "center": [5.0, 6.0]}]
    truth = load_pckh_ground_truth(annot / "gt_valid.mat")
    # 0.6 of the diagonal of 20 x 25
    np.testing.assert_allclose(truth.head_sizes, [0.6 * np.hypot(20, 25)] * 2)
    arrays = loadmat(str(annot / "gt_valid.mat"))
    assert arrays["jnt_missing"][:, 0].tolist() == [0] * 15 + [1]
    assert arrays["pos_gt_src"][15].tolist() == [[0, 0], [0, 0]]


def test_mpii_s_real_validation_set_comes_out_field_by_field(real_data, tmp_path):
    """350 of the 2,958 persons, put into the structure of the official file in another order of images."""
    entries = json.loads((real_data / "mpii/annot/valid.json").read_text())
    truth = loadmat(str(real_data / "mpii/annot/gt_valid.mat"))
    heads = truth["headboxes_src"].transpose(2, 0, 1)[:350]
    entries = entries[:350]
    by_image = defaultdict(list)
    for entry, head in zip(entries, heads):
        by_image[entry["image"]].append(official_person(entry, head))
    write_release(tmp_path / "mpii.mat", [(name, 1, by_image[name]) for name in sorted(by_image)])
    sets, head_boxes, left_out = read_release(tmp_path / "mpii.mat")
    assert (len(sets["valid"]), len(sets["train"]), len(sets["test"])) == (350, 0, 0) and not left_out
    for made, entry in zip(sets["valid"], entries):
        assert {key: made[key] for key in ("image", "scale", "center", "joints_vis")} == {
            key: entry[key] for key in ("image", "scale", "center", "joints_vis")
        }
        np.testing.assert_allclose(made["joints"], entry["joints"], atol=6e-5)
    np.testing.assert_array_equal(head_boxes["valid"], heads)


def test_lspet_from_a_made_matlab_file(tmp_path, run_command):
    joints = np.zeros((14, 3, 9500))
    joints[:, :, [0, 1, 8000, 8001, 9000]] = np.array([1.0, 1.0, 0.0])[:, None]  # places alone are no labels
    joints[[0, 3], :, 0] = [[10, 20, 1], [30, 120, 1]]  # an ankle, a hip
    joints[[2, 3, 12, 13], :, 8001] = [[40, 50, 1], [60, 50, 1], [53, 24, 1], [50, 20, 1]]  # hips, neck, head top
    joints[[2, 3, 12], :, 8000] = joints[[2, 3, 12], :, 8001]
    joints[:, :, 9000] = joints[:, :, 8001]
    savemat(str(tmp_path / "joints.mat"), {"joints": joints})
    finished = run_command("data_tools.py", "lspet-from-mat", "joints.mat", "--output", "lspet", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "train.json: 1 persons (the results here are of 8000)" in finished.stdout
    annot = tmp_path / "lspet" / "annot"
    sets = [json.loads((annot / f"{name}.json").read_text()) for name in ("train", "valid", "held_out")]
    (person,), (validates,), (held_out,) = sets
    assert (person["image"], validates["image"]) == ("im00001.jpg", "im08002.jpg")
    assert held_out == {**validates, "image": "im09001.jpg"}
    assert person["center"] == [20, 70] and person["scale"] == pytest.approx(100 * 1.1 / 200)
    assert person["joints_vis"] == [1, 0, 0, 1] + [0] * 12
    assert person["joints"][:4] == [[10, 20], [0, 0], [0, 0], [30, 120]]
    assert validates["joints_vis"] == [0, 0, 1, 1, 0, 0, 1, 0, 1, 1] + [0] * 6
    assert validates["joints"][6:10] == [[50, 50], [0, 0], [53, 24], [50, 20]]  # pelvis between the hips
    for name in ("gt_valid.mat", "gt_held_out.mat"):
        assert load_pckh_ground_truth(annot / name).head_sizes == pytest.approx([5])  # of 3 and 4


def test_lspet_s_real_labels_come_out_as_they_were(real_data, tmp_path):
    """The persons that the results are of, put into the structure of the official file."""
    sets = {name: json.loads((real_data / f"lspet/annot/{name}.json").read_text()) for name in ("train", "valid")}
    joints = np.zeros((14, 3, 10000))
    for entry in (*sets["train"], *sets["valid"]):
        points = np.column_stack([entry["joints"], entry["joints_vis"]])
        joints[:, :, int(entry["image"][2:7]) - 1] = points[[0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9]]
    savemat(str(tmp_path / "joints.mat"), {"joints": joints})
    made, head_boxes, left_out = read_joints(tmp_path / "joints.mat")
    assert left_out["persons of valid without neck or head top"] == 1000 - 779
    for name, entries in sets.items():
        assert len(made[name]) == len(entries) == EXPECTED[name]
        for one, other in zip(made[name], entries):
            assert (one["image"], one["joints_vis"]) == (other["image"], other["joints_vis"])
            for key in ("joints", "center", "scale"):
                np.testing.assert_allclose(one[key], other[key], atol=1.1e-3)  # the labels were rounded to 0.001
    truth = loadmat(str(real_data / "lspet/annot/gt_valid.mat"))
    np.testing.assert_allclose(head_boxes["valid"], truth["headboxes_src"].transpose(2, 0, 1), atol=2e-3)


@pytest.mark.parametrize("joints", [np.zeros((3, 14, 9)), np.zeros((14, 3)), "text"])
def test_another_file_than_lspet_s_is_refused(tmp_path, joints):
    savemat(str(tmp_path / "joints.mat"), {"joints": joints})
    with pytest.raises(UserError, match=r"is not LSPET's annotation, with joints \(14, 3, images\)"):
        read_joints(tmp_path / "joints.mat")


@pytest.mark.parametrize(("content", "found"), [(b"nothing", ""), (None, "it holds preds")])
def test_another_matlab_file_is_refused(tmp_path, content, found):
    path = tmp_path / "x.mat"
    if content is None:
        savemat(str(path), {"preds": [1]})
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"is not MPII's annotation, with RELEASE\.annolist: .*" + found):
        read_release(path)


@pytest.mark.parametrize(
    ("name", "pattern", "group"),
    [
        ("walk_0012.jpg", None, "walk"), ("a/walk 12.jpg", None, "a/walk"), ("b/12.jpg", None, "b/_"),
        ("anna-garden-3.jpg", r"^(\w+)-", "anna"), ("2024-05-01_x.jpg", r"^[\d-]+", "2024-05-01"),
        ("12.jpg", r"^(anna-)?\d+", ""),
    ],
)  # fmt: skip
def test_groups_of_images(name, pattern, group):
    assert group_of(name, pattern) == group


def test_groups_stay_whole():
    groups = [f"video {k % 10}" for k in range(100)]
    chosen = choose(groups, [1] * 100, 0.2, seed=0)
    assert len(chosen) == 2
    assert choose(groups, [1] * 100, 0.2, seed=0) == chosen != choose(groups, [1] * 100, 0.2, seed=3)
    for seed in range(
        20
    ):  # 9 of 11 persons are on one video: it is chosen alone, where it is drawn first, or not at all
        assert choose(["big", "b", "c"], [9, 1, 1], 0.2, seed) in ({"big"}, {"b", "c"})
    with pytest.raises(UserError, match=r"all 3 images are one group \(a\)"):
        choose(["a"] * 3, [1] * 3, 0.2, 0)
    with pytest.raises(UserError, match="between 0 and 1"):
        choose(["a", "b"], [1, 1], 20, 0)
    with pytest.raises(UserError, match="does not match the image"):
        group_of("a.jpg", r"(\d+)")


TWO = skeleton_of("two", ["a", "b"])


def test_sigmas_of_repeated_annotations():
    """Two people, errors of 3 px each on either axis, a box of 100 x 100: sqrt(2) x 3 / 100."""
    rng = np.random.default_rng(0)
    annotators: list[Labels] = [Labels(TWO, []), Labels(TWO, [])]
    for k in range(1500):
        for labels in annotators:
            a, b = (rng.normal((50, place), 3) for place in (20, 80))
            points = {"a": (*a.tolist(), 2)} if k % 3 else {"a": (*a.tolist(), 2), "b": (*b.tolist(), 2)}
            stranger = Person({"a": (900.0, 900.0 * len(labels.pictures), 2)}, (900, 900, 100, 100))
            labels.pictures.append(
                Picture(f"{k}.jpg", 0, 0, [Person(points, (0, 0, 100, 100)), stranger][:: (-1) ** k])
            )
    annotators[1].pictures = annotators[1].pictures[::-1]
    for picture in annotators[0].pictures:
        picture.persons = [person for person in picture.persons if person.box[0] == 0]
    groups = repeats(annotators)
    assert len(groups) == 1500
    sigmas, counts = sigmas_of_repeats(groups, TWO)
    assert counts.tolist() == [1500, 500]
    np.testing.assert_allclose(sigmas, np.sqrt(2) * 0.03, rtol=0.05)


def test_sigmas_of_a_network_s_residuals():
    """The same cloud gives the same number, and a tenth of wild answers hardly moves it."""
    rng = np.random.default_rng(0)
    keypoints = np.full((4000, 2, 3), 2.0)
    found = keypoints.copy()
    found[..., :2] += rng.normal(0, 3, (4000, 2, 2))
    found[:5, 1] = np.nan
    areas = np.full(4000, 10_000.0)
    sigmas, counts = sigmas_of_residuals(keypoints, found, areas)
    np.testing.assert_allclose(sigmas, np.sqrt(2) * 0.03, rtol=0.05)
    assert counts.tolist() == [4000, 3995]
    found[:400, 0, 0] += 500
    assert sigmas_of_residuals(keypoints, found, areas)[0][0] < 1.1 * np.sqrt(2) * 0.03
    assert np.isnan(sigmas_of_residuals(keypoints[:5], found[:5], areas[:5])[0]).all()


def test_an_mpii_set_is_divided_with_its_ground_truth(bundled, tmp_path, run_command):
    line = [
        "data_tools.py",
        "split",
        bundled / "annot/valid.json",
        "--from",
        "mpii",
        "--valid",
        "0.25",
        "--output",
        "x",
    ]
    finished = run_command(*line, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    whole = json.loads((bundled / "annot/valid.json").read_text())
    parts = [json.loads((tmp_path / f"x/annot/{name}.json").read_text()) for name in ("train", "valid")]
    assert [len(part) for part in parts] == [6, 2]
    assert sorted(map(json.dumps, parts[0] + parts[1])) == sorted(map(json.dumps, whole))
    rows = [whole.index(entry) for entry in parts[1]]
    all_heads, heads = (load_pckh_ground_truth(f / "annot/gt_valid.mat").head_sizes for f in (bundled, tmp_path / "x"))
    np.testing.assert_array_equal(heads, all_heads[rows])
    assert len(list((tmp_path / "x/images").iterdir())) == 8
    shutil.copytree(bundled / "images", tmp_path / "photos")
    (tmp_path / "photos" / parts[0][0]["image"]).unlink()
    fewer = run_command(*line, "--images", "photos", "--output", "z", cwd=tmp_path)
    assert fewer.returncode == 0 and fewer.stdout.count("; left out: 1 images that are not there") == 1
    refused = run_command(*line, "--by", "group", "--output", "y", cwd=tmp_path)
    assert refused.returncode == 2 and "are one group" in refused.stderr and not (tmp_path / "y").exists()


def test_stats_and_drawing(bundled, tmp_path, run_command):
    stats = run_command("data_tools.py", "stats", bundled / "annot/train.json", "--from", "mpii")
    assert stats.returncode == 0, stats.stderr
    assert stats.stdout.startswith("8 images, 15 persons or objects, at most ")
    assert sum(line.startswith("| ") for line in stats.stdout.splitlines()) == 1 + MPII.num_joints
    line = ["data_tools.py", "draw", bundled / "annot/train.json", "--from", "mpii"]
    drawn = run_command(*line, "--count", "7", "--output", "sheet.png", cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (480, 1440, 3)
    nobody = run_command(*line, "--name", "zzz", "--output", "sheet.png", cwd=tmp_path)
    assert nobody.returncode == 2 and "no person with joints" in nobody.stderr
