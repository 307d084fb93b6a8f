"""onnxruntime-web, the runtime of the demo page, in Node: exported files are compared in it as in any other."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path

import numpy as np

from simplepose.core.errors import UserError
from simplepose.inference.network import Network

DEMO = Path(__file__).resolve().parents[3] / "demo"


def web_network(path: Path) -> Network:
    """An ONNX file in onnxruntime-web's wasm; the Node process ends with the network.

    Raises:
        UserError: something is missing, or onnxruntime-web cannot load the file (on the first call).
    """
    if not shutil.which("node") or not (DEMO / "node_modules").is_dir():
        raise UserError("onnxruntime-web needs Node, and in a checkout: npm ci --prefix demo --ignore-scripts")
    complaints = tempfile.TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(
        ["node", str(DEMO / "run_network.mjs"), str(Path(path).resolve())],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, cwd=DEMO,
    )  # fmt: skip

    def network(images: np.ndarray) -> np.ndarray | list[np.ndarray]:
        outputs: list[list[np.ndarray]] = []
        for image in images:  # one by one, as the page does; large requests fill pipes
            try:
                header = json.dumps({"type": str(image.dtype), "shape": [1, *image.shape]})
                process.stdin.write(header.encode() + b"\n" + np.ascontiguousarray(image).tobytes())
                process.stdin.flush()
                shapes = json.loads(process.stdout.readline())
            except (OSError, ValueError):
                complaints.seek(0)
                lines = [line for line in complaints.read().decode(errors="replace").splitlines() if "Error" in line]
                raise UserError(f"onnxruntime-web fails on {path}: {(lines or ['no reason given'])[0][:200]}") from None
            sizes = [int(np.prod(shape)) for shape in shapes]
            flat = [np.frombuffer(process.stdout.read(4 * size), np.float32) for size in sizes]
            outputs.append([data.reshape(shape) for data, shape in zip(flat, shapes)])
        joined = [np.concatenate(parts) for parts in zip(*outputs)]
        return joined[0] if len(joined) == 1 else joined

    weakref.finalize(network, process.kill)
    return network
