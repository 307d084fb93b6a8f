"""The log: lines on the screen and in a file, progress bars, VisualDL."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from simplepose.core.errors import UserError
from simplepose.machine.distributed import ranks

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger("simplepose")

TIMESTAMPED = "Epoch"  # only training lines start with the time, as in the original's log


def set_up_logging() -> None:
    """Log to the screen, and keep all lines for the file that `log_to` names; other ranks than 0 log errors only."""
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(logging.INFO)
    rank, _ = ranks()
    if rank != 0:
        logger.setLevel(logging.ERROR)
        return
    console = _ConsoleHandler()
    console.setFormatter(_LineFormatter())
    logger.addHandler(console)
    logger.addHandler(logging.handlers.MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1))


def log_to(log_file: Path) -> None:
    """Write the log to this file as well, earlier lines included."""
    if ranks()[0] != 0:
        return
    file = _LogFile(log_file, encoding="utf-8")
    file.setFormatter(_LineFormatter())
    for handler in list(logger.handlers):
        if isinstance(handler, logging.handlers.MemoryHandler):
            handler.setTarget(file)
            logger.removeHandler(handler)
            handler.close()  # flushes its buffer
    logger.addHandler(file)


class _LogFile(logging.FileHandler):
    """A log file that does not print a traceback for every line when the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:
        logger.removeHandler(self)
        logger.error("=> cannot write %s: %s; the log goes on on the screen", self.baseFilename, sys.exc_info()[1])


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if message.startswith(TIMESTAMPED):
            return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record.created))}\t{message}"
        return message


class _ConsoleHandler(logging.Handler):
    """Writes lines to standard output."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say(line: str) -> None:
    """Print a line without tearing a progress bar. If standard output fails, continue in silence.

    A full disk under nohup.log, or the end of `| head`, must not end hours of training.
    """
    from tqdm import tqdm

    try:
        try:
            tqdm.write(line, file=sys.stdout)
        except UnicodeEncodeError:  # a console that is not UTF-8
            tqdm.write(line.encode("ascii", "replace").decode(), file=sys.stdout)
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError):  # standard error may have failed, too
            os.write(2, f"=> cannot write to standard output: {error.strerror}; going on without\n".encode())
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # else flushing the rest of its buffer at exit would fail again
        os.close(nowhere)


def progress_bar(iterable: Iterable, total: int, description: str, done: int = 0) -> Iterable:
    """The iterable behind a bar on a terminal; unchanged otherwise, where log lines show the progress."""
    from tqdm import tqdm

    rank, _ = ranks()
    return tqdm(
        iterable, total=total, desc=description, initial=done, leave=False, dynamic_ncols=True,
        disable=rank != 0 or not sys.stderr.isatty(),
    )  # fmt: skip


def counting_bar(total: int, unit: str) -> tqdm:
    """A bar to `update`, with an estimate of the time left; where there is no terminal, a line a minute."""
    from tqdm import tqdm

    seconds = 0.1 if sys.stderr.isatty() else 60
    return tqdm(total=total, unit=f" {unit}", mininterval=seconds, maxinterval=seconds, dynamic_ncols=True)


def start_time() -> str:
    """For file names, as "2021-12-17-11-59"."""
    return time.strftime("%Y-%m-%d-%H-%M")


def open_visual_log(log_dir: str, run_folder: Path):
    """A VisualDL writer for this run, <log_dir>/<dataset>/<model>/<config name>_<time>; None on other ranks."""
    if ranks()[0] != 0:
        return None
    from visualdl import LogWriter

    dataset, model = run_folder.parts[-3:-1]
    folder = Path(log_dir) / dataset / model / f"{run_folder.name}_{start_time()}"
    try:
        return LogWriter(str(folder))
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror}; set LOG_DIR to a folder you may write to"
        ) from None
