"""reidkit masks: show, stats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reidkit.cli.options import DataRootOption, JsonOption
from reidkit.cli.output import print_json
from reidkit.cli.prepare_masks import print_report

app = typer.Typer(help="Inspect body-part masks.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(help="Mask file, such as masks/market1501.h5.")]


@app.command()
def show(
    file: FileArgument,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Write a contact sheet of images and parts (PNG); needs --dataset."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Data set the masks belong to: name, manifest file or folder."),
    ] = None,
    data_root: DataRootOption = None,
    json: JsonOption = False,
) -> None:
    """Show the description of a mask file.

    \b
    Examples:
      reidkit masks show masks/market1501.h5
      reidkit masks show masks/market1501.h5 --dataset market1501 --sheet s.png
    """
    import dataclasses

    from reidkit.data.manifest import open_dataset
    from reidkit.errors import ConfigError
    from reidkit.masks.contact_sheet import save_contact_sheet
    from reidkit.masks.report import mask_report
    from reidkit.masks.store import MaskStore

    if sheet and not dataset:
        raise ConfigError("--sheet needs the images, too. Add --dataset NAME")
    data = open_dataset(dataset, data_root) if dataset else None
    store = MaskStore.open(file, dataset=data)
    facts = {
        "file": str(file),
        "masks": len(store),
        "bytes": file.stat().st_size,
        "map_size": store.size,
        **dataclasses.asdict(store.header),
    }
    if sheet and data:
        save_contact_sheet(sheet, store, mask_report(store), root=data.root)
        facts["sheet"] = str(sheet)
    if json:
        print_json(facts)
        return
    facts["map_size"] = "{}x{}".format(*store.size)
    for part, members in facts.pop("grouping").items():
        facts[part] = ", ".join(members)
    facts["parts"] = ", ".join(store.parts)
    for name, value in facts.items():
        print(f"{name:12} {value}")


@app.command()
def stats(file: FileArgument, json: JsonOption = False) -> None:
    """Show coverage per part, and masks that look wrong.

    \b
    Examples:
      reidkit masks stats masks/market1501.h5
    """
    from reidkit.masks.report import mask_report
    from reidkit.masks.store import MaskStore

    report = mask_report(MaskStore.open(file))
    if json:
        print_json({"file": str(file), "bytes": file.stat().st_size, **report.as_dict()})
        return
    print_report(file, report)
