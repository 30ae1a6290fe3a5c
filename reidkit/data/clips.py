"""Which frames of a tracklet make a clip, in training and at test time: functions of lengths."""

# T frames of a clip, n frames of a tracklet

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from reidkit.errors import ConfigError, DataError, suggest
from reidkit.types import Dataset, Item, Sample, Tracklet

ClipRule = Literal["tclnet", "bicnet", "ap3d", "first"]
RULES: tuple[ClipRule, ...] = get_args(ClipRule)
AP3D_FRAMES = 32


def sample_clip(n: int, *, T: int, stride: int, rng: np.random.Generator) -> list[int]:
    """Frames of a training clip, as the authors' family of repositories draws them.

    n >= T * stride: every stride-th from a start that is uniform in 0 .. n - (T-1) * stride - 1.
    n >= T: T different ones, in order. Fewer: T drawn with replacement, in order.
    """
    if n >= T * stride:
        start = int(rng.integers(n - (T - 1) * stride))
        return [start + stride * k for k in range(T)]
    drawn: list[int] = rng.choice(n, T, replace=n < T).tolist()
    return sorted(drawn)


def cover(n: int, *, T: int, rule: ClipRule = "tclnet") -> list[tuple[int, ...]]:
    """Clips that a tracklet is embedded by; the tracklet's feature is the mean over clips, each
    with the weight that `clip_weight` says.

    tclnet: all frames in consecutive clips of T, the last filled up by looping its own frames.
    bicnet: all frames, the tracklet filled up from its start, then consecutive clips of T.
    ap3d: consecutive clips of 32, the last as short as it is.
    first: one clip from the first frame on, with the largest stride of 8, 4, 2, 1 that fits; the
        frames looped where there are fewer than T. The quick test during the authors' training.
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
    """1, or the number of frames where the mean runs over frames."""
    return float(len(clip)) if rule == "ap3d" else 1.0


def check_rule(name: str) -> ClipRule:
    """The rule of that name.

    Raises:
        ConfigError: if there is none.
    """
    for rule in RULES:
        if name == rule:
            return rule
    raise ConfigError(f"unknown clip rule {name!r}. {suggest(name, RULES)}")


def cut(tracklet: Tracklet, dense: int) -> list[Tracklet]:
    """floor(n / dense) chunks of `dense` frames, the last takes the rest; whole if n < dense."""
    chunks = max(len(tracklet.frames) // dense, 1)
    edges = [dense * k for k in range(chunks)] + [len(tracklet.frames)]
    return [Tracklet(tracklet.frames[a:b]) for a, b in itertools.pairwise(edges)]


def train_items(dataset: Dataset) -> list[Item]:
    """What an epoch draws from: images and tracklets, cut where the data set says so.

    Raises:
        DataError: if there is nothing to train on.
    """
    items: list[Item] = []
    for item in dataset.train:
        if isinstance(item, Tracklet) and dataset.dense:
            items += cut(item, dataset.dense)
        else:
            items.append(item)
    if not items:
        raise DataError(f"{dataset.name} has no training images")
    return items


def has_tracklets(items: Sequence[Item]) -> bool:
    """Whether a network learns clips from these."""
    return any(isinstance(item, Tracklet) for item in items)


def frames_of(item: Item) -> tuple[Sample, ...]:
    """An image is a tracklet of one frame."""
    return item.frames if isinstance(item, Tracklet) else (item,)
