"""What may be wrong with a labelled set. Each check takes a set and returns what it found, or nothing."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from simplepose.core.geometry import box_to_crop, overlap
from simplepose.core.skeletons import Skeleton
from simplepose.data.formats.base import ImageFolder, Labels, Person, Picture, keypoints_of
from simplepose.data.image_checks import ImageFact, near_duplicates, same_files
from simplepose.data.joint_names import side_and_rest
from simplepose.data.swaps import swap_scores

EDGE = 0.01  # of the image that a joint may lie outside of it, and a pixel: a slip, and what counting from 1 does
OTHER_BOXES = {  # how boxes are mistaken for left, top, width, height -> those, of (N, 4) and image sizes (N, 2)
    "left, top, right, bottom": lambda b, s: np.column_stack([b[:, :2], b[:, 2:] - b[:, :2]]),
    "centre, width, height": lambda b, s: np.column_stack([b[:, :2] - b[:, 2:] / 2, b[:, 2:]]),
    "top, left, height, width": lambda b, s: b[:, [1, 0, 3, 2]],
    "left, top, width, height relative to the image": lambda b, s: b * np.tile(s, 2),
    "centre, width, height relative to the image": lambda b, s: OTHER_BOXES["centre, width, height"](
        b * np.tile(s, 2), s
    ),
    "left, top, right, bottom relative to the image": lambda b, s: OTHER_BOXES["left, top, right, bottom"](
        b * np.tile(s, 2), s
    ),
}
MIN_EVIDENCE = 5  # persons or joints before a pattern is believed
LONG_LIMB = 2.0  # times what 95 in 100 of its kind are at most, for the person's size
SWAP_GAIN = 1.2  # twice what the axes of an average person say about such a pair is a clear case; see data/swaps.py
RARE_JOINT = 0.01
SMALL_CROP = 4  # times that a crop may be enlarged
FEW_PERSONS = 100  # to validate on: a score then is known to about 6 points
PERSON_SPREAD = (
    30.0  # points: deviation of the persons' own scores; 26.6 measured on LSPET, of a network that scores 56
)


@dataclass
class Example:
    """One case of a finding: a picture, the person on it, and a line about it."""

    picture: Picture
    text: str
    person: Person | None = None
    weight: float = 0.0  # the worst are shown first
    other: tuple[str, Picture] | None = None  # set and picture that it is a duplicate of
    answer: np.ndarray | None = None  # (K, 3) what a network says: x, y, score
    joints: Sequence[str] = ()  # which are meant


@dataclass
class Finding:
    """Something that is not as it should be.

    Attributes:
        title: as "boxes of no size".
        count, total, unit: "12 of 300 persons".
        advice: what it does, and what to do about it.
        wrong: a mistake; False: worth a look.
    """

    title: str
    count: int
    total: int
    unit: str
    advice: str
    examples: list[Example] = field(default_factory=list)
    wrong: bool = True


class LabelledSet:
    """A set as the checks see it; crowds, and persons of whom no joint has coordinates, are not looked at.

    Attributes:
        one_based: the form counts pixels from 1 (MPII); the labels here count from 0.
        facts: about its images, in the order of its pictures.
    """

    def __init__(
        self, name: str, labels: Labels, images: ImageFolder, facts: Sequence[ImageFact], one_based: bool = False
    ):
        self.name, self.labels, self.images, self.facts, self.one_based = name, labels, images, facts, one_based
        self.skeleton: Skeleton = labels.skeleton
        rows = [(p, person) for p, picture in enumerate(labels.pictures) for person in picture.persons]
        rows = [(p, person) for p, person in rows if person.points and not person.crowd]
        self.picture_rows = np.array([p for p, _ in rows], int)
        self.persons = [person for _, person in rows]

    @cached_property
    def keypoints(self) -> np.ndarray:
        """(N, K, 3)."""
        return keypoints_of(self.persons, self.skeleton)

    @cached_property
    def labelled(self) -> np.ndarray:
        """(N, K) of bool."""
        return self.keypoints[..., 2] > 0

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, 4); NaN where a person has none."""
        return np.array([p.box or (np.nan,) * 4 for p in self.persons], np.float64).reshape(-1, 4)

    @cached_property
    def image_sizes(self) -> np.ndarray:
        """(N, 2) width and height of each person's image: the file's, else as stated; NaN where unknown."""
        pictures = self.labels.pictures
        sizes = [fact.size_wh if fact.size_wh[0] else (p.width, p.height) for p, fact in zip(pictures, self.facts)]
        sizes = np.array(sizes, np.float64).reshape(-1, 2)
        return np.where(sizes > 0, sizes, np.nan)[self.picture_rows]

    @cached_property
    def extents(self) -> np.ndarray:
        """(N, 4) left, top, width, height of the labelled joints; NaN with fewer than two."""
        points = np.where(self.labelled[..., None], self.keypoints[..., :2], np.nan)
        some = self.labelled.sum(axis=1) >= 2
        extents = np.full((len(points), 4), np.nan)
        if some.any():
            low, high = np.nanmin(points[some], axis=1), np.nanmax(points[some], axis=1)
            extents[some] = np.column_stack([low, high - low])
        return extents

    @cached_property
    def scales(self) -> np.ndarray:
        """(N,) size of each person in pixels: the longer side around its joints, or a third of its box's if larger."""
        sides = [np.nan_to_num(sizes[:, 2:]).max(axis=1) for sizes in (self.extents, self.boxes / 3)]
        return np.maximum(np.maximum(*sides), 1.0)

    def example(self, row: int, text: str, weight: float = 0.0, joints: Sequence[str] = ()) -> Example:
        picture = self.labels.pictures[self.picture_rows[row]]
        return Example(picture, text, self.persons[row], weight, joints=joints)

    def finding(
        self, title: str, rows: Sequence[int], texts: Sequence[str], weights: Sequence[float], advice: str, **more
    ) -> Finding | None:
        """A finding about persons, the heaviest first; None if there are none."""
        examples = [self.example(int(row), text, float(weight)) for row, text, weight in zip(rows, texts, weights)]
        examples.sort(key=lambda example: -example.weight)
        return Finding(title, len(rows), len(self.persons), "persons", advice, examples, **more) if len(rows) else None


