"""RGA: attention of a node from its relations to all other nodes (Zhang et al., CVPR 2020).

Nodes are positions (RGA-S, whose features are channels) or channels (RGA-C, whose features are
positions); both are the same function of a [features, nodes] matrix.
"""

# B batch, D features of a node, N nodes, C channels, H W map

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from reidkit.errors import ConfigError
from reidkit.models.blocks.base import FrameBlock, at_least_float32, full_precision

NodeEmbedding = Literal["asymmetric", "symmetric", "none"]
Arrangement = Literal["s", "c", "sc", "cs", "s//c"]

REDUCTION = 8
"""s1 and s2 in the paper; cha_ratio, spa_ratio and down_ratio in the released code."""


class RelationAttention(nn.Module):
    """Attention over N nodes of D features each (eq. 1 to 3).

    Args:
        features: D.
        nodes: N; the weights depend on it, so the input size is fixed.
        embedding: theta and phi differ, are shared, or are omitted (Table 4).
        own: uses the node's own feature (false: "w/o Ori." in Table 1).
        relations: uses the relation vector (false: "w/o Rel."; the pooled own feature is then one
            number per node, which is not reduced further).
    """

    def __init__(
        self,
        features: int,
        *,
        nodes: int,
        embedding: NodeEmbedding = "asymmetric",
        own: bool = True,
        relations: bool = True,
    ) -> None:
        super().__init__()
        D, N = features, nodes
        self.embedding = embedding
        self.theta = self.phi = self.related = self.own = None
        width = 0
        if relations:
            if embedding != "none":
                self.theta = _conv_norm_relu(D, D // REDUCTION)
            if embedding == "asymmetric":
                self.phi = _conv_norm_relu(D, D // REDUCTION)
            self.related = _conv_norm_relu(2 * N, N // REDUCTION)
            width += N // REDUCTION
        if own:
            self.own = _conv_norm_relu(D, D // REDUCTION)
            width += 1
        hidden = max(width // REDUCTION, 0 if relations else 1)
        self.attend = nn.Sequential(
            nn.Conv1d(width, hidden, 1, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Conv1d(hidden, 1, 1, bias=False),
            nn.BatchNorm1d(1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x [B, D, N] -> attention [B, 1, N] in (0, 1)."""
        seen = []
        if self.own is not None:
            seen.append(self.own(x).mean(1, keepdim=True))
        if self.related is not None:
            # products of whole feature vectors overflow float16
            with full_precision(x):
                affinity = self.affinity(at_least_float32(x))  # [B, N, N]
                # channel j at node p holds r(p, j), then r(j, p)
                seen.append(self.related(torch.cat((affinity.mT, affinity), 1)).to(x.dtype))
        return torch.sigmoid(self.attend(torch.cat(seen, 1)))

    def affinity(self, x: Tensor) -> Tensor:
        """x [B, D, N] -> [B, N, N]: r(i, j) in row i and column j (eq. 1)."""
        if self.theta is None:
            return x.mT @ x
        theta = self.theta(x)
        phi = theta if self.phi is None else self.phi(x)
        affinity: Tensor = theta.mT @ phi
        return affinity


class RGA(FrameBlock):
    """Spatial and channel attention in one of five arrangements (Table 1).

    Args:
        spatial: RGA-S or None.
        channel: RGA-C or None.
        grid: (height, width) of the map it was built for.
        arrangement: "s//c" is "parallel with a fusion", which the paper does not spell out; here
            the mean of the two modulated maps.
    """

    def __init__(
        self,
        *,
        spatial: RelationAttention | None,
        channel: RelationAttention | None,
        grid: tuple[int, int],
        arrangement: Arrangement = "sc",
    ) -> None:
        super().__init__()
        self.spatial = spatial
        self.channel = channel
        self.grid = grid
        self.arrangement = arrangement

    def frames(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != self.grid:
            found = "x".join(str(size) for size in x.shape[2:])
            raise ConfigError(
                f"RGA: found a map of {found}, expected {self.grid[0]}x{self.grid[1]}. "
                "Use images of the size that the network was built for"
            )
        if self.arrangement == "s//c":
            return (self._over_positions(x) + self._over_channels(x)) / 2
        if self.arrangement == "cs":
            return self._over_positions(self._over_channels(x))
        return self._over_channels(self._over_positions(x))

    def _over_positions(self, x: Tensor) -> Tensor:
        if self.spatial is None:
            return x
        attention: Tensor = self.spatial(x.flatten(2))  # [B, C, HW] -> [B, 1, HW]
        return x * attention.reshape(-1, 1, *self.grid)

    def _over_channels(self, x: Tensor) -> Tensor:
        if self.channel is None:
            return x
        attention: Tensor = self.channel(x.flatten(2).mT)  # [B, HW, C] -> [B, 1, C]
        return x * attention.mT.unsqueeze(3)


def _conv_norm_relu(features: int, reduced: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(features, reduced, 1, bias=False), nn.BatchNorm1d(reduced), nn.ReLU()
    )
