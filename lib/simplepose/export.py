"""Export: a Paddle network as an ONNX file that says what it is."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from simplepose.errors import UserError
from simplepose.files import written_whole
from simplepose.onnx_runtime import METADATA_KEY

OPSET = 13


def export_onnx(
    model: Any, path: str | os.PathLike, metadata: dict[str, Any], image_size_wh: tuple[int, int], opset: int = OPSET
) -> None:
    """Write a network as ONNX: input (N, 3, H, W) float32 with N free, output (N, K, h, w).

    Args:
        model: a Paddle layer; it is put into eval mode.
        metadata: stored as JSON in the file's metadata_props under `METADATA_KEY`; `PoseNetwork.description` and
            whatever else is worth knowing.
        image_size_wh: of the input, pixels.

    Raises:
        UserError: paddle2onnx is missing or failed, or the folder does not take the file.
    """
    path = Path(path)
    width, height = image_size_wh
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    with written_whole(path) as scratch, tempfile.TemporaryDirectory() as folder:  # the exporter leaves files behind
        exported = Path(folder) / "network.onnx"
        said = _export(model, exported, (None, 3, height, width), opset)
        if not exported.is_file():  # the exporter reports its exceptions, and goes on
            raise UserError(f"paddle2onnx wrote no file for {path}: {said or 'it gave no reason'}")
        entry = _metadata_entry(METADATA_KEY, json.dumps(metadata, ensure_ascii=False))
        scratch.write_bytes(exported.read_bytes() + entry)


def _export(model: Any, path: Path, shape: tuple[int | None, ...], opset: int) -> str:
    """Run the exporter without its chatter; returns the last line that it logged as an error."""
    import paddle

    try:
        import paddle2onnx
    except ImportError:
        raise UserError("exporting needs paddle2onnx: python -m pip install paddle2onnx") from None
    model.eval()
    # paddle2onnx 2 folds constants with a package that it would install by itself; an export downloads nothing.
    knows = "optimize_tool" in inspect.getsource(paddle2onnx.convert)
    options = {"optimize_tool": "None"} if knows else {}
    said = io.StringIO()
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            paddle2onnx.dygraph2onnx(
                model, str(path), [paddle.static.InputSpec(list(shape), "float32", "image")], opset, **options
            )
    finally:
        logging.disable(previous)
    return (said.getvalue().strip().splitlines() or [""])[-1]


def _metadata_entry(key: str, value: str) -> bytes:
    """One entry of ONNX's ModelProto.metadata_props (field 14), serialised.

    A repeated field of a protobuf message grows by appending to its bytes, so that the package onnx is not needed.
    """
    entry = b"".join(_field(number, text.encode()) for number, text in ((1, key), (2, value)))
    return _field(14, entry)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content  # wire type 2: length, then bytes


def _varint(value: int) -> bytes:
    digits = []
    while True:
        value, digit = value >> 7, value & 0x7F
        digits.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(digits)
