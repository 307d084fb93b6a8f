"""The card of a network that is passed on: what it is, where it comes from, how well it does, what it cannot do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from simplepose.config.load import arch_name
from simplepose.core.files import written_whole

if TYPE_CHECKING:
    from easydict import EasyDict

LIMITS = """## What it cannot do

- It answers for one person in a box. Without a box it looks for one person itself, and misses those who are small.
- Of people unlike those it was trained on (cut off by the picture's edge, hidden by others, in other clothes or poses)
  its answers are worse than the score says, and it gives one even where nobody is.
- It is for research and teaching. Nothing that can hurt or judge anybody should rest on it.
"""


def write_card(
    path: str | os.PathLike,
    file: Path,
    config: EasyDict,
    experiment: str,
    commit: str,
    persons: int,
    metrics: Mapping[str, Mapping[str, float]],
    primary: str,
) -> None:
    """Write a card in Markdown.

    Args:
        file: the network.
        experiment: the file with the recipe.
        commit: of the training.
        persons: how many of TEST_SET were scored.
        metrics: of each precision of the network, without a flip test; the last one is the file's.
        primary: the score's name among them.
    """
    dataset, precision = config.DATASET, list(metrics)[-1]
    others = "".join(f", {values[primary]:.3f} in {name}" for name, values in metrics.items() if name != precision)
    recipe = Path(os.path.relpath(experiment, Path(path).parent)).as_posix()
    rows = [
        ("file", f"`{file.name}`, {file.stat().st_size / 1e6:.1f} MB, {precision}"),
        ("network", f"{arch_name(config)}, {config.MODEL.NUM_JOINTS} joints"),
        ("recipe", f"[{Path(experiment).stem}]({recipe}), commit {commit}"),
        ("trained on", f"`{dataset.TRAIN_SET}` of `{Path(dataset.ROOT).name}`"),
        ("licence of the data", "its owners', for most public sets research use; none of the photographs is in here"),
        (
            "score",
            f"{primary} **{metrics[precision][primary]:.3f}**{others}: {persons} persons of `{dataset.TEST_SET}`, "
            "annotated boxes, no flip test",
        ),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    with written_whole(path) as scratch:
        scratch.write_text(f"# {file.name}\n\n|  |  |\n| --- | --- |\n{table}\n\n{LIMITS}", encoding="utf-8")
