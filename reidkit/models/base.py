"""The one interface of every network: `forward` for training, `embed` for everything else."""

# B batch, T frames, C channels, H W pixels or map cells, D embedding

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from reidkit.errors import ConfigError
from reidkit.types import ModelOutput


class ReidModel(nn.Module, ABC):
    """A network that turns images into embeddings.

    Images are normalised float [B, 3, H, W], or clips [B, T, 3, H, W]; every network takes both,
    with any number of frames.

    Attributes:
        embedding_dim: D of `embed`.
        parts: names of the body parts that `part_maps` are supervised with in this configuration;
            empty if training needs no masks.
    """

    embedding_dim: int
    parts: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, images: Tensor) -> ModelOutput:
        """All that losses need; the same in training and in evaluation mode."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """The test-time feature [B, D]. The caller normalises it."""

    def after_imagenet(self) -> None:  # most networks have nothing to do here
        """Called once the backbone holds ImageNet weights; renews copies made of its parts."""


def as_clips(images: Tensor) -> Tensor:
    """[B, 3, H, W] or [B, T, 3, H, W] to [B, T, 3, H, W]: an image is a clip of one frame.

    Raises:
        ConfigError: if `images` is neither.
    """
    if images.dim() == 4:
        return images.unsqueeze(1)
    if images.dim() != 5:
        shape = "x".join(str(size) for size in images.shape)
        raise ConfigError(f"found images of shape {shape}, expected [B,3,H,W] or [B,T,3,H,W]")
    return images
