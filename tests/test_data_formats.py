"""Labels of each tool, in the form that it exports, become the same persons; and back again nothing is lost."""

from __future__ import annotations

import json
import zlib
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from simplepose.commands.data_tools import FORMATS
from simplepose.core.errors import UserError
from simplepose.core.skeletons import COCO, MPII, load_skeleton
from simplepose.data.formats.base import ImageFolder, Labels, Person, Picture, put_images, safe_name, written_folder
from simplepose.data.joint_names import mirror_pairs, plain_name, side_and_rest, skeleton_of

FACE = skeleton_of("cat", ["nose", "left_eye", "right_eye", "left_ear", "right_ear"], limbs=[["nose", "left_eye"]])

# One cat on an image of 200 x 100: box (20, 10, 100, 50), nose (70, 40), left eye (80, 30) hidden, right eye (60, 30).
EXPORTS = {
    "labelstudio": (
        "export.json",
        """[{"id": 1, "annotations": [
  {"id": 1, "completed_by": 1, "was_cancelled": false, "ground_truth": false, "result": [
    {"original_width": 200, "original_height": 100, "image_rotation": 0, "id": "b1", "from_name": "label",
     "to_name": "image", "type": "rectanglelabels", "origin": "manual",
     "value": {"x": 10, "y": 10, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}},
    {"original_width": 200, "original_height": 100, "image_rotation": 0, "id": "k1", "from_name": "kp",
     "to_name": "image", "type": "keypointlabels", "origin": "manual", "parentID": "b1",
     "value": {"x": 35, "y": 40, "width": 0.5, "keypointlabels": ["nose"]}},
    {"original_width": 200, "original_height": 100, "image_rotation": 0, "id": "k2", "from_name": "kp",
     "to_name": "image", "type": "keypointlabels", "origin": "manual",
     "value": {"x": 40, "y": 30, "width": 0.5, "keypointlabels": ["left_eye"]}},
    {"original_width": 200, "original_height": 100, "image_rotation": 0, "id": "k2", "from_name": "seen",
     "to_name": "image", "type": "choices", "value": {"choices": ["Occluded"]}},
    {"original_width": 200, "original_height": 100, "image_rotation": 0, "id": "k3", "from_name": "kp",
     "to_name": "image", "type": "keypointlabels", "origin": "manual",
     "value": {"x": 30, "y": 30, "width": 0.5, "keypointlabels": ["right_eye"]}},
    {"from_id": "k3", "to_id": "b1", "type": "relation", "direction": "right"}],
   "created_at": "2024-01-01T00:00:00Z", "lead_time": 9.1}],
  "file_upload": "0a1b2c3d-cat.png", "drafts": [], "predictions": [],
  "data": {"image": "/data/upload/1/0a1b2c3d-cat.png"}, "meta": {}, "project": 1}]""",
    ),
    "cvat": (
        "annotations.xml",
        """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
  <meta><task><id>1</id><labels>
    <label><name>cat</name><color>#fff</color><type>skeleton</type><attributes></attributes>
      <svg>&lt;line x1="1" y1="1" x2="2" y2="2" data-type="edge" data-node-from="1" data-node-to="2"&gt;&lt;/line&gt;
        &lt;circle r="1" cx="1" cy="1" data-type="element node" data-element-id="1" data-node-id="1"
          data-label-name="nose"&gt;&lt;/circle&gt;&lt;circle r="1" cx="2" cy="2" data-type="element node"
          data-element-id="2" data-node-id="2" data-label-name="left_eye"&gt;&lt;/circle&gt;</svg></label>
    <label><name>nose</name><type>points</type><attributes></attributes><parent>cat</parent></label>
    <label><name>left_eye</name><type>points</type><attributes></attributes><parent>cat</parent></label>
    <label><name>right_eye</name><type>points</type><attributes></attributes><parent>cat</parent></label>
  </labels></task></meta>
  <image id="0" name="cat.png" width="200" height="100">
    <skeleton label="cat" source="manual" z_order="0">
      <points label="nose" source="manual" outside="0" occluded="0" points="70.00,40.00"></points>
      <points label="left_eye" source="manual" outside="0" occluded="1" points="80.00,30.00"></points>
      <points label="right_eye" source="manual" outside="0" occluded="0" points="60.00,30.00"></points>
    </skeleton>
    <box label="cat" source="manual" occluded="0" xtl="20.00" ytl="10.00" xbr="120.00" ybr="60.00" z_order="0"></box>
  </image>
</annotations>""",
    ),
    "labelme": (
        "cat.json",
        """{"version": "5.4.1", "flags": {}, "shapes": [
  {"label": "cat", "points": [[120.0, 60.0], [20.0, 10.0]], "group_id": 7, "description": "",
   "shape_type": "rectangle", "flags": {}, "mask": null},
  {"label": "nose", "points": [[70.0, 40.0]], "group_id": 7, "description": "", "shape_type": "point", "flags": {}},
  {"label": "left_eye", "points": [[80.0, 30.0]], "group_id": 7, "shape_type": "point", "flags": {"occluded": true}},
  {"label": "right_eye", "points": [[60.0, 30.0]], "group_id": 7, "shape_type": "point", "flags": {"occluded": false}}],
 "imagePath": "..\\\\photos\\\\cat.png", "imageData": null, "imageHeight": 100, "imageWidth": 200}""",
    ),
    "yolo-pose": (
        "data.yaml",
        """path: /home/somebody/cats
train: images/train
val: images/val
kpt_shape: [3, 3]
flip_idx: [0, 2, 1]
names: {0: cat}
kpt_names: {0: [nose, left_eye, right_eye]}
""",
    ),
    "csv": (
        "cats.csv",
        "\ufeffimage;category;x;y;w;h;nose_x;nose_y;nose_v;left_eye_x;left_eye_y;left_eye_v;right_eye_x;right_eye_y\n"
        "cat.png;cat;20;10;100;50;70;40;2;80;30;1;60;30\n",
    ),
    "coco": (
        "cats.json",
        """{"images": [{"id": 5, "file_name": "cat.png", "width": 200, "height": 100}],
 "annotations": [{"id": 1, "image_id": 5, "category_id": 3, "bbox": [20, 10, 100, 50], "area": 5000, "iscrowd": 0,
   "keypoints": [70, 40, 2, 80, 30, 1, 60, 30, 2], "num_keypoints": 3}],
 "categories": [{"id": 3, "name": "cat", "keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2]]}]}""",
    ),
}