def findings(checked: LabelledSet, input_wh: tuple[int, int], validates: bool) -> list[Finding]:
    """All that is found in one set.

    Args:
        input_wh: of the network.
        validates: it is scored on.
    """
    checks = (
        unreadable, repeated_files, other_size, no_labels, all_hidden, at_the_corner, counted_from_the_other_end,
        box_form, empty_boxes, outside_image, long_limbs, swaps, never_labelled, wrong_pairs, twice,
    )  # fmt: skip
    found = [check(checked) for check in checks]
    found += [outside_crop(checked, input_wh), too_small(checked, input_wh)]
    found += [few_persons(checked)] if validates else []
    return [finding for finding in found if finding]


# ---- Images ----------------------------------------------------------------------------------------------


def unreadable(checked: LabelledSet) -> Finding | None:
    bad = [Example(picture, fact.fault) for picture, fact in zip(checked.labels.pictures, checked.facts) if fact.fault]
    advice = (
        "Training stops at the first of these, or skips them (DATASET.MAX_BAD). Fetch them again or leave them out."
    )
    total = len(checked.facts)
    return Finding("images that cannot be read", len(bad), total, "images", advice, bad) if bad else None


def repeated_files(checked: LabelledSet) -> Finding | None:
    examples, pictures = [], checked.labels.pictures
    for first, *others in same_files(checked.facts):
        for row in others:
            text = f"the same file as {pictures[first].name}"
            examples.append(Example(pictures[row], text, other=(checked.name, pictures[first])))
    advice = "Each counts twice. Keep one, with the labels of both."
    title = "images that are in the set twice"
    return Finding(title, len(examples), len(pictures), "images", advice, examples, False) if examples else None


def other_size(checked: LabelledSet) -> Finding | None:
    """Width and height that are not the file's."""
    examples, swapped = [], 0
    for picture, fact in zip(checked.labels.pictures, checked.facts):
        stated = picture.width, picture.height
        if fact.fault or not all(stated) or stated == fact.size_wh:
            continue
        swapped += stated[::-1] == fact.size_wh
        text = f"stated as {stated[0]} x {stated[1]}, the file has {fact.size_wh[0]} x {fact.size_wh[1]}"
        examples.append(Example(picture, text, picture.persons[0] if picture.persons else None))
    advice = "Boxes are clipped to the stated size. Were the labels drawn on images of that size, scale them."
    if swapped:
        advice = (
            f"{swapped} have width and height exchanged: either in the file alone, or they were labelled as the camera "
            "turned them (EXIF), while data sets are read as stored: turn the images themselves."
        )
    total = len(checked.labels.pictures)
    return (
        Finding("image sizes that are not the file's", len(examples), total, "images", advice, examples)
        if examples
        else None
    )


