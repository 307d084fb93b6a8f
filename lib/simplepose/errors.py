"""Errors are part of the interface: a mistake of the user ends in one clear line and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

EXTRAS = {  # of pyproject.toml, and packages that they bring, by the names in `import`
    "deploy": ("onnxruntime", "tqdm", "yaml"),
    "train": ("paddle", "scipy", "easydict", "json_tricks", "pycocotools", "visualdl", "safetensors", "matplotlib"),
    "export": ("paddle2onnx", "onnx", "ml_dtypes"),
}
PIP_NAMES = {"yaml": "pyyaml", "paddle": "paddlepaddle"}  # where they differ


class UserError(Exception):
    """Something the user can mend. The message is one line: what was found, where, and what to do."""


@contextmanager
def optional_packages() -> Iterator[None]:
    """Within, an optional package that is missing or does not load is a `UserError` that says how to get it."""
    try:
        yield
    except ImportError as error:
        name = (error.name or "").partition(".")[0]
        extra = next((extra for extra, names in EXTRAS.items() if name in names), None)
        if extra is None:
            raise
        if name == "paddle2onnx" and sys.version_info >= (3, 13):
            raise UserError(
                "exporting to ONNX needs paddle2onnx, which there is not for Python 3.13 or later: export with Python "
                "3.9 to 3.12 (the file runs here, too), or with --format paddle"
            ) from None
        raise UserError(
            f"{' '.join(str(error).split())}: this needs {name}, of the extra {extra}; in the project's folder: "
            f'python -m pip install ".[{extra}]", or alone: python -m pip install {PIP_NAMES.get(name, name)}'
        ) from None


def run_command(main: Callable[[], int | None]) -> int:
    """Run a command's `main` and turn its outcome into an exit code.

    Returns what `main` returned (None counts as 0), 2 after a `UserError` or without a package, 130 after Ctrl-C.
    Any other exception is a defect of ours and keeps its traceback.
    """
    try:
        with optional_packages():
            return main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as in `... | head`
        sys.stderr.close()
        return 1
