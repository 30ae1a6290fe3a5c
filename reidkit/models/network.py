"""The structure of most architectures: a backbone with blocks, average pooling, a head."""

# B batch, T frames, C channels, H W map, D embedding

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from reidkit.models.backbone import Backbone
from reidkit.models.base import ReidModel, as_clips
from reidkit.models.blocks.base import Block, split_frames
from reidkit.models.heads import Head
from reidkit.models.options import AnyPlacement
from reidkit.types import ModelOutput


class TrunkOutput(NamedTuple):
    """Maps of the kept stages, each [B, T, C, H, W], and part maps, each [B, T, P, h, w]."""

    maps: tuple[Tensor, ...]
    part_maps: tuple[Tensor, ...]


class Trunk(nn.Module):
    """A backbone with blocks between its units.

    Args:
        backbone: stem and stages.
        blocks: the block "stage2" follows the last unit of stage 2, "stage2_0" its first.
        keep: stages whose outputs are returned, in ascending order.
    """

    def __init__(
        self, backbone: Backbone, *, blocks: Mapping[str, Block], keep: Sequence[int] = (4,)
    ) -> None:
        super().__init__()
        self.keep = tuple(keep)
        self.backbone = backbone
        self.blocks = nn.ModuleDict(blocks)

    def forward(self, images: Tensor) -> TrunkOutput:
        clips = as_clips(images)
        B, T = clips.shape[:2]
        x = self.backbone.stem(clips.flatten(0, 1))
        maps: list[Tensor] = []
        part_maps: list[Tensor] = []
        for stage in (1, 2, 3, 4):
            units = self.backbone.units(stage)
            for index, unit in enumerate(units):
                x = unit(x)
                last = index == len(units) - 1
                key = f"stage{stage}" if last else f"stage{stage}_{index}"
                if key in self.blocks:
                    clip, found = self.blocks[key](split_frames(x, B, T))
                    x = clip.flatten(0, 1)
                    part_maps.extend(found)
            if stage in self.keep:
                maps.append(split_frames(x, B, T))
        return TrunkOutput(tuple(maps), tuple(part_maps))


class GlobalNet(ReidModel):
    """Trunk, average over positions and frames, head: one global feature vector."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        head: Head,
        blocks: Mapping[str, Block] | None = None,
        parts: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.trunk = Trunk(backbone, blocks=blocks or {})
        self.head = head
        self.embedding_dim = head.embedding_dim
        self.parts = tuple(parts)

    @property
    def backbone(self) -> Backbone:
        return self.trunk.backbone

    def forward(self, images: Tensor) -> ModelOutput:
        trunk = self.trunk(images)
        features, logits = self.head(average(trunk.maps[-1]))
        maps = tuple(frame_maps(found, images) for found in trunk.part_maps) if self.parts else ()
        return ModelOutput(features=features, logits=logits, part_maps=maps)

    def embed(self, images: Tensor) -> Tensor:
        return self.head.embed(average(self.trunk(images).maps[-1]))


def average(clip_map: Tensor) -> Tensor:
    """Mean over positions, then over frames: [B, T, C, H, W] -> [B, C]."""
    return clip_map.mean((3, 4)).mean(1)


def frame_maps(maps: Tensor, images: Tensor) -> Tensor:
    """Part maps [B, T, P, h, w] of clips unchanged, of images as [B, P, h, w]."""
    return maps.squeeze(1) if images.dim() == 4 else maps


def place_blocks(
    backbone: Backbone,
    *,
    stages: Sequence[int],
    build: Callable[[int, int], Block],
    placement: AnyPlacement = "after",
) -> dict[str, Block]:
    """Blocks of these stages, by their keys in `Trunk`.

    Args:
        build: builds a block from (stage, channels).
        placement: "after" the last unit of a stage, "before" that unit, or after "every" unit.
    """
    blocks: dict[str, Block] = {}
    for stage in stages:
        channels = backbone.unit_channels(stage)
        if placement != "after":
            first = 0 if placement == "every" else len(channels) - 2
            for index in range(first, len(channels) - 1):
                blocks[f"stage{stage}_{index}"] = build(stage, channels[index])
        if placement != "before":
            blocks[f"stage{stage}"] = build(stage, channels[-1])
    return blocks
