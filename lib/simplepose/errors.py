"""Errors are part of the interface: a mistake of the user ends in one clear line and exit code 2."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable


class UserError(Exception):
    """Something the user can mend. The message is one line: what was found, where, and what to do."""


@contextmanager
def _sigterm_as_interrupt(seen: list[int]) -> Iterator[None]:
    """Within, SIGTERM is a KeyboardInterrupt: what cleans up after Ctrl-C does so then, too. It is noted in `seen`.

    Not in one of several processes: the launcher's SIGTERM ends those that wait for one that failed, at once.
    """
    alone = os.environ.get("PADDLE_TRAINERS_NUM", "1") == "1"
    if not alone or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:  # nor where somebody else has an answer
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def run_command(main: Callable[[], int | None]) -> int:
    """Run a command's `main` and turn its outcome into an exit code.

    Returns what `main` returned (None counts as 0), 2 after a `UserError`, 130 after Ctrl-C, 143 after SIGTERM.
    Any other exception is a defect of ours and keeps its traceback.
    """
    # One line of ours says what is wrong with a picture or video, not hundreds. Read when OpenCV is imported.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    terminated: list[int] = []
    try:
        with _sigterm_as_interrupt(terminated):
            return main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("terminated" if terminated else "interrupted", file=sys.stderr)
        return 143 if terminated else 130
    except BrokenPipeError:  # the reader of our output went away, as in `... | head`
        sys.stderr.close()
        return 1
