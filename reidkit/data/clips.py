"""Selection of a tracklet's frames for training and test clips, as functions of its length."""

# T frames of a clip, n frames of a tracklet

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from reidkit.choices import ClipRule
from reidkit.errors import DataError
from reidkit.types import Dataset, Item, Tracklet

AP3D_FRAMES = 32


def sample_clip(n: int, *, T: int, stride: int, rng: np.random.Generator) -> list[int]:
    """Frames of a training clip, as in the authors' repositories (TCLNet, BiCnet, AP3D).

    n >= T * stride: every stride-th from a start that is uniform in 0 .. n - (T-1) * stride - 1.
    n >= T: T distinct frames, in order. n < T: T frames with replacement, in order.
    """
    if n >= T * stride:
        start = int(rng.integers(n - (T - 1) * stride))
        return [start + stride * k for k in range(T)]
    chosen: list[int] = rng.choice(n, T, replace=n < T).tolist()
    return sorted(chosen)


def test_clips(n: int, *, T: int, rule: ClipRule = "tclnet") -> list[tuple[int, ...]]:
    """Clips that a tracklet is embedded by. Its feature is their mean, weighted by `clip_weight`.

    tclnet: all frames in consecutive clips of T, the last one filled by repeating its own frames.
    bicnet: all frames in consecutive clips of T, the last one filled from the tracklet's start.
    ap3d: consecutive clips of 32, the last one shorter.
    first: one clip from the first frame, with the largest stride of 8, 4, 2, 1 that fits; frames
        are repeated if there are fewer than T. The quick test of the authors' training code.
    """
    if rule == "first":
        stride = next((s for s in (8, 4, 2, 1) if n >= (T - 1) * s + 1), 1)
        return [tuple(stride * k % n for k in range(T))]
    if rule == "bicnet":
        return [tuple((start + k) % n for k in range(T)) for start in range(0, n, T)]
    step = AP3D_FRAMES if rule == "ap3d" else T
    clips = [tuple(range(start, min(start + step, n))) for start in range(0, n, step)]
    if rule == "ap3d":
        return clips
    return [tuple(clip[k % len(clip)] for k in range(T)) for clip in clips]


def clip_weight(clip: Sequence[int], rule: ClipRule) -> float:
    """1, or the number of frames where the mean is over frames (ap3d)."""
    return float(len(clip)) if rule == "ap3d" else 1.0


def split_tracklet(tracklet: Tracklet, length: int) -> list[Tracklet]:
    """floor(n / length) chunks of `length` frames, the last with the rest; whole if shorter."""
    chunks = max(len(tracklet.frames) // length, 1)
    edges = [length * k for k in range(chunks)] + [len(tracklet.frames)]
    return [Tracklet(tracklet.frames[a:b]) for a, b in itertools.pairwise(edges)]


def train_items(dataset: Dataset) -> list[Item]:
    """The training split as the sampler sees it: tracklets in chunks if `dataset.dense` is set.

    Raises:
        DataError: if it is empty.
    """
    items: list[Item] = []
    for item in dataset.train:
        if isinstance(item, Tracklet) and dataset.dense:
            items += split_tracklet(item, dataset.dense)
        else:
            items.append(item)
    if not items:
        raise DataError(f"{dataset.name} has no training images")
    return items


def has_tracklets(items: Sequence[Item]) -> bool:
    """Whether a network is trained on clips of these."""
    return any(isinstance(item, Tracklet) for item in items)
