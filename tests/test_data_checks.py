"""Each fault planted alone is found, under its name, and a clean set yields nothing."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from simplepose.core.images import MAX_IMAGE_BYTES
from simplepose.core.skeletons import MPII, skeleton_from
from simplepose.data.checks import LabelledSet, findings, leaks, score_interval
from simplepose.data.formats import coco
from simplepose.data.formats.base import ImageFolder, Labels, Person, Picture
from simplepose.data.image_checks import THUMB, ImageFact, look_at, near_duplicates
from simplepose.data.swaps import exchanges, swap_scores
from simplepose.reports.data_page import write_page

FACE = {
    "name": "cat",
    "joints": ["nose", "left_eye", "right_eye", "left_ear", "right_ear"],
    "pairs": [["left_eye", "right_eye"], ["left_ear", "right_ear"]],
    "limbs": [["nose", "left_eye"], ["nose", "right_eye"], ["left_eye", "left_ear"], ["right_eye", "right_ear"]],
    "sigmas": 0.05,
}
SHAPE = np.array([[0, 0.1], [0.3, -0.2], [-0.3, -0.2], [0.45, -0.5], [-0.45, -0.5]])  # of a cat's face, y down
WIDTH, HEIGHT, CATS = 200, 150, 120


def a_cat(rng: np.random.Generator) -> Person:
    """A face turned and stretched a little, in a box a tenth larger than its joints."""
    turn = rng.uniform(-0.5, 0.5)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    size = rng.uniform(40, 70)
    points = SHAPE * rng.uniform(0.85, 1.15, (5, 2)) @ rotation.T * size + rng.uniform((60, 60), (140, 90))
    low, high = points.min(axis=0) - 0.1 * size, points.max(axis=0) + 0.1 * size
    joints = {name: (float(x), float(y), 2) for name, (x, y) in zip(FACE["joints"], points)}
    return Person(joints, (*low.tolist(), *(high - low).tolist()), "cat")


def a_set(seed: int = 0, name: str = "train", **skeleton) -> LabelledSet:
    rng = np.random.default_rng(seed)
    pictures = [Picture(f"{name}_{k}.png", WIDTH, HEIGHT, [a_cat(rng)]) for k in range(CATS)]
    facts = [
        ImageFact((WIDTH, HEIGHT), rng.bytes(16), rng.integers(0, 256, (THUMB, THUMB), dtype=np.uint8))
        for _ in pictures
    ]
    labels = Labels(skeleton_from({**FACE, **skeleton}, "test"), pictures)
    return LabelledSet(name, labels, ImageFolder(None), facts)


def change_cats(checked: LabelledSet, change, count: int = CATS) -> None:
    for cat in checked.persons[:count]:
        change(cat)


def move_joints(cat: Person, move) -> None:
    cat.points = {joint: move(joint, *point) for joint, point in cat.points.items()}


def exchange_eyes(cat: Person) -> None:
    points = cat.points
    points["left_eye"], points["right_eye"] = points["right_eye"], points["left_eye"]


def set_box(form):
    def change(cat: Person) -> None:
        x, y, w, h = cat.box
        cat.box = form(x, y, w, h)

    return change


def far_ear(cat: Person) -> None:
    nose = cat.points["nose"]
    cat.points["left_ear"] = (nose[0] + 300, nose[1], 2)
    cat.box = (*cat.box[:2], 400, cat.box[3])


def plant(checked: LabelledSet, fault: str) -> None:
    """One fault in a clean set."""
    pictures, facts = checked.labels.pictures, checked.facts
    if fault == "images that cannot be read":
        facts[3].fault = "broken"
    elif fault == "images that are in the set twice":
        facts[5].digest = facts[4].digest
    elif fault == "image sizes that are not the file's":
        pictures[7].width, pictures[7].height = HEIGHT, WIDTH
    elif fault == "every joint is marked as not labelled":
        change_cats(checked, lambda cat: move_joints(cat, lambda joint, x, y, v: (x, y, 0)))
    elif fault == "every joint is marked as hidden":
        change_cats(checked, lambda cat: move_joints(cat, lambda joint, x, y, v: (x, y, 1)))
    elif fault == "labelled joints at (0, 0) or (-1, -1)":
        change_cats(checked, lambda cat: cat.points.update(nose=(0, 0, 2)), 2)
    elif fault == "joints counted from 1 where the form counts from 0":
        change_cats(checked, lambda cat: cat.points.update(left_ear=(float(WIDTH), cat.points["left_ear"][1], 2)), 8)
        change_cats(checked, set_box(lambda x, y, w, h: (0, y, WIDTH, h)), 8)
    elif fault == "joints outside of the image":
        change_cats(checked, lambda cat: cat.points.update(nose=(cat.points["nose"][0], HEIGHT + 5.0, 2)), 1)
        change_cats(checked, set_box(lambda x, y, w, h: (x, y, w, HEIGHT - y)), 1)
    elif fault == "boxes in another form":
        change_cats(checked, set_box(lambda x, y, w, h: (x, y, x + w, y + h)))
    elif fault == "boxes of no size or outside of the image":
        change_cats(checked, set_box(lambda x, y, w, h: (x, y, 0, h)), 1)
    elif fault == "joints outside of the person's crop":
        change_cats(checked, set_box(lambda x, y, w, h: (x, y, w / 2, h / 2)), 1)
    elif fault == "limbs far too long":
        change_cats(checked, far_ear, 1)
        pictures[0].width, facts[0].size_wh = 600, (600, HEIGHT)
    elif fault == "left and right that look exchanged":
        change_cats(checked, exchange_eyes, 1)
    elif fault == "joints that hardly anybody labels":
        change_cats(checked, lambda cat: cat.points.pop("right_ear"))
    elif fault == "persons labelled twice":
        pictures[2].persons.append(Person(dict(pictures[2].persons[0].points), pictures[2].persons[0].box, "cat"))
    elif fault == "persons much smaller than the input":
        change_cats(checked, lambda cat: move_joints(cat, lambda joint, x, y, v: (x / 9, y / 9, v)), 1)
        change_cats(checked, set_box(lambda x, y, w, h: (x / 9, y / 9, w / 9, h / 9)), 1)
    else:
        raise ValueError(fault)


FAULTS = [
    "images that cannot be read", "images that are in the set twice", "image sizes that are not the file's",
    "every joint is marked as not labelled", "every joint is marked as hidden",
    "labelled joints at (0, 0) or (-1, -1)", "joints counted from 1 where the form counts from 0",
    "joints outside of the image", "boxes in another form", "boxes of no size or outside of the image",
    "joints outside of the person's crop", "limbs far too long", "left and right that look exchanged",
    "joints that hardly anybody labels", "persons labelled twice", "persons much smaller than the input",
]  # fmt: skip
# what such a fault is also seen as
ALSO = {
    "joints outside of the image": {"joints outside of the person's crop", "limbs far too long"},
    "labelled joints at (0, 0) or (-1, -1)": {"joints outside of the person's crop", "limbs far too long"},
    "limbs far too long": {"left and right that look exchanged"},
}


def titles(checked: LabelledSet, validates: bool = False) -> set[str]:
    again = LabelledSet(checked.name, checked.labels, checked.images, checked.facts, checked.one_based)
    return {finding.title for finding in findings(again, (128, 128), validates)}


def test_a_clean_set_yields_nothing():
    for seed in range(3):
        assert titles(a_set(seed), validates=True) == set()
    assert leaks(a_set(0), a_set(1, "val")) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_planted_alone_is_found(fault):
    checked = a_set()
    plant(checked, fault)
    found = titles(checked)
    assert fault in found
    assert found - {fault} <= ALSO.get(fault, set())


def test_what_the_crop_shows_beside_a_narrow_box_is_no_fault():
    """By hand: around the middle 50 of a box of 10 x 100, the crop of a square input is 125 wide, of 1 x 2 62.5."""
    for x, input_wh, shown in ((100, (64, 64), True), (120, (64, 64), False), (80, (1, 2), True), (85, (1, 2), False)):
        cat = Person({"nose": (float(x), 50.0, 2), "left_eye": (50.0, 50.0, 2)}, (45, 0, 10, 100), "cat")
        labels = Labels(skeleton_from(FACE, "test"), [Picture("a.png", 200, 150, [cat])])
        checked = LabelledSet("train", labels, ImageFolder(None), [ImageFact((200, 150))])
        found = [finding.title for finding in findings(checked, input_wh, False)]
        assert ("joints outside of the person's crop" not in found) == shown


FORMS = {
    "left, top, right, bottom": lambda x, y, w, h: (x, y, x + w, y + h),
    "centre, width, height": lambda x, y, w, h: (x + w / 2, y + h / 2, w, h),
    "relative to the image": lambda x, y, w, h: (x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT),
    "centre, width, height relative": lambda x, y, w, h: (
        (x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT,
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_boxes_is_named(form):
    checked = a_set()
    change_cats(checked, set_box(FORMS[form]))
    again = LabelledSet("train", checked.labels, checked.images, checked.facts)
    (finding,) = [one for one in findings(again, (1, 1), False) if one.title == "boxes in another form"]
    assert form in finding.advice and finding.wrong


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([["left_eye", "right_ear"], ["left_ear", "right_eye"]], "left_eye - right_ear are not one joint's two sides"),
        ([["right_eye", "left_eye"], ["left_ear", "right_ear"]], "right_eye - left_eye has the right one first"),
        ([["left_eye", "nose"], ["left_ear", "right_ear"]], "left_eye - nose are not one joint's two sides"),
        ([["left_eye", "right_eye"]], "left_ear, right_ear have a side and are in no pair"),
    ],
)
def test_pairs_that_do_not_mirror_are_found_by_name(pairs, words):
    (finding,) = [one for one in findings(a_set(pairs=pairs), (1, 1), False) if "pairs" in one.title]
    assert words in finding.advice


def test_pairs_that_do_not_mirror_are_found_by_place():
    """Names that say nothing: the nose and an ear are not at one height."""
    checked = a_set(joints=["a", "b", "c", "d", "e"], pairs=[["a", "d"]], limbs=[])
    for cat in checked.persons:
        cat.points = dict(zip("abcde", cat.points.values()))
    (finding,) = [one for one in findings(checked, (1, 1), False) if "pairs" in one.title]
    assert "a lies 6" in finding.advice and "from d in height" in finding.advice


def test_leaks_are_found_whatever_the_file_is_called():
    train, valid = a_set(0), a_set(1, "val")
    valid.facts[3].digest = train.facts[7].digest
    valid.facts[9].thumb = np.clip(train.facts[2].thumb * 0.9 + 8, 0, 255).astype(np.uint8)  # darker, saved again
    exact, near = leaks(train, valid)
    assert exact.wrong and exact.examples[0].picture.name == "val_3.png" and "train_7.png" in exact.examples[0].text
    assert not near.wrong and (near.examples[0].picture.name, near.count) == ("val_9.png", 1)


def test_a_camera_that_never_moves_is_one_example_an_image():
    train, valid = a_set(0), a_set(1, "val")
    for fact in (*train.facts, *valid.facts):
        fact.thumb = train.facts[0].thumb
    (near,) = leaks(train, valid)
    assert len(near.examples) == near.count == CATS


def test_leaks_where_no_image_can_be_read():
    """As with a wrong folder: that is the finding, and the check goes on."""
    train, valid = a_set(0), a_set(1, "val")
    nothing = [look_at(None)] * CATS
    for first, second in ((nothing, valid.facts), (train.facts, nothing), (nothing, nothing)):
        train.facts, valid.facts = first, second
        assert leaks(train, valid) == []


def test_photographs_saved_again_smaller_are_found(tmp_path):
    rng, facts = np.random.default_rng(0), []
    for name, seed in (("a", 1), ("b", 2)):
        image = cv2.resize(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8), (320, 240))
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    again = cv2.resize(cv2.imread(str(tmp_path / "a.png")), (160, 120), interpolation=cv2.INTER_AREA)
    again = np.clip(again + rng.normal(0, 4, again.shape), 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "c.jpg"), again, [cv2.IMWRITE_JPEG_QUALITY, 60])
    facts = [look_at(tmp_path / name) for name in ("a.png", "b.png", "c.jpg")]
    assert [fact.size_wh for fact in facts] == [(320, 240), (320, 240), (160, 120)]
    assert [pair[:2] for pair in near_duplicates(facts[2:], facts[:2])] == [(0, 0)]
    (tmp_path / "d.jpg").write_bytes((tmp_path / "c.jpg").read_bytes()[:500])
    assert "truncated JPEG" in look_at(tmp_path / "d.jpg").fault
    assert look_at(None).fault == "no such image"
    with open(tmp_path / "e.jpg", "wb") as stream:
        stream.truncate(MAX_IMAGE_BYTES + 1)  # no byte of it is on the disk
    assert "e.jpg is too large" in look_at(tmp_path / "e.jpg").fault


def test_few_persons_and_what_a_score_on_them_says():
    """By hand: 1.96 x 30 / sqrt(900) = 1.96."""
    assert score_interval(900) == pytest.approx(1.96)
    checked = a_set()
    checked.labels.pictures = checked.labels.pictures[:36]
    assert "known to about ±10 points" in next(
        finding.advice
        for finding in findings(LabelledSet("val", checked.labels, checked.images, checked.facts), (1, 1), True)
        if finding.title == "few persons to validate on"
    )


def test_an_mpii_set_counted_from_0_is_found():
    """In MPII's form 1 is subtracted: what was 0 lies at -1."""
    rng = np.random.default_rng(0)
    pictures = []
    for k in range(20):
        points = {joint: (*rng.uniform(20, 80, 2).tolist(), 2) for joint in MPII.joints}
        points["head_top"] = (50.0, -1.0, 2)
        pictures.append(Picture(f"{k}.png", 100, 100, [Person(points, (0, 0, 100, 100))]))
    facts = [ImageFact((100, 100), bytes([k])) for k in range(20)]
    checked = LabelledSet("train", Labels(MPII, pictures), ImageFolder(None), facts, one_based=True)
    assert "joints counted from 0 where the form counts from 1" in {f.title for f in findings(checked, (1, 1), False)}


