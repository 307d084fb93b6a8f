"""Several processes: ranks, gathering, broadcasting and barriers."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from typing import Any


def ranks() -> tuple[int, int]:
    """This process's rank and the number of processes, from `paddle.distributed.launch`'s environment."""
    return int(os.environ.get("PADDLE_TRAINER_ID", 0)), int(os.environ.get("PADDLE_TRAINERS_NUM", 1))


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
    """Broadcast the first process's batch-norm statistics: each process has seen different batches."""
    if ranks()[1] == 1:
        return
    import paddle.distributed

    for tensor in model.state_dict().values():
        if tensor.stop_gradient:
            paddle.distributed.broadcast(tensor, src=0)


def wait_for_all() -> None:
    """A barrier without a timeout: wait until every process has called it as often as this one.

    Gloo's collectives time out after 30 seconds, and the first process alone saves and scores. Call this wherever
    processes may drift apart by more than that, but not in every step: it takes a fifth of a second.
    """
    rank, num_ranks = ranks()
    if num_ranks == 1:
        return
    from paddle.base import core

    store = core.create_or_get_global_tcp_store()  # the store that the processes used for their rendezvous
    count = store.add(f"arrived/{rank}", 1)
    pause = 0.001
    for other in range(num_ranks):
        while store.add(f"arrived/{other}", 0) < count:
            time.sleep(pause)
            pause = min(2 * pause, 0.1)


@contextlib.contextmanager
def first_failure_first() -> Iterator[None]:
    """Let the process that failed first exit first: the launcher shows its error only, not the errors it causes."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # as Paddle raises them
        if ranks()[1] > 1 and re.search("gloo|nccl|tcp", str(error), re.IGNORECASE):
            time.sleep(10)  # the launcher polls every three seconds
        raise


def any_rank(*flags: bool) -> list[bool]:
    """For each flag, whether any process has it set. All must call it after the same step."""
    if ranks()[1] == 1:
        return list(flags)
    import paddle.distributed

    votes = paddle.to_tensor([int(flag) for flag in flags])
    paddle.distributed.all_reduce(votes, paddle.distributed.ReduceOp.MAX)
    return votes.numpy().astype(bool).tolist()
