"""Benchmarks run, each once and small, and leave nothing behind. How fast they are is not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import paddle
import pytest
from test_detectors import constant_graph

from simplepose.models.pose_resnet import PoseResNet

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))  # last: nothing of ours gives way to a file there

import bench  # noqa: E402
from timing import Row, table  # noqa: E402
from training_step import multiply_adds  # noqa: E402


@pytest.fixture
def run(tmp_path):
    """Run a benchmark in one process, and see that its temporary folder is empty afterwards."""

    def run(script: str, *args: object) -> str:
        line = [sys.executable, str(BENCHMARKS / script), *map(str, args)]
        with tempfile.TemporaryDirectory() as folder:  # not in tmp_path: sockets need a short name
            environment = {**os.environ, "TMPDIR": folder, "TEMP": folder}
            finished = subprocess.run(line, capture_output=True, text=True, timeout=600, env=environment, cwd=tmp_path)
            assert finished.returncode == 0, finished.stderr
            assert os.listdir(folder) == []
        return finished.stdout

    return run


@pytest.mark.slow
@pytest.mark.parametrize("row", bench.ROWS)
def test_each_row_of_make_bench(run, row, tmp_path):
    before = sorted((BENCHMARKS / "results").iterdir())
    printed = run("bench.py", "--only", row, "--quick", "--json", tmp_path / "figures.json")
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert rows
    for figures in rows:
        assert figures["name"] in printed
        assert min(figures["ours"], default=0) > 0 or "left out" in figures["note"], figures
    assert sorted((BENCHMARKS / "results").iterdir()) == before


@pytest.mark.slow
def test_loading_of_coco(run):
    assert "load_coco()" in run("coco.py", "--quick")


@pytest.mark.slow
def test_what_exports_cost(run):
    assert "--precision int8" in run("export_speed.py", "--quick")


@pytest.mark.slow
def test_what_the_pipeline_costs(run, posenet, bundled, tmp_path):
    scores, sides = np.full((1, 2, 80), 0.9), np.zeros((1, 2, 32))  # NanoDet's two cells of a 16x8 input
    constant_graph(tmp_path / "detector.onnx", {"data": [1, 3, 8, 16]}, [scores, sides])
    files = ("--model-file", posenet[1], "--detector", tmp_path / "detector.onnx", "--img-file", bundled / "images")
    assert "median ratio" in run("infer_speed.py", *files, "--rounds", 1)


@pytest.mark.parametrize("depth, giga", [(18, 3.862), (50, 7.234)])
def test_multiply_adds_are_the_known_ones(depth, giga):
    """At 256x256 and 16 joints; at a quarter of the size a sixteenth."""
    paddle.seed(0)
    assert 16 * multiply_adds(PoseResNet(depth, 16), (64, 64)) / 1e9 == pytest.approx(giga, abs=5e-4)


def test_a_row_that_is_left_out_says_why():
    assert "no such data" in table([Row("an epoch", [], note="left out: no such data")])
