"""reidkit reproduce."""

from __future__ import annotations

import logging
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reidkit.cli.options import (
    DataRootOption,
    DeviceOption,
    JsonOption,
    OfflineOption,
    OptionalDatasetOption,
    PartMasksOption,
    SetOption,
    WorkersOption,
)
from reidkit.cli.output import mean_cell, print_json, print_table
from reidkit.cli.smoke import run_smoke
from reidkit.interrupt import Interrupted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reidkit.config import RunConfig
    from reidkit.reproduce.runs import RowResult, Runs
    from reidkit.reproduce.tables import Row, Table
    from reidkit.types import Dataset

log = logging.getLogger(__name__)

PANELS = {
    "Table": ("list_", "rows", "seeds", "epochs_scale", "set_"),
    "Data": ("dataset", "all_splits", "data_root", "masks"),
    "Smoke test": ("smoke", "part"),
    "Run": ("out", "device", "workers", "offline", "json"),
}


LIST_WIDTH = 80
"""Columns of `--list`."""


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
    all_splits: Annotated[
        bool,
        typer.Option(
            "--all-splits", help="Train on every split of the data set (CUHK03 classic: 20)."
        ),
    ] = False,
    data_root: DataRootOption = None,
    masks: PartMasksOption = None,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Train every row for two steps on synthetic data, evaluate it, and report "
            "which rows failed.",
        ),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="K/N", help="Run part K of N of the smoke test.", show_default="the whole"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for the runs.", show_default="runs/reproduce/TABLE-DATASET"
        ),
    ] = None,
    device: DeviceOption = "auto",
    offline: OfflineOption = False,
    workers: WorkersOption = 2,
    json: JsonOption = False,
) -> None:
    """Train the rows of a paper's table.

    Prints published beside measured results. Completed rows are kept, an interrupted one is
    resumed, and failed ones are reported at the end. Rows are trained in float32 and evaluated as
    the paper's authors do: re-ranking, rule of average precision, best or last checkpoint.

    --smoke takes PAPER, PAPER/TABLE or, for all tables, neither.

    \b
    Examples:
      reidkit reproduce --list
      reidkit reproduce iaunet/table7 --dataset market1501 --rows Baseline,SIA
      reidkit reproduce ianet/table2 --dataset cuhk03-classic-labeled --all-splits
      reidkit reproduce --smoke rga
    """
    from reidkit.config import require, set_layer
    from reidkit.data.manifest import list_splits, open_dataset
    from reidkit.errors import ReidkitError
    from reidkit.reproduce.tables import find_table

    if list_:
        _list(table, json=json)
        return
    require(part is None or smoke, "--part divides the smoke test: add --smoke")
    if smoke:
        unused = {
            "--dataset": dataset is not None,
            "--rows": rows is not None,
            "--masks": masks is not None,
            "--all-splits": all_splits,
            "--seeds": seeds != 1,
            "--epochs-scale": epochs_scale != 1,
        }
        given = [name for name, is_given in unused.items() if is_given]
        require(
            not given,
            f"--smoke generates its data and runs all rows: leave out {', '.join(given)}",
        )
        run_smoke(table, part, set_ or [], out, device, workers, json=json)
        return
    require(table is not None, "no table given: reidkit reproduce PAPER/TABLE, or --list")
    require(dataset is not None, "no data set given: --dataset NAME")
    require(epochs_scale > 0, f"--epochs-scale must be positive, got {epochs_scale}")
    assert table is not None and dataset is not None
    found = find_table(table)
    splits = list_splits(dataset)
    require(bool(splits) or not all_splits, f"{dataset} has one split only: leave out --all-splits")
    data = [open_dataset(name, data_root) for name in (splits if all_splits else [dataset])]

    from reidkit.reproduce.runs import Runs

    runs = Runs(
        rows=tuple(name.strip() for name in rows.split(",")) if rows else (),
        seeds=seeds,
        epochs_scale=epochs_scale,
        overrides=(set_layer(set_ or []),),
    )
    try:
        results = _train_rows(table, data, runs, out, masks, device, workers)
    except Interrupted as error:
        raise Interrupted(error.number, "Run the same command again to resume") from None
    notes = _notes(found, data, runs, splits=len(splits))
    shown = _shown_name(data)
    if json:
        document = {"table": table, "dataset": shown, "splits": len(data)}
        print_json({**document, "rows": _document(results), "notes": notes})
    else:
        _print(results, title=f"{table} on {shown}: {found.title}")
        for note in notes:
            print(note, file=sys.stderr)
    failed = [result for result in results if result.failures]
    if failed:
        reasons = "; ".join(f"{r.row.name}: {next(iter(r.failures.values()))}" for r in failed)
        raise ReidkitError(
            f"{len(failed)} of {len(results)} rows failed ({reasons}). Fix the cause and run the "
            "same command again: completed rows are kept"
        )


