"""Strict loading: reports what matches, what is missing, unexpected or of another shape, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from simplepose.core.errors import UserError
from simplepose.weights.names import deconv_kernels, infer_depth, infer_joints

SHOWN_NAMES = 3  # in a one-line message; `explain` lists them all

Shape = tuple  # of int


@dataclass
class LoadReport:
    """The outcome of `compare`.

    Attributes:
        matched: names present on both sides with equal shapes.
        missing: expected names that the file does not have.
        unexpected: names of the file that the network does not have.
        mismatched: (name, expected shape, found shape).
        reasons: sentences about depth, joints and deconvolutions; `{path}` stands for the file.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, Shape, Shape]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def explain(self, path: str) -> list[str]:
        """Lines for a log: the reasons, the count, then every name that does not fit, with shapes."""
        lines = [reason.replace("{path}", str(path)) for reason in self.reasons]
        lines.append(
            f"{path}: {len(self.matched)} tensors match, {len(self.missing)} are missing, "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape"
        )
        lines += [f"  missing     {name}" for name in self.missing]
        lines += [f"  unexpected  {name}" for name in self.unexpected]
        lines += [
            f"  shape       {name}: {found} in the file, {wanted} here" for name, wanted, found in self.mismatched
        ]
        return lines

    def require(self, path: str, may_miss: Sequence[str] = ()) -> None:
        """Raise a one-line UserError unless the file fits.

        Args:
            may_miss: prefixes of names that the file need not have, such as ("deconv_layers.",
                "final_layer.") when only a backbone is loaded.
        """
        missing = [name for name in self.missing if not name.startswith(tuple(may_miss))]
        if not (missing or self.unexpected or self.mismatched):
            return
        if self.reasons:
            raise UserError("; ".join(self.reasons).replace("{path}", str(path)))
        parts = []
        if missing:
            parts.append(f"{len(missing)} missing ({_some(missing)})")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} unexpected ({_some(self.unexpected)})")
        if self.mismatched:
            shapes = [f"{name} {found} instead of {wanted}" for name, wanted, found in self.mismatched]
            parts.append(f"{len(shapes)} of another shape ({_some(shapes)})")
        raise UserError(f"{path} does not fit this network: {len(self.matched)} tensors match, {', '.join(parts)}")


def _some(items: Sequence[str]) -> str:
    more = f", and {len(items) - SHOWN_NAMES} more" if len(items) > SHOWN_NAMES else ""
    return ", ".join(items[:SHOWN_NAMES]) + more


def compare(expected: Mapping[str, Iterable[int]], found: Mapping[str, np.ndarray]) -> LoadReport:
    """Compare the network's name -> shape with the file's name -> array, in this project's names."""
    wanted = {name: tuple(int(size) for size in shape) for name, shape in expected.items()}
    shapes = {name: tuple(int(size) for size in array.shape) for name, array in found.items()}
    report = LoadReport(
        missing=[name for name in wanted if name not in shapes],
        unexpected=[name for name in shapes if name not in wanted],
    )
    for name in wanted:
        if name in shapes and shapes[name] == wanted[name]:
            report.matched.append(name)
        elif name in shapes:
            report.mismatched.append((name, wanted[name], shapes[name]))
    report.reasons = explain_mismatch(wanted, shapes)
    return report


def explain_mismatch(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> list[str]:
    """Sentences, with `{path}` for the file, about the differences that a configuration key accounts for.

    Both arguments map this project's names to shapes. What one side does not have (a backbone alone has no
    joints) is not a difference.
    """
    reasons = []
    depth, wanted_depth = infer_depth(found), infer_depth(expected)
    if depth and wanted_depth and depth != wanted_depth:
        reasons.append(
            f"{{path}} holds a ResNet-{depth}; this configuration asks for a ResNet-{wanted_depth} (MODEL.DEPTH)"
        )
    joints, wanted_joints = infer_joints(found), infer_joints(expected)
    if joints and wanted_joints and joints != wanted_joints:
        reasons.append(f"{{path}} predicts {joints} joints, this configuration {wanted_joints} (MODEL.NUM_JOINTS)")
    layers, wanted_layers = len(deconv_kernels(found)), len(deconv_kernels(expected))
    if layers and wanted_layers and layers != wanted_layers:
        reasons.append(
            f"{{path}} has {layers} deconvolution layers, this configuration {wanted_layers} "
            "(MODEL.EXTRA.NUM_DECONV_LAYERS)"
        )
    return reasons