def reader(form: str):
    return import_module(f"simplepose.data.formats.{FORMATS[form]}")


def a_picture(path: Path, width: int = 200, height: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = zlib.crc32(path.name.encode()) % 256
    cv2.imwrite(str(path), np.full((height, width, 3), shade, np.uint8))


@pytest.mark.parametrize("form", EXPORTS)
def test_an_export_of_each_tool_is_the_same_cat(form, tmp_path):
    name, text = EXPORTS[form]
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    a_picture(tmp_path / "images" / "train" / "cat.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "cat.txt").write_text("0 0.35 0.35 0.5 0.5 0.35 0.4 2 0.4 0.3 1 0.3 0.3 2\n")
    labels = reader(form).read(path, ImageFolder(tmp_path))
    assert labels.skeleton.joints == ("nose", "left_eye", "right_eye")
    assert labels.skeleton.pairs == (("left_eye", "right_eye"),)
    (picture,) = labels.pictures
    (cat,) = picture.persons
    assert (Path(picture.name).name.removeprefix("0a1b2c3d-"), picture.width, picture.height) == ("cat.png", 200, 100)
    assert cat.category == "cat"
    np.testing.assert_allclose(cat.box, (20, 10, 100, 50), atol=1e-9)
    points = {joint: np.round(point, 9).tolist() for joint, point in cat.points.items()}
    assert points == {"nose": [70, 40, 2], "left_eye": [80, 30, 1], "right_eye": [60, 30, 2]}
    assert not +labels.left_out
    assert ImageFolder(tmp_path).find(picture.name) == tmp_path / "images" / "train" / "cat.png"


def some_cats(seed: int = 0) -> Labels:
    """Pictures with no, one and two cats, joints missing and hidden, boxes near and far from each other."""
    rng = np.random.default_rng(seed)
    pictures = []
    for k in range(6):
        cats = []
        for place in range(k % 3):
            corner, size = rng.uniform(0, 40, 2) + (90 * place, 0), rng.uniform(30, 45, 2)
            points = {}
            for joint in FACE.joints:
                x, y = (corner + rng.uniform(0.1, 0.9, 2) * size).round(3).tolist()
                if rng.random() < 0.8:
                    points[joint] = (x, y, int(rng.integers(1, 3)))
            box = (*corner.round(3).tolist(), *size.round(3).tolist())
            cats.append(Person(points, box, "cat", round(float(rng.uniform(100, 900)), 2), row=len(cats)))
        pictures.append(Picture(f"cat_{k}.png", 200, 100, cats))
    return Labels(FACE, pictures)


def assert_same(found: Labels, expected: Labels, with_hidden: bool = True) -> None:
    theirs = {picture.name: picture for picture in found.pictures if picture.persons}
    ours = {picture.name: picture for picture in expected.pictures if picture.persons}
    assert theirs.keys() == ours.keys()
    for name, picture in ours.items():
        assert (theirs[name].width, theirs[name].height) == (picture.width, picture.height)
        assert len(theirs[name].persons) == len(picture.persons)
        for one, other in zip(theirs[name].persons, picture.persons):
            assert one.category == other.category
            np.testing.assert_allclose(one.box, other.box, atol=1e-4)
            assert one.points.keys() == other.points.keys()
            for joint, point in other.points.items():
                np.testing.assert_allclose(one.points[joint], point, atol=1e-4)


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "mpii"])
def test_there_and_back_nothing_is_lost(form, tmp_path):
    cats = some_cats()
    for picture in cats.pictures:
        a_picture(tmp_path / "photos" / picture.name)
    module, output = reader(form), tmp_path / "out"
    with written_folder(output) as folder:
        if module.IMAGES is not None:
            put_images(cats, ImageFolder(tmp_path / "photos"), folder / module.IMAGES.format(set="train"))
        assert module.write(cats, folder, "train") == 6
    files = {
        "yolo-pose": "data.yaml", "coco": "annotations/train.json", "cvat": "annotations.xml", "labelme": "",
        "csv": "train.csv", "labelstudio": "train.json",
    }  # fmt: skip
    again = reader(form).read(output / files[form], ImageFolder(tmp_path / "photos"))
    assert set(again.skeleton.joints) == set(FACE.joints) and set(again.skeleton.pairs) == set(FACE.pairs)
    assert_same(again, some_cats())
    if form == "coco":
        assert [cat.area for cat in again.persons] == [cat.area for cat in some_cats().persons]


