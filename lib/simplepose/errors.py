"""Errors are part of the interface: a mistake of the user ends in one clear line and exit code 2."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable


class UserError(Exception):
    """Something the user can mend. The message is one line: what was found, where, and what to do."""


def run_command(main: Callable[[], int | None]) -> int:
    """Run a command's `main` and turn its outcome into an exit code.

    Returns what `main` returned (None counts as 0), 2 after a `UserError`, 130 after Ctrl-C.
    Any other exception is a defect of ours and keeps its traceback.
    """
    with _interruptions() as interrupted:
        return _run(main, interrupted)


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Every Ctrl-C until the block ends, as it comes: numpy makes ImportErrors of those that meet it while it loads."""
    came: list[int] = []

    def handle(number: int, frame: Any) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, as under nohup
        yield came
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(main: Callable[[], int | None], interrupted: list[int]) -> int:
    try:
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
    except Exception:
        if not interrupted:
            raise
        print("interrupted", file=sys.stderr)
        return 130
