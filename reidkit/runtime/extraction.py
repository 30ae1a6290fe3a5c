"""Embeddings of a data set's split, or of your own images, with everything a features file stores.

Under torchrun the processes share a split: each one embeds a contiguous part of it.
"""

# N images or tracklets, D embedding

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reidkit.choices import ClipRule
from reidkit.data.clips import has_tracklets
from reidkit.errors import DataError
from reidkit.features import Features
from reidkit.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from reidkit.runtime.embedder import Embedder, embed_images, embed_tracklets
from reidkit.types import ROLES, Dataset, Item, Split, frames

Progress = Callable[[int, int], None]
"""on_progress(done, total), in images or tracklets of this process."""


def extract_split(
    embedder: Embedder,
    dataset: Dataset,
    split: Split,
    *,
    flip: bool = False,
    batch: int = 64,
    clips: ClipRule = "tclnet",
    group: ProcessGroup = SINGLE_PROCESS,
    on_progress: Progress | None = None,
) -> Features:
    """Embeddings of a split with its labels, ready for a features file.

    Args:
        flip: add the embedding of the mirrored image.
        batch: images per batch.
        clips: how tracklets are divided into clips (`data.clips`).
        group: the processes that share the split; each of them gets all rows.

    Raises:
        DataError: the split is empty or an image cannot be read.
    """
    items: tuple[Item, ...] = getattr(dataset, split)
    if not items:
        raise DataError(f"{dataset.name} has no {split} split")
    video = has_tracklets(items)
    own = group.shard(items)
    rows: NDArray[np.float32] | None = None
    if own:  # there may be fewer items than processes
        rows = _embed(
            embedder,
            [[dataset.root / frame.path for frame in frames([item])] for item in own],
            video=video,
            flip=flip,
            batch=batch,
            clips=clips,
            on_progress=on_progress,
        )
    return Features(
        features=np.concatenate([part for part in group.gather(rows) if part is not None]),
        pids=np.array([item.pid for item in items], np.int64),
        camids=np.array([item.camid for item in items], np.int64),
        paths=tuple(item.path for item in items),
        roles=np.array([ROLES.index(item.role) for item in items], np.uint8),
        attributes={
            **_origin(embedder, flip=flip, clips=clips if video else ""),
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint,
            "protocol": dataset.protocol,
            "synthetic": dataset.synthetic,
            "split": split,
        },
    )


def extract_images(
    embedder: Embedder,
    tracklets: Sequence[Sequence[Path]],
    *,
    flip: bool = False,
    batch: int = 64,
    clips: ClipRule = "tclnet",
    on_progress: Progress | None = None,
) -> Features:
    """Embeddings of files without labels; pids and camids are -1.

    Args:
        tracklets: frames of each tracklet in order; an image is a tracklet of one frame. The first
            frame's path names the tracklet.

    Raises:
        DataError: an image cannot be read.
    """
    video = any(len(tracklet) > 1 for tracklet in tracklets)
    unknown = np.full(len(tracklets), -1, np.int64)
    return Features(
        features=_embed(
            embedder,
            tracklets,
            video=video,
            flip=flip,
            batch=batch,
            clips=clips,
            on_progress=on_progress,
        ),
        pids=unknown,
        camids=unknown,
        paths=tuple(tracklet[0].as_posix() for tracklet in tracklets),
        roles=np.zeros(len(tracklets), np.uint8),
        attributes=_origin(embedder, flip=flip, clips=clips if video else ""),
    )


def _embed(
    embedder: Embedder,
    tracklets: Sequence[Sequence[Path]],
    *,
    video: bool,
    flip: bool,
    batch: int,
    clips: ClipRule,
    on_progress: Progress | None,
) -> NDArray[np.float32]:
    """float32 [N, D], not L2-normalised."""
    report = on_progress or (lambda done, total: None)
    if video:
        return embed_tracklets(
            embedder, tracklets, rule=clips, flip=flip, batch=batch, on_progress=report
        )
    paths = [tracklet[0] for tracklet in tracklets]
    return embed_images(embedder, paths, flip=flip, batch=batch, on_progress=report)


def _origin(embedder: Embedder, *, flip: bool, clips: str) -> dict[str, str | bool | int]:
    """Attributes of a features file: the model and how its rows were computed."""
    return {
        "model": embedder.name,
        "model_sha256": embedder.source_hash,
        "preprocess": embedder.preprocess.to_json(),
        "frames": embedder.frames,
        "clips": clips,
        "flip": flip,
        "normalised": False,
    }