def test_coco_to_mpii_and_back_keeps_what_both_hold(tmp_path):
    """By hand: the box (20, 10, 100, 50) is the square (20, -15, 100, 100) of scale 0.5; its centre sits 7.5 higher."""
    points = {joint: (30.0 + k, 20.0 + k, 2) for k, joint in enumerate(COCO.joints)}
    labels = Labels(COCO, [Picture("a.png", 200, 100, [Person(points, (20, 10, 100, 50))])])
    a_picture(tmp_path / "images" / "a.png")
    mpii = reader("mpii")
    assert mpii.write(labels, tmp_path, "train") == 1
    (entry,) = json.loads((tmp_path / "annot" / "train.json").read_text())
    assert entry["center"] == [71, 28.5] and entry["scale"] == 0.5
    assert entry["joints"][MPII.joints.index("left_wrist")] == [40, 30]  # 1-based
    assert sum(entry["joints_vis"]) == 12
    assert entry["joints"][MPII.joints.index("head_top")] == [-1, -1]
    again = mpii.read(tmp_path / "annot" / "train.json", ImageFolder(tmp_path / "images"))
    (person,) = again.persons
    assert person.box == (20, -15, 100, 100)
    assert person.points == {joint: point for joint, point in points.items() if joint in MPII.joints}
    assert (again.pictures[0].width, again.pictures[0].height) == (200, 100)


