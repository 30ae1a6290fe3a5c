"""Types shared by all modules. Importing them does not import torch."""

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
"""Re-identification, or classification of the training classes (CIFAR-100)."""

Role = Literal["person", "junk", "distractor"]
ROLES: tuple[Role, ...] = ("person", "junk", "distractor")
"""In files and arrays a role is stored as its index here."""

PARTS = ("head", "upper body", "lower body", "shoes")
"""The four body parts of IAUnet; in a mask, part k has index k + 1 and 0 is background."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of one person from one camera.

    Attributes:
        path: relative to the data set's root, with forward slashes.
        pid: identity number of the data set (not a training label).
        camid: camera number of the data set.
        role: "junk" is left out of every ranking, a "distractor" is a negative for all queries.
    """

    path: str
    pid: int
    camid: int
    role: Role = "person"


@dataclass(frozen=True, slots=True)
class Tracklet:
    """One person seen by one camera over time: at least one frame, in time order."""

    frames: tuple[Sample, ...]

    def __post_init__(self) -> None:
        assert self.frames, "a tracklet has at least one frame"

    def __repr__(self) -> str:
        return (
            f"Tracklet({self.path[-40:]}: {len(self.frames)} frames, pid {self.pid}, "
            f"camid {self.camid})"
        )

    @property
    def path(self) -> str:
        """The path of the first frame, which names the tracklet."""
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


class Items(tuple[Item, ...]):
    """The items of a split: a tuple that prints as one line."""

    __slots__ = ()

    def __repr__(self) -> str:
        kind = "tracklets" if any(isinstance(item, Tracklet) for item in self) else "images"
        people = len({item.pid for item in self if item.role == "person"})
        cameras = len({item.camid for item in self})
        return f"Items({len(self)} {kind}, {people} identities, {cameras} cameras)"


@dataclass(frozen=True)
class Dataset:
    """A data set read from disk. Its splits are sorted by path, so that labels never depend on the
    file system.

    Attributes:
        train, query, gallery: the splits; any sequence becomes `Items`.
        name: the manifest's name, which mask files and runs are named after.
        root: the folder that the samples' paths are relative to.
        protocol: the ranking rule's name (`retrieval.protocols`); "" for classification.
        fingerprint: sha256 over relative paths and labels of all splits, hexadecimal.
        synthetic: rendered by reidkit; results are not comparable with published ones.
        task: "retrieval", or "classification" of the training classes.
        dense: length in frames of the chunks that training tracklets are split into; 0: not split.
        labels: folder of label maps that the data set contains, if any.
        folder: of the manifest.toml that describes it; None: a manifest from elsewhere.
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
    labels: Path | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        for split in SPLITS:
            object.__setattr__(self, split, Items(getattr(self, split)))

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(getattr(self, split))} {split}" for split in SPLITS)
        return f"Dataset({self.name[:40]}: {counts})"


@dataclass(frozen=True)
class Batch:
    """The input of a training step.

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

    def __repr__(self) -> str:
        masks = "without masks" if self.masks is None else f"masks {list(self.masks.shape)}"
        return f"Batch(images {list(self.images.shape)}, {masks})"


@dataclass(frozen=True)
class ModelOutput:
    """The output of `model(images)`, in training and in evaluation mode.

    Attributes:
        features: [B, D] for the metric loss.
        logits: each [B, C], of the main classifiers (usually one).
        part_logits: each [B, C], of the stripe classifiers.
        deep_logits: each [B, C], of the deep supervision of earlier stages.
        part_maps: each [B, P, h, w] in [0, 1] ([B, T, P, h, w] for clips), part attention.
        class_maps: each [B, C, h, w], a classifier's response at every position.
    """

    features: Tensor
    logits: tuple[Tensor, ...]
    part_logits: tuple[Tensor, ...] = ()
    deep_logits: tuple[Tensor, ...] = ()
    part_maps: tuple[Tensor, ...] = ()
    class_maps: tuple[Tensor, ...] = ()

    def __repr__(self) -> str:
        logits = ", ".join(str(list(tensor.shape)) for tensor in self.logits)
        return f"ModelOutput(features {list(self.features.shape)}, logits {logits or 'none'})"
