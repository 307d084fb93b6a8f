"""Cores, devices and seeds."""

from __future__ import annotations

import logging
import os
import random
import sys

import numpy as np

from simplepose.core.errors import UserError

logger = logging.getLogger("simplepose")

CORES_VARIABLE = "SIMPLEPOSE_CORES"  # set for one of several processes that share a machine
LAUNCHERS_GPUS = "FLAGS_selected_gpus"  # set by `paddle.distributed.launch` on a machine with GPUs


def available_cores() -> int:
    """Processors this process may use; a container, taskset or `CORES_VARIABLE` may allow fewer than there are."""
    if os.environ.get(CORES_VARIABLE, "").isdecimal():
        return max(1, int(os.environ[CORES_VARIABLE]))
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    elif given := os.environ.get(LAUNCHERS_GPUS):  # one process has them as well, and Paddle then knows no others
        paddle.set_device(f"gpu:{given.split(',')[0]}")
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
    """Section CUDNN: let cuDNN search for fast algorithms, or use only bitwise reproducible ones (takes precedence)."""
    import paddle

    if paddle.is_compiled_with_cuda():
        search = benchmark and not deterministic  # Paddle raises for both at once
        paddle.set_flags({"FLAGS_cudnn_exhaustive_search": search, "FLAGS_cudnn_deterministic": deterministic})


def set_seeds(seed: int) -> None:
    """Seed Python, numpy and Paddle. Augmentation and data order have generators of their own."""
    import paddle

    random.seed(seed)
    np.random.seed(seed % 2**32)
    paddle.seed(seed)
