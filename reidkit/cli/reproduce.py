"""reidkit reproduce."""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.cli.options import DataRootOption, DeviceOption, JsonOption
from reidkit.cli.output import print_json, print_table

if TYPE_CHECKING:
    from reidkit.config import RunConfig
    from reidkit.reproduce.runner import Measured, Table
    from reidkit.types import Dataset

log = logging.getLogger(__name__)


def reproduce(
    table: Annotated[str | None, typer.Argument(help="PAPER/TABLE, as iaunet/table7.")] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Show every row with its published numbers.")
    ] = False,
    dataset: Annotated[
        str | None, typer.Option(help="A known name, a manifest.toml, or a folder with one.")
    ] = None,
    data_root: DataRootOption = None,
    masks: Annotated[
        Path | None, typer.Option(help="Part masks. [default: masks/<dataset>.h5]")
    ] = None,
    rows: Annotated[str | None, typer.Option(help="Rows, with commas. [default: all]")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row.")] = 1,
    epochs_scale: Annotated[
        float, typer.Option(help="Shorter: 0.1 is a tenth of epochs, milestones and warm-up.")
    ] = 1.0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of all rows; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="[default: runs/reproduce/TABLE-DATASET]")
    ] = None,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 2,
    json: JsonOption = False,
) -> None:
    """Train the rows of a paper's table; print what the paper says beside what came out.

    Rows that are done are kept, an interrupted one goes on, a failed one is told at the end.
    """
    from reidkit.config import require, set_layer
    from reidkit.data.manifest import open_dataset
    from reidkit.errors import ReidkitError
    from reidkit.reproduce.runner import find_table
    from reidkit.reproduce.runner import reproduce as train_rows

    if list_:
        _list(table, json=json)
        return
    require(table is not None, "say which table: reidkit reproduce PAPER/TABLE, or --list")
    require(dataset is not None, "say on which data set: --dataset NAME")
    require(epochs_scale > 0, f"--epochs-scale must be positive, got {epochs_scale}")
    assert table is not None and dataset is not None
    found = find_table(table)
    data = open_dataset(dataset, data_root)
    folder = out or Path("runs/reproduce") / f"{table.replace('/', '-')}-{data.name}"

    def train(settings: RunConfig, place: Path, goes_on: bool) -> dict[str, Any]:
        return _train(settings, data, place, goes_on, masks, device, workers)

    measured = train_rows(
        found,
        data,
        folder=folder,
        train=train,
        rows=[name.strip() for name in rows.split(",")] if rows else [],
        seeds=seeds,
        epochs_scale=epochs_scale,
        extra=[set_layer(set_ or [])],
        on_run=lambda row, seed: log.info("-- %s, row %s, seed %d", table, row, seed),
    )
    notes = _notes(found, data, epochs_scale)
    if json:
        print_json({"table": table, "dataset": data.name, "rows": _document(measured)} | notes)
    else:
        _print(measured, title=f"{table} on {data.name}: {found.title}")
        for note in notes["notes"]:
            print(note, file=sys.stderr)
    failed = [m for m in measured if m.failures]
    if failed:
        what = "; ".join(f"{m.row.name}: {next(iter(m.failures.values()))}" for m in failed)
        raise ReidkitError(
            f"{len(failed)} of {len(measured)} rows failed ({what}). Mend it and start the same "
            "command again: what is done is kept"
        )


def _train(
    settings: RunConfig,
    data: Dataset,
    place: Path,
    goes_on: bool,
    masks: Path | None,
    device: str,
    workers: int,
) -> dict[str, Any]:
    from reidkit.checkpoint import read_header
    from reidkit.cli.train import make_watch, open_needed_masks
    from reidkit.device import torch_device
    from reidkit.training.run import run

    best = run(
        settings,
        data,
        folder=place,
        masks=open_needed_masks(settings, data, masks),
        device=torch_device(device),
        workers=workers,
        resume=goes_on,
        watch=make_watch(settings.schedule.epochs, lambda done, total: None),
    )
    return read_header(best).metrics


def _notes(table: Table, data: Dataset, epochs_scale: float) -> dict[str, list[str]]:
    notes = [f"of the paper's table: {table.note}"] if table.note else []
    notes.append("the best checkpoint is chosen by the test set, as in the papers")
    if data.synthetic:
        notes.append("synthetic data: not comparable with published numbers")
    if epochs_scale != 1:
        notes.append(f"{epochs_scale:g} of the published epochs: not comparable")
    return {"notes": notes}


def _list(only: str | None, *, json: bool) -> None:
    from reidkit.reproduce.runner import list_papers, read_tables

    papers = [only.partition("/")[0]] if only else list_papers()
    listed = [
        (f"{paper}/{table.name}", table)
        for paper in papers
        for table in read_tables(paper)
        if not only or "/" not in only or only == f"{paper}/{table.name}"
    ]
    if json:
        rows = [
            {"table": name, "row": row.name, "arch": row.arch, "set": row.set, "paper": row.paper}
            for name, table in listed
            for row in table.rows
        ]
        print_json(rows)
        return
    for name, table in listed:
        print(f"{name}  {table.title}" + (f" ({table.note})" if table.note else ""))
        for row in table.rows:
            cells = [
                f"{data} " + " ".join(f"{metric} {value:g}" for metric, value in values.items())
                for data, values in row.paper.items()
            ]
            print(f"  {row.name:22} {row.arch:13} {';  '.join(cells)}")


def _print(measured: list[Measured], *, title: str) -> None:
    metrics = list(dict.fromkeys(k for m in measured for k in (*m.published, *m.values)))
    header = ["row"] + [f"{metric}{which}" for metric in metrics for which in (" paper", " ours")]
    lines = []
    for m in measured:
        cells = [m.row.name]
        for metric in metrics:
            paper = m.published.get(metric)
            cells += ["-" if paper is None else f"{paper:.1f}", _cell(m, metric)]
        lines.append(cells)
    print_table(header, lines, title=title)


def _cell(measured: Measured, metric: str) -> str:
    if not measured.values:
        return "failed"
    mean, spread = measured.mean(metric), measured.spread(metric)
    if math.isnan(mean):
        return "-"
    return f"{mean:.1f}" + ("" if math.isnan(spread) else f" ± {spread:.1f}")


def _document(measured: list[Measured]) -> list[dict[str, Any]]:
    return [
        {
            "row": m.row.name,
            "paper": dict(m.published),
            "measured": m.values,
            "failures": m.failures,
        }
        for m in measured
    ]
