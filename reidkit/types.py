"""The types that travel between modules. Importing them costs nothing: no torch at run time."""

# B batch, T frames, H W pixels, h w feature map, P parts, D embedding, C classes

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "query", "gallery"]
SPLITS: tuple[Split, ...] = ("train", "query", "gallery")

Task = Literal["retrieval", "classification"]
"""What a data set is for: finding a person again, or telling classes apart (CIFAR-100)."""

Role = Literal["person", "junk", "distractor"]
ROLES: tuple[Role, ...] = ("person", "junk", "distractor")
"""In files and arrays a role is its position here."""

PARTS = ("head", "upper body", "lower body", "shoes")
"""The four body parts of IAUnet; a mask's index is the position here plus one, 0 is background."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of one person by one camera.

    Attributes:
        path: relative to the data set's root, with forward slashes.
        pid: identity as the data set numbers it (not a training label).
        camid: camera, as the data set numbers it.
        role: "junk" is left out of every ranking, a "distractor" is a true negative for everybody.
    """

    path: str
    pid: int
    camid: int
    role: Role = "person"


@dataclass(frozen=True, slots=True)
class Tracklet:
    """One person before one camera over time: at least one frame, in time order."""

    frames: tuple[Sample, ...]

    def __post_init__(self) -> None:
        assert self.frames, "a tracklet has at least one frame"

    @property
    def path(self) -> str:
        """The first frame's path, which names the tracklet."""
        return self.frames[0].path

    @property
    def pid(self) -> int:
        return self.frames[0].pid

    @property
    def camid(self) -> int:
        return self.frames[0].camid

    @property
    def role(self) -> Role:
        return self.frames[0].role


Item = Sample | Tracklet
"""What is ranked: one image or one tracklet."""


def frames(items: Iterable[Item]) -> Iterator[Sample]:
    """Every image of a split, whether it consists of images or of tracklets."""
    for item in items:
        yield from item.frames if isinstance(item, Tracklet) else (item,)


@dataclass(frozen=True)
class Dataset:
    """A data set read from disk. Its splits are sorted by path, so labels never depend on the
    file system.

    Attributes:
        name: the manifest's name; masks and runs are called after it.
        root: the folder that the samples' paths are relative to.
        protocol: the ranking rule's name (`retrieval.protocols`); "" for classification.
        fingerprint: sha256 over relative paths and labels of all splits, hexadecimal.
        synthetic: rendered by reidkit; its numbers cannot be compared with published ones.
        task: "retrieval", or "classification" of the training classes.
        dense: training cuts tracklets into chunks of so many frames (0: it does not).
    """

    name: str
    root: Path
    train: tuple[Item, ...]
    query: tuple[Item, ...]
    gallery: tuple[Item, ...]
    protocol: str
    fingerprint: str
    synthetic: bool = False
    dense: int = 0
    task: Task = "retrieval"


@dataclass(frozen=True)
class Batch:
    """What one training step sees.

    Attributes:
        images: normalised float32 [B, 3, H, W], or clips [B, T, 3, H, W].
        labels: int64 [B], training indices 0..N-1.
        camids: int64 [B].
        masks: uint8 part indices [B, h, w] ([B, T, h, w] for clips), or None.
        mask_sizes: int64 [B, 2] ([B, T, 2] for clips) on the CPU, (height, width) of the images
            that the masks were made for; None: the masks' own size.
    """

    images: Tensor
    labels: Tensor
    camids: Tensor
    masks: Tensor | None = None
    mask_sizes: Tensor | None = None


@dataclass(frozen=True)
class ModelOutput:
    """What `model(images)` returns, in training and in evaluation mode alike.

    Attributes:
        features: [B, D] for the metric loss.
        logits: each [B, C], the main classifiers (usually one).
        part_logits: each [B, C], classifiers of body stripes.
        deep_logits: each [B, C], deep supervision of earlier stages.
        part_maps: each [B, P, h, w] in [0, 1] ([B, T, P, h, w] for clips), attention over parts.
        class_maps: each [B, C, h, w], a classifier's response at every position.
    """

    features: Tensor
    logits: tuple[Tensor, ...]
    part_logits: tuple[Tensor, ...] = ()
    deep_logits: tuple[Tensor, ...] = ()
    part_maps: tuple[Tensor, ...] = ()
    class_maps: tuple[Tensor, ...] = ()
