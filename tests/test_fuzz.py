"""Damaged configurations, descriptions, boxes, labels, `.mat` files, images and zips: each ends soon, in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory and time per process, as Linux has them")
def test_no_damaged_file_does_harm(tmp_path):
    folders = os.pathsep.join(str(ROOT / name) for name in ("lib", "pose_estimation", "tests"))
    environment = {**os.environ, "PYTHONPATH": folders, "OPENCV_LOG_LEVEL": "SILENT", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(ROOT / "tests" / "fuzz.py"), "--folder", str(tmp_path / "fuzz")]
    finished = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=1800)
    assert finished.returncode == 0, finished.stderr[-3000:]
    report = [json.loads(text) for text in finished.stdout.splitlines()]
    bad = {case["case"]: case["problems"] for case in report if case["problems"]}
    kinds, codes = Counter(case["kind"] for case in report), Counter(case["code"] for case in report)
    print(f"{len(report)} cases {dict(kinds)}, exit codes {dict(codes)}, {len(bad)} bad")
    assert not bad, "\n".join(f"{name}: {problems}" for name, problems in bad.items())
    assert len(kinds) >= 12 and len(report) > 600
    assert codes[1] + codes[2] > len(report) / 2  # or the damage would be too gentle
