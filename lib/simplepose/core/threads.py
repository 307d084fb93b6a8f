"""Work done ahead of time by threads, for functions that release the GIL, as OpenCV's do."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, TypeVar

Result = TypeVar("Result")


def results_in_order(function: Callable[..., Result], calls: Iterable[tuple], workers: int) -> Iterator[Result]:
    """function(*call) for every call, in order; each worker has one in work, and one more is ready.

    Exceptions arrive unchanged. When this generator is closed, nothing more is begun.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        pending: deque = deque()
        for call in calls:
            pending.append(pool.submit(function, *call))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
