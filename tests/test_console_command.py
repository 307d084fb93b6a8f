"""`simplepose COMMAND`, for whoever has installed the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simplepose.__main__ import names

ROOT = Path(__file__).resolve().parent.parent


def simplepose(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "lib")}
    line = [sys.executable, "-m", "simplepose", *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=60)


def test_every_script_of_a_checkout_is_a_command():
    scripts = {path.stem for path in (ROOT / "pose_estimation").glob("[a-z]*.py")}
    assert set(names()) == scripts - {"deploy"}  # which stands alone


def test_without_a_command_it_lists_them():
    finished = simplepose()
    assert finished.returncode == 0
    assert all(f"  {name} " in finished.stdout for name in names())


def test_a_command_is_run_with_its_own_arguments():
    finished = simplepose("evaluate", "--help")
    assert finished.returncode == 0
    assert finished.stdout.startswith("usage: simplepose evaluate ")


@pytest.mark.parametrize(("name", "hint"), [("trian", "did you mean train?"), ("xyz", "--help")])
def test_a_command_that_there_is_not_is_named(name, hint):
    finished = simplepose(name)
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1 and name in finished.stderr and hint in finished.stderr
