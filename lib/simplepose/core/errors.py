"""Error handling: a user's mistake ends in one clear line and exit code 2, never in a traceback."""

from __future__ import annotations

import os
import re
import reprlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

# Characters that move a terminal's cursor, hide or reverse text; and lone surrogates, which cannot be printed.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MAX_MESSAGE = 2000  # characters; what is wrong stands at the start, what to do at the end

EXTRAS = {  # extra of pyproject.toml -> packages that it installs, dependencies included, by the names in `import`
    "deploy": ("onnxruntime", "tqdm", "yaml"),
    "train": ("paddle", "scipy", "easydict", "json_tricks", "pycocotools", "visualdl", "safetensors", "matplotlib"),
    "export": ("paddle2onnx", "onnx", "ml_dtypes"),
    "tracking": ("trackeval",),
    "scale": ("ray", "pyarrow"),
}
PIP_NAMES = {"yaml": "pyyaml", "paddle": "paddlepaddle"}  # where they differ from the names in `import`


class UserError(Exception):
    """An error that the user can fix. The message is one line: what was found, where, and what to do."""

    def __init__(self, message: object):
        text = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(message))
        if len(text) > MAX_MESSAGE:
            text = f"{text[: MAX_MESSAGE - 500]} ... {text[-500:]}"
        super().__init__(text)


class _Clipped(reprlib.Repr):
    def __init__(self):
        super().__init__()
        self.maxstring = self.maxother = 100
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        digits = x.bit_length() * 3 // 10  # Python refuses to convert integers of thousands of digits
        return repr(x) if digits < 40 else f"a whole number of about {digits} digits"


def shown(value: Any) -> str:
    """A value from a file as quoted in a message: its `repr`, shortened."""
    return _Clipped().repr(value)


def has_control(text: str) -> bool:
    """Whether the text holds characters that a terminal would interpret instead of print."""
    return _CONTROL.search(text) is not None


@contextmanager
def optional_packages() -> Iterator[None]:
    """Within, a missing or broken optional package raises a `UserError` that says how to install it."""
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


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM, recorded as they arrive. Both raise KeyboardInterrupt, so that the same cleanup runs.

    They are recorded because numpy turns a KeyboardInterrupt during its import into an ImportError. A signal that is
    ignored, as under nohup, or that has another handler is left alone; so is SIGTERM in one of several processes, whose
    launcher terminates those that wait for a failed one.
    """
    came: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt

    taken = {}
    if threading.current_thread() is threading.main_thread():
        alone = os.environ.get("PADDLE_TRAINERS_NUM", "1") == "1"
        for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
            if signal.getsignal(number) == usual and (alone or number == signal.SIGINT):
                taken[number] = signal.signal(number, interrupt)
    try:
        yield came
    finally:
        for number, usual in taken.items():
            signal.signal(number, usual)


def run_command(main: Callable[[], int | None]) -> int:
    """Run a command's `main` and turn its outcome into an exit code.

    Returns what `main` returned (None counts as 0), 2 after a `UserError` or without a package or the permission for a
    file, 130 after Ctrl-C, 143 after SIGTERM. Any other exception is a bug and keeps its traceback.
    """
    # OpenCV prints hundreds of lines about a broken picture or video; our error is one line. Read at OpenCV's import.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))  # as core.images, of headers that it cannot read
    if hasattr(sys.stdout, "reconfigure"):  # a file name that is not UTF-8 is printed, not an error
        sys.stdout.reconfigure(errors="backslashreplace")
    with _interruptions() as came:
        try:
            with optional_packages():
                return main() or 0
        except (UserError, PermissionError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except BrokenPipeError:  # the reader of our output has closed, as in `... | head`
            sys.stderr.close()
            return 1
        except (KeyboardInterrupt, Exception) as error:
            if not came and not isinstance(error, KeyboardInterrupt):
                raise
            terminated = signal.SIGTERM in came
            print("terminated" if terminated else "interrupted", file=sys.stderr)
            return 143 if terminated else 130