def test_swaps_by_hand():
    """Shoulders point right, hips left: exchanging either pair makes them agree; a whole mirror changes nothing."""
    assert exchanges(2).tolist() == [[True, False]]
    assert len(exchanges(6)) == 31 and exchanges(12).sum() == 12
    checked = a_set()
    exchange_eyes(checked.persons[4])
    gains, exchanged = swap_scores(checked.keypoints, checked.scales, checked.skeleton)
    assert gains.argmax() == 4 and gains[4] > 1.5 and np.sort(gains)[-2] < 0.1
    assert exchanged[4].tolist() == [True, False]


@pytest.fixture
def cats_on_disk(tmp_path) -> Path:
    """A clean set in COCO's format, with an experiment."""
    for seed, name in enumerate(("train", "val")):
        checked = a_set(seed, name)
        folder = tmp_path / "data" / "images" / name
        folder.mkdir(parents=True)
        for picture, fact in zip(checked.labels.pictures, checked.facts):
            cv2.imwrite(str(folder / picture.name), cv2.resize(fact.thumb, (WIDTH, HEIGHT)))
        coco.write(checked.labels, tmp_path / "data", name)
    (tmp_path / "cat.yaml").write_text(yaml.safe_dump(FACE))
    dataset = {"DATASET": "coco", "SKELETON": "cat.yaml", "ROOT": "data", "TRAIN_SET": "train", "TEST_SET": "val"}
    experiment = {"DATASET": dataset, "MODEL": {"DEPTH": 18, "IMAGE_SIZE": [64, 64]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(experiment))
    return tmp_path


def test_the_command_and_its_page(cats_on_disk, run_command):
    line = ["data_tools.py", "check", "--cfg", "mine.yaml", "--output", "check.html"]
    clean = run_command(*line, cwd=cats_on_disk)
    assert (clean.returncode, clean.stdout.splitlines()[-1]) == (0, "=> nothing found"), clean.stdout + clean.stderr
    file = cats_on_disk / "data" / "annotations" / "val.json"
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x, y, x + w, y + h]
    content["images"][0]["file_name"] = "<b>&gone.png"
    file.write_text(json.dumps(content))
    images = cats_on_disk / "data" / "images"
    (images / "val" / "val_5.png").write_bytes((images / "train" / "train_8.png").read_bytes())
    found = run_command(*line, cwd=cats_on_disk)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "if read as left, top, right, bottom" in found.stdout
    assert "val_5.png: the same file as train_8.png of train" in found.stdout
    page = (cats_on_disk / "check.html").read_text(encoding="utf-8")
    assert "val: boxes in another form" in page and page.count("data:image/") >= 6
    assert "http" not in page.replace("http-equiv", "") and "<b>&gone" not in page
    again = run_command("data_tools.py", "check", "--cfg", "mine.yaml", "--sets", "test", cwd=cats_on_disk)
    assert again.returncode == 2 and "--sets is train, valid or train,valid" in again.stderr


