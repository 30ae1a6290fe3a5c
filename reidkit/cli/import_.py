"""reidkit import."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.options import JsonOption, parse_size
from reidkit.cli.output import print_json

PUBLISHED_FRAMES = 4
"""T of IAUnet's video networks (sec. IV-B); the weights do not tell it."""


def import_(
    file: Annotated[Path, typer.Argument(help="Weights of another project (.pth, .safetensors).")],
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            help="iaunet-reference, ianet-reference, rga-reference, pfsa-reference, torchreid "
            "or torchvision",
        ),
    ],
    arch: Annotated[str, typer.Option(help="Our architecture that takes them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint to write.")],
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH. [default: the architecture's]")
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(min=0, help="Frames of a clip, 0: images. [default: as the weights tell, 4]"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of the architecture, as arch.last_stride=2."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Turn another project's weights into a checkpoint of ours, completely or not at all."""
    from reidkit import checkpoint
    from reidkit.config import set_layer
    from reidkit.errors import ConfigError
    from reidkit.external import import_weights

    layer = set_layer(set_ or ()).table
    if set(layer) - {"arch"}:
        raise ConfigError("--set here takes options of the architecture: arch.KEY=VALUE")
    found = import_weights(
        file,
        format=from_,
        arch=arch,
        options=layer.get("arch", {}),
        input_size=None if size is None else (parse_size(size)[0], parse_size(size)[1]),
    )
    if frames is None:
        frames = PUBLISHED_FRAMES if found.has_clips else 0
    header = checkpoint.Header(
        arch=found.arch,
        arch_config=dataclasses.asdict(found.config),
        preprocess=found.preprocess,
        num_ids=found.num_ids,
        frames=frames,
        recipe={"imported": {"file": file.name, "format": from_}},
    )
    checkpoint.save(out, found.model, header)
    if json:
        print_json(
            {
                "file": str(out),
                "arch": found.arch,
                "options": dataclasses.asdict(found.config),
                "num_ids": found.num_ids,
                "frames": frames,
                "matched": len(found.matched),
                "renamed": dict(found.renamed),
                "ignored": list(found.ignored),
                "missing": list(found.missing),
            }
        )
        return
    print(
        f"{len(found.matched)} tensors matched, {len(found.renamed)} renamed, "
        f"{len(found.ignored)} ignored, {len(found.missing)} missing"
    )
    for what, names in (("ignored", found.ignored), ("missing", found.missing)):
        if names:
            print(f"{what}: {', '.join(names)}")
    print(f"{out} takes {f'clips of {frames} frames' if frames else 'images'}")