def leaks(train: LabelledSet, valid: LabelledSet) -> list[Finding]:
    """Pictures of the validation set that training sees as well."""
    digests = {fact.digest: row for row, fact in enumerate(train.facts) if fact.digest}
    exact = []
    for picture, fact in zip(valid.labels.pictures, valid.facts):
        if fact.digest in digests:
            other = train.labels.pictures[digests[fact.digest]]
            exact.append(Example(picture, f"the same file as {other.name} of {train.name}", other=(train.name, other)))
    near = []
    for row, other_row, correlation in near_duplicates(valid.facts, train.facts):
        other = train.labels.pictures[other_row]
        text = f"looks like {other.name} of {train.name} ({correlation:.3f})"
        near.append(Example(valid.labels.pictures[row], text, weight=correlation, other=(train.name, other)))
    total, advice = len(valid.facts), "The score is too good: it is partly of what was learnt. Split by group instead."
    found = []
    for title, examples, wrong in (
        ("validation images that are training images", exact, True),
        ("validation images that look like training images", near, False),
    ):
        count = len({example.picture.name for example in examples})
        found += [Finding(title, count, total, "images", advice, examples, wrong)] if examples else []
    return found


# ---- Visibility and coordinates --------------------------------------------------------------------------


def no_labels(checked: LabelledSet) -> Finding | None:
    written = checked.keypoints[..., :2].any(axis=2)
    if checked.labelled.any() or not written.any():
        return None
    rows = np.flatnonzero(written.any(axis=1))
    return checked.finding(
        "every joint is marked as not labelled", rows, [""] * len(rows), [0] * len(rows),
        "The joints have coordinates, and visibility 0: nothing is trained on. COCO's numbers are 0 not labelled, "
        "1 hidden, 2 visible.",
    )  # fmt: skip


def all_hidden(checked: LabelledSet) -> Finding | None:
    values = set(np.unique(checked.keypoints[..., 2][checked.labelled]))
    if checked.one_based or values != {1.0} or len(checked.persons) < MIN_EVIDENCE:
        return None
    return Finding(
        "every joint is marked as hidden", len(checked.persons), len(checked.persons), "persons",
        "All visibilities are 1, which is hidden; most likely 0 and 1 were written where COCO has 0, 1 and 2. Training "
        "takes both alike.", [], False,
    )  # fmt: skip


def at_the_corner(checked: LabelledSet) -> Finding | None:
    """Labelled joints at (0, 0) or (-1, -1), which is how tools write a joint that is not there."""
    written = checked.keypoints[..., :2] + checked.one_based
    bad = checked.labelled & ((written == 0).all(axis=2) | (written == -1).all(axis=2))
    rows = np.flatnonzero(bad.any(axis=1))
    texts = [f"{int(bad[row].sum())} joints, such as {_names(checked, bad[row])}" for row in rows]
    return checked.finding(
        "labelled joints at (0, 0) or (-1, -1)", rows, texts, bad[rows].sum(axis=1),
        "That is how a missing joint is written; its visibility must be 0, or the network learns to point there.",
    )  # fmt: skip


def counted_from_the_other_end(checked: LabelledSet) -> Finding | None:
    """Joints counted from 1 where the form counts from 0, or the other way round, by those on the outermost pixels."""
    sizes, points = checked.image_sizes[:, None], checked.keypoints[..., :2]
    joints = checked.labelled[..., None]
    with np.errstate(invalid="ignore"):
        beyond = (joints & (points > sizes - 0.51) & (points < sizes + 0.51)).sum()  # 0-based ends at size - 1
        first = (joints & (abs(points) < 0.49)).sum()
        before = (joints & (abs(points + 1) < 0.49)).sum()
        last = (joints & (abs(points - sizes + 1) < 0.49)).sum()
    if not checked.one_based and beyond >= MIN_EVIDENCE and beyond > 10 * first:
        text, shift = f"{beyond} coordinates are on a pixel past the last one, and {first} on pixel 0", 1
    elif checked.one_based and before >= MIN_EVIDENCE and before > 10 * last:
        text, shift = f"{before} coordinates are 0, and {last} on the last pixel", 0
    else:
        return None
    return Finding(
        f"joints counted from {shift} where the form counts from {1 - shift}", len(checked.persons),
        len(checked.persons), "persons",
        f"{text}. Every joint is off by one pixel: {'subtract' if shift else 'add'} 1 in x and y.",
    )  # fmt: skip