def test_the_page_of_sets_without_boxes_or_persons(tmp_path):
    without_boxes, empty = a_set(0), a_set(1, "val")
    for cat in without_boxes.persons:
        cat.box = None
    empty = LabelledSet("val", Labels(empty.skeleton, []), empty.images, [])
    write_page(tmp_path / "page.html", "page", [without_boxes, empty], {"train": [], "val": []})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<td>none</td>") == 3  # no boxes; neither boxes nor joints


def test_a_network_finds_the_label_that_was_moved():
    """Its answers are given here; of one cat the nose was moved, of another left and right were exchanged."""
    from simplepose.reports.label_errors import label_errors

    checked = a_set()
    found = checked.keypoints.copy()
    found[..., :2] += np.random.default_rng(0).normal(0, 0.5, found[..., :2].shape)
    found[..., 2] = 1.0
    found[:50, :, 2] = 1.3  # where it is sure
    checked.keypoints[3, 0, :2] += 40
    checked.keypoints[5] = checked.keypoints[5][checked.skeleton.flip_permutation]
    exchanged, moved = label_errors(checked, found)
    assert [example.picture.name for example in exchanged.examples] == ["train_5.png"]
    assert [example.picture.name for example in moved.examples] == ["train_3.png"]
    assert moved.examples[0].text.startswith("nose") and moved.examples[0].answer is not None
