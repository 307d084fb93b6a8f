"""Each extra of pyproject.toml brings what its commands need, and what is missing is named in a line.

The commands run with the packages of one extra: whatever else is installed here cannot be imported.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from tiny import experiment

from simplepose.core.errors import EXTRAS, PIP_NAMES, UserError, optional_packages

tomllib = pytest.importorskip("tomllib", reason="reading pyproject.toml takes Python 3.11")
requirements = pytest.importorskip("packaging.requirements")

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUN = """
import json, runpy, sys
blocked = set(json.loads(sys.argv[1]))
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[2:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def listed(extra: str) -> list[str]:
    """The requirements of the package with this extra, or of the bare package ("")."""
    lines = list(PROJECT["dependencies"])
    for line in PROJECT["optional-dependencies"][extra] if extra else ():
        requirement = requirements.Requirement(line)
        if requirement.name == "simplepose":
            lines += [line for name in requirement.extras for line in listed(name)]
        else:
            lines.append(line)
    return lines


@lru_cache
def blocked_without(extra: str) -> list[str]:
    """The modules installed here that pip would not bring with this extra."""
    brought = {"pip"} if sys.version_info >= (3, 12) else {"pip", "setuptools"}  # what `python -m venv` puts there
    waiting = listed(extra)
    while waiting:
        requirement = requirements.Requirement(waiting.pop())
        name = requirement.name.lower().replace("_", "-")
        if name in brought or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        brought.add(name)
        waiting += importlib.metadata.requires(name) or []
    modules: dict[bool, set[str]] = {True: set(), False: set()}
    for distribution in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")]):
        name = distribution.metadata["Name"].lower().replace("_", "-")
        modules[name in brought] |= {file.parts[0].partition(".")[0] for file in distribution.files or ()}
    return sorted(modules[False] - modules[True])


@pytest.fixture
def run_with(tmp_path):
    """Run a command in `tmp_path` with the packages of one extra."""

    def run(extra: str, command: str, *arguments: object) -> subprocess.CompletedProcess:
        line = [sys.executable, "-c", RUN, json.dumps(blocked_without(extra))]
        line += [(ROOT / "pose_estimation" / command).as_posix(), *map(str, arguments)]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=600)

    return run


def one_line(finished: subprocess.CompletedProcess, extra: str) -> bool:
    return (
        finished.returncode == 2
        and len(finished.stderr.splitlines()) == 1
        and f'python -m pip install ".[{extra}]"' in finished.stderr
    )


def test_messages_name_the_extra_that_brings_the_package():
    for extra, names in EXTRAS.items():
        brought = {requirements.Requirement(line).name for line in PROJECT["optional-dependencies"][extra]}
        assert {PIP_NAMES.get(name, name) for name in names} <= brought
    with pytest.raises(UserError, match=r'needs yaml.*"\.\[deploy\]".*pip install pyyaml'), optional_packages():
        raise ModuleNotFoundError("No module named 'yaml.nodes'", name="yaml.nodes")
    with pytest.raises(ImportError, match="ours"), optional_packages():
        raise ImportError("ours", name="simplepose.nothing")


def test_exporting_where_paddle2onnx_does_not_exist_says_what_to_do(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(UserError, match=r"export with Python 3\.9 to 3\.12 .*--format paddle"), optional_packages():
        raise ModuleNotFoundError("No module named 'paddle2onnx'", name="paddle2onnx")


def test_deploy_runs_onnx_networks_and_detectors(posenet, run_with, tmp_path):
    from test_detectors import identity_graph

    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((80, 90, 3), 90, np.uint8))
    identity_graph(tmp_path / "detector.onnx")
    (tmp_path / "infer_cfg.yml").write_text("Preprocess:\n- {type: Resize, keep_ratio: true, target_size: [20, 40]}\n")
    arguments = ("--model-file", posenet[1], "--img-file", "a.jpg", "--overwrite", "--format")
    for more in (("npz",), ("json", "--detector", "detector.onnx")):
        finished = run_with("deploy", "infer.py", *arguments, *more)
        assert finished.returncode == 0, finished.stderr
    assert one_line(run_with("", "infer.py", *arguments, "json"), "deploy")


def test_weights_without_paddle_are_refused_in_a_line(posenet, run_with, tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((80, 90, 3), np.uint8))
    finished = run_with("deploy", "infer.py", "--model-file", posenet[0], "--img-file", "a.jpg")
    assert one_line(finished, "train"), finished.stderr
    script = tmp_path / "mine.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'lib')!r})\n"
        "from simplepose import PosePredictor, UserError\n"
        f"try: PosePredictor({str(posenet[0])!r})\n"
        "except UserError as error: print(error)\n"
    )
    finished = run_with("deploy", script)
    assert finished.returncode == 0, finished.stderr
    assert 'python -m pip install ".[train]"' in finished.stdout and finished.stdout.count("\n") == 1


@pytest.mark.slow
def test_train_trains_and_runs_weights(bundled, run_with, tmp_path):
    settings = experiment()
    settings["DATASET"]["ROOT"] = str(bundled)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    image = next((bundled / "images").glob("*.jpg"))
    for command in ("train.py", "valid.py"):
        finished = run_with("train", command, "--cfg", "tiny.yaml")
        assert finished.returncode == 0, finished.stderr
    finished = run_with("train", "infer.py", "--cfg", "tiny.yaml", "--img-file", image)
    assert finished.returncode == 0, finished.stderr
    assert one_line(
        run_with("train", "infer.py", "--model-file", "none.onnx", "--img-file", image, "--overwrite"), "deploy"
    )
    weights = next((tmp_path / "output").rglob("model_best.pdparams"))
    finished = run_with("train", "export.py", "--model-file", weights)
    assert finished.returncode == 2 and len(finished.stderr.splitlines()) == 1, finished.stderr


@pytest.mark.slow
def test_export_exports_and_runs_what_it_exported(posenet, run_with, tmp_path):
    for more in ((), ("--precision", "fp16"), ("--precision", "int8")):
        finished = run_with("export", "export.py", "--model-file", posenet[0], "--output", "net.onnx", *more)
        assert finished.returncode == 0, finished.stderr
    finished = run_with("export", "infer.py", "--model-file", "net.onnx", "--img-file", ROOT / "images" / "test.jpg")
    assert finished.returncode == 0, finished.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize(("version", "taken"), [((3, 13), True), ((3, 9), True), ((3, 8), False), ((3, 14), False)])
def test_make_finds_the_pythons_that_are_supported(tmp_path, version, taken):
    name = "python3.13" if version == (3, 13) else "python3"
    python = tmp_path / name  # says that it is of this version
    code = f"import sys; sys.version_info = {(*version, 0)}; exec(sys.argv[1])"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$2"\n')
    python.chmod(0o755)
    line = [shutil.which("make"), "-n", "-f", ROOT / "Makefile", ".venv/bin/python"]
    finished = subprocess.run(
        line, cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert (f"{name} -m venv .venv" in finished.stdout) == taken, finished.stdout
