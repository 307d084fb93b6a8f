"""Weights: reads files of any known kind as name -> numpy array in this project's names, and writes them.

    weights = read_weights("pose_resnet_50_256x256.pth.tar")  # .pth, .pdparams, .safetensors alike
    write_weights("pose_resnet_50_256x256.pdparams", weights.state, weights.metadata)

Reading never runs code from the file (see `safe_pickle`), and only `network` imports Paddle. The readers of
one format each are in `torch_files`, `paddle_files`, `safetensors_files` and `onnx_files`, the name maps in `names`,
strict comparison in `report`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simplepose.core.errors import UserError, shown
from simplepose.core.files import WEIGHT_BYTES, parse_json, require_regular, written_whole
from simplepose.weights.names import (
    INPUT_FORMATS,
    SOURCES,
    describe_network,
    from_project,
    infer_depth,
    infer_joints,
    recognise_source,
    to_project,
)
from simplepose.weights.onnx_files import read_onnx
from simplepose.weights.paddle_files import METADATA_KEY, read_paddle, write_checked, write_paddle
from simplepose.weights.report import compare
from simplepose.weights.safetensors_files import read_safetensors, write_safetensors
from simplepose.weights.torch_files import (
    LEGACY_MAGIC,
    read_torch,
    read_torch_with_metadata,
    widen_bfloat16,
    write_torch,
)

__all__ = [
    "CONFIG_KEY",
    "INPUT_FORMATS",
    "METADATA_KEY",
    "SOURCES",
    "WeightFile",
    "compare",
    "from_project",
    "infer_depth",
    "infer_joints",
    "read_paddle",
    "read_pickle_checked",
    "read_safetensors",
    "read_torch",
    "read_weights",
    "recognise_source",
    "to_project",
    "write_checked",
    "write_paddle",
    "write_torch",
    "write_weights",
]

CONFIG_KEY = "config"  # of the metadata: configuration key -> value, what the file says of its network
CHECKPOINT_KEYS = ("average", "state_dict", "model", "model_state_dict", "model_state", "net")  # "average": TRAIN.EMA
COUNTERS_KEY = "num_batches_tracked"
_LEGACY_HEAD = b"\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little")  # behind the two bytes of the pickle protocol
_MAX_EXPANSION = 4  # bytes of tensors per byte of file; half precision widened to float32 makes 2


@dataclass
class WeightFile:
    """What `read_weights` returns.

    Attributes:
        path: the file.
        state: name -> array, float32 for every floating type; in this project's names where `source` is
            known.
        metadata: what this project saved beside the tensors; of a foreign file its "source", and under
            "config" how its pixels were prepared.
        file_format: "PyTorch (zip)", "PyTorch (legacy)", "Paddle", "safetensors" or "ONNX".
        source: one of `SOURCES`, or "unknown" (the names are then the file's own).
        dropped: names of the file that were left out, such as a classifier's.
        notes: messages about conversions of element types, and about a guess.
    """

    path: str
    state: dict[str, np.ndarray]
    metadata: dict[str, Any]
    file_format: str
    source: str
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def description(self) -> dict[str, Any]:
        """What is known of the pose network: configuration key ("MODEL.DEPTH") -> value, as in the metadata.

        Names and shapes take precedence over metadata. Empty for a backbone without a pose head.
        """
        network = describe_network({name: array.shape for name, array in self.state.items()})
        return {**self.metadata.get(CONFIG_KEY, {}), **network} if network else {}


def read_weights(path: str | os.PathLike, source: str | None = None) -> WeightFile:
    """Read weights of any known format and source; both are recognised from the content.

    Args:
        path: .pth, .pth.tar, .pt, .pdparams, .safetensors, a training checkpoint that holds a state dict, or an .onnx
            file of export.py.
        source: one of `SOURCES` to overrule recognition.
    Raises:
        UserError: not a weight file, damaged, asks to run code, or holds no tensors.
    """
    path = os.fspath(path)
    if source is not None and source not in SOURCES:
        raise UserError(f"{source} is not a known source of weights; known are {', '.join(SOURCES)}")
    file_format = _file_format(path)
    metadata_text: str | None = None
    notes: list[str] = []
    if file_format == "ONNX":
        value, metadata_text, notes = read_onnx(path)
    elif file_format == "safetensors":
        value, texts = read_safetensors(path)
        metadata_text = texts.get(METADATA_KEY)
    elif file_format == "Paddle":
        value = read_paddle(path)
    else:
        value, metadata_text = read_torch_with_metadata(path)
    raw = _find_state_dict(value, path)
    for table in (value, raw):  # a training checkpoint's own, or a state dict's
        if isinstance(table, dict) and isinstance(table.get(METADATA_KEY), str):
            metadata_text = table[METADATA_KEY]
    metadata = _parse_metadata(metadata_text, path)

    arrays = {name: array for name, array in raw.items() if isinstance(array, np.ndarray) and isinstance(name, str)}
    dropped = [str(name) for name in raw if name not in arrays and name != METADATA_KEY]
    arrays, conversions = _as_float32(arrays, path, paddle=file_format == "Paddle")
    notes = conversions + notes

    recognised = source or recognise_source(arrays)
    if recognised == "simplepose" and source is None and metadata_text is None and file_format == "Paddle":
        recognised = "humanposebl"  # its names are ours; only this project's files carry metadata
        notes.append(
            f"{path} carries no description of its network: taken for weights of the earlier Paddle port, "
            "MODEL.INPUT_FORMAT humanposebl; write another INPUT_FORMAT if it is not"
        )
    if recognised is None:
        return WeightFile(path, arrays, metadata, file_format, "unknown", dropped, notes)
    renamed = to_project(arrays, recognised)
    if metadata_text is None and recognised in INPUT_FORMATS:
        metadata = {"source": recognised, CONFIG_KEY: {"MODEL.INPUT_FORMAT": INPUT_FORMATS[recognised]}}
    if recognised not in ("simplepose", "humanposebl", "paddle-vision"):
        metadata[COUNTERS_KEY] = _pack_counters(renamed.counters, renamed.state)
    return WeightFile(path, renamed.state, metadata, file_format, recognised, dropped + renamed.dropped, notes)


def write_weights(
    path: str | os.PathLike, state: Mapping[str, np.ndarray], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write weights in the format that the extension names, atomically.

    Args:
        path: `.pdparams`, `.safetensors`, or `.pth` (PyTorch state dict in the original's names). The file
            appears under this name only when it is complete; an existing one is replaced.
        state: name -> array in this project's names.
        metadata: anything JSON can hold. Its "num_batches_tracked" entry, which `read_weights` fills from a
            PyTorch file, lets .pth -> .pdparams -> .pth return every tensor bit for bit.
    Raises:
        UserError: unknown extension, or the place cannot be written.
    """
    path = os.fspath(path)
    extension = os.path.splitext(path)[1].lower()
    if extension not in (".pdparams", ".safetensors", ".pth"):
        raise UserError(f"cannot tell the format of {path}: its name should end in .pdparams, .safetensors or .pth")
    metadata = dict(metadata or {})
    text = json.dumps(metadata, ensure_ascii=False, sort_keys=True)
    with written_whole(path) as scratch:
        if extension == ".pdparams":
            write_paddle(scratch, state, text)
        elif extension == ".safetensors":
            write_safetensors(scratch, state, {METADATA_KEY: text})
        else:
            counters = _unpack_counters(metadata.get(COUNTERS_KEY), state)
            write_torch(scratch, from_project(state, counters), text)


def read_pickle_checked(path: str | os.PathLike) -> Any:
    """Read a `paddle.save` or pickle file of nested dicts, lists, numbers, text and arrays, running no code.

    For this project's own `checkpoint` files. Tensors come back as arrays in their saved element type.
    Raises UserError as `read_paddle` does.
    """
    path = os.fspath(path)
    _file_format(path)  # clearer errors for files that are not pickles
    return read_paddle(path)


def _file_format(path: str) -> str:
    """The name of the format, recognised from the first bytes."""
    require_regular(path, "weight", WEIGHT_BYTES)
    try:
        with open(path, "rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if not head:
        raise UserError(f"{path} is empty; was the download interrupted?")
    if head[:2] == b"PK":
        return "PyTorch (zip)"
    if head[257:262] == b"ustar" or head[2:14] == _LEGACY_HEAD:
        return "PyTorch (legacy)"
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5:
        return "Paddle"
    if head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x08" and path.lower().endswith(".onnx"):
        return "ONNX"
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not the weights themselves: run `git lfs pull`")
    if head.lstrip()[:1] == b"<":
        raise UserError(f"{path} is a web page, not a weight file; was the download redirected?")
    raise UserError(f"{path} is not a weight file that is known here (PyTorch, Paddle, safetensors, ONNX of export.py)")


def _find_state_dict(value: Any, path: str) -> dict:
    """The state dict itself, or the one inside a checkpoint ({"state_dict": ...}, {"model": ...}, ...)."""
    for _ in range(3):
        if not isinstance(value, dict):
            break
        if any(isinstance(item, np.ndarray) and isinstance(name, str) for name, item in value.items()):
            return value
        inner = [value[key] for key in CHECKPOINT_KEYS if isinstance(value.get(key), dict)]
        if not inner:
            break
        value = inner[0]
    raise UserError(f"{path} holds no state dict: neither tensors by name nor one of {', '.join(CHECKPOINT_KEYS)}")


def _parse_metadata(text: str | None, path: str) -> dict[str, Any]:
    if text is None:
        return {}
    metadata = parse_json(text, f"the metadata in {path}")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(CONFIG_KEY, {}), dict):
        raise UserError(f"{path} carries metadata that are not a JSON table")
    return metadata


def _as_float32(arrays: Mapping[str, np.ndarray], path: str, paddle: bool) -> tuple[dict[str, np.ndarray], list[str]]:
    """Contiguous arrays, every floating type as float32, with a sentence for each kind of conversion."""
    declared = sum(array.size * max(array.itemsize, 4) for array in arrays.values())
    size = os.path.getsize(path)
    # Several names may share one storage or stride through it; copies of all must still follow the file's
    # size.
    if declared > _MAX_EXPANSION * size + (1 << 20):
        raise UserError(f"refused: {path} declares {declared} bytes of tensors in a file of {size} bytes")
    converted: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for name, array in arrays.items():
        kind = str(array.dtype)
        if paddle and array.dtype == np.uint16:  # Paddle's way to hold bfloat16 in numpy
            kind, converted[name] = "bfloat16", widen_bfloat16(np.asarray(array, order="C"))
        elif array.dtype.kind == "f" and array.dtype != np.float32:
            try:
                with np.errstate(over="raise"):
                    converted[name] = array.astype(np.float32, order="C")
            except FloatingPointError:
                raise UserError(f"{path} holds numbers too large for float32 in {shown(name)}") from None
        elif array.dtype.kind in "fiub":
            converted[name] = np.asarray(array, order="C")
            continue
        else:
            raise UserError(f"{path} holds {shown(name)} of type {array.dtype}, which no network has")
        counts[kind] = counts.get(kind, 0) + 1
    return converted, [f"{count} tensors of type {kind} became float32" for kind, count in counts.items()]


def _batch_norms(state: Mapping[str, np.ndarray]) -> list[str]:
    return [name[: -len("._variance")] for name in state if name.endswith("._variance")]


def _pack_counters(counters: Mapping[str, int], state: Mapping[str, np.ndarray]) -> Any:
    """As JSON: one number if every batch norm has the same count, which is usual; else name -> count."""
    values = set(counters.values())
    if len(values) == 1 and set(counters) == set(_batch_norms(state)):
        return values.pop()
    return dict(counters)


def _unpack_counters(packed: Any, state: Mapping[str, np.ndarray]) -> dict[str, int] | None:
    if isinstance(packed, dict):
        return {name: count for name, count in packed.items() if _is_count(count)}
    return dict.fromkeys(_batch_norms(state), packed) if _is_count(packed) else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63
