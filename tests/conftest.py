"""Shared fixtures. Paddle is loaded the way the commands load it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from warm import Script, WarmPython

from simplepose.machine.paddle_start import start_paddle

ROOT = Path(__file__).resolve().parent.parent
NOT_WARM = ("infer.py", "track.py", "infer_many.py", "deploy.py")  # ONNX Runtime and Ray start threads: no forks
if "PYTEST_XDIST_WORKER" in os.environ:  # others work beside this one
    os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
start_paddle()


@pytest.fixture(scope="session")
def bundled(tmp_path_factory) -> Path:
    """data/mpii.zip, unpacked: 8 training images with 15 persons, 8 validation images with 8."""
    folder = tmp_path_factory.mktemp("bundled")
    with zipfile.ZipFile(ROOT / "data" / "mpii.zip") as archive:
        archive.extractall(folder)
    return folder / "mpii"


@pytest.fixture(scope="session")
def posenet(tmp_path_factory) -> tuple[Path, Path]:
    """An untrained PoseResNet-18 for 64x96 crops, 16 joints: its weights, and the same exported as ONNX."""
    import paddle

    pytest.importorskip("paddle2onnx", reason="without paddle2onnx nothing is exported to ONNX")
    from simplepose.build.model import build_model, build_pose_network, weights_metadata
    from simplepose.config.load import load_config
    from simplepose.export.onnx import export_onnx
    from simplepose.weights.network import save_weights

    folder = tmp_path_factory.mktemp("posenet")
    (folder / "tiny.yaml").write_text(
        "MODEL: {DEPTH: 18, IMAGE_SIZE: [64, 96], EXTRA: {SIGMA: 1, NUM_DECONV_FILTERS: [8, 8, 8]}}"
    )
    config = load_config(folder / "tiny.yaml")
    paddle.seed(0)
    model = build_model(config)
    for layer in (*model.deconv_layers[::3], model.final_layer):  # untrained, they draw nothing
        layer.weight.set_value(layer.weight * 300)
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):  # ones and zeros show nothing
            layer.weight.set_value(paddle.uniform(layer.weight.shape, min=0.8, max=1.2))
            layer.bias.set_value(paddle.uniform(layer.bias.shape, min=-0.1, max=0.1))
    for _ in range(20):  # for batch norm's statistics
        model(paddle.randn([4, 3, 96, 64]))  # heatmaps with peaks near 1
    described = weights_metadata(config)
    save_weights(model, folder / "tiny.pdparams", described)
    export_onnx(model, folder / "tiny.onnx", build_pose_network(config, model), described)
    return folder / "tiny.pdparams", folder / "tiny.onnx"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs and annotations, or a visible skip."""
    folder = Path(os.environ.get("POSE_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set POSE_REAL_DATA")
    return folder


@pytest.fixture(scope="session")
def warm_python():
    """See warm.py; None where processes cannot be forked."""
    if not hasattr(os, "fork") or not hasattr(socket, "send_fds"):
        yield None
        return
    python = WarmPython()
    yield python
    python.close()


@pytest.fixture(scope="session")
def start_command(warm_python):
    """Start `python pose_estimation/<command> ...` from the project's root; returns the running process, a `Popen`."""

    def start(
        command: str, *args: object, cwd: Path = ROOT, checkout: Path = ROOT, stdout: int | None = None
    ) -> subprocess.Popen | Script:
        line = [str(checkout / "pose_estimation" / command), *map(str, args)]
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        if warm_python is not None and command not in NOT_WARM:
            return warm_python.start(line, cwd, environment, stdout)
        return subprocess.Popen(
            [sys.executable, *line], cwd=cwd, env=environment, encoding="utf-8",
            stdout=subprocess.PIPE if stdout is None else stdout, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


@pytest.fixture(scope="session")
def run_command(start_command):
    """Run `python pose_estimation/<command> ...` from the project's root; returns the finished process."""

    def run(command: str, *args: object, **place: Path) -> subprocess.CompletedProcess:
        process = start_command(command, *args, **place)
        stdout, stderr = process.communicate(timeout=900)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return run
