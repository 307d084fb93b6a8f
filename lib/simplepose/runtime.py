"""The machine around the training: threads, environment, device, seeds, ranks, logs, output folders.

Paddle is loaded by `start_paddle`, after its environment is set; nothing here imports it at the top.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import logging
import logging.handlers
import math
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import simplepose
from simplepose.errors import UserError
from simplepose.files import written_whole

logger = logging.getLogger("simplepose")

TIMESTAMPED = "Epoch"  # only training lines start with the time, as in the original's log


def start_paddle() -> str:
    """Set what Paddle's CPU libraries read when they load, then load Paddle. A variable the user has set stays.

    For the commands, whose process is their own; code that lives in another program calls `import_paddle`.

    Paddle's wheel multiplies matrices with an MKL that takes a slow path on AMD processors unless told that it
    may use AVX2, and its default of one thread leaves the other cores idle.

    Returns:
        One line that says what was chosen.
    """
    if "paddle" in sys.modules:
        return "CPU settings: as they were, Paddle was already loaded"
    on_this_machine = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))  # processes of paddle.distributed.launch
    wanted = {"OMP_NUM_THREADS": str(max(1, available_cores() // on_this_machine))}
    if _is_amd_with_avx2():
        wanted["MKL_DEBUG_CPU_TYPE"] = "5"
    # A thread spins for a millisecond before it sleeps: long enough for the next of many small products, short
    # enough to leave the core to the data loader.
    wanted.update(KMP_BLOCKTIME="1", OMP_WAIT_POLICY="PASSIVE")
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    chosen = "CPU settings: " + " ".join(f"{name}={os.environ[name]}" for name in wanted)
    if _keep_freed_memory():
        chosen += ", freed memory kept"
    warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")
    import_paddle()
    return chosen


def _keep_freed_memory() -> bool:
    """Ask glibc to keep large blocks when they are freed, for the next step to use; whether it will.

    A training step frees and takes gigabytes in pieces that glibc would return to the system each time, and every
    page that comes back must be zeroed first. Whoever sets one of glibc's MALLOC_ variables decides instead.
    """
    if platform.system() != "Linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, as on Alpine
        return False
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))


def import_paddle() -> None:
    """Import Paddle without the lines in which it doubts OMP_NUM_THREADS and misses a compiler cache.

    Nothing else of the process changes; signals that come meanwhile wait until it is done.
    """
    if "paddle" in sys.modules:
        return
    said = io.StringIO()
    with _signals_wait(), contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No ccache found")
        import paddle

        paddle.disable_signal_handler()
    for line in said.getvalue().splitlines():
        if "OMP_NUM_THREADS" not in line:
            print(line, file=sys.stderr)


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block ends, and leave their handlers as they were.

    Paddle installs one for SIGTERM that allocates memory: a signal that meets the process inside malloc, as it mostly
    is while libraries load, would make it wait for itself for ever. And Ctrl-C inside an import ends in a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number, handler in handlers.items():
                if handler is not None:  # set by something other than Python
                    signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def available_cores() -> int:
    """Processors this process may use; a container or taskset may allow fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> str:
    """Processor, cores and memory of this computer, for results to name."""
    name, memory = platform.processor() or platform.machine(), ""
    with contextlib.suppress(OSError, StopIteration, ValueError):  # Linux only
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    return f"{name}, {available_cores()} cores{memory}"


def _is_amd_with_avx2() -> bool:
    if platform.system() == "Linux":
        try:
            info = Path("/proc/cpuinfo").read_text()
        except OSError:
            return False
        return "AuthenticAMD" in info and " avx2" in info
    return "AuthenticAMD" in platform.processor()  # Windows; Apple and Arm machines have no MKL


def set_device(gpus: str) -> str:
    """Use the GPU that this process is meant to use, else the CPU.

    Args:
        gpus: device numbers as in GPUS, "0,1". A process of `paddle.distributed.launch` takes its own; a
            process by itself takes the first.

    Returns:
        The device, as "gpu:0" or "cpu".
    """
    import cv2
    import paddle

    cv2.setNumThreads(1)  # crops are made by several threads already
    if not paddle.is_compiled_with_cuda() or paddle.device.cuda.device_count() == 0:
        paddle.set_device("cpu")
        if gpus != "0":  # the default
            logger.warning("=> GPUS names %s, and Paddle sees no GPU: this runs on the CPU", gpus)
    elif ranks()[1] > 1:
        paddle.set_device(f"gpu:{paddle.distributed.ParallelEnv().device_id}")
    else:
        wanted = [int(number) for number in gpus.split(",") if number.strip()] or [0]
        found = paddle.device.cuda.device_count()
        if wanted[0] >= found:
            raise UserError(f"GPUS asks for GPU {wanted[0]}, and Paddle sees {found}; use one from 0 to {found - 1}")
        if len(wanted) > 1:
            logger.warning(
                "=> GPUS names %d devices; one process uses one. For all of them: "
                "python -m paddle.distributed.launch --gpus %s %s ...",
                len(wanted), gpus, sys.argv[0],
            )  # fmt: skip
        paddle.set_device(f"gpu:{wanted[0]}")
    return paddle.get_device()


