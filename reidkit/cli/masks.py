"""reidkit masks: show, stats, export-parser."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from reidkit.choices import ParserName
from reidkit.cli.options import DataRootOption, JsonOption
from reidkit.cli.output import print_json, stage_progress
from reidkit.cli.parsers import ParserWeightsOption, existing_weights
from reidkit.cli.prepare_masks import print_report

app = typer.Typer(help="Inspect body-part masks, export human parsers.", no_args_is_help=True)

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
    del facts["agreement"]
    for name, value in facts.items():
        print(f"{name:12} {value}")
    if store.header.agreement:
        print(store.header.agreement.describe())


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


@app.command("export-parser")
def export_parser(
    parser: Annotated[ParserName, typer.Argument(help="Human parser.")],
    parser_weights: ParserWeightsOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="ONNX file.")] = Path("parser.onnx"),
    json: JsonOption = False,
) -> None:
    """Export a human parser to ONNX.

    The file states its test procedure, which prepare-masks --parser FILE.onnx follows. It is
    written only after ONNX Runtime has given the same scores as PyTorch.

    \b
    Examples:
      reidkit masks export-parser jppnet --parser-weights JPPNet-s2
    """
    weights = existing_weights(parser, parser_weights)

    from reidkit.export.parser import export_parser_onnx

    with stage_progress() as on_progress:
        parities = export_parser_onnx(parser, weights, out, on_progress=on_progress)
    if json:
        print_json({"file": str(out), "parity": [dataclasses.asdict(p) for p in parities]})
        return
    for parity in parities:
        print(
            f"  batch {parity.batch} at {parity.side}x{parity.side}: largest difference"
            f" {parity.error:.1e} of the largest score, same label in"
            f" {100 * parity.agreement:.2f} % of cells"
        )
    print(f"{out}: run it with reidkit prepare-masks --dataset NAME --parser {out}")