def test_mpii_to_coco_and_back_is_the_same_file(tmp_path, bundled):
    labels = reader("mpii").read(bundled / "annot" / "valid.json", ImageFolder(bundled / "images"))
    reader("coco").write(labels, tmp_path, "valid")
    again = reader("coco").read(tmp_path / "annotations" / "valid.json", ImageFolder(bundled / "images"))
    reader("mpii").write(again, tmp_path, "valid")
    first, second = (json.loads((f / "annot" / "valid.json").read_text()) for f in (bundled, tmp_path))
    assert len(first) == len(second) == 8
    for one, other in zip(first, second):
        assert one["image"] == other["image"] and one["joints_vis"] == other["joints_vis"]
        for key in ("center", "scale", "joints"):
            np.testing.assert_allclose(one[key], other[key], atol=1e-4)


def test_the_left_one_of_a_yolo_pair_comes_first(tmp_path):
    """MPII has the right ankle, joint 0, before the left one, joint 5. And any set is in data.yaml, not train and val
    alone."""
    a_picture(tmp_path / "images" / "test" / "a.png")
    person = Person({joint: (30.0 + k, 20.0, 2) for k, joint in enumerate(MPII.joints)}, (20, 10, 100, 50))
    reader("yolo-pose").write(Labels(MPII, [Picture("a.png", 200, 100, [person])]), tmp_path, "test")
    again = reader("yolo-pose").read(tmp_path / "data.yaml", ImageFolder(None), image_set="test")
    assert again.skeleton.pairs == MPII.pairs


def test_yolo_sets_may_use_one_name_twice(tmp_path):
    """train and val both have a.png; which one is meant is known from where it was found."""
    for image_set in ("train", "val"):
        a_picture(tmp_path / "images" / image_set / "a.png")
    person = Person({"nose": (70.0, 40.0, 2)}, (20, 10, 100, 50))
    reader("yolo-pose").write(Labels(FACE, [Picture("a.png", 200, 100, [person])]), tmp_path, "train")
    images = ImageFolder(tmp_path)
    labels = reader("yolo-pose").read(tmp_path / "data.yaml", images)
    put_images(labels, images, tmp_path / "out")
    assert images.find("a.png") == tmp_path / "images" / "train" / "a.png"
    assert labels.pictures[0].persons[0].points["nose"] == pytest.approx((70, 40, 2))


@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_photographs_that_exif_turns_are_refused_where_labels_mean_them_upright(orientation, tmp_path):
    (tmp_path / "images" / "train").mkdir(parents=True)
    path = tmp_path / "images" / "train" / "a.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + b"\0" * 7
    segment = b"Exif\0\0" + tiff
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:])
    reader("yolo-pose").write(Labels(FACE, [Picture("a.jpg", 64, 64)]), tmp_path, "train")
    with pytest.raises(UserError, match=r"a\.jpg is turned by EXIF"):
        reader("yolo-pose").read(tmp_path / "data.yaml", ImageFolder(tmp_path))
    (tmp_path / "poses.csv").write_text("image,nose_x,nose_y,nose_score\na.jpg,1,2,0.9\n")
    with pytest.raises(UserError, match=r"a\.jpg is turned by EXIF"):
        reader("csv").read(tmp_path / "poses.csv", ImageFolder(tmp_path))
    (tmp_path / "labels.csv").write_text("image,nose_x,nose_y\na.jpg,1,2\n")  # not of infer.py: as stored
    assert reader("csv").read(tmp_path / "labels.csv", ImageFolder(tmp_path)).pictures[0].width == 64


def test_limbs_of_a_cvat_drawing_whatever_the_names(tmp_path):
    skeleton = skeleton_of("x", ['a & "b"', "c"], limbs=[['a & "b"', "c"]])
    picture = Picture("a.png", 9, 9, [Person({'a & "b"': (1.0, 2.0, 2), "c": (3.0, 4.0, 2)})])
    reader("cvat").write(Labels(skeleton, [picture]), tmp_path, "train")
    again = reader("cvat").read(tmp_path / "annotations.xml", ImageFolder(None)).skeleton
    assert again.limbs == (('a & "b"', "c"),)


