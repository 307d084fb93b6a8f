"""COCO's annotations and detections: the original's arithmetic, and everything that can be wrong with a file."""

from __future__ import annotations

import copy
import json
import logging
import zipfile

import cv2
import numpy as np
import pytest

from simplepose.core.errors import UserError
from simplepose.core.images import read_image
from simplepose.core.skeletons import COCO, Skeleton
from simplepose.data.coco import annotation_file, load_coco, read_coco, sort_detections
from simplepose.data.coco_files import draw_images, keep_category, merge_detections, subset

DOT = Skeleton("dot", joints=("dot",), pairs=(), limbs=(), sigmas=(0.05,))


def annotation(**changes):
    return {
        "id": 1, "image_id": 5, "category_id": 1, "iscrowd": 0, "num_keypoints": 1,
        "bbox": [10, 20, 41, 101], "area": 900, "keypoints": [30, 40, 2], **changes,
    }  # fmt: skip


def image(**changes):
    return {"id": 5, "width": 100, "height": 150, "file_name": "five.jpg", **changes}


def content(*annotations, **changes):
    return {
        "images": [
            {"id": 9, "width": 200, "height": 200, "file_name": "nine.jpg"},
            {"id": 5, "width": 100, "height": 150, "file_name": "five.jpg"},
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": ["dot"]}],
        "annotations": list(annotations),
        **changes,
    }


def write(root, what, image_set="val2017", prefix="person_keypoints_"):
    (root / "annotations").mkdir(exist_ok=True)
    path = root / "annotations" / f"{prefix}{image_set}.json"
    path.write_text(what if isinstance(what, str) else json.dumps(what))
    return path


def load(root, what, **arguments):
    write(root, what)
    return load_coco(root, "val2017", DOT, aspect_ratio=0.75, **arguments)


def test_a_person_by_hand(tmp_path):
    (sample,) = load(tmp_path, content(annotation()))
    # Width and height lose a pixel: 40 x 100. At 3:4 the width becomes 75, then both x 1.25; the centre stays.
    np.testing.assert_allclose(sample.center, [10 + 20, 20 + 50])
    np.testing.assert_allclose(sample.size, [93.75, 125])
    np.testing.assert_allclose(sample.joints, [[30, 40]])  # 0-based already
    assert sample.visible.tolist() == [1]  # 2, "labelled and visible", and 1, "labelled", teach the same
    assert (sample.image_id, sample.category_id, sample.box_score) == (5, 1, 1)
    assert sample.image.endswith("/images/val2017/five.jpg")


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([-10, -20, 41, 101], [0, 0, 40, 100]),  # the corner moves in and the size stays: the original's way
        ([80, 100, 41, 101], [80, 100, 19, 49]),  # to 99 and 149, the last column and row
        ([10, 20, 0.5, 101], [10, 20, 0, 100]),  # a line keeps its height
    ],
)
def test_annotated_boxes_are_clipped_to_the_image(tmp_path, box, clipped):
    (sample,) = load(tmp_path, content(annotation(bbox=box)))
    x, y, width, height = clipped
    np.testing.assert_allclose(sample.center, [x + width / 2, y + height / 2])
    np.testing.assert_allclose(sample.size[1], 1.25 * max(height, width / 0.75))


@pytest.mark.parametrize(
    "changes",
    [
        {"iscrowd": 1},
        {"area": 0},
        {"keypoints": [0, 0, 0]},
        {"category_id": 2},
        {"bbox": [100, 20, 30, 30]},  # beyond the right edge
        {"bbox": [10, 20, 1, 1]},  # no size is left
    ],
)
def test_who_is_left_out(tmp_path, changes):
    assert len(load(tmp_path, content(annotation(id=2), annotation(**changes)))) == 1
    with pytest.raises(UserError, match=r"val2017\.json has no person"):
        load(tmp_path, content(annotation(**changes)))


def test_persons_come_image_by_image(tmp_path):
    people = [annotation(image_id=5, area=1), annotation(image_id=9, area=2), annotation(image_id=5, area=3)]
    assert [sample.image_id for sample in load(tmp_path, content(*people))] == [9, 5, 5]


