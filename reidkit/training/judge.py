"""Judging a network during training, each process embedding its share."""

# N items, D embedding

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from reidkit import retrieval
from reidkit.choices import ClipRule
from reidkit.config import EvalConfig
from reidkit.evaluation import CLASSIFICATION, Split, as_embeddings, embed_split
from reidkit.features import Features
from reidkit.retrieval import Report
from reidkit.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from reidkit.runtime.embedder import Embedder
from reidkit.types import Dataset, Item


def judge(
    embedder: Embedder, dataset: Dataset, test: EvalConfig, *, group: ProcessGroup = SINGLE_PROCESS
) -> Report:
    """mAP, mINP and CMC on query and gallery; the same report in every process."""
    query, gallery = (
        as_embeddings(
            embed_over_group(
                embedder, dataset, split, flip=test.flip, batch=test.batch, group=group
            ),
            split,
        )
        for split in ("query", "gallery")
    )
    report = None
    if group.is_main:
        report = retrieval.evaluate(query, gallery, protocol=dataset.protocol, metric=test.metric)
    report = group.broadcast(report)
    assert report is not None
    return report


def _with_split(dataset: Dataset, split: Split, items: tuple[Item, ...]) -> Dataset:
    changed: dict[str, Any] = {split: items}
    return dataclasses.replace(dataset, **changed)


def embed_over_group(
    embedder: Embedder,
    dataset: Dataset,
    split: Split,
    *,
    flip: bool,
    batch: int,
    clips: ClipRule = "tclnet",
    group: ProcessGroup = SINGLE_PROCESS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """`embed_split` with the split's items shared out over the group; all rows in every process.

    Raises:
        DataError: if the split is empty or an image cannot be read.
    """
    if dataset.task == CLASSIFICATION and split == "gallery":
        return embed_split(embedder, dataset, split)  # one row per class: nothing to share out
    items = getattr(dataset, split)
    mine = _with_split(dataset, split, tuple(group.shard(items)))
    found = None
    if getattr(mine, split) or not items:
        found = embed_split(
            embedder,
            mine,
            split,
            flip=flip,
            batch=batch,
            clips=clips,
            on_progress=on_progress,
        )
    parts = [part for part in group.gather(found) if part is not None]
    return Features(
        features=np.concatenate([part.features for part in parts]),
        pids=np.concatenate([part.pids for part in parts]),
        camids=np.concatenate([part.camids for part in parts]),
        paths=tuple(path for part in parts for path in part.paths),
        roles=np.concatenate([part.roles for part in parts]),
        attributes=parts[0].attributes,
    )
