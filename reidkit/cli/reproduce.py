"""reidkit reproduce."""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.cli.options import (
    DataRootOption,
    DeviceOption,
    JsonOption,
    OptionalDatasetOption,
    PartMasksOption,
    SetOption,
    WorkersOption,
)
from reidkit.cli.output import print_json, print_table

if TYPE_CHECKING:
    from reidkit.config import RunConfig
    from reidkit.reproduce.runs import RowResult
    from reidkit.reproduce.tables import Table
    from reidkit.types import Dataset

log = logging.getLogger(__name__)

PANELS = {
    "Table": ("list_", "rows", "seeds", "epochs_scale", "set_"),
    "Data": ("dataset", "data_root", "masks"),
    "Run": ("out", "device", "workers", "json"),
}


def reproduce(
    table: Annotated[str | None, typer.Argument(help="PAPER/TABLE, such as iaunet/table7.")] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List all rows with their published results.")
    ] = False,
    rows: Annotated[
        str | None, typer.Option(help="Rows to train, comma-separated.", show_default="all")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs per row.")] = 1,
    epochs_scale: Annotated[
        float, typer.Option(help="Multiply epochs, milestones and warm-up by this factor.")
    ] = 1.0,
    set_: SetOption = None,
    dataset: OptionalDatasetOption = None,
    data_root: DataRootOption = None,
    masks: PartMasksOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for the runs.", show_default="runs/reproduce/TABLE-DATASET"
        ),
    ] = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = 2,
    json: JsonOption = False,
) -> None:
    """Train the rows of a paper's table.

    Prints published beside measured results. Completed rows are kept, an interrupted one is
    resumed, and failed ones are reported at the end.

    \b
    Examples:
      reidkit reproduce --list
      reidkit reproduce iaunet/table7 --dataset market1501 --rows Baseline,SIA
    """
    from reidkit.config import require, set_layer
    from reidkit.data.manifest import open_dataset
    from reidkit.errors import ReidkitError
    from reidkit.reproduce.runs import Runs
    from reidkit.reproduce.runs import reproduce as train_rows
    from reidkit.reproduce.tables import find_table

    if list_:
        _list(table, json=json)
        return
    require(table is not None, "no table given: reidkit reproduce PAPER/TABLE, or --list")
    require(dataset is not None, "no data set given: --dataset NAME")
    require(epochs_scale > 0, f"--epochs-scale must be positive, got {epochs_scale}")
    assert table is not None and dataset is not None
    found = find_table(table)
    data = open_dataset(dataset, data_root)

    def train(settings: RunConfig, folder: Path, resume: bool) -> dict[str, Any]:
        return _train(settings, data, folder, resume, masks, device, workers)

    results = train_rows(
        found,
        data,
        Runs(
            rows=tuple(name.strip() for name in rows.split(",")) if rows else (),
            seeds=seeds,
            epochs_scale=epochs_scale,
            overrides=(set_layer(set_ or []),),
        ),
        folder=out or Path("runs/reproduce") / f"{table.replace('/', '-')}-{data.name}",
        train=train,
        on_run=lambda row, seed: log.info("-- %s, row %s, seed %d", table, row, seed),
    )
    notes = _notes(found, data, epochs_scale)
    if json:
        document = {"table": table, "dataset": data.name, "rows": _document(results)}
        print_json({**document, "notes": notes})
    else:
        _print(results, title=f"{table} on {data.name}: {found.title}")
        for note in notes:
            print(note, file=sys.stderr)
    failed = [result for result in results if result.failures]
    if failed:
        reasons = "; ".join(f"{r.row.name}: {next(iter(r.failures.values()))}" for r in failed)
        raise ReidkitError(
            f"{len(failed)} of {len(results)} rows failed ({reasons}). Fix the cause and run the "
            "same command again: completed rows are kept"
        )


def _train(
    settings: RunConfig,
    data: Dataset,
    folder: Path,
    resume: bool,
    masks: Path | None,
    device: str,
    workers: int,
) -> dict[str, Any]:
    from reidkit.checkpoint import read_header
    from reidkit.cli.train import open_masks_if_needed
    from reidkit.cli.training_progress import log_callbacks
    from reidkit.device import torch_device
    from reidkit.training.trainer import RunOptions, Trainer

    trainer = Trainer(
        settings,
        data,
        folder=folder,
        masks=open_masks_if_needed(settings, data, masks),
        device=torch_device(device),
        options=RunOptions(workers=workers),
        callbacks=log_callbacks(settings.schedule.epochs),
    )
    return read_header(trainer.fit(resume=resume)).metrics


def _notes(table: Table, data: Dataset, epochs_scale: float) -> list[str]:
    notes = [f"the paper's table: {table.note}"] if table.note else []
    notes.append("the best checkpoint is chosen by the test set, as in the papers")
    if data.synthetic:
        notes.append("synthetic data: not comparable with published numbers")
    if epochs_scale != 1:
        notes.append(f"{epochs_scale:g} of the published epochs: not comparable")
    return notes


def _list(only: str | None, *, json: bool) -> None:
    from reidkit.reproduce.tables import list_papers, read_tables

    papers = [only.partition("/")[0]] if only else list_papers()
    listed = [
        (f"{paper}/{table.name}", table)
        for paper in papers
        for table in read_tables(paper)
        if not only or "/" not in only or only == f"{paper}/{table.name}"
    ]
    if json:
        print_json(
            [
                {"table": name, "row": r.name, "arch": r.arch, "set": r.set, "paper": r.paper}
                for name, table in listed
                for r in table.rows
            ]
        )
        return
    for name, table in listed:
        print(f"{name}  {table.title}" + (f" ({table.note})" if table.note else ""))
        for row in table.rows:
            cells = [
                f"{data} " + " ".join(f"{metric} {value:g}" for metric, value in values.items())
                for data, values in row.paper.items()
            ]
            print(f"  {row.name:22} {row.arch:13} {';  '.join(cells)}")


def _print(results: list[RowResult], *, title: str) -> None:
    metrics = list(dict.fromkeys(k for r in results for k in (*r.published, *r.values)))
    header = ["row"] + [f"{metric}{which}" for metric in metrics for which in (" paper", " ours")]
    lines = []
    for result in results:
        cells = [result.row.name]
        for metric in metrics:
            paper = result.published.get(metric)
            cells += ["-" if paper is None else f"{paper:.1f}", _cell(result, metric)]
        lines.append(cells)
    print_table(header, lines, title=title)


def _cell(result: RowResult, metric: str) -> str:
    if not result.values:
        return "failed"
    mean, std = result.mean(metric), result.std(metric)
    if math.isnan(mean):
        return "-"
    return f"{mean:.1f}" + ("" if math.isnan(std) else f" ± {std:.1f}")


def _document(results: list[RowResult]) -> list[dict[str, Any]]:
    return [
        {
            "row": result.row.name,
            "paper": dict(result.published),
            "measured": result.values,
            "failures": result.failures,
        }
        for result in results
    ]
