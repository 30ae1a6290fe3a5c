"""Identities kept out of training, to choose a checkpoint by people who are not the test's."""

from __future__ import annotations

import dataclasses

import numpy as np

from reidkit.errors import DataError
from reidkit.types import Dataset, Item


def hold_out(dataset: Dataset, *, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """The data set without, and one of only, a share of its training identities.

    The share is drawn by the seed. Of a held-out person, the first item of each camera is a query
    and the others are the gallery.

    Raises:
        DataError: if fewer than two identities would be left on either side.
    """
    pids = sorted({item.pid for item in dataset.train})
    count = round(len(pids) * fraction)
    if count < 2 or len(pids) - count < 2:
        raise DataError(
            f"--val-fraction {fraction} of {len(pids)} training identities is {count}: both sides "
            "need two at least. Take another fraction, or 0 to choose by the test set"
        )
    held_out = set(np.random.default_rng([seed, 1]).permutation(pids)[:count].tolist())
    query: dict[tuple[int, int], Item] = {}
    gallery: list[Item] = []
    for item in dataset.train:
        if item.pid in held_out and query.setdefault((item.pid, item.camid), item) is not item:
            gallery.append(item)
    if not gallery:
        raise DataError(
            "the held-out identities have one image per camera, so there is no gallery to find "
            "them in. Take --val-fraction 0"
        )
    kept = tuple(item for item in dataset.train if item.pid not in held_out)
    return (
        dataclasses.replace(dataset, train=kept),
        dataclasses.replace(
            dataset,
            name=f"{dataset.name} validation",
            train=(),
            query=tuple(query.values()),
            gallery=tuple(gallery),
        ),
    )
