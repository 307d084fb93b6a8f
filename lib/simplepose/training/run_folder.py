"""The folder of a training: created, locked, and renamed to make room for the next training."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from simplepose.core.errors import UserError
from simplepose.machine.distributed import ranks


def make_run_folder(folder: Path, setting: str = "OUTPUT_DIR") -> Path:
    """Create the folder that `setting` names, check that it is writable, and return it.

    The first process alone writes to it.
    """
    if ranks()[0] != 0:
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # under a unique name: other processes may check at the same time
            pass
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror}; set {setting} to a folder you may write to"
        ) from None
    return folder


def claim(run_folder: Path) -> None:
    """Lock a run folder against other trainings for as long as this process lives.

    The lock is the system's, on the folder itself: it leaves no file behind and is released when the process ends, in
    whatever way. Where locks are unavailable (Windows, some network file systems) the folder is not protected.

    Raises:
        UserError: another process has locked it.
    """
    if ranks()[0] != 0:
        return
    try:
        import fcntl

        fcntl.flock(os.open(run_folder, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)  # never closed, on purpose
    except BlockingIOError:
        raise UserError(
            f"another training is at work in {run_folder}; wait for its end, stop it, or set OUTPUT_DIR"
        ) from None
    except (ImportError, OSError):
        return


def set_aside(run_folder: Path, checkpoints: Sequence[Path]) -> Path | None:
    """Rename a run folder that holds an earlier training, so that a fresh one overwrites nothing.

    The new folder is locked, as the earlier one was.

    Args:
        checkpoints: those in the folder, newest first.

    Returns:
        The earlier run's new path, or None if there was none.
    """
    if ranks()[0] != 0 or not checkpoints:
        return None
    saved = time.strftime("%Y-%m-%d-%H-%M-%S", time.localtime(checkpoints[0].stat().st_mtime))
    names = (f"{run_folder.name}_until_{saved}" + (f"_{number}" if number else "") for number in itertools.count())
    earlier = next(path for path in map(run_folder.with_name, names) if not path.exists())
    try:
        run_folder.rename(earlier)
    except OSError as error:  # as of a mount point
        raise UserError(
            f"cannot rename {run_folder}, which holds an earlier training: {error.strerror}; set another OUTPUT_DIR, "
            "or TRAIN.RESUME=True to resume it"
        ) from None
    run_folder.mkdir()
    claim(run_folder)
    return earlier
