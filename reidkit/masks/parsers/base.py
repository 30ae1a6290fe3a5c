"""What human parsers with a network of their own have in common: images in, label maps out."""

# B batch, C classes, H W pixels of an image, h w of a network's input, n m of its scores

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.errors import ConfigError
from reidkit.masks.labels import Labels, LabelSet
from reidkit.masks.sources import digest

Image = NDArray[np.uint8]
"""RGB [H, W, 3]."""

Forward = Callable[[Tensor], Tensor]
"""A network: float32 [B, 3, h, w] -> scores float32 [B, C, n, m], on the same device."""


class Procedure(Protocol):
    """A test procedure: everything between images and label maps but the network.

    Attributes:
        scales: of the network's input; scores are averaged over them.
        mirror: average with the mirrored image, left and right labels swapped.
    """

    @property
    def scales(self) -> tuple[float, ...]: ...
    @property
    def mirror(self) -> bool: ...

    def label_maps(
        self, images: Sequence[Image], forward: Forward, device: torch.device
    ) -> list[Labels]:
        """Labels uint8 [H, W] of RGB images uint8 [H, W, 3] of any sizes, as one batch."""
        ...

    def averaged(self, scales: tuple[float, ...] | None, mirror: bool | None) -> Self:
        """The same procedure with other averages; None is the authors' choice.

        Raises:
            ConfigError: if a scale is impossible.
        """
        ...


class NetworkParser(Protocol):
    """A network with its weights and its test procedure.

    Attributes:
        name: "schp-lip", "schp-atr", "schp-pascal" or "jppnet".
        labels: the classes of its label maps.
        key: differs whenever the same image could get a different label map: a digest of the
            weights, the test procedure and the precision.
        is_original: the authors' test procedure, with their scales and mirroring, in float32.
        batch: images per forward pass; mirrored ones come on top.
    """

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> LabelSet: ...
    @property
    def key(self) -> str: ...
    @property
    def is_original(self) -> bool: ...
    @property
    def batch(self) -> int: ...

    def label_maps(self, images: Sequence[Image]) -> list[Labels]:
        """Labels uint8 [H, W] of RGB images uint8 [H, W, 3] of any sizes, in order."""
        ...

    def original(self) -> Self:
        """The same network with the authors' test procedure, in float32."""
        ...


@dataclass(frozen=True, kw_only=True)
class ProcedureParser:
    """A `NetworkParser` of a network and a test procedure.

    Attributes:
        forward: the network.
        device: of `forward`.
        batch: images per forward pass; mirrored ones come on top.
        facts: identify the network's weights and arithmetic.
        exact: makes the network in float32, if `forward` computes otherwise.
    """

    name: str
    labels: LabelSet
    procedure: Procedure
    forward: Forward
    device: torch.device
    batch: int
    facts: tuple[str, ...]
    exact: Callable[[], Forward] | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"batch {self.batch}: expected at least 1")

    @property
    def key(self) -> str:
        return digest("network parser", *self.facts, repr(self.procedure))

    @property
    def is_original(self) -> bool:
        return self.exact is None and self.procedure == self.procedure.averaged(None, None)

    def original(self) -> Self:
        return replace(
            self,
            procedure=self.procedure.averaged(None, None),
            forward=self.forward if self.exact is None else self.exact(),
            exact=None,
        )

    def label_maps(self, images: Sequence[Image]) -> list[Labels]:
        maps: list[Labels] = []
        with torch.inference_mode():
            for start in range(0, len(images), self.batch):
                batch = images[start : start + self.batch]
                maps += self.procedure.label_maps(batch, self.forward, self.device)
        return maps


def check_scales(scales: tuple[float, ...]) -> None:
    """Raises ConfigError unless there are scales, each of 0.1 to 4."""
    if not scales or not all(0.1 <= scale <= 4 for scale in scales):
        raise ConfigError(f"parser scales {scales}: expected numbers of 0.1 to 4")
