"""Embed query and gallery, rank them by the data set's protocol."""

# N images, D embedding

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from reidkit import retrieval
from reidkit.choices import ClipRule
from reidkit.data.clips import has_tracklets
from reidkit.errors import DataError
from reidkit.features import Features
from reidkit.retrieval import Embeddings, Report, RerankConfig, get_protocol
from reidkit.retrieval.distance import check_metric
from reidkit.runtime.embedder import Classifier, Embedder, embed_images, embed_tracklets
from reidkit.types import ROLES, Dataset, frames

Split = Literal["train", "query", "gallery"]
CLASSIFICATION = "classification"


def embed_split(
    embedder: Embedder,
    dataset: Dataset,
    split: Split,
    *,
    flip: bool = False,
    batch: int = 64,
    clips: ClipRule = "tclnet",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """Embeddings of a whole split with what the data set knows of it, ready for a features file.

    Where classes are to be told apart (protocol "classification"), a query's row is the
    classifier's probabilities and the gallery has one unit vector per class, in the order of
    training labels: the nearest class is the likeliest, and rank-k is top-k accuracy.

    Args:
        clips: how a tracklet is taken apart (`data.clips.test_clips`).

    Raises:
        DataError: if the split is empty or an image cannot be read.
        ConfigError: if classes are to be told apart and the network has no classifier.
    """
    items = getattr(dataset, split)
    if dataset.task == CLASSIFICATION and split != "train":
        classes = sorted({item.pid for item in dataset.train})
        if split == "gallery":
            return _class_vectors(embedder, dataset, classes)
        embedder = Classifier(embedder)
    if not items:
        raise DataError(f"{dataset.name} has no {split} split")
    shared: dict[str, Any] = {"flip": flip, "batch": batch, "on_progress": on_progress}
    if has_tracklets(items):
        tracklets = [[dataset.root / frame.path for frame in frames([item])] for item in items]
        rows = embed_tracklets(embedder, tracklets, rule=clips, **shared)
    else:
        rows = embed_images(embedder, [dataset.root / item.path for item in items], **shared)
    return Features(
        features=rows,
        pids=np.array([item.pid for item in items], np.int64),
        camids=np.array([item.camid for item in items], np.int64),
        paths=tuple(item.path for item in items),
        roles=np.array([ROLES.index(item.role) for item in items], np.uint8),
        attributes={
            **provenance(embedder, flip=flip, clips=clips if has_tracklets(items) else ""),
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint,
            "protocol": dataset.protocol,
            "split": split,
        },
    )


def _class_vectors(embedder: Embedder, dataset: Dataset, classes: list[int]) -> Features:
    C = len(classes)
    return Features(
        features=np.eye(C, dtype=np.float32),
        pids=np.array(classes, np.int64),
        camids=np.zeros(C, np.int64),
        paths=("",) * C,
        roles=np.zeros(C, np.uint8),
        attributes={
            **provenance(embedder, flip=False),
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint,
            "protocol": dataset.protocol,
            "split": "gallery",
        },
    )


def embed_own(
    embedder: Embedder,
    tracklets: Sequence[Sequence[Path]],
    *,
    rule: ClipRule = "tclnet",
    flip: bool = False,
    batch: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """The same of anybody's own frames, whose identities are not known; an image is a tracklet of
    one frame, and a tracklet is called after its first.

    Raises:
        DataError: if an image cannot be read.
    """
    shared: dict[str, Any] = {"flip": flip, "batch": batch, "on_progress": on_progress}
    if all(len(frames) == 1 for frames in tracklets):
        rows = embed_images(embedder, [frames[0] for frames in tracklets], **shared)
    else:
        rows = embed_tracklets(embedder, tracklets, rule=rule, **shared)
    unknown = np.full(len(tracklets), -1, np.int64)
    return Features(
        features=rows,
        pids=unknown,
        camids=unknown,
        paths=tuple(frames[0].as_posix() for frames in tracklets),
        roles=np.zeros(len(tracklets), np.uint8),
        attributes=provenance(embedder, flip=flip, clips=rule),
    )


def provenance(embedder: Embedder, *, flip: bool, clips: str = "") -> dict[str, str | bool | int]:
    """Attributes of a features file that tell how its rows were made."""
    return {
        "model": embedder.name,
        "model_sha256": embedder.source_hash,
        "preprocess": embedder.preprocess.to_json(),
        "frames": embedder.frames,
        "clips": clips,
        "flip": flip,
        "normalised": False,
    }


def as_embeddings(features: Features, name: str) -> Embeddings:
    """Features as `retrieval` takes them; `name` is what error messages call them.

    Raises:
        DataError: if a row is not finite or is zero.
    """
    return Embeddings(features.features, features.pids, features.camids, features.roles, name)


@dataclass(frozen=True)
class Ranking:
    """How features are ranked.

    Attributes:
        protocol: a ranking rule; None is the data set's.
        rerank: also judge after k-reciprocal re-ranking.
        expand: neighbours that query expansion adds to each query (0: none), weighted by
            cosine^alpha.
        augment: neighbours that database augmentation adds to each gallery vector.
        max_memory: bytes above the features; None takes what is fast.
    """

    protocol: str | None = None
    metric: str = "cosine"
    rerank: RerankConfig | None = None
    expand: int = 0
    augment: int = 0
    alpha: float = 0.0
    max_memory: int | None = None

    def __post_init__(self) -> None:
        check_metric(self.metric)
        if self.protocol is not None:
            get_protocol(self.protocol)


def judge(
    query: Embeddings,
    gallery: Embeddings,
    ranking: Ranking,
    *,
    protocol: str = "market",
    device: torch.device | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Report]:
    """Reports of one ranking: "plain", and "re-ranked" where that is asked for.

    Args:
        protocol: the data set's, if `ranking` names none.
    """
    shared: dict[str, Any] = {
        "max_memory": ranking.max_memory,
        "device": device,
        "on_progress": on_progress,
    }
    if ranking.augment:
        gallery = retrieval.augment_database(
            gallery, n=ranking.augment, alpha=ranking.alpha, **shared
        )
    if ranking.expand:
        query = retrieval.expand_queries(
            query, gallery, n=ranking.expand, alpha=ranking.alpha, **shared
        )
    shared |= {"protocol": ranking.protocol or protocol, "metric": ranking.metric}
    reports = {
        "plain": retrieval.evaluate(query, gallery, thresholds=True, by_camera=True, **shared)
    }
    if ranking.rerank:
        reports["re-ranked"] = retrieval.evaluate(query, gallery, rerank=ranking.rerank, **shared)
    return reports


def evaluate(
    embedder: Embedder,
    dataset: Dataset,
    *,
    metric: str = "cosine",
    flip: bool = False,
    batch: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """mAP, mINP and CMC of a network on a data set's query and gallery, without re-ranking."""
    total = len(dataset.query) + len(dataset.gallery)
    query = embed_split(
        embedder,
        dataset,
        "query",
        flip=flip,
        batch=batch,
        on_progress=lambda done, _: on_progress(done, total),
    )
    gallery = embed_split(
        embedder,
        dataset,
        "gallery",
        flip=flip,
        batch=batch,
        on_progress=lambda done, _: on_progress(len(dataset.query) + done, total),
    )
    return retrieval.evaluate(
        as_embeddings(query, "query"),
        as_embeddings(gallery, "gallery"),
        protocol=dataset.protocol,
        metric=metric,
    )