def test_file_names_and_folders(tmp_path):
    bare = content(annotation())
    for image in bare["images"]:
        del image["file_name"]
    assert load(tmp_path, bare)[0].image.endswith("/images/val2017/000000000005.jpg")
    write(tmp_path, bare, "val2014")
    (old,) = load_coco(tmp_path, "val2014", DOT, 1.0)
    assert old.image.endswith("/images/val2014/COCO_val2014_000000000005.jpg")
    assert load(tmp_path, bare, data_format="zip")[0].image.endswith("/images/val2017.zip@000000000005.jpg")


def test_annotation_files_are_found_by_their_names(tmp_path):
    own = write(tmp_path, "{}", "hands", prefix="")
    info = write(tmp_path, "{}", "test-dev2017", prefix="image_info_")
    assert annotation_file(tmp_path, "hands") == own
    assert annotation_file(tmp_path, "test-dev2017") == info
    assert annotation_file(tmp_path, "none").name == "person_keypoints_none.json"


@pytest.mark.parametrize("folder", ["", "val2017/"])  # the original's zip, and COCO's own as downloaded
def test_images_are_read_from_a_zip(tmp_path, folder):
    picture = np.full((150, 100, 3), 77, np.uint8)
    (tmp_path / "images").mkdir()
    with zipfile.ZipFile(tmp_path / "images" / "val2017.zip", "w") as archive:
        archive.writestr(f"{folder}five.jpg", cv2.imencode(".jpg", picture)[1].tobytes())
    (sample,) = load(tmp_path, content(annotation()), data_format="zip")
    assert read_image(sample.image).shape == (150, 100, 3)


def two_dots(*keypoints):
    return [{"id": 1, "name": "person", "keypoints": list(keypoints)}]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not in COCO's format"),
        ({"images": [{}]}, "image 0 is {}"),
        ({"images": [{"id": 5}, {"id": "five"}]}, "image 1 is {'id': 'five'}"),
        ({"images": [{"id": 10**400}]}, "image 0 is {'id': 1000"),
        (content(annotation(), images=[image(file_name=None)]), "image 0 names the image None"),
        (content(annotation(), images=[image(file_name="../../../x.jpg")]), "image 0 .* outside of .*ROOT"),
        (content(images=[{"id": 5}, {"id": 5}, {"id": 6}]), "2 images have the id 5"),
        (content(categories=[]), "categories must be a list"),
        (content(categories=two_dots("dot", "dash")), "'person' has 2 keypoints and the dot skeleton 1 joints"),
        (content(categories=two_dots("dash")), "'person' has 'dash' where the dot skeleton has 'dot'"),
        (content(categories=[{"id": [1], "name": "person"}]), r"category 0 is {'id': \[1\]"),
        (content(categories=[["person"]]), r"category 0 is \['person'\]"),
        (content(categories=[{"id": 1, "keypoints": 17}]), "category 0 has the keypoints 17"),
        (content(annotations={}), "annotations is a dict, expected a list"),
        (content(), "no person with keypoints; it has no labels at all: use detected boxes"),
        (content(annotation(iscrowd=1)), "no person with keypoints$"),
        (content(annotation(), annotation(keypoints=[1, 2, 2] * 2)), "annotation 1 has 6 keypoint numbers; .* take 3"),
        (content({"category_id": 1, "image_id": 5}), "annotation 0 has no 'keypoints'"),
        (content({}), "annotation 0 has no 'category_id'"),
        (content(annotation(bbox=[1, 2, 3])), "annotation 0: bbox is a list of 3, expected 4"),
        (content(annotation(bbox="abcd")), "annotation 0: bbox is 'abcd'"),
        (content(annotation(category_id=2), annotation(bbox="x")), "annotation 1: bbox is 'x'"),
        (content(annotation(bbox=[1, 2, 1e308, 4])), r"bbox\[2\] is 1e\+308"),
        (content(annotation(bbox=[1, 2, None, 4])), r"bbox\[2\] is None"),
        (content(annotation(area=None)), "annotation 0: area is None"),
        (content(annotation(area=float("inf"))), "annotation 0: area is inf"),
        (content(annotation(area=10**400)), "annotation 0: area is 1000"),
        (content(annotation(keypoints=[float("nan"), 1, 2])), r"annotation 0: keypoints\[0\] is nan"),
        (content(annotation(keypoints=[10**400, 1, 2])), r"annotation 0: keypoints\[0\] is 1000"),
        (content(annotation(keypoints=["30", 1, 2])), r"annotation 0: keypoints\[0\] is '30'"),
        (content(annotation(keypoints=17)), "annotation 0 is {.*no len"),
        (content(annotation(num_keypoints=None)), "num_keypoints is None"),
        (content(annotation(), annotation(iscrowd=None)), "annotation 1: iscrowd is None"),
        (content(annotation(iscrowd="abc")), "annotation 0: iscrowd is 'abc'"),
        (content(annotation(image_id="5")), "annotation 0: image_id .*found .'5'"),
        (content(annotation(category_id=[1])), r"annotation 0: .*category_id .*found \(5, \[1\]\)"),
        (content([1]), r"annotation 0 is \[1\]"),
        (content(annotation(), images=[{"id": 5}]), "image 0 has no 'width'"),
        (content(annotation(), images=[image(width=10**400)]), "image 0: width is 1000"),
        (content(annotation(), images=[image(height="tall")]), "image 0: height is 'tall'"),
    ],
)  # fmt: skip
def test_malformed_annotations_are_named(tmp_path, what, message):
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, what)
    assert "person_keypoints_val2017.json" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_missing_annotations_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no such annotation file: .*person_keypoints_train2017\.json; .*TRAIN_SET"):
        load_coco(tmp_path, "train2017", DOT, 1.0)


