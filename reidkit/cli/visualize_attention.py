"""reidkit visualize attention."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reidkit.choices import AttentionFigure
from reidkit.cli.options import (
    DataRootOption,
    DeviceOption,
    JsonOption,
    OverwriteOption,
    check_new,
    open_data,
)
from reidkit.cli.output import print_json
from reidkit.errors import ConfigError
from reidkit.types import Split

PANELS = {
    "Images": (
        *("image", "tracklet", "dataset", "data_root", "split", "count", "query", "frames"),
    ),
    "Figures": ("figure", "at", "channel", "compare"),
    "Output": ("device", "out", "overwrite", "json"),
}


def attention(
    model: Annotated[
        Path | None,
        typer.Argument(help="Checkpoint or run folder.", show_default="the newest run"),
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="Your own image file; repeatable.")
    ] = None,
    tracklet: Annotated[
        list[Path] | None,
        typer.Option(help="Your own clip: a folder of its frames; repeatable."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set name, manifest file or folder.", show_default="that of the training"
        ),
    ] = None,
    data_root: DataRootOption = None,
    split: Annotated[Split, typer.Option(help="Split of the data set.")] = "query",
    count: Annotated[
        int | None,
        typer.Option(
            min=1, help="Evenly spaced images of the split.", show_default="5, or 1 tracklet"
        ),
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(help="Path or file name of an image of the split; repeatable."),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Evenly spaced frames of a tracklet.")] = 6,
    figure: Annotated[
        list[AttentionFigure] | None,
        typer.Option(help="Figure to plot; repeatable.", show_default="all of the network"),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y",
            help="Position as fractions of width and height; repeatable.",
            show_default="head, torso, belt, leg, shoe",
        ),
    ] = None,
    channel: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Channel to show; repeatable.", show_default="up to 8"),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Second image, for Grad-CAM of the cosine similarity.")
    ] = None,
    device: DeviceOption = "auto",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write PNG files to.")] = Path(
        "attention"
    ),
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Plot what a network looks at, as in the papers' figures.

    Which figures there are depends on the blocks of the network; Grad-CAM is always one. --json
    also prints the numbers that the figures show.

    \b
    Examples:
      reidkit visualize attention runs/x --dataset market1501 --count 5
      reidkit visualize attention runs/x --image who.jpg --figure part-maps
      reidkit visualize attention runs/x --image who.jpg --compare other.jpg --figure grad-cam
      reidkit visualize attention runs/x --tracklet frames/ --figure temporal-relations
    """
    from reidkit.cli.runs import find_model, trained_on
    from reidkit.config import require
    from reidkit.data.manifest import locate

    path = find_model(model)
    require(path.suffix != ".onnx", f"{path}: an ONNX file has no blocks. Pass a checkpoint")
    own = bool(image or tracklet)
    require(
        not (own and (dataset or query or count)),
        "give either --image and --tracklet, or --dataset with --query or --count",
    )
    require(
        compare is None or not figure or AttentionFigure.GRAD_CAM in figure,
        "--compare is for the figure grad-cam. Add --figure grad-cam",
    )
    kinds = tuple(figure or AttentionFigure)
    existing = [out / f"{kind}.png" for kind in kinds]
    existing += [file for kind in kinds for file in sorted(out.glob(f"{kind}-*.png"))]
    check_new(existing, overwrite=overwrite)
    positions = [_position(text) for text in at or ()]
    name = None if own else dataset or trained_on(path, command="visualize attention")
    if name is not None:
        locate(name, data_root)

    from reidkit import checkpoint
    from reidkit.device import torch_device
    from reidkit.files import atomic
    from reidkit.visualize.attention import FIGURES, plot_figures
    from reidkit.visualize.attention.inputs import (
        MAX_FRAMES,
        POSITIONS,
        FigureInputs,
        Subject,
        dataset_subjects,
        folder_subject,
    )
    from reidkit.visualize.attention.sheet import render

    if name is None:
        subjects = [Subject(file.name, (file,)) for file in image or ()]
        subjects += [folder_subject(folder, frames=frames) for folder in tracklet or ()]
    else:
        subjects = dataset_subjects(
            open_data(name, data_root), split, count=count, paths=query or (), frames=frames
        )
    total = sum(len(subject.frames) for subject in subjects)
    require(
        total <= MAX_FRAMES,
        f"{total} images and frames do not fit one figure, at most {MAX_FRAMES} do. "
        "Choose fewer with --count or --frames",
    )
    where = torch_device(device)
    network, header = checkpoint.load(path)
    inputs = FigureInputs(
        network.to(where),
        header.preprocess,
        where,
        tuple(subjects),
        positions=tuple(positions) or POSITIONS,
        channels=tuple(channel or ()),
        compare=None if compare is None else Subject(compare.name, (compare,)),
    )
    documents = []
    for kind, plotted in plot_figures(inputs, figure or ()):
        stem = f"{kind}-{plotted.place}" if plotted.place else str(kind)
        file = out / f"{stem}.png"
        with atomic(file) as partial:
            render(plotted.sheet).save(partial, "PNG")
        source = FIGURES[kind].source
        if not json:
            print(f"{file}  as {source}")
        documents.append(
            {"figure": str(kind), "place": plotted.place, "source": source, "file": str(file)}
            | {"numbers": plotted.numbers}
        )
    if json:
        print_json({"model": str(path), "architecture": header.arch, "figures": documents})


def _position(text: str) -> tuple[float, float]:
    """ "0.5,0.1" -> (0.5, 0.1)."""
    try:
        x, y = (float(number) for number in text.split(","))
        if 0 <= x <= 1 and 0 <= y <= 1:
            return x, y
    except ValueError:
        pass
    raise ConfigError(
        f"--at {text}: write X,Y as fractions of width and height, from 0 to 1, such as 0.5,0.1"
    )
