"""The interface of every network: `forward` for training, `embed` for everything else."""

# B batch, T frames, C channels, H W pixels or map cells, D embedding

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from reidkit.errors import ConfigError
from reidkit.models.backbone import Backbone
from reidkit.types import ModelOutput


class ReidModel(nn.Module, ABC):
    """A network that maps images to embeddings.

    Images are normalised float [B, 3, H, W], or clips [B, T, 3, H, W]; every network accepts both,
    with any number of frames.

    Attributes:
        embedding_dim: D of `embed`.
        parts: names of the body parts that `part_maps` are supervised with in this configuration;
            empty if training needs no masks.
        backbone: the stages that pretrained weights are loaded into.
    """

    embedding_dim: int
    parts: tuple[str, ...] = ()

    @property
    @abstractmethod
    def backbone(self) -> Backbone: ...

    @abstractmethod
    def forward(self, images: Tensor) -> ModelOutput:
        """The inputs of all losses, of the same type in training and in evaluation mode."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Test-time embedding [B, D], not L2-normalised."""

    def after_pretrained(self) -> None:  # nothing to do in most networks
        """Called after pretrained weights are loaded into the backbone: updates copies of it."""


def as_clips(images: Tensor) -> Tensor:
    """[B, 3, H, W] or [B, T, 3, H, W] -> [B, T, 3, H, W]: an image is a clip of one frame.

    Raises:
        ConfigError: if `images` has another shape.
    """
    if images.dim() == 4:
        return images.unsqueeze(1)
    if images.dim() != 5:
        shape = "x".join(str(size) for size in images.shape)
        raise ConfigError(f"found images of shape {shape}, expected [B,3,H,W] or [B,T,3,H,W]")
    return images
