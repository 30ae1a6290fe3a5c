"""Composition of training batches: a pure function of seed and epoch, so that a run resumed at any
step of any epoch sees the same batches.
"""

# P identities in a batch, K samples of each

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reidkit.config import SamplerConfig
from reidkit.errors import DataError


@dataclass(frozen=True)
class SampleKey:
    """One sample of one batch: its index in the split, and the seed of its augmentation."""

    index: int
    seed: tuple[int, int, int]  # run's seed, epoch, position in the epoch


def epoch_batches(
    labels: Sequence[int], sampler: SamplerConfig, *, seed: int, epoch: int
) -> list[list[int]]:
    """Indices of every full batch of an epoch; an incomplete last batch is dropped.

    groups: each identity's images are shuffled and divided into groups of K (an identity with fewer
        than K is sampled K times with replacement, remainders are dropped), then the groups of all
        identities are shuffled. An epoch sees nearly all images, and an identity may have two
        groups in a batch (IAUnet).
    pk: every identity once, K of its images, without replacement where it has K (RGA).
    shuffle: every image once (PFSA).

    Raises:
        DataError: if there are too few samples for one batch.
    """
    rng = np.random.default_rng([seed, epoch])
    order = {"groups": _groups, "pk": _pk, "shuffle": _shuffle}[sampler.kind](
        np.asarray(labels), sampler.samples_per_id, rng
    )
    full = len(order) // sampler.batch
    if full == 0:
        raise DataError(
            f"{len(set(labels))} identities give {len(order)} samples per epoch, fewer than one "
            f"batch of {sampler.batch}. Set --batch {max(len(order), sampler.samples_per_id)}"
        )
    return order[: full * sampler.batch].reshape(full, sampler.batch).tolist()


def _groups(labels: NDArray[np.int64], K: int, rng: np.random.Generator) -> NDArray[np.int64]:
    groups = []
    for images in _by_label(labels):
        images = rng.permutation(images)
        if len(images) < K:
            images = rng.choice(images, K)
        groups.append(images[: len(images) // K * K].reshape(-1, K))
    return rng.permutation(np.concatenate(groups)).reshape(-1)


def _pk(labels: NDArray[np.int64], K: int, rng: np.random.Generator) -> NDArray[np.int64]:
    rows = []
    images = _by_label(labels)
    for label in rng.permutation(len(images)):
        rows.append(rng.choice(images[label], K, replace=len(images[label]) < K))
    return np.concatenate(rows)


def _by_label(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Indices of each label's images, ascending, in the order of the labels."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    return np.split(order, starts)


def _shuffle(labels: NDArray[np.int64], K: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.permutation(len(labels))


class TrainBatches:
    """The data loader's batch sampler: every remaining batch of a run, as lists of `SampleKey`.

    It iterates over all epochs in one pass, so that workers and prefetching never stop in between.

    Args:
        labels: training labels of the split.
        start: (epoch, step) to begin with.
        shard: (rank, size): of a global batch that `size` processes share, process `rank` gets the
            rank-th slice. Samples of an identity are consecutive, so slices hold whole identities.
    """

    def __init__(
        self,
        labels: Sequence[int],
        sampler: SamplerConfig,
        *,
        seed: int,
        epochs: int,
        start: tuple[int, int] = (0, 0),
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.labels = labels
        self.sampler = sampler
        self.seed = seed
        self.epochs = epochs
        self.start = start
        self.shard = shard

    def epoch(self, epoch: int) -> list[list[SampleKey]]:
        """All global batches of one epoch."""
        batch = self.sampler.batch
        indices = epoch_batches(self.labels, self.sampler, seed=self.seed, epoch=epoch)
        return [
            [
                SampleKey(index, (self.seed, epoch, step * batch + position))
                for position, index in enumerate(row)
            ]
            for step, row in enumerate(indices)
        ]

    def __iter__(self) -> Iterator[list[SampleKey]]:
        first_epoch, first_step = self.start
        rank, size = self.shard
        share = self.sampler.batch // size
        for epoch in range(first_epoch, self.epochs):
            skipped = first_step if epoch == first_epoch else 0
            for batch in self.epoch(epoch)[skipped:]:
                yield batch[rank * share : (rank + 1) * share]
