"""Errors are part of the interface: a mistake of the user ends in one clear line and exit code 2."""

from __future__ import annotations

import os
import signal
import sys
from typing import Callable


class UserError(Exception):
    """Something the user can mend. The message is one line: what was found, where, and what to do."""


def run_command(main: Callable[[], int | None]) -> int:
    """Run a command's `main` and turn its outcome into an exit code.

    Returns what `main` returned (None counts as 0), 2 after a `UserError`, 130 after Ctrl-C, 143 after SIGTERM.
    Any other exception is a defect of ours and keeps its traceback.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # one line of ours says what is wrong with a file, instead of
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # hundreds; read when OpenCV is imported
    terminated = []

    def terminate(number: int, frame: object) -> None:
        terminated.append(number)
        raise KeyboardInterrupt  # what cleans up after Ctrl-C does so now

    # Of several processes, the launcher's SIGTERM ends those that wait for one that failed: at once.
    if os.environ.get("PADDLE_TRAINERS_NUM", "1") == "1" and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)
    try:
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
