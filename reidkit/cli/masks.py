"""reidkit masks: show, stats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.options import DataRootOption, JsonOption
from reidkit.cli.output import print_json
from reidkit.cli.prepare_masks import print_report

app = typer.Typer(help="Part masks: what a file holds, and what is wrong with it.")

FileArgument = Annotated[Path, typer.Argument(help="masks/<dataset>.h5")]


@app.command()
def show(
    file: FileArgument,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Draw images with their parts over them, as PNG; needs --dataset."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="The data set, to find its images and to be checked against.")
    ] = None,
    data_root: DataRootOption = None,
    json: JsonOption = False,
) -> None:
    """What a mask file says of itself."""
    import dataclasses

    from reidkit.data.manifest import open_dataset
    from reidkit.errors import ConfigError
    from reidkit.masks.store import MaskStore

    if sheet and not dataset:
        raise ConfigError("--sheet draws the images too: say where they are by --dataset NAME")
    data = open_dataset(dataset, data_root) if dataset else None
    store = MaskStore.open(file, dataset=data)
    facts = {
        "file": str(file),
        "masks": len(store),
        "bytes": file.stat().st_size,
        **dataclasses.asdict(store.header),
    }
    if sheet and data:
        from reidkit.masks.report import report
        from reidkit.masks.sheet import draw_sheet

        draw_sheet(sheet, store, report(store), root=data.root)
        facts["sheet"] = str(sheet)
    if json:
        print_json(facts)
        return
    facts["grids"] = ", ".join(f"{h}x{w}" for h, w in store.header.grids)
    facts["map_size"] = "{}x{}".format(*store.size)
    for part, members in facts.pop("grouping").items():
        facts[part] = ", ".join(members)
    facts["parts"] = ", ".join(store.parts)
    for name, value in facts.items():
        print(f"{name:12} {value}")


@app.command()
def stats(file: FileArgument, json: JsonOption = False) -> None:
    """Coverage per part, empty masks, and the images to look at first."""
    from reidkit.masks.report import report
    from reidkit.masks.store import MaskStore

    found = report(MaskStore.open(file))
    if json:
        print_json({"file": str(file), "bytes": file.stat().st_size, **found.as_dict()})
        return
    print_report(file, found)