def test_annotations_of_unlisted_images_are_counted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "simplepose"):
        assert len(load(tmp_path, content(annotation(), annotation(image_id=6), annotation(image_id=7)))) == 1
    assert "skipped 2 annotations of images that it does not list" in caplog.text


def test_a_file_that_changes_is_read_anew(tmp_path):
    path = write(tmp_path, content(annotation()))
    assert len(read_coco(path, DOT).annotations) == 1
    assert read_coco(path, DOT) is read_coco(path, DOT)
    write(tmp_path, content(annotation(), annotation()))
    assert len(read_coco(path, DOT).annotations) == 2


def test_fields_that_follow_from_others_are_filled_in(tmp_path):
    bare = annotation()
    del bare["iscrowd"], bare["num_keypoints"]
    truth = read_coco(write(tmp_path, content(bare)), DOT)
    assert (truth.annotations[0]["iscrowd"], truth.annotations[0]["num_keypoints"]) == (0, 1)


def test_every_category_with_these_keypoints_counts(tmp_path):
    animals = [{"id": 3, "name": "cat", "keypoints": ["dot"]}, {"id": 4, "name": "dog", "keypoints": ["Dot"]},
               {"id": 5, "name": "pen"}]  # fmt: skip
    people = [annotation(category_id=k) for k in (3, 4, 5)]
    assert [s.category_id for s in load(tmp_path, content(*people, categories=animals))] == [3, 4]


# ---- Detections ----------------------------------------------------------------------------------------


def detection(**changes):
    return {"image_id": 5, "category_id": 1, "bbox": [80, 100, 40, 100], "score": 0.5, **changes}


def load_detections(root, entries, **arguments):
    path = root / "detections.json"
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return load(root, content(), bbox_file=path, **arguments)


def test_detected_boxes_are_not_clipped(tmp_path):
    (sample,) = load_detections(tmp_path, [detection()])
    np.testing.assert_allclose(sample.center, [100, 150])
    np.testing.assert_allclose(sample.size, [93.75, 125])
    assert sample.box_score == 0.5
    assert not sample.visible.any()


def test_the_score_threshold_keeps_its_equals(tmp_path):
    entries = [detection(score=score) for score in (0.1, 0.3, 0.5)]
    assert [s.box_score for s in load_detections(tmp_path, entries, score_threshold=0.3)] == [0.3, 0.5]


