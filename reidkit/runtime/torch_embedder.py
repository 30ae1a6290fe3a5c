"""Embedding by a PyTorch network."""

# B batch, T frames, H W pixels of the network's input, D embedding

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.preprocess import Preprocess

if TYPE_CHECKING:
    from reidkit.models.base import ReidModel


class TorchEmbedder:
    """A PyTorch network; it embeds in evaluation mode and returns to the mode it was in. See
    `embedder.Embedder`."""

    concurrency = 1  # PyTorch has threads of its own

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

    @property
    def dimension(self) -> int:
        """D."""
        return self.model.embedding_dim

    @property
    def description(self) -> str:
        """Device and precision in one line."""
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{self.name}: PyTorch {torch.__version__}, {self.device}{threads}, fp32"

    def images(self, pixels: NDArray[np.uint8]) -> Tensor:
        """uint8 [B, H, W, 3], or clips [B, T, H, W, 3] -> normalised float32 [B, 3, H, W], or
        [B, T, 3, H, W], on the device."""
        flat = torch.from_numpy(pixels).to(self.device).flatten(0, -4)  # [B*T, H, W, 3]
        images = self.preprocess.normalise(flat)
        return images.reshape(*pixels.shape[:-3], *images.shape[1:])

    @torch.inference_mode()
    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(pixels) == 0:
            return np.empty((0, self.dimension), np.float32)
        was_training = self.model.training
        self.model.eval()
        try:
            embeddings: Tensor = self.model.embed(self.images(pixels))
        finally:
            self.model.train(was_training)
        found: NDArray[np.float32] = embeddings.float().cpu().numpy()
        return found
