"""Starting Paddle: what its CPU libraries read when they load, set before they do."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import logging.handlers
import os
import platform
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from simplepose.machine.device import available_cores

logger = logging.getLogger("simplepose")


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


def _is_amd_with_avx2() -> bool:
    if platform.system() == "Linux":
        try:
            info = Path("/proc/cpuinfo").read_text()
        except OSError:
            return False
        return "AuthenticAMD" in info and " avx2" in info
    return "AuthenticAMD" in platform.processor()  # Windows; Apple and Arm machines have no MKL