def outside_image(checked: LabelledSet) -> Finding | None:
    points, sizes = checked.keypoints[..., :2], checked.image_sizes[:, None]
    with np.errstate(invalid="ignore"):
        away = np.maximum(-points, points - (sizes - 1)).max(axis=2)  # (N, K), pixels outside
    written = points + checked.one_based
    missing = (written == 0).all(axis=2) | (written == -1).all(axis=2)  # told apart above
    bad = checked.labelled & (away > 1 + EDGE * sizes.max(axis=2)) & ~missing
    rows = np.flatnonzero(bad.any(axis=1))
    texts = [f"{_names(checked, bad[row])}: up to {away[row][bad[row]].max():.0f} px outside" for row in rows]
    return checked.finding(
        "joints outside of the image", rows, texts, [away[row][bad[row]].max() for row in rows],
        "Nobody can have seen them. Mark them as not labelled, or look whether the labels belong to another size.",
    )  # fmt: skip


# ---- Boxes -----------------------------------------------------------------------------------------------


def box_form(checked: LabelledSet) -> Finding | None:
    """Boxes that fit the joints if read in another form."""
    known = np.isfinite(checked.boxes).all(axis=1) & np.isfinite(checked.image_sizes).all(axis=1)
    known &= (checked.labelled.sum(axis=1) >= 3) & (checked.extents[:, 2:] > 0).all(axis=1)
    if known.sum() < MIN_EVIDENCE or checked.one_based:
        return None
    boxes, sizes, extents = checked.boxes[known], checked.image_sizes[known], checked.extents[known]
    as_is = np.median(overlap(boxes, extents))
    best, form = max((np.median(overlap(read(boxes, sizes), extents)), name) for name, read in OTHER_BOXES.items())
    if best < as_is + 0.1:
        return None
    rows = np.flatnonzero(known)[np.argsort(overlap(boxes, extents))[:MIN_EVIDENCE]]
    examples = [checked.example(row, f"box {_numbers(checked.boxes[row])}") for row in rows]
    return Finding(
        "boxes in another form", int(known.sum()), len(checked.persons), "persons",
        f"They overlap the joints {as_is:.0%} as left, top, width, height, and {best:.0%} if read as {form}: they are "
        "that. The crops show the wrong place: convert them.", examples,
    )  # fmt: skip


def empty_boxes(checked: LabelledSet) -> Finding | None:
    boxes, sizes = checked.boxes, checked.image_sizes
    with np.errstate(invalid="ignore"):
        empty = (boxes[:, 2:] <= 0).any(axis=1)
        away = (boxes[:, :2] >= sizes).any(axis=1) | (boxes[:, :2] + boxes[:, 2:] <= 0).any(axis=1)
    rows = np.flatnonzero(empty | away)
    texts = [f"box {_numbers(boxes[row])}" for row in rows]
    advice = "These persons are left out, in training and in the score. Draw their boxes again."
    return checked.finding("boxes of no size or outside of the image", rows, texts, [0] * len(rows), advice)


def outside_crop(checked: LabelledSet, input_wh: tuple[int, int]) -> Finding | None:
    """Joints that the network's crop does not show."""
    centers, crops = box_to_crop(checked.boxes, input_wh[0] / input_wh[1])  # (N, 2) each
    with np.errstate(invalid="ignore", divide="ignore"):
        away = np.abs(checked.keypoints[..., :2] - centers[:, None]) - crops[:, None] / 2
        away = away.max(axis=2) / checked.boxes[:, 2:].max(axis=1)[:, None]  # (N, K) in box sides
        bad = checked.labelled & (away > 0) & (checked.boxes[:, None, 2:] > 0).all(axis=2)
    rows = np.flatnonzero(bad.any(axis=1))
    texts = [f"{_names(checked, bad[row])}: up to {away[row][bad[row]].max():.0%} of the box outside" for row in rows]
    return checked.finding(
        "joints outside of the person's crop", rows, texts, [away[row][bad[row]].max() for row in rows],
        "The box, widened to the input's shape and enlarged by a quarter, does not contain them, so the network cannot "
        "find them. Either the joint or the box is wrong.", wrong=False,
    )  # fmt: skip


