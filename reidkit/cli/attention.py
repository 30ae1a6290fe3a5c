"""reidkit attention."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.options import DataRootOption, DatasetOption, DeviceOption, JsonOption
from reidkit.cli.output import print_json, progress


def attention(
    model: Annotated[Path, typer.Argument(help="A checkpoint of a network with part maps.")],
    dataset: DatasetOption,
    masks: Annotated[
        Path,
        typer.Option(help="True maps of the split: reidkit prepare-masks --split query -o FILE."),
    ],
    split: Annotated[str, typer.Option(help="query, gallery or train")] = "query",
    data_root: DataRootOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Judge where part attention lies: intersection over union with true part maps."""
    import dataclasses

    from reidkit import checkpoint
    from reidkit.config import require
    from reidkit.data.manifest import open_dataset
    from reidkit.device import torch_device
    from reidkit.errors import suggest
    from reidkit.masks.store import MaskStore
    from reidkit.types import PARTS, SPLITS, Sample
    from reidkit.visualize.attention import part_agreement

    require(split in SPLITS, f"unknown split {split!r}. {suggest(split, SPLITS)}")
    data = open_dataset(dataset, data_root)
    store = MaskStore.open(masks, dataset=data, parts=PARTS)
    network, header = checkpoint.load(model / "model.safetensors" if model.is_dir() else model)
    samples = [item for item in getattr(data, split) if isinstance(item, Sample)]
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
    print(f"intersection over union with the true parts, {found.images:,} images of {split}")
    for part, iou in found.iou.items():
        print(
            f"  {part:11} {iou:.3f}  channel {found.channel[part]}, threshold "
            f"{found.threshold[part]:.3f}; own channel {found.own[part]:.3f}"
        )
    print(f"  {'mean':11} {found.mean:.3f}; own channels {sum(found.own.values()) / 4:.3f}")
