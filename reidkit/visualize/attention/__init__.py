"""What a network looks at: figures of its attention, as pictures and as numbers.

docs/attention.md describes them. Which figures a network has follows from its blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

from reidkit.choices import AttentionFigure
from reidkit.errors import ConfigError
from reidkit.models.base import ReidModel
from reidkit.visualize.attention import channels, class_maps, grad_cam, parts, positions
from reidkit.visualize.attention.figure import Figure, FigureKind
from reidkit.visualize.attention.inputs import FigureInputs

FIGURES: dict[AttentionFigure, FigureKind] = {
    AttentionFigure.PART_MAPS: FigureKind(
        "IAUnet, Fig. 6", parts.has_part_maps, parts.plot_part_maps
    ),
    AttentionFigure.SPATIAL_RELATIONS: FigureKind(
        "IAUnet, Fig. 7", parts.has_spatial_relations, parts.plot_spatial_relations
    ),
    AttentionFigure.TEMPORAL_RELATIONS: FigureKind(
        "IAUnet, Fig. 8", parts.has_temporal_relations, parts.plot_temporal_relations
    ),
    AttentionFigure.CHANNEL_RELATIONS: FigureKind(
        "IAUnet, Fig. 9", channels.has_channel_relations, channels.plot_channel_relations
    ),
    AttentionFigure.RECEPTIVE_FIELDS: FigureKind(
        "IANet, Fig. 8", positions.has_receptive_fields, positions.plot_receptive_fields
    ),
    AttentionFigure.CONTEXTS: FigureKind(
        "IANet, Fig. 4", positions.has_contexts, positions.plot_contexts
    ),
    AttentionFigure.MASKS: FigureKind(
        "RGA, Fig. 1", positions.has_spatial_masks, positions.plot_spatial_masks
    ),
    AttentionFigure.POSITION_RELATIONS: FigureKind(
        "RGA, Fig. 4", positions.has_position_relations, positions.plot_position_relations
    ),
    AttentionFigure.CLASS_MAPS: FigureKind(
        "PFSA, Fig. 1, 5 and 6", class_maps.has_class_maps, class_maps.plot_class_maps
    ),
    AttentionFigure.GRAD_CAM: FigureKind(
        "RGA, Fig. 5", grad_cam.has_grad_cam, grad_cam.plot_grad_cam
    ),
}


def available_figures(network: ReidModel) -> list[AttentionFigure]:
    """The kinds of figures that a network has."""
    return [name for name, kind in FIGURES.items() if kind.exists(network)]


def plot_figures(
    inputs: FigureInputs, requested: Sequence[AttentionFigure] = ()
) -> list[tuple[AttentionFigure, Figure]]:
    """The requested figures, or all that the network has, in the order of `FIGURES`.

    Raises:
        ConfigError: the network, or every subject, lacks what a requested figure shows.
    """
    available = available_figures(inputs.network)
    missing = [name for name in requested if name not in available]
    if missing:
        raise ConfigError(f"this network has no {missing[0]}. It has: {', '.join(available)}")
    plotted = []
    for name in available:
        if requested and name not in requested:
            continue
        figures = FIGURES[name].plot(inputs)
        if requested and not figures:
            raise ConfigError(f"{name} needs a clip. Add: --tracklet FOLDER")
        plotted += [(name, figure) for figure in figures]
    return plotted
