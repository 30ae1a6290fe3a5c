"""From samples on disk to batches of tensors."""

# B batch, T frames of a clip, H W pixels of the network's input, h w mask

from __future__ import annotations

import signal
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from reidkit.config import AugmentConfig, ClipConfig
from reidkit.data.clips import has_tracklets, sample_clip
from reidkit.data.decode import read_tensor
from reidkit.data.sampler import SampleKey, TrainBatches
from reidkit.data.transforms import (
    Augmentation,
    augment_image,
    augment_mask,
    erase,
    erase_noise,
    sample_augmentation,
)
from reidkit.errors import ReidkitError
from reidkit.interrupt import SIGNALS
from reidkit.preprocess import Preprocess
from reidkit.types import Batch, Item, Sample, frames


class Masks(Protocol):
    """A source of part maps, such as `masks.store.MaskStore`.

    Attributes:
        fingerprint: of all its maps; "" if it has none.
    """

    @property
    def fingerprint(self) -> str: ...

    def read(self, paths: Sequence[str]) -> NDArray[np.uint8]:
        """uint8 part indices [len(paths), h, w]."""
        ...

    def sizes(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """(height, width) of the images that the maps were made for: int64 [len(paths), 2]."""
        ...


class RawBatch(NamedTuple):
    """A batch as it leaves a worker: small, and ready to be pinned."""

    pixels: Tensor  # uint8 [B, H, W, 3], or clips [B, T, H, W, 3]
    boxes: Tensor  # int64 [B, 4], erasing rectangles
    labels: Tensor  # int64 [B]
    camids: Tensor  # int64 [B]
    masks: Tensor | None  # uint8 [B, h, w], or [B, T, h, w]
    mask_sizes: Tensor | None  # int64 [B, 2], or [B, T, 2]
    keys: list[SampleKey]


class TrainImages(TorchDataset[RawBatch | ReidkitError]):
    """Training images, or clips of training tracklets, loaded batch by batch.

    Args:
        items: a training split. With tracklets among them all samples are clips, and an image is a
            tracklet of one frame.
        root: the folder that the items' paths are relative to.
        clip: length and stride of clips.

    Attributes:
        labels: of the items, 0..N-1 in the order of the sorted pids.
        num_ids: N.
        clip: None if samples are images.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        root: Path,
        preprocess: Preprocess,
        augment: AugmentConfig,
        clip: ClipConfig,
        masks: Masks | None,
    ) -> None:
        label_of = {pid: label for label, pid in enumerate(sorted({item.pid for item in items}))}
        self.items = items
        self.labels = [label_of[item.pid] for item in items]
        self.num_ids = len(label_of)
        self.root = root
        self.preprocess = preprocess
        self.augment = augment
        self.masks = masks
        self.clip = clip if has_tracklets(items) else None

    def __getitems__(self, keys: list[SampleKey]) -> RawBatch | ReidkitError:
        """A batch, or the error as a value: raised in a worker, torch would wrap its one line in a
        traceback."""
        try:
            return self.batch(keys)
        except ReidkitError as error:
            return error

    def batch(self, keys: list[SampleKey]) -> RawBatch:
        """The batch of these samples, augmented by their own seeds.

        Raises:
            DataError: at the first image that cannot be read.
        """
        size, scale = self.preprocess.size, self.augment.crop_scale
        images: list[tuple[Sample, Augmentation]] = []
        augmentations: list[Augmentation] = []
        for key in keys:
            rng = np.random.default_rng(key.seed)
            augmentations.append(sample_augmentation(self.augment, size, rng))
            images += [(frame, augmentations[-1]) for frame in self._frames(key.index, rng)]
        pixels = np.empty((len(images), *size, 3), np.uint8)
        for row, (frame, augmentation) in enumerate(images):
            image = read_tensor(self.root / frame.path)
            pixels[row] = augment_image(image, augmentation, self.preprocess, scale)
        masks = mask_sizes = None
        if self.masks is not None:
            paths = [frame.path for frame, _ in images]
            pairs = zip(self.masks.read(paths), images, strict=True)
            maps = np.stack([augment_mask(m, a, size, scale) for m, (_, a) in pairs])
            masks, mask_sizes = self._by_clip(maps), self._by_clip(self.masks.sizes(paths))
        return RawBatch(
            pixels=self._by_clip(pixels),
            boxes=torch.tensor([a.erase for a in augmentations]),
            labels=torch.tensor([self.labels[key.index] for key in keys]),
            camids=torch.tensor([self.items[key.index].camid for key in keys]),
            masks=masks,
            mask_sizes=mask_sizes,
            keys=keys,
        )

    def _frames(self, index: int, rng: np.random.Generator) -> list[Sample]:
        samples = list(frames([self.items[index]]))
        if self.clip is None:
            return samples
        T, stride = self.clip.frames, self.clip.stride
        return [samples[k] for k in sample_clip(len(samples), T=T, stride=stride, rng=rng)]

    def _by_clip(self, rows: NDArray[Any]) -> Tensor:
        """[B*T, ...] -> [B, T, ...] for clips; images stay [B, ...]."""
        tensor = torch.from_numpy(rows)
        return tensor if self.clip is None else _clips(tensor, self.clip.frames)

    def path(self, key: SampleKey) -> str:
        """The relative path of a sample."""
        return self.items[key.index].path

    def finish(self, raw: RawBatch, device: torch.device) -> Batch:
        """Normalises and erases on the device: the network's input."""
        T = 1 if self.clip is None else self.clip.frames
        pixels = raw.pixels.to(device, non_blocking=True).flatten(0, -4)  # [B*T, H, W, 3]
        images = self.preprocess.normalise(pixels)
        noise = None
        if self.augment.erase_noise:
            seeds = [(*key.seed, t) for key in raw.keys for t in range(T)]
            noise = erase_noise(images.shape, raw.boxes.repeat_interleave(T, dim=0), seeds)
        boxes = raw.boxes.to(device, non_blocking=True)
        boxes = boxes.repeat_interleave(T, dim=0)  # one rectangle for all frames of a clip
        images = erase(images, boxes, self.augment.erase_value, noise, inplace=True)
        if self.clip is not None:
            images = _clips(images, T)
        return Batch(
            images=images,
            labels=raw.labels.to(device, non_blocking=True),
            camids=raw.camids.to(device, non_blocking=True),
            masks=None if raw.masks is None else raw.masks.to(device, non_blocking=True),
            mask_sizes=raw.mask_sizes,
        )


def train_loader(
    images: TrainImages, batches: TrainBatches, *, workers: int, pin: bool
) -> Generator[RawBatch, None, None]:
    """Raw batches in the order of `batches`, for any number of workers. Close it: its workers
    ignore SIGTERM.

    Raises:
        DataError: at the first image that cannot be read.
    """
    loader: Iterable[RawBatch | ReidkitError] = DataLoader(
        images,
        batch_sampler=batches,
        collate_fn=_identity,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_leave_signals_to_the_parent,
        generator=torch.Generator().manual_seed(0),  # leaves the global generator alone
    )
    for batch in loader:
        if isinstance(batch, ReidkitError):
            raise batch
        yield batch


def _clips(frames: Tensor, T: int) -> Tensor:
    """[B*T, ...] -> [B, T, ...]."""
    return frames.reshape(-1, T, *frames.shape[1:])


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and cluster schedulers signal all processes at once; the parent stops its workers."""
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)


def _identity(batch: Any) -> Any:
    return batch
