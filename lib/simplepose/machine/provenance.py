"""Provenance of a result: the version of the code, and the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path

import simplepose
from simplepose.machine.device import available_cores


def machine() -> str:
    """Processor, cores and memory of this computer, for reports."""
    name, memory = platform.processor() or platform.machine(), ""
    with contextlib.suppress(OSError, StopIteration, ValueError):  # Linux only
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    return f"{name}, {available_cores()} cores{memory}"


@lru_cache(maxsize=1)
def git_commit() -> str:
    """The checkout's commit, with "-dirty" if files differ from it; "unknown" outside of a checkout.

    An enclosing repository, such as one whose virtual environment this package is installed in, does not count.
    """
    checkout = Path(simplepose.__file__).resolve().parents[2]
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(checkout.parent)}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # as a hook of another repository sets them
        environment.pop(name, None)
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=checkout, env=environment, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return described.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
