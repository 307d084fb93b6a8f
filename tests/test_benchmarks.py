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


@pytest.mark.parametrize("flag, faster", [("amx_bf16", 2.5), ("avx512_bf16", 1.5)])
def test_bfloat16_rows_where_the_processor_has_it(monkeypatch, flag, faster):
    """Two operations a second are what the matrix product reaches, and a step of 8 takes us 5 seconds: 0.8 of it."""
    its = {"ours": 5, "PyTorch": 10, "PyTorch, channels-last": 8, "Paddle's own kernels": 20, "ours, bfloat16": 2}
    runs = {name: [{"seconds": seconds, "peak_mib": 100.0, "flop": 8}] for name, seconds in its.items()}
    runs.update(
        {"matrix": [{"flop_per_second": 2}], "PyTorch's autocast, channels-last": [{"seconds": 4, "peak_mib": 9}]}
    )
    asked: list[str] = []

    def in_processes(script, what, runtimes, rounds):
        asked.extend(runtimes)
        return runs, {}

    monkeypatch.setattr(bench, "processor_flags", lambda: {"avx2", flag})
    monkeypatch.setattr(bench, "in_processes", in_processes)
    rows = bench.training_step(1, True)
    assert set(asked) == set(runs)
    assert [row.ratios for row in rows] == [[2.0], [1.6], [4.0], [2.0], [2.5]]
    assert rows[-1].bound == faster
    assert "0.80 of" in rows[0].note


def test_bfloat16_is_left_out_where_it_is_refused(monkeypatch):
    run = [{"seconds": 1, "peak_mib": None, "flop": 1, "flop_per_second": 1}]
    monkeypatch.setattr(bench, "processor_flags", lambda: {"amx_bf16"})
    refused = {"ours, bfloat16": "no kernels"}
    monkeypatch.setattr(bench, "in_processes", lambda script, what, names, rounds: (dict.fromkeys(names, run), refused))
    assert "no kernels" in bench.training_step(1, True)[-1].note


def test_an_epoch_without_its_data_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("POSE_REAL_DATA", str(tmp_path))
    (row,) = bench.training_epoch(1, True)
    assert not row.ours and str(tmp_path) in row.note


def test_a_broken_benchmark_is_not_taken_for_a_missing_peer():
    with pytest.raises(SystemExit, match="--no-such-flag"):
        bench.in_processes("inference_step.py", ("--no-such-flag",), {"ours": ("--runtime", "ours")}, 1)
