"""Ctrl-C and SIGTERM as a request to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from simplepose.machine.distributed import ranks


class Stopped(Exception):
    """The user asked to stop the training; every process raises this after the same step."""


class StopRequest:
    """Within `with StopRequest() as stop`, Ctrl-C and SIGTERM request a stop; a second one stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)
    # paddle.distributed.launch sends SIGTERM three times to each process in turn, and kills it half a minute later.
    LAUNCHER_REPEATS = 10  # seconds

    def __init__(self) -> None:
        self.requested = False
        self._since = 0.0

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        if hasattr(signal, "siginterrupt"):  # not on Windows
            for number in self.SIGNALS:
                signal.siginterrupt(number, False)  # else waiting for other processes would raise
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if not self.requested:
            self.requested, self._since = True, time.monotonic()
            # Not through the log: its lock may be held by the very code that the signal interrupts.
            with contextlib.suppress(OSError):  # standard error may be a full disk or a closed pipe
                os.write(2, b"=> stopping after this step or a few, and saving; once more ends at once\n")
        elif ranks()[1] == 1 or time.monotonic() - self._since > self.LAUNCHER_REPEATS:
            os._exit(128 + number)