def test_a_damaged_picture_does_not_end_the_reading(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.csv").write_text("image,nose_x,nose_y\na.png,1,2\n")
    assert reader("csv").read(tmp_path / "a.csv", ImageFolder(tmp_path)).pictures[0].width == 0


def test_a_part_of_a_coco_file_without_file_names(tmp_path):
    path = tmp_path / "all.json"
    annotations = [{"image_id": 7, "category_id": 1, "keypoints": [1, 1, 2]}]
    categories = [{"id": 1, "name": "cat", "keypoints": ["nose"]}]
    content = {"images": [{"id": 5}, {"id": 7}], "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    name = reader("coco").read(path, ImageFolder(None)).pictures[1].name
    assert name == "000000000007.jpg"
    assert reader("coco").part_of(path, {name}, path) == {**content, "images": [{"id": 7}]}


@pytest.mark.parametrize("form", ["labelme", "yolo-pose"])
def test_no_image_takes_another_one_s_label_file(form, tmp_path):
    pictures = [Picture(name, 200, 100) for name in ("b/a.png", "a.png", "b/a.jpg")]
    with pytest.raises(UserError, match="'b/a.jpg' and another image would both have their labels in a"):
        reader(form).write(Labels(FACE, pictures), tmp_path, "train")


def test_what_is_left_out_is_counted(tmp_path):
    shapes = [{"label": "tail", "points": [[0, 0], [1, 1]], "shape_type": "line", "group_id": None}]
    shapes += [
        {"label": label, "points": [[x, x]], "shape_type": "point", "group_id": None}
        for label, x in (("nose", 1), ("nose", 2), ("left_eye", 3))
    ]
    content = {"shapes": shapes, "imagePath": "a.png", "imageHeight": 9, "imageWidth": 9}
    (tmp_path / "a.json").write_text(json.dumps(content))
    labels = reader("labelme").read(tmp_path, ImageFolder(None))
    assert labels.persons[0].points == {"nose": (1, 1, 2), "left_eye": (3, 3, 2)}
    assert dict(labels.left_out) == {
        "shapes of the kind 'line'": 1, "points of a joint that the person has already": 1,
    }  # fmt: skip
    given = reader("labelme").read(tmp_path, ImageFolder(None), skeleton_of("cat", ["Left-Eye"]))
    assert given.persons[0].points == {"Left-Eye": (3, 3, 2)}
    assert given.left_out["points of the joint 'nose', which the skeleton does not have"] == 1


def test_one_annotator_s_labels_are_read(tmp_path):
    tasks = json.loads(EXPORTS["labelstudio"][1])
    other = json.loads(EXPORTS["labelstudio"][1])[0]["annotations"][0]
    other["completed_by"] = {"id": 2, "email": "b@c.de"}
    other["result"][1]["value"]["x"] = 36
    tasks[0]["annotations"].append(other)
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    for annotator, x in ((None, 72), ("1", 70), ("b@c.de", 72)):
        labels = reader("labelstudio").read(path, ImageFolder(None), annotator=annotator)
        assert labels.persons[0].points["nose"][0] == x
    assert labels.left_out["further annotations of an image"] == 1


@pytest.mark.parametrize(
    ("name", "side", "rest"),
    [
        ("left_eye", "left", "eye"), ("Left Eye", "left", "eye"), ("leftEye", "left", "eye"),
        ("L.Eye", "left", "eye"), ("LEye", "left", "eye"), ("eyeR", "right", "eye"), ("eye_r", "right", "eye"),
        ("R_F_Paw", "right", "f paw"), ("RIGHT-WRIST", "right", "wrist"), ("righteye", "right", "eye"),
        ("左眼", "left", "眼"), ("右_手腕", "right", "手腕"), ("nose", "", "nose"), ("Lip", "", "lip"),
        ("elbow", "", "elbow"), ("left_right", "", "left right"),
    ],
)  # fmt: skip
def test_sides_are_read_off_names(name, side, rest):
    assert side_and_rest(name) == (side, rest)


def test_pairs_are_inferred_from_names():
    assert mirror_pairs(["鼻", "右眼", "左眼"]) == [("左眼", "右眼")]
    assert mirror_pairs(["rwri", "lwri", "head", "lip"]) == [("lwri", "rwri")]
    assert mirror_pairs(["left_eye", "nose"]) == []
    assert mirror_pairs(COCO.joints) == list(COCO.pairs)
    assert set(mirror_pairs(MPII.joints)) == set(MPII.pairs)
    assert plain_name("L Wrist") == "left_wrist"
    assert skeleton_of("x", ["nose", "L_Wrist"]).sigmas == (0.026, 0.062)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a/b.jpg", "a/b.jpg"), ("../../etc/x.jpg", "x.jpg"), ("/abs/x.jpg", "x.jpg"), ("C:\\photos\\x.jpg", "x.jpg"),
        ("/data/upload/3/1234abcd-x.jpg", "1234abcd-x.jpg"), ("/data/local-files/?d=photos%2Fx.jpg", "photos/x.jpg"),
        ("https://host/y/x%20y.jpg?token=1", "x y.jpg"), ("/data/local-files/?d=../x.jpg", "x.jpg"),
        ("//etc/x.jpg", "x.jpg"), ("\\\\nas\\photos\\x.jpg", "x.jpg"),
    ],
)  # fmt: skip
def test_names_stay_inside(name, safe):
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ["", "/", "//", "a/..", "a\n.jpg", "http://[a/b.jpg"])
def test_what_is_no_name_of_an_image(name):
    with pytest.raises(UserError, match="is not the name of an image"):
        safe_name(name)


