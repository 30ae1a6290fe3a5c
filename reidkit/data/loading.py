"""From samples on disk to batches of tensors."""

# B batch, H W pixels of the network's input, h w mask

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from reidkit.config import AugmentConfig
from reidkit.data.sampler import Draw, TrainBatches
from reidkit.data.transforms import augment_image, augment_mask, draw_augmentation, erase
from reidkit.preprocess import Preprocess, read_image
from reidkit.types import Batch, Sample


class Masks(Protocol):
    """Where part maps come from; `masks.store.MaskStore` is one."""

    def read(self, paths: Sequence[str]) -> NDArray[np.uint8]:
        """uint8 part indices [len(paths), h, w]."""
        ...


class RawBatch(NamedTuple):
    """A batch as workers make it: small, and ready to be pinned."""

    pixels: Tensor  # uint8 [B, H, W, 3]
    boxes: Tensor  # int64 [B, 4], erasing rectangles
    labels: Tensor  # int64 [B]
    camids: Tensor  # int64 [B]
    masks: Tensor | None  # uint8 [B, h, w]
    draws: list[Draw]


class TrainImages(TorchDataset[RawBatch]):
    """Training images, fetched a batch at a time."""

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        root: Path,
        labels: Sequence[int],
        preprocess: Preprocess,
        augment: AugmentConfig,
        masks: Masks | None,
    ) -> None:
        self.samples = samples
        self.root = root
        self.labels = labels
        self.preprocess = preprocess
        self.augment = augment
        self.masks = masks

    def __getitems__(self, draws: list[Draw]) -> RawBatch:
        samples = [self.samples[draw.index] for draw in draws]
        size, scale = self.preprocess.size, self.augment.crop_scale
        augmentations = [
            draw_augmentation(self.augment, size, np.random.default_rng(draw.seed))
            for draw in draws
        ]
        pixels = np.empty((len(draws), *size, 3), np.uint8)
        for row, (sample, augmentation) in enumerate(zip(samples, augmentations, strict=True)):
            image = read_image(self.root / sample.path)
            pixels[row] = augment_image(image, augmentation, self.preprocess, scale)
        masks = None
        if self.masks is not None:
            maps = self.masks.read([sample.path for sample in samples])
            pairs = zip(maps, augmentations, strict=True)
            masks = torch.from_numpy(np.stack([augment_mask(m, a, size, scale) for m, a in pairs]))
        return RawBatch(
            pixels=torch.from_numpy(pixels),
            boxes=torch.tensor([a.erase for a in augmentations]),
            labels=torch.tensor([self.labels[draw.index] for draw in draws]),
            camids=torch.tensor([sample.camid for sample in samples]),
            masks=masks,
            draws=draws,
        )

    def path(self, draw: Draw) -> str:
        """The relative path of a drawn sample."""
        return self.samples[draw.index].path

    def finish(self, raw: RawBatch, device: torch.device) -> Batch:
        """Normalises and erases on the device: the batch as the network sees it."""
        images = self.preprocess.normalise(raw.pixels.to(device, non_blocking=True))
        noise = None
        if self.augment.erase_noise:
            seed = np.random.default_rng(raw.draws[0].seed).integers(2**63)
            noise = torch.Generator().manual_seed(int(seed))
        images = erase(images, raw.boxes, self.augment.erase_value, noise)
        return Batch(
            images=images,
            labels=raw.labels.to(device, non_blocking=True),
            camids=raw.camids.to(device, non_blocking=True),
            masks=None if raw.masks is None else raw.masks.to(device, non_blocking=True),
        )


def train_loader(
    images: TrainImages, batches: TrainBatches, *, workers: int, pin: bool
) -> DataLoader[RawBatch]:
    """Batches in order, whatever the number of workers."""
    return DataLoader(
        images,
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),  # leaves the global generator alone
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def train_labels(samples: Sequence[Sample]) -> tuple[list[int], int]:
    """Contiguous labels 0..N-1 in the order of the sorted pids, and N."""
    pids = sorted({sample.pid for sample in samples})
    label = {pid: number for number, pid in enumerate(pids)}
    return [label[sample.pid] for sample in samples], len(pids)


def pixel_batches(
    paths: Sequence[Path], preprocess: Preprocess, *, batch: int, threads: int = 4
) -> Iterator[Tensor]:
    """Images decoded and resized, in order: uint8 [B, H, W, 3], the last batch shorter.

    Pillow lets go of the interpreter while it decodes and resizes, so threads suffice. Two batches
    are in flight.

    Raises:
        DataError: at the first image that cannot be read.
    """

    def load(path: Path) -> NDArray[np.uint8]:
        return preprocess.pixels(read_image(path))

    with ThreadPoolExecutor(threads) as pool:
        in_flight: deque[list[Future[NDArray[np.uint8]]]] = deque()
        for start in range(0, len(paths), batch):
            in_flight.append([pool.submit(load, p) for p in paths[start : start + batch]])
            if len(in_flight) > 2:
                yield torch.from_numpy(np.stack([f.result() for f in in_flight.popleft()]))
        while in_flight:
            yield torch.from_numpy(np.stack([f.result() for f in in_flight.popleft()]))