def _shown_name(data: Sequence[Dataset]) -> str:
    """The data set's name, without the split if there are several."""
    return data[0].name if len(data) == 1 else data[0].name.partition("@")[0]


def _train_rows(
    name: str,
    data: list[Dataset],
    runs: Runs,
    out: Path | None,
    masks: Path | None,
    device: str,
    workers: int,
) -> list[RowResult]:
    from reidkit.cli.train import open_masks_if_needed
    from reidkit.cli.training_progress import log_callbacks
    from reidkit.device import torch_device
    from reidkit.reproduce.runs import reproduce, train_and_evaluate
    from reidkit.reproduce.tables import find_table

    table = find_table(name)

    def train(settings: RunConfig, dataset: Dataset, folder: Path, resume: bool) -> dict[str, Any]:
        return train_and_evaluate(
            table,
            settings,
            dataset,
            folder,
            masks=open_masks_if_needed(settings, dataset, masks),
            device=torch_device(device),
            workers=workers,
            resume=resume,
            callbacks=log_callbacks(settings.schedule.epochs),
        )

    return reproduce(
        table,
        data,
        runs,
        folder=out or Path("runs/reproduce") / f"{name.replace('/', '-')}-{_shown_name(data)}",
        train=train,
        on_run=lambda row, run: log.info("-- %s, row %s, %s", name, row, run),
    )


def _notes(table: Table, data: Sequence[Dataset], runs: Runs, *, splits: int) -> list[str]:
    """What the numbers are based on."""
    from reidkit.reproduce.runs import row_settings
    from reidkit.retrieval.metrics import AP_NAMES

    first = data[0]
    settings = row_settings(table.rows[0], first.name, runs, seed=0)
    notes = [f"the paper's table: {table.note}"] if table.note else []
    if table.checkpoint == "last":
        notes.append("the checkpoint of the last epoch is evaluated, as in the authors' code")
    elif settings.test.val_fraction:
        notes.append("the best checkpoint is chosen by held-out training identities")
    elif table.checkpoint == "best":
        notes.append("the best checkpoint is chosen by the test set, as in the authors' code")
    else:
        notes.append("the best checkpoint is chosen by the test set; the paper's rule is not known")
    if first.task == "retrieval":
        reranked = "after k-reciprocal re-ranking, " if table.rerank else ""
        notes.append(f"{reranked}mAP is the mean of {AP_NAMES[table.ap]}")
    if len(data) > 1:
        notes.append(f"mean and standard deviation over {len(data)} splits")
    elif splits:
        notes.append(
            f"one of {splits} splits; the published numbers are means over all: --all-splits"
        )
    if first.synthetic:
        notes.append("synthetic data: not comparable with published numbers")
    if runs.epochs_scale != 1:
        notes.append(f"{runs.epochs_scale:g} of the published epochs: not comparable")
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
        title = f"{name}  {table.title}" + (f" ({table.note})" if table.note else "")
        print(textwrap.fill(title, LIST_WIDTH, subsequent_indent="    "))
        names, archs = (
            max(len(getattr(row, field)) for row in table.rows) for field in ("name", "arch")
        )
        for row in table.rows:
            print("\n".join(_row_lines(row, f"  {row.name:{names}}  {row.arch:{archs}}  ")))


def _row_lines(row: Row, start: str) -> list[str]:
    """A row of a table with its published results, a line per data set."""
    results = [
        f"{data} " + " ".join(f"{metric} {value:g}" for metric, value in values.items())
        for data, values in row.paper.items()
    ]
    if all(len(start + result) <= LIST_WIDTH for result in results):
        indents = [start, *(" " * len(start) for _ in results[1:])]
        return [indent + result for indent, result in zip(indents, results, strict=False)] or [
            start
        ]
    return [start.rstrip(), *(f"      {result}" for result in results)]


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
    return mean_cell(*result.mean_and_std(metric)) if result.values else "failed"


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
