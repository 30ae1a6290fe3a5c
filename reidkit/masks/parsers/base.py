"""What human parsers with a network of their own have in common: images in, label maps out."""

# B batch, C classes, H W pixels of an image, h w of a network's input, n m of its scores

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.masks.labels import Labels, LabelSet

Image = NDArray[np.uint8]
"""RGB [H, W, 3]."""

Forward = Callable[[Tensor], Tensor]
"""A network: float32 [B, 3, h, w] -> scores float32 [B, C, n, m], on the same device."""


class Procedure(Protocol):
    """A test procedure: everything between images and label maps but the network."""

    @property
    def scales(self) -> tuple[float, ...]: ...
    @property
    def mirror(self) -> bool: ...

    def label_maps(
        self, images: Sequence[Image], forward: Forward, device: torch.device
    ) -> list[Labels]:
        """Labels uint8 [H, W] of RGB images uint8 [H, W, 3] of any sizes, as one batch."""
        ...


class NetworkParser(Protocol):
    """A network with its weights and its test procedure.

    Attributes:
        name: "schp-lip", "schp-atr", "schp-pascal" or "jppnet".
        labels: the classes of its label maps.
        key: differs whenever the same image could get a different label map: a digest of the
            weights, the test procedure and the precision.
        is_original: the authors' test procedure, with their scales and mirroring.
    """

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> LabelSet: ...
    @property
    def key(self) -> str: ...
    @property
    def is_original(self) -> bool: ...

    def label_maps(self, images: Sequence[Image]) -> list[Labels]:
        """Labels uint8 [H, W] of RGB images uint8 [H, W, 3] of any sizes, in order."""
        ...

    def original(self) -> Self:
        """The same network with the authors' test procedure; the weights are shared."""
        ...
