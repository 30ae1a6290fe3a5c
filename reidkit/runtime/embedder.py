"""Networks ready to embed: an `Embedder` from a checkpoint or an ONNX file."""

# B batch, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from reidkit import checkpoint
from reidkit.device import torch_device
from reidkit.errors import ConfigError
from reidkit.files import sha256
from reidkit.preprocess import Preprocess
from reidkit.runtime.onnx_runtime import OnnxEmbedder

if TYPE_CHECKING:
    from reidkit.models.base import ReidModel

log = logging.getLogger(__name__)


class Embedder(Protocol):
    """A network ready to embed.

    Attributes:
        name: for tables and messages.
        preprocess: how its images are made.
        source_hash: sha256 of the file it was read from, "" for a network in memory.
        frames: length of the clips it was trained on; 0: it takes single images.
        device: where its images must be.
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
    """A PyTorch network; it embeds in evaluation mode and returns to the mode it was in."""

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
    """The embedder in a checkpoint (.safetensors), a run folder, or an .onnx file.

    Args:
        inputs: fields of `Preprocess`, for a third-party ONNX file that does not state its own.
        options: of a checkpoint's architecture, in place of its own.

    Raises:
        CheckpointError, RuntimeMissing: as the embedders and `checkpoint.load` do.
        ConfigError: if `inputs` are given for a file that states its own preprocessing, or
            `options` for an ONNX file.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    target = torch_device(device)
    if path.suffix == ".onnx":
        if options:
            raise ConfigError(
                f"{path} is exported with fixed options: {', '.join(options)} can only be set for "
                "a checkpoint"
            )
        return OnnxEmbedder(path, device=target, inputs=inputs or {})
    if inputs:
        raise ConfigError(
            f"{path} states its own preprocessing: remove the options {', '.join(inputs)}"
        )
    model, header = checkpoint.load(path, options=options)
    return TorchEmbedder(
        model,
        preprocess=header.preprocess,
        device=target,
        name=header.arch,
        source_hash=sha256(path),
        frames=header.frames,
    )
