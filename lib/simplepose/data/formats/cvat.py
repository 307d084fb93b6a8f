"""CVAT's "CVAT for images 1.1": skeletons, or loose points, and boxes, in one XML file, read element by element.

A skeleton and a box of one group are one person, else a skeleton takes the smallest box around its points.
"""

from __future__ import annotations

import mmap
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np

from simplepose.core.errors import UserError, shown
from simplepose.core.files import DATA_BYTES, require_regular
from simplepose.core.skeletons import Skeleton
from simplepose.data.formats.base import (
    HIDDEN,
    VISIBLE,
    ImageFolder,
    Labels,
    Person,
    Picture,
    assign_points,
    finish,
    number,
    plain,
    safe_name,
)  # fmt: skip

IMAGES = "images"


def read(path: Path, images: ImageFolder, skeleton: Skeleton | None = None) -> Labels:
    """Read annotations.xml."""
    require_regular(path, "CVAT", DATA_BYTES)
    with open(path, "rb") as stream:
        head = stream.read(64)
        is_text = head.lstrip(b"\xef\xbb\xbf \r\n").startswith(b"<") and b"\0" not in head
        if is_text:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                is_text = content.find(b"<!DOCTYPE") < 0  # CVAT writes none, and entities can grow without bounds
    if not is_text:
        hint = "; unpack the zip first" if head[:2] == b"PK" else ""
        raise UserError(f"{path} is not CVAT's annotations.xml{hint}")
    left_out: Counter = Counter()
    pictures: list[Picture] = []
    joints: list[str] = []
    limbs: list[list[str]] = []
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == "label" and element.findtext("parent"):
                joints.append(element.findtext("name") or "")
            elif element.tag == "svg":
                limbs += _limbs(element.text or "")
            elif element.tag == "track":
                raise UserError(f"{path} is of a video; export the task again as CVAT for images 1.1")
            elif element.tag == "image":
                pictures.append(_picture(element, f"{path}: image {len(pictures)}", left_out))
                element.clear()
    except (ElementTree.ParseError, LookupError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not as CVAT for images 1.1 writes it: {error}") from None
    for row, person in enumerate(person for picture in pictures for person in picture.persons):
        person.row = row
    named = [limb for limb in limbs if set(limb) <= set(joints)]
    return finish(pictures, left_out, skeleton, str(path), list(dict.fromkeys(joints)), named)


def _limbs(svg: str) -> list[list[str]]:
    """Edges of a skeleton's drawing, by name where it states them."""
    try:
        drawing = ElementTree.fromstring(f"<svg>{svg}</svg>")
    except ElementTree.ParseError:
        return []
    nodes = {node.get("data-node-id"): node.get("data-label-name") for node in drawing.iter("circle")}
    edges = [[nodes.get(line.get(f"data-node-{end}")) for end in ("from", "to")] for line in drawing.iter("line")]
    return [edge for edge in edges if None not in edge]


def _picture(element: Any, where: str, left_out: Counter) -> Picture:
    size = int(element.attrib["width"]), int(element.attrib["height"])
    boxes, loose, persons = [], [], []
    for shape in element:
        group = shape.attrib.get("group_id") or None
        if shape.tag == "box":
            x0, y0, x1, y1 = (number(shape.attrib[key], where) for key in ("xtl", "ytl", "xbr", "ybr"))
            label = shape.attrib["label"]
            boxes.append((label, group, Person({}, (x0, y0, x1 - x0, y1 - y0), label)))
        elif shape.tag == "skeleton":
            person = Person({}, category=shape.attrib["label"])
            for joint in shape.iter("points"):
                if joint.attrib.get("outside", "0") != "1":
                    person.points[joint.attrib["label"]] = _points(joint, where)[0]
            persons.append((group, person))
        elif shape.tag == "points":
            found = _points(shape, where)
            loose.append((shape.attrib["label"], group, found[0]))
            left_out["points beyond the first of a shape"] += len(found) - 1
        else:
            left_out[f"shapes of the kind {shown(shape.tag)}"] += 1
    _give_boxes(persons, boxes)
    free = [entry for entry in boxes if entry[2].box]
    people = [person for _, person in persons] + (assign_points(free, loose, left_out) if loose else [])
    left_out["boxes without joints"] += 0 if loose else len(free)
    return Picture(safe_name(element.attrib["name"]), *size, people)


def _points(shape: Any, where: str) -> list[tuple[float, float, int]]:
    visible = HIDDEN if shape.attrib.get("occluded") == "1" else VISIBLE
    pairs = [point.split(",") for point in shape.attrib["points"].split(";")]
    return [(number(x, where), number(y, where), visible) for x, y in pairs]


def _give_boxes(persons: list[tuple[str | None, Person]], boxes: list[tuple[str, str | None, Person]]) -> None:
    """Hand each skeleton its box, which then is no longer free: `box` of it becomes None."""
    for group, person in persons:
        points = np.array([point[:2] for point in person.points.values()]).reshape(-1, 2)
        fitting = []
        for _, key, holder in boxes:
            if holder.box is None or (key is not None and key != group):
                continue
            low, size = np.array(holder.box[:2]), np.array(holder.box[2:])
            inside = (
                ((points >= low - 0.1 * size) & (points <= low + 1.1 * size)).all(axis=1).mean() if len(points) else 0
            )
            if (key is not None and key == group) or inside > 0.5:
                fitting.append((key != group or key is None, -inside, size.prod(), id(holder), holder))
        if fitting:
            holder = min(fitting)[-1]
            person.box, holder.box = holder.box, None


def write(labels: Labels, folder: Path, image_set: str) -> int:
    """Write annotations.xml beside images/."""
    skeleton = labels.skeleton
    category = next((person.category for person in labels.persons), skeleton.name)
    circles = "".join(
        f'<circle r="1.5" cx="{k}" cy="{k}" data-type="element node" data-element-id="{k}" data-node-id="{k}" '
        f"data-label-name={quoteattr(joint)}></circle>"
        for k, joint in enumerate(skeleton.joints, 1)
    )
    lines = "".join(
        f'<line x1="{a}" y1="{a}" x2="{b}" y2="{b}" data-type="edge" data-node-from="{a + 1}" data-node-to="{b + 1}">'
        "</line>"
        for a, b in skeleton.limb_indices
    )
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    names = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for name, kind, parent in [(category, "skeleton", ""), *((j, "points", category) for j in skeleton.joints)]:
        label = ElementTree.SubElement(names, "label")
        for key, text in (
            ("name", name),
            ("type", kind),
            ("svg", "" if parent else lines + circles),
            ("parent", parent),
        ):
            if text:
                ElementTree.SubElement(label, key).text = text
    group = 0
    for image_id, picture in enumerate(labels.pictures):
        attributes = {"id": image_id, "name": safe_name(picture.name), "width": picture.width, "height": picture.height}
        image = _element(root, "image", attributes)
        for person in picture.persons:
            group += 1
            shape = {"label": person.category, "source": "manual", "occluded": 0, "group_id": group}
            if person.box:
                x, y, w, h = person.box
                _element(
                    image, "box", {**shape, "xtl": plain(x), "ytl": plain(y), "xbr": plain(x + w), "ybr": plain(y + h)}
                )
            pose = _element(image, "skeleton", shape)
            for joint in skeleton.joints:
                x, y, v = person.points.get(joint, (0, 0, 0))
                flags = {"occluded": int(v == HIDDEN), "outside": int(v == 0)}
                _element(pose, "points", {"label": joint, **flags, "points": f"{plain(x)},{plain(y)}"})
    ElementTree.ElementTree(root).write(folder / "annotations.xml", encoding="utf-8", xml_declaration=True)
    return len(labels.persons)


def _element(parent: Any, tag: str, attributes: dict[str, Any]) -> Any:
    return ElementTree.SubElement(parent, tag, {key: str(value) for key, value in attributes.items()})
