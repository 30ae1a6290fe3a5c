"""An exported file against the network it was made from: on random images, and by results."""

# B batch, T frames, H W pixels, D embedding, Q queries

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from reidkit.choices import ExportInput, ExportPrecision
from reidkit.device import usable_cores
from reidkit.errors import ReidkitError
from reidkit.export.settings import ExportSettings, Feed
from reidkit.models.base import ReidModel
from reidkit.preprocess import Preprocess
from reidkit.runtime.denormals import denormals_as_zero
from reidkit.runtime.image_files import map_in_threads
from reidkit.runtime.onnx_session import open_session

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""on_progress(stage, done, total)."""

BATCHES = (1, 3, 8)
MIN_COSINE: dict[ExportPrecision, float] = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.95}
"""The lowest cosine with PyTorch that is accepted: on random images, for int8 on real ones."""

SAMPLE_IMAGES = 256
"""Random images, or frames of clips, that a float16 file is compared with the float32 one on."""

SAMPLE_BATCH = 8

FLOAT32_ROUNDING = 1e-7
"""What 1 - cosine cannot be told from 0 below."""


@dataclass(frozen=True)
class Parity:
    """How ONNX Runtime's embeddings compare with PyTorch's at one batch size, and, for networks
    that take clips, one number of frames (0: images)."""

    batch: int
    frames: int
    cosine: float  # the lowest over the batch
    error: float  # the largest absolute difference of L2-normalised embeddings


@dataclass(frozen=True)
class SampleCosines:
    """Cosines of a float16 file's embeddings with the float32 file's, on random images or clips."""

    count: int  # of images or clips
    lowest: float
    rare: float  # about one image in a thousand is below it; at most `lowest`


@dataclass(frozen=True)
class Verification:
    """How a file compares with the network; `sample` for float16 that passed the comparison with
    PyTorch, else None."""

    parities: list[Parity]
    sample: SampleCosines | None = None

    def accepts(self, least: float) -> bool:
        """Whether all cosines are at least `least`."""
        cosines = [parity.cosine for parity in self.parities]
        if self.sample is not None:
            cosines.append(self.sample.rare)
        return min(cosines) >= least


def parity_shapes(
    *, batch: int | None, clips: bool, frames: int | None, trained_frames: int
) -> list[tuple[int, int]]:
    """Shapes (batch, frames) to compare at; 0 frames stands for images.

    Args:
        batch, frames: sizes fixed in the file; None: any.
        clips: whether the file takes clips.
        trained_frames: length of the clips the network was trained on.
    """
    batches = (batch,) if batch else BATCHES
    lengths: Sequence[int] = (0,)
    if clips:
        lengths = (frames,) if frames else (trained_frames, 1, trained_frames + 3)
    return list(zip(batches, itertools.cycle(lengths), strict=False))


def sample_shapes(*, batch: int | None, frames: int) -> list[tuple[int, int]]:
    """Shapes (batch, frames) of `SAMPLE_IMAGES` images or frames, rounded up to full batches.

    Args:
        batch: fixed in the file; None: any.
        frames: length of the clips; 0: images.
    """
    size = batch or SAMPLE_BATCH
    return [(size, frames)] * math.ceil(SAMPLE_IMAGES / (size * (frames or 1)))


def random_crops(
    shapes: Sequence[tuple[int, int]], size: tuple[int, int]
) -> list[NDArray[np.uint8]]:
    """Smooth random RGB images with noise, uint8 [B, H, W, 3], for each shape (B, 0); clips
    [B, T, H, W, 3] for (B, T). The same ones each time."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for batch, frames in shapes:
        coarse = torch.rand(batch * (frames or 1), 3, 16, 8, generator=generator)
        smooth = F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
        noise = torch.rand(smooth.shape, generator=generator)
        pixels = ((0.8 * smooth + 0.2 * noise) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        leading = (batch, frames) if frames else (batch,)
        found.append(pixels.reshape(*leading, *pixels.shape[1:]).numpy())
    return found


def feed_for(caller: Preprocess, pixels: ExportInput) -> Feed:
    """The input of a graph for a caller's normalisation and channel order, in numpy alone."""

    def feed(crops: NDArray[np.uint8]) -> NDArray[Any]:
        ordered = crops if caller.channels == "rgb" else crops[..., ::-1]
        if pixels == "uint8-nhwc":
            return np.ascontiguousarray(ordered)
        values = ordered.astype(np.float32)
        if pixels != "0-255":
            values /= np.float32(255)
        if pixels == "normalised":
            values -= np.array(caller.mean, np.float32)
            values /= np.array(caller.std, np.float32)
        return np.ascontiguousarray(np.moveaxis(values, -1, -3), np.float32)

    return feed


class Verifier:
    """Compares exported files with one network.

    Args:
        preprocess: of the network.
        feed: what the caller of the file does to the crops.
        batches: RGB crops of the network's size, uint8 [B, H, W, 3] or [B, T, H, W, 3].
        least: the lowest cosine that is accepted.
    """

    def __init__(
        self,
        model: ReidModel,
        *,
        preprocess: Preprocess,
        feed: Feed,
        batches: Sequence[NDArray[np.uint8]],
        least: float,
        on_progress: Progress,
    ) -> None:
        self.feed = feed
        self.batches = batches
        self.least = least
        self.on_progress = on_progress
        self.expected = [reference(model, crops, preprocess) for crops in batches]
        self.sample: Sequence[NDArray[np.uint8]] = ()
        self.sample_expected: list[torch.Tensor] = []

    def set_sample(self, path: Path, batches: Sequence[NDArray[np.uint8]]) -> None:
        """Makes `verify` compare with the float32 file `path` too, on these batches."""
        self.sample = batches
        for embeddings in embed_batches(path, self.feed, batches):
            self.sample_expected.append(embeddings)
            self.on_progress("computing in float32", len(self.sample_expected), len(batches))

    def verify(self, path: Path) -> Verification:
        """Compares the file in ONNX Runtime with PyTorch, then, if those cosines are accepted and
        there is a sample, with the float32 file."""
        found = Verification(self._compare(path))
        if self.sample and found.accepts(self.least):
            found = Verification(found.parities, self._compare_sample(path))
        return found

    def _compare(self, path: Path) -> list[Parity]:
        parities: list[Parity] = []
        embedded = embed_batches(path, self.feed, self.batches)
        for crops, expected, found in zip(self.batches, self.expected, embedded, strict=True):
            cosine = _cosines(expected, found).min().item()
            error = (expected - found).abs().max().item()
            frames = crops.shape[1] if crops.ndim == 5 else 0
            parities.append(Parity(len(crops), frames, cosine, error))
            self.on_progress("verifying", len(parities), len(self.batches))
        return parities

    def _compare_sample(self, path: Path) -> SampleCosines:
        """Ends at the first batch with a cosine that is not accepted."""
        batches: list[torch.Tensor] = []
        embedded = embed_batches(path, self.feed, self.sample)
        for expected, found in zip(self.sample_expected, embedded, strict=True):
            batches.append(_cosines(expected, found))
            self.on_progress("verifying float16", len(batches), len(self.sample))
            if batches[-1].min() < self.least:
                break
        cosines = torch.cat(batches)
        lowest = cosines.min().item()
        return SampleCosines(len(cosines), lowest, min(lowest, rare_cosine(cosines.numpy())))


def check_verification(
    found: Verification,
    settings: ExportSettings,
    *,
    source: Path,
    target: Path,
    results_decide: bool = False,
) -> None:
    """Raises ReidkitError if a cosine is below what the precision permits.

    Args:
        results_decide: evaluation results are compared too; then float16 that differs on random
            images is a warning.
    """
    least = MIN_COSINE[settings.precision]
    if found.accepts(least):
        return
    worst = min(found.parities, key=lambda parity: parity.cosine)
    sample = found.sample
    if worst.cosine < least or sample is None:
        reason = (
            f"at batch {worst.batch}{f' of {worst.frames} frames' if worst.frames else ''} ONNX "
            f"Runtime's embeddings have cosine {worst.cosine:.6f} with PyTorch's"
        )
    elif sample.lowest < least:
        reason = (
            f"on {sample.count} random inputs the lowest cosine with float32 is {sample.lowest:.6f}"
        )
    else:
        reason = (
            f"from {sample.count} random inputs, one in a thousand is estimated to have a cosine "
            f"below {sample.rare:.6f} with float32"
        )
    if results_decide and settings.precision == "fp16":
        log.warning("%s: %s, expected at least %s; the results decide", source, reason, least)
        return
    advice = ""
    if settings.precision == "fp16":
        advice = ". Write --precision fp32, or let results decide: --verify DATASET"
    raise ReidkitError(
        f"the export of {source} failed its verification: {reason}, expected at least {least}. "
        f"{target} was not written{advice}"
    )


def rare_cosine(cosines: NDArray[np.float64]) -> float:
    """The cosine that about one image in a thousand stays below, from a few hundred.

    Where attention has nearly equal relations, rounding changes few images, but those much: the
    tail of 1 - cosine is close to a power law. By the factor that it grows from one image in ten to
    one in a hundred, it grows again to one in a thousand.
    """
    tenth, hundredth = np.maximum(1 - np.quantile(cosines, (0.1, 0.01)), FLOAT32_ROUNDING)
    return float(1 - hundredth**2 / tenth)


def embed_batches(
    path: Path, feed: Feed, batches: Sequence[NDArray[np.uint8]]
) -> Iterator[torch.Tensor]:
    """Embeddings of the file in ONNX Runtime, float64 [B, D] of each batch."""
    session = open_session(path, "cpu", threads=1)
    name = session.get_inputs()[0].name

    def embed(crops: NDArray[np.uint8]) -> torch.Tensor:
        with denormals_as_zero():
            return torch.from_numpy(session.run(None, {name: feed(crops)})[0]).double()

    yield from map_in_threads(embed, batches, usable_cores())


def _cosines(expected: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    return F.cosine_similarity(expected, found).nan_to_num(-1)


@torch.inference_mode()
def reference(model: ReidModel, crops: NDArray[np.uint8], preprocess: Preprocess) -> torch.Tensor:
    """L2-normalised float64 [B, D] of RGB crops in PyTorch."""
    ordered = crops if preprocess.channels == "rgb" else crops[..., ::-1]
    flat = torch.from_numpy(np.ascontiguousarray(ordered)).flatten(0, -4)  # [B*T, H, W, 3]
    images = preprocess.normalise(flat)
    images = images.reshape(*crops.shape[:-3], *images.shape[1:])
    return F.normalize(model.eval().embed(images).double())