def too_small(checked: LabelledSet, input_wh: tuple[int, int]) -> Finding | None:
    sides = checked.boxes[:, 2:] / np.array(input_wh) * 1.25
    with np.errstate(invalid="ignore"):
        enlarged = 1 / sides.max(axis=1)
        rows = np.flatnonzero((enlarged > SMALL_CROP) & (sides > 0).all(axis=1))
    texts = [f"box of {checked.boxes[row, 2]:.0f} x {checked.boxes[row, 3]:.0f} pixels" for row in rows]
    return checked.finding(
        "persons much smaller than the input", rows, texts, enlarged[rows],
        f"Their crops are enlarged more than {SMALL_CROP} times to {input_wh[0]} x {input_wh[1]}: there is little to "
        "see, and labels are coarse. Leave them out of training if the network will not meet their like.", wrong=False,
    )  # fmt: skip


# ---- Poses -----------------------------------------------------------------------------------------------


def long_limbs(checked: LabelledSet) -> Finding | None:
    """Limbs far longer than the person's others allow: a projection shortens them, and never lengthens."""
    limbs = np.array(checked.skeleton.limb_indices, int).reshape(-1, 2)
    if len(limbs) < 2 or len(checked.persons) < 4 * MIN_EVIDENCE:
        return None
    both = checked.labelled[:, limbs].all(axis=2)  # (N, L)
    points = checked.keypoints[..., :2]
    lengths = np.where(both, np.linalg.norm(points[:, limbs[:, 0]] - points[:, limbs[:, 1]], axis=2), np.nan)
    measured = both.sum(axis=0) >= 4 * MIN_EVIDENCE
    with np.errstate(all="ignore"):
        usual = median_of(lengths / checked.scales[:, None], 0)  # of each limb, in persons
        size = median_of(lengths / usual, 1)  # of each person, by its limbs
        ratios = lengths / size[:, None] / usual
        far = np.nan_to_num(ratios / (LONG_LIMB * median_of(ratios, 0, 95)), posinf=0)
    far[:, ~measured] = 0
    far[both.sum(axis=1) < 3] = 0  # one limb is no measure of another
    rows = np.flatnonzero(far.max(axis=1, initial=0) > 1)
    worst = far[rows].argmax(axis=1)
    return checked.finding(
        "limbs far too long", rows,
        [f"{' - '.join(checked.skeleton.joints[k] for k in limbs[w])}" for w in worst],
        far[rows, worst],
        f"At least {LONG_LIMB:g} times what 95 of 100 such limbs measure, beside the person's others: one end is most "
        "likely another person's, or slipped.", wrong=False,
    )  # fmt: skip


def swaps(checked: LabelledSet) -> Finding | None:
    """Left and right exchanged within a person."""
    gains, exchanged = swap_scores(checked.keypoints, checked.scales, checked.skeleton)
    rows = np.flatnonzero(gains > SWAP_GAIN)
    pairs = [side_and_rest(left)[1] or left for left, _ in checked.skeleton.pairs]
    texts = [f"{', '.join(p for p, x in zip(pairs, exchanged[row]) if x)} ({gains[row]:.2f})" for row in rows]
    return checked.finding(
        "left and right that look exchanged", rows, texts, gains[rows],
        "With these pairs exchanged the person's sides agree with each other and limbs cross less. Twisted people look "
        "like this, too: look at each.", wrong=False,
    )  # fmt: skip


def never_labelled(checked: LabelledSet) -> Finding | None:
    share = checked.labelled.mean(axis=0) if len(checked.persons) else np.zeros(checked.skeleton.num_joints)
    rare = [f"{joint} ({s:.1%})" for joint, s in zip(checked.skeleton.joints, share) if s < RARE_JOINT]
    never = [joint for joint, s in zip(checked.skeleton.joints, share) if s == 0]
    if not rare or len(never) == checked.skeleton.num_joints:
        return None
    return Finding(
        "joints that hardly anybody labels", len(rare), checked.skeleton.num_joints, "joints",
        f"{', '.join(rare)}: the network cannot learn them and its answer there means nothing. Leave them out of the "
        "skeleton, or look whether their names or their order changed.", [],
    )  # fmt: skip


