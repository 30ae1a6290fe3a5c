"""Embeddings of splits and of your own images, with what a features file stores.

Under torchrun the processes share a split: each one embeds a contiguous part of it.
"""

# N images or tracklets, D embedding

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.choices import ClipRule, ImageBackend
from reidkit.data.clips import has_tracklets
from reidkit.errors import DataError
from reidkit.features import Features
from reidkit.runtime.crops import Runtime, as_embedder
from reidkit.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from reidkit.runtime.embedder import Embedder
from reidkit.runtime.image_files import Progress, embed_images, embed_tracklets
from reidkit.types import ROLES, Dataset, Item, Split, frames

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractionSettings:
    """How embeddings are computed.

    Attributes:
        flip: add the embedding of the mirrored image.
        clips: how tracklets are divided into clips (`data.clips.test_clips`); an image network
            embeds every frame on its own.
        batch: images or frames per batch; None: `image_files.default_batch`.
        image_backend: what decodes and resizes images (`data.pixels.image_reader`).
    """

    flip: bool = False
    clips: ClipRule = "tclnet"
    batch: int | None = None
    image_backend: ImageBackend = "pillow"


_DEFAULTS = ExtractionSettings()

NORM_TOLERANCE = 1e-3
"""Of L2-normalised rows that a model computed in float16."""


def extract_split(
    embedder: Embedder | Runtime,
    dataset: Dataset,
    split: Split,
    settings: ExtractionSettings = _DEFAULTS,
    *,
    group: ProcessGroup = SINGLE_PROCESS,
    on_progress: Progress | None = None,
) -> Features:
    """Embeddings of a split with its labels, ready for a features file.

    Args:
        group: the processes that share the split; each of them gets all rows.

    Raises:
        DataError: the split is empty or an image cannot be read.
    """
    embedder = as_embedder(embedder)
    items: tuple[Item, ...] = getattr(dataset, split)
    if not items:
        raise DataError(f"{dataset.name} has no {split} split")
    video = has_tracklets(items)
    paths = [[dataset.root / frame.path for frame in frames([item])] for item in group.shard(items)]
    rows = _embed_shard(embedder, paths, settings, group, on_progress)
    return Features(
        features=rows,
        pids=np.array([item.pid for item in items], np.int64),
        camids=np.array([item.camid for item in items], np.int64),
        paths=tuple(item.path for item in items),
        roles=np.array([ROLES.index(item.role) for item in items], np.uint8),
        attributes={
            **_origin(embedder, settings, rows, video=video),
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint,
            "protocol": dataset.protocol,
            "synthetic": dataset.synthetic,
            "split": split,
        },
    )


def extract_images(
    embedder: Embedder | Runtime,
    tracklets: Sequence[Sequence[Path]],
    settings: ExtractionSettings = _DEFAULTS,
    *,
    group: ProcessGroup = SINGLE_PROCESS,
    on_progress: Progress | None = None,
) -> Features:
    """Embeddings of files without labels; pids and camids are -1.

    Args:
        tracklets: frames of each tracklet in order; an image is a tracklet of one frame. The first
            frame's path names the tracklet.
        group: the processes that share the tracklets; each of them gets all rows.

    Raises:
        DataError: an image cannot be read.
    """
    embedder = as_embedder(embedder)
    video = any(len(tracklet) > 1 for tracklet in tracklets)
    unknown = np.full(len(tracklets), -1, np.int64)
    rows = _embed_shard(embedder, group.shard(tracklets), settings, group, on_progress)
    return Features(
        features=rows,
        pids=unknown,
        camids=unknown,
        paths=tuple(tracklet[0].as_posix() for tracklet in tracklets),
        roles=np.zeros(len(tracklets), np.uint8),
        attributes=_origin(embedder, settings, rows, video=video),
    )


def _embed_shard(
    embedder: Embedder,
    tracklets: Sequence[Sequence[Path]],
    settings: ExtractionSettings,
    group: ProcessGroup,
    on_progress: Progress | None,
) -> NDArray[np.float32]:
    """float32 [N, D] of all processes' tracklets.

    Args:
        tracklets: those of this process.
    """
    rows = None
    if tracklets:  # there may be fewer of them than processes
        rows = _embed_items(embedder, tracklets, settings, on_progress)
    parts = [part for part in group.gather(rows) if part is not None]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _embed_items(
    embedder: Embedder,
    tracklets: Sequence[Sequence[Path]],
    settings: ExtractionSettings,
    on_progress: Progress | None,
) -> NDArray[np.float32]:
    """float32 [N, D]; an image network sees tracklets of one frame each as images."""
    options: dict[str, Any] = {
        "flip": settings.flip,
        "batch": settings.batch,
        "image_backend": settings.image_backend,
        "on_progress": on_progress,
    }
    if embedder.frames or any(len(tracklet) > 1 for tracklet in tracklets):
        return embed_tracklets(embedder, tracklets, clips=settings.clips, **options)
    return embed_images(embedder, [tracklet[0] for tracklet in tracklets], **options)


def _origin(
    embedder: Embedder, settings: ExtractionSettings, rows: NDArray[np.float32], *, video: bool
) -> dict[str, str | bool | int]:
    """Attributes of a features file: the model and how its rows were computed.

    Whether rows are L2-normalised is measured: an ONNX file may normalise, and averages over frames
    or mirrored images are not normalised even then.
    """
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    zero = int((norms == 0).sum())
    if zero:
        log.warning(
            "%d of %d embeddings are zero, which eval and search refuse: check %s",
            *(zero, len(rows), embedder.name),
        )
    return {
        "model": embedder.name,
        "model_sha256": embedder.source_hash,
        "preprocess": embedder.preprocess.to_json(),
        "frames": embedder.frames,
        "clips": settings.clips if video else "",
        "flip": settings.flip,
        "image_backend": settings.image_backend,
        "normalised": bool(len(rows) and np.abs(norms - 1).max() < NORM_TOLERANCE),
    }
