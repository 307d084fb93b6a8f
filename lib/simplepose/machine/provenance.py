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

INSTRUCTIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 with bfloat16", "avx512f": "AVX-512", "avx2": "AVX2"}


def machine() -> str:
    """Processor, the best of its instructions for matrix products, cores and memory of this computer, for reports."""
    name, memory = cpu_info("model name") or platform.processor() or platform.machine(), ""
    flags = processor_flags()
    best = next((f" ({words})" for flag, words in INSTRUCTIONS.items() if flag in flags), "")
    with contextlib.suppress(AttributeError, ValueError):  # Windows has no such function, macOS no such name
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    return f"{name}{best}, {available_cores()} cores{memory}"


def processor_flags() -> set[str]:
    """What the processor can do, in the words of Linux; elsewhere nothing is known."""
    return set(cpu_info("flags").split())


def cpu_info(key: str) -> str:
    """The first line of that name in /proc/cpuinfo; "" where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


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