def wrong_pairs(checked: LabelledSet) -> Finding | None:
    """Pairs of the skeleton that do not mirror each other, by their names and by where they are."""
    skeleton, faults = checked.skeleton, []
    paired = {name for pair in skeleton.pairs for name in pair}
    sided = {name: side_and_rest(name) for name in skeleton.joints}
    for left, right in skeleton.pairs:
        (left_side, left_rest), (right_side, right_rest) = sided[left], sided[right]
        if left_side == "right" and right_side == "left":
            faults.append(f"{left} - {right} has the right one first")
        elif (left_side or right_side) and (left_rest != right_rest or not (left_side and right_side)):
            faults.append(f"{left} - {right} are not one joint's two sides")
    alone = [name for name, (side, rest) in sided.items() if side and name not in paired]
    alone = [n for n in alone if any(m != n and sided[m][1] == sided[n][1] and sided[m][0] for m in skeleton.joints)]
    if alone:
        faults.append(f"{', '.join(alone)} have a side and are in no pair")
    named_wrong = {fault.partition(" - ")[0] for fault in faults}
    heights = np.where(checked.labelled, (checked.keypoints[..., 1] - checked.extents[:, None, 1]), np.nan)
    heights = heights / checked.scales[:, None]  # from the person's top, in persons
    for left, right in skeleton.pairs:
        a, b = skeleton.joints.index(left), skeleton.joints.index(right)
        difference = heights[:, a] - heights[:, b]
        difference = difference[np.isfinite(difference)]
        if len(difference) >= 4 * MIN_EVIDENCE and left not in named_wrong:
            error = difference.std() / math.sqrt(len(difference))
            if abs(difference.mean()) > max(0.1, 5 * error):
                faults.append(f"{left} lies {abs(difference.mean()):.0%} of a person's size from {right} in height")
    if not faults:
        return None
    return Finding(
        "pairs that do not mirror each other", len(faults), len(skeleton.pairs), "pairs",
        f"{'; '.join(faults)}. A mirrored image then teaches the wrong joint, and the flip test mixes two joints. "
        "Correct `pairs` of the skeleton.",
    )  # fmt: skip


def twice(checked: LabelledSet) -> Finding | None:
    """Persons that are labelled twice: all the joints that both have lie on each other."""
    examples = []
    for picture_row, count in Counter(checked.picture_rows.tolist()).items():
        if count < 2:
            continue
        rows = np.flatnonzero(checked.picture_rows == picture_row) if count < 500 else []
        for place, row in enumerate(rows):
            for other in rows[place + 1 :]:
                both = checked.labelled[row] & checked.labelled[other]
                apart = np.linalg.norm(checked.keypoints[row, both, :2] - checked.keypoints[other, both, :2], axis=1)
                if both.sum() >= 3 and apart.max() < 0.03 * min(checked.scales[row], checked.scales[other]):
                    examples.append(checked.example(other, f"{int(both.sum())} joints on another's"))
    advice = "One of the two is a false alarm to whoever scores, and counts twice in training. Delete it."
    total = len(checked.persons)
    return Finding("persons labelled twice", len(examples), total, "persons", advice, examples) if examples else None


def few_persons(checked: LabelledSet) -> Finding | None:
    """A validation set too small for its score to say much."""
    count = len(checked.persons)
    if count >= FEW_PERSONS:
        return None
    return Finding(
        "few persons to validate on", count, count, "persons",
        f"A score on {count} persons is known to about ±{score_interval(count):.0f} points (95 %). Do not choose "
        "between two networks by less than that; validate on more.", [], False,
    )  # fmt: skip


def score_interval(count: int) -> float:
    """Half of the 95 % interval, in points, of a mean score over so many persons."""
    return 1.96 * PERSON_SPREAD / math.sqrt(max(count, 1))


def median_of(values: np.ndarray, axis: int, percentile: float = 50) -> np.ndarray:
    """The median, or another percentile, of what is not NaN; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanpercentile(values, percentile, axis=axis)


def _names(checked: LabelledSet, mask: np.ndarray) -> str:
    names = [joint for joint, is_meant in zip(checked.skeleton.joints, mask) if is_meant]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