def set_cudnn(benchmark: bool, deterministic: bool) -> None:
    """Section CUDNN: let cuDNN search for fast algorithms, or use only those that repeat bit by bit (which wins)."""
    import paddle

    if paddle.is_compiled_with_cuda():
        search = benchmark and not deterministic  # both at once are an error of Paddle's
        paddle.set_flags({"FLAGS_cudnn_exhaustive_search": search, "FLAGS_cudnn_deterministic": deterministic})


def ranks() -> tuple[int, int]:
    """This process's rank and the number of processes, from `paddle.distributed.launch`'s environment."""
    return int(os.environ.get("PADDLE_TRAINER_ID", 0)), int(os.environ.get("PADDLE_TRAINERS_NUM", 1))


def set_seeds(seed: int) -> None:
    """Seed Python, numpy and Paddle. Augmentation and data order have generators of their own."""
    import paddle

    random.seed(seed)
    np.random.seed(seed % 2**32)
    paddle.seed(seed)


def make_run_folder(folder: Path, setting: str = "OUTPUT_DIR") -> Path:
    """Create the folder that `setting` names, see that it can be written to, and return it.

    The first process alone writes to it.
    """
    if ranks()[0] != 0:
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # under a name of its own: others may be trying, too
            pass
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror}; set {setting} to a folder you may write to"
        ) from None
    return folder


def claim(run_folder: Path) -> None:
    """Keep other trainings out of a run folder for as long as this process lives.

    The lock is the system's, on the folder itself: it leaves no file behind and ends with the process, however that
    ends. Where there is none to be had (Windows, some network file systems) nobody is kept out.

    Raises:
        UserError: another process has claimed it.
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

    The folder that takes its place is claimed, as the earlier one was.

    Args:
        checkpoints: those in the folder, newest first.

    Returns:
        The earlier run's new place, or None if there was none.
    """
    if ranks()[0] != 0 or not checkpoints:
        return None
    saved = time.strftime("%Y-%m-%d-%H-%M-%S", time.localtime(checkpoints[0].stat().st_mtime))
    names = (f"{run_folder.name}_until_{saved}" + (f"_{number}" if number else "") for number in itertools.count())
    earlier = next(path for path in map(run_folder.with_name, names) if not path.exists())
    run_folder.rename(earlier)
    run_folder.mkdir()
    claim(run_folder)
    return earlier


def set_up_logging() -> None:
    """Log to the screen, and keep all lines for the file that `log_to` names; rank 0 alone speaks."""
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
    """Write the log to this file as well, what was said so far included."""
    if ranks()[0] != 0:
        return
    file = _LogFile(log_file, encoding="utf-8")
    file.setFormatter(_LineFormatter())
    for handler in list(logger.handlers):
        if isinstance(handler, logging.handlers.MemoryHandler):
            handler.setTarget(file)
            logger.removeHandler(handler)
            handler.close()  # hands everything on
    logger.addHandler(file)


class _LogFile(logging.FileHandler):
    """A log file that a full disk does not make into a traceback for every line."""

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
    """Print a line without tearing a progress bar. If nobody can take it any more, the work goes on in silence.

    A full disk under nohup.log, or the end of `| head`, is no reason to lose hours of training.
    """
    from tqdm import tqdm

    try:
        try:
            tqdm.write(line, file=sys.stdout)
        except UnicodeEncodeError:  # a console that is not UTF-8
            tqdm.write(line.encode("ascii", "replace").decode(), file=sys.stdout)
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError):  # maybe the same place
            os.write(2, f"=> cannot write to standard output: {error.strerror}; going on without\n".encode())
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # or what is left in its buffer would be an error once more at the end
        os.close(nowhere)


