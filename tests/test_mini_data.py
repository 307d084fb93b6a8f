"""The drawn mini data set: reproducible, consistent with itself, every joint on the figure it belongs to."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import loadmat

from simplepose.commands import make_mini
from simplepose.core.errors import UserError, run_command
from simplepose.data import synthetic

MINI_ZIP = Path(__file__).resolve().parents[1] / "data" / "mpii.zip"


def files_of(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def entries_of(root: Path, split: str) -> list[dict]:
    return json.loads((root / "annot" / f"{split}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mini") / "set"
    assert synthetic.write_mini_mpii(root, 2, 24, seed=0) is True
    return root


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        synthetic.write_mini_mpii(tmp_path / name, 2, 1, seed=seed)
    a, b, c = (files_of(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a)
    assert b"Created on" not in a["annot/gt_valid.mat"]  # SciPy's header would carry the time of day


def test_a_picture_does_not_depend_on_the_size_of_the_set(small_set: Path, tmp_path: Path) -> None:
    synthetic.write_mini_mpii(tmp_path / "one", 1, 1, seed=0)
    one, more = files_of(tmp_path / "one"), files_of(small_set)
    assert one["images/100000001.jpg"] == more["images/100000001.jpg"]


def test_annotations_have_the_original_form(small_set: Path) -> None:
    splits = {split: entries_of(small_set, split) for split in ("train", "valid", "trainval", "test")}
    assert splits["trainval"] == splits["train"] + splits["valid"]
    for entry in splits["trainval"]:
        assert set(entry) == {"image", "center", "scale", "joints", "joints_vis"}
        assert np.shape(entry["joints"]) == (16, 2) and set(entry["joints_vis"]) <= {0, 1}
    assert all(set(entry) == {"image", "center", "scale"} for entry in splits["test"])
    named = {entry["image"] for entries in splits.values() for entry in entries}
    assert named == {p.name for p in (small_set / "images").iterdir()}


def test_ground_truth_agrees_with_valid_json(small_set: Path) -> None:
    entries, truth = entries_of(small_set, "valid"), loadmat(small_set / "annot" / "gt_valid.mat")
    n = len(entries)
    assert truth["dataset_joints"].shape == (1, 16) and truth["jnt_missing"].shape == (16, n)
    assert truth["pos_gt_src"].shape == (16, 2, n) and truth["headboxes_src"].shape == (2, 2, n)
    names = [str(name[0]) for name in truth["dataset_joints"][0]]  # each name is an array of one string
    assert " ".join(names) == "rank rkne rhip lhip lkne lank pelv thor neck head rwri relb rsho lsho lelb lwri"
    assert truth["jnt_missing"].sum() > 0, "seed 0 must show a figure cut off by the border"
    for i, entry in enumerate(entries):
        joints, missing = np.array(entry["joints"]), np.array(entry["joints_vis"]) == 0
        assert (truth["jnt_missing"][:, i] == missing).all()
        assert (joints[missing] == -1).all() and (truth["pos_gt_src"][missing, :, i] == 0).all()
        assert (truth["pos_gt_src"][~missing, :, i] == joints[~missing]).all()
        height, width = cv2.imread(str(small_set / "images" / entry["image"])).shape[:2]
        assert (joints[~missing] >= 1).all() and (joints[~missing] <= (width, height)).all()  # 1-based


def test_files_are_one_based_and_missing_joints_are_marked(tmp_path: Path) -> None:
    person = {
        "center": np.array([10.0, 20.0]),
        "scale": 0.5,
        "joints": np.tile([3.0, 4.0], (16, 1)),
        "visible": np.array([False] + [True] * 15),
        "head_box": np.array([[1.0, 2.0], [5.0, 6.0]]),
    }
    entry = synthetic._entry("a.jpg", person, with_joints=True)
    assert (
        entry["center"] == [11, 21] and entry["joints"][:2] == [[-1, -1], [4, 5]] and entry["joints_vis"][:2] == [0, 1]
    )
    synthetic.write_ground_truth(tmp_path / "gt.mat", [entry], [np.round(person["head_box"] + 1, 2)], "test")
    assert loadmat(tmp_path / "gt.mat")["headboxes_src"][:, :, 0].tolist() == [[2, 3], [6, 7]]


def test_head_box_has_mpii_proportions(small_set: Path) -> None:
    truth = loadmat(small_set / "annot" / "gt_valid.mat")
    boxes, joints = truth["headboxes_src"], truth["pos_gt_src"]
    diagonal = np.linalg.norm(boxes[1] - boxes[0], axis=0)  # (N,)
    neck, top = joints[8], joints[9]  # (2, N)
    np.testing.assert_allclose(diagonal, 1.25 * np.linalg.norm(top - neck, axis=0), rtol=2e-3)
    np.testing.assert_allclose(boxes.mean(axis=0), (neck + top) / 2, atol=0.02)
    width, height = boxes[1] - boxes[0]
    lying = np.abs(top - neck)[0] > np.abs(top - neck)[1]
    assert ((width > height) == lying).all()  # the box follows the head
    assert (np.minimum(width, height) > 0.74 * np.maximum(width, height)).all()  # heads are 3/4 as wide as high


@pytest.mark.parametrize("seed", range(12))
def test_joints_lie_on_the_drawn_figure(seed: int) -> None:
    place, nobody = synthetic.draw_scene(np.random.default_rng(seed), people=0)
    picture, persons = synthetic.draw_scene(np.random.default_rng(seed), people=2)
    assert nobody == [] and len(persons) == 2
    figure = cv2.absdiff(picture, place).max(axis=2) > 0  # (H, W)
    elsewhere = figure.copy()
    for person in persons:
        margin = 0.2 * np.ptp(person["joints"], axis=0).max()
        (x0, y0), (x1, y1) = person["joints"].min(axis=0) - margin, person["joints"].max(axis=0) + margin
        elsewhere[max(0, int(y0)) : max(0, int(y1)), max(0, int(x0)) : max(0, int(x1))] = False
    assert not elsewhere.any()  # nothing but the figures has changed
    for person in persons:
        x, y = np.round(person["joints"][person["visible"]]).astype(int).T
        assert figure[y, x].all()


def test_right_limbs_hang_on_the_viewers_left() -> None:
    """Everyone faces the viewer, so seen along the body (up) the right shoulder and hip lie to the left."""
    for seed in range(20):
        joints = synthetic.sample_pose(np.random.default_rng(seed))
        up = joints[synthetic.NECK] - joints[synthetic.PELVIS]
        viewers_right = np.array([-up[1], up[0]])  # y points down
        for right, left in ((synthetic.R_SHOULDER, synthetic.L_SHOULDER), (synthetic.R_HIP, synthetic.L_HIP)):
            assert (joints[left] - joints[right]) @ viewers_right > 0


def test_wanted_number_of_persons(tmp_path: Path) -> None:
    synthetic.write_mini_mpii(tmp_path / "set", 2, 1, train_persons=5, valid_persons=1)
    images = [entry["image"] for entry in entries_of(tmp_path / "set", "train")]
    assert len(images) == 5 and len(set(images)) == 2
    with pytest.raises(UserError, match="7 train persons do not fit 2 images"):
        synthetic.write_mini_mpii(tmp_path / "other", 2, 1, train_persons=7)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]


def test_keeps_its_own_set_and_refuses_anything_else(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()  # an empty folder is welcome
    assert synthetic.write_mini_mpii(root, 1, 1) is True
    before = files_of(root)
    assert synthetic.write_mini_mpii(root, 1, 1) is False
    with pytest.raises(UserError, match="different seed"):
        synthetic.write_mini_mpii(root, 1, 1, seed=1)
    assert files_of(root) == before
    (root / "images" / "100000001.jpg").unlink()
    with pytest.raises(UserError, match="files missing"):
        synthetic.write_mini_mpii(root, 1, 1)

    foreign = tmp_path / "mpii"
    foreign.mkdir()
    (foreign / "precious.txt").write_text("the real MPII")
    with pytest.raises(UserError, match="not a mini data set"):
        synthetic.write_mini_mpii(foreign, 1, 1)
    assert files_of(foreign) == {"precious.txt": b"the real MPII"}


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "write_ground_truth", stop)
    with pytest.raises(KeyboardInterrupt):
        synthetic.write_mini_mpii(tmp_path / "set", 1, 1)
    assert list(tmp_path.iterdir()) == []


def test_zip_is_reproducible(small_set: Path, tmp_path: Path) -> None:
    synthetic.zip_mini_mpii(small_set, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    assert packed == {f"mpii/{name}": content for name, content in files_of(small_set).items()}
    for file in small_set.rglob("*"):
        file.touch()
    synthetic.zip_mini_mpii(small_set, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_bundled_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(MINI_ZIP) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"mpii"}
        archive.extractall(tmp_path)
    root = tmp_path / "mpii"
    train, valid = entries_of(root, "train"), entries_of(root, "valid")
    assert (len({e["image"] for e in train}), len(train)) == (8, 15)
    assert (len({e["image"] for e in valid}), len(valid)) == (8, 8)
    assert len(entries_of(root, "trainval")) == 23
    assert loadmat(root / "annot" / "gt_valid.mat")["pos_gt_src"].shape == (16, 2, 8)
    for entry in train + valid + entries_of(root, "test"):
        assert cv2.imread(str(root / "images" / entry["image"])) is not None
    # It is this generator's: raise GENERATOR_VERSION and pack it anew when the drawing changes.
    assert json.loads((root / "mini.json").read_text(encoding="utf-8"))["version"] == synthetic.GENERATOR_VERSION


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        sizes = ["--train-images", "1", "--valid-images", "1"]
        monkeypatch.setattr("sys.argv", ["make_mini.py", *sizes, *map(str, arguments)])
        return run_command(make_mini.main), *capsys.readouterr()

    root = tmp_path / "set"
    assert run("--output", root) == (0, f"wrote {root}\n", "")
    assert run("--output", root) == (0, f"{root} already holds this set; kept as it is\n", "")
    code, _, message = run("--output", root, "--seed", 1)
    assert code == 2 and message.startswith("error: ") and message.count("\n") == 1
    assert run("--zip", tmp_path / "mpii.zip") == (0, f"packed {tmp_path / 'mpii.zip'}\n", "")
    synthetic.zip_mini_mpii(root, tmp_path / "same.zip")
    assert (tmp_path / "mpii.zip").read_bytes() == (tmp_path / "same.zip").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mpii.zip", "same.zip", "set"]
