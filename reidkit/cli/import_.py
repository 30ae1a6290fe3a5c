"""reidkit import."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, get_args

import typer

from reidkit.choices import ExternalFormat
from reidkit.cli.models import SetArchOption, parse_arch_options
from reidkit.cli.options import JsonOption, parse_size
from reidkit.cli.output import print_json

VIDEO_FRAMES = 4
"""T of IAUnet's video networks (sec. IV-B), which their weights do not contain."""


def import_(
    file: Annotated[Path, typer.Argument(help="Third-party weights (.pth or .safetensors).")],
    format: Annotated[
        ExternalFormat,
        typer.Option(
            "--from",
            metavar="FORMAT",
            help=f"Source of the weights: {', '.join(get_args(ExternalFormat))}.",
        ),
    ],
    arch: Annotated[str, typer.Option(help="Architecture to load the weights into.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint to write.")],
    size: Annotated[
        str | None,
        typer.Option(help="Input size as HEIGHTxWIDTH.", show_default="the architecture's"),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=0, help="Frames per clip, 0 for images.", show_default="0, 4 for video weights"
        ),
    ] = None,
    set_: SetArchOption = None,
    json: JsonOption = False,
) -> None:
    """Convert third-party weights to a reidkit checkpoint.

    Weights are imported completely or not at all: a tensor that does not fit
    is an error, and so is a missing one that the embedding needs.

    \b
    Examples:
      reidkit import a.pth --from iaunet-reference --arch iaunet -o a.safetensors
      reidkit import b.pth --from rga-reference --arch rga-sc -o b.safetensors
    """
    from reidkit.config import require
    from reidkit.errors import CheckpointError
    from reidkit.files import check_regular
    from reidkit.registry import check_arch_options

    height_width = None if size is None else parse_size(size)
    options = parse_arch_options(set_)
    check_arch_options(arch, options, where="--set")
    check_regular(file, CheckpointError)
    require(file.is_file(), f"no such weights file: {file}")

    from reidkit import checkpoint
    from reidkit.external import import_weights

    imported = import_weights(
        file,
        format=format,
        arch=arch,
        options=options,
        input_size=None if height_width is None else (height_width[0], height_width[1]),
    )
    if frames is None:
        frames = VIDEO_FRAMES if imported.has_clips else 0
    arch_config = dataclasses.asdict(imported.config)
    header = checkpoint.Header(
        arch=imported.arch,
        arch_config=arch_config,
        preprocess=imported.preprocess,
        num_ids=imported.num_ids,
        frames=frames,
        recipe={"imported": {"file": file.name, "format": format}},
    )
    checkpoint.save(out, imported.model, header)
    keys = imported.keys
    if json:
        print_json(
            {
                "file": str(out),
                "arch": imported.arch,
                "options": arch_config,
                "num_ids": imported.num_ids,
                "frames": frames,
                "matched": len(keys.matched),
                "renamed": dict(keys.renamed),
                "ignored": list(keys.ignored),
                "missing": list(keys.missing),
            }
        )
        return
    print(
        f"{len(keys.matched)} tensors matched, {len(keys.renamed)} renamed, "
        f"{len(keys.ignored)} ignored, {len(keys.missing)} missing"
    )
    for title, names in (("ignored", keys.ignored), ("missing", keys.missing)):
        if names:
            print(f"{title}: {', '.join(names)}")
    print(f"{out}: input is {f'clips of {frames} frames' if frames else 'images'}")
