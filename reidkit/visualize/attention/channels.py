"""Channels in CIAU and CIA blocks: activation maps and relations (IAUnet, Fig. 9)."""

# T frames, C channels, K chosen channels, h w feature map

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from reidkit.errors import ConfigError
from reidkit.models.base import ReidModel
from reidkit.models.blocks.ciau import ChannelUpdate, channel_relation
from reidkit.visualize.attention.figure import Figure, View, view_frames
from reidkit.visualize.attention.inputs import FigureInputs, rounded
from reidkit.visualize.attention.recording import Call, modules_of
from reidkit.visualize.attention.sheet import Sheet, grid, matrix, own_range, reduced

COUNT = 8
"""Channels shown unless they are chosen, sampled with a fixed seed as in Fig. 9."""


def has_channel_relations(network: ReidModel) -> bool:
    """Whether it has CIAU or CIA blocks."""
    return bool(modules_of(network, ChannelUpdate))


def plot_channel_relations(inputs: FigureInputs) -> list[Figure]:
    """A row per frame: chosen channels before and after the update, and their relation C in
    percent. The colours of a map span its own lowest to highest value."""

    def plot(place: str, block: ChannelUpdate) -> Figure:
        def view(calls: dict[str, Call], t: int, picture: Image.Image) -> View:
            clips = calls["block"].input
            chosen = choose_channels(inputs.channels, clips.shape[2])
            before = clips.flatten(0, 1)[t, chosen]  # [K, h, w]
            after = calls["update"].output[t, chosen]
            percent = 100 * relation_of_frame(block, clips, t, chosen)
            labels = [str(channel) for channel in chosen]
            small = reduced(picture, 0.75)
            maps = [[own_range(small, m) for m in found] for found in (before, after)]
            cells = (
                picture,
                grid(maps, rows=("F", "updated F"), columns=labels),
                matrix(percent, rows=labels, columns=labels, high=100),
            )
            numbers = {
                "channels": chosen,
                "before": rounded(before),
                "after": rounded(after),
                "percent": rounded(percent),
            }
            return View(cells, numbers)

        rows, numbers = view_frames(inputs, {"block": block, "update": block.update}, view)
        sheet = Sheet(
            f"Relations of channels, {place}",
            ("image", "channels", "C, %"),
            rows,
            scale=("lowest value of the map", "highest"),
            note=(
                "F and updated F: channels of the block's input and of its update.",
                "C: percentage that the channel on the left takes from the channel above. A row "
                "sums to 100 over all channels, most of which are not shown.",
            ),
        )
        return Figure(place, sheet, numbers)

    blocks = modules_of(inputs.network, ChannelUpdate)
    return [plot(place, block) for place, block in blocks.items()]


def relation_of_frame(
    block: ChannelUpdate, clips: Tensor, frame: int, channels: Sequence[int]
) -> Tensor:
    """The relation of channels of one frame, [K, K]: a part of the block's relation map, whose
    rows sum to one over all channels of all frames of the clip.

    Args:
        clips: the block's input, [1, T, C, h, w], or [T, 1, C, h, w] where it processes each frame
            independently.
    """
    clip, t = divmod(frame, clips.shape[1])
    nodes = [t * clips.shape[2] + channel for channel in channels]
    return channel_relation(clips[[clip]], nodes, relation=block.relation)[0][:, nodes]


def choose_channels(requested: Sequence[int], count: int, default: Sequence[int] = ()) -> list[int]:
    """The requested channels out of `count`, else those of the default that exist, else `COUNT`
    sampled ones.

    Raises:
        ConfigError: a requested channel does not exist.
    """
    for channel in requested:
        if channel >= count:
            raise ConfigError(
                f"--channel {channel}: found a block of {count} channels, expected a number "
                f"below {count}"
            )
    chosen = list(requested) or [channel for channel in default if channel < count]
    if chosen:
        return chosen
    sampled: list[int] = np.random.default_rng(0).choice(count, COUNT, replace=False).tolist()
    return sorted(sampled)
