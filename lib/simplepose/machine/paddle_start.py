"""Starts Paddle: sets the environment variables that its CPU libraries read while loading, then imports it."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import platform
import signal
import sys
import threading
import warnings
from collections.abc import Iterator

from simplepose.machine.device import available_cores
from simplepose.machine.provenance import cpu_info, processor_flags


def start_paddle() -> str:
    """Set the environment variables that Paddle's CPU libraries read while loading, then import Paddle.

    A variable that the user has set is kept. For the commands, which own their process; library code calls
    `import_paddle`.

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
    """Ask glibc to keep large blocks when they are freed, for reuse in the next step; returns whether it will.

    A training step frees and allocates gigabytes in pieces that glibc would return to the system each time, and every
    page that comes back must be zeroed first. If the user has set one of glibc's MALLOC_ variables, nothing is changed.
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
    """Import Paddle without its warnings about OMP_NUM_THREADS and a missing compiler cache.

    Nothing else of the process changes; signals are held back until it is done.
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
    """Block SIGINT and SIGTERM until the block ends, and restore their handlers.

    Paddle installs a handler for SIGTERM that allocates memory: a signal that arrives inside malloc, which is likely
    while libraries load, would deadlock. And Ctrl-C inside an import ends in a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
            for number, handler in handlers.items():
                if handler is not None:  # set by something other than Python
                    signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_amd_with_avx2() -> bool:
    if platform.system() == "Linux":
        return cpu_info("vendor_id") == "AuthenticAMD" and "avx2" in processor_flags()
    return "AuthenticAMD" in platform.processor()  # Windows; Apple and Arm machines have no MKL