FAULTS = [
    ("labelstudio", "{}", "is not Label Studio's JSON export"),
    ("labelstudio", '[{"image": "a.jpg", "kp": []}]', "looks like JSON-MIN"),
    ("labelstudio", '[{"data": {"image": "a"}, "annotations": [{"result": [{"type": "keypointlabels"}]}]}]', "task 0"),
    ("cvat", "PK\x03\x04", "unpack the zip first"),
    ("cvat", '<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "is not CVAT's annotations.xml"),
    ("cvat", "<annotations><image></annotations>", "is not as CVAT for images 1.1 writes it"),
    ("cvat", '<annotations><track id="0"></track></annotations>', "export the task again as CVAT for images"),
    ("labelme", '{"shapes": 3, "imagePath": "a.png"}', "is not as labelme writes it"),
    ("yolo-pose", "{kpt_shape: [1, 3], names: cat, train: x}", "is not a data.yaml of YOLO-pose"),
    ("labelstudio", '[{"data": {"image": "a"}, "annotations": [{"result": [{"type": "keypointlabels", "original_width":'
     '9, "original_height": 9, "value": {"x": 1, "y": 1, "keypointlabels": []}}]}]}]', "task 0"),
    ("cvat", "<!--" + " " * 9999 + "--><!DOCTYPE a><annotations/>", "is not CVAT's annotations.xml"),
    ("yolo-pose", "names: [cat]", "is not a data.yaml of YOLO-pose"),
    ("csv", "image,x,y\na.png,1,2", "needs the columns image and"),
    ("csv", "image,nose_x,nose_y\na.png,one,2", "line 2: 'one' is not a number of pixels"),
    ("csv", 'image,nose_x,nose_y\n"a.png,1,2\n' + "b.png,1,2\n" * 20_000, "line 13109: field larger than"),
    ("coco", '{"images": [], "categories": [{"id": 1}]}', "no category names its keypoints"),
    ("coco", '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "category_id": 1, '
     '"keypoints": [1, 2]}], "categories": [{"id": 1, "keypoints": ["nose"]}]}', "2 keypoint numbers"),
    ("coco", '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "category_id": 1, "area": '
     'NaN}], "categories": [{"id": 1, "keypoints": ["nose"]}]}', "annotation 0: nan is not a number of pixels"),
    ("coco", '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": [], "categories": '
     '[{"id": 1, "keypoints": ["nose"]}]}', "image 1 has the id 1 of an earlier one"),
    ("coco", '{"images": [], "annotations": 5}', "is not in COCO's format"),
    ("coco", '{"images": [{"id": 1, "file_name": "a", "width": 1e400}], "categories": [{"id": 1, "keypoints": '
     '["nose"]}]}', "inf is not a number of pixels"),
    ("cvat", '<?xml version="1.0" encoding="foo"?><annotations/>', "is not as CVAT for images 1.1 writes it"),
    ("mpii", '[{"image": "a.png", "center": [1], "scale": 1}]', "entry 0 is"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "message"), FAULTS)
def test_what_is_no_export_is_refused_in_one_line(form, text, message, tmp_path):
    path = tmp_path / "x"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        reader(form).read(path, ImageFolder(None))
    assert "\n" not in str(caught.value)


def test_output_is_whole_or_not_there(tmp_path):
    with pytest.raises(ZeroDivisionError), written_folder(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("half")
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
    for text in ("one", "one"):  # the same again is no conflict
        with written_folder(tmp_path / "out") as folder:
            (folder / "a.txt").write_text(text)
    with pytest.raises(UserError, match="a.txt is there already"), written_folder(tmp_path / "out") as folder:
        (folder / "b.txt").write_text("b")
        (folder / "a.txt").write_text("two")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]
    assert (tmp_path / "out" / "a.txt").read_text() == "one"


def test_the_command_converts_trains_skeleton_and_says_what_it_inferred(tmp_path, run_command):
    name, text = EXPORTS["labelstudio"]
    (tmp_path / name).write_text(text)
    a_picture(tmp_path / "photos" / "cat.png")
    before = (tmp_path / "photos" / "cat.png").read_bytes()
    line = ["data_tools.py", "convert", "--from", "labelstudio", name, "--images", "photos", "--to", "coco"]
    finished = run_command(*line, "--output", "data/cats", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "left and right, which a mirror exchanges: left_eye - right_eye" in finished.stdout
    assert finished.stdout.endswith("=> data/cats: 1 images, 1 persons or objects\n")
    assert load_skeleton(tmp_path / "data" / "cats" / "cat.yaml").pairs == (("left_eye", "right_eye"),)
    content = json.loads((tmp_path / "data/cats/annotations/train.json").read_text())
    assert content["annotations"][0]["keypoints"] == [70, 40, 2, 80, 30, 1, 60, 30, 2]
    image = tmp_path / "data/cats/images/train" / content["images"][0]["file_name"]
    assert image.read_bytes() == before == (tmp_path / "photos" / "cat.png").read_bytes()
    refused = run_command(*line, "--output", "data/x", "--predictions", "model", cwd=tmp_path)
    assert refused.returncode == 2 and "--predictions goes with --to labelstudio" in refused.stderr
    assert not (tmp_path / "data" / "x").exists()
    line[line.index("coco")] = "labelstudio"
    finished = run_command(*line, "--output", "data/tasks", "--predictions", "best", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    (task,) = json.loads((tmp_path / "data/tasks/train.json").read_text())
    assert task["predictions"][0]["model_version"] == "best" and "annotations" not in task


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "mpii"])
def test_real_photographs_go_there_and_back(form, real_data, tmp_path):
    """COCO's val images here: 118 persons, one of them a crowd, which neither YOLO, labelme, CVAT nor a table know."""
    path, photos = real_data / "coco/annotations/person_keypoints_val2017.json", ImageFolder(real_data / "coco/images")
    expected = reader("coco").read(path, photos)
    expected.drop_crowds()
    module = reader(form)
    labels = Labels(expected.skeleton, expected.pictures)
    if form == "yolo-pose":
        put_images(labels, photos, tmp_path / "images/train")
    module.write(labels, tmp_path, "train")
    names = ("data.yaml", "annotations.xml", "train.json", "train.csv")
    file = next((path for path in tmp_path.rglob("*") if path.name in names), tmp_path)
    again = module.read(file, photos)
    assert sum(len(picture.persons) for picture in again.pictures) == 117
    assert_same(again, expected)
