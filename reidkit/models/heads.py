"""Heads: from a pooled vector to an embedding and identity logits."""

# B batch, D embedding

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from reidkit.choices import EmbeddingSide
from reidkit.models.options import HeadName


class HeadOutput(NamedTuple):
    """features [B, D] for the metric loss; logits [B, ids], empty without a classifier."""

    features: Tensor
    logits: tuple[Tensor, ...]


class Head(nn.Module):
    """Batch norm on the pooled vector, then a linear classifier.

    In evaluation mode the embedding is an affine function of the pooled vector (unless `reduced`),
    so that averaging a tracklet's clips before or after the head gives the same embedding.

    Args:
        dim: D.
        num_ids: training identities; 0 builds no classifier.
        kind: "bn" (IAUnet, IANet): trainable bias in both layers, the metric loss takes the vector
            after BN. "bnneck" (RGA): BN's bias is fixed at 0, the classifier has no bias and is
            initialised from N(0, 0.001), the metric loss takes the vector before BN. "plain": no
            BN (torchreid's ResNet, torchvision's weights). BN's weight is initialised to 1;
            IAUnet's was sampled from U(0, 1), the default of torch 1.0.1.
        embedding: `embed` returns the vector after ("post-bn") or before ("pre-bn") BN.
        dropout: before the classifier (RGA's argparse default is 0.5, its script sets 0).
        reduced: number of features of a linear layer with batch norm and ReLU in front of BN
            (torchreid's resnet50_fc512); 0 for none.

    Attributes:
        embedding_dim: D, or `reduced`.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_ids: int,
        kind: HeadName = "bn",
        embedding: EmbeddingSide = "post-bn",
        dropout: float = 0.0,
        reduced: int = 0,
    ) -> None:
        super().__init__()
        self.reduce = nn.Sequential()
        if reduced:
            self.reduce = nn.Sequential(nn.Linear(dim, reduced), nn.BatchNorm1d(reduced), nn.ReLU())
            dim = reduced
        self.embedding_dim = dim
        self.kind = kind
        self.embedding = embedding
        self.bn = nn.Identity() if kind == "plain" else nn.BatchNorm1d(dim)
        self.dropout = nn.Dropout(dropout)
        self.classifier = None
        if num_ids:
            self.classifier = nn.Linear(dim, num_ids, bias=kind != "bnneck")
        if kind == "bnneck":
            assert isinstance(self.bn, nn.BatchNorm1d)
            self.bn.bias.requires_grad_(False)
            if self.classifier is not None:
                nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, pooled: Tensor) -> HeadOutput:
        """pooled [B, D], before BN."""
        pooled = self.reduce(pooled)
        normed = self.bn(pooled)
        logits = () if self.classifier is None else (self.classifier(self.dropout(normed)),)
        return HeadOutput(pooled if self.kind == "bnneck" else normed, logits)

    def embed(self, pooled: Tensor) -> Tensor:
        """Test-time embedding [B, D]."""
        pooled = self.reduce(pooled)
        return pooled if self.embedding == "pre-bn" else self.bn(pooled)
