"""One way to get an embedding: an `Embedder`, from a checkpoint or an ONNX file."""

# B batch, T frames, H W pixels of the network's input, N images or tracklets, D embedding

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit import checkpoint
from reidkit.data.clips import ClipRule, clip_weight, cover
from reidkit.data.loading import pixel_batches
from reidkit.device import torch_device
from reidkit.errors import CheckpointError, ConfigError
from reidkit.files import sha256
from reidkit.preprocess import Preprocess
from reidkit.runtime.onnx_session import OnnxEmbedder

if TYPE_CHECKING:
    from reidkit.models.base import ReidModel

log = logging.getLogger(__name__)


class Embedder(Protocol):
    """A network ready to embed.

    Attributes:
        name: what it is, for tables and messages.
        preprocess: how its images are made.
        source_hash: sha256 of the file it came from, "" for a network in memory.
        frames: of the clips it was made for; 0: it takes single images.
        device: where images should be.
    """

    name: str
    preprocess: Preprocess
    source_hash: str
    frames: int
    device: torch.device

    def embed(self, images: Tensor) -> Tensor:
        """float32 [B, 3, H, W], or clips [B, T, 3, H, W], on `device` -> float32 [B, D] on the CPU,
        not L2-normalised."""
        ...


class TorchEmbedder:
    """A network of ours, in evaluation mode."""

    def __init__(
        self,
        model: ReidModel,
        *,
        preprocess: Preprocess,
        device: torch.device,
        name: str = "network",
        source_hash: str = "",
        frames: int = 0,
    ) -> None:
        self.model = model.to(device)
        self.preprocess = preprocess
        self.device = device
        self.name = name
        self.source_hash = source_hash
        self.frames = frames

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        was_training = self.model.training
        self.model.eval()
        try:
            embeddings: Tensor = self.model.embed(images)
        finally:
            self.model.train(was_training)
        return embeddings.float().cpu()


def load_embedder(
    path: Path,
    *,
    device: str = "auto",
    inputs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Embedder:
    """The embedder in a file: a checkpoint (.safetensors), a run's folder, or an .onnx file.

    Args:
        inputs: fields of `Preprocess` for an ONNX file that does not tell its own.
        options: of a checkpoint's architecture, in place of its own.

    Raises:
        CheckpointError, RuntimeMissing: as the embedders and `checkpoint.load` do.
        ConfigError: if `inputs` are given for a file that tells its own.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    where = torch_device(device)
    if path.suffix == ".onnx":
        if options:
            raise ConfigError(f"{path} is fixed; {', '.join(options)} can be set for a checkpoint")
        return OnnxEmbedder(path, device=where, inputs=inputs or {})
    if inputs:
        raise ConfigError(f"{path} tells its own preprocessing: leave {', '.join(inputs)} out")
    model, header = checkpoint.load(path, options=options)
    return TorchEmbedder(
        model,
        preprocess=header.preprocess,
        device=where,
        name=header.arch,
        source_hash=sha256(path),
        frames=header.frames,
    )


def newest_run(runs: Path = Path("runs")) -> Path:
    """The checkpoint of the newest run, for commands that are given none.

    Raises:
        CheckpointError: if there is no run with a checkpoint.
    """
    found = sorted(runs.glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise CheckpointError(
            f"no checkpoint given and none under {runs}. Train one: reidkit train --dataset NAME"
        )
    log.info("model: %s", found[-1])
    return found[-1]


def embed_images(
    embedder: Embedder,
    paths: Sequence[Path],
    *,
    flip: bool = False,
    batch: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """Embeddings of image files, in order: float32 [N, D], not L2-normalised.

    Args:
        flip: add the embedding of the mirrored image.

    Raises:
        DataError: at the first image that cannot be read.
    """
    if embedder.frames:
        one_each = [[path] for path in paths]
        return embed_tracklets(embedder, one_each, flip=flip, batch=batch, on_progress=on_progress)
    rows: list[Tensor] = []
    done = 0
    batches = (paths[start : start + batch] for start in range(0, len(paths), batch))
    for pixels in pixel_batches(batches, embedder.preprocess):
        images = embedder.preprocess.normalise(pixels.to(embedder.device))
        rows.append(_embed(embedder, images, flip))
        done += len(images)
        on_progress(done, len(paths))
    return torch.cat(rows).numpy() if rows else np.empty((0, 0), np.float32)


class _Clip(NamedTuple):
    """A clip to embed: whose it is, its frames, and its weight in the mean."""

    row: int
    frames: tuple[Path, ...]
    weight: float


def embed_tracklets(
    embedder: Embedder,
    tracklets: Sequence[Sequence[Path]],
    *,
    rule: ClipRule = "tclnet",
    flip: bool = False,
    batch: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """Embeddings of tracklets, in order: float32 [N, D], the mean over their clips.

    Clips of all tracklets fill batches together, so memory depends on `batch` alone and short
    tracklets waste nothing. The mean over embeddings is that over the vectors before the head's
    batch norm, as the authors average: in evaluation mode the norm is affine.

    Args:
        tracklets: paths of each one's frames in order; an image is a tracklet of one frame.
        rule: which clips (`data.clips.cover`); a network of single images sees every frame alone.
        batch: frames at a time.

    Raises:
        DataError: at the first image that cannot be read.
    """
    T = embedder.frames or 1
    if not embedder.frames and rule == "ap3d":
        rule = "tclnet"  # the mean over frames is the same

    def clips() -> Iterator[_Clip]:
        for row, frames in enumerate(tracklets):
            for clip in cover(len(frames), T=T, rule=rule):
                yield _Clip(row, tuple(frames[k] for k in clip), clip_weight(clip, rule))

    planned: deque[list[_Clip]] = deque()

    def paths() -> Iterator[list[Path]]:
        for group in _groups(clips(), frames=max(batch, T)):
            planned.append(group)
            yield [path for clip in group for path in clip.frames]

    sums: NDArray[np.float32] | None = None
    weights = np.zeros(len(tracklets), np.float32)
    for pixels in pixel_batches(paths(), embedder.preprocess):
        group = planned.popleft()
        images = embedder.preprocess.normalise(pixels.to(embedder.device))
        if embedder.frames:
            images = images.reshape(len(group), -1, *images.shape[1:])  # [B*T, ...] -> [B, T, ...]
        rows = _embed(embedder, images, flip).numpy()
        if sums is None:
            sums = np.zeros((len(tracklets), rows.shape[1]), np.float32)
        owners = np.array([clip.row for clip in group])
        shares = np.array([clip.weight for clip in group], np.float32)
        np.add.at(sums, owners, rows * shares[:, None])
        np.add.at(weights, owners, shares)
        on_progress(int(owners.max()), len(tracklets))
    on_progress(len(tracklets), len(tracklets))
    return np.empty((0, 0), np.float32) if sums is None else sums / weights[:, None]


def _groups(clips: Iterable[_Clip], *, frames: int) -> Iterator[list[_Clip]]:
    """Clips of equal length in groups of at most so many frames."""
    waiting: dict[int, list[_Clip]] = {}
    for clip in clips:
        T = len(clip.frames)
        group = waiting.setdefault(T, [])
        group.append(clip)
        if (len(group) + 1) * T > frames:
            yield waiting.pop(T)
    yield from waiting.values()


def _embed(embedder: Embedder, images: Tensor, flip: bool) -> Tensor:
    embeddings = embedder.embed(images)
    return embeddings + embedder.embed(images.flip(-1)) if flip else embeddings
