"""From samples on disk to batches of tensors."""

# B batch, T frames of a clip, H W pixels of the network's input, h w mask

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from reidkit.config import AugmentConfig, ClipConfig
from reidkit.data.clips import frames_of, has_tracklets, sample_clip
from reidkit.data.decode import read_for_training
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
from reidkit.image import read_image
from reidkit.preprocess import Preprocess
from reidkit.types import Batch, Item, Sample


class Masks(Protocol):
    """A source of part maps, such as `masks.store.MaskStore`."""

    def read(self, paths: Sequence[str]) -> NDArray[np.uint8]:
        """uint8 part indices [len(paths), h, w]."""
        ...

    def sizes(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """(height, width) of the images that the maps were made for: int64 [len(paths), 2]."""
        ...


class RawBatch(NamedTuple):
    """A batch as workers make it: small, and ready to be pinned."""

    pixels: Tensor  # uint8 [B, H, W, 3], or clips [B, T, H, W, 3]
    boxes: Tensor  # int64 [B, 4], erasing rectangles
    labels: Tensor  # int64 [B]
    camids: Tensor  # int64 [B]
    masks: Tensor | None  # uint8 [B, h, w], or [B, T, h, w]
    mask_sizes: Tensor | None  # int64 [B, 2], or [B, T, 2]
    draws: list[SampleKey]


class TrainImages(TorchDataset[RawBatch | ReidkitError]):
    """Training images, or clips of training tracklets, fetched a batch at a time.

    Args:
        samples: images give batches of images; if there are tracklets among them, all become clips
            (an image is a tracklet of one frame).
        clip: how many frames of a tracklet, and how far apart.
    """

    def __init__(
        self,
        samples: Sequence[Item],
        *,
        root: Path,
        labels: Sequence[int],
        preprocess: Preprocess,
        augment: AugmentConfig,
        masks: Masks | None,
        clip: ClipConfig | None = None,
    ) -> None:
        self.samples = samples
        self.root = root
        self.labels = labels
        self.preprocess = preprocess
        self.augment = augment
        self.masks = masks
        self.clip = (clip or ClipConfig()) if has_tracklets(samples) else None

    def __getitems__(self, draws: list[SampleKey]) -> RawBatch | ReidkitError:
        """A batch; an error comes back as a value, since torch would bury its one line in a
        worker's traceback."""
        try:
            return self.batch(draws)
        except ReidkitError as error:
            return error

    def batch(self, draws: list[SampleKey]) -> RawBatch:
        """A batch as drawn.

        Raises:
            DataError: at the first image that cannot be read.
        """
        size, scale = self.preprocess.size, self.augment.crop_scale
        frames: list[tuple[Sample, Augmentation]] = []
        augmentations: list[Augmentation] = []
        for draw in draws:
            rng = np.random.default_rng(draw.seed)
            augmentations.append(sample_augmentation(self.augment, size, rng))
            frames += [(frame, augmentations[-1]) for frame in self._frames(draw.index, rng)]
        pixels = np.empty((len(frames), *size, 3), np.uint8)
        for row, (frame, augmentation) in enumerate(frames):
            image = read_for_training(self.root / frame.path)
            pixels[row] = augment_image(image, augmentation, self.preprocess, scale)
        masks = mask_sizes = None
        if self.masks is not None:
            paths = [frame.path for frame, _ in frames]
            pairs = zip(self.masks.read(paths), frames, strict=True)
            maps = np.stack([augment_mask(m, a, size, scale) for m, (_, a) in pairs])
            masks, mask_sizes = self._by_clip(maps), self._by_clip(self.masks.sizes(paths))
        return RawBatch(
            pixels=self._by_clip(pixels),
            boxes=torch.tensor([a.erase for a in augmentations]),
            labels=torch.tensor([self.labels[draw.index] for draw in draws]),
            camids=torch.tensor([self.samples[draw.index].camid for draw in draws]),
            masks=masks,
            mask_sizes=mask_sizes,
            draws=draws,
        )

    def _frames(self, index: int, rng: np.random.Generator) -> list[Sample]:
        frames = frames_of(self.samples[index])
        if self.clip is None:
            return list(frames)
        T, stride = self.clip.frames, self.clip.stride
        return [frames[k] for k in sample_clip(len(frames), T=T, stride=stride, rng=rng)]

    def _by_clip(self, frames: NDArray[Any]) -> Tensor:
        """[B*T, ...] -> [B, T, ...] for clips, [B, ...] as it is for images."""
        found = torch.from_numpy(frames)
        return found if self.clip is None else _clips(found, self.clip.frames)

    def path(self, draw: SampleKey) -> str:
        """The relative path of a drawn sample."""
        return self.samples[draw.index].path

    def finish(self, raw: RawBatch, device: torch.device) -> Batch:
        """Normalises and erases on the device: the batch as the network sees it."""
        T = 1 if self.clip is None else self.clip.frames
        pixels = raw.pixels.to(device, non_blocking=True).flatten(0, -4)  # [B*T, H, W, 3]
        images = self.preprocess.normalise(pixels)
        noise = None
        if self.augment.erase_noise:
            seeds = [(*draw.seed, t) for draw in raw.draws for t in range(T)]
            noise = erase_noise(images.shape, raw.boxes.repeat_interleave(T, dim=0), seeds)
        boxes = raw.boxes.to(device, non_blocking=True)
        boxes = boxes.repeat_interleave(T, dim=0)  # one rectangle for all frames of a clip
        images = erase(images, boxes, self.augment.erase_value, noise, own=True)
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
) -> Iterator[RawBatch]:
    """Batches in order, whatever the number of workers.

    Raises:
        DataError: at the first image that cannot be read.
    """
    loader: Iterable[RawBatch | ReidkitError] = DataLoader(
        images,
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),  # leaves the global generator alone
    )
    for batch in loader:
        if isinstance(batch, ReidkitError):
            raise batch
        yield batch


def _clips(frames: Tensor, T: int) -> Tensor:
    """[B*T, ...] -> [B, T, ...]."""
    return frames.reshape(-1, T, *frames.shape[1:])


def _as_it_is(batch: Any) -> Any:
    return batch


def train_labels(samples: Sequence[Item]) -> tuple[list[int], int]:
    """Contiguous labels 0..N-1 in the order of the sorted pids, and N."""
    pids = sorted({sample.pid for sample in samples})
    label = {pid: number for number, pid in enumerate(pids)}
    return [label[sample.pid] for sample in samples], len(pids)


def pixel_batches(
    batches: Iterable[Sequence[Path]], preprocess: Preprocess, *, threads: int = 4
) -> Iterator[Tensor]:
    """Images decoded and resized, in order: uint8 [B, H, W, 3] for each batch of B paths; a path
    that comes twice in a batch is decoded once.

    Pillow lets go of the interpreter while it decodes and resizes, so threads suffice. Three
    batches at most are in memory.

    Raises:
        DataError: at the first image that cannot be read.
    """

    def load(path: Path) -> NDArray[np.uint8]:
        return preprocess.pixels(read_image(path))

    with ThreadPoolExecutor(threads) as pool:
        in_flight: deque[list[Future[NDArray[np.uint8]]]] = deque()

        def first() -> Tensor:
            return torch.from_numpy(np.stack([f.result() for f in in_flight.popleft()]))

        for batch in batches:
            futures = {path: pool.submit(load, path) for path in dict.fromkeys(batch)}
            in_flight.append([futures[path] for path in batch])
            if len(in_flight) > 2:
                yield first()
        while in_flight:
            yield first()
