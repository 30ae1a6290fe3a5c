"""One way to get an embedding: an `Embedder`, from a checkpoint or an ONNX file."""

# B batch, H W pixels of the network's input, N images, D embedding

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit import checkpoint
from reidkit.data.loading import pixel_batches
from reidkit.device import torch_device
from reidkit.errors import CheckpointError, ConfigError
from reidkit.files import sha256
from reidkit.onnxfile import OnnxEmbedder
from reidkit.preprocess import Preprocess

if TYPE_CHECKING:
    from reidkit.models.base import ReidModel

log = logging.getLogger(__name__)


class Embedder(Protocol):
    """A network ready to embed.

    Attributes:
        name: what it is, for tables and messages.
        preprocess: how its images are made.
        source_hash: sha256 of the file it came from, "" for a network in memory.
        device: where images should be.
    """

    name: str
    preprocess: Preprocess
    source_hash: str
    device: torch.device

    def embed(self, images: Tensor) -> Tensor:
        """float32 [B, 3, H, W] on `device` -> float32 [B, D] on the CPU, not L2-normalised."""
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
    ) -> None:
        self.model = model.to(device)
        self.preprocess = preprocess
        self.device = device
        self.name = name
        self.source_hash = source_hash

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
    path: Path, *, device: str = "auto", inputs: Mapping[str, Any] | None = None
) -> Embedder:
    """The embedder in a file: a checkpoint (.safetensors), a run's folder, or an .onnx file.

    Args:
        inputs: fields of `Preprocess` for an ONNX file that does not tell its own.

    Raises:
        CheckpointError, RuntimeMissing: as the embedders and `checkpoint.load` do.
        ConfigError: if `inputs` are given for a file that tells its own.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    where = torch_device(device)
    if path.suffix == ".onnx":
        return OnnxEmbedder(path, device=where, inputs=inputs or {})
    if inputs:
        raise ConfigError(f"{path} tells its own preprocessing: leave {', '.join(inputs)} out")
    model, header = checkpoint.load(path)
    return TorchEmbedder(
        model,
        preprocess=header.preprocess,
        device=where,
        name=header.arch,
        source_hash=sha256(path),
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
    rows: list[Tensor] = []
    done = 0
    for pixels in pixel_batches(paths, embedder.preprocess, batch=batch):
        images = embedder.preprocess.normalise(pixels.to(embedder.device))
        embeddings = embedder.embed(images)
        if flip:
            embeddings = embeddings + embedder.embed(images.flip(-1))
        rows.append(embeddings)
        done += len(images)
        on_progress(done, len(paths))
    return torch.cat(rows).numpy() if rows else np.empty((0, 0), np.float32)
