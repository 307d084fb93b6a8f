"""Batches: their order, and the threads that make them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simplepose.core.threads import results_in_order
from simplepose.data.dataset import Batch, PoseDataset


class BatchSampler:
    """Which rows form which batch, a function of seed, epoch and rank alone.

    With several processes the order is padded to a whole number per process by repeating its start, so that all of them
    make the same number of steps.
    """

    def __init__(self, length: int, batch_size: int, shuffle: bool, seed: int = 0, rank: int = 0, num_ranks: int = 1):
        self.length = length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.num_ranks = num_ranks

    def __len__(self) -> int:
        per_rank = -(-self.length // self.num_ranks)
        return -(-per_rank // self.batch_size)

    @property
    def order(self) -> dict[str, int | bool]:
        """What determines an epoch's batches; an interrupted epoch can be resumed only with the same values."""
        return {
            "iterations": len(self),
            "samples": self.length,
            "batch size": self.batch_size,
            "processes": self.num_ranks,
            "shuffled": self.shuffle,
            "seed": self.seed,
        }

    def batches(self, epoch: int) -> list[list[int]]:
        """The rows of every batch of this rank in this epoch."""
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
        per_rank = -(-self.length // self.num_ranks)
        order = np.resize(order, per_rank * self.num_ranks)[self.rank :: self.num_ranks].tolist()
        return [order[start : start + self.batch_size] for start in range(0, per_rank, self.batch_size)]


class DistributedBatches:
    """The batches of an evaluation, in order, distributed over the processes in turn.

    Every batch is the one that a single process would make: no sample is predicted twice, and the scores are the same
    to the last digit. A process may get none.
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, num_ranks: int = 1):
        self.length = length
        self.batch_size = batch_size
        self.rank = rank
        self.num_ranks = num_ranks

    def __len__(self) -> int:
        return len(self.batches())

    def batches(self, epoch: int = 0) -> list[list[int]]:
        """The rows of every batch of this rank; the same in every epoch."""
        del epoch
        rows = list(range(self.length))
        starts = range(0, self.length, self.batch_size)
        return [rows[start : start + self.batch_size] for start in starts][self.rank :: self.num_ranks]


class BatchLoader:
    """Iterates over an epoch's batches, made ahead of time by `workers` threads (0: made on demand).

    Threads, not processes: nearly all the time goes into OpenCV's decoding and warping, which release the GIL.
    Nothing is copied between processes, and exceptions arrive unchanged.
    """

    def __init__(
        self,
        dataset: PoseDataset,
        sampler: BatchSampler | DistributedBatches,
        workers: int,
        most: int | None = None,
    ):
        self.dataset = dataset
        self.sampler = sampler
        self.workers = workers
        self.most = most

    def __len__(self) -> int:
        return len(self.sampler) if self.most is None else min(self.most, len(self.sampler))

    def take(self, count: int) -> BatchLoader:
        """A loader of the first `count` batches of every epoch, or of all if there are fewer."""
        return BatchLoader(self.dataset, self.sampler, self.workers, count)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the epoch's batches in order, from number `start` on."""
        batches = self.sampler.batches(epoch)[start : self.most]
        if self.workers == 0:
            for indices in batches:
                yield self.dataset.load_batch(indices, epoch)
            return
        yield from results_in_order(self.dataset.load_batch, ((rows, epoch) for rows in batches), self.workers)
