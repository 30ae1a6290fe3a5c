"""What human parsers with a network of their own have in common: images in, label maps out."""

# H W pixels of an image

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from reidkit.masks.labels import Labels, LabelSet

Image = NDArray[np.uint8]
"""RGB [H, W, 3]."""


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
