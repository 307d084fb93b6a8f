"""Timing two things fairly: by turns, so that a busy machine is busy for both; the ratio of each turn counts."""

from __future__ import annotations

import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable


@dataclass
class Row:
    """A line of the table.

    Attributes:
        name: what was timed.
        ours, peer: seconds, a value a turn; empty if it could not be timed here, and `note` says why.
        bound: how many times as fast as the peer ours should be; None if it is only reported.
        peer_name: what the peer is.
        peer_figure: seconds that the peer took where the bound was set; slower than 1.1 times that is no fair peer.
        note: anything to add.
    """

    name: str
    ours: list[float]
    peer: list[float] = field(default_factory=list)
    bound: float | None = None
    peer_name: str = ""
    peer_figure: float | None = None
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Times as fast as the peer, a value a turn."""
        return [peer / ours for ours, peer in zip(self.ours, self.peer)]

    def cells(self) -> list[str]:
        """name, ours, peer, ratio with its spread, bound, remarks."""
        if not self.ours:
            return [self.name, "", "", "", "", self.note]
        cells = [self.name, duration(statistics.median(self.ours))]
        if not self.peer:
            return [*cells, "", "", "", self.note]
        ratios, peer = self.ratios, statistics.median(self.peer)
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        remarks = [self.note] if self.note else []
        if self.peer_figure:
            remarks.append(f"peer {peer / self.peer_figure:.2f} x its figure of {duration(self.peer_figure)}")
        bound = "" if self.bound is None else f"{self.bound:g}"
        return [*cells, f"{duration(peer)} {self.peer_name}", ratio, bound, "; ".join(remarks)]


HEAD = ("row", "ours", "peer", "times as fast (spread)", "wanted", "")


def table(rows: Sequence[Row]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def per_call(function: Callable[[], object], at_least: float = 0.2) -> float:
    """Seconds a call, over as many calls as take `at_least` seconds together."""
    calls, start = 0, time.perf_counter()
    while True:
        function()
        calls += 1
        passed = time.perf_counter() - start
        if passed >= at_least:
            return passed / calls


def peak_memory_mib() -> float | None:
    """The most memory that this process has held; None where the system does not say."""
    try:
        text = Path("/proc/self/status").read_text()  # getrusage counts what the parent held as well
    except OSError:
        return None
    return int(re.search(r"^VmHWM:\s*(\d+) kB", text, re.MULTILINE).group(1)) / 1024


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A folder for temporary files, this process's own and its children's: what a runtime leaves there goes as well."""
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        yield folder


def once(function: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    return per_call(function, at_least=0)


def by_turns(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int = 7, at_least: float = 0.2
) -> tuple[list[float], list[float]]:
    """Seconds a call of both, `rounds` values each, after one call of each that does not count."""
    ours(), peer()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        times[0].append(per_call(ours, at_least))
        times[1].append(per_call(peer, at_least))
    return times
