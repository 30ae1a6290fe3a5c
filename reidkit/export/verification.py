"""An exported file against the network it was made from: on random images, and by results."""

# B batch, T frames, H W pixels, D embedding, Q queries

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from reidkit.choices import ExportInput, ExportPrecision
from reidkit.export.settings import Feed
from reidkit.models.base import ReidModel
from reidkit.preprocess import Preprocess
from reidkit.runtime.onnx_session import open_session

Progress = Callable[[str, int, int], None]
"""on_progress(stage, done, total)."""

BATCHES = (1, 3, 8)
MIN_COSINE: dict[ExportPrecision, float] = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.95}
"""The lowest cosine with PyTorch that is accepted: on random images, for int8 on real ones."""


@dataclass(frozen=True)
class Parity:
    """How ONNX Runtime's embeddings compare with PyTorch's at one batch size, and, for networks
    that take clips, one number of frames (0: images)."""

    batch: int
    frames: int
    cosine: float  # the lowest over the batch
    error: float  # the largest absolute difference of L2-normalised embeddings


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


def compare(
    model: ReidModel,
    path: Path,
    preprocess: Preprocess,
    feed: Feed,
    batches: Sequence[NDArray[np.uint8]],
    *,
    on_progress: Progress | None = None,
) -> list[Parity]:
    """The network in PyTorch, with its own preprocessing, and the file in ONNX Runtime, with a
    caller's, on the same crops.

    Args:
        preprocess: of the network.
        feed: what the caller does to the crops.
        batches: RGB crops of the network's size, uint8 [B, H, W, 3] or [B, T, H, W, 3].
    """
    session = open_session(path, "cpu")
    name = session.get_inputs()[0].name
    parities: list[Parity] = []
    for crops in batches:
        expected = reference(model, crops, preprocess)
        found = torch.from_numpy(session.run(None, {name: feed(crops)})[0]).double()
        cosine = F.cosine_similarity(expected, found).nan_to_num(-1).min().item()
        error = (expected - found).abs().max().item()
        frames = crops.shape[1] if crops.ndim == 5 else 0
        parities.append(Parity(len(crops), frames, cosine, error))
        if on_progress is not None:
            on_progress("verifying", len(parities), len(batches))
    return parities


@torch.inference_mode()
def reference(model: ReidModel, crops: NDArray[np.uint8], preprocess: Preprocess) -> torch.Tensor:
    """L2-normalised float64 [B, D] of RGB crops in PyTorch."""
    ordered = crops if preprocess.channels == "rgb" else crops[..., ::-1]
    flat = torch.from_numpy(np.ascontiguousarray(ordered)).flatten(0, -4)  # [B*T, H, W, 3]
    images = preprocess.normalise(flat)
    images = images.reshape(*crops.shape[:-3], *images.shape[1:])
    return F.normalize(model.eval().embed(images).double())
