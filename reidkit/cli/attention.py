"""reidkit attention."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.options import DataRootOption, DatasetOption, DeviceOption, JsonOption
from reidkit.cli.output import print_json, progress
from reidkit.types import Split

log = logging.getLogger(__name__)


def attention(
    model: Annotated[
        Path, typer.Argument(help="Checkpoint or run folder of a network with part maps.")
    ],
    dataset: DatasetOption,
    masks: Annotated[Path, typer.Option(help="Part mask file of the split.")],
    split: Annotated[Split, typer.Option(help="Split to measure.")] = "query",
    data_root: DataRootOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure how well part attention agrees with part masks.

    Prints the intersection over union of each part, with the channels and thresholds that fit best.

    \b
    Examples:
      reidkit prepare-masks --dataset market1501 --split query -o query.h5
      reidkit attention runs/x --dataset market1501 --masks query.h5
    """
    import dataclasses

    from reidkit.cli.runs import find_model
    from reidkit.config import require
    from reidkit.data.manifest import open_dataset

    path = find_model(model)
    require(masks.is_file(), f"--masks {masks}: no such file")
    data = open_dataset(dataset, data_root)

    from reidkit import checkpoint
    from reidkit.device import torch_device
    from reidkit.masks.store import MaskStore
    from reidkit.types import PARTS, Sample
    from reidkit.visualize.part_attention import part_agreement

    store = MaskStore.open(masks, dataset=data, parts=PARTS)
    network, header = checkpoint.load(path)
    samples = [item for item in getattr(data, split) if isinstance(item, Sample)]
    log.info("comparing the part maps of %d %s images with %s", len(samples), split, masks)
    with progress("attention") as on_progress:
        found = part_agreement(
            network,
            data,
            samples,
            store,
            preprocess=header.preprocess,
            device=torch_device(device),
            on_progress=on_progress,
        )
    if json:
        print_json({**dataclasses.asdict(found), "mean": found.mean})
        return
    print(f"intersection over union with the part masks, {found.images:,} {split} images")
    for part, iou in found.iou.items():
        print(
            f"  {part:11} {iou:.3f}  channel {found.channel[part]}, threshold "
            f"{found.threshold[part]:.3f}; supervised channel {found.own[part]:.3f}"
        )
    own = sum(found.own.values()) / len(found.own)
    print(f"  {'mean':11} {found.mean:.3f}; supervised channels {own:.3f}")
