"""Which images make which batch: a pure function of seed and epoch, so that any step of any epoch
can be drawn again.
"""

# P identities in a batch, K samples of each

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError

SamplerKind = Literal["groups", "pk", "shuffle"]


@dataclass(frozen=True)
class SampleKey:
    """One image of one batch: its index in the split, and the seed of its augmentation."""

    index: int
    seed: tuple[int, int, int]  # run's seed, epoch, position in the epoch


def epoch_batches(
    labels: Sequence[int],
    *,
    kind: SamplerKind,
    batch: int,
    samples_per_id: int,
    seed: int,
    epoch: int,
) -> list[list[int]]:
    """Indices of every full batch of an epoch; what is left over is dropped.

    groups: the images of each id are shuffled and cut into groups of K (an id with fewer than K is
        drawn K times with replacement, remainders are dropped) and the groups of all ids are
        shuffled, so an epoch sees nearly all images and a batch may hold an id twice (IAUnet).
    pk: every id once, K of its images, without replacement where it has K (RGA).
    shuffle: every image once (PFSA).

    Raises:
        DataError: if the data make no full batch.
    """
    rng = np.random.default_rng([seed, epoch])
    order = {"groups": _groups, "pk": _pk, "shuffle": _shuffle}[kind](
        np.asarray(labels), samples_per_id, rng
    )
    full = len(order) // batch
    if full == 0:
        raise DataError(
            f"{len(set(labels))} identities give {len(order)} samples in an epoch, fewer than one "
            f"batch of {batch}. Use a smaller one: --batch {max(len(order), samples_per_id)}"
        )
    return order[: full * batch].reshape(full, batch).tolist()


def _groups(labels: NDArray[np.int64], K: int, rng: np.random.Generator) -> NDArray[np.int64]:
    groups = []
    for label in np.unique(labels):
        images = rng.permutation(np.flatnonzero(labels == label))
        if len(images) < K:
            images = rng.choice(images, K)
        groups.append(images[: len(images) // K * K].reshape(-1, K))
    return rng.permutation(np.concatenate(groups)).reshape(-1)


def _pk(labels: NDArray[np.int64], K: int, rng: np.random.Generator) -> NDArray[np.int64]:
    rows = []
    for label in rng.permutation(np.unique(labels)):
        images = np.flatnonzero(labels == label)
        rows.append(rng.choice(images, K, replace=len(images) < K))
    return np.concatenate(rows)


def _shuffle(labels: NDArray[np.int64], K: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.permutation(len(labels))


class TrainBatches:
    """Every batch of a run from a step of an epoch on, as lists of `SampleKey`: the loader's batch
    sampler. Of a batch that `size` processes share, process `rank` gets the rank-th slice; as
    groups of one identity stand together, slices hold whole identities.

    One pass over all epochs, so that workers and prefetching never stop between them.
    """

    def __init__(
        self,
        labels: Sequence[int],
        *,
        kind: SamplerKind,
        batch: int,
        samples_per_id: int,
        seed: int,
        epochs: int,
        start_epoch: int = 0,
        start_step: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.labels = labels
        self.kind: SamplerKind = kind
        self.batch = batch
        self.samples_per_id = samples_per_id
        self.seed = seed
        self.epochs = epochs
        self.start_epoch = start_epoch
        self.start_step = start_step
        self.share = share

    def epoch(self, epoch: int) -> list[list[SampleKey]]:
        batches = epoch_batches(
            self.labels,
            kind=self.kind,
            batch=self.batch,
            samples_per_id=self.samples_per_id,
            seed=self.seed,
            epoch=epoch,
        )
        return [
            [
                SampleKey(index, (self.seed, epoch, step * self.batch + place))
                for place, index in enumerate(indices)
            ]
            for step, indices in enumerate(batches)
        ]

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for epoch in range(self.start_epoch, self.epochs):
            first = self.start_step if epoch == self.start_epoch else 0
            rank, size = self.share
            part = self.batch // size
            for batch in self.epoch(epoch)[first:]:
                yield batch[rank * part : (rank + 1) * part]