def test_unusable_detections_are_counted_by_kind(tmp_path, caplog):
    entries = [
        detection(),
        detection(category_id=3), detection(category_id=2),
        detection(image_id=6), detection(image_id=6), detection(image_id="5"),
        *(detection(bbox=box) for box in ([1, 2, 0, 5], [1, 2, 5, -1], [0, 0, 0, 0], [1, 1, -1, -1])),
        detection(score=float("nan")),
        detection(bbox=[1, 2, 3]), {"image_id": 5}, "box", detection(bbox=None), detection(score="high"),
        detection(bbox=[float("nan"), 0, 5, 5]), detection(bbox=[10**400, 0, 5, 5]), detection(bbox=[0, 0, 1e308, 5]),
        detection(score=10**400), detection(image_id=[5]),
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING, "simplepose"):
        assert len(load_detections(tmp_path, entries)) == 1
    assert (
        "skipped 10 malformed, 4 with a box of no size, 3 for an image that the annotation file does not list, "
        "2 of another category, 1 with a score that is not a number, of 21 entries; entry 3 is {'bbox': "
    ) in caplog.text


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("{", "not valid JSON"),
        ({}, "holds a dict, expected COCO.s results form"),
        ([], "is an empty list"),
        ([detection(image_id=6)], "no usable detection"),
    ],
)
def test_detection_files_of_no_use_are_refused(tmp_path, entries, message):
    with pytest.raises(UserError, match=message):
        load_detections(tmp_path, entries)
    with pytest.raises(UserError, match=r"no such JSON file: .*none\.json"):
        load(tmp_path, content(), bbox_file=tmp_path / "none.json")


def test_a_test_set_is_a_list_of_images(tmp_path):
    info = content(categories=[{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}])
    del info["annotations"]
    write(tmp_path, info, "test-dev2017", prefix="image_info_")
    path = tmp_path / "detections.json"
    path.write_text(json.dumps([detection(), detection(category_id=2)]))
    (sample,) = load_coco(tmp_path, "test-dev2017", DOT, 0.75, bbox_file=path)
    assert sample.image.endswith("/images/test2017/five.jpg")


# ---- File tools ----------------------------------------------------------------------------------------


def test_a_subset_is_consistent():
    whole = content(annotation(), annotation(image_id=9, id=2), info={"year": 2017})
    before = copy.deepcopy(whole)
    part = subset(whole, [9])
    assert [image["id"] for image in part["images"]] == [9]
    assert [entry["id"] for entry in part["annotations"]] == [2]
    assert part["info"] == {"year": 2017}
    assert whole == before
    with pytest.raises(UserError, match="1 of the 2 images are not in the file, such as id 8"):
        subset(whole, [9, 8])


def test_images_are_drawn_by_seed():
    whole = {"images": [{"id": k} for k in range(50)]}
    assert draw_images(whole, 5, 1) == draw_images(whole, 5, 1) != draw_images(whole, 5, 2)
    assert len(set(draw_images(whole, 50))) == 50
    with pytest.raises(UserError, match="cannot draw 51 images of 50"):
        draw_images(whole, 51)


def test_strip_to_persons():
    both = [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}]
    whole = content(annotation(segmentation=[[1, 2]]), annotation(image_id=9, category_id=2), categories=both)
    part = keep_category(whole)
    assert [image["id"] for image in part["images"]] == [5]
    assert part["annotations"] == [annotation()]
    assert part["categories"] == both[:1]
    with pytest.raises(UserError, match="no category 'cat'; the file has person, bicycle"):
        keep_category(whole, "cat")


def test_detections_without_an_image_are_malformed_whatever_the_images():
    entries = [detection(), {"category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.5}, detection(image_id=[1])]
    kept, faults = sort_detections(entries, None, {1})
    assert kept == entries[:1] and list(faults.values()) == [[1, 2]]


def test_merging_keeps_a_box_once():
    first, second = [detection(), detection(image_id=9)], [detection(score=0.1), detection(bbox=[0, 0, 1, 1])]
    merged, repeated = merge_detections([first, second])
    assert repeated == 1
    assert merged == [*first, second[1]]


def test_the_coco_skeleton_is_cocos(real_data):
    truth = read_coco(real_data / "coco/annotations/person_keypoints_val2017.json", COCO)
    assert tuple(truth.categories[0]["keypoints"]) == COCO.joints
