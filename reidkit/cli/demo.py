"""reidkit demo."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reidkit.cli.options import DeviceOption, JsonOption
from reidkit.cli.output import print_json, print_table

if TYPE_CHECKING:
    from reidkit.demo import DemoResult


def demo(
    out: Annotated[Path, typer.Option("--out", help="Where to put everything.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other people.")] = 0,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
) -> None:
    """Run the whole pipeline on drawn pedestrians, in a few minutes on two CPU cores."""
    from reidkit.cli.train import make_watch
    from reidkit.demo import RECIPE, DemoWatch, run_demo

    def say(stage: str, command: str) -> None:
        print(f"-- {stage}: {command}", file=sys.stderr)

    epochs = RECIPE.table["schedule"]["epochs"]
    watch = DemoWatch(on_stage=say, training=make_watch(epochs, lambda done, total: None))
    result = run_demo(out, seed=seed, device=device, watch=watch)
    if json:
        print_json(to_document(out, result))
        return
    print_result(out, result)


def to_document(out: Path, result: DemoResult) -> dict[str, object]:
    """The JSON of a demo."""
    return {
        "out": str(out),
        "reports": {name: report.to_dict() for name, report in result.reports.items()},
        "seconds": result.seconds,
        "total_seconds": sum(result.seconds.values()),
        "peak_memory_bytes": result.peak_memory,
        "export_parity": [dataclasses.asdict(parity) for parity in result.parities],
        "files": result.files,
        "synthetic": True,
    }


def print_result(out: Path, result: DemoResult) -> None:
    """One table, the time and memory it took, and what was made."""
    rows = [
        [
            name,
            *(f"{100 * value:.2f}" for value in (report.mAP, report.mINP)),
            *(f"{100 * report.rank(k):.2f}" for k in (1, 5, 10)),
        ]
        for name, report in result.reports.items()
    ]
    print_table(
        ["", "mAP", "mINP", "rank-1", "rank-5", "rank-10"],
        rows,
        title="People the network has never seen (drawn: not comparable with published numbers)",
    )
    print("\nseconds")
    for stage, seconds in result.seconds.items():
        print(f"  {stage:20} {seconds:7.1f}")
    print(f"  {'total':20} {sum(result.seconds.values()):7.1f}")
    if result.peak_memory is not None:
        print(f"  peak memory {result.peak_memory / 2**30:.1f} GiB")
    worst = max(parity.error for parity in result.parities)
    batches = ", ".join(str(parity.batch) for parity in result.parities)
    print(f"  ONNX against PyTorch at batches {batches}: absolute error <= {worst:.1e}")
    print(f"\nfiles in {out}")
    folders: dict[str, int] = {}
    for file in result.files:
        parent = Path(file).parent.as_posix()
        if file.startswith("data/") and parent != "data":
            folders[parent] = folders.get(parent, 0) + 1
        else:
            print(f"  {file}")
    for folder, count in folders.items():
        print(f"  {folder}/  {count} files")