def progress_bar(iterable: Iterable, total: int, description: str, done: int = 0) -> Iterable:
    """The iterable behind a bar on a terminal; bare otherwise, where plain log lines tell the progress."""
    from tqdm import tqdm

    rank, _ = ranks()
    return tqdm(
        iterable, total=total, desc=description, initial=done, leave=False, dynamic_ncols=True,
        disable=rank != 0 or not sys.stderr.isatty(),
    )  # fmt: skip


@lru_cache(maxsize=1)
def git_commit() -> str:
    """The checkout's commit, with "-dirty" if files differ from it; "unknown" outside of a checkout.

    A repository further out, such as one whose virtual environment this is installed in, is somebody else's.
    """
    checkout = Path(simplepose.__file__).resolve().parents[2]
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(checkout.parent)}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # as a hook of another repository sets them
        environment.pop(name, None)
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=checkout, env=environment, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return described.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def gather(item: object) -> list:
    """The item of every process, in rank order; a list of one without distribution."""
    _, num_ranks = ranks()
    if num_ranks == 1:
        return [item]
    import paddle.distributed

    items: list = []
    paddle.distributed.all_gather_object(items, item)
    return items


def broadcast(item: Any) -> Any:
    """The first process's item, on every process."""
    if ranks()[1] == 1:
        return item
    import paddle.distributed

    items = [item]
    paddle.distributed.broadcast_object_list(items, src=0)
    return items[0]


def share_statistics(model: Any) -> None:
    """Give every process the first one's batch-norm statistics: each has seen other batches since the start."""
    if ranks()[1] == 1:
        return
    import paddle.distributed

    for tensor in model.state_dict().values():
        if tensor.stop_gradient:
            paddle.distributed.broadcast(tensor, src=0)


def wait_for_all() -> None:
    """Wait until every process has come here as often as this one, however long that takes.

    Collectives of gloo give up after 30 seconds, and the first process alone saves and scores. To be called wherever
    processes may drift apart by more, and not in every step: it takes a fifth of a second.
    """
    rank, num_ranks = ranks()
    if num_ranks == 1:
        return
    from paddle.base import core

    store = core.create_or_get_global_tcp_store()  # through which the processes found each other
    count = store.add(f"arrived/{rank}", 1)
    pause = 0.001
    for other in range(num_ranks):
        while store.add(f"arrived/{other}", 0) < count:
            time.sleep(pause)
            pause = min(2 * pause, 0.1)


@contextlib.contextmanager
def first_failure_first() -> Iterator[None]:
    """Let the process that failed first end first: the launcher shows what that one said, not its victims."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # as Paddle raises them
        if ranks()[1] > 1 and re.search("gloo|nccl|tcp", str(error), re.IGNORECASE):
            time.sleep(10)  # a launcher looks every three seconds
        raise


def anybody(*flags: bool) -> list[bool]:
    """For each flag, whether any process has it set. All must call it after the same step."""
    if ranks()[1] == 1:
        return list(flags)
    import paddle.distributed

    votes = paddle.to_tensor([int(flag) for flag in flags])
    paddle.distributed.all_reduce(votes, paddle.distributed.ReduceOp.MAX)
    return votes.numpy().astype(bool).tolist()


class Stopped(Exception):
    """The user wants the training to end; every process raises this after the same step."""


class StopRequest:
    """Within `with StopRequest() as stop`, Ctrl-C and SIGTERM ask for an end; a second one ends at once."""

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
                signal.siginterrupt(number, False)  # or waiting for other processes would end in an error
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if not self.requested:
            self.requested, self._since = True, time.monotonic()
            # Not through the log: its lock may be held by the very code that the signal interrupts.
            with contextlib.suppress(OSError):  # standard error may lead to a full disk, or to nobody
                os.write(2, b"=> stopping after this step or a few, and saving; once more ends at once\n")
        elif ranks()[1] == 1 or time.monotonic() - self._since > self.LAUNCHER_REPEATS:
            os._exit(128 + number)


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


def write_json(path: Path, content: object) -> None:
    """Write JSON, arrays included, NaN and infinite numbers as null, whole or not at all."""
    import json_tricks

    text = json_tricks.dumps(finite_or_none(content), primitives=True, indent=1)
    with written_whole(path) as scratch:
        scratch.write_text(text + "\n", encoding="utf-8")


def finite_or_none(value: Any) -> Any:
    """NaN and infinite numbers, such as a score of joints that are nowhere labelled, as None, which JSON has."""
    if isinstance(value, dict):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return finite_or_none(value.tolist())
    if isinstance(value, (list, tuple)):
        return [finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
