"""Silences C libraries, which print to file descriptors past Python."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def silenced(*descriptors: int) -> Iterator[None]:
    """Discard what is written to these file descriptors: 1 is standard output, 2 standard error."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {descriptor: os.dup(descriptor) for descriptor in descriptors}
    try:
        with open(os.devnull, "wb") as nothing:
            for descriptor in descriptors:
                os.dup2(nothing.fileno(), descriptor)
        yield
    finally:
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)
